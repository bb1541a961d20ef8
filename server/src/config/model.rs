//! Which model is meant, and under which names.

use std::path::{Path, PathBuf};

use super::{Arguments, Environment, UsageError};
use crate::hub::{HubId, is_model_file};
use crate::storage::StorageUri;

/// Where KServe mounts models.
const MOUNT: &str = "/mnt/models";

/// Where a model is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A directory or file of this machine.
    Path(PathBuf),
    /// A repository of the hub.
    Hub(HubId),
    /// An address of storage.
    Remote(StorageUri),
}

/// The model that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSpec {
    /// Where it is.
    pub origin: Origin,
    /// The flag or variable that named it, for messages.
    pub named_by: String,
}

impl ModelSpec {
    /// The name it is served under when nobody gives one.
    pub fn default_name(&self) -> String {
        match &self.origin {
            Origin::Hub(id) => id.repository(),
            Origin::Remote(uri) => uri.name(),
            Origin::Path(path) if path == Path::new(MOUNT) => "model".to_owned(),
            Origin::Path(path) => {
                let gguf = path.extension().is_some_and(|extension| extension == "gguf");
                let name = if gguf { path.file_stem() } else { path.file_name() };
                name.map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
            }
        }
    }

    /// As it was asked for.
    pub fn text(&self) -> String {
        match &self.origin {
            Origin::Hub(id) => id.to_string(),
            Origin::Remote(uri) => uri.to_string(),
            Origin::Path(path) => path.display().to_string(),
        }
    }
}

/// The model, by the first of: the positional word, `--model`, `--model-id`, `--model-dir`,
/// `STORAGE_URI`, the mount when it holds files (or will, with `late`).
pub(super) fn model(
    arguments: &Arguments,
    environment: &Environment,
    late: bool,
) -> Result<Option<ModelSpec>, UsageError> {
    let flag = |name| Some((arguments.typed(name), arguments.text(name)?.to_owned()));
    let positional = || Some(("MODEL".to_owned(), arguments.positional().first()?.clone()));
    let variable = || Some(("STORAGE_URI".to_owned(), environment.get("STORAGE_URI")?.to_owned()));
    let mounted = || {
        let there = late || holds_files(Path::new(MOUNT));
        there.then(|| ("the model mount".to_owned(), MOUNT.to_owned()))
    };
    let named = positional()
        .or_else(|| flag("model"))
        .or_else(|| flag("model-id"))
        .or_else(|| flag("model-dir"))
        .or_else(variable)
        .or_else(mounted);
    let Some((named_by, text)) = named else { return Ok(None) };
    let origin = origin(&text).map_err(|why| UsageError(format!("{named_by}: {why}")))?;
    Ok(Some(ModelSpec { origin, named_by }))
}

/// `--model-repository`: a directory, or an address of one.
pub(super) fn repository(arguments: &Arguments) -> Result<Option<ModelSpec>, UsageError> {
    let Some(text) = arguments.text("model-repository") else { return Ok(None) };
    let named_by = arguments.typed("model-repository");
    let origin = match text.contains("://") && !text.starts_with("hf://") {
        true => origin(text).map_err(|why| UsageError(format!("{named_by}: {why}")))?,
        false => Origin::Path(text.into()),
    };
    Ok(Some(ModelSpec { origin, named_by }))
}

/// Names of `--served-model-name`, else `--model-name`, else `MODEL_NAME`.
pub(super) fn served_names(arguments: &Arguments, environment: &Environment) -> Vec<String> {
    let served = arguments.list("served-model-name");
    if !served.is_empty() {
        return served;
    }
    let name = arguments.text("model-name").or_else(|| environment.get("MODEL_NAME"));
    name.into_iter().map(str::to_owned).collect()
}

fn holds_files(directory: &Path) -> bool {
    std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some())
}

/// A path, a hub id or an address, from what a model is called.
fn origin(text: &str) -> Result<Origin, String> {
    if let Some(path) = text.strip_prefix("file://") {
        return Ok(Origin::Path(path.into()));
    }
    if text.starts_with("hf://") {
        return HubId::parse(text).map(Origin::Hub);
    }
    if text.contains("://") && !Path::new(text).exists() {
        return StorageUri::parse(text).map(Origin::Remote);
    }
    let path = Path::new(text);
    let looks_local = text.starts_with(['/', '.', '~']) || !text.contains('/');
    if looks_local || path.exists() {
        return Ok(Origin::Path(path.to_owned()));
    }
    // `dir/file.gguf` that is not there is a mistyped path, `org/name:file.gguf` is a hub id.
    if is_model_file(text) && !text.contains(':') {
        return Ok(Origin::Path(path.to_owned()));
    }
    match HubId::parse(text) {
        Ok(id) => Ok(Origin::Hub(id)),
        Err(_) if text.matches('/').count() > 1 => Ok(Origin::Path(path.to_owned())),
        Err(why) => Err(why),
    }
}
