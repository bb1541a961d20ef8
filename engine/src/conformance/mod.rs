//! The kit that every executor must pass: what it computes depends on the sequence and on nothing else.
//!
//! The kit is its own little scheduler. It runs a set of sequences one at a time, each in a single
//! prefill, and takes that as the truth; then it runs them batched, in chunks, with blocks taken away
//! and given back elsewhere, over shared blocks and with the blocks outside the window gone, and
//! demands the same tokens and bit-equal log-probabilities. It says nothing about whether the truth
//! is right: golden fixtures do.

mod driver;

use std::sync::Arc;

use tokenmill_scheduler::{FAILED_TOKEN, TokenId};

use self::driver::{COMPLETION, Case, Driver, Running, Trace};
use crate::executor::{Executor, ExecutorLimits, PositionLogprobs};
use crate::sampling::{SamplingParams, random};

fn tokens(seed: u64, len: usize, vocab_size: u32) -> Vec<TokenId> {
    (0..len as u64).map(|i| random::bits(seed, i) as u32 % vocab_size).collect()
}

/// Prompts around the edges of blocks, and parameters that use every part of sampling.
fn cases(limits: &ExecutorLimits) -> Vec<Case> {
    let block_size = limits.block_size as usize;
    let longest = (limits.max_model_len as usize).saturating_sub(COMPLETION);
    let lengths = [1, block_size - 1, block_size, block_size + 1, 2 * block_size + 3, 7];
    let greedy =
        SamplingParams { temperature: 0.0, logprobs: Some(3), ..SamplingParams::default() };
    let seeded = SamplingParams { seed: 11, logprobs: Some(0), ..SamplingParams::default() };
    let parameters = [
        greedy.clone(),
        seeded.clone(),
        SamplingParams { prompt_logprobs: Some(2), ..greedy.clone() },
        SamplingParams { top_k: 8, top_p: 0.9, temperature: 0.7, seed: 3, ..seeded.clone() },
        SamplingParams { repetition_penalty: 1.3, prompt_logprobs: Some(0), ..greedy },
        SamplingParams { frequency_penalty: 0.5, min_p: 0.01, seed: 12, ..seeded },
    ];
    let most = limits.max_sequences.min(limits.max_step_tokens) as usize;
    let cases = lengths.into_iter().zip(parameters).take(most).zip(1..);
    cases
        .map(|((len, sampling), seed)| Case {
            prompt: tokens(seed, len.clamp(1, longest.max(1)), limits.vocab_size),
            sampling: Arc::new(sampling),
        })
        .collect()
}

/// Checks an executor; `make` gives a fresh one with the same weights each time.
///
/// The executor needs room for six sequences of three blocks and `COMPLETION` tokens.
///
/// # Panics
/// When a check fails; the message says which.
pub fn executor(make: impl Fn() -> Box<dyn Executor>) {
    let limits = make().limits().clone();
    let cases = cases(&limits);
    let whole = limits.max_step_tokens as usize;
    let alone: Vec<_> = cases
        .iter()
        .flat_map(|case| Driver::new(make()).together(std::slice::from_ref(case), whole))
        .collect();
    for (case, trace) in cases.iter().zip(&alone) {
        check_shapes(case, trace, limits.vocab_size);
    }
    check_batches(&make, &cases, &alone);
    check_staggered(&make, &cases, &alone);
    check_preemption(&make, &cases, &alone);
    check_shared_blocks(&make, &cases);
    check_windows(&make, &cases, &alone);
    check_slots_start_clean(&make, &cases, &alone);
    check_seeds(&make, &limits);
}

fn assert_traces(what: &str, got: &[Trace], want: &[Trace]) {
    for (index, (got, want)) in got.iter().zip(want).enumerate() {
        assert_eq!(got.tokens, want.tokens, "{what}: tokens of sequence {index}");
        assert_eq!(got, want, "{what}: log-probabilities of sequence {index}");
    }
    assert_eq!(got.len(), want.len(), "{what}: number of sequences");
}

/// Lengths, order and ranges of what a sequence reports.
fn check_shapes(case: &Case, trace: &Trace, vocab_size: u32) {
    assert_eq!(trace.tokens.len(), COMPLETION, "a sequence of finite logits goes on");
    assert!(trace.tokens.iter().all(|&token| token < vocab_size), "tokens are of the vocabulary");
    let sampling = &case.sampling;
    for (logprobs, &token) in trace.logprobs.iter().zip(&trace.tokens) {
        assert_eq!(logprobs.is_some(), sampling.logprobs.is_some(), "reported if asked for");
        let Some(logprobs) = logprobs else { continue };
        assert_eq!(logprobs.token, token, "log-probabilities are of the sampled token");
        check_position(logprobs, sampling.logprobs, vocab_size);
    }
    let asked = sampling.prompt_logprobs.map_or(0, |_| case.prompt.len() - 1);
    assert_eq!(trace.prompt_logprobs.len(), asked, "one per prompt token but the first");
    for (logprobs, &token) in trace.prompt_logprobs.iter().zip(&case.prompt[1..]) {
        assert_eq!(logprobs.token, token, "prompt log-probabilities are in prompt order");
        check_position(logprobs, sampling.prompt_logprobs, vocab_size);
    }
}

fn check_position(logprobs: &PositionLogprobs, k: Option<u32>, vocab_size: u32) {
    let PositionLogprobs { token, logprob, rank, top } = logprobs;
    // One rounding of the sum of exponentials may lift a certain token above zero.
    assert!(*logprob <= 1e-5, "log-probability {logprob}");
    assert!((1..=vocab_size).contains(rank), "rank {rank}");
    assert_eq!(top.len() as u32, k.unwrap_or(0).min(vocab_size), "as many as asked for");
    let sorted = top.is_sorted_by(|a, b| a.1 > b.1 || (a.1 == b.1 && a.0 < b.0));
    assert!(sorted, "most likely first, then lower id: {top:?}");
    if let Some(entry) = top.get(*rank as usize - 1) {
        assert_eq!(entry, &(*token, *logprob), "the token is at its rank");
    }
}

/// All together, in chunks of every interesting size.
fn check_batches(make: &impl Fn() -> Box<dyn Executor>, cases: &[Case], alone: &[Trace]) {
    let limits = make().limits().clone();
    for chunk in [1, 3, limits.block_size as usize, limits.max_step_tokens as usize] {
        let got = Driver::new(make()).together(cases, chunk);
        assert_traces(&format!("batched in chunks of {chunk}"), &got, alone);
    }
}

/// Each starts when the one before has generated a token: prefills meet decodes, in reverse order too.
fn check_staggered(make: &impl Fn() -> Box<dyn Executor>, cases: &[Case], alone: &[Trace]) {
    for is_reversed in [false, true] {
        let mut driver = Driver::new(make());
        let whole = driver.limits.max_step_tokens as usize;
        let mut batch: Vec<Running> = Vec::new();
        let mut order: Vec<_> = (0..cases.len()).collect();
        if is_reversed {
            order.reverse();
        }
        for &index in &order {
            let newcomer = driver.admit(index as u32, &cases[index]);
            batch.push(newcomer);
            let mut budget = whole;
            let mut step: Vec<_> = Vec::new();
            for running in batch.iter_mut().filter(|running| !running.is_done()) {
                let share = running.pending().min(budget);
                budget -= share;
                if share > 0 {
                    step.push((running, share));
                }
            }
            driver.step(&mut step);
        }
        driver.finish(&mut batch, whole);
        let got: Vec<_> = batch.into_iter().map(|running| driver.end(running)).collect();
        let want: Vec<_> = order.iter().map(|&index| alone[index].clone()).collect();
        assert_traces("prefills among decodes", &got, &want);
    }
}

/// Every sequence loses its blocks in the middle of prefill and again in the middle of decode.
fn check_preemption(make: &impl Fn() -> Box<dyn Executor>, cases: &[Case], alone: &[Trace]) {
    let mut driver = Driver::new(make());
    for (index, case) in cases.iter().enumerate() {
        let mut running = driver.admit(index as u32, case);
        if case.prompt.len() > 2 {
            driver.step(&mut [(&mut running, 2)]);
            driver.preempt(&mut running);
            running.trace.prompt_logprobs.clear();
        }
        let chunk = driver.limits.max_step_tokens.min(5) as usize;
        let mut is_shaken = false;
        while !running.is_done() {
            if running.trace.tokens.len() == COMPLETION / 2 && !is_shaken {
                is_shaken = true;
                driver.preempt(&mut running);
                // Recomputing reports the prompt again; the engine drops the repetition.
                running.trace.prompt_logprobs.clear();
            }
            let share = running.pending().min(chunk);
            driver.step(&mut [(&mut running, share)]);
        }
        let got = driver.end(running);
        assert_traces("preempted and recomputed", &[got], &alone[index..=index]);
    }
}

/// A sequence reads whole blocks that another one wrote and still uses.
fn check_shared_blocks(make: &impl Fn() -> Box<dyn Executor>, cases: &[Case]) {
    let mut driver = Driver::new(make());
    let (block_size, whole) =
        (driver.limits.block_size as usize, driver.limits.max_step_tokens as usize);
    let room = (driver.limits.max_model_len as usize).saturating_sub(COMPLETION + 2);
    let shared = (2 * block_size).min(room / block_size * block_size);
    if shared == 0 || driver.limits.max_sequences < 2 {
        return;
    }
    let prefix = tokens(40, shared, driver.limits.vocab_size);
    let with_end = |seed: u64| Case {
        prompt: [&prefix[..], &tokens(seed, 2, driver.limits.vocab_size)].concat(),
        sampling: Arc::clone(&cases[0].sampling),
    };
    let pair = [with_end(41), with_end(42)];
    let want: Vec<_> = pair
        .iter()
        .flat_map(|case| Driver::new(make()).together(std::slice::from_ref(case), whole))
        .collect();
    let mut owner = driver.admit(0, &pair[0]);
    while owner.computed < owner.prompt_len {
        let share = owner.pending().min(whole);
        driver.step(&mut [(&mut owner, share)]);
    }
    let mut guest = driver.admit(1, &pair[1]);
    guest.computed = shared;
    for (table, owned) in guest.tables.iter_mut().zip(&owner.tables) {
        table.extend_from_slice(&owned[..shared / block_size]);
    }
    let mut batch = [owner, guest];
    driver.finish(&mut batch, whole);
    let got = batch.map(|running| running.trace);
    assert_traces("over shared blocks", &got, &want);
}

/// Blocks that left the window are gone from the table and hold other content.
fn check_windows(make: &impl Fn() -> Box<dyn Executor>, cases: &[Case], alone: &[Trace]) {
    let mut driver = Driver::new(make());
    if driver.limits.groups.iter().all(|group| group.window.is_none()) {
        return;
    }
    let chunk = driver.limits.max_step_tokens.min(3) as usize;
    for (index, case) in cases.iter().enumerate() {
        let mut running = driver.admit(index as u32, case);
        while !running.is_done() {
            let share = running.pending().min(chunk);
            driver.step(&mut [(&mut running, share)]);
            driver.leave_window(&mut running);
        }
        let got = driver.end(running);
        assert_traces("without the blocks outside the window", &[got], &alone[index..=index]);
    }
}

/// The next tenant of a slot, and of its blocks, finds nothing of the last one.
fn check_slots_start_clean(make: &impl Fn() -> Box<dyn Executor>, cases: &[Case], alone: &[Trace]) {
    let mut driver = Driver::new(make());
    let whole = driver.limits.max_step_tokens as usize;
    for (case, want) in cases.iter().zip(alone).chain(cases.iter().zip(alone).rev()) {
        let got = driver.together(std::slice::from_ref(case), whole);
        assert_traces("in a slot that was used before", &got, std::slice::from_ref(want));
    }
}

/// The seed decides, and different seeds decide differently.
fn check_seeds(make: &impl Fn() -> Box<dyn Executor>, limits: &ExecutorLimits) {
    let prompt = tokens(50, 3, limits.vocab_size);
    let whole = limits.max_step_tokens as usize;
    let run = |seed: u64| {
        // Hot, so that even a model that is sure of itself leaves a choice.
        let sampling = SamplingParams { seed, temperature: 5.0, ..SamplingParams::default() };
        let case = Case { prompt: prompt.clone(), sampling: Arc::new(sampling) };
        Driver::new(make()).together(&[case], whole)
    };
    let first = run(0);
    assert_traces("with the same seed", &run(0), &first);
    assert!((1..9).any(|seed| run(seed) != first), "eight other seeds give the same tokens");
}

/// A sequence whose logits are not numbers fails, and its neighbours do not notice. `poison` is a
/// token after which the executor's logits are not numbers.
///
/// # Panics
/// When a check fails.
pub fn nan_isolation(make: impl Fn() -> Box<dyn Executor>, poison: TokenId) {
    let limits = make().limits().clone();
    let mut cases = cases(&limits);
    let whole = limits.max_step_tokens as usize;
    let mut want: Vec<_> = cases
        .iter()
        .flat_map(|case| Driver::new(make()).together(std::slice::from_ref(case), whole))
        .collect();
    let sick = 1;
    let mut prompt = cases[sick].prompt.clone();
    prompt[0] = poison;
    cases[sick].prompt = prompt;
    want[sick] = Trace { tokens: vec![FAILED_TOKEN], logprobs: vec![None], ..Trace::default() };
    let mut driver = Driver::new(make());
    assert_traces("beside a sick sequence", &driver.together(&cases, whole), &want);
    // Its blocks go to others afterwards.
    let healthy = &cases[..sick];
    for _ in 0..3 {
        assert_traces("after it", &driver.together(healthy, whole), &want[..sick]);
    }
}

#[cfg(test)]
mod tests {
    use tokenmill_scheduler::{CacheGroup, SeqKey, StepPlan};

    use super::*;
    use crate::executor::{ExecutorError, SequenceInit, StepOutput};
    use crate::sim::{SimConfig, SimExecutor};

    fn config(block_size: u32, windows: &[Option<u32>]) -> SimConfig {
        let mut config = SimConfig::default();
        config.limits.block_size = block_size;
        let group = |&window| CacheGroup { num_blocks: 64, window };
        config.limits.groups = windows.iter().map(group).collect();
        config
    }

    #[test]
    fn the_simulated_executor_passes() {
        for block_size in [4, 16] {
            for windows in [&[None][..], &[Some(6)], &[None, Some(9)], &[Some(1), None]] {
                let config = config(block_size, windows);
                executor(|| Box::new(SimExecutor::new(config.clone())));
            }
        }
    }

    #[test]
    fn the_simulated_executor_isolates_sick_sequences() {
        let mut config = config(4, &[None]);
        config.limits.vocab_size = 4096;
        config.poison = Some(4095);
        nan_isolation(|| Box::new(SimExecutor::new(config.clone())), 4095);
    }

    /// An executor that lets the batch show must not pass.
    struct Leaky(SimExecutor);

    impl Executor for Leaky {
        fn limits(&self) -> &ExecutorLimits {
            self.0.limits()
        }

        fn admit(&mut self, sequence: SequenceInit<'_>) {
            self.0.admit(sequence);
        }

        fn launch(&mut self, plan: &StepPlan) -> Result<(), ExecutorError> {
            self.0.launch(plan)
        }

        fn collect(&mut self, plan: &StepPlan, out: &mut StepOutput) -> Result<(), ExecutorError> {
            self.0.collect(plan, out)?;
            if let Some(last) = out.tokens.get_mut(2) {
                *last = 0;
            }
            Ok(())
        }

        fn forget(&mut self, key: SeqKey) {
            self.0.forget(key);
        }
    }

    #[test]
    #[should_panic(expected = "batched in chunks of 1")]
    fn a_batch_that_shows_is_found() {
        executor(|| Box::new(Leaky(SimExecutor::new(SimConfig::default()))));
    }
}
