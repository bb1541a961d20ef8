//! `POST /tokenize`, `POST /detokenize`, and `GET /tokenizer_info` where it is enabled.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::chat::{conversation, template};
use super::prompt;
use crate::app::App;
use crate::body;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::registry::Generative;

/// Tokens of a text or of a conversation.
pub(crate) async fn tokenize(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let value = body::read_json(&app, request).await?;
    let mut fields = Fields::new(value, "")?;
    let name = fields.string("model");
    let (_, model) = app.registry.generative(name.as_deref())?;
    let model = Arc::clone(model);
    let strings = fields.bool("return_token_strs").unwrap_or(false);
    let add_special = fields.bool("add_special_tokens");
    let (tokens, ignored) = if fields.peek("messages").is_some() {
        let template = template(&mut fields, &model, &app.config)?;
        let format = template.content_format();
        let add_special = add_special.unwrap_or(false);
        let conversation = conversation(&mut fields, format, add_special, &app.config);
        let ignored = fields.finish()?;
        (prompt::render(&model, template, conversation).await?, ignored)
    } else {
        let text = fields.string("prompt");
        if text.is_none() && fields.is_clean() {
            fields.missing("prompt");
        }
        let ignored = fields.finish()?;
        let text = text.unwrap_or_default();
        (model.text.encode(text, add_special.unwrap_or(true)).await?, ignored)
    };
    body::check_ignored(&app, &ignored)?;
    let mut response = body::json(&json!({
        "count": tokens.len(),
        "max_model_len": model.max_model_len(),
        "tokens": tokens,
        "token_strs": strings.then(|| token_strings(&model, &tokens)),
    }));
    body::name_ignored(&mut response, &ignored);
    Ok(response)
}

fn token_strings(model: &Generative, tokens: &[u32]) -> Vec<String> {
    tokens.iter().map(|&id| model.tokenizer.token_text(id)).collect()
}

/// Text of tokens.
pub(crate) async fn detokenize(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let value = body::read_json(&app, request).await?;
    let mut fields = Fields::new(value, "")?;
    let name = fields.string("model");
    let (_, model) = app.registry.generative(name.as_deref())?;
    let model = Arc::clone(model);
    let tokens = fields.token_ids("tokens", model.vocab_size());
    if tokens.is_none() && fields.is_clean() {
        fields.missing("tokens");
    }
    let ignored = fields.finish()?;
    body::check_ignored(&app, &ignored)?;
    let tokens = tokens.unwrap_or_default();
    let tokenizer = model.tokenizer.clone();
    let text = model.text.run(move || tokenizer.decode(&tokens, false)).await?;
    let mut response = body::json(&json!({ "prompt": text }));
    body::name_ignored(&mut response, &ignored);
    Ok(response)
}

/// What clients need to tokenise on their side.
pub(crate) async fn tokenizer_info(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let (_, model) = app.registry.generative(None)?;
    let text = |id: Option<u32>| id.map(|id| model.tokenizer.token_text(id));
    let eos = text(model.tokenizer.eos().or_else(|| model.eos_tokens.first().copied()));
    let template = model.template.as_ref().map(|template| Value::from(template.source()));
    Ok(body::json(&json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": text(model.tokenizer.bos()),
        "eos_token": eos,
        "pad_token": eos,
        "vocab_size": model.tokenizer.vocab_size(),
        "model_max_length": model.max_model_len(),
        "chat_template": template,
    })))
}
