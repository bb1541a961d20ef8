//! From a configuration to an opened model: find or download its files, read what describes them, plan.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use tokenmill_engine::layers::FloatType;
use tokenmill_engine::load::{
    self, GenerationDefaults, KvChoice, KvType, LoadOptions, MemoryPlan, ModelSource,
    TokenizerFiles,
};
use tokenmill_engine::text::{ChatTemplate, Tokenizer};

use super::{classic, progress};
use crate::config::{Config, Dtype, EngineSettings, ModelSpec, Origin};
use crate::hub::HubClient;
use crate::storage;

/// How often a model directory that appears late is looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A model whose weights are not read yet.
pub(super) struct Opened {
    pub(super) path: PathBuf,
    /// Names it is served under, at least one.
    pub(super) names: Vec<String>,
    /// What `/v1/models` prints as its root.
    pub(super) root: String,
    pub(super) source: ModelSource,
    pub(super) options: LoadOptions,
    pub(super) plan: MemoryPlan,
    pub(super) tokenizer: Tokenizer,
    pub(super) template: Option<ChatTemplate>,
    pub(super) generation: GenerationDefaults,
}

/// Opens the language model at `path`.
pub(super) fn open(config: &Config, spec: &ModelSpec, path: PathBuf) -> anyhow::Result<Opened> {
    let mut source = load::open(&path)?;
    if let Some(directory) = &config.tokenizer {
        source.tokenizer = TokenizerFiles::Directory(directory.clone());
    }
    let (options, plan) =
        plan(&source, &config.engine).with_context(|| path.display().to_string())?;
    let tokenizer = match &source.tokenizer {
        TokenizerFiles::Directory(directory) => Tokenizer::from_dir(directory)?,
        TokenizerFiles::Gguf(metadata) => Tokenizer::from_gguf(metadata)?,
    };
    let template = template(config.chat_template.as_deref(), &source)?;
    let names = classic::names(config, spec);
    let root = match &spec.origin {
        Origin::Hub(id) => id.repository(),
        Origin::Path(_) | Origin::Remote(_) => names[0].clone(),
    };
    let generation = generation(config, &source)?;
    Ok(Opened { path, names, root, source, options, plan, tokenizer, template, generation })
}

/// The local path of a model.
pub(super) async fn locate(config: &Config, spec: &ModelSpec) -> anyhow::Result<PathBuf> {
    match &spec.origin {
        Origin::Path(path) => {
            let mut waited = false;
            while config.wait_for_model && !path.exists() {
                if !waited {
                    tracing::info!(path = %path.display(), "waiting for the model");
                    waited = true;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            if !path.exists() {
                bail!(
                    "{}: {}: there is no such file or directory (a hub id is written org/name)",
                    spec.named_by,
                    path.display()
                );
            }
            Ok(path.clone())
        }
        Origin::Hub(id) => {
            let client = HubClient::new(config.hub.clone())?;
            let bar = progress::bytes("downloading");
            let advance = |done, total| {
                bar.set_length(total);
                bar.set_position(done);
            };
            let path = client.fetch(id, &advance).await;
            bar.finish_and_clear();
            Ok(path?)
        }
        Origin::Remote(uri) => {
            let bar = progress::bytes("downloading");
            let advance = |done, total| {
                bar.set_length(total);
                bar.set_position(done);
            };
            let path = storage::fetch(&config.storage, uri, &advance).await;
            bar.finish_and_clear();
            Ok(path?)
        }
    }
}

/// The options of loading, and what they take.
fn plan(
    source: &ModelSource,
    settings: &EngineSettings,
) -> anyhow::Result<(LoadOptions, MemoryPlan)> {
    let threads = settings.split.kernel_threads;
    let mut options = LoadOptions {
        dtype: match settings.dtype {
            Dtype::Auto => FloatType::Stored,
            Dtype::F32 => FloatType::F32,
            Dtype::F16 => FloatType::F16,
            Dtype::Bf16 => FloatType::Bf16,
        },
        max_model_len: settings.max_model_len,
        allow_longer: settings.allow_longer,
        max_sequences: settings.max_sequences,
        max_step_tokens: settings.max_step_tokens,
        block_size: settings.block_size,
        kv_dtype: match settings.kv_dtype {
            Dtype::Auto => KvChoice::Auto,
            Dtype::F32 => KvChoice::F32,
            Dtype::F16 => KvChoice::F16,
            Dtype::Bf16 => KvChoice::Bf16,
        },
        kv_bytes: settings.kv_bytes,
        kv_bytes_default: settings.kv_bytes_default,
    };
    let mut plan = load::plan(source, &options, threads)?;
    if let (Some(blocks), None) = (settings.kv_blocks, options.kv_bytes) {
        let block_bytes = plan.kv_bytes_per_token.saturating_mul(settings.block_size.into());
        options.kv_bytes = Some(block_bytes.saturating_mul(blocks));
        plan = load::plan(source, &options, threads)?;
    }
    Ok((options, plan))
}

/// The template of the command line (a file, or the text itself), else the model's.
fn template(given: Option<&str>, source: &ModelSource) -> anyhow::Result<Option<ChatTemplate>> {
    let templates = &source.chat_templates;
    let own = templates.default.as_ref().or(templates.tool_use.as_ref());
    let text = match given {
        Some(given) if Path::new(given).is_file() => Some(
            std::fs::read_to_string(given).with_context(|| format!("--chat-template {given}"))?,
        ),
        Some(given) if given.contains('{') => Some(given.to_owned()),
        Some(given) => bail!("--chat-template: {given} is neither a file nor a template"),
        None => own.cloned(),
    };
    let Some(text) = text else { return Ok(None) };
    let tokens = &source.special_tokens;
    let bos = tokens.bos.as_deref().unwrap_or_default();
    let eos = tokens.eos.as_deref().unwrap_or_default();
    let named_by = || match given {
        Some(given) if !given.contains('{') => format!("--chat-template {given}"),
        Some(_) => "--chat-template".to_owned(),
        None => "the model's own chat template (--chat-template replaces it)".to_owned(),
    };
    ChatTemplate::compile(&text, bos, eos).map(Some).with_context(named_by)
}

/// Sampling defaults: those of the command line, then the model's where they are wanted.
fn generation(config: &Config, source: &ModelSource) -> anyhow::Result<GenerationDefaults> {
    let given = GenerationDefaults::from_json(&config.generation_overrides)
        .context("--override-generation-config")?;
    let own = if config.use_generation_config {
        source.generation
    } else {
        GenerationDefaults::default()
    };
    Ok(GenerationDefaults {
        temperature: given.temperature.or(own.temperature),
        top_p: given.top_p.or(own.top_p),
        top_k: given.top_k.or(own.top_k),
        min_p: given.min_p.or(own.min_p),
        repetition_penalty: given.repetition_penalty.or(own.repetition_penalty),
        max_new_tokens: given.max_new_tokens.or(own.max_new_tokens),
    })
}

/// The cache's type, as flags and metrics name it.
pub(super) fn kv_name(kv: KvType) -> &'static str {
    match kv {
        KvType::F32 => "float32",
        KvType::F16 => "float16",
        KvType::Bf16 => "bfloat16",
    }
}
