//! An object of a pickle: its attributes by name and type, with faults that name them.

use crate::array::Array;
use crate::error::Fault;
use crate::pickle::Value;

/// What making one estimator costs beyond the values that it reads.
const ESTIMATOR: usize = 1 << 10;

/// A view of an object: `class` with the attributes of its state.
#[derive(Clone, Copy, Debug)]
pub struct Object<'a> {
    /// Module of the class as the file spells it.
    pub module: &'a str,
    /// Name of the class, without its module.
    pub class: &'a str,
    /// Constructor arguments (a list), or `None`.
    pub arguments: Value<'a>,
    /// The state: a dictionary for estimators, `None` without one.
    pub state: Value<'a>,
    /// The object as a value.
    pub value: Value<'a>,
}

impl<'a> Object<'a> {
    /// Pays for an estimator that is made of this object.
    ///
    /// # Errors
    /// When what was read of the file so far is more than the file pays for.
    pub(crate) fn pay(self) -> Result<(), Fault> {
        if self.value.pays(ESTIMATOR) {
            return Ok(());
        }
        let reason = "the file refers to the same values so often that the model would be many times its size";
        Err(Fault::corrupt(self.class, reason))
    }

    /// An attribute, if the state has it.
    pub fn get(self, name: &str) -> Option<Value<'a>> {
        self.state.key(name)
    }

    /// An attribute that is there and not `None`.
    pub fn some(self, name: &str) -> Option<Value<'a>> {
        self.get(name).filter(|value| !value.is_none())
    }

    /// An attribute that must be there.
    ///
    /// # Errors
    /// Names the class and the attribute.
    pub fn attribute(self, name: &str) -> Result<Value<'a>, Fault> {
        let missing = || {
            self.wrong(name, "is missing; the estimator is not fitted, or its version is not known")
        };
        self.get(name).ok_or_else(missing)
    }

    /// A fault at an attribute: `LogisticRegression.coef_: <reason>`.
    pub fn wrong(self, name: &str, reason: impl Into<String>) -> Fault {
        Fault::corrupt(format!("{}.{name}", self.class), reason)
    }

    fn typed<T>(
        self,
        name: &str,
        what: &str,
        read: impl Fn(Value<'a>) -> Option<T>,
    ) -> Result<T, Fault> {
        let value = self.attribute(name)?;
        read(value)
            .ok_or_else(|| self.wrong(name, format!("expected {what}, found {}", value.describe())))
    }

    /// A number.
    ///
    /// # Errors
    /// When the attribute is missing or something else.
    pub fn f64(self, name: &str) -> Result<f64, Fault> {
        self.typed(name, "a number", Value::as_f64)
    }

    /// A number attribute, or `otherwise` where it is missing or `None`.
    ///
    /// # Errors
    /// When it is something else.
    pub fn f64_or(self, name: &str, otherwise: f64) -> Result<f64, Fault> {
        self.some(name).map_or(Ok(otherwise), |_| self.f64(name))
    }

    /// An integer.
    ///
    /// # Errors
    /// When the attribute is missing or something else.
    pub fn i64(self, name: &str) -> Result<i64, Fault> {
        self.typed(name, "an integer", Value::as_i64)
    }

    /// A count.
    ///
    /// # Errors
    /// When the attribute is missing or something else.
    pub fn usize(self, name: &str) -> Result<usize, Fault> {
        self.typed(name, "a count", Value::as_usize)
    }

    /// A truth value.
    ///
    /// # Errors
    /// When the attribute is missing or something else.
    pub fn bool(self, name: &str) -> Result<bool, Fault> {
        self.typed(name, "a truth value", Value::as_bool)
    }

    /// A text.
    ///
    /// # Errors
    /// When the attribute is missing or something else.
    pub fn str(self, name: &str) -> Result<&'a str, Fault> {
        self.typed(name, "a text", Value::as_str)
    }

    /// The items of a list, tuple or object array.
    ///
    /// # Errors
    /// When the attribute is missing or something else.
    pub fn list(self, name: &str) -> Result<Vec<Value<'a>>, Fault> {
        self.typed(name, "a list", Value::as_list)
    }

    /// An array of numbers or texts.
    ///
    /// # Errors
    /// When the attribute is missing or something else.
    pub fn array(self, name: &str) -> Result<&'a Array, Fault> {
        self.typed(name, "an array", Value::as_array)
    }

    /// Shape and numbers of an array, a list of numbers, or one number (shape `[]`).
    ///
    /// # Errors
    /// When the attribute is missing or holds something else.
    pub fn numbers(self, name: &str) -> Result<(Vec<usize>, Vec<f64>), Fault> {
        let read = |value: Value<'a>| {
            if let Some(array) = value.as_array() {
                return Some((array.shape().to_vec(), array.to_f64()?));
            }
            if let Some(items) = value.as_list() {
                let numbers: Option<Vec<f64>> = items.into_iter().map(Value::as_f64).collect();
                return Some((value.shape()?, numbers?));
            }
            value.as_f64().map(|number| (Vec::new(), vec![number]))
        };
        self.typed(name, "numbers", read)
    }

    /// Numbers of an array of one dimension (or of one row, column or number), of `length` where it is given.
    ///
    /// # Errors
    /// When the attribute is missing, something else, or of another length.
    pub fn vector(self, name: &str, length: Option<usize>) -> Result<Vec<f64>, Fault> {
        let (shape, values) = self.numbers(name)?;
        let flat = shape.iter().filter(|&&size| size != 1).count() <= 1;
        if !flat || length.is_some_and(|length| length != values.len()) {
            let expected =
                length.map_or("one dimension".into(), |length| format!("{length} values"));
            return Err(self.wrong(name, format!("expected {expected}, found shape {shape:?}")));
        }
        Ok(values)
    }

    /// Rows, columns and row-major numbers of an array of two dimensions (one dimension is one row).
    ///
    /// # Errors
    /// When the attribute is missing, something else, or of another rank.
    pub fn matrix(self, name: &str) -> Result<(usize, usize, Vec<f64>), Fault> {
        let (shape, values) = self.numbers(name)?;
        match *shape.as_slice() {
            [columns] => Ok((1, columns, values)),
            [rows, columns] => Ok((rows, columns, values)),
            _ => Err(self.wrong(name, format!("expected a matrix, found shape {shape:?}"))),
        }
    }

    /// An object.
    ///
    /// # Errors
    /// When the attribute is missing or something else.
    pub fn object(self, name: &str) -> Result<Object<'a>, Fault> {
        self.typed(name, "an object", Value::as_object)
    }

    /// The version of the library that wrote the object: `_sklearn_version` as (major, minor); `None` if absent.
    pub fn version(self) -> Option<(u32, u32)> {
        let text = self.get("_sklearn_version")?.as_str()?;
        let mut parts = text.split('.').map(|part| part.parse().ok());
        Some((parts.next()??, parts.next()??))
    }
}
