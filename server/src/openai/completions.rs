//! `POST /v1/completions`: prompts as text or tokens.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::Value;

use super::completions_answer::{self, Answer};
use super::generation::{Plan, Prompt};
use super::params::{Endpoint, Params, ids_at};
use super::prompt;
use crate::admission::{Permit, RequestContext};
use crate::app::App;
use crate::body;
use crate::error::ApiError;
use crate::fields::{Fields, whole};
use crate::registry::{Generative, unix_seconds};
use crate::sse;

/// Prompts of one request.
const MAX_PROMPTS: usize = 1024;

/// A prompt as it was sent.
#[derive(Debug)]
enum Source {
    Text(String),
    Tokens(Vec<u32>),
}

/// The handler.
pub(crate) async fn completions(
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
    let params = Params::parse(&mut fields, Endpoint::Completions, &model, &app.config, priority);
    let sources = sources(&mut fields, model.vocab_size());
    best_of(&mut fields, params.n);
    fields.unsupported("suffix", |value| value == "", "this model has no fill-in-the-middle form");
    let ignored = fields.finish()?;
    body::check_ignored(&app, &ignored)?;
    let timeout = context.timeout(params.timeout, app.config.request_timeout)?;

    let mut prompts = Vec::with_capacity(sources.len());
    for source in sources {
        prompts.push(tokenize(&model, &params, source).await?);
    }
    let prompts = Arc::new(prompts);
    let bad_words = prompt::bad_words(&model, &params).await?;
    let sequences = u64::from(params.n) * prompts.len() as u64;
    let tokens = prompts.iter().map(|prompt| prompt.tokens.len() as u64).sum();
    let permit = Permit::take(&app, sequences, tokens)?;
    let plan = Plan {
        model: &model,
        params: &params,
        bad_words,
        prompts,
        default_max_tokens: None,
        arrival: context.arrival,
        timeout,
        permit,
    };
    let generation = plan.start().await?;
    let id = request_id(&context, &params);
    let answer = Answer {
        id: format!("cmpl-{id}"),
        created: unix_seconds(),
        name,
        model,
        params,
        generation,
    };
    let response = if answer.params.stream {
        sse::respond(Arc::clone(&app), completions_answer::Stream::new(answer))
    } else {
        answer.collect(&app).await?
    };
    Ok(named(&app, response, &ignored, &id))
}

/// The id of a request: the header's, else the body's, else a random one.
pub(super) fn request_id(context: &RequestContext, params: &Params) -> String {
    match &params.request_id {
        Some(id) if !context.id_given => id.clone(),
        _ => context.id.clone(),
    }
}

/// Names what was ignored, and the id, which may be another than the tracking layer knows.
pub(super) fn named(app: &App, mut response: Response, ignored: &[String], id: &str) -> Response {
    body::name_ignored(&mut response, ignored);
    if app.config.request_id_headers
        && let Ok(value) = id.parse()
    {
        response.headers_mut().insert("x-request-id", value);
    }
    response
}

fn sources(fields: &mut Fields, vocab_size: u32) -> Vec<Source> {
    let items = match fields.take("prompt") {
        None => {
            fields.missing("prompt");
            return Vec::new();
        }
        Some(Value::String(text)) => vec![Value::String(text)],
        Some(Value::Array(items)) if items.first().is_some_and(Value::is_number) => {
            let tokens = ids_at(&items, "prompt", vocab_size, fields);
            return tokens.map(Source::Tokens).into_iter().collect();
        }
        Some(Value::Array(items)) => items,
        Some(other) => {
            fields.mistyped(
                "prompt",
                "a string, strings, token ids or arrays of token ids",
                &other,
            );
            return Vec::new();
        }
    };
    if items.is_empty() || items.len() > MAX_PROMPTS {
        let text = format!("{} prompts, 1 to {MAX_PROMPTS} are allowed", items.len());
        fields.refuse("prompt", text);
        return Vec::new();
    }
    let single = items.len() == 1;
    let mut sources = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let path = if single { "prompt".to_owned() } else { format!("prompt.{index}") };
        match item {
            Value::String(text) if text.is_empty() => {
                fields.refuse_at(path, "the prompt is empty");
            }
            Value::String(text) => sources.push(Source::Text(text)),
            Value::Array(ids) if ids.is_empty() => {
                fields.refuse_at(path, "the prompt is empty");
            }
            Value::Array(ids) => {
                let tokens = ids_at(&ids, &path, vocab_size, fields);
                sources.extend(tokens.map(Source::Tokens));
            }
            other => fields.mistyped_at(path, "a string or an array of token ids", &other),
        }
    }
    sources
}

/// More candidates than choices would have to be generated and thrown away: refused, not ignored.
fn best_of(fields: &mut Fields, n: u32) {
    let Some(value) = fields.take("best_of") else { return };
    match whole(&value) {
        Some(best_of) if best_of == i64::from(n) => {}
        Some(best_of) => {
            let text = format!("{best_of} is not supported with n {n}: best_of must equal n");
            fields.refuse("best_of", text);
        }
        None => fields.mistyped("best_of", "an integer", &value),
    }
}

async fn tokenize(
    model: &Arc<Generative>,
    params: &Params,
    source: Source,
) -> Result<Prompt, ApiError> {
    let (tokens, text) = match source {
        Source::Text(text) => {
            let kept = params.echo.then(|| text.clone());
            (model.text.encode(text, params.add_special).await?, kept)
        }
        Source::Tokens(tokens) => (tokens, None),
    };
    let whole = tokens.len();
    let tokens = prompt::fit(tokens, params.truncation, model.max_model_len())?;
    // A prompt that was cut is echoed as it went in.
    let text = text.filter(|_| tokens.len() == whole);
    let decode = || model.tokenizer.decode(&tokens, params.skip_special);
    let text = params.echo.then(|| text.unwrap_or_else(decode));
    Ok(Prompt { tokens, text })
}
