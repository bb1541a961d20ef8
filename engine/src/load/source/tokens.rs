//! Texts of a checkpoint's special tokens.

use std::path::Path;

use serde_json::{Map, Value};

use crate::config::read_optional_object;
use crate::load::LoadError;
use crate::weights::gguf::GgufTokenizer;

/// Special tokens as text, and whether an encoded prompt gets them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Beginning of a sequence.
    pub bos: Option<String>,
    /// End of a sequence.
    pub eos: Option<String>,
    /// Padding.
    pub pad: Option<String>,
    /// Unknown text.
    pub unk: Option<String>,
    /// Whether a prompt starts with `bos`, when the checkpoint says.
    pub add_bos: Option<bool>,
    /// Whether a prompt ends with `eos`, when the checkpoint says.
    pub add_eos: Option<bool>,
}

impl SpecialTokens {
    /// Fields of `tokenizer_config.json`; where it has none, those of `special_tokens_map.json`.
    pub(super) fn from_directory(
        directory: &Path,
        tokenizer_config: &Map<String, Value>,
    ) -> Result<Self, LoadError> {
        let config_path = directory.join("tokenizer_config.json");
        let map_path = directory.join("special_tokens_map.json");
        let special = read_optional_object(&map_path)?.unwrap_or_default();
        let token = |name: &str| -> Result<Option<String>, LoadError> {
            let found =
                text(tokenizer_config, name).map_err(|error| error.in_file(&config_path))?;
            match found {
                Some(found) => Ok(Some(found)),
                None => text(&special, name).map_err(|error| error.in_file(&map_path)),
            }
        };
        let flag = |name: &str| match tokenizer_config.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => {
                Err(LoadError::config(name, "true or false is needed").in_file(&config_path))
            }
        };
        Ok(Self {
            bos: token("bos_token")?,
            eos: token("eos_token")?,
            pad: token("pad_token")?,
            unk: token("unk_token")?,
            add_bos: flag("add_bos_token")?,
            add_eos: flag("add_eos_token")?,
        })
    }

    pub(super) fn from_gguf(tokenizer: &GgufTokenizer) -> Self {
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.text(id)).map(str::to_owned);
        Self {
            bos: text(tokenizer.bos),
            eos: text(tokenizer.eos),
            pad: text(tokenizer.pad),
            unk: text(tokenizer.unk),
            add_bos: tokenizer.add_bos,
            add_eos: tokenizer.add_eos,
        }
    }
}

/// A token: its text, or an object with the text as `content`.
fn text(object: &Map<String, Value>, name: &str) -> Result<Option<String>, LoadError> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Object(token)) => match token.get("content") {
            Some(Value::String(text)) => Ok(Some(text.clone())),
            _ => Err(LoadError::config(name, "the object has no text in its field content")),
        },
        Some(_) => Err(LoadError::config(name, "a text or an object with content is needed")),
    }
}
