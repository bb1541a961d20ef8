//! How full the scheduler is, and what it has done.

use crate::config::MAX_CACHE_GROUPS;
use crate::ids::Tick;

/// Blocks of one cache group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupLoad {
    /// Physical blocks.
    pub total: u32,
    /// Blocks that no sequence holds; those in `cached` are among them.
    pub free: u32,
    /// Free blocks whose content the prefix cache still finds.
    pub cached: u32,
}

/// A snapshot; counters count from the scheduler's creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Sequences not running now, preempted ones included.
    pub waiting: u32,
    /// Sequences running.
    pub running: u32,
    /// One per cache group; the entries past [`Load::num_groups`] are zero.
    pub groups: [GroupLoad; MAX_CACHE_GROUPS],
    /// Cache groups of the configuration.
    pub num_groups: u32,
    /// When the longest waiting sequence was submitted.
    pub oldest_waiting: Option<Tick>,
    /// Times a running sequence lost its blocks.
    pub preemptions: u64,
    /// Prompt tokens of sequences at their first admission.
    pub prompt_tokens: u64,
    /// Those of `prompt_tokens` found in the prefix cache.
    pub cached_tokens: u64,
    /// Those of `prompt_tokens` that were looked up in the prefix cache.
    pub prefix_queries: u64,
    /// Tokens reported as sampled.
    pub generated_tokens: u64,
    /// Tokens to compute a second time because of preemptions.
    pub recomputed_tokens: u64,
    /// Cached blocks that were reused for other content, over all groups.
    pub evictions: u64,
}

/// The counters of [`Load`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) preemptions: u64,
    pub(crate) prompt_tokens: u64,
    pub(crate) cached_tokens: u64,
    pub(crate) prefix_queries: u64,
    pub(crate) generated_tokens: u64,
    pub(crate) recomputed_tokens: u64,
}
