//! Sampling state per sequence, and the slab of it that executors share between threads.

use std::sync::{Arc, Mutex, PoisonError};

use tokenmill_scheduler::{FAILED_TOKEN, SeqKey, TokenId};

use super::distribution::{DistributionScratch, Narrowing, draw, first_equal, maximum};
use super::logprobs::position_logprobs;
use super::processors::LogitsProcessors;
use super::{SamplingParams, random};
use crate::executor::{PositionLogprobs, SequenceInit, StepOutput};

/// Temperatures below it are greedy: dividing by them overflows, and they mean "the most likely".
const GREEDY_BELOW: f32 = 1e-5;

/// Buffers for one row at a time; one per thread. Grow to the vocabulary once.
#[derive(Debug, Default)]
pub struct SamplerScratch {
    row: Vec<f32>,
    best: Vec<(f32, TokenId)>,
    distribution: DistributionScratch,
}

/// What a row gave: the token, [`FAILED_TOKEN`] when the logits are not numbers or every token is
/// masked, and its log-probabilities when the sequence asked.
pub type Sampled = (TokenId, Option<PositionLogprobs>);

/// One sequence's parameters and history.
#[derive(Debug)]
pub struct SequenceSampler {
    params: Arc<SamplingParams>,
    processors: LogitsProcessors,
}

impl SequenceSampler {
    /// State of a sequence that has sampled nothing.
    pub fn new(params: Arc<SamplingParams>, prompt: &[TokenId], stop_tokens: &[TokenId]) -> Self {
        let processors = LogitsProcessors::new(Arc::clone(&params), prompt, stop_tokens);
        Self { params, processors }
    }

    /// The parameters.
    pub fn params(&self) -> &SamplingParams {
        &self.params
    }

    /// Whether the next token is the lowest id of the largest raw logit and nothing else is asked.
    pub fn is_plain_greedy(&self) -> bool {
        self.params.temperature < GREEDY_BELOW
            && self.params.logprobs.is_none()
            && self.processors.is_identity()
    }

    /// Records a token that was chosen elsewhere (on a device, or by a caller that
    /// [`is_plain_greedy`](Self::is_plain_greedy) allowed to take the maximum itself).
    pub fn push(&mut self, token: TokenId) {
        self.processors.push(token);
    }

    /// Chooses the next token from its logits `[vocab]` and records it.
    pub fn sample(&mut self, logits: &[f32], scratch: &mut SamplerScratch) -> Sampled {
        let token = self.choose(logits, scratch);
        if token == FAILED_TOKEN {
            return (token, None);
        }
        self.processors.push(token);
        let top = self.params.logprobs;
        (token, top.map(|k| position_logprobs(logits, token, k, &mut scratch.best)))
    }

    fn choose(&self, logits: &[f32], scratch: &mut SamplerScratch) -> TokenId {
        if self.processors.is_identity() {
            return self.pick(logits, &mut scratch.distribution);
        }
        // Not-a-number must not hide behind a mask.
        if maximum(logits).is_none() {
            return FAILED_TOKEN;
        }
        scratch.row.clear();
        scratch.row.extend_from_slice(logits);
        self.processors.apply(&mut scratch.row);
        self.pick(&scratch.row, &mut scratch.distribution)
    }

    fn pick(&self, row: &[f32], scratch: &mut DistributionScratch) -> TokenId {
        let Some(max) = maximum(row) else { return FAILED_TOKEN };
        let params = &self.params;
        if params.temperature < GREEDY_BELOW {
            return first_equal(row, max);
        }
        let narrowing = Narrowing {
            temperature: params.temperature,
            min_p: params.min_p,
            top_k: params.top_k,
            top_p: params.top_p,
        };
        let random = random::uniform(params.seed, u64::from(self.processors.sampled()));
        draw(row, max, narrowing, random, scratch)
    }
}

#[derive(Debug, Default)]
struct Slot {
    sequence: Option<SequenceSampler>,
    result: Option<Sampled>,
}

/// Samplers of all live sequences, by slot, and scratch per thread ("lane").
///
/// Slots and lanes are behind locks so that rows can be sampled from several threads without
/// `unsafe`; different rows are different slots, so the locks are never contended.
#[derive(Debug)]
pub struct Sampler {
    slots: Vec<Mutex<Slot>>,
    lanes: Vec<Mutex<SamplerScratch>>,
}

impl Sampler {
    /// No sequences yet; rows are sampled by up to `lanes` threads at once.
    pub fn new(lanes: usize) -> Self {
        let lanes = (0..lanes.max(1)).map(|_| Mutex::default()).collect();
        Self { slots: Vec::new(), lanes }
    }

    /// Threads that may sample at once.
    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Prepares the state of a sequence. Replaces what the slot held.
    pub fn admit(&mut self, init: &SequenceInit<'_>) {
        let slot = init.key.slot as usize;
        if slot >= self.slots.len() {
            self.slots.resize_with(slot + 1, Mutex::default);
        }
        let sequence =
            SequenceSampler::new(Arc::clone(init.sampling), init.prompt, init.stop_tokens);
        *get_mut(&mut self.slots[slot]) = Slot { sequence: Some(sequence), result: None };
    }

    /// Drops the state of a sequence.
    pub fn forget(&mut self, key: SeqKey) {
        if let Some(slot) = self.slots.get_mut(key.slot as usize) {
            *get_mut(slot) = Slot::default();
        }
    }

    /// The state of a live sequence.
    pub fn get_mut(&mut self, key: SeqKey) -> Option<&mut SequenceSampler> {
        self.slots.get_mut(key.slot as usize).and_then(|slot| get_mut(slot).sequence.as_mut())
    }

    /// Samples the next token of the sequence in `slot` from its logits `[vocab]`. May be called
    /// from several threads for different slots and lanes.
    ///
    /// # Panics
    /// When no sequence was admitted to the slot, or `lane` is not below [`lanes`](Self::lanes).
    pub fn sample_row(&self, lane: usize, slot: u32, logits: &[f32]) -> Sampled {
        let mut scratch = lock(&self.lanes[lane]);
        let mut slot = lock(&self.slots[slot as usize]);
        let sequence = slot.sequence.as_mut().expect("sequences are admitted before they run");
        sequence.sample(logits, &mut scratch)
    }

    /// Samples rows `logits[i]` (`[keys, vocab]`, row-major) for `keys[i]` and appends to `output`.
    ///
    /// `run(lanes, work)` must call `work(lane)` once for every lane below `lanes`, on any threads,
    /// and return when all are done: `|lanes, work| pool.run(lanes, work)`.
    ///
    /// # Panics
    /// When a key was not admitted, or `logits` is not a whole number of rows.
    pub fn sample_rows(
        &mut self,
        keys: &[SeqKey],
        logits: &[f32],
        output: &mut StepOutput,
        run: impl FnOnce(usize, &(dyn Fn(usize) + Sync)),
    ) {
        if keys.is_empty() {
            return;
        }
        assert_eq!(logits.len() % keys.len(), 0, "one row of logits per key");
        let vocab = logits.len() / keys.len();
        let lanes = self.lanes().min(keys.len());
        let this = &*self;
        run(lanes, &|lane| {
            for (key, row) in keys.iter().zip(logits.chunks_exact(vocab)).skip(lane).step_by(lanes)
            {
                let sampled = this.sample_row(lane, key.slot, row);
                lock(&this.slots[key.slot as usize]).result = Some(sampled);
            }
        });
        for key in keys {
            let result = get_mut(&mut self.slots[key.slot as usize]).result.take();
            let (token, logprobs) = result.expect("every lane ran");
            if let Some(logprobs) = logprobs {
                output.logprobs.push((output.tokens.len() as u32, logprobs));
            }
            output.tokens.push(token);
        }
    }
}

// A panic while sampling ends the engine; the state behind a poisoned lock is not used again.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn get_mut<T>(mutex: &mut Mutex<T>) -> &mut T {
    mutex.get_mut().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(seed: u64) -> Vec<f32> {
        (0..300).map(|i| random::uniform(seed, i) as f32 * 6.0 - 3.0).collect()
    }

    fn sequence(params: &SamplingParams) -> SequenceSampler {
        SequenceSampler::new(Arc::new(params.clone()), &[1, 2, 3], &[7])
    }

    fn generate(params: &SamplingParams, tokens: u64) -> Vec<TokenId> {
        let (mut sequence, mut scratch) = (sequence(params), SamplerScratch::default());
        (0..tokens).map(|i| sequence.sample(&row(i), &mut scratch).0).collect()
    }

    #[test]
    fn greedy_takes_the_lowest_id_of_the_largest() {
        let params = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
        let mut scratch = SamplerScratch::default();
        let logits = [0.0, 3.0, 3.0, -1.0];
        assert!(sequence(&params).is_plain_greedy());
        assert_eq!(sequence(&params).sample(&logits, &mut scratch).0, 1);
        let tiny = SamplingParams { temperature: 9e-6, ..SamplingParams::default() };
        assert_eq!(sequence(&tiny).sample(&logits, &mut scratch).0, 1);
    }

    #[test]
    fn the_seed_decides_and_nothing_else() {
        let params = SamplingParams { seed: 5, top_p: 0.9, ..SamplingParams::default() };
        assert_eq!(generate(&params, 40), generate(&params, 40));
        let other = SamplingParams { seed: 6, ..params.clone() };
        assert_ne!(generate(&params, 40), generate(&other, 40));
    }

    #[test]
    fn the_kth_token_takes_the_kth_random_number() {
        let params = SamplingParams { seed: 21, ..SamplingParams::default() };
        let (mut sequence, mut scratch) = (sequence(&params), SamplerScratch::default());
        let even = [0.0f32; 10];
        let got: Vec<_> = (0..50).map(|_| sequence.sample(&even, &mut scratch).0).collect();
        let want: Vec<_> = (0..50).map(|k| (random::uniform(21, k) * 10.0) as TokenId).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn rows_that_are_not_numbers_fail_and_so_does_masking_everything() {
        let mut scratch = SamplerScratch::default();
        let greedy = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
        let biased = SamplingParams { allowed_tokens: Some(vec![1]), ..greedy.clone() };
        for params in [&greedy, &biased, &SamplingParams::default()] {
            for bad in [[f32::NAN, 0.0], [f32::NEG_INFINITY; 2], [f32::INFINITY, 0.0]] {
                let got = sequence(params).sample(&bad, &mut scratch);
                assert_eq!(got, (FAILED_TOKEN, None), "{params:?} {bad:?}");
            }
        }
        let nothing_left = SamplingParams { bad_words: vec![vec![1]], ..biased };
        assert_eq!(sequence(&nothing_left).sample(&[0.0, 0.0], &mut scratch).0, FAILED_TOKEN);
    }

    #[test]
    fn logprobs_are_those_of_the_raw_row() {
        let params = SamplingParams {
            temperature: 0.0,
            logit_bias: vec![(3, 100.0)],
            logprobs: Some(2),
            ..SamplingParams::default()
        };
        let logits = [1.0f32, 0.0, 2.0, -4.0];
        let (token, logprobs) = sequence(&params).sample(&logits, &mut SamplerScratch::default());
        let logprobs = logprobs.unwrap();
        let norm = logits.iter().map(|l| l.exp()).sum::<f32>().ln();
        assert_eq!((token, logprobs.token, logprobs.rank), (3, 3, 4));
        assert!((logprobs.logprob - (-4.0 - norm)).abs() < 1e-5);
        assert_eq!(logprobs.top.iter().map(|top| top.0).collect::<Vec<_>>(), [2, 0]);
    }

    /// A row's result is the same alone and in a batch of any size on any number of lanes.
    #[test]
    fn batches_and_threads_do_not_change_a_row() {
        let params: Vec<_> = (0..13u64)
            .map(|i| SamplingParams {
                seed: i,
                temperature: if i % 3 == 0 { 0.0 } else { 0.8 },
                top_k: (i as u32 % 4) * 10,
                top_p: 0.5 + (i % 5) as f32 * 0.125,
                frequency_penalty: (i % 2) as f32,
                logprobs: (i % 4 == 1).then_some(3),
                ..SamplingParams::default()
            })
            .collect();
        let want: Vec<_> = params.iter().map(|params| generate(params, 5)).collect();
        for lanes in [1, 2, 4] {
            let mut sampler = Sampler::new(lanes);
            let keys: Vec<_> = (0..13).map(|slot| SeqKey { slot, generation: 1 }).collect();
            for (key, params) in keys.iter().zip(&params) {
                let sampling = &Arc::new(params.clone());
                let (prompt, stop_tokens) = (&[1, 2, 3][..], &[7][..]);
                sampler.admit(&SequenceInit { key: *key, prompt, stop_tokens, sampling });
            }
            for step in 0..5 {
                let logits: Vec<f32> = keys.iter().flat_map(|_| row(step)).collect();
                let mut output = StepOutput::default();
                sampler.sample_rows(&keys, &logits, &mut output, |lanes, work| {
                    std::thread::scope(|scope| {
                        (0..lanes).for_each(|lane| drop(scope.spawn(move || work(lane))));
                    });
                });
                let got: Vec<_> = want.iter().map(|tokens| tokens[step as usize]).collect();
                assert_eq!(output.tokens, got, "{lanes} lanes, step {step}");
                let asked: Vec<_> = output.logprobs.iter().map(|entry| entry.0).collect();
                assert_eq!(asked, [1, 5, 9]);
            }
        }
    }

    #[test]
    fn a_forgotten_slot_holds_nothing() {
        let mut sampler = Sampler::new(1);
        let key = SeqKey { slot: 2, generation: 0 };
        let sampling = &Arc::new(SamplingParams::default());
        sampler.admit(&SequenceInit { key, prompt: &[1], stop_tokens: &[], sampling });
        assert!(sampler.get_mut(key).is_some());
        sampler.forget(key);
        assert!(sampler.get_mut(key).is_none());
    }
}
