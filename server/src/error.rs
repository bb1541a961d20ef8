//! What a client reads when a request fails, and the one mapping from our error types to status codes.
//!
//! Every route answers with the same body: `{"error": {"message", "type", "param", "code"}}`, `code`
//! being the status as an integer. What the client reads and what the log keeps are separate strings.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokenmill_engine::handle::SubmitError;
use tokenmill_engine::sampling::SamplingError;
use tokenmill_engine::text::{TemplateError, TextError};

/// The cause of a refusal, as `tokenmill_requests_rejected_total` counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The client's values.
    Validation,
    /// A missing or wrong key.
    Auth,
    /// A queue limit.
    QueueFull,
    /// The deadline passed.
    Deadline,
    /// The server is stopping.
    Draining,
    /// Our fault.
    Internal,
}

impl Cause {
    /// Every cause with the statuses it is answered with: the series that exist from the start.
    pub const ANSWERS: [(Cause, u16); 9] = [
        (Cause::Validation, 400),
        (Cause::Validation, 404),
        (Cause::Validation, 422),
        (Cause::Auth, 401),
        (Cause::QueueFull, 429),
        (Cause::QueueFull, 503),
        (Cause::Deadline, 503),
        (Cause::Draining, 503),
        (Cause::Internal, 500),
    ];

    /// The label's value.
    pub fn label(self) -> &'static str {
        match self {
            Cause::Validation => "validation",
            Cause::Auth => "auth",
            Cause::QueueFull => "queue_full",
            Cause::Deadline => "deadline",
            Cause::Draining => "draining",
            Cause::Internal => "internal",
        }
    }
}

/// A failed request.
#[derive(Clone, Debug)]
pub struct ApiError(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    status: StatusCode,
    kind: &'static str,
    message: String,
    param: Option<String>,
    reason: Option<&'static str>,
    cause: Cause,
    retry_after: Option<u32>,
    internal: Option<String>,
    of_body: bool,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, cause: Cause, message: String) -> Self {
        let retry_after = None;
        let (param, reason, internal, of_body) = (None, None, None, false);
        Self(Box::new(Inner {
            status,
            kind,
            message,
            param,
            reason,
            cause,
            retry_after,
            internal,
            of_body,
        }))
    }

    /// 400: the values make no sense together or are out of range.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequestError", Cause::Validation, message.into())
    }

    /// 400: the body is not of the expected shape.
    pub fn schema(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Bad Request", Cause::Validation, message.into())
            .of_body()
    }

    /// 400 with the phrase by which clients recognise a prompt that does not fit.
    pub fn context_length(message: String, param: &str) -> Self {
        let mut error = Self::bad_request(message).with_param(param);
        error.0.reason = Some("context_length_exceeded");
        error
    }

    /// 401.
    pub fn unauthorized() -> Self {
        let message = "A valid API key is needed: send it as \"Authorization: Bearer KEY\" or in the \"x-api-key\" header.";
        Self::new(StatusCode::UNAUTHORIZED, "AuthenticationError", Cause::Auth, message.into())
    }

    /// 404: a model or another named thing.
    pub fn model_not_found(name: &str) -> Self {
        let message = format!("The model `{}` does not exist.", clip(name));
        Self::new(StatusCode::NOT_FOUND, "NotFoundError", Cause::Validation, message)
            .with_param("model")
    }

    /// 404: no such path.
    pub fn path_not_found(path: &str) -> Self {
        let message = format!("There is no route {}.", clip(path));
        Self::new(StatusCode::NOT_FOUND, "Not Found", Cause::Validation, message)
    }

    /// 405.
    pub fn method_not_allowed(method: &str, path: &str) -> Self {
        let message = format!("{} does not answer {}.", clip(path), clip(method));
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed", Cause::Validation, message)
    }

    /// 413.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("The body is larger than the limit of {limit} bytes.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestTooLarge", Cause::Validation, message)
    }

    /// 429: a queue is full.
    pub fn overloaded(message: impl Into<String>) -> Self {
        let status = StatusCode::TOO_MANY_REQUESTS;
        let mut error = Self::new(status, "RateLimitError", Cause::QueueFull, message.into());
        error.0.retry_after = Some(1);
        error
    }

    /// 503: cannot be answered now, may be elsewhere or later.
    pub fn unavailable(cause: Cause, message: impl Into<String>) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let mut error = Self::new(status, "Service Unavailable", cause, message.into());
        error.0.retry_after = Some(1);
        error
    }

    /// 503 while stopping.
    pub fn draining() -> Self {
        Self::unavailable(Cause::Draining, "The server is stopping and takes no new requests.")
    }

    /// 503 for a deadline that passed before the first token.
    pub fn deadline() -> Self {
        Self::unavailable(
            Cause::Deadline,
            "The request's deadline passed before a token was generated.",
        )
    }

    /// 500; `internal` goes to the log only.
    pub fn internal(message: impl Into<String>, internal: impl Into<String>) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        let mut error = Self::new(status, "InternalServerError", Cause::Internal, message.into());
        error.0.internal = Some(internal.into());
        error
    }

    /// 500: the device under the engine is gone.
    pub fn engine_lost() -> Self {
        Self::internal("The engine stopped and cannot answer.", "the engine thread is gone")
    }

    /// 500: one sequence could not go on.
    pub fn sequence_failed() -> Self {
        Self::internal(
            "The model produced values that are not numbers for this request.",
            "a sequence failed: logits are not numbers",
        )
    }

    /// Names the parameter at fault, as a dotted path.
    #[must_use]
    pub fn with_param(mut self, param: impl Into<String>) -> Self {
        self.0.param = Some(param.into());
        self
    }

    /// Says that the body alone shows the fault, without the model: KServe's servers answer 422.
    #[must_use]
    pub fn of_body(mut self) -> Self {
        self.0.of_body = true;
        self
    }

    /// Whether the body alone shows the fault.
    pub fn is_of_body(&self) -> bool {
        self.0.of_body
    }

    /// The same failure as the routes below KServe's prefix give it: 422 where the body fails validation.
    #[must_use]
    pub(crate) fn for_kserve(mut self) -> Self {
        if self.0.of_body {
            self.0.status = StatusCode::UNPROCESSABLE_ENTITY;
            self.0.kind = "UnprocessableEntityError";
        }
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The message that the client reads.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The parameter at fault, a dotted path.
    pub fn param(&self) -> Option<&str> {
        self.0.param.as_deref()
    }

    /// Why, for the counters.
    pub fn cause(&self) -> Cause {
        self.0.cause
    }

    /// The JSON body, also used for events of a stream.
    pub fn body(&self) -> Value {
        let inner = &self.0;
        let mut error = json!({
            "message": inner.message,
            "type": inner.kind,
            "param": inner.param,
            "code": inner.status.as_u16(),
        });
        if let Some(reason) = inner.reason {
            error["reason"] = reason.into();
        }
        json!({ "error": error })
    }

    /// Writes what only we should know to the log.
    pub fn log(&self) {
        if let Some(internal) = &self.0.internal {
            tracing::error!(status = self.0.status.as_u16(), %internal, "request failed");
        } else {
            tracing::debug!(status = self.0.status.as_u16(), message = %self.0.message, "request refused");
        }
    }
}

/// At most 200 characters of a client's value.
pub(crate) fn clip(value: &str) -> String {
    match value.char_indices().nth(200) {
        Some((end, _)) => format!("{}...", &value[..end]),
        None => value.to_owned(),
    }
}

/// The cause of a failed response, left in its extensions for the counters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rejection(pub Cause);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.log();
        let mut response = axum::Json(self.body()).into_response();
        *response.status_mut() = self.0.status;
        let extensions = response.extensions_mut();
        extensions.insert(Rejection(self.0.cause));
        // For dialects that write it in another form.
        extensions.insert(self.clone());
        let headers = response.headers_mut();
        if let Some(seconds) = self.0.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.0.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        use tokenmill_scheduler::SubmitError as Sequence;
        match error {
            SubmitError::Sequence(sequence) => match sequence {
                Sequence::EmptyPrompt => {
                    ApiError::bad_request("The prompt has no token.").with_param("prompt")
                }
                Sequence::PromptTooLong { prompt_tokens, max_model_len } => {
                    prompt_too_long(prompt_tokens, max_model_len)
                }
                Sequence::ZeroMaxTokens => {
                    ApiError::bad_request(sequence.to_string()).with_param("max_tokens")
                }
                Sequence::TokenOutOfVocabulary { .. } => {
                    ApiError::bad_request(sequence.to_string()).with_param("prompt")
                }
                Sequence::Overloaded { .. } => ApiError::overloaded(sequence.to_string()),
            },
            SubmitError::Sampling(sampling) => ApiError::from(sampling),
            SubmitError::Overloaded { .. } => ApiError::overloaded(error.to_string()),
            SubmitError::Draining => ApiError::draining(),
            SubmitError::Lost => ApiError::engine_lost(),
        }
    }
}

impl From<SamplingError> for ApiError {
    fn from(error: SamplingError) -> Self {
        let (SamplingError::OutOfRange { field, .. }
        | SamplingError::Empty { field }
        | SamplingError::TokenOutOfVocabulary { field, .. }) = &error;
        ApiError::bad_request(error.to_string()).with_param(*field)
    }
}

/// The message by which clients recognise a prompt that leaves no room for a token.
pub(crate) fn prompt_too_long(prompt_tokens: usize, max_model_len: u32) -> ApiError {
    ApiError::context_length(
        format!(
            "This model's maximum context length is {max_model_len} tokens. However, your prompt \
             contains {prompt_tokens} input tokens, which leaves no room for an output token. \
             Please reduce the length of the input."
        ),
        "input_tokens",
    )
}

impl From<TextError> for ApiError {
    fn from(error: TextError) -> Self {
        match &error {
            TextError::Busy { .. } => ApiError::overloaded(error.to_string()),
            TextError::Closed => ApiError::draining(),
            TextError::Encode(_) => ApiError::bad_request(error.to_string()),
            TextError::Read { .. }
            | TextError::NoTokenizer { .. }
            | TextError::Invalid { .. }
            | TextError::Panicked(_) => {
                ApiError::internal("The text could not be processed.", error.to_string())
            }
        }
    }
}

impl From<TemplateError> for ApiError {
    fn from(error: TemplateError) -> Self {
        ApiError::bad_request(format!("The chat template refused the messages: {error}"))
            .with_param("messages")
    }
}
