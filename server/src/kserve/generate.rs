//! `POST /v2/models/M/generate` and `…/generate_stream`: Triton's and the Open Inference Protocol's text generation.
//!
//! Parameters stand in `parameters` or beside the text, under the names of `/v1/completions`; one prompt, one completion.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::failure::{Failure, FailureKind};
use super::http::{Call, Outcome};
use crate::admission::Permit;
use crate::app::App;
use crate::body;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::openai::choice::{FinishKind, StopCause};
use crate::openai::generation::{Generation, Plan, Prompt};
use crate::openai::params::{Endpoint, Params};
use crate::openai::prompt;
use crate::registry::{Generative, Served};
use crate::sse::{self, Events, Frames};

/// Tokens of a completion when the request names none.
const MAX_TOKENS: u32 = 20;

/// The version of a language model, which has one.
const VERSION: &str = "1";

/// A request, checked.
struct Request {
    text: String,
    params: Params,
    details: bool,
    ignored: Vec<String>,
}

/// What an answer repeats, and the running completion.
struct Answer {
    name: String,
    model: Arc<Generative>,
    generation: Generation,
    details: bool,
}

/// A token with its log-probability.
#[derive(Serialize)]
struct Token {
    id: u32,
    text: String,
    logprob: f32,
    special: bool,
}

#[derive(Serialize)]
struct Details {
    finish_reason: Option<&'static str>,
    logprobs: Vec<Token>,
}

#[derive(Serialize)]
struct Message<'a> {
    model_name: &'a str,
    model_version: &'static str,
    text_output: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
}

/// Answers `generate`, or `generate_stream` with `streamed`.
pub(super) async fn generate(
    call: Box<Call>,
    name: &str,
    version: Option<&str>,
    streamed: bool,
) -> Outcome {
    let Served::Generative(model) = call.app.registry.find(name)? else {
        let text = format!("the model {name} generates no text; ask it at /v2/models/{name}/infer");
        return Err(Failure::new(FailureKind::Unimplemented, text));
    };
    if let Some(version) = version.filter(|version| *version != VERSION) {
        let text = format!("the model {name} has the version {VERSION}, not {version}");
        return Err(Failure::new(FailureKind::Unknown, text));
    }
    let Call { app, context, body, .. } = *call;
    let priority = context.priority()?;
    let request = read(&app, &model, &body, streamed, priority)?;
    body::check_ignored(&app, &request.ignored)?;
    let Request { text, params, details, ignored } = request;
    let timeout = context.timeout(params.timeout, app.config.request_timeout)?;
    let tokens = model.text.encode(text, params.add_special).await.map_err(ApiError::from)?;
    let tokens = prompt::fit(tokens, params.truncation, model.max_model_len())?;
    let bad_words = prompt::bad_words(&model, &params).await?;
    let permit = Permit::take(&app, 1, tokens.len() as u64)?;
    let plan = Plan {
        model: &model,
        params: &params,
        bad_words,
        prompts: Arc::new(vec![Prompt { tokens, text: None }]),
        default_max_tokens: None,
        arrival: context.arrival,
        timeout,
        permit,
    };
    let generation = plan.start().await?;
    let mut answer = Answer { name: name.to_owned(), model, generation, details };
    let mut response = if params.stream {
        sse::respond(Arc::clone(&app), Stream { answer, ended: false })
    } else if streamed {
        answer.generation.collect(&app).await?;
        sse::respond(Arc::clone(&app), Stream { answer, ended: false })
    } else {
        answer.generation.collect(&app).await?;
        body::json(&answer.message())
    };
    body::name_ignored(&mut response, &ignored);
    Ok(response)
}

/// The parameters of a body as one object: those of `parameters`, then those beside it.
fn merged(body: &[u8]) -> Result<(Map<String, Value>, Value), Failure> {
    let invalid = |reason: String| Failure::invalid(reason);
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| invalid(format!("Unrecognized request format: {error}")))?;
    let Value::Object(mut fields) = value else {
        return Err(invalid("expected a JSON object with text_input".to_owned()));
    };
    let text = fields.remove("text_input").unwrap_or_default();
    // An id is for the client's own book-keeping, which Triton does not answer either.
    fields.remove("id");
    let mut all = match fields.remove("parameters") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(parameters)) => parameters,
        Some(_) => return Err(invalid("parameters: expected an object".to_owned())),
    };
    for (name, value) in fields {
        if all.contains_key(&name) {
            return Err(invalid(format!("{name} stands in parameters and beside it")));
        }
        all.insert(name, value);
    }
    // Triton's backends call them so, and their clients send them empty.
    if let Some(stop) = all.remove("stop_words") {
        all.entry("stop").or_insert(stop);
    }
    all.retain(|name, value| {
        let empty = value.as_str() == Some("") || value.as_array().is_some_and(Vec::is_empty);
        !(empty && matches!(name.as_str(), "stop" | "bad_words"))
    });
    Ok((all, text))
}

fn read(
    app: &App,
    model: &Generative,
    body: &[u8],
    streamed: bool,
    priority: Option<i64>,
) -> Result<Request, Failure> {
    let (mut all, text) = merged(body)?;
    let Value::String(text) = text else {
        return Err(Failure::invalid("text_input: expected a text"));
    };
    all.retain(|_, value| !value.is_null());
    let most = MAX_TOKENS.min(model.max_model_len());
    all.entry("max_tokens").or_insert(most.into());
    if streamed {
        all.entry("stream").or_insert(Value::Bool(true));
    }
    let mut fields = Fields::new(Value::Object(all), "")?;
    let details = fields.bool("details").unwrap_or(false);
    let one = |value: &Value| value.as_u64() == Some(1);
    fields.unsupported("n", one, "one completion is answered; /v1/completions answers more");
    let no = |value: &Value| value.as_bool() == Some(false);
    for name in [
        "echo",
        "logprobs",
        "prompt_logprobs",
        "return_token_ids",
        "return_tokens_as_token_ids",
        "stream_options",
    ] {
        fields.unsupported(name, no, "/v1/completions has it; here, details has log-probabilities");
    }
    let mut params =
        Params::parse(&mut fields, Endpoint::Completions, model, &app.config, priority);
    if params.stream && !streamed {
        fields.refuse("stream", "one answer is given here; generate_stream streams");
    }
    params.logprobs = details.then_some(0);
    let ignored = fields.finish()?;
    Ok(Request { text, params, details, ignored })
}

impl Answer {
    /// What came since the last message.
    fn message(&self) -> Message<'_> {
        let choice = &self.generation.choices[0];
        let token = |id: u32, logprob: f32| Token {
            id,
            text: self.model.tokenizer.decode(&[id], false),
            logprob,
            special: self.model.tokenizer.decode(&[id], true).is_empty(),
        };
        let finish = choice.finish.filter(|_| choice.is_ended()).map(|finish| {
            match (finish.kind, finish.cause) {
                (FinishKind::Length, _) => "length",
                (FinishKind::Abort, _) => "abort",
                (FinishKind::Stop, StopCause::None) => "eos_token",
                (FinishKind::Stop, _) => "stop_sequence",
            }
        });
        let entries = choice.delta.logprobs.iter();
        let details = self.details.then(|| Details {
            finish_reason: finish,
            logprobs: entries
                .map(|entry| token(entry.position.token, entry.position.logprob))
                .collect(),
        });
        Message {
            model_name: &self.name,
            model_version: VERSION,
            text_output: &choice.delta.text,
            details,
        }
    }
}

/// One event for every piece of text.
struct Stream {
    answer: Answer,
    ended: bool,
}

impl Events for Stream {
    const DONE: bool = false;

    fn failure(error: &ApiError) -> Value {
        json!({ "error": error.message() })
    }

    async fn next(&mut self, frames: &mut Frames) -> Result<bool, ApiError> {
        while !self.ended {
            self.answer.generation.advance().await?;
            self.ended = self.answer.generation.is_ended();
            let delta = &self.answer.generation.choices[0].delta;
            if self.ended || !delta.text.is_empty() {
                frames.event(&self.answer.message());
                self.answer.generation.choices[0].sent();
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn cancel_for_drain(&mut self) {
        self.answer.generation.cancel_for_drain();
    }
}
