//! From a path to a running executor: open, plan, load.
//!
//! [`open`] reads configuration, tokenizer and tensor names, never the weights. [`plan`] adds up what
//! serving it will take, in bytes per part, from a forward pass in which nothing runs. [`load`]
//! packs the weights and allocates exactly what the plan says.

mod error;
mod plan;
mod source;

use std::sync::Arc;
use std::time::Instant;

use tokenmill_kernels::attention::KvCache;

pub use error::LoadError;
pub use plan::{MemoryPlan, plan};
pub use source::{
    ChatTemplates, GenerationDefaults, ModelSource, SpecialTokens, TokenizerFiles, open,
};
/// Types of the kernels in this module's signatures, for crates that do not depend on them.
pub use tokenmill_kernels::{attention::KvType, pool::ThreadPool};

use crate::cpu::{CpuOps, StepInputs};
use crate::layers::{FloatType, WeightLoader};
use crate::model_executor::ModelExecutor;
use crate::models;
use crate::weights::{LoadReport, Weights};

/// Type of the cached keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvChoice {
    /// f32 for f32 weights, f16 for everything else: half the bytes of f32, and three bits more than
    /// bf16 has (a model in bf16 keeps its log-probabilities within 3e-2 of `transformers` with it).
    #[default]
    Auto,
    /// 32 bits.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
}

/// How a model is to be held and served.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Type that float weights are kept in.
    pub dtype: FloatType,
    /// Prompt plus completion; the model's own limit when absent.
    pub max_model_len: Option<u32>,
    /// A length above the model's own limit is accepted.
    pub allow_longer: bool,
    /// Sequences in one step.
    pub max_sequences: u32,
    /// Query tokens of one step.
    pub max_step_tokens: u32,
    /// Tokens per KV block: a power of two, at least 8.
    pub block_size: u32,
    /// Type of cached keys and values.
    pub kv_dtype: KvChoice,
    /// Memory of the KV cache; absent: room for `max_sequences` of the model length, at most
    /// `kv_bytes_default`.
    pub kv_bytes: Option<u64>,
    /// Upper bound when `kv_bytes` is absent.
    pub kv_bytes_default: u64,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            dtype: FloatType::Stored,
            max_model_len: None,
            allow_longer: false,
            max_sequences: 256,
            max_step_tokens: 2048,
            block_size: 16,
            kv_dtype: KvChoice::Auto,
            kv_bytes: None,
            kv_bytes_default: 4 << 30,
        }
    }
}

/// Loads the weights of an opened model and allocates its cache and workspace. `progress` gets the
/// stored bytes read so far and their total.
///
/// # Errors
/// When a tensor is missing or malformed, or the cache cannot hold one sequence of the model length.
pub fn load(
    source: &ModelSource,
    options: &LoadOptions,
    pool: &Arc<ThreadPool>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(ModelExecutor, MemoryPlan, LoadReport), LoadError> {
    let began = Instant::now();
    let plan = plan::plan(source, options, pool.threads())?;
    let architecture = models::find(&source.config.architecture)?;
    let weights = Weights::new(source.tensors.as_ref());
    let total = plan.stored_bytes;
    let mut done = 0;
    let mut advance = |bytes: u64| {
        done += bytes;
        progress(done, total);
    };
    let mut loader = WeightLoader::new(weights, options.dtype, &mut advance);
    let model = (architecture.load)(&source.config, plan.limits.max_model_len, &mut loader)?;
    let mut report = loader.report();
    report.weights = began.elapsed();

    let limits = plan.limits.clone();
    let caches = model
        .cache_layers()
        .iter()
        .zip(&plan.layer_groups)
        .map(|(layer, &group)| {
            let blocks = limits.groups[group].num_blocks as usize;
            let block_size = limits.block_size as usize;
            KvCache::new(plan.kv_type, blocks, block_size, layer.kv_heads, layer.head_dim)
        })
        .collect();
    let tables = (limits.max_sequences * limits.max_model_len.div_ceil(limits.block_size)) as usize;
    let step = StepInputs::with_capacity(
        limits.max_step_tokens as usize,
        limits.max_sequences as usize,
        tables.min(plan::max_table_entries(&limits)),
        limits.groups.len(),
    );
    let ops = CpuOps::new(Arc::clone(pool), &plan, caches, step);
    report.cache = began.elapsed().saturating_sub(report.weights);
    Ok((ModelExecutor::new(model, ops, Arc::clone(pool), limits), plan, report))
}

/// The element type of the cache.
fn kv_type(choice: KvChoice, source: &ModelSource, dtype: FloatType) -> KvType {
    let stored = match dtype {
        FloatType::Stored => source.config.dtype.as_str(),
        FloatType::F32 => "float32",
        FloatType::F16 => "float16",
        FloatType::Bf16 => "bfloat16",
    };
    match (choice, stored) {
        (KvChoice::F32, _) | (KvChoice::Auto, "float32" | "F32") => KvType::F32,
        (KvChoice::Bf16, _) => KvType::Bf16,
        (KvChoice::F16, _) | (KvChoice::Auto, _) => KvType::F16,
    }
}
