//! Typed, range-checked access to the fields of a JSON object; null is as good as absent.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::load::LoadError;

/// An object, and how its fields are named in errors.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    /// Before every name, `rope_scaling.` or nothing.
    prefix: &'static str,
}

impl<'a> Fields<'a> {
    pub(super) fn new(map: &'a Map<String, Value>) -> Self {
        Self { map, prefix: "" }
    }

    pub(super) fn nested(map: &'a Map<String, Value>, prefix: &'static str) -> Self {
        Self { map, prefix }
    }

    /// The value of a field that is there and not null.
    pub(super) fn get(self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// Whether the field is written, if only as null.
    pub(super) fn is_written(self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    pub(super) fn error(self, name: &str, reason: impl Into<String>) -> LoadError {
        LoadError::config(format!("{}{name}", self.prefix), reason)
    }

    pub(super) fn wrong(self, name: &str, found: &Value, expected: &str) -> LoadError {
        let found: String = found.to_string().chars().take(80).collect();
        self.error(name, format!("{found} is not {expected}"))
    }

    /// A whole number within a range.
    pub(super) fn integer(
        self,
        name: &str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, LoadError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        // Some converters write sizes as 1024.0.
        let whole = |value: f64| (value.fract() == 0.0 && value >= 0.0).then_some(value as u64);
        let number = value.as_u64().or_else(|| value.as_f64().and_then(whole));
        match number {
            Some(number) if range.contains(&number) => Ok(Some(number)),
            _ => {
                let (low, high) = (range.start(), range.end());
                Err(self.wrong(name, value, &format!("a whole number from {low} to {high}")))
            }
        }
    }

    /// A size from 1 to `limit`.
    pub(super) fn size(self, name: &str, limit: u64) -> Result<Option<usize>, LoadError> {
        Ok(self.integer(name, 1..=limit)?.map(|size| size as usize))
    }

    /// A size that must be given, under the first of `names` that is.
    pub(super) fn required_size(self, names: &[&str], limit: u64) -> Result<usize, LoadError> {
        for name in names {
            if let Some(size) = self.size(name, limit)? {
                return Ok(size);
            }
        }
        let reason = match names {
            [_, others @ ..] if !others.is_empty() => {
                format!("the field is missing (or {})", others.join(", "))
            }
            _ => "the field is missing".to_owned(),
        };
        Err(self.error(names[0], reason))
    }

    /// A finite number above 0 and at most `most`.
    pub(super) fn positive(self, name: &str, most: f64) -> Result<Option<f32>, LoadError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_f64() {
            // In 32 bits it must still not be zero.
            Some(number) if number <= most && number as f32 > 0.0 => Ok(Some(number as f32)),
            _ => Err(self.wrong(name, value, &format!("a number above 0, at most {most}"))),
        }
    }

    /// A number within a range.
    pub(super) fn number(
        self,
        name: &str,
        least: f64,
        most: f64,
    ) -> Result<Option<f32>, LoadError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if (least..=most).contains(&number) => Ok(Some(number as f32)),
            _ => Err(self.wrong(name, value, &format!("a number from {least} to {most}"))),
        }
    }

    pub(super) fn flag(self, name: &str) -> Result<Option<bool>, LoadError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.wrong(name, other, "true or false")),
        }
    }

    pub(super) fn text(self, name: &str) -> Result<Option<&'a str>, LoadError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(name, other, "a string")),
        }
    }

    /// Token ids, one or a list.
    pub(super) fn tokens(self, name: &str) -> Result<Option<Vec<u32>>, LoadError> {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let Some(value) = self.get(name) else { return Ok(None) };
        let ids = match value {
            Value::Array(values) => values.iter().map(id).collect(),
            single => id(single).map(|id| vec![id]),
        };
        ids.map(Some).ok_or_else(|| self.wrong(name, value, "a token id or a list of them"))
    }
}
