//! What the engine counts, as relaxed atomics with one writer.
//!
//! The engine thread is the only writer and stores once per step; readers take each value when they
//! like. Values are not a snapshot: two of them may be from neighbouring steps. But who reads that fewer
//! sequences run finds their tokens and ends counted. Names, labels and text formats are the server's business.

use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::time::Duration;

use tokenmill_scheduler::{FinishReason, Tick};

/// A counter or gauge.
#[derive(Debug, Default)]
pub struct Value(AtomicU64);

impl Value {
    /// The present value.
    pub fn get(&self) -> u64 {
        self.0.load(Acquire)
    }

    fn set(&self, value: u64) {
        self.0.store(value, Release);
    }
}

/// Counts of observations below fixed bounds.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// Empty; `bounds` ascend.
    pub fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum: AtomicU64::new(0f64.to_bits()) }
    }

    /// Upper bounds, inclusive; one bucket more, without a bound, follows.
    pub fn bounds(&self) -> &'static [f64] {
        self.bounds
    }

    /// Observations in each bucket, not cumulative; one more than there are bounds.
    pub fn counts(&self) -> impl Iterator<Item = u64> + '_ {
        self.counts.iter().map(|count| count.load(Relaxed))
    }

    /// Sum of all observations.
    pub fn sum(&self) -> f64 {
        f64::from_bits(self.sum.load(Relaxed))
    }

    /// Single writer: loads and stores, no read-modify-write.
    fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|&bound| bound < value);
        let count = &self.counts[bucket];
        count.store(count.load(Relaxed) + 1, Relaxed);
        self.sum.store((self.sum() + value).to_bits(), Relaxed);
    }
}

/// What happens in a step, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepPart {
    /// Cancelling streams that were left, and planning.
    Schedule,
    /// Turning the plan into the device's inputs.
    Prepare,
    /// The forward pass and the logits.
    Forward,
    /// Choosing tokens from logits.
    Sample,
    /// What else a launch does.
    Launch,
    /// Handing out the previous step's events.
    Emit,
    /// Applying submissions.
    Submit,
    /// Waiting for the device.
    Collect,
    /// Taking the sampled tokens in.
    Commit,
}

impl StepPart {
    /// Every part, in the order of [`EngineStats::step_seconds`].
    pub const ALL: [StepPart; 9] = [
        StepPart::Schedule,
        StepPart::Prepare,
        StepPart::Forward,
        StepPart::Sample,
        StepPart::Launch,
        StepPart::Emit,
        StepPart::Submit,
        StepPart::Collect,
        StepPart::Commit,
    ];

    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            StepPart::Schedule => "schedule",
            StepPart::Prepare => "prepare",
            StepPart::Forward => "forward",
            StepPart::Sample => "sample",
            StepPart::Launch => "launch",
            StepPart::Emit => "emit",
            StepPart::Submit => "submit",
            StepPart::Collect => "collect",
            StepPart::Commit => "commit",
        }
    }
}

/// Every reason, in the order of the counters in [`EngineStats`].
pub const FINISH_REASONS: [FinishReason; 6] = [
    FinishReason::Stop,
    FinishReason::Length,
    FinishReason::Pooled,
    FinishReason::Cancelled,
    FinishReason::Deadline,
    FinishReason::Failed,
];

/// The value of the label `finished_reason` that dashboards expect. A client that left is an
/// `abort`, and so is one whose deadline passed.
pub fn finished_reason_label(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop | FinishReason::Pooled => "stop",
        FinishReason::Length => "length",
        FinishReason::Cancelled | FinishReason::Deadline => "abort",
        FinishReason::Failed => "error",
    }
}

fn reason_index(reason: FinishReason) -> usize {
    FINISH_REASONS.iter().position(|&other| other == reason).expect("the table lists every reason")
}

/// Buckets of [`EngineStats::iteration_tokens`]: those of vLLM's `iteration_tokens_total`.
pub const ITERATION_TOKENS_BOUNDS: &[f64] =
    &[1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0];

/// Buckets of [`EngineStats::step_seconds`]: host parts take microseconds, forward passes up to seconds.
pub const STEP_SECONDS_BOUNDS: &[f64] = &[
    1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025,
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
];

/// The engine's counters, gauges and histograms.
#[derive(Debug)]
pub struct EngineStats {
    /// Gauge: sequences that hold blocks.
    pub running: Value,
    /// Gauge: sequences that wait for room.
    pub waiting: Value,
    oldest_waiting: AtomicU64,
    /// Gauge: KV blocks, all cache groups summed.
    pub blocks_total: Value,
    /// Gauge: blocks that no sequence holds; those in `blocks_cached` are among them.
    pub blocks_free: Value,
    /// Gauge: free blocks whose content the prefix cache still finds.
    pub blocks_cached: Value,
    /// Prompt tokens of sequences whose prefill is complete, cached ones included.
    pub prompt_tokens: Value,
    /// Prompt tokens looked up in the prefix cache, at first admission.
    pub prefix_queries: Value,
    /// Prompt tokens found there.
    pub cached_tokens: Value,
    /// Tokens sampled.
    pub generation_tokens: Value,
    /// Times a running sequence lost its blocks.
    pub preemptions: Value,
    /// Query tokens computed again after a preemption.
    pub recomputed_tokens: Value,
    /// Cached blocks whose content was given up.
    pub evictions: Value,
    /// Steps run.
    pub steps: Value,
    /// Query tokens of prompts, and those computed again after a preemption.
    pub prefill_tokens: Value,
    /// Query tokens that are a sequence's newest token.
    pub decode_tokens: Value,
    finished: [Value; FINISH_REASONS.len()],
    /// Query tokens of a step: prompt and completion tokens computed.
    pub iteration_tokens: Histogram,
    step_seconds: [Histogram; StepPart::ALL.len()],
}

impl Default for EngineStats {
    fn default() -> Self {
        Self {
            running: Value::default(),
            waiting: Value::default(),
            oldest_waiting: AtomicU64::new(u64::MAX),
            blocks_total: Value::default(),
            blocks_free: Value::default(),
            blocks_cached: Value::default(),
            prompt_tokens: Value::default(),
            prefix_queries: Value::default(),
            cached_tokens: Value::default(),
            generation_tokens: Value::default(),
            preemptions: Value::default(),
            recomputed_tokens: Value::default(),
            evictions: Value::default(),
            steps: Value::default(),
            prefill_tokens: Value::default(),
            decode_tokens: Value::default(),
            finished: Default::default(),
            iteration_tokens: Histogram::new(ITERATION_TOKENS_BOUNDS),
            step_seconds: std::array::from_fn(|_| Histogram::new(STEP_SECONDS_BOUNDS)),
        }
    }
}

impl EngineStats {
    /// Sequences that ended for `reason`.
    pub fn finished(&self, reason: FinishReason) -> u64 {
        self.finished[reason_index(reason)].get()
    }

    /// Seconds of each step spent in `part`.
    pub fn step_seconds(&self, part: StepPart) -> &Histogram {
        &self.step_seconds[part as usize]
    }

    /// When the sequence that waits longest was submitted.
    pub fn oldest_waiting(&self) -> Option<Tick> {
        let tick = self.oldest_waiting.load(Relaxed);
        (tick != u64::MAX).then_some(Tick(tick))
    }

    /// Used fraction of the KV blocks, `0.0..=1.0`; cached blocks that no sequence holds are not used.
    pub fn kv_usage(&self) -> f64 {
        let (total, free) = (self.blocks_total.get(), self.blocks_free.get());
        if total == 0 { 0.0 } else { total.saturating_sub(free) as f64 / total as f64 }
    }

    /// Stores the plain counters of the engine thread; those that say who is there come last.
    pub(crate) fn publish(&self, counters: &Counters) {
        let oldest = counters.oldest_waiting.map_or(u64::MAX, |tick| tick.0);
        self.oldest_waiting.store(oldest, Relaxed);
        self.blocks_total.set(counters.blocks_total);
        self.blocks_free.set(counters.blocks_free);
        self.blocks_cached.set(counters.blocks_cached);
        self.prompt_tokens.set(counters.prompt_tokens);
        self.prefix_queries.set(counters.prefix_queries);
        self.cached_tokens.set(counters.cached_tokens);
        self.generation_tokens.set(counters.generation_tokens);
        self.preemptions.set(counters.preemptions);
        self.recomputed_tokens.set(counters.recomputed_tokens);
        self.evictions.set(counters.evictions);
        self.steps.set(counters.steps);
        self.prefill_tokens.set(counters.prefill_tokens);
        self.decode_tokens.set(counters.decode_tokens);
        for (value, &count) in self.finished.iter().zip(&counters.finished) {
            value.set(count);
        }
        self.waiting.set(counters.waiting);
        self.running.set(counters.running);
    }

    /// Records a step that ran.
    pub(crate) fn observe_step(&self, tokens: usize, parts: &[Duration; StepPart::ALL.len()]) {
        self.iteration_tokens.observe(tokens as f64);
        for (histogram, part) in self.step_seconds.iter().zip(parts) {
            histogram.observe(part.as_secs_f64());
        }
    }
}

/// The engine thread's own plain integers behind [`EngineStats`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) running: u64,
    pub(crate) waiting: u64,
    pub(crate) oldest_waiting: Option<Tick>,
    pub(crate) blocks_total: u64,
    pub(crate) blocks_free: u64,
    pub(crate) blocks_cached: u64,
    pub(crate) prompt_tokens: u64,
    pub(crate) prefix_queries: u64,
    pub(crate) cached_tokens: u64,
    pub(crate) generation_tokens: u64,
    pub(crate) preemptions: u64,
    pub(crate) recomputed_tokens: u64,
    pub(crate) evictions: u64,
    pub(crate) steps: u64,
    pub(crate) prefill_tokens: u64,
    pub(crate) decode_tokens: u64,
    finished: [u64; FINISH_REASONS.len()],
}

impl Counters {
    pub(crate) fn finish(&mut self, reason: FinishReason, sequences: u64) {
        self.finished[reason_index(reason)] += sequences;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observations_land_in_the_bucket_that_includes_its_bound() {
        let histogram = Histogram::new(&[1.0, 8.0]);
        for value in [0.5, 1.0, 1.5, 8.0, 9.0] {
            histogram.observe(value);
        }
        assert_eq!(histogram.counts().collect::<Vec<_>>(), [2, 2, 1]);
        assert_eq!(histogram.sum(), 20.0);
    }

    #[test]
    fn parts_index_their_histograms() {
        for (index, part) in StepPart::ALL.into_iter().enumerate() {
            assert_eq!(part as usize, index, "{}", part.name());
        }
    }

    #[test]
    fn usage_counts_held_blocks_only() {
        let stats = EngineStats::default();
        assert_eq!(stats.kv_usage(), 0.0);
        let mut counters = Counters {
            blocks_total: 10,
            blocks_free: 5,
            blocks_cached: 2,
            oldest_waiting: Some(Tick(7)),
            ..Counters::default()
        };
        counters.finish(FinishReason::Cancelled, 2);
        stats.publish(&counters);
        assert_eq!((stats.kv_usage(), stats.oldest_waiting()), (0.5, Some(Tick(7))));
        assert_eq!(stats.finished(FinishReason::Cancelled), 2);
        assert_eq!(finished_reason_label(FinishReason::Cancelled), "abort");
    }
}
