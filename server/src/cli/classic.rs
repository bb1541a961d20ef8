//! Classic models on the command line: which files are theirs, loading, serving.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use serde_json::{Value, json};
use tokenmill_predictive::{Model, ModelFiles, PredictPool, TensorSpec, load, recognise};

use crate::config::{Config, ModelSpec, Origin};
use crate::registry::Registry;
use crate::repository::{RemoteModels, Repository, RepositoryConfig};

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

/// Whether `path` is a directory of models: no model itself, but one below it.
pub(super) fn is_repository(config: &Config, path: &Path) -> bool {
    let Ok(files) = ModelFiles::open(path) else { return false };
    let language = |name: &String| {
        name == "config.json" || [".gguf", ".safetensors"].iter().any(|end| name.ends_with(end))
    };
    if !files.is_directory || files.names.iter().any(language) || is_model(config, path) {
        return false;
    }
    directories(path).iter().any(|model| {
        model.join("config.pbtxt").is_file()
            || is_model(config, model)
            || directories(model).iter().any(|version| is_model(config, version))
    })
}

/// Whether the files at the top of `path` are of a known format.
fn is_model(config: &Config, path: &Path) -> bool {
    let Ok(files) = ModelFiles::open(path) else { return false };
    match config.predictive.load.format {
        Some(_) => !files.names.is_empty() && recognise(&files).is_some(),
        None => recognise(&files).is_some(),
    }
}

/// The visible directories in `path`; none when it cannot be listed.
fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let visible = entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
    visible.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Where load calls for models of `spec` get their files from.
fn remote(config: &Config, spec: &ModelSpec, below: bool) -> Option<RemoteModels> {
    let Origin::Remote(uri) = &spec.origin else { return None };
    Some(RemoteModels { uri: uri.clone(), below, storage: config.storage.clone() })
}

/// The models below `root`, the local copy of `spec`.
pub(super) fn below(
    config: &Config,
    spec: &ModelSpec,
    root: PathBuf,
) -> anyhow::Result<Repository> {
    repository(config, Some(root), remote(config, spec, true))
}

/// A repository that can load, below `root`, from storage or from named files.
fn repository(
    config: &Config,
    root: Option<PathBuf>,
    remote: Option<RemoteModels>,
) -> anyhow::Result<Repository> {
    let pool = PredictPool::new(config.predictive.threads)
        .context("cannot start the threads of classic models")?;
    tracing::info!(threads = config.predictive.threads, "threads of classic models");
    Ok(Repository::new(RepositoryConfig {
        root,
        remote,
        options: config.predictive.load.clone(),
        handle: config.predictive.handle.clone(),
        pool,
    }))
}

/// A repository below the directory of `spec`, without models until they are asked for.
pub(super) fn on_call(config: &Config, spec: &ModelSpec) -> anyhow::Result<Repository> {
    let root = match &spec.origin {
        Origin::Path(root) => Some(root.clone()),
        Origin::Remote(_) => None,
        Origin::Hub(_) => anyhow::bail!(
            "{}: MULTI_MODEL_SERVER loads models from a directory or an address of one, {} is none",
            spec.named_by,
            spec.text()
        ),
    };
    tracing::info!(from = spec.text(), "models are loaded by calls");
    Ok(repository(config, root, remote(config, spec, true))?.ready_when_empty())
}

/// A registry that serves the model at `path` under its names.
pub(super) async fn single(
    config: &Config,
    spec: &ModelSpec,
    path: &Path,
) -> anyhow::Result<(Registry, Vec<String>)> {
    let repository = repository(config, None, remote(config, spec, false))?;
    let names = names(config, spec);
    for name in &names {
        let loaded = repository.load_from(name, path, None).await;
        loaded.map_err(|failure| anyhow::anyhow!("{}", failure.text))?;
    }
    Ok((Registry::new(repository), names))
}

/// Loads every model below the root of a repository. One that fails is unavailable; when all do, the start fails.
pub(super) async fn load_all(repository: &Repository) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    let mut failed = Vec::new();
    for name in repository.candidates().context("cannot list the models")? {
        // What is here, not what a load call would get: it came a moment ago.
        let path = repository.root().unwrap_or(Path::new("")).join(&name);
        match repository.load_from(&name, &path, None).await {
            Ok(()) => names.push(name),
            Err(failure) => {
                tracing::error!(model = name, reason = failure.text, "cannot load");
                failed.push(failure.text);
            }
        }
    }
    if names.is_empty() && !failed.is_empty() {
        anyhow::bail!("no model of the repository can be loaded:\n{}", failed.join("\n"));
    }
    Ok(names)
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
