//! Request bodies in, JSON bodies out.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use serde::Serialize;
use serde_json::Value;

use crate::app::App;
use crate::error::ApiError;

/// Names the parameters of a request that nobody read.
static IGNORED_PARAMS: HeaderName = HeaderName::from_static("x-ignored-params");

/// Reads a JSON body.
///
/// # Errors
/// 400 for another content type or malformed JSON, 413 beyond the limit.
pub(crate) async fn read_json(app: &App, request: Request) -> Result<Value, ApiError> {
    let (parts, body) = request.into_parts();
    check_content_type(&parts.headers)?;
    let bytes = read(body, &parts.headers, app.config.body_limit).await?;
    parse(&bytes)
}

fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media = value.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if media.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ApiError::schema(format!(
        "Content-Type: expected application/json, got {:?}",
        crate::error::clip(media)
    )))
}

/// Reads a body.
///
/// # Errors
/// 413 beyond the limit.
pub(crate) async fn read(body: Body, headers: &HeaderMap, limit: usize) -> Result<Bytes, ApiError> {
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok())
        .unwrap_or(0);
    if declared > limit {
        return Err(ApiError::too_large(limit));
    }
    let mut bytes = BytesMut::with_capacity(declared);
    let mut stream = body.into_data_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk
            .map_err(|error| ApiError::schema(format!("body: it could not be read: {error}")))?;
        if bytes.len().saturating_add(chunk.len()) > limit {
            return Err(ApiError::too_large(limit));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

fn parse(bytes: &[u8]) -> Result<Value, ApiError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        ApiError::schema(format!("body: invalid UTF-8 at byte {}", error.valid_up_to()))
    })?;
    serde_json::from_str(text).map_err(|error| {
        let place = format!("line {} column {}", error.line(), error.column());
        ApiError::schema(format!("body: malformed JSON at {place}: {error}"))
    })
}

/// Serialises `value` at the end of `out`.
pub(crate) fn write_json(out: &mut BytesMut, value: &impl Serialize) {
    serde_json::to_writer(out.writer(), value)
        .expect("our own types serialise, and memory takes every byte");
}

/// A 200 with a JSON body.
pub(crate) fn json(value: &impl Serialize) -> Response {
    let mut out = BytesMut::with_capacity(1024);
    write_json(&mut out, value);
    ([(header::CONTENT_TYPE, "application/json")], out.freeze()).into_response()
}

/// Names ignored parameters in a header of the answer, or refuses them in strict mode.
///
/// # Errors
/// 400 in strict mode when there are any.
pub(crate) fn check_ignored(app: &App, ignored: &[String]) -> Result<(), ApiError> {
    let Some(first) = ignored.first() else { return Ok(()) };
    tracing::debug!(?ignored, "unknown parameters ignored");
    if app.config.strict_params {
        let message = format!("unknown parameters: {}", ignored.join(", "));
        let error = ApiError::bad_request(crate::error::clip(&message)).of_body();
        return Err(error.with_param(first.clone()));
    }
    Ok(())
}

/// Adds the header that names ignored parameters.
pub(crate) fn name_ignored(response: &mut Response, ignored: &[String]) {
    // Header values are visible ASCII; names that are not, and very long lists, are cut.
    let clean = |name: &str| {
        let safe = |c: char| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '?' };
        name.chars().take(64).map(safe).collect::<String>()
    };
    let names: Vec<String> = ignored.iter().take(32).map(|name| clean(name)).collect();
    if names.is_empty() {
        return;
    }
    if let Ok(value) = HeaderValue::from_str(&names.join(", ")) {
        response.headers_mut().insert(IGNORED_PARAMS.clone(), value);
    }
}
