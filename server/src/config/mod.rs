//! What was typed becomes what is meant: [`Config::resolve`] is the only place where flags,
//! environment, machine and defaults meet.
//!
//! Order of every setting: argument, its own environment variable, a documented fall-back variable,
//! default. Each part of the program receives its own struct and reads no environment.

pub mod arguments;
pub mod environment;
mod flag_docs;
mod flag_table;
pub mod flags;
mod foreign_flags;
mod http;
mod hub;
pub mod machine;
mod model;
mod predictive;
pub mod storage;
#[cfg(test)]
mod tests;
pub mod values;

use std::path::PathBuf;

use serde_json::{Map, Value as Json};

pub use arguments::{Arguments, UsageError};
pub use environment::Environment;
pub use flag_docs::markdown;
pub use hub::HubConfig;
pub use machine::{Machine, Split};
pub use model::{ModelSpec, Origin};
pub use predictive::PredictiveSettings;
pub use storage::StorageConfig;

use crate::app::ServerConfig;
use crate::logging::{LogConfig, LogFormat};

/// Sequences in one step.
const MAX_NUM_SEQS: u64 = 256;
/// Query tokens of one step: long enough that prefill is bound by arithmetic on CPUs.
const MAX_STEP_TOKENS: u64 = 2048;
/// Tokens per block of keys and values.
const BLOCK_SIZE: u64 = 16;
/// Share of the free memory, in percent, that keys and values take at most by default.
const KV_PERCENT_OF_FREE: u64 = 40;
/// And in bytes: what is never used costs nothing, but a prefix cache fills whatever it is given.
const KV_BYTES: u64 = 16 << 30;
/// Sequences that wait by default.
const MAX_WAITING: u64 = 1024;

/// Type that float weights are kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// As stored.
    Auto,
    /// 32 bits.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
}

impl Dtype {
    fn read(word: &str) -> Self {
        match word {
            "float32" | "float" => Self::F32,
            "float16" | "half" => Self::F16,
            "bfloat16" => Self::Bf16,
            _ => Self::Auto,
        }
    }
}

/// How the model is loaded and its steps are bounded.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineSettings {
    /// Type of float weights.
    pub dtype: Dtype,
    /// Prompt plus completion; the model's own length when absent.
    pub max_model_len: Option<u32>,
    /// A length above the model's own is accepted.
    pub allow_longer: bool,
    /// Sequences in one step.
    pub max_sequences: u32,
    /// Query tokens in one step.
    pub max_step_tokens: u32,
    /// Query tokens one sequence may take from a step.
    pub max_chunk_tokens: u32,
    /// Tokens per block.
    pub block_size: u32,
    /// Type of keys and values.
    pub kv_dtype: Dtype,
    /// Bytes of keys and values, when given.
    pub kv_bytes: Option<u64>,
    /// Blocks of keys and values, when given.
    pub kv_blocks: Option<u64>,
    /// Bytes that keys and values take at most when neither is given.
    pub kv_bytes_default: u64,
    /// Sequences that may wait.
    pub max_waiting: u32,
    /// Whether finished blocks stay findable.
    pub prefix_cache: bool,
    /// Whether priorities order the queue.
    pub priorities: bool,
    /// Threads of kernels, sockets and text.
    pub split: Split,
}

/// Everything `serve` and `inspect` need to know.
#[derive(Clone)]
pub struct Config {
    /// Which model; absent when none was named.
    pub model: Option<ModelSpec>,
    /// Names it is served under, the first one leading; empty when the model's own name is to be used.
    pub served_names: Vec<String>,
    /// The model directory may appear late: wait for it.
    pub wait_for_model: bool,
    /// The hub.
    pub hub: HubConfig,
    /// Storage that is neither the hub nor a path.
    pub storage: StorageConfig,
    /// Loading and scheduling.
    pub engine: EngineSettings,
    /// Loading and running classic models.
    pub predictive: PredictiveSettings,
    /// Directory of another tokenizer.
    pub tokenizer: Option<PathBuf>,
    /// Chat template instead of the model's: a file or a template.
    pub chat_template: Option<String>,
    /// Whether the model's generation configuration gives sampling defaults.
    pub use_generation_config: bool,
    /// Sampling defaults that win over the model's.
    pub generation_overrides: Map<String, Json>,
    /// The HTTP server and what its answers contain.
    pub http: ServerConfig,
    /// The log.
    pub log: LogConfig,
}

/// Keys stay out of logs.
impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut http = self.http.clone();
        http.api_keys = vec![format!("{} hidden", http.api_keys.len())];
        http.admin_keys = vec![format!("{} hidden", http.admin_keys.len())];
        f.debug_struct("Config")
            .field("model", &self.model)
            .field("served_names", &self.served_names)
            .field("wait_for_model", &self.wait_for_model)
            .field("hub", &self.hub)
            .field("storage", &self.storage)
            .field("engine", &self.engine)
            .field("predictive", &self.predictive)
            .field("tokenizer", &self.tokenizer)
            .field("chat_template", &self.chat_template)
            .field("use_generation_config", &self.use_generation_config)
            .field("generation_overrides", &self.generation_overrides)
            .field("http", &http)
            .field("log", &self.log)
            .finish()
    }
}

impl Config {
    /// Resolves what was typed on a machine.
    ///
    /// # Errors
    /// The first value that cannot be meant, by the name it was given under.
    pub fn resolve(
        arguments: &Arguments,
        environment: &Environment,
        machine: Machine,
    ) -> Result<Self, UsageError> {
        let wait_for_model = environment.get("MODEL_INIT_MODE") == Some("async");
        let on_call = environment.is_true("MULTI_MODEL_SERVER");
        Ok(Self {
            model: model::model(arguments, environment, wait_for_model || on_call)?,
            served_names: model::served_names(arguments, environment),
            wait_for_model,
            hub: hub::hub(arguments, environment),
            storage: storage::storage(arguments, environment)?,
            engine: engine(arguments, environment, machine)?,
            predictive: predictive::predictive(arguments, environment, machine)?,
            tokenizer: arguments.text("tokenizer").map(PathBuf::from),
            chat_template: arguments.text("chat-template").map(str::to_owned),
            use_generation_config: arguments.text("generation-config") != Some("vllm"),
            generation_overrides: arguments
                .object("override-generation-config")?
                .unwrap_or_default(),
            http: http::http(arguments, environment)?,
            log: log(arguments, environment)?,
        })
    }
}

/// A whole number that fits 32 bits, or its default.
fn small(arguments: &Arguments, name: &str, min: u64, default: u64) -> Result<u32, UsageError> {
    let number = arguments.whole(name, min, u64::from(u32::MAX >> 1))?.unwrap_or(default);
    Ok(u32::try_from(number).expect("the upper bound fits"))
}

/// `--max-model-len`, in which `auto` and `-1` mean the model's own length.
fn max_model_len(arguments: &Arguments) -> Result<Option<u32>, UsageError> {
    match arguments.text("max-model-len") {
        None | Some("auto" | "-1") => Ok(None),
        Some(_) => small(arguments, "max-model-len", 1, 1).map(Some),
    }
}

fn engine(
    arguments: &Arguments,
    environment: &Environment,
    machine: Machine,
) -> Result<EngineSettings, UsageError> {
    let threads = arguments.whole("threads", 1, 4096)?;
    let max_step_tokens = small(arguments, "max-num-batched-tokens", 1, MAX_STEP_TOKENS)?;
    let given = arguments.text("max-num-seqs").is_some();
    let sequences = small(arguments, "max-num-seqs", 1, MAX_NUM_SEQS)?;
    let max_sequences = if given { sequences } else { sequences.min(max_step_tokens) };
    if max_sequences > max_step_tokens {
        return Err(UsageError(format!(
            "{}: {max_sequences} sequences do not fit a step of {max_step_tokens} tokens; raise \
             --max-num-batched-tokens or lower --max-num-seqs",
            arguments.typed("max-num-seqs")
        )));
    }
    let block_size = small(arguments, "block-size", 8, BLOCK_SIZE)?;
    if !block_size.is_power_of_two() {
        let typed = arguments.typed("block-size");
        return Err(UsageError(format!("{typed}: {block_size} is not a power of two")));
    }
    let chunk = small(arguments, "long-prefill-token-threshold", 0, 0)?;
    let max_chunk_tokens = if chunk == 0 { max_step_tokens } else { chunk.min(max_step_tokens) };
    let dtype = |name| arguments.text(name).map_or(Dtype::Auto, Dtype::read);
    Ok(EngineSettings {
        dtype: dtype("dtype"),
        max_model_len: max_model_len(arguments)?,
        allow_longer: environment.is_true("ALLOW_LONG_MAX_MODEL_LEN")
            || environment.is_true("VLLM_ALLOW_LONG_MAX_MODEL_LEN"),
        max_sequences,
        max_step_tokens,
        max_chunk_tokens,
        block_size,
        kv_dtype: dtype("kv-cache-dtype"),
        kv_bytes: arguments.whole("kv-cache-memory-bytes", 1, u64::MAX)?,
        kv_blocks: arguments.whole("num-gpu-blocks-override", 1, u64::from(u32::MAX))?,
        kv_bytes_default: (machine.memory / 100 * KV_PERCENT_OF_FREE).min(KV_BYTES),
        max_waiting: small(arguments, "max-waiting-seqs", 0, MAX_WAITING)?,
        prefix_cache: arguments.switch("enable-prefix-caching").unwrap_or(true),
        priorities: arguments.text("scheduling-policy") == Some("priority"),
        split: Split::of(machine, threads.map(|threads| threads as usize)),
    })
}

fn log(arguments: &Arguments, environment: &Environment) -> Result<LogConfig, UsageError> {
    let level = match arguments.text("log-level") {
        Some(level) => level.to_owned(),
        None => environment
            .first(&["KSERVE_LOGLEVEL", "LOG_LEVEL"])
            .map_or_else(|| "info".to_owned(), |(_, level)| level.to_owned()),
    };
    let level = LogConfig::level(&level).ok_or_else(|| {
        UsageError(format!(
            "log level {level:?} is not one of trace, debug, info, warning, error, critical"
        ))
    })?;
    Ok(LogConfig {
        level,
        format: match arguments.text("log-format") {
            Some("json") => LogFormat::Json,
            _ => LogFormat::Human,
        },
    })
}

/// Where a directory that was named in the environment lies.
fn directory(environment: &Environment, name: &str) -> Option<PathBuf> {
    let text = environment.get(name)?;
    Some(match (text.strip_prefix("~/"), environment.get("HOME")) {
        (Some(below), Some(home)) => PathBuf::from(home).join(below),
        _ => PathBuf::from(text),
    })
}
