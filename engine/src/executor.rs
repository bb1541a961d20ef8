//! The seam between the engine loop and a device.

use std::sync::Arc;
use std::time::Duration;

use tokenmill_scheduler::{CacheGroup, SeqKey, StepPlan, TokenId};

use crate::sampling::SamplingParams;

/// What an executor can hold and how long its model's sequences may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutorLimits {
    /// Tokens per KV block.
    pub block_size: u32,
    /// Cache groups, in the order of `StepPlan::block_tables`.
    pub groups: Vec<CacheGroup>,
    /// Query tokens of one step that the workspace has room for.
    pub max_step_tokens: u32,
    /// Sequences in one step.
    pub max_sequences: u32,
    /// Prompt plus completion.
    pub max_model_len: u32,
    /// Logits per row.
    pub vocab_size: u32,
}

/// What is known of a sequence when it is submitted; executors keep per-slot state from it.
#[derive(Clone, Debug)]
pub struct SequenceInit<'a> {
    /// The sequence.
    pub key: SeqKey,
    /// Its prompt (penalties look at it).
    pub prompt: &'a [TokenId],
    /// Stop tokens (masked below `min_tokens`).
    pub stop_tokens: &'a [TokenId],
    /// How to choose its tokens.
    pub sampling: &'a Arc<SamplingParams>,
}

/// Log-probabilities at one position, from the raw logits (before temperature, penalties and masks).
#[derive(Clone, Debug, PartialEq)]
pub struct PositionLogprobs {
    /// The token at this position (sampled, or of the prompt).
    pub token: TokenId,
    /// Its log-probability, finite or `-inf`.
    pub logprob: f32,
    /// Its rank, 1 for the most likely; ties go to the lower id.
    pub rank: u32,
    /// The `k` most likely tokens, best first, ties by lower id. May or may not contain `token`.
    pub top: Vec<(TokenId, f32)>,
}

/// What a device's work on a step took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceTimes {
    /// Turning the plan into inputs.
    pub prepare: Duration,
    /// The forward pass and the logits.
    pub forward: Duration,
    /// Choosing tokens.
    pub sample: Duration,
}

/// What a step produced. Buffers are reused; executors clear and fill them.
#[derive(Clone, Debug, Default)]
pub struct StepOutput {
    /// One per planned sequence with `OutputKind::Sample`, in plan order; `FAILED_TOKEN` where the logits are not numbers.
    pub tokens: Vec<TokenId>,
    /// For sampled tokens whose sequence asked: index into `tokens` and the log-probabilities.
    pub logprobs: Vec<(u32, PositionLogprobs)>,
    /// For prompt positions whose sequence asked: index into `StepPlan::sequences` and the
    /// log-probabilities of prompt token `start + i + 1` given the tokens before it, in position order.
    pub prompt_logprobs: Vec<(u32, PositionLogprobs)>,
    /// Pooled rows, one per planned sequence with `OutputKind::Pool`, packed.
    pub pooled: Vec<f32>,
    /// What it took; zero where an executor does not tell.
    pub times: DeviceTimes,
}

impl StepOutput {
    /// Empties every buffer, keeping its capacity.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.logprobs.clear();
        self.prompt_logprobs.clear();
        self.pooled.clear();
        self.times = DeviceTimes::default();
    }
}

/// The device cannot go on; the engine ends every stream with `Lost`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ExecutorError(pub String);

/// Runs plans on a device. One thread calls it.
pub trait Executor: Send {
    /// Fixed for the executor's life.
    fn limits(&self) -> &ExecutorLimits;
    /// A sequence was submitted: prepare its sampling state. May allocate.
    fn admit(&mut self, sequence: SequenceInit<'_>);
    /// Queue a step on the device and return (a CPU executor may do the work here).
    ///
    /// # Errors
    /// When the device failed; the engine stops.
    fn launch(&mut self, plan: &StepPlan) -> Result<(), ExecutorError>;
    /// Wait for the launched step and fill `output`.
    ///
    /// # Errors
    /// When the device failed; the engine stops.
    fn collect(&mut self, plan: &StepPlan, output: &mut StepOutput) -> Result<(), ExecutorError>;
    /// The sequence ended: drop its state.
    fn forget(&mut self, key: SeqKey);
}
