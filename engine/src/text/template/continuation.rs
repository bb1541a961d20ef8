//! Cutting a prompt after the last message's text, so that the model goes on with it.

use serde_json::{Map, Value};

use super::TemplateError;

/// Put behind the last message before rendering, and looked for afterwards; `transformers` has the same.
const TAG: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

/// A marked last message.
pub(super) struct Continuation {
    text: String,
}

impl Continuation {
    /// Marks the end of the last message's content: a string, or its last text part.
    pub(super) fn mark(messages: &mut [Map<String, Value>]) -> Result<Self, TemplateError> {
        let last = messages.last_mut().ok_or(TemplateError::NothingToContinue)?;
        let content = match last.get_mut("content") {
            Some(Value::Array(parts)) => {
                parts.iter_mut().rev().find_map(|part| part.get_mut("text"))
            }
            content => content,
        };
        let Some(Value::String(content)) = content else {
            return Err(TemplateError::NothingToContinue);
        };
        let text = content.clone();
        content.push_str(TAG);
        Ok(Self { text })
    }

    /// The prompt up to the mark. A template that trims the message takes the mark's space with it; then the
    /// message's own trailing space goes too.
    pub(super) fn cut(self, mut prompt: String) -> Result<String, TemplateError> {
        let at = prompt.rfind(TAG.trim_end()).ok_or(TemplateError::ContinuationLost)?;
        if !prompt.contains(self.text.trim()) {
            return Err(TemplateError::ContinuationLost);
        }
        let preserved = prompt[at..].starts_with(TAG);
        prompt.truncate(at);
        if !preserved {
            prompt.truncate(prompt.trim_end().len());
        }
        Ok(prompt)
    }
}
