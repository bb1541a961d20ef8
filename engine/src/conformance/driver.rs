//! The kit's own little scheduler: runs sequences on an executor in whatever way a check wants.

use std::sync::Arc;

use tokenmill_scheduler::{
    BlockId, FAILED_TOKEN, OutputKind, PlannedSequence, SeqKey, StepPlan, TokenId,
};

use crate::executor::{
    Executor, ExecutorError, ExecutorLimits, PositionLogprobs, SequenceInit, StepOutput,
};
use crate::sampling::{SamplingParams, random};

/// Tokens generated for each sequence.
pub(super) const COMPLETION: usize = 6;

/// What a sequence gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Trace {
    pub(super) tokens: Vec<TokenId>,
    pub(super) logprobs: Vec<Option<PositionLogprobs>>,
    pub(super) prompt_logprobs: Vec<PositionLogprobs>,
}

/// A sequence to run.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) prompt: Vec<TokenId>,
    pub(super) sampling: Arc<SamplingParams>,
}

/// A sequence that runs.
pub(super) struct Running {
    pub(super) key: SeqKey,
    pub(super) tokens: Vec<TokenId>,
    pub(super) prompt_len: usize,
    pub(super) computed: usize,
    /// One per cache group.
    pub(super) tables: Vec<Vec<BlockId>>,
    pub(super) trace: Trace,
}

impl Running {
    pub(super) fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    pub(super) fn is_done(&self) -> bool {
        self.trace.tokens.len() >= COMPLETION || self.trace.tokens.contains(&FAILED_TOKEN)
    }
}

/// Runs sequences on an executor, in whatever way a check wants.
pub(super) struct Driver {
    pub(super) executor: Box<dyn Executor>,
    pub(super) limits: ExecutorLimits,
    /// Free blocks of each group; taken from a varying place so that tables are not in order.
    pub(super) free: Vec<Vec<BlockId>>,
    pub(super) taken: u64,
    pub(super) steps: u64,
    pub(super) tenants: u32,
    pub(super) output: StepOutput,
}

impl Driver {
    pub(super) fn new(executor: Box<dyn Executor>) -> Self {
        let limits = executor.limits().clone();
        let blocks = |num_blocks| (0..num_blocks).map(BlockId).collect();
        let free = limits.groups.iter().map(|group| blocks(group.num_blocks)).collect();
        let output = StepOutput::default();
        Self { executor, limits, free, taken: 0, steps: 0, tenants: 0, output }
    }

    pub(super) fn admit(&mut self, slot: u32, case: &Case) -> Running {
        self.tenants += 1;
        let key = SeqKey { slot, generation: self.tenants };
        let (prompt, sampling) = (&case.prompt[..], &case.sampling);
        self.executor.admit(SequenceInit { key, prompt, stop_tokens: &[], sampling });
        Running {
            key,
            tokens: case.prompt.clone(),
            prompt_len: case.prompt.len(),
            computed: 0,
            tables: vec![Vec::new(); self.limits.groups.len()],
            trace: Trace::default(),
        }
    }

    pub(super) fn take_block(&mut self, group: usize) -> BlockId {
        self.taken += 1;
        let free = &mut self.free[group];
        assert!(!free.is_empty(), "the kit needs more blocks than group {group} has");
        let index = random::bits(7, self.taken) as usize % free.len();
        free.swap_remove(index)
    }

    /// Takes the blocks away: the sequence is computed anew from its first token.
    pub(super) fn preempt(&mut self, running: &mut Running) {
        running.computed = 0;
        for (table, free) in running.tables.iter_mut().zip(&mut self.free) {
            free.extend(table.drain(..).filter(|&block| block != BlockId::NONE));
        }
    }

    pub(super) fn end(&mut self, mut running: Running) -> Trace {
        self.preempt(&mut running);
        self.executor.forget(running.key);
        running.trace
    }

    /// Forgets blocks that no later query of the sequence can see.
    pub(super) fn leave_window(&mut self, running: &mut Running) {
        let block_size = self.limits.block_size as usize;
        for (group, limits) in self.limits.groups.iter().enumerate() {
            let Some(window) = limits.window else { continue };
            let visible = (running.computed + 1).saturating_sub(window as usize);
            for block in &mut running.tables[group][..visible / block_size] {
                let left = std::mem::replace(block, BlockId::NONE);
                self.free[group].extend((left != BlockId::NONE).then_some(left));
            }
        }
    }

    pub(super) fn plan(&mut self, batch: &mut [(&mut Running, usize)]) -> StepPlan {
        self.steps += 1;
        let groups = self.limits.groups.len();
        let mut plan = StepPlan {
            step: self.steps,
            block_tables: vec![Vec::new(); groups],
            ..StepPlan::default()
        };
        for (running, chunk) in batch {
            let end = running.computed + *chunk;
            let table_len = end.div_ceil(self.limits.block_size as usize);
            let first_block = plan.block_tables[0].len() as u32;
            for group in 0..groups {
                while running.tables[group].len() < table_len {
                    let block = self.take_block(group);
                    running.tables[group].push(block);
                }
                plan.block_tables[group].extend_from_slice(&running.tables[group][..table_len]);
            }
            let first = plan.tokens.len() as u32;
            plan.tokens.extend_from_slice(&running.tokens[running.computed..end]);
            plan.sequences.push(PlannedSequence {
                key: running.key,
                start: running.computed as u32,
                tokens: first..plan.tokens.len() as u32,
                blocks: first_block..plan.block_tables[0].len() as u32,
                output: (end == running.tokens.len()).then_some(OutputKind::Sample),
            });
        }
        plan
    }

    /// Runs one step over `(sequence, query tokens)`.
    pub(super) fn step(&mut self, batch: &mut [(&mut Running, usize)]) {
        let plan = self.plan(batch);
        let failed = |error: ExecutorError| panic!("the executor failed: {error}");
        self.executor.launch(&plan).unwrap_or_else(failed);
        self.executor.collect(&plan, &mut self.output).unwrap_or_else(failed);
        for (index, logprobs) in self.output.prompt_logprobs.drain(..) {
            batch[index as usize].0.trace.prompt_logprobs.push(logprobs);
        }
        let mut logprobs = self.output.logprobs.drain(..).peekable();
        let mut tokens = self.output.tokens.iter().enumerate();
        for ((running, chunk), planned) in batch.iter_mut().zip(&plan.sequences) {
            running.computed += *chunk;
            if planned.output.is_some() {
                let (index, &token) = tokens.next().expect("one token per sampling sequence");
                let reported = logprobs.next_if(|(of, _)| *of as usize == index);
                running.trace.logprobs.push(reported.map(|(_, logprobs)| logprobs));
                running.trace.tokens.push(token);
                running.tokens.extend((token != FAILED_TOKEN).then_some(token));
            }
        }
        assert!(tokens.next().is_none(), "more tokens than sampling sequences");
        assert!(logprobs.next().is_none(), "log-probabilities of a row that was not sampled");
    }

    /// Runs all of `batch` to their end, at most `chunk` query tokens of each per step.
    pub(super) fn finish(&mut self, batch: &mut [Running], chunk: usize) {
        while batch.iter().any(|running| !running.is_done()) {
            let mut budget = self.limits.max_step_tokens as usize;
            let mut step: Vec<_> = Vec::new();
            for running in batch.iter_mut().filter(|running| !running.is_done()) {
                let share = running.pending().min(chunk).min(budget);
                budget -= share;
                if share > 0 {
                    step.push((running, share));
                }
            }
            self.step(&mut step);
        }
    }

    /// Runs `cases` together; returns their traces.
    pub(super) fn together(&mut self, cases: &[Case], chunk: usize) -> Vec<Trace> {
        let mut batch: Vec<_> =
            cases.iter().enumerate().map(|(slot, case)| self.admit(slot as u32, case)).collect();
        self.finish(&mut batch, chunk);
        batch.into_iter().map(|running| self.end(running)).collect()
    }
}
