//! The environment, read once and in this file only; everything else receives values.

use std::collections::BTreeMap;

/// A snapshot of the environment variables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// The variables of this process. Those that are not UTF-8 are left out: none of ours is.
    pub fn of_process() -> Self {
        let utf8 = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self { variables: std::env::vars_os().filter_map(utf8).collect() }
    }

    /// An environment of exactly these variables.
    pub fn of<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Self { variables: variables.into_iter().map(owned).collect() }
    }

    /// A variable that is set, also when it is set to nothing.
    pub fn raw(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// A variable that is set to something.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.raw(name).map(str::trim).filter(|value| !value.is_empty())
    }

    /// The first of several that is set, with its name.
    pub fn first<'a>(&self, names: &[&'a str]) -> Option<(&'a str, &str)> {
        names.iter().find_map(|&name| Some((name, self.get(name)?)))
    }

    /// Variables whose names end so, without the ending.
    pub fn ending_with(&self, ending: &str) -> impl Iterator<Item = (&str, &str)> {
        let variables = self.variables.iter();
        variables
            .filter_map(move |(name, value)| Some((name.strip_suffix(ending)?, value.as_str())))
    }

    /// Whether a variable is set to a true word.
    pub fn is_true(&self, name: &str) -> bool {
        self.get(name).and_then(super::values::boolean) == Some(true)
    }
}
