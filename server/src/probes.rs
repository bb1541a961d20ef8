//! Health, load, version and metrics.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::app::App;
use crate::body;
use crate::metrics::{self, Format};

/// `GET /health`, `/ping`: 200 without a body while the engine lives.
pub(crate) async fn health(State(app): State<Arc<App>>) -> StatusCode {
    if app.registry.is_alive() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// `GET /health/live`.
pub(crate) async fn live(State(app): State<Arc<App>>) -> Response {
    let live = app.registry.is_alive();
    state(live, &json!({ "live": live }))
}

/// `GET /health/ready`: 503 before the models can answer and while draining.
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Response {
    let ready = app.is_ready();
    state(ready, &json!({ "ready": ready }))
}

fn state(good: bool, value: &serde_json::Value) -> Response {
    let mut response = body::json(value);
    if !good {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

/// `GET /version`.
pub(crate) async fn version() -> Response {
    body::json(&json!({ "version": env!("CARGO_PKG_VERSION") }))
}

/// `GET /load`.
pub(crate) async fn load(State(app): State<Arc<App>>) -> Response {
    body::json(&json!({ "server_load": app.in_flight() }))
}

/// `GET /metrics`: Prometheus' format, or OpenMetrics where the `Accept` header asks for it.
pub(crate) async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let format = Format::accepted(accept.unwrap_or_default());
    let text = metrics::encode(&app, format);
    ([(header::CONTENT_TYPE, format.content_type())], text).into_response()
}
