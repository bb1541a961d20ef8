//! Opening a model: which files there are and everything they say but the weights.

mod template;
mod tokens;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

pub use self::template::ChatTemplates;
pub use self::tokens::SpecialTokens;
pub use crate::config::GenerationDefaults;
use crate::config::{ModelConfig, read_object, read_optional_object};
use crate::load::LoadError;
use crate::models;
use crate::weights::gguf::{GgufFile, GgufTokenizer};
use crate::weights::safetensors::Safetensors;
use crate::weights::{TensorSource, files_with_extension};

/// Where the tokenizer is.
#[derive(Clone, Debug)]
pub enum TokenizerFiles {
    /// A directory with `tokenizer.json` and, mostly, `tokenizer_config.json`.
    Directory(PathBuf),
    /// In the metadata of the GGUF file.
    Gguf(Box<GgufTokenizer>),
}

/// An opened model: its weights are mapped but not read.
#[derive(Clone)]
pub struct ModelSource {
    /// The directory or file it was opened from.
    pub path: PathBuf,
    /// Sizes and kinds.
    pub config: ModelConfig,
    /// The weights.
    pub tensors: Arc<dyn TensorSource>,
    /// The tokenizer.
    pub tokenizer: TokenizerFiles,
    /// Chat templates, as text.
    pub chat_templates: ChatTemplates,
    /// Special tokens, as text (chat templates use them), and whether prompts get them.
    pub special_tokens: SpecialTokens,
    /// Sampling defaults.
    pub generation: GenerationDefaults,
}

impl std::fmt::Debug for ModelSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelSource")
            .field("path", &self.path)
            .field("architecture", &self.config.architecture)
            .finish_non_exhaustive()
    }
}

/// Opens a checkpoint directory (`config.json` and safetensors, or one GGUF file) or a `.gguf` file.
/// The contents of weights are not read, except for the frequency factors that a GGUF file may have.
///
/// # Errors
/// When the path holds no model, or one of its files is malformed.
pub fn open(path: &Path) -> Result<ModelSource, LoadError> {
    let metadata =
        path.metadata().map_err(|source| LoadError::Io { path: path.to_owned(), source })?;
    if metadata.is_dir() {
        return open_directory(path);
    }
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("gguf") => open_gguf(path),
        Some("safetensors") => Err(LoadError::NotAModel {
            path: path.to_owned(),
            reason: "weights alone are not a model; give the directory, with config.json".into(),
        }),
        _ => Err(LoadError::NotAModel {
            path: path.to_owned(),
            reason: "a directory or a .gguf file is needed".into(),
        }),
    }
}

fn open_directory(path: &Path) -> Result<ModelSource, LoadError> {
    let ggufs = files_with_extension(path, "gguf")?;
    let configured = path.join("config.json").is_file();
    if configured && (ggufs.is_empty() || !files_with_extension(path, "safetensors")?.is_empty()) {
        return open_checkpoint(path);
    }
    match ggufs.as_slice() {
        [only] => open_gguf(only),
        [] => Err(LoadError::NotAModel {
            path: path.to_owned(),
            reason: "no config.json and no .gguf file in the directory".into(),
        }),
        several => Err(LoadError::NotAModel {
            path: path.to_owned(),
            reason: format!("{} .gguf files in the directory; give the path of one", several.len()),
        }),
    }
}

/// A directory as `transformers` saves it.
fn open_checkpoint(path: &Path) -> Result<ModelSource, LoadError> {
    let generation_path = path.join("generation_config.json");
    let generation = read_optional_object(&generation_path)?.unwrap_or_default();
    let config = read_config(&path.join("config.json"), &generation)?;
    let defaults = GenerationDefaults::from_json(&generation)
        .map_err(|error| error.in_file(&generation_path))?;
    let tokenizer_path = path.join("tokenizer_config.json");
    let tokenizer_config = read_optional_object(&tokenizer_path)?.unwrap_or_default();
    let special_tokens = SpecialTokens::from_directory(path, &tokenizer_config)?;
    Ok(ModelSource {
        path: path.to_owned(),
        tensors: Arc::new(Safetensors::open(path)?),
        tokenizer: TokenizerFiles::Directory(path.to_owned()),
        chat_templates: ChatTemplates::from_directory(path, &tokenizer_config)?,
        special_tokens,
        generation: defaults,
        config,
    })
}

fn read_config(path: &Path, generation: &Map<String, Value>) -> Result<ModelConfig, LoadError> {
    let raw = read_object(path)?;
    let name = raw.get("architectures").and_then(|names| names.get(0)).and_then(Value::as_str);
    let unknown = name.and_then(|name| models::find(name).err());
    ModelConfig::from_json(raw, generation).map_err(|error| {
        // That the kind of model is unknown explains best why its fields are strange.
        unknown.unwrap_or(error).in_file(path)
    })
}

fn open_gguf(path: &Path) -> Result<ModelSource, LoadError> {
    let file = GgufFile::open(path)?;
    let in_file = |error: LoadError| error.in_file(path);
    let tokenizer = GgufTokenizer::from_metadata(file.metadata()).map_err(in_file)?;
    let config = ModelConfig::from_gguf(&file, &tokenizer).map_err(in_file)?;
    Ok(ModelSource {
        path: path.to_owned(),
        config,
        chat_templates: ChatTemplates::from_gguf(&tokenizer),
        special_tokens: SpecialTokens::from_gguf(&tokenizer),
        tokenizer: TokenizerFiles::Gguf(Box::new(tokenizer)),
        tensors: Arc::new(file),
        generation: GenerationDefaults::default(),
    })
}

#[cfg(test)]
mod tests;
