//! Where a checkpoint keeps its chat templates. Their text is compiled elsewhere.

use std::path::Path;

use serde_json::{Map, Value};

use crate::config::{read_optional_object, read_text};
use crate::load::LoadError;
use crate::weights::gguf::GgufTokenizer;

/// The longest templates in use have some tens of kilobytes.
const MAX_TEMPLATE_BYTES: u64 = 4 << 20;
const FIELD: &str = "chat_template";

/// Chat templates (Jinja), as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChatTemplates {
    /// For every request, unless `tool_use` is there and the request has tools.
    pub default: Option<String>,
    /// For requests with tools.
    pub tool_use: Option<String>,
}

impl ChatTemplates {
    /// Looks in `chat_template.jinja`, then `tokenizer_config.json`, then `chat_template.json`;
    /// the first that has any wins.
    pub(super) fn from_directory(
        directory: &Path,
        tokenizer_config: &Map<String, Value>,
    ) -> Result<Self, LoadError> {
        let jinja = directory.join("chat_template.jinja");
        if jinja.is_file() {
            let tools = directory.join("additional_chat_templates").join("tool_use.jinja");
            let tool_use = match tools.is_file() {
                true => Some(read_text(&tools, MAX_TEMPLATE_BYTES)?),
                false => None,
            };
            return Ok(Self { default: Some(read_text(&jinja, MAX_TEMPLATE_BYTES)?), tool_use });
        }
        let in_config = Self::from_field(tokenizer_config)
            .map_err(|error| error.in_file(&directory.join("tokenizer_config.json")))?;
        if in_config != Self::default() {
            return Ok(in_config);
        }
        let path = directory.join("chat_template.json");
        let object = read_optional_object(&path)?.unwrap_or_default();
        Self::from_field(&object).map_err(|error| error.in_file(&path))
    }

    /// `chat_template`: a text, or a list of `{"name": ..., "template": ...}`.
    fn from_field(object: &Map<String, Value>) -> Result<Self, LoadError> {
        let wrong = || {
            let reason = "a template or a list of objects with name and template is needed";
            LoadError::config(FIELD, reason)
        };
        match object.get(FIELD) {
            None | Some(Value::Null) => Ok(Self::default()),
            Some(Value::String(text)) => Ok(Self { default: Some(text.clone()), tool_use: None }),
            Some(Value::Array(named)) => {
                let mut found = Self::default();
                for entry in named {
                    let text = |key: &str| entry.get(key).and_then(Value::as_str);
                    match (text("name"), text("template")) {
                        (Some("default"), Some(text)) => found.default = Some(text.to_owned()),
                        (Some("tool_use"), Some(text)) => found.tool_use = Some(text.to_owned()),
                        // Other names (`rag`, ...) are for requests no interface here has.
                        (Some(_), Some(_)) => {}
                        _ => return Err(wrong()),
                    }
                }
                Ok(found)
            }
            Some(_) => Err(wrong()),
        }
    }

    pub(super) fn from_gguf(tokenizer: &GgufTokenizer) -> Self {
        Self {
            default: tokenizer.chat_template.clone(),
            tool_use: tokenizer.tool_use_template.clone(),
        }
    }
}
