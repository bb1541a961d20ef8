//! Sampling defaults of a checkpoint (`generation_config.json`).

use serde_json::{Map, Value};

use super::fields::Fields;
use crate::load::LoadError;

/// What requests use for parameters that they do not set, where the checkpoint says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GenerationDefaults {
    /// At least 0; 0 is greedy.
    pub temperature: Option<f32>,
    /// Above 0, at most 1.
    pub top_p: Option<f32>,
    /// 0 keeps every token.
    pub top_k: Option<u32>,
    /// 0 to 1.
    pub min_p: Option<f32>,
    /// Above 0.
    pub repetition_penalty: Option<f32>,
    /// At least 1.
    pub max_new_tokens: Option<u32>,
}

impl GenerationDefaults {
    /// Reads the object in a `generation_config.json`.
    ///
    /// # Errors
    /// Names the field that is malformed or out of range.
    pub fn from_json(map: &Map<String, Value>) -> Result<Self, LoadError> {
        let fields = Fields::new(map);
        let count = |name, least| {
            Ok::<_, LoadError>(
                fields.integer(name, least..=u64::from(u32::MAX))?.map(|count| count as u32),
            )
        };
        Ok(Self {
            temperature: fields.number("temperature", 0.0, 1e4)?,
            top_p: fields.positive("top_p", 1.0)?,
            top_k: count("top_k", 0)?,
            min_p: fields.number("min_p", 0.0, 1.0)?,
            repetition_penalty: fields.positive("repetition_penalty", 1e4)?,
            max_new_tokens: count("max_new_tokens", 1)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: Value) -> Result<GenerationDefaults, String> {
        let map = value.as_object().expect("tests pass objects");
        GenerationDefaults::from_json(map).map_err(|error| error.to_string())
    }

    #[test]
    fn given_fields_are_read() {
        let got = parse(json!({"temperature": 0.0, "top_k": 20, "top_p": 0.8, "do_sample": true}));
        let want = GenerationDefaults {
            temperature: Some(0.0),
            top_k: Some(20),
            top_p: Some(0.8),
            ..GenerationDefaults::default()
        };
        assert_eq!(got, Ok(want));
        assert_eq!(parse(json!({"min_p": null})), Ok(GenerationDefaults::default()));
    }

    #[test]
    fn values_out_of_range_are_named() {
        let check = |value, want: &str| assert_eq!(parse(value).unwrap_err(), want);
        check(json!({"top_p": 0}), "top_p: 0 is not a number above 0, at most 1");
        check(json!({"temperature": -1.0}), "temperature: -1.0 is not a number from 0 to 10000");
        check(
            json!({"max_new_tokens": 0}),
            "max_new_tokens: 0 is not a whole number from 1 to 4294967295",
        );
    }
}
