//! Classic models on the command line: which files are theirs, loading, serving.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use serde_json::{Value, json};
use tokenmill_predictive::{
    Model, ModelFiles, PredictHandle, PredictPool, TensorSpec, load, recognise,
};

use crate::config::{Config, ModelSpec};
use crate::kserve::Predictive;
use crate::registry::{Registry, Served};

/// Whether `path` is a classic model: `--framework` says so, or the files do and are no language model's.
pub(super) fn is_classic(config: &Config, path: &Path) -> bool {
    if config.predictive.load.format.is_some() {
        return true;
    }
    let Ok(files) = ModelFiles::open(path) else { return false };
    let language = files.names.iter().any(|name| name == "config.json" || name.ends_with(".gguf"));
    !language && recognise(&files).is_some()
}

/// Loads the model at `path`.
pub(super) async fn open(config: &Config, path: &Path) -> anyhow::Result<Arc<dyn Model>> {
    let (path, options) = (path.to_owned(), config.predictive.load.clone());
    let model = tokio::task::spawn_blocking(move || load(&path, &options)).await??;
    Ok(Arc::from(model))
}

/// Names that the model of `spec` is served under, at least one.
pub(super) fn names(config: &Config, spec: &ModelSpec) -> Vec<String> {
    match config.served_names.as_slice() {
        [] => vec![spec.default_name()],
        names => names.to_vec(),
    }
}

/// A registry that serves the model at `path`.
pub(super) async fn prepare(
    config: &Config,
    spec: &ModelSpec,
    path: &Path,
) -> anyhow::Result<(Registry, Vec<String>)> {
    let start = Instant::now();
    let model = open(config, path).await?;
    let description = model.description();
    tracing::info!(
        model = %path.display(),
        format = description.format,
        kind = description.kind,
        library = description.library.as_deref().unwrap_or("unknown"),
        threads = config.predictive.threads,
        seconds = start.elapsed().as_secs_f64(),
        "model"
    );
    let pool = PredictPool::new(config.predictive.threads)
        .context("cannot start the threads of classic models")?;
    let handle = PredictHandle::new(model, pool, config.predictive.handle.clone());
    let names = names(config, spec);
    let mut registry = Registry::default();
    for name in &names {
        let model = Predictive::new(name.clone(), None, handle.clone());
        registry.insert(name.clone(), Served::Predictive(Arc::new(model)))?;
    }
    Ok((registry, names))
}

/// Everything there is to say of a loaded model, for programs.
pub(super) fn facts(model: &dyn Model, path: &Path, names: &[String]) -> Value {
    let (signature, description) = (model.signature(), model.description());
    let spec = |spec: &TensorSpec| {
        let size = |size: &Option<usize>| size.map_or(json!(-1), |size| json!(size));
        let shape: Vec<Value> = spec.shape.iter().map(size).collect();
        json!({"name": spec.name, "datatype": spec.dtype.name(), "shape": shape})
    };
    let specs = |list: &[TensorSpec]| list.iter().map(spec).collect::<Vec<Value>>();
    let methods: Vec<&str> = model.methods().iter().map(|method| method.name()).collect();
    let facts = description.facts.iter();
    json!({
        "path": path.display().to_string(),
        "names": names,
        "format": description.format,
        "library": description.library,
        "kind": description.kind,
        "methods": methods,
        "inputs": specs(&signature.inputs),
        "outputs": specs(&signature.outputs),
        "columns": signature.columns,
        "batchable": signature.batchable,
        "facts": facts.map(|(name, value)| (*name, json!(value))).collect::<BTreeMap<_, _>>(),
    })
}

/// The same for people.
pub(super) fn text(facts: &Value) -> String {
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let words = |value: &Value| {
        value.as_array().into_iter().flatten().map(plain).collect::<Vec<_>>().join(", ")
    };
    let tensors = |value: &Value| {
        let one = |spec: &Value| {
            format!("{} {} {}", plain(&spec["name"]), plain(&spec["datatype"]), spec["shape"])
        };
        value.as_array().into_iter().flatten().map(one).collect::<Vec<_>>().join(", ")
    };
    let mut rows = vec![
        ("model", plain(&facts["path"])),
        ("format", plain(&facts["format"])),
        ("written by", facts["library"].as_str().unwrap_or("unknown").to_owned()),
        ("kind", plain(&facts["kind"])),
        ("methods", words(&facts["methods"])),
        ("inputs", tensors(&facts["inputs"])),
        ("outputs", tensors(&facts["outputs"])),
    ];
    if !facts["columns"].is_null() {
        rows.push(("columns", words(&facts["columns"])));
    }
    let more = facts["facts"].as_object().into_iter().flatten();
    rows.extend(more.map(|(name, value)| (name.as_str(), plain(value))));
    rows.iter().map(|(name, value)| format!("{name:<16}{value}\n")).collect()
}
