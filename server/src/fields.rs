//! Checked reading of JSON objects: every problem is collected with its path, not just the first.
//!
//! A field that is absent or null reads as `None`. Fields nobody asked for are left over and can be
//! listed, so that unknown parameters are named instead of vanishing.

use serde_json::{Map, Value};

use crate::error::{ApiError, clip};

/// Problems listed in one answer.
const MAX_PROBLEMS: usize = 10;

/// Fields whose values are checked for the model, as vLLM's `SamplingParams` does it, and not with the body's form: the
/// difference shows below KServe's prefix, where the latter is 422.
const OF_MODEL: [&str; 17] = [
    "prompt",
    "n",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "max_tokens",
    "max_completion_tokens",
    "min_tokens",
    "stop",
    "bad_words",
    "stop_token_ids",
    "allowed_token_ids",
    "logit_bias",
];

/// What is wrong with one value.
#[derive(Debug, PartialEq, Eq)]
struct Problem {
    path: String,
    text: String,
    /// Of the JSON's shape (a type), rather than of the value.
    schema: bool,
}

impl Problem {
    /// Whether it takes the model to see it.
    fn is_of_model(&self) -> bool {
        let name = self.path.split('.').next();
        !self.schema && name.is_some_and(|name| OF_MODEL.contains(&name))
    }
}

/// One JSON object being read.
#[derive(Debug)]
pub struct Fields {
    map: Map<String, Value>,
    path: String,
    problems: Vec<Problem>,
}

/// Closed range of numbers a field may take.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// Whether `min` itself is refused.
    pub open: bool,
}

impl Range {
    /// `[min, max]`.
    pub const fn closed(min: f64, max: f64) -> Self {
        Self { min, max, open: false }
    }

    /// `(min, max]`.
    pub const fn above(min: f64, max: f64) -> Self {
        Self { min, max, open: true }
    }

    fn contains(self, value: f64) -> bool {
        value <= self.max && if self.open { value > self.min } else { value >= self.min }
    }
}

/// The JSON type's name, as messages print it.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// A whole number, also when it is written as `3.0`.
pub fn whole(value: &Value) -> Option<i64> {
    match value.as_i64() {
        Some(number) => Some(number),
        None => {
            let number = value.as_f64()?;
            // 2^53: beyond it a float no longer tells neighbours apart.
            let exact = number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0;
            exact.then_some(number as i64)
        }
    }
}

impl Fields {
    /// Reads `value`, which must be an object. `path` prefixes the names in messages (empty at the top).
    ///
    /// # Errors
    /// When it is not an object.
    pub fn new(value: Value, path: &str) -> Result<Self, ApiError> {
        match value {
            Value::Object(map) => Ok(Self { map, path: path.to_owned(), problems: Vec::new() }),
            other => {
                let name = if path.is_empty() { "body" } else { path };
                let text = format!("{name}: expected an object, got {}", type_name(&other));
                let error = ApiError::schema(text);
                Err(if path.is_empty() { error } else { error.with_param(path) })
            }
        }
    }

    /// The dotted path of a field.
    pub fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Takes a field out; `None` when absent or null.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.map.swap_remove(name).filter(|value| !value.is_null())
    }

    /// Looks at a field without taking it.
    pub fn peek(&self, name: &str) -> Option<&Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// Adds a problem with the value of a field.
    pub fn refuse(&mut self, name: &str, text: impl Into<String>) {
        let path = self.at(name);
        self.refuse_at(path, text);
    }

    /// Adds a problem at a full path.
    pub fn refuse_at(&mut self, path: String, text: impl Into<String>) {
        self.problems.push(Problem { path, text: text.into(), schema: false });
    }

    /// Adds a problem with the type of a field.
    pub fn mistyped(&mut self, name: &str, expected: &str, got: &Value) {
        let path = self.at(name);
        self.mistyped_at(path, expected, got);
    }

    /// Adds a problem with the type at a full path.
    pub fn mistyped_at(&mut self, path: String, expected: &str, got: &Value) {
        let shown = match got {
            Value::Array(_) | Value::Object(_) => type_name(got).to_owned(),
            scalar => format!("{} ({})", type_name(scalar), clip(&scalar.to_string())),
        };
        let text = format!("expected {expected}, got {shown}");
        self.problems.push(Problem { path, text, schema: true });
    }

    /// A required field is missing.
    pub fn missing(&mut self, name: &str) {
        let path = self.at(name);
        self.problems.push(Problem { path, text: "field required".into(), schema: true });
    }

    /// A boolean.
    pub fn bool(&mut self, name: &str) -> Option<bool> {
        match self.take(name)? {
            Value::Bool(value) => Some(value),
            other => {
                self.mistyped(name, "a boolean", &other);
                None
            }
        }
    }

    /// A string.
    pub fn string(&mut self, name: &str) -> Option<String> {
        match self.take(name)? {
            Value::String(value) => Some(value),
            other => {
                self.mistyped(name, "a string", &other);
                None
            }
        }
    }

    /// An object.
    pub fn object(&mut self, name: &str) -> Option<Map<String, Value>> {
        match self.take(name)? {
            Value::Object(value) => Some(value),
            other => {
                self.mistyped(name, "an object", &other);
                None
            }
        }
    }

    /// An array.
    pub fn array(&mut self, name: &str) -> Option<Vec<Value>> {
        match self.take(name)? {
            Value::Array(value) => Some(value),
            other => {
                self.mistyped(name, "an array", &other);
                None
            }
        }
    }

    /// A finite number within a range.
    pub fn number(&mut self, name: &str, range: Range) -> Option<f64> {
        let value = self.take(name)?;
        let Some(number) = value.as_f64() else {
            self.mistyped(name, "a number", &value);
            return None;
        };
        if number.is_finite() && range.contains(number) {
            return Some(number);
        }
        let Range { min, max, open } = range;
        let bracket = if open { '(' } else { '[' };
        self.refuse(
            name,
            format!("{} is outside {bracket}{min}, {max}]", clip(&value.to_string())),
        );
        None
    }

    /// A whole number of `min..=max`.
    pub fn integer(&mut self, name: &str, min: i64, max: i64) -> Option<i64> {
        let value = self.take(name)?;
        let Some(number) = whole(&value) else {
            if value.is_number() {
                self.refuse(name, format!("{} is not a 64-bit integer", clip(&value.to_string())));
            } else {
                self.mistyped(name, "an integer", &value);
            }
            return None;
        };
        if (min..=max).contains(&number) {
            return Some(number);
        }
        let text = match (min, max) {
            (_, i64::MAX) => format!("{number} is too small, it must be at least {min}"),
            _ => format!("{number} is outside {min}..={max}"),
        };
        self.refuse(name, text);
        None
    }

    /// An array of token ids below `vocab_size`.
    pub fn token_ids(&mut self, name: &str, vocab_size: u32) -> Option<Vec<u32>> {
        let items = self.array(name)?;
        let path = self.at(name);
        let mut ids = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match token_id(item, vocab_size) {
                Ok(id) => ids.push(id),
                Err(Mismatch::Type) => {
                    self.mistyped_at(format!("{path}.{index}"), "an integer", item);
                    return None;
                }
                Err(Mismatch::Range) => {
                    let text = outside_vocabulary(item, vocab_size);
                    self.refuse_at(format!("{path}.{index}"), text);
                    return None;
                }
            }
        }
        Some(ids)
    }

    /// A field that this build cannot honour: any value but those accepted by `harmless` is refused.
    pub fn unsupported(&mut self, name: &str, harmless: fn(&Value) -> bool, instead: &str) {
        if let Some(value) = self.take(name)
            && !harmless(&value)
        {
            self.refuse(name, format!("not supported: {instead}"));
        }
    }

    /// Whether nothing was wrong so far.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// Ends the reading: the names nobody asked for, sorted.
    ///
    /// # Errors
    /// With every problem found (at most ten), `param` naming the first.
    pub fn finish(self) -> Result<Vec<String>, ApiError> {
        let Some(first) = self.problems.first() else {
            let left = self.map.into_iter().filter(|(_, value)| !value.is_null());
            let mut names: Vec<String> = left.map(|(name, _)| name).collect();
            names.sort_unstable();
            return Ok(names);
        };
        let listed: Vec<String> = self
            .problems
            .iter()
            .take(MAX_PROBLEMS)
            .map(|problem| format!("{}: {}", problem.path, problem.text))
            .collect();
        let mut message = listed.join("; ");
        if self.problems.len() > MAX_PROBLEMS {
            message.push_str(&format!("; and {} more", self.problems.len() - MAX_PROBLEMS));
        }
        let schema = self.problems.iter().any(|problem| problem.schema);
        let error = match self.problems.iter().all(Problem::is_of_model) {
            _ if schema => ApiError::schema(message),
            true => ApiError::bad_request(message),
            false => ApiError::bad_request(message).of_body(),
        };
        Err(error.with_param(first.path.clone()))
    }
}

/// Why a JSON value is not a token id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// Not an integer.
    Type,
    /// Negative or at least the vocabulary's size.
    Range,
}

/// Reads a token id below `vocab_size`.
///
/// # Errors
/// [`Mismatch`] says what is wrong.
pub fn token_id(value: &Value, vocab_size: u32) -> Result<u32, Mismatch> {
    let number =
        whole(value).ok_or(if value.is_number() { Mismatch::Range } else { Mismatch::Type })?;
    u32::try_from(number).ok().filter(|&id| id < vocab_size).ok_or(Mismatch::Range)
}

/// The message for [`Mismatch::Range`].
pub fn outside_vocabulary(value: &Value, vocab_size: u32) -> String {
    format!("token id {} is outside the vocabulary of {vocab_size}", clip(&value.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn null_reads_as_absent_and_leftovers_are_named() {
        let mut fields =
            Fields::new(json!({"a": null, "z": 1, "b": true, "y": null}), "").expect("an object");
        assert_eq!(fields.bool("a"), None);
        assert_eq!(fields.bool("b"), Some(true));
        assert_eq!(fields.finish().expect("no problem"), ["z"]);
    }

    #[test]
    fn every_problem_is_listed_with_its_path() {
        let body = json!({"a": "x", "b": 3, "c": [1, -1]});
        let mut fields = Fields::new(body, "outer").expect("an object");
        assert_eq!(fields.number("a", Range::closed(0.0, 1.0)), None);
        assert_eq!(fields.integer("b", 0, 2), None);
        assert_eq!(fields.token_ids("c", 10), None);
        let error = fields.finish().expect_err("three problems");
        assert_eq!(error.param(), Some("outer.a"));
        for part in ["outer.a: expected a number", "outer.b: 3 is outside 0..=2", "outer.c.1: "] {
            assert!(error.message().contains(part), "{part} in {}", error.message());
        }
    }

    #[test]
    fn numbers_are_whole_only_when_exact() {
        for (value, want) in [
            (json!(3), Some(3)),
            (json!(3.0), Some(3)),
            (json!(3.5), None),
            (json!(1e300), None),
            (json!(u64::MAX), None),
            (json!(i64::MIN), Some(i64::MIN)),
            (json!("3"), None),
        ] {
            assert_eq!(whole(&value), want, "{value}");
        }
    }
}
