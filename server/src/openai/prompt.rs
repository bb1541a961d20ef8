//! From a request's text to the tokens of its prompts.

use std::sync::Arc;

use serde_json::{Map, Value};
use tokenmill_engine::text::ChatTemplate;

use super::params::{Params, Truncation};
use crate::error::{ApiError, prompt_too_long};
use crate::registry::Generative;

/// Sequences that the bad words of a request may turn into.
const MAX_BAD_WORDS: usize = 128;

/// What a template renders.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) messages: Value,
    pub(crate) tools: Option<Value>,
    pub(crate) documents: Option<Value>,
    pub(crate) add_generation_prompt: bool,
    pub(crate) continue_final_message: bool,
    pub(crate) kwargs: Map<String, Value>,
    /// BOS on top of what the template wrote.
    pub(crate) add_special: bool,
}

/// Renders and tokenises a conversation on the text pool.
///
/// # Errors
/// 400 when the template refuses it, 429 when the pool is busy.
pub(crate) async fn render(
    model: &Arc<Generative>,
    template: ChatTemplate,
    conversation: Conversation,
) -> Result<Vec<u32>, ApiError> {
    let tokenizer = model.tokenizer.clone();
    let job = move || {
        let Conversation { messages, tools, documents, kwargs, add_special, .. } = &conversation;
        let text = template.render(
            messages,
            tools.as_ref(),
            documents.as_ref(),
            conversation.add_generation_prompt,
            conversation.continue_final_message,
            kwargs,
        )?;
        Ok::<_, ApiError>(tokenizer.encode(&text, *add_special)?)
    };
    model.text.run(job).await?
}

/// Cuts a prompt as asked and checks that a token fits after it.
///
/// # Errors
/// 400 when the prompt is empty or too long.
pub(crate) fn fit(
    mut tokens: Vec<u32>,
    truncation: Option<Truncation>,
    max_model_len: u32,
) -> Result<Vec<u32>, ApiError> {
    if let Some(Truncation { tokens: keep, keep_first }) = truncation {
        let keep = keep.unwrap_or(max_model_len.saturating_sub(1)) as usize;
        if tokens.len() > keep {
            if keep_first {
                tokens.truncate(keep);
            } else {
                tokens.drain(..tokens.len() - keep);
            }
        }
    }
    if tokens.is_empty() {
        return Err(ApiError::bad_request("The prompt has no token.").with_param("prompt"));
    }
    if tokens.len() >= max_model_len as usize {
        return Err(prompt_too_long(tokens.len(), max_model_len));
    }
    Ok(tokens)
}

/// Token sequences of the bad words: each word as it is and after a blank, as it stands in a text.
///
/// # Errors
/// 400 when there are too many, 429 when the text pool is busy.
pub(crate) async fn bad_words(
    model: &Arc<Generative>,
    params: &Params,
) -> Result<Vec<Vec<u32>>, ApiError> {
    let mut sequences: Vec<Vec<u32>> = Vec::new();
    for word in &params.bad_words {
        let trimmed = word.trim_start();
        for text in [trimmed.to_owned(), format!(" {trimmed}")] {
            let tokens = model.text.encode(text, false).await?;
            if !tokens.is_empty() && !sequences.contains(&tokens) {
                sequences.push(tokens);
            }
        }
        if sequences.len() > MAX_BAD_WORDS {
            let message = format!("bad_words: they give more than {MAX_BAD_WORDS} token sequences");
            return Err(ApiError::bad_request(message).with_param("bad_words"));
        }
    }
    Ok(sequences)
}
