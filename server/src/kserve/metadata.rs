//! What models are, in the shapes of V1, V2 and Triton.

use std::time::Duration;

use serde_json::{Value, json};
use tokenmill_predictive::TensorSpec;

use super::{Predictive, strict};
use crate::app::App;

/// Extensions that `GET /v2` names: those that are there.
const EXTENSIONS: [&str; 8] = [
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository_extension",
    "binary_tensor_data",
    "parameters",
    "schedule_policy",
    "statistics",
];
/// Name of the server.
pub(super) const SERVER: &str = "tokenmill";

/// The extensions that are named; `strict` names KServe's one.
pub(super) fn extensions(strict: bool) -> &'static [&'static str] {
    if strict { &strict::EXTENSIONS } else { &EXTENSIONS }
}

/// `GET /v2`.
pub(super) fn server(strict: bool) -> Value {
    json!({
        "name": SERVER,
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": extensions(strict),
    })
}

/// Every served name.
pub(crate) fn names(app: &App) -> Vec<String> {
    app.registry.names()
}

pub(super) fn sizes(spec: &TensorSpec) -> Vec<i64> {
    let size = |size: &Option<usize>| size.map_or(-1, |size| i64::try_from(size).unwrap_or(-1));
    spec.shape.iter().map(size).collect()
}

/// Whole microseconds.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// `GET /v2/models/M`; without a `model` it is a language model.
pub(super) fn model(app: &App, name: &str, model: Option<&Predictive>) -> Value {
    if app.config().kserve.strict {
        return json!({"name": name, "versions": null, "platform": "", "inputs": [], "outputs": []});
    }
    let Some(model) = model else {
        return json!({"name": name, "versions": null, "platform": "tokenmill", "inputs": [], "outputs": []});
    };
    let spec = |spec: &TensorSpec| json!({"name": spec.name, "datatype": spec.dtype.name(), "shape": sizes(spec)});
    let signature = model.handle.model().signature();
    let versions = app.registry.repository().versions(name);
    json!({
        "name": name,
        "versions": (!versions.is_empty()).then_some(versions),
        "platform": model.handle.model().description().format,
        "inputs": signature.inputs.iter().map(spec).collect::<Vec<_>>(),
        "outputs": signature.outputs.iter().map(spec).collect::<Vec<_>>(),
    })
}

/// `GET /v2/models/M/config`: Triton's model configuration.
pub(super) fn config(model: &Predictive) -> Value {
    let spec = |spec: &TensorSpec| {
        let dtype = match spec.dtype.name() {
            "BYTES" => "STRING",
            other => other,
        };
        json!({"name": spec.name, "data_type": format!("TYPE_{dtype}"), "dims": sizes(spec)})
    };
    let loaded = model.handle.model();
    let signature = loaded.signature();
    let batching = model.handle.batching();
    let dynamic = batching.map(|batching| {
        json!({
            "preferred_batch_size": batching.preferred,
            "max_queue_delay_microseconds": micros(batching.max_delay),
        })
    });
    let mut config = json!({
        "name": model.name,
        "platform": "",
        "backend": loaded.description().format,
        "max_batch_size": batching.map_or(0, |batching| batching.max_rows),
        "input": signature.inputs.iter().map(spec).collect::<Vec<_>>(),
        "output": signature.outputs.iter().map(spec).collect::<Vec<_>>(),
    });
    if let Some(dynamic) = dynamic {
        config["dynamic_batching"] = dynamic;
    }
    config
}
