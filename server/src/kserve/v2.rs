//! `POST /v2/models/M/infer`.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use super::failure::Failure;
use super::infer::{self, InferRequest};
use super::statistics::Watch;
use super::v2_json::Answer;
use super::{Predictive, v2_binary, v2_json};
use crate::admission::RequestContext;
use crate::app::App;
use crate::random;

/// Whether a content type is JSON, whatever its parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media = value.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    media.eq_ignore_ascii_case("application/json")
}

fn parse(model: &Predictive, headers: &HeaderMap, body: Bytes) -> Result<InferRequest, Failure> {
    match v2_binary::json_length(headers)? {
        Some(length) => v2_binary::parse(model, body, length),
        None if is_json(headers) => v2_json::parse(&model.name, &body, None),
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
    let mut request = parse(model, headers, body)?;
    let deadline = super::http::deadline(app, context)?;
    let deadline = request.deadline(deadline);
    let id = request.id.take().unwrap_or_else(random::uuid);
    let binary = request.parameters.bool("binary_data_output").unwrap_or(false);
    let plan = infer::plan(&model.name, model.handle.model().as_ref(), request)?;
    let outputs = infer::run(model, plan, deadline, &mut watch).await?;
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
    }
    Ok(response)
}
