//! An executor without a model: every token is a pure function of the sequence before it.
//!
//! It keeps a fake paged memory: per cache group and slot a word that depends on the token there and
//! on the word before it, which is read through the block table as attention would read keys. The
//! logits at a position are derived from all words that the position sees, through the table. So a
//! wrong table, a block given away too early, a missing or repeated query token or state left over
//! from another sequence changes tokens, and [`SimModel::generate`], which has no memory to get
//! wrong, tells what they should have been.
//!
//! Sampling is the real [`Sampler`]; faults can be injected: a device error, a panic, and a token
//! that poisons every logit after it with not-a-number.

use std::sync::Arc;
use std::time::Duration;

use tokenmill_scheduler::{
    BlockId, CacheGroup, FAILED_TOKEN, OutputKind, PlannedSequence, SeqKey, StepPlan, TokenId,
};

use crate::executor::{Executor, ExecutorError, ExecutorLimits, SequenceInit, StepOutput};
use crate::sampling::{
    Sampler, SamplerScratch, SamplingParams, SequenceSampler, prompt_logprobs_row,
};

/// The word of a poisoned position; it spreads to every later position of the sequence.
const POISON: u64 = u64::MAX;

/// A failure to inject.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// None.
    #[default]
    None,
    /// The launch of the n-th step (from 1) reports a device error.
    FailAtStep(u64),
    /// The launch of the n-th step (from 1) panics.
    PanicAtStep(u64),
}

/// Wall time that a step takes; zero by default, for tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimCost {
    /// Of every step.
    pub step: Duration,
    /// Of every query token.
    pub token: Duration,
}

/// What is simulated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimConfig {
    /// Limits of the pretended device.
    pub limits: ExecutorLimits,
    /// Seed of the pretended weights.
    pub seed: u64,
    /// Width of pooled rows.
    pub pooled_width: usize,
    /// Logits after this token are not numbers.
    pub poison: Option<TokenId>,
    /// Failure to inject.
    pub fault: Fault,
    /// Time to take.
    pub cost: SimCost,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            limits: ExecutorLimits {
                block_size: 16,
                groups: vec![CacheGroup { num_blocks: 1024, window: None }],
                max_step_tokens: 512,
                max_sequences: 64,
                max_model_len: 2048,
                vocab_size: 512,
            },
            seed: 0,
            pooled_width: 8,
            poison: None,
            fault: Fault::None,
            cost: SimCost::default(),
        }
    }
}

/// The pretended model: words, states and logits, with no memory and no batch.
#[derive(Clone, Debug)]
pub struct SimModel {
    seed: u64,
    vocab_size: u32,
    windows: Vec<Option<u32>>,
    poison: Option<TokenId>,
}

impl SimModel {
    /// The model of a configuration.
    pub fn new(config: &SimConfig) -> Self {
        Self {
            seed: mix(config.seed),
            vocab_size: config.limits.vocab_size,
            windows: config.limits.groups.iter().map(|group| group.window).collect(),
            poison: config.poison,
        }
    }

    /// What is stored at a position; `before` is the word of the position before it, if visible.
    fn word(&self, before: Option<u64>, token: TokenId, position: u32) -> u64 {
        if before == Some(POISON) || self.poison == Some(token) {
            return POISON;
        }
        let place = u64::from(token) << 32 | u64::from(position);
        mix(before.unwrap_or(1) ^ mix(place ^ self.seed)) & !1
    }

    /// Hash of what one position sees; `words(group, position)` reads a stored word.
    fn state(&self, position: u32, mut words: impl FnMut(usize, u32) -> u64) -> u64 {
        let mut state = self.seed;
        let mut poisoned = false;
        for (group, &window) in self.windows.iter().enumerate() {
            for seen in first_visible(position, window)..=position {
                let word = words(group, seen);
                poisoned |= word == POISON;
                state = (state.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
            }
        }
        if poisoned { POISON } else { mix(state) & !1 }
    }

    /// The token that the logits of a state prefer.
    fn favourite(&self, state: u64) -> TokenId {
        if state == POISON { FAILED_TOKEN } else { (state >> 1) as u32 % self.vocab_size }
    }

    /// The logits of a state: noise in `[-4, 4)` and one favourite at 5.
    fn logits(&self, state: u64, row: &mut Vec<f32>) {
        row.clear();
        if state == POISON {
            row.resize(self.vocab_size as usize, f32::NAN);
            return;
        }
        row.extend((0..u64::from(self.vocab_size)).map(|token| {
            let noise = mix(state ^ token.wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> 40;
            noise as f32 * (8.0 / (1u64 << 24) as f32) - 4.0
        }));
        row[self.favourite(state) as usize] = 5.0;
    }

    fn pooled(&self, state: u64, width: usize) -> impl Iterator<Item = f32> {
        (0..width as u64).map(move |index| match state {
            POISON => f32::NAN,
            _ => (mix(state ^ index) >> 40) as f32 * (2.0 / (1u64 << 24) as f32) - 1.0,
        })
    }

    /// The completion of a prompt, without executor, scheduler or memory: what any run must give.
    /// Ends after a stop token (included) or `max_tokens`, or before a token that cannot be sampled.
    pub fn generate(
        &self,
        prompt: &[TokenId],
        stop_tokens: &[TokenId],
        sampling: &SamplingParams,
        max_tokens: u32,
    ) -> Vec<TokenId> {
        let mut sampler = SequenceSampler::new(Arc::new(sampling.clone()), prompt, stop_tokens);
        let (mut scratch, mut row) = (SamplerScratch::default(), Vec::new());
        let mut words = vec![Vec::new(); self.windows.len()];
        let (mut completion, mut pending) = (Vec::new(), prompt.to_vec());
        while completion.len() < max_tokens as usize {
            for token in pending.drain(..) {
                for (words, &window) in words.iter_mut().zip(&self.windows) {
                    let before = if window == Some(1) { None } else { words.last().copied() };
                    words.push(self.word(before, token, words.len() as u32));
                }
            }
            let last = words[0].len() as u32 - 1;
            self.logits(self.state(last, |group, at| words[group][at as usize]), &mut row);
            let (token, _) = sampler.sample(&row, &mut scratch);
            if token == FAILED_TOKEN {
                break;
            }
            completion.push(token);
            pending.push(token);
            if stop_tokens.contains(&token) {
                break;
            }
        }
        completion
    }
}

fn first_visible(position: u32, window: Option<u32>) -> u32 {
    window.map_or(0, |window| (position + 1).saturating_sub(window))
}

/// The finaliser of SplitMix64.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

/// The fake paged memory: one word per slot of each group.
#[derive(Debug)]
struct Memory {
    block_size: u32,
    groups: Vec<Vec<u64>>,
}

impl Memory {
    fn new(limits: &ExecutorLimits) -> Self {
        let slots = |group: &CacheGroup| group.num_blocks as usize * limits.block_size as usize;
        let groups = limits.groups.iter().map(|group| vec![0; slots(group)]).collect();
        Self { block_size: limits.block_size, groups }
    }

    /// Where a position of a planned sequence is stored.
    fn slot(&self, plan: &StepPlan, planned: &PlannedSequence, group: usize, at: u32) -> usize {
        let entry = planned.blocks.start + at / self.block_size;
        assert!(entry < planned.blocks.end, "position {at} is beyond the block table");
        let block = plan.block_tables[group][entry as usize];
        assert_ne!(block, BlockId::NONE, "position {at} is visible, its block is gone");
        block.0 as usize * self.block_size as usize + (at % self.block_size) as usize
    }

    fn read(&self, plan: &StepPlan, planned: &PlannedSequence, group: usize, at: u32) -> u64 {
        self.groups[group][self.slot(plan, planned, group, at)]
    }
}

/// What a slot's sequence needs besides its sampler.
#[derive(Debug, Default)]
struct Tenant {
    /// Kept only when log-probabilities of the prompt were asked for.
    prompt: Vec<TokenId>,
    prompt_logprobs: Option<u32>,
}

/// Runs plans on nothing.
#[derive(Debug)]
pub struct SimExecutor {
    config: SimConfig,
    model: SimModel,
    memory: Memory,
    sampler: Sampler,
    tenants: Vec<Tenant>,
    output: StepOutput,
    row: Vec<f32>,
    best: Vec<(f32, TokenId)>,
    launched: u64,
}

impl SimExecutor {
    /// A device with empty memory.
    pub fn new(config: SimConfig) -> Self {
        Self {
            model: SimModel::new(&config),
            memory: Memory::new(&config.limits),
            sampler: Sampler::new(1),
            tenants: Vec::new(),
            output: StepOutput::default(),
            row: Vec::with_capacity(config.limits.vocab_size as usize),
            best: Vec::new(),
            launched: 0,
            config,
        }
    }

    fn inject(&mut self) -> Result<(), ExecutorError> {
        self.launched += 1;
        match self.config.fault {
            Fault::FailAtStep(step) if step == self.launched => {
                Err(ExecutorError(format!("injected at step {step}")))
            }
            Fault::PanicAtStep(step) if step == self.launched => {
                panic!("injected at step {step}")
            }
            Fault::None | Fault::FailAtStep(_) | Fault::PanicAtStep(_) => Ok(()),
        }
    }

    /// Stores the words of a sequence's query tokens.
    fn write(&mut self, plan: &StepPlan, planned: &PlannedSequence) {
        let tokens = &plan.tokens[planned.tokens.start as usize..planned.tokens.end as usize];
        for (group, &window) in self.model.windows.iter().enumerate() {
            for (at, &token) in (planned.start..).zip(tokens) {
                let is_first = at == 0 || window == Some(1);
                let before = (!is_first).then(|| self.memory.read(plan, planned, group, at - 1));
                let slot = self.memory.slot(plan, planned, group, at);
                self.memory.groups[group][slot] = self.model.word(before, token, at);
            }
        }
    }

    fn state(&self, plan: &StepPlan, planned: &PlannedSequence, at: u32) -> u64 {
        self.model.state(at, |group, seen| self.memory.read(plan, planned, group, seen))
    }

    fn prompt_logprobs(&mut self, plan: &StepPlan, index: usize) {
        let planned = &plan.sequences[index];
        let Some(k) = self.tenants[planned.key.slot as usize].prompt_logprobs else { return };
        let end = planned.start + (planned.tokens.end - planned.tokens.start);
        for at in planned.start..end {
            let prompt = &self.tenants[planned.key.slot as usize].prompt;
            let Some(&next) = prompt.get(at as usize + 1) else { break };
            let state = self.state(plan, planned, at);
            self.model.logits(state, &mut self.row);
            let logprobs = prompt_logprobs_row(&self.row, next, k, &mut self.best);
            self.output.prompt_logprobs.push((index as u32, logprobs));
        }
    }

    fn produce(&mut self, plan: &StepPlan, planned: &PlannedSequence, kind: OutputKind) {
        let end = planned.start + (planned.tokens.end - planned.tokens.start);
        let state = self.state(plan, planned, end - 1);
        match kind {
            OutputKind::Pool => {
                self.output.pooled.extend(self.model.pooled(state, self.config.pooled_width));
            }
            OutputKind::Sample => self.sample(planned.key, state),
        }
    }

    fn sample(&mut self, key: SeqKey, state: u64) {
        let sequence = self.sampler.get_mut(key).expect("sequences are admitted before they run");
        // The favourite is the maximum of the logits: no need to make them up to find it.
        if sequence.is_plain_greedy() {
            let token = self.model.favourite(state);
            if token != FAILED_TOKEN {
                sequence.push(token);
            }
            return self.output.tokens.push(token);
        }
        self.model.logits(state, &mut self.row);
        let (token, logprobs) = self.sampler.sample_row(0, key.slot, &self.row);
        if let Some(logprobs) = logprobs {
            self.output.logprobs.push((self.output.tokens.len() as u32, logprobs));
        }
        self.output.tokens.push(token);
    }
}

impl Executor for SimExecutor {
    fn limits(&self) -> &ExecutorLimits {
        &self.config.limits
    }

    fn admit(&mut self, sequence: SequenceInit<'_>) {
        self.sampler.admit(&sequence);
        let slot = sequence.key.slot as usize;
        if slot >= self.tenants.len() {
            self.tenants.resize_with(slot + 1, Tenant::default);
        }
        let prompt_logprobs = sequence.sampling.prompt_logprobs;
        let prompt = prompt_logprobs.map_or(Vec::new(), |_| sequence.prompt.to_vec());
        self.tenants[slot] = Tenant { prompt, prompt_logprobs };
    }

    fn launch(&mut self, plan: &StepPlan) -> Result<(), ExecutorError> {
        self.inject()?;
        let limits = &self.config.limits;
        assert!(plan.tokens.len() <= limits.max_step_tokens as usize, "too many tokens in a step");
        assert!(plan.sequences.len() <= limits.max_sequences as usize, "too many sequences");
        self.output.clear();
        plan.sequences.iter().for_each(|planned| self.write(plan, planned));
        for (index, planned) in plan.sequences.iter().enumerate() {
            self.prompt_logprobs(plan, index);
            if let Some(kind) = planned.output {
                self.produce(plan, planned, kind);
            }
        }
        Ok(())
    }

    fn collect(&mut self, plan: &StepPlan, output: &mut StepOutput) -> Result<(), ExecutorError> {
        let cost = self.config.cost;
        let wait = cost.step + cost.token * plan.tokens.len() as u32;
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
        std::mem::swap(&mut self.output, output);
        Ok(())
    }

    fn forget(&mut self, key: SeqKey) {
        self.sampler.forget(key);
        self.tenants[key.slot as usize] = Tenant::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greedy() -> SamplingParams {
        SamplingParams { temperature: 0.0, ..SamplingParams::default() }
    }

    #[test]
    fn the_short_cut_for_greedy_equals_the_sampler() {
        let config = SimConfig::default();
        let model = SimModel::new(&config);
        let mut row = Vec::new();
        for state in (0..200).map(|i| mix(i) & !1) {
            model.logits(state, &mut row);
            let mut sequence = SequenceSampler::new(Arc::new(greedy()), &[1], &[]);
            let (token, _) = sequence.sample(&row, &mut SamplerScratch::default());
            assert_eq!(token, model.favourite(state));
        }
    }

    #[test]
    fn every_token_before_matters_and_poison_spreads() {
        let model = SimModel::new(&SimConfig { poison: Some(9), ..SimConfig::default() });
        let base = model.generate(&[1, 2, 3, 4], &[], &greedy(), 4);
        for prompt in [[2, 2, 3, 4], [1, 3, 3, 4], [1, 2, 4, 4], [1, 2, 3, 5], [2, 1, 3, 4]] {
            assert_ne!(model.generate(&prompt, &[], &greedy(), 4), base, "{prompt:?}");
        }
        assert_eq!(model.generate(&[1, 9, 3], &[], &greedy(), 4), [] as [TokenId; 0]);
        let stopped = model.generate(&[1, 2, 3, 4], &[base[1]], &greedy(), 4);
        assert_eq!(stopped, base[..2]);
    }
}
