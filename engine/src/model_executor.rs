//! [`ModelExecutor`]: the `Executor` that runs a model file on the CPU.
//!
//! A plan becomes step metadata; one forward pass over all query tokens; then, in slices of
//! [`MAX_OUTPUT_ROWS`] rows, logits and sampling. Rows are sampled on the kernel pool, each by its
//! sequence's own sampler, so a row's token does not depend on its neighbours.

use std::sync::{Arc, Mutex};

use tokenmill_kernels::pool::ThreadPool;
use tokenmill_scheduler::{OutputKind, SeqKey, StepPlan, TokenId};

use crate::cpu::CpuOps;
use crate::executor::{
    Executor, ExecutorError, ExecutorLimits, PositionLogprobs, SequenceInit, StepOutput,
};
use crate::models::ModelGraph;
use crate::ops::{OpError, Ops, Rows};
use crate::sampling::{SequenceSampler, prompt_logprobs_row};

/// Rows of logits computed at a time: bounds the logits buffer (64 rows of 150,000 are 38 MB).
pub const MAX_OUTPUT_ROWS: usize = 64;

/// What a row of logits is for.
#[derive(Clone, Copy, Debug)]
struct OutputRow {
    /// Query token whose logits are wanted.
    token_row: u32,
    /// Index into the plan's sequences.
    sequence: u32,
    /// Slot of the sequence.
    slot: u32,
    /// Index into `StepOutput::tokens`, or the prompt token whose log-probability is asked.
    kind: RowKind,
}

#[derive(Clone, Copy, Debug)]
enum RowKind {
    Sample,
    Prompt(TokenId),
}

type RowResult = Mutex<(TokenId, Option<PositionLogprobs>)>;

/// Runs one model.
pub struct ModelExecutor {
    model: Box<dyn ModelGraph>,
    ops: CpuOps,
    pool: Arc<ThreadPool>,
    limits: ExecutorLimits,
    /// Per slot; a row's thread takes the lock of its own sequence, which nobody else wants.
    samplers: Vec<Mutex<Option<SequenceSampler>>>,
    rows: Vec<OutputRow>,
    results: Vec<RowResult>,
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
        let results = (0..MAX_OUTPUT_ROWS).map(|_| RowResult::default()).collect();
        Self {
            model,
            ops,
            pool,
            rows: Vec::with_capacity(limits.max_step_tokens as usize),
            limits,
            samplers: Vec::new(),
            results,
            output: StepOutput::default(),
        }
    }

    /// Which rows of the step need logits: the last row of sequences that sample, and every row of
    /// sequences that asked for prompt log-probabilities.
    fn collect_rows(&mut self, plan: &StepPlan) {
        self.rows.clear();
        for (index, sequence) in plan.sequences.iter().enumerate() {
            let slot = sequence.key.slot;
            let sampler = self.samplers[slot as usize].get_mut().expect("no thread panicked");
            let sampler = sampler.as_ref().expect("admitted before it is planned");
            let row = |token_row, kind| OutputRow { token_row, sequence: index as u32, slot, kind };
            if sampler.wants_prompt_logprobs() {
                for token_row in sequence.tokens.clone() {
                    let position = sequence.start + (token_row - sequence.tokens.start);
                    if let Some(next) = sampler.prompt_token(position + 1) {
                        self.rows.push(row(token_row, RowKind::Prompt(next)));
                    }
                }
            }
            if sequence.output == Some(OutputKind::Sample) {
                self.rows.push(row(sequence.tokens.end - 1, RowKind::Sample));
            }
        }
    }

    fn run(&mut self, plan: &StepPlan) -> Result<(), OpError> {
        self.ops.step.prepare(plan, self.limits.block_size);
        self.collect_rows(plan);
        self.output.clear();
        let residual = self.model.forward(&mut self.ops)?;
        for start in (0..self.rows.len()).step_by(MAX_OUTPUT_ROWS) {
            let end = self.rows.len().min(start + MAX_OUTPUT_ROWS);
            let output_rows = &mut self.ops.step.output_rows;
            output_rows.clear();
            output_rows.extend(self.rows[start..end].iter().map(|row| row.token_row));
            let gathered = self.ops.alloc(Rows::Outputs, residual.width);
            self.ops.gather_outputs(residual, gathered)?;
            let logits = self.model.logits(&mut self.ops, gathered)?;
            self.ops.free(gathered);
            self.sample(start, end, logits.index);
            self.ops.free(logits);
        }
        self.ops.free(residual);
        Ok(())
    }

    /// Samples rows `start..end`, whose logits are in workspace buffer `buffer`.
    fn sample(&mut self, start: usize, end: usize, buffer: usize) {
        let vocab = self.limits.vocab_size as usize;
        let (rows, samplers, results) = (&self.rows[start..end], &self.samplers, &self.results);
        let logits = self.ops.rows_mut(buffer, vocab, end - start);
        self.pool.for_each_row(logits, vocab, &|index, logits: &mut [f32]| {
            let row = rows[index];
            let mut sampler = samplers[row.slot as usize].lock().expect("no thread panicked");
            let sampler = sampler.as_mut().expect("admitted before it is planned");
            let result = match row.kind {
                RowKind::Sample => sampler.sample(logits),
                RowKind::Prompt(token) => {
                    let top = sampler.prompt_top();
                    (token, Some(prompt_logprobs_row(logits, token, top)))
                }
            };
            *results[index].lock().expect("no thread panicked") = result;
        });
        for (row, result) in rows.iter().zip(&mut self.results) {
            let (token, logprobs) = std::mem::take(result.get_mut().expect("no thread panicked"));
            match row.kind {
                RowKind::Sample => {
                    let index = self.output.tokens.len() as u32;
                    self.output.tokens.push(token);
                    self.output.logprobs.extend(logprobs.map(|logprobs| (index, logprobs)));
                }
                RowKind::Prompt(_) => self
                    .output
                    .prompt_logprobs
                    .extend(logprobs.map(|logprobs| (row.sequence, logprobs))),
            }
        }
    }
}

impl Executor for ModelExecutor {
    fn limits(&self) -> &ExecutorLimits {
        &self.limits
    }

    fn admit(&mut self, sequence: SequenceInit<'_>) {
        let slot = sequence.key.slot as usize;
        if self.samplers.len() <= slot {
            self.samplers.resize_with(slot + 1, Mutex::default);
        }
        let sampler = SequenceSampler::new(&sequence, self.limits.vocab_size);
        *self.samplers[slot].get_mut().expect("no thread panicked") = Some(sampler);
    }

    fn launch(&mut self, plan: &StepPlan) -> Result<(), ExecutorError> {
        self.run(plan).map_err(|OpError(reason)| ExecutorError(reason))
    }

    fn collect(&mut self, _: &StepPlan, output: &mut StepOutput) -> Result<(), ExecutorError> {
        std::mem::swap(&mut self.output, output);
        Ok(())
    }

    fn forget(&mut self, key: SeqKey) {
        if let Some(slot) = self.samplers.get_mut(key.slot as usize) {
            *slot.get_mut().expect("no thread panicked") = None;
        }
    }
}
