//! Arguments of a Python call: by position or by name.

use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, Value};

/// The arguments of one call. Each is taken once; what is left at the end is an error.
pub(super) struct Arguments<'a> {
    method: &'a str,
    positional: &'a [Value],
    taken: usize,
    named: Kwargs,
}

impl<'a> Arguments<'a> {
    /// Splits `args` of a call of `method`.
    pub(super) fn new(method: &'a str, args: &'a [Value]) -> Result<Self, Error> {
        let (positional, named) = match args.split_last() {
            Some((last, rest)) if last.is_kwargs() => (rest, Kwargs::try_from(last.clone())?),
            _ => (args, Kwargs::from_iter(std::iter::empty::<(&str, Value)>())),
        };
        Ok(Self::from_parts(method, positional, named))
    }

    /// Arguments that are already apart.
    pub(super) fn from_parts(method: &'a str, positional: &'a [Value], named: Kwargs) -> Self {
        Self { method, positional, taken: 0, named }
    }

    /// The next positional argument, or the one called `name`. `None` counts as absent.
    pub(super) fn optional(&mut self, name: &str) -> Result<Option<Value>, Error> {
        let value = match self.positional.get(self.taken) {
            Some(value) => {
                self.taken += 1;
                Some(value.clone())
            }
            None => self.named.get::<Option<Value>>(name)?,
        };
        Ok(value.filter(|v| !v.is_none() && !v.is_undefined()))
    }

    /// As [`Arguments::optional`], and `None` is a value like any other.
    pub(super) fn any(&mut self, name: &str) -> Result<Option<Value>, Error> {
        match self.positional.get(self.taken) {
            Some(value) => {
                self.taken += 1;
                Ok(Some(value.clone()))
            }
            None if self.named.has(name) => self.named.get::<Value>(name).map(Some),
            None => Ok(None),
        }
    }

    /// An argument that must be there.
    pub(super) fn required(&mut self, name: &str) -> Result<Value, Error> {
        self.any(name)?.ok_or_else(|| self.error(format!("argument `{name}` is missing")))
    }

    /// A string that must be there.
    pub(super) fn string(&mut self, name: &str) -> Result<String, Error> {
        let value = self.required(name)?;
        self.as_string(name, &value)
    }

    /// A string, or nothing.
    pub(super) fn optional_string(&mut self, name: &str) -> Result<Option<String>, Error> {
        match self.optional(name)? {
            Some(value) => self.as_string(name, &value).map(Some),
            None => Ok(None),
        }
    }

    /// A whole number, or nothing.
    pub(super) fn optional_int(&mut self, name: &str) -> Result<Option<i64>, Error> {
        match self.optional(name)? {
            None => Ok(None),
            Some(value) => i64::try_from(value)
                .map(Some)
                .map_err(|_| self.error(format!("argument `{name}` must be a whole number"))),
        }
    }

    /// A truth value, or nothing.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, Error> {
        Ok(self.optional(name)?.is_some_and(|value| value.is_true()))
    }

    /// No argument may be left.
    pub(super) fn finish(self) -> Result<(), Error> {
        self.named.assert_all_used()?;
        match self.positional.len() > self.taken {
            true => Err(self.error(format!("at most {} arguments are taken", self.taken))),
            false => Ok(()),
        }
    }

    fn as_string(&self, name: &str, value: &Value) -> Result<String, Error> {
        let text = value.as_str().map(str::to_owned);
        text.ok_or_else(|| {
            self.error(format!("argument `{name}` must be a string, not {}", value.kind()))
        })
    }

    /// An error that names the method.
    pub(super) fn error(&self, message: String) -> Error {
        Error::new(ErrorKind::InvalidOperation, format!("{}(): {message}", self.method))
    }
}
