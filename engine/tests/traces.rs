//! Batching, chunking, preemption, prefix reuse, cancellation and deadlines never change tokens.
//!
//! Random traces drive the engine's state machine over the simulated executor, whose memory would
//! show any mistake; what each sequence gave is compared with the model run without engine.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use tokenmill_engine::core::{EngineCore, Submission};
use tokenmill_engine::executor::{
    Executor, ExecutorError, ExecutorLimits, SequenceInit, StepOutput,
};
use tokenmill_engine::handle::EngineConfig;
use tokenmill_engine::sampling::SamplingParams;
use tokenmill_engine::sim::{SimConfig, SimExecutor, SimModel};
use tokenmill_engine::stats::EngineStats;
use tokenmill_engine::stream::{TokenEvent, TokenStream, detached};
use tokenmill_scheduler::{
    CacheGroup, FinishReason, Policy, SeqKey, SequenceSpec, StepPlan, Tick, TokenId,
};

const VOCAB: u32 = 48;
const POISON: TokenId = VOCAB - 1;
const MODEL_LEN: u32 = 48;

/// What to submit.
#[derive(Clone, Debug)]
struct Request {
    /// One of three beginnings, so that sequences share blocks.
    beginning: u64,
    shared: usize,
    own: usize,
    max_tokens: u32,
    stops: bool,
    priority: i64,
    /// Steps until the deadline.
    deadline: Option<u64>,
    parameters: usize,
}

#[derive(Clone, Debug)]
enum Op {
    Submit(Request),
    /// Drop the stream of the n-th request (modulo their number).
    Leave(usize),
    Step,
}

fn request() -> impl Strategy<Value = Request> {
    let lengths = (0u64..3, 0usize..20, 1usize..12, 1u32..20);
    let rest = (any::<bool>(), 0i64..3, prop::option::weighted(0.1, 1u64..30), 0usize..6);
    (lengths, rest).prop_map(|((beginning, shared, own, max_tokens), rest)| {
        let (stops, priority, deadline, parameters) = rest;
        Request { beginning, shared, own, max_tokens, stops, priority, deadline, parameters }
    })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => request().prop_map(Op::Submit),
        1 => (0usize..64).prop_map(Op::Leave),
        6 => Just(Op::Step),
    ]
}

/// Six kinds of parameters, from plain to everything at once.
fn parameters(kind: usize, seed: u64) -> SamplingParams {
    let greedy = SamplingParams { temperature: 0.0, seed, ..SamplingParams::default() };
    let sampled = SamplingParams { temperature: 0.8, ..greedy.clone() };
    match kind {
        0 => greedy,
        1 => sampled,
        2 => SamplingParams { top_k: 5, top_p: 0.9, logprobs: Some(2), ..sampled },
        3 => SamplingParams { repetition_penalty: 1.5, frequency_penalty: 0.4, ..greedy },
        4 => SamplingParams { min_tokens: 4, bad_words: vec![vec![3, 4], vec![5]], ..sampled },
        _ => SamplingParams { prompt_logprobs: Some(1), logprobs: Some(0), ..greedy },
    }
}

/// A request that was submitted, and what came of it so far.
struct Submitted {
    spec: SequenceSpec,
    sampling: SamplingParams,
    /// `None` once left.
    stream: Option<TokenStream>,
    tokens: Vec<TokenId>,
    prompt_tokens: Vec<TokenId>,
    admissions: u32,
    ended: Option<FinishReason>,
}

impl Submitted {
    fn read(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        while let Some(event) = stream.try_next() {
            match event {
                TokenEvent::Admitted { .. } => self.admissions += 1,
                TokenEvent::PromptLogprobs(logprobs) => {
                    assert!(self.tokens.is_empty(), "the prompt is reported before the completion");
                    self.prompt_tokens.push(logprobs.token);
                }
                TokenEvent::Token { id, logprobs } => {
                    assert_eq!(logprobs.is_some(), self.sampling.logprobs.is_some());
                    assert!(logprobs.is_none_or(|logprobs| logprobs.token == id));
                    self.tokens.push(id);
                }
                TokenEvent::Finished(reason) => self.ended = Some(reason),
                TokenEvent::Pooled(_) | TokenEvent::Lost => panic!("{event:?}"),
            }
        }
    }

    fn check(&self, model: &SimModel) {
        let SequenceSpec { prompt, stop_tokens, max_tokens, .. } = &self.spec;
        let room = (*max_tokens).min(MODEL_LEN - prompt.len() as u32);
        let want = model.generate(prompt, stop_tokens, &self.sampling, room);
        assert!(want.starts_with(&self.tokens), "{:?}, want {want:?}", self.tokens);
        if self.stream.is_none() {
            return;
        }
        let reason = match want.last() {
            Some(token) if stop_tokens.contains(token) => FinishReason::Stop,
            _ if want.len() as u32 == room => FinishReason::Length,
            _ => FinishReason::Failed,
        };
        if self.ended == Some(FinishReason::Deadline) && self.spec.deadline.is_some() {
            return;
        }
        assert_eq!((self.ended, &self.tokens), (Some(reason), &want));
        assert_eq!(self.admissions, 1);
        let reported = self.sampling.prompt_logprobs.map_or(&[][..], |_| &prompt[1..]);
        assert_eq!(self.prompt_tokens, reported, "each prompt token is reported once");
    }
}

/// Watches that sequences are admitted before they run and forgotten once, after they ended.
struct Audited {
    inner: SimExecutor,
    /// By slot.
    tenants: Arc<Mutex<HashMap<u32, SeqKey>>>,
}

impl Executor for Audited {
    fn limits(&self) -> &ExecutorLimits {
        self.inner.limits()
    }

    fn admit(&mut self, sequence: SequenceInit<'_>) {
        let tenant =
            self.tenants.lock().expect("one thread").insert(sequence.key.slot, sequence.key);
        assert_eq!(tenant, None, "the last tenant was not forgotten");
        self.inner.admit(sequence);
    }

    fn launch(&mut self, plan: &StepPlan) -> Result<(), ExecutorError> {
        for planned in &plan.sequences {
            let tenant = self.tenants.lock().expect("one thread").get(&planned.key.slot).copied();
            assert_eq!(tenant, Some(planned.key), "planned without being admitted");
        }
        self.inner.launch(plan)
    }

    fn collect(&mut self, plan: &StepPlan, output: &mut StepOutput) -> Result<(), ExecutorError> {
        self.inner.collect(plan, output)
    }

    fn forget(&mut self, key: SeqKey) {
        let tenant = self.tenants.lock().expect("one thread").remove(&key.slot);
        assert_eq!(tenant, Some(key), "forgotten without being admitted");
        self.inner.forget(key);
    }
}

/// The engine, driven by hand.
struct Harness {
    core: EngineCore,
    tenants: Arc<Mutex<HashMap<u32, SeqKey>>>,
    stats: Arc<EngineStats>,
    model: SimModel,
    requests: Vec<Submitted>,
    waiting: Vec<Submission>,
    steps: u64,
}

impl Harness {
    fn new(num_blocks: u32, windows: &[Option<u32>], policy: Policy, prefix_cache: bool) -> Self {
        let mut config = SimConfig { poison: Some(POISON), ..SimConfig::default() };
        config.limits.block_size = 4;
        config.limits.vocab_size = VOCAB;
        config.limits.max_model_len = MODEL_LEN;
        config.limits.max_step_tokens = 24;
        config.limits.max_sequences = 6;
        let group = |&window| CacheGroup { num_blocks, window };
        config.limits.groups = windows.iter().map(group).collect();
        let (hash_key, max_waiting, max_chunk_tokens) = ([1, 2], 200, 10);
        let engine = EngineConfig { max_waiting, max_chunk_tokens, prefix_cache, policy, hash_key };
        let model = SimModel::new(&config);
        let scheduler = engine.scheduler(&config.limits);
        let stats = Arc::new(EngineStats::default());
        let tenants = Arc::new(Mutex::new(HashMap::new()));
        let executor =
            Box::new(Audited { inner: SimExecutor::new(config), tenants: Arc::clone(&tenants) });
        let core = EngineCore::new(executor, scheduler, Arc::clone(&stats)).expect("valid limits");
        Self { core, tenants, stats, model, requests: Vec::new(), waiting: Vec::new(), steps: 0 }
    }

    fn submit(&mut self, request: &Request) {
        let tokens = |seed: u64, len: usize| {
            (0..len as u64)
                .map(move |i| ((seed * 131 + i * i * 7 + i) % u64::from(VOCAB)) as TokenId)
        };
        let own = 10 + self.requests.len() as u64;
        let shared = tokens(request.beginning, request.shared);
        let spec = SequenceSpec {
            prompt: shared.chain(tokens(own, request.own)).collect(),
            max_tokens: request.max_tokens,
            stop_tokens: if request.stops { vec![7, 8, 9] } else { Vec::new() },
            priority: request.priority,
            skip_prefix_cache: request.parameters == 5,
            deadline: request.deadline.map(|steps| Tick(self.steps + steps)),
            ..SequenceSpec::default()
        };
        let sampling = parameters(request.parameters, own);
        let (sender, stream) = detached();
        self.waiting.push(Submission {
            spec: spec.clone(),
            sampling: Arc::new(sampling.clone()),
            sender,
        });
        self.requests.push(Submitted {
            spec,
            sampling,
            stream: Some(stream),
            tokens: Vec::new(),
            prompt_tokens: Vec::new(),
            admissions: 0,
            ended: None,
        });
    }

    /// One turn of the engine's loop.
    fn step(&mut self) {
        self.steps += 1;
        let now = Tick(self.steps);
        let runs = self.core.schedule(now);
        if runs {
            self.core.launch().expect("no fault is injected");
        }
        self.core.deliver();
        for submission in self.waiting.drain(..) {
            self.core.apply(submission, now);
        }
        if runs {
            self.core.collect().expect("no fault is injected");
            self.core.commit().expect("the executor keeps its contract");
        }
        self.core.publish();
        self.core.check_invariants();
        self.requests.iter_mut().for_each(Submitted::read);
    }

    fn drain(&mut self) {
        let mut left = 20_000;
        while self.core.live() > 0 || !self.waiting.is_empty() {
            self.step();
            left -= 1;
            assert!(left > 0, "{} sequences never end", self.core.live());
        }
    }

    fn run(&mut self, ops: &[Op]) {
        for op in ops {
            match op {
                Op::Submit(request) => self.submit(request),
                Op::Leave(_) if self.requests.is_empty() => {}
                Op::Leave(index) => {
                    let index = index % self.requests.len();
                    self.requests[index].stream = None;
                }
                Op::Step => self.step(),
            }
        }
        self.drain();
        self.requests.iter().for_each(|request| request.check(&self.model));
        let reasons = tokenmill_engine::stats::FINISH_REASONS;
        let ended: u64 = reasons.iter().map(|&reason| self.stats.finished(reason)).sum();
        assert_eq!(ended, self.requests.len() as u64, "each request ends exactly once");
        assert_eq!(self.stats.blocks_free.get(), self.stats.blocks_total.get(), "blocks return");
        assert!(self.tenants.lock().expect("one thread").is_empty(), "every sequence is forgotten");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn scheduling_never_changes_tokens(
        ops in prop::collection::vec(op(), 1..120),
        num_blocks in 14u32..40,
        windowed in any::<bool>(),
        has_priorities in any::<bool>(),
        prefix_cache in any::<bool>(),
    ) {
        let windows = if windowed { &[None, Some(6)][..] } else { &[None] };
        let policy = if has_priorities { Policy::Priority } else { Policy::FirstCome };
        Harness::new(num_blocks, windows, policy, prefix_cache).run(&ops);
    }
}

fn plain(own: usize, max_tokens: u32) -> Request {
    Request {
        beginning: 0,
        shared: 16,
        own,
        max_tokens,
        stops: false,
        priority: 0,
        deadline: None,
        parameters: 0,
    }
}

/// The random traces would prove little if they never got here.
#[test]
fn tiny_pools_preempt_and_equal_prompts_share() {
    let mut harness = Harness::new(14, &[None], Policy::FirstCome, true);
    let request = Request { parameters: 1, ..plain(2, 20) };
    let ops: Vec<_> = std::iter::repeat_n(Op::Submit(request), 12).collect();
    harness.run(&ops);
    let stats = &harness.stats;
    assert!(stats.preemptions.get() > 0 && stats.recomputed_tokens.get() > 0, "{stats:?}");
    assert!(stats.cached_tokens.get() > 0 && stats.evictions.get() > 0, "{stats:?}");
    // Failed sequences (a poisoned prompt) have no completed prefill.
    assert!(stats.prompt_tokens.get() <= 12 * 18 && stats.prompt_tokens.get().is_multiple_of(18));
    assert_eq!(stats.prefix_queries.get(), 12 * 18);
}

#[test]
fn a_dropped_stream_cancels_at_the_next_step_and_counts_as_cancelled() {
    let mut harness = Harness::new(40, &[None], Policy::FirstCome, true);
    harness.submit(&plain(1, 20));
    harness.submit(&plain(2, 20));
    for _ in 0..4 {
        harness.step();
    }
    harness.requests[0].stream = None;
    harness.step();
    assert_eq!((harness.core.live(), harness.stats.finished(FinishReason::Cancelled)), (1, 1));
    harness.run(&[]);
}

#[test]
fn a_deadline_ends_a_sequence_with_what_it_has() {
    let mut harness = Harness::new(40, &[None], Policy::FirstCome, true);
    harness.submit(&Request { deadline: Some(6), ..plain(1, 20) });
    harness.submit(&plain(2, 20));
    harness.run(&[]);
    let (timed, other) = (&harness.requests[0], &harness.requests[1]);
    assert_eq!(timed.ended, Some(FinishReason::Deadline));
    assert!((1..20).contains(&timed.tokens.len()), "{} tokens", timed.tokens.len());
    assert_eq!(other.ended, Some(FinishReason::Length));
}

#[test]
fn a_sequence_that_is_not_a_number_fails_alone() {
    let mut harness = Harness::new(40, &[None], Policy::FirstCome, true);
    harness.submit(&plain(1, 8));
    harness.submit(&plain(2, 8));
    harness.waiting[0].spec.prompt[3] = POISON;
    harness.requests[0].spec.prompt[3] = POISON;
    harness.run(&[]);
    let reasons: Vec<_> = harness.requests.iter().map(|request| request.ended).collect();
    assert_eq!(reasons, [Some(FinishReason::Failed), Some(FinishReason::Length)]);
    assert_eq!(harness.stats.finished(FinishReason::Failed), 1);
    // The next sequence of the same beginning does not read the failed one's blocks.
    harness.submit(&plain(2, 8));
    harness.run(&[]);
}
