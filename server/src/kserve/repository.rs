//! `POST /v2/repository/…`: the index, loading and unloading.

use axum::http::Method;
use axum::response::IntoResponse;
use serde_json::{Value, json};

use super::failure::Failure;
use super::http::{Call, Outcome, json, not_found};

/// Routes below `/v2/repository/`.
pub(super) async fn dispatch(call: Box<Call>, rest: &str) -> Outcome {
    let model = rest.strip_prefix("models/").and_then(|rest| rest.rsplit_once('/'));
    match (rest, model) {
        ("index", _) => {
            call.only(&Method::POST)?;
            index(&call)
        }
        (_, Some((name, "load"))) => {
            call.only(&Method::POST)?;
            load(call, name).await
        }
        (_, Some((name, "unload"))) => {
            call.only(&Method::POST)?;
            call.app.registry.repository().unload(name).await?;
            json(&json!({"name": name, "unload": true}))
        }
        _ => Err(not_found()),
    }
}

/// The JSON object of a body; an empty body is an empty object.
fn object(body: &[u8]) -> Result<Value, Failure> {
    let text = if body.trim_ascii().is_empty() { b"{}" } else { body };
    let value: Value = serde_json::from_slice(text)
        .map_err(|error| Failure::invalid(format!("Unrecognized request format: {error}")))?;
    if !value.is_object() {
        return Err(Failure::invalid("expected a JSON object"));
    }
    Ok(value)
}

/// Triton's index of models.
fn index(call: &Call) -> Outcome {
    let value = object(&call.body)?;
    let ready = match &value["ready"] {
        Value::Null => false,
        Value::Bool(ready) => *ready,
        other => return Err(Failure::invalid(format!("ready: expected a bool, found {other}"))),
    };
    let entries = call.app.registry.repository().index(ready);
    let entry = |entry: crate::repository::IndexEntry| {
        json!({
            "name": entry.name,
            "version": entry.version,
            "state": entry.state,
            "reason": entry.reason,
        })
    };
    let entries: Vec<Value> = entries.into_iter().map(entry).collect();
    Ok(axum::Json(entries).into_response())
}

/// Loads a model; Triton's `config` parameter takes the place of its `config.pbtxt`.
async fn load(call: Box<Call>, name: &str) -> Outcome {
    let value = object(&call.body)?;
    let mut config = None;
    let parameters = match &value["parameters"] {
        Value::Null => None,
        Value::Object(parameters) => Some(parameters),
        _ => return Err(Failure::invalid("parameters: expected an object")),
    };
    for (parameter, value) in parameters.into_iter().flatten() {
        match (parameter.as_str(), value.as_str()) {
            ("config", Some(text)) => config = Some(text),
            _ => {
                return Err(Failure::invalid(format!(
                    "the load parameter {} is not supported; config is, a JSON text",
                    crate::error::clip(parameter)
                )));
            }
        }
    }
    call.app.registry.repository().load(name, config).await?;
    json(&json!({"name": name, "load": true}))
}
