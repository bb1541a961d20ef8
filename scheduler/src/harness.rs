//! A scheduler with its buffers, for unit tests.

use crate::config::{CacheGroup, SchedulerConfig};
use crate::ids::{SeqKey, Tick, TokenId};
use crate::plan::{Event, FinishReason, StepPlan};
use crate::policy::Policy;
use crate::scheduler::Scheduler;
use crate::sequence::SequenceSpec;

/// Checks all invariants after every call.
pub(crate) struct Harness {
    pub(crate) scheduler: Scheduler,
    pub(crate) plan: StepPlan,
    pub(crate) events: Vec<Event>,
}

/// Blocks of 4 tokens, one group, prefix cache on.
pub(crate) fn config(num_blocks: u32) -> SchedulerConfig {
    SchedulerConfig {
        block_size: 4,
        groups: vec![CacheGroup { num_blocks, window: None }],
        max_sequences: 4,
        max_waiting: 8,
        max_step_tokens: 64,
        max_chunk_tokens: 64,
        max_model_len: num_blocks * 4,
        vocab_size: 1000,
        prefix_cache: true,
        hash_key: [3, 4],
        policy: Policy::FirstCome,
    }
}

/// `len` tokens from `first` upwards.
pub(crate) fn prompt(first: TokenId, len: u32) -> Vec<TokenId> {
    (first..first + len).collect()
}

/// A sequence of `prompt` and at most `max_tokens` more.
pub(crate) fn spec(prompt: Vec<TokenId>, max_tokens: u32) -> SequenceSpec {
    SequenceSpec { prompt, max_tokens, ..SequenceSpec::default() }
}

impl Harness {
    pub(crate) fn new(config: SchedulerConfig) -> Self {
        let scheduler = Scheduler::new(config).unwrap();
        Harness { scheduler, plan: StepPlan::default(), events: Vec::new() }
    }

    pub(crate) fn submit(&mut self, spec: SequenceSpec) -> SeqKey {
        let key = self.scheduler.submit(spec, Tick(0)).unwrap();
        self.scheduler.check_invariants();
        key
    }

    pub(crate) fn cancel(&mut self, key: SeqKey) {
        self.scheduler.cancel(key, &mut self.events);
        self.scheduler.check_invariants();
    }

    pub(crate) fn schedule(&mut self, now: u64) -> bool {
        let has_work = self.scheduler.schedule(Tick(now), &mut self.plan, &mut self.events);
        self.scheduler.check_invariants();
        has_work
    }

    pub(crate) fn commit(&mut self, sampled: &[TokenId]) {
        self.scheduler.commit(&self.plan, sampled, &mut self.events);
        self.scheduler.check_invariants();
    }

    /// Schedules at time 0 and commits `token` for everything that samples.
    pub(crate) fn step(&mut self, token: TokenId) -> bool {
        let has_work = self.schedule(0);
        if has_work {
            self.commit(&vec![token; self.plan.num_sampled()]);
        }
        has_work
    }

    /// Steps until nothing is left.
    pub(crate) fn drain(&mut self) {
        for _ in 0..1000 {
            if !self.step(900) {
                return assert!(self.scheduler.is_idle(), "work is left but nothing runs");
            }
        }
        panic!("still busy after 1000 steps");
    }

    /// Key, first position and number of query tokens of every planned sequence.
    pub(crate) fn planned(&self) -> Vec<(SeqKey, u32, u32)> {
        let planned = self.plan.sequences.iter();
        planned.map(|p| (p.key, p.start, p.tokens.end - p.tokens.start)).collect()
    }

    pub(crate) fn finish_of(&self, key: SeqKey) -> Option<FinishReason> {
        self.events.iter().find_map(|event| match event {
            Event::Finished(ended, reason) if *ended == key => Some(*reason),
            _ => None,
        })
    }

    pub(crate) fn tokens_of(&self, key: SeqKey) -> Vec<TokenId> {
        let token = |event: &Event| match event {
            Event::Token(owner, token) if *owner == key => Some(*token),
            _ => None,
        };
        self.events.iter().filter_map(token).collect()
    }

    /// Prompt tokens found in the cache at the first admission.
    pub(crate) fn cached_of(&self, wanted: SeqKey) -> u32 {
        let cached = |event: &Event| match event {
            Event::Admitted { key, cached_tokens } if *key == wanted => Some(*cached_tokens),
            _ => None,
        };
        let all: Vec<u32> = self.events.iter().filter_map(cached).collect();
        assert_eq!(all.len(), 1, "a sequence is admitted once");
        all[0]
    }
}
