//! What the scheduler is told once.

use crate::ids::TokenId;

/// Order of the waiting queue, and the victim of preemption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// First come, first served; the newest running sequence is preempted.
    #[default]
    FirstCome,
    /// Smaller `priority` first, then arrival; the largest (priority, arrival) is preempted.
    Priority,
}

/// Layers that share one block table: same window, own pool of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheGroup {
    /// Physical blocks of this group.
    pub num_blocks: u32,
    /// Sliding window in tokens (a query sees itself and `window - 1` tokens before it); `None` sees everything.
    pub window: Option<u32>,
}

/// Limits and policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// Tokens per block.
    pub block_size: u32,
    /// At least one; the prefix cache needs a hit in every group.
    pub groups: Vec<CacheGroup>,
    /// Sequences running at once.
    pub max_sequences: u32,
    /// Sequences waiting at once; `submit` refuses more.
    pub max_waiting: u32,
    /// Query tokens of one step, over all sequences.
    pub max_step_tokens: u32,
    /// Query tokens one sequence may take from a step (`max_step_tokens` when equal or larger).
    pub max_chunk_tokens: u32,
    /// Prompt plus completion of one sequence.
    pub max_model_len: u32,
    /// Vocabulary size; token ids at or above it are refused.
    pub vocab_size: TokenId,
    /// Whether finished blocks stay findable by their content.
    pub prefix_cache: bool,
    /// Key of the block hash; random per process in production, fixed in tests.
    pub hash_key: [u64; 2],
    /// Order and victims.
    pub policy: Policy,
}

/// Why a configuration cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A count that must be positive is zero.
    #[error("{field} is 0, it must be at least 1")]
    Zero {
        /// Name of the field.
        field: &'static str,
    },
    /// One sequence of the model length does not fit the cache.
    #[error("a sequence of {max_model_len} tokens needs {needed} blocks, group {group} has {available}: lower the model length or give the cache more memory")]
    TooFewBlocks {
        /// Index of the group.
        group: usize,
        /// The configured model length.
        max_model_len: u32,
        /// Blocks that one sequence needs.
        needed: u32,
        /// Blocks of the group.
        available: u32,
    },
}
