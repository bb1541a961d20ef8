//! Fields of `config.json` that a single architecture reads.

use serde_json::Value;

use crate::config::ModelConfig;
use crate::load::LoadError;

impl ModelConfig {
    /// A boolean field; null and absent are `None`.
    ///
    /// # Errors
    /// When the field is something else.
    pub fn flag(&self, field: &str) -> Result<Option<bool>, LoadError> {
        match self.raw.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(wrong(field, other, "true or false")),
        }
    }

    /// A positive number; null and absent are `None`.
    ///
    /// # Errors
    /// When the field is something else.
    pub fn number(&self, field: &str) -> Result<Option<f32>, LoadError> {
        match self.raw.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) if number.is_finite() && number > 0.0 => Ok(Some(number as f32)),
                _ => Err(wrong(field, value, "a positive number")),
            },
        }
    }

    /// The sliding window of every layer: from `layer_types`, or else by the model family's rule
    /// (Gemma 2: every other layer from the first; Qwen: from `max_window_layers` on).
    ///
    /// # Errors
    /// When `layer_types` has another length or an unknown kind.
    pub fn layer_windows(&self) -> Result<Vec<Option<u32>>, LoadError> {
        if self.sliding_window.is_none() {
            return Ok(vec![None; self.num_layers]);
        }
        if let Some(Value::Array(kinds)) = self.raw.get("layer_types") {
            if kinds.len() != self.num_layers {
                return Err(LoadError::Config {
                    field: "layer_types".to_owned(),
                    reason: format!("{} entries for {} layers", kinds.len(), self.num_layers),
                });
            }
            return kinds.iter().map(|kind| self.window_of(kind)).collect();
        }
        let first_window_layer = match self.raw.get("max_window_layers").and_then(Value::as_u64) {
            Some(layers) => layers as usize,
            None if self.architecture.starts_with("Gemma2") => {
                let window = |layer| self.sliding_window.filter(|_| layer % 2 == 0);
                return Ok((0..self.num_layers).map(window).collect());
            }
            None => 0,
        };
        let window = |layer| self.sliding_window.filter(|_| layer >= first_window_layer);
        Ok((0..self.num_layers).map(window).collect())
    }

    fn window_of(&self, kind: &Value) -> Result<Option<u32>, LoadError> {
        match kind.as_str() {
            Some("full_attention") => Ok(None),
            Some("sliding_attention") => Ok(self.sliding_window),
            _ => Err(wrong("layer_types", kind, "\"full_attention\" or \"sliding_attention\"")),
        }
    }
}

fn wrong(field: &str, found: &Value, expected: &str) -> LoadError {
    let mut found = found.to_string();
    if found.len() > 80 {
        found = found.chars().take(80).collect();
    }
    LoadError::Config { field: field.to_owned(), reason: format!("{found} is not {expected}") }
}
