//! `POST /v1/chat/completions`: a conversation through the model's template.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Map, Value};
use tokenmill_engine::text::{ChatTemplate, ContentFormat};

use super::chat_answer::{self, Answer};
use super::completions::{named, request_id};
use super::generation::{Plan, Prompt};
use super::messages;
use super::params::{Endpoint, Params};
use super::prompt::{self, Conversation};
use crate::admission::{Permit, RequestContext};
use crate::app::{App, ServerConfig};
use crate::body;
use crate::error::{ApiError, clip};
use crate::fields::Fields;
use crate::registry::{Generative, unix_seconds};
use crate::sse;

/// Values of `reasoning_effort`.
const EFFORTS: [&str; 7] = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];

/// The handler.
pub(crate) async fn chat_completions(
    State(app): State<Arc<App>>,
    Extension(context): Extension<RequestContext>,
    request: Request,
) -> Result<Response, ApiError> {
    let value = body::read_json(&app, request).await?;
    let mut fields = Fields::new(value, "")?;
    let name = fields.string("model");
    let (name, model) = app.registry.generative(name.as_deref())?;
    let (name, model) = (name.to_owned(), Arc::clone(model));
    let priority = context.priority()?;
    let params = Params::parse(&mut fields, Endpoint::Chat, &model, &app.config, priority);
    let template = template(&mut fields, &model, &app.config)?;
    let conversation =
        conversation(&mut fields, template.content_format(), params.add_special, &app.config);
    refuse_media(&mut fields);
    let ignored = fields.finish()?;
    body::check_ignored(&app, &ignored)?;
    let timeout = context.timeout(params.timeout, app.config.request_timeout)?;

    let echo = params.echo.then(|| echo(&conversation, &app.config)).flatten();
    let tokens = prompt::render(&model, template, conversation).await?;
    let tokens = prompt::fit(tokens, params.truncation, model.max_model_len())?;
    let bad_words = prompt::bad_words(&model, &params).await?;
    let permit = Permit::take(&app, u64::from(params.n), tokens.len() as u64)?;
    let plan = Plan {
        model: &model,
        params: &params,
        bad_words,
        prompts: Arc::new(vec![Prompt { tokens, text: None }]),
        default_max_tokens: default_max_tokens(&model, &app.config),
        arrival: context.arrival,
        timeout,
        permit,
    };
    let generation = plan.start().await?;
    let id = request_id(&context, &params);
    let answer = Answer {
        id: format!("chatcmpl-{id}"),
        created: unix_seconds(),
        name,
        role: app.config.response_role.clone(),
        echo,
        model,
        params,
        generation,
    };
    let response = if answer.params.stream {
        sse::respond(Arc::clone(&app), chat_answer::Stream::new(answer))
    } else {
        answer.collect(&app).await?
    };
    Ok(named(&app, response, &ignored, &id))
}

/// The smaller of the model's own limit and the server's, for requests that name none.
fn default_max_tokens(model: &Generative, config: &ServerConfig) -> Option<u32> {
    match (model.defaults.max_new_tokens, config.default_max_tokens) {
        (Some(model), Some(server)) => Some(model.min(server)),
        (model, server) => model.or(server),
    }
}

/// The model's template, or the request's own where that is allowed.
///
/// # Errors
/// 400 when there is none, or the request's is not allowed or not valid.
pub(super) fn template(
    fields: &mut Fields,
    model: &Generative,
    config: &ServerConfig,
) -> Result<ChatTemplate, ApiError> {
    let source = fields.string("chat_template");
    if let Some(source) = source {
        if !config.trust_request_chat_template {
            let message = "chat_template: this server does not accept templates from requests";
            return Err(ApiError::bad_request(message).with_param("chat_template"));
        }
        let text =
            |id: Option<u32>| id.map(|id| model.tokenizer.token_text(id)).unwrap_or_default();
        let (bos, eos) = (text(model.tokenizer.bos()), text(model.tokenizer.eos()));
        return ChatTemplate::compile(&source, &bos, &eos)
            .map_err(|error| ApiError::from(error).with_param("chat_template"));
    }
    model.template.clone().ok_or_else(|| {
        ApiError::bad_request("This model has no chat template: use /v1/completions.")
    })
}

/// Reads what the template renders.
pub(super) fn conversation(
    fields: &mut Fields,
    format: ContentFormat,
    add_special: bool,
    config: &ServerConfig,
) -> Conversation {
    let messages = messages::parse(fields, format);
    let continue_final_message = fields.bool("continue_final_message").unwrap_or(false);
    let add = fields.bool("add_generation_prompt");
    if continue_final_message && add == Some(true) {
        fields.refuse("continue_final_message", "it excludes add_generation_prompt: true");
    }
    Conversation {
        messages: Value::Array(messages),
        tools: messages::parse_tools(fields),
        documents: documents(fields),
        add_generation_prompt: add.unwrap_or(!continue_final_message),
        continue_final_message,
        kwargs: template_kwargs(fields, config),
        add_special,
    }
}

fn documents(fields: &mut Fields) -> Option<Value> {
    let documents = fields.array("documents")?;
    for (index, document) in documents.iter().enumerate() {
        if !document.is_object() {
            fields.mistyped_at(format!("documents.{index}"), "an object", document);
        }
    }
    Some(Value::Array(documents))
}

/// Variables of the template: the server's, then the request's, then those that fields stand for.
fn template_kwargs(fields: &mut Fields, config: &ServerConfig) -> Map<String, Value> {
    let mut kwargs = config.chat_template_kwargs.clone();
    if let Some(own) = fields.object("chat_template_kwargs") {
        if own.contains_key("chat_template") {
            let text = "chat_template is not an argument of the template";
            fields.refuse("chat_template_kwargs", text);
        }
        kwargs.extend(own);
    }
    if let Some(effort) = fields.string("reasoning_effort") {
        if !EFFORTS.contains(&effort.as_str()) {
            let text = format!("{:?} is none of {}", clip(&effort), EFFORTS.join(", "));
            fields.refuse("reasoning_effort", text);
        }
        let thinking = Value::Bool(effort != "none");
        kwargs.entry("enable_thinking").or_insert(thinking);
        kwargs.insert("reasoning_effort".into(), Value::String(effort));
    }
    if let Some(verbosity) = fields.string("verbosity") {
        kwargs.insert("verbosity".into(), Value::String(verbosity));
    }
    kwargs
}

fn refuse_media(fields: &mut Fields) {
    let text_only = |value: &Value| {
        value.as_array().is_some_and(|kinds| kinds.iter().all(|kind| kind == "text"))
    };
    fields.unsupported("modalities", text_only, "this model answers with text only");
    fields.unsupported("audio", |_| false, "this model answers with text only");
}

/// The last message's text when it has the role of the answer.
fn echo(conversation: &Conversation, config: &ServerConfig) -> Option<String> {
    let last = conversation.messages.as_array()?.last()?;
    if last["role"] != config.response_role.as_str() {
        return None;
    }
    let text = match &last["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n")
        }
        _ => return None,
    };
    Some(text).filter(|text| !text.is_empty())
}
