//! Why a request to a classic model fails: one table of HTTP statuses, gRPC codes and texts.

use axum::http::StatusCode;
use serde_json::Value;
use tokenmill_predictive::{PredictError, SubmitError};
use tonic::Code;

use super::Unserved;
use crate::error::{ApiError, Cause};

/// The kind of a failure; it decides status and code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The request is wrong, and KServe's servers say so too.
    Invalid,
    /// The request is wrong, but KServe's servers find that out inside the model: 500 under `--strict-kserve`.
    InvalidForModel,
    /// No such model.
    Unknown,
    /// The model is known and cannot answer now.
    NotReady,
    /// Not implemented, or a protocol that the model does not speak.
    Unimplemented,
    /// Too many requests wait.
    Overloaded,
    /// The deadline passed.
    Deadline,
    /// Our fault.
    Internal,
    /// An HTTP answer that has no counterpart elsewhere: a body that is too large, a method, a schema.
    Http(StatusCode),
}

/// A failed request, neutral of the protocol.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// What kind.
    pub kind: FailureKind,
    /// What the client reads.
    pub text: String,
    /// `detail` of the HTTP answer in the place of `error`.
    pub detail: Option<Value>,
}

impl Failure {
    /// A failure of a kind.
    pub fn new(kind: FailureKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), detail: None }
    }

    /// The request is wrong.
    pub fn invalid(text: impl Into<String>) -> Self {
        Self::new(FailureKind::Invalid, text)
    }

    /// The request does not fit the model.
    pub fn model(text: impl Into<String>) -> Self {
        Self::new(FailureKind::InvalidForModel, text)
    }

    /// An HTTP answer with `detail`, as KServe's router and its validation give it.
    pub fn detail(status: StatusCode, detail: Value) -> Self {
        let text = detail.as_str().map_or_else(|| detail.to_string(), str::to_owned);
        Self { kind: FailureKind::Http(status), text, detail: Some(detail) }
    }

    /// The HTTP status; `strict` gives that of KServe's servers.
    pub fn status(&self, strict: bool) -> StatusCode {
        match self.kind {
            FailureKind::InvalidForModel if strict => StatusCode::INTERNAL_SERVER_ERROR,
            FailureKind::Invalid | FailureKind::InvalidForModel => StatusCode::BAD_REQUEST,
            FailureKind::Unknown => StatusCode::NOT_FOUND,
            FailureKind::NotReady => StatusCode::SERVICE_UNAVAILABLE,
            FailureKind::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            FailureKind::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            FailureKind::Deadline => StatusCode::SERVICE_UNAVAILABLE,
            FailureKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            FailureKind::Http(status) => status,
        }
    }

    /// The gRPC code.
    pub fn code(&self) -> Code {
        match self.kind {
            FailureKind::Invalid | FailureKind::InvalidForModel | FailureKind::Http(_) => {
                Code::InvalidArgument
            }
            FailureKind::Unknown => Code::NotFound,
            FailureKind::NotReady => Code::Unavailable,
            FailureKind::Unimplemented => Code::Unimplemented,
            FailureKind::Overloaded => Code::ResourceExhausted,
            FailureKind::Deadline => Code::DeadlineExceeded,
            FailureKind::Internal => Code::Internal,
        }
    }

    /// Why, for the counters.
    pub fn cause(&self) -> Cause {
        match self.kind {
            FailureKind::Overloaded => Cause::QueueFull,
            FailureKind::Deadline => Cause::Deadline,
            FailureKind::NotReady | FailureKind::Internal => Cause::Internal,
            _ => Cause::Validation,
        }
    }
}

impl From<Unserved> for Failure {
    fn from(unserved: Unserved) -> Self {
        let kind = match unserved {
            Unserved::Unknown(_) => FailureKind::Unknown,
            Unserved::NotReady(_) => FailureKind::NotReady,
            Unserved::Generative(_) => FailureKind::Unimplemented,
        };
        Self::new(kind, unserved.to_string())
    }
}

impl From<SubmitError> for Failure {
    fn from(error: SubmitError) -> Self {
        let kind = match &error {
            SubmitError::Overloaded => FailureKind::Overloaded,
            SubmitError::Deadline => FailureKind::Deadline,
            SubmitError::Predict(PredictError::Input { .. } | PredictError::Unsupported(_)) => {
                FailureKind::InvalidForModel
            }
            SubmitError::Predict(PredictError::Internal(_)) | SubmitError::Panicked => {
                FailureKind::Internal
            }
        };
        Self::new(kind, error.to_string())
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let kind = match error.status() {
            StatusCode::TOO_MANY_REQUESTS => FailureKind::Overloaded,
            status => FailureKind::Http(status),
        };
        Self::new(kind, error.message())
    }
}
