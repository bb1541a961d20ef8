//! The memory plan: every large allocation, before any is made.

use serde::Serialize;
use tokenmill_kernels::attention::{AttentionScratch, AttentionSpec, KvCache, KvType};
use tokenmill_kernels::matrix::Scratch;
use tokenmill_scheduler::CacheGroup;

use crate::executor::ExecutorLimits;
use crate::layers::WeightLoader;
use crate::load::{LoadError, LoadOptions, ModelSource, kv_type};
use crate::memory_plan::{PlanOps, StepCost};
use crate::model_executor::MAX_OUTPUT_ROWS;
use crate::models::{self, CacheLayer};
use crate::ops::Rows;
use crate::weights::Weights;

/// What serving a model takes, in bytes per part.
#[derive(Clone, Debug, Serialize)]
pub struct MemoryPlan {
    /// Parameters of the model (a shared matrix counts once).
    pub parameters: u64,
    /// Bytes of the tensors as stored.
    pub stored_bytes: u64,
    /// Packed weights.
    pub weight_bytes: u64,
    /// Keys and values of every block.
    pub kv_bytes: u64,
    /// Bytes of one token's keys and values over all layers.
    pub kv_bytes_per_token: u64,
    /// Activations, logits, quantised inputs, scores.
    pub workspace_bytes: u64,
    /// Rotary tables.
    pub table_bytes: u64,
    /// Bytes of weights that one decode step reads.
    pub decode_weight_bytes: u64,
    /// Multiply-adds of one token, counted as two operations.
    pub flops_per_token: u64,
    /// Limits of the executor.
    #[serde(skip)]
    pub limits: ExecutorLimits,
    /// Cache group of every layer.
    #[serde(skip)]
    pub layer_groups: Vec<usize>,
    /// Element type of the cache.
    #[serde(skip)]
    pub kv_type: KvType,
    /// Cost and buffers of the largest step.
    #[serde(skip)]
    pub largest_step: StepCost,
    /// Shape that the attention scratch is sized for.
    #[serde(skip)]
    pub attention: AttentionSpec,
}

impl MemoryPlan {
    /// Working memory of attention for `threads` threads.
    pub fn attention_scratch(&self, threads: usize) -> AttentionScratch {
        attention_scratch(&self.attention, &self.limits, threads)
    }

    /// All parts together.
    pub fn total_bytes(&self) -> u64 {
        self.weight_bytes + self.kv_bytes + self.workspace_bytes + self.table_bytes
    }
}

/// Adds up what `load` would allocate; `threads` is the size of the kernel pool.
///
/// # Errors
/// When the model cannot be served with these options: an unknown architecture, missing tensors, a
/// length above the model's, a cache too small for one sequence.
pub fn plan(
    source: &ModelSource,
    options: &LoadOptions,
    threads: usize,
) -> Result<MemoryPlan, LoadError> {
    let config = &source.config;
    let architecture = models::find(&config.architecture)?;
    let max_model_len = model_length(config.max_position, options)?;
    let weights = Weights::new(source.tensors.as_ref());
    let mut stored_bytes = 0;
    let mut count = |bytes: u64| stored_bytes += bytes;
    let mut loader = WeightLoader::plan(weights, options.dtype, &mut count);
    let model = (architecture.load)(config, max_model_len, &mut loader)?;
    let parameters = loader.parameters();
    let weight_bytes = loader.packed_bytes();

    let kv_type = kv_type(options.kv_dtype, source, options.dtype);
    let layout = CacheSizes::new(model.cache_layers(), kv_type, options, max_model_len)?;
    let groups = layout.fit(options)?;
    let limits = ExecutorLimits {
        block_size: options.block_size,
        groups,
        max_step_tokens: options.max_step_tokens,
        max_sequences: options.max_sequences,
        max_model_len,
        vocab_size: config.vocab_size as u32,
    };
    let failed =
        |error: crate::ops::OpError| LoadError::Config { field: "model".into(), reason: error.0 };
    let largest =
        PlanOps::run(model.as_ref(), limits.max_step_tokens.into(), MAX_OUTPUT_ROWS as u64)
            .map_err(failed)?;
    let decode = PlanOps::run(model.as_ref(), 1, 1).map_err(failed)?;
    let attention = AttentionSpec {
        heads: config.num_heads,
        kv_heads: config.num_kv_heads,
        head_dim: config.head_dim,
        scale: 1.0,
        window: None,
        softcap: None,
    };
    let rotary = match config.architecture.as_str() {
        "GPT2LMHeadModel" => 0,
        _ => u64::from(max_model_len) * config.rotary_dim as u64 * 4,
    };
    Ok(MemoryPlan {
        parameters,
        stored_bytes,
        weight_bytes,
        kv_bytes: layout.bytes(&limits.groups),
        kv_bytes_per_token: layout.bytes_per_token(),
        workspace_bytes: workspace_bytes(&largest, &limits, &attention, threads),
        table_bytes: rotary,
        decode_weight_bytes: decode.weight_bytes,
        flops_per_token: decode.flops,
        limits,
        layer_groups: layout.layer_groups,
        kv_type,
        largest_step: largest,
        attention,
    })
}

/// The length to serve: what was asked, if the model can.
fn model_length(own: u32, options: &LoadOptions) -> Result<u32, LoadError> {
    match options.max_model_len {
        None => Ok(own),
        Some(0) => Err(LoadError::Config {
            field: "max_model_len".into(),
            reason: "0 is not a length; use at least 1".into(),
        }),
        Some(asked) if asked > own && !options.allow_longer => Err(LoadError::Config {
            field: "max_model_len".into(),
            reason: format!(
                "{asked} is more than the model's own {own} tokens; set ALLOW_LONG_MAX_MODEL_LEN=1 to serve it all the same"
            ),
        }),
        Some(asked) => Ok(asked),
    }
}

/// Entries of all block tables of one step: no step's sequences can hold more blocks than exist,
/// but freed window entries stay as placeholders, so the bound is by tokens.
pub(super) fn max_table_entries(limits: &ExecutorLimits) -> usize {
    let blocks = limits.groups.iter().map(|group| group.num_blocks as usize).max().unwrap_or(0);
    blocks + limits.max_sequences as usize
}

fn attention_scratch(
    spec: &AttentionSpec,
    limits: &ExecutorLimits,
    threads: usize,
) -> AttentionScratch {
    let (tokens, sequences) = (limits.max_step_tokens as usize, limits.max_sequences as usize);
    AttentionScratch::with_capacity(spec, threads, tokens, sequences)
}

fn workspace_bytes(
    step: &StepCost,
    limits: &ExecutorLimits,
    attention: &AttentionSpec,
    threads: usize,
) -> u64 {
    let rows = |rows| match rows {
        Rows::Tokens => u64::from(limits.max_step_tokens),
        Rows::Outputs => MAX_OUTPUT_ROWS as u64,
    };
    let buffers: u64 =
        step.buffers.iter().map(|buffer| rows(buffer.rows) * buffer.width as u64 * 4).sum();
    let matrix = Scratch::bytes_for(limits.max_step_tokens as usize, step.max_inputs);
    let attention = attention_scratch(attention, limits, threads).bytes();
    buffers + (matrix + attention) as u64
}

/// Bytes per block of each cache group.
struct CacheSizes {
    windows: Vec<Option<u32>>,
    layer_groups: Vec<usize>,
    block_bytes: Vec<u64>,
    block_size: u32,
    max_model_len: u32,
}

impl CacheSizes {
    fn new(
        layers: &[CacheLayer],
        kv: KvType,
        options: &LoadOptions,
        max_model_len: u32,
    ) -> Result<Self, LoadError> {
        let mut sizes = Self {
            windows: Vec::new(),
            layer_groups: Vec::new(),
            block_bytes: Vec::new(),
            block_size: options.block_size,
            max_model_len,
        };
        for layer in layers {
            // A window that covers the whole model length is no window.
            let window = layer.window.filter(|&window| window < max_model_len);
            let known = sizes.windows.iter().position(|&other| other == window);
            let group = known.unwrap_or_else(|| {
                sizes.windows.push(window);
                sizes.block_bytes.push(0);
                sizes.windows.len() - 1
            });
            sizes.layer_groups.push(group);
            let block_size = options.block_size as usize;
            let bytes = KvCache::bytes_for(kv, 1, block_size, layer.kv_heads, layer.head_dim);
            sizes.block_bytes[group] += bytes.ok_or_else(|| {
                LoadError::config("block_size", format!("{block_size} tokens are too many"))
            })? as u64;
        }
        Ok(sizes)
    }

    fn bytes_per_token(&self) -> u64 {
        self.block_bytes.iter().sum::<u64>() / u64::from(self.block_size)
    }

    fn bytes(&self, groups: &[CacheGroup]) -> u64 {
        groups.iter().zip(&self.block_bytes).map(|(g, bytes)| u64::from(g.num_blocks) * bytes).sum()
    }

    /// Blocks that `sequences` sequences, together holding `tokens` tokens, need in each group.
    fn groups(&self, tokens: u64, options: &LoadOptions) -> Vec<CacheGroup> {
        let block_size = u64::from(self.block_size);
        let blocks = tokens.div_ceil(block_size);
        self.windows
            .iter()
            .map(|&window| {
                let needed = match window {
                    None => blocks,
                    // A sequence holds its window, the chunk it computes, and a ragged block at each end.
                    Some(window) => {
                        let own = (u64::from(window) + block_size).div_ceil(block_size) + 1;
                        let chunk = u64::from(options.max_step_tokens).div_ceil(block_size) + 1;
                        blocks.min(own * u64::from(options.max_sequences) + chunk)
                    }
                };
                CacheGroup { num_blocks: needed.min(u64::from(u32::MAX) - 1) as u32, window }
            })
            .collect()
    }

    /// The largest cache within the budget, or what all sequences can use, whichever is smaller.
    fn fit(&self, options: &LoadOptions) -> Result<Vec<CacheGroup>, LoadError> {
        let most = u64::from(options.max_sequences) * u64::from(self.max_model_len);
        let budget = options.kv_bytes.unwrap_or(options.kv_bytes_default);
        let fits = |tokens: u64| self.bytes(&self.groups(tokens, options)) <= budget;
        let one = u64::from(self.max_model_len.next_multiple_of(self.block_size));
        if !fits(one) {
            let needed = self.bytes(&self.groups(one, options));
            return Err(LoadError::Config {
                field: "kv_cache_memory_bytes".into(),
                reason: format!(
                    "{budget} bytes cannot hold one sequence of {} tokens, which needs {needed}: give the cache more or lower max_model_len",
                    self.max_model_len
                ),
            });
        }
        if fits(most) {
            return Ok(self.groups(most, options));
        }
        let (mut low, mut high) = (one, most);
        while high - low > u64::from(self.block_size) {
            let middle = low + (high - low) / 2;
            if fits(middle) { low = middle } else { high = middle }
        }
        Ok(self.groups(low, options))
    }
}
