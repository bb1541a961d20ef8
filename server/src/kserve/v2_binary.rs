//! The binary tensor extension: JSON, then the raw bytes of the tensors.

use axum::http::HeaderMap;
use bytes::Bytes;
use tokenmill_predictive::Signature;

use super::failure::Failure;
use super::infer::{InferInput, InferRequest};
use super::{Parameters, v2_json};

/// Length of the JSON part; also of answers.
pub(super) const LENGTH: &str = "inference-header-content-length";

/// The length that a request's header says.
///
/// # Errors
/// When it is no number.
pub(super) fn json_length(headers: &HeaderMap) -> Result<Option<usize>, Failure> {
    let Some(value) = headers.get(LENGTH) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    number.map(Some).ok_or_else(|| {
        Failure::invalid(format!("Unrecognized request format: {LENGTH} is no length: {value:?}"))
    })
}

/// Reads a body for the model of a name whose first `length` bytes are JSON; the tensors are slices of it.
///
/// # Errors
/// When parts are missing or do not fit.
pub fn parse(
    model: &str,
    signature: &Signature,
    mut body: Bytes,
    length: usize,
) -> Result<InferRequest, Failure> {
    if length > body.len() {
        return Err(Failure::invalid(format!(
            "Unrecognized request format: {LENGTH} is {length}, the body has {} bytes",
            body.len()
        )));
    }
    if length == 0 {
        return only_raw(model, signature, body);
    }
    let raw = body.split_off(length);
    v2_json::parse(model, &body, Some(raw))
}

/// A body without JSON: the one input of a model whose signature says everything but one size.
fn only_raw(model: &str, signature: &Signature, body: Bytes) -> Result<InferRequest, Failure> {
    let refuse = |why: &str| {
        Failure::invalid(format!("a body of raw bytes alone does not fit model '{model}': {why}"))
    };
    let [spec] = signature.inputs.as_slice() else { return Err(refuse("it has several inputs")) };
    if spec.dtype.element_bytes().is_none() {
        return Err(refuse("its input is BYTES"));
    }
    if spec.shape.iter().filter(|size| size.is_none()).count() > 1 {
        return Err(refuse("more than one size of its input is variable"));
    }
    let size = |size: &Option<usize>| size.map_or(-1, |size| i64::try_from(size).unwrap_or(-1));
    let shape: Vec<i64> = spec.shape.iter().map(size).collect();
    let (name, datatype) = (&spec.name, spec.dtype.name());
    let input = InferInput::from_raw(name, datatype, &shape, Parameters::default(), body)?;
    Ok(InferRequest { inputs: vec![input], ..InferRequest::default() })
}
