//! `POST /v2/models/M/infer`.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use super::failure::Failure;
use super::infer::{self, InferRequest};
use super::statistics::Watch;
use super::v2_json::Answer;
use super::{Predictive, strict, v2_binary, v2_json};
use crate::admission::RequestContext;
use crate::app::App;
use crate::random;

/// The content type of a request, without its parameters.
fn media(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().split(';').next().unwrap_or_default().trim()
}

/// Reads a body: JSON with raw bytes behind it where a header says how much is JSON, else JSON alone. That may be called
/// `application/octet-stream`, as `tritonclient.http.aio` does it, but for `strict`.
fn parse(
    model: &Predictive,
    headers: &HeaderMap,
    body: Bytes,
    strict: bool,
) -> Result<InferRequest, Failure> {
    let is = |wanted: &str| media(headers).eq_ignore_ascii_case(wanted);
    let unnamed =
        || !strict && is("application/octet-stream") && body.trim_ascii_start().starts_with(b"{");
    match v2_binary::json_length(headers)? {
        Some(length) => {
            v2_binary::parse(&model.name, model.handle.model().signature(), body, length)
        }
        None if is("application/json") || unnamed() => v2_json::parse(&model.name, &body, None),
        None => Err(Failure::invalid(
            "received byte inputs, but the'inference-header-content-length' header is missing.",
        )),
    }
}

/// Answers an inference request whose body is read.
pub(super) async fn infer(
    app: &App,
    model: &Arc<Predictive>,
    context: &RequestContext,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Response, Failure> {
    let mut watch = Watch::start(&model.statistics);
    let strict = app.config.kserve.strict;
    let mut request = parse(model, headers, body, strict)?;
    let deadline = super::http::deadline(app, context)?;
    let deadline = request.deadline(deadline)?;
    let id = request.id.take().unwrap_or_else(random::uuid);
    let binary = request.parameters.bool("binary_data_output").unwrap_or(false);
    let loaded = model.handle.model().as_ref();
    let mut plan = infer::plan(&model.name, loaded, request)?;
    if strict {
        strict::check_columns(loaded, &mut plan.request)?;
    }
    let outputs = infer::run(model, plan, deadline, &mut watch).await?;
    if strict {
        strict::check_outputs(&outputs, |output| !output.binary.unwrap_or(binary))?;
    }
    let answer = Answer {
        model_name: &model.name,
        model_version: model.version.as_deref(),
        id: &id,
        outputs: &outputs,
        binary,
    };
    let (body, json_length) = answer.encode();
    watch.finish();
    let media = if json_length.is_some() { "application/octet-stream" } else { "application/json" };
    let mut response = ([(header::CONTENT_TYPE, media)], body).into_response();
    if let Some(length) = json_length {
        response.headers_mut().insert(v2_binary::LENGTH, HeaderValue::from(length));
        if strict {
            response.headers_mut().remove(header::CONTENT_TYPE);
        }
    }
    Ok(response)
}
