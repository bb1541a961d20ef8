//! [`ModelExecutor`]: the `Executor` that runs a model file on the CPU.
//!
//! A plan becomes step metadata; one forward pass over all query tokens; then logits and sampling in
//! slices of [`MAX_OUTPUT_ROWS`] rows. Rows are sampled on the kernel pool, each by its sequence's
//! own sampler, so a row's token does not depend on its neighbours.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use tokenmill_kernels::pool::ThreadPool;
use tokenmill_scheduler::{OutputKind, SeqKey, StepPlan, TokenId};

use crate::cpu::CpuOps;
use crate::executor::{Executor, ExecutorError, ExecutorLimits, SequenceInit, StepOutput};
use crate::models::ModelGraph;
use crate::ops::{Act, OpError, Ops, Rows};
use crate::sampling::{Sampler, prompt_logprobs_row};

/// Rows of logits computed at a time: bounds the logits buffer (64 rows of 150,000 are 38 MB).
pub const MAX_OUTPUT_ROWS: usize = 64;

/// A prompt position whose log-probability was asked for.
#[derive(Clone, Copy, Debug)]
struct PromptRow {
    /// Index into the plan's sequences.
    sequence: u32,
    /// The prompt token that follows the position.
    next: TokenId,
    /// How many of the most likely tokens to report.
    top: u32,
}

/// Prompts whose log-probabilities are asked for, by slot.
#[derive(Clone, Debug)]
struct PromptLogprobs {
    tokens: Vec<TokenId>,
    top: u32,
}

/// Runs one model.
pub struct ModelExecutor {
    model: Box<dyn ModelGraph>,
    ops: CpuOps,
    pool: Arc<ThreadPool>,
    limits: ExecutorLimits,
    sampler: Sampler,
    prompts: Vec<Option<PromptLogprobs>>,
    /// Sequences that sample in this step, in plan order, and then the prompt rows ...
    keys: Vec<SeqKey>,
    prompt_rows: Vec<PromptRow>,
    /// ... and the query token of each of them.
    token_rows: Vec<u32>,
    best: Vec<(f32, TokenId)>,
    output: StepOutput,
}

impl ModelExecutor {
    /// An executor over a loaded model and its device.
    pub fn new(
        model: Box<dyn ModelGraph>,
        ops: CpuOps,
        pool: Arc<ThreadPool>,
        limits: ExecutorLimits,
    ) -> Self {
        let (tokens, sequences) = (limits.max_step_tokens as usize, limits.max_sequences as usize);
        Self {
            model,
            ops,
            sampler: Sampler::new(pool.threads()),
            pool,
            limits,
            prompts: Vec::new(),
            keys: Vec::with_capacity(sequences),
            prompt_rows: Vec::new(),
            token_rows: Vec::with_capacity(tokens),
            best: Vec::new(),
            output: StepOutput { tokens: Vec::with_capacity(sequences), ..StepOutput::default() },
        }
    }

    /// Which rows of the step need logits: the last row of sequences that sample, and rows of
    /// sequences that asked for prompt log-probabilities.
    fn collect_rows(&mut self, plan: &StepPlan) {
        self.keys.clear();
        self.prompt_rows.clear();
        self.token_rows.clear();
        for sequence in &plan.sequences {
            if sequence.output == Some(OutputKind::Sample) {
                self.keys.push(sequence.key);
                self.token_rows.push(sequence.tokens.end - 1);
            }
        }
        for (index, sequence) in plan.sequences.iter().enumerate() {
            let Some(prompt) = &self.prompts[sequence.key.slot as usize] else { continue };
            for (position, row) in (sequence.start as usize..).zip(sequence.tokens.clone()) {
                let Some(&next) = prompt.tokens.get(position + 1) else { break };
                self.prompt_rows.push(PromptRow { sequence: index as u32, next, top: prompt.top });
                self.token_rows.push(row);
            }
        }
    }

    fn run(&mut self, plan: &StepPlan) -> Result<(), OpError> {
        let began = Instant::now();
        self.ops.begin_step(plan, self.limits.block_size);
        self.collect_rows(plan);
        self.output.clear();
        let prepared = Instant::now();
        self.output.times.prepare = prepared - began;
        let residual = self.model.forward(&mut self.ops)?;
        let (samples, total) = (self.keys.len(), self.token_rows.len());
        for rows in slices(0..samples) {
            let logits = self.logits(residual, rows.clone())?;
            let sampling = Instant::now();
            let (pool, values) = (&self.pool, self.ops.values(logits));
            self.sampler.sample_rows(&self.keys[rows], values, &mut self.output, |lanes, work| {
                pool.run(lanes, work);
            });
            self.output.times.sample += sampling.elapsed();
            self.ops.free(logits);
        }
        for rows in slices(samples..total) {
            let logits = self.logits(residual, rows.clone())?;
            let vocab = self.limits.vocab_size as usize;
            let rows = &self.prompt_rows[rows.start - samples..rows.end - samples];
            for (row, values) in rows.iter().zip(self.ops.values(logits).chunks_exact(vocab)) {
                let logprobs = prompt_logprobs_row(values, row.next, row.top, &mut self.best);
                self.output.prompt_logprobs.push((row.sequence, logprobs));
            }
            self.ops.free(logits);
        }
        self.ops.free(residual);
        self.output.times.forward = prepared.elapsed().saturating_sub(self.output.times.sample);
        Ok(())
    }

    /// Logits `[rows, vocab]` of some of the rows that were collected.
    fn logits(&mut self, residual: Act, rows: Range<usize>) -> Result<Act, OpError> {
        self.ops.select_outputs(&self.token_rows[rows]);
        let gathered = self.ops.alloc(Rows::Outputs, residual.width);
        self.ops.gather_outputs(residual, gathered)?;
        let logits = self.model.logits(&mut self.ops, gathered)?;
        self.ops.free(gathered);
        Ok(logits)
    }
}

/// `range` in slices of at most [`MAX_OUTPUT_ROWS`].
fn slices(range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(MAX_OUTPUT_ROWS).map(move |start| start..end.min(start + MAX_OUTPUT_ROWS))
}

impl Executor for ModelExecutor {
    fn limits(&self) -> &ExecutorLimits {
        &self.limits
    }

    fn admit(&mut self, sequence: SequenceInit<'_>) {
        let slot = sequence.key.slot as usize;
        if self.prompts.len() <= slot {
            self.prompts.resize(slot + 1, None);
        }
        self.prompts[slot] = sequence
            .sampling
            .prompt_logprobs
            .map(|top| PromptLogprobs { tokens: sequence.prompt.to_vec(), top });
        self.sampler.admit(&sequence);
    }

    fn launch(&mut self, plan: &StepPlan) -> Result<(), ExecutorError> {
        self.run(plan).map_err(|OpError(reason)| ExecutorError(reason))
    }

    fn collect(&mut self, _: &StepPlan, output: &mut StepOutput) -> Result<(), ExecutorError> {
        std::mem::swap(&mut self.output, output);
        Ok(())
    }

    fn forget(&mut self, key: SeqKey) {
        self.prompts[key.slot as usize] = None;
        self.sampler.forget(key);
    }
}
