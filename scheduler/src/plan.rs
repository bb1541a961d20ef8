//! What an executor sees: a flat description of one step.

use std::ops::Range;

use crate::ids::{BlockId, SeqKey, TokenId};
use crate::sequence::OutputKind;

/// Sampled in place of a token when a sequence cannot go on (not-a-number logits): `commit` ends
/// that sequence with [`FinishReason::Failed`] and no token is reported.
pub const FAILED_TOKEN: TokenId = TokenId::MAX;

/// One sequence's share of a step: query tokens `start .. start + tokens.len()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedSequence {
    /// The sequence.
    pub key: SeqKey,
    /// Position of the first query token.
    pub start: u32,
    /// Its query tokens in [`StepPlan::tokens`].
    pub tokens: Range<u32>,
    /// Its block table in every vector of [`StepPlan::block_tables`]: entry `i` holds positions
    /// `i * block_size ..`. Covers all positions up to the last query token.
    pub blocks: Range<u32>,
    /// Set when the last query token is the sequence's last known token: the executor must sample
    /// or pool.
    pub output: Option<OutputKind>,
}

/// A step. Buffers are reused from step to step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepPlan {
    /// Number of the step, from 1; 0 when there is nothing to run.
    pub step: u64,
    /// In a fixed order: the order of `sampled` in `commit`, for those with an output.
    pub sequences: Vec<PlannedSequence>,
    /// Query tokens of all sequences, packed.
    pub tokens: Vec<TokenId>,
    /// One packed table per cache group; `BlockId::NONE` for blocks that left the window.
    pub block_tables: Vec<Vec<BlockId>>,
}

impl StepPlan {
    /// Tokens that `commit` expects: one per planned sequence that samples.
    pub fn num_sampled(&self) -> usize {
        self.sequences.iter().filter(|planned| planned.output == Some(OutputKind::Sample)).count()
    }

    /// Empties the plan for `num_groups` cache groups, keeping the capacity of its buffers.
    pub(crate) fn clear(&mut self, num_groups: usize) {
        self.step = 0;
        self.sequences.clear();
        self.tokens.clear();
        self.block_tables.resize_with(num_groups, Vec::new);
        self.block_tables.iter_mut().for_each(Vec::clear);
    }
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// A stop token was sampled (the last token reported).
    Stop,
    /// `max_tokens` or the model length was reached.
    Length,
    /// Pooling is done.
    Pooled,
    /// The caller cancelled it.
    Cancelled,
    /// Its deadline passed.
    Deadline,
    /// It cannot continue; only this sequence is affected.
    Failed,
}

/// What happened to sequences, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// First admission: tokens of the prompt found in the prefix cache.
    Admitted {
        /// The sequence.
        key: SeqKey,
        /// Prompt tokens that need not be computed.
        cached_tokens: u32,
    },
    /// A token was sampled.
    Token(SeqKey, TokenId),
    /// The sequence is gone; its key is dead. Exactly one per accepted sequence.
    Finished(SeqKey, FinishReason),
}
