//! `/openapi.json` and a page that shows it.
//!
//! The document names routes and the fields that this server reads; a test holds the field lists
//! against the parser: a listed field is never reported as ignored.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{Html, Response};
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::body;

/// Name, JSON type and meaning of a field.
pub(crate) type Field = (&'static str, &'static str, &'static str);

/// Fields of chat and text completions.
#[rustfmt::skip]
pub(crate) static SHARED: &[Field] = &[
    ("model", "string", "A served name; the first one when absent."),
    ("stream", "boolean", "Answer with server-sent events."),
    ("stream_options", "object", "include_usage, continuous_usage_stats."),
    ("n", "integer", "Choices per prompt."),
    ("max_tokens", "integer", "Completion tokens at most."),
    ("min_tokens", "integer", "No stop before so many tokens."),
    ("temperature", "number", "0 is greedy; up to 2."),
    ("top_p", "number", "In (0, 1]."),
    ("top_k", "integer", "0 or -1 is off."),
    ("min_p", "number", "In [0, 1]."),
    ("seed", "integer", "Same seed, same text."),
    ("presence_penalty", "number", "In [-2, 2]."),
    ("frequency_penalty", "number", "In [-2, 2]."),
    ("repetition_penalty", "number", "Above 0; 1 is off."),
    ("logit_bias", "object", "Token id to a number in [-100, 100]."),
    ("allowed_token_ids", "array", "Only these may be sampled."),
    ("bad_words", "array", "Strings that must not be completed."),
    ("stop", "string or array", "At most 4 strings."),
    ("stop_token_ids", "array", "Further tokens that end a completion."),
    ("include_stop_str_in_output", "boolean", "Keep what stopped it."),
    ("ignore_eos", "boolean", "Go on after the end of sequence."),
    ("skip_special_tokens", "boolean", "Leave control tokens out of the text."),
    ("spaces_between_special_tokens", "boolean", "Accepted; no blanks are ever inserted."),
    ("add_special_tokens", "boolean", "Add BOS and the like to the prompt."),
    ("echo", "boolean", "Begin with the prompt (chat: the last message of the same role)."),
    ("prompt_logprobs", "integer", "Log-probabilities of the prompt's tokens."),
    ("truncate_prompt_tokens", "integer", "Cut a prompt that is longer; -1 means what fits."),
    ("truncation_side", "string", "left keeps the last tokens, right the first."),
    ("return_token_ids", "boolean", "Add prompt_token_ids and token_ids."),
    ("return_tokens_as_token_ids", "boolean", "Print tokens as token_id:N."),
    ("request_id", "string", "Base of the answer's id; the header X-Request-Id wins."),
    ("priority", "integer", "Smaller runs earlier, under the priority policy."),
    ("cache_salt", "string", "Requests of different salts share no cached blocks."),
    ("timeout", "number", "Seconds; the header X-Request-Timeout-Ms wins."),
    ("user", "string", "Not used."),
];

/// Fields of chat completions alone.
#[rustfmt::skip]
pub(crate) static CHAT: &[Field] = &[
    ("messages", "array", "The conversation."),
    ("max_completion_tokens", "integer", "Wins over max_tokens."),
    ("logprobs", "boolean", "Log-probabilities of the completion."),
    ("top_logprobs", "integer", "Of so many most likely tokens too."),
    ("add_generation_prompt", "boolean", "Open the answer's turn."),
    ("continue_final_message", "boolean", "Continue the last message instead."),
    ("chat_template", "string", "Where the server allows it."),
    ("chat_template_kwargs", "object", "Variables of the template."),
    ("documents", "array", "Given to the template."),
    ("reasoning_effort", "string", "Given to the template."),
    ("tools", "array", "Shown to the model; none may be called."),
    ("tool_choice", "string", "Only none."),
];

/// Fields of text completions alone.
#[rustfmt::skip]
pub(crate) static COMPLETIONS: &[Field] = &[
    ("prompt", "string or array", "Text, texts, token ids, or arrays of token ids."),
    ("logprobs", "integer", "Log-probabilities, of so many most likely tokens too."),
    ("best_of", "integer", "Must equal n."),
];

/// Fields of V1 predict requests.
static V1: &[Field] = &[
    ("instances", "array", "Rows: lists of numbers or texts, or objects of named columns."),
    ("inputs", "array", "The same; wins over instances."),
];

/// Fields of V2 inference requests.
static V2: &[Field] = &[
    ("id", "string", "Echoed; made up when absent."),
    ("inputs", "array", "Tensors: name, shape, datatype, data, parameters."),
    ("outputs", "array", "Wanted outputs: name, parameters; all when absent."),
    ("parameters", "object", "content_type, binary_data_output, timeout in microseconds."),
];

fn schema(fields: &[&[Field]], required: &[&str]) -> Value {
    let mut properties = Map::new();
    for (name, kind, help) in fields.iter().copied().flatten() {
        let kinds: Vec<&str> = kind.split(" or ").chain(["null"]).collect();
        properties.insert((*name).into(), json!({ "type": kinds, "description": help }));
    }
    json!({ "type": "object", "properties": properties, "required": required })
}

fn operation(summary: &str, body: Option<Value>) -> Value {
    let mut operation = json!({
        "summary": summary,
        "responses": {
            "200": { "description": "OK" },
            "default": {
                "description": "A refusal",
                "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } },
            },
        },
    });
    if let Some(schema) = body {
        operation["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    }
    operation
}

fn paths() -> Value {
    let chat = schema(&[CHAT, SHARED], &["messages"]);
    let completions = schema(&[COMPLETIONS, SHARED], &["prompt"]);
    let tokenize = schema(
        &[&[
            ("model", "string", "A served name."),
            ("prompt", "string", "The text; or messages."),
            ("messages", "array", "A conversation; or prompt."),
            ("add_special_tokens", "boolean", "Add BOS and the like."),
            ("return_token_strs", "boolean", "The tokens' texts too."),
        ]],
        &[],
    );
    let detokenize = schema(
        &[&[("model", "string", "A served name."), ("tokens", "array", "Token ids.")]],
        &["tokens"],
    );
    let v1 = schema(&[V1], &[]);
    let v2 = schema(&[V2], &["inputs"]);
    json!({
        "/v1/chat/completions": { "post": operation("Chat completion", Some(chat)) },
        "/v1/completions": { "post": operation("Text completion", Some(completions)) },
        "/v1/models": { "get": operation("Served models", None) },
        "/v1/models/{id}": { "get": operation("One served model", None) },
        "/tokenize": { "post": operation("Tokens of a text or a conversation", Some(tokenize)) },
        "/detokenize": { "post": operation("Text of tokens", Some(detokenize)) },
        "/health": { "get": operation("200 while the engine lives", None) },
        "/health/live": { "get": operation("Liveness", None) },
        "/health/ready": { "get": operation("Readiness", None) },
        "/ping": { "get": operation("As /health", None) },
        "/version": { "get": operation("The version", None) },
        "/load": { "get": operation("Requests being served", None) },
        "/v1/models/{name}:predict": { "post": operation("Predictions of a classic model", Some(v1)) },
        "/v2": { "get": operation("The server and its extensions", None) },
        "/v2/health/live": { "get": operation("Liveness", None) },
        "/v2/health/ready": { "get": operation("Readiness of every model", None) },
        "/v2/models/{name}": { "get": operation("Inputs and outputs of a classic model", None) },
        "/v2/models/{name}/ready": { "get": operation("Readiness of a model", None) },
        "/v2/models/{name}/infer": { "post": operation("Inference of a classic model", Some(v2)) },
        "/v2/models/{name}/stats": { "get": operation("Counters of a classic model", None) },
        "/metrics": { "get": operation("Metrics in Prometheus' text format", None) },
    })
}

/// `GET /openapi.json`.
pub(crate) async fn document(State(app): State<Arc<App>>) -> Response {
    let root = app.config.root_path.trim_end_matches('/');
    let root = if root.is_empty() { "/" } else { root };
    body::json(&json!({
        "openapi": "3.1.0",
        "info": { "title": "tokenmill", "version": env!("CARGO_PKG_VERSION") },
        "servers": [{ "url": root }],
        "paths": paths(),
        "components": {
            "schemas": { "Error": { "type": "object", "properties": { "error": {
                "type": "object",
                "properties": {
                    "message": { "type": "string" },
                    "type": { "type": "string" },
                    "param": { "type": ["string", "null"] },
                    "code": { "type": "integer" },
                },
            } } } },
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } },
        },
    }))
}

/// `GET /docs`: a page without anything from elsewhere.
pub(crate) async fn page() -> Html<&'static str> {
    Html(include_str!("docs.html"))
}
