//! A step allocates nothing.
//!
//! Held to zero: schedule, launch, collect, commit and publish of sequences that decode, greedy or
//! sampled with top-k, top-p and min-p, with the simulated executor and with a model on the CPU (on a
//! pool of one thread, whose allocations are all counted). Bounded, not zero: delivery,
//! because a tokio channel allocates a block per 32 messages (and recycles it when the reader keeps
//! up). Not covered: submissions, which allocate the sequence's buffers, log-probabilities, which
//! are allocated per token, and penalties, whose counts grow with the distinct tokens seen.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use tokenmill_engine::core::{EngineCore, Submission};
use tokenmill_engine::executor::Executor;
use tokenmill_engine::handle::EngineConfig;
use tokenmill_engine::load::{self, LoadOptions, ThreadPool, open};
use tokenmill_engine::sampling::SamplingParams;
use tokenmill_engine::sim::{SimConfig, SimExecutor};
use tokenmill_engine::stats::EngineStats;
use tokenmill_engine::stream::{TokenEvent, TokenStream, detached};
use tokenmill_scheduler::{Policy, SequenceSpec, Tick};

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system allocator unchanged; counting touches no allocated memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps `alloc`'s contract, which is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `alloc` above, that is from the system allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

const SEQUENCES: u32 = 32;
const WARM_UP: u32 = 40;
const MEASURED: u32 = 120;

fn engine(executor: Box<dyn Executor>) -> (EngineCore, Vec<TokenStream>) {
    let config = EngineConfig {
        max_waiting: SEQUENCES,
        max_chunk_tokens: 64,
        prefix_cache: true,
        policy: Policy::FirstCome,
        hash_key: [1, 2],
    };
    let scheduler = config.scheduler(executor.limits());
    let vocab_size = executor.limits().vocab_size;
    let stats = Arc::new(EngineStats::default());
    let mut core = EngineCore::new(executor, scheduler, stats).expect("the limits are valid");
    let streams = (0..SEQUENCES)
        .map(|index| {
            let (sender, stream) = detached();
            let prompt = (0..20 + index).map(|i| (i * 7 + index) % vocab_size).collect();
            let max_tokens = WARM_UP + MEASURED + 20;
            let spec = SequenceSpec { prompt, max_tokens, ..SequenceSpec::default() };
            let sampling = SamplingParams {
                temperature: if index % 2 == 0 { 0.0 } else { 0.9 },
                top_k: 20 * (index % 3),
                top_p: 0.95,
                min_p: 0.01,
                seed: u64::from(index),
                ..SamplingParams::default()
            };
            core.apply(Submission { spec, sampling: Arc::new(sampling), sender }, Tick(0));
            stream
        })
        .collect();
    (core, streams)
}

#[test]
fn simulated_steps_after_warm_up_allocate_nothing() {
    check(Box::new(SimExecutor::new(SimConfig::default())));
}

#[test]
fn steps_of_a_model_after_warm_up_allocate_nothing() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/models");
    for name in ["llama", "qwen3", "gemma2"] {
        let source = open(&Path::new(folder).join(name)).unwrap();
        let options = LoadOptions {
            max_model_len: Some(256),
            allow_longer: true,
            max_sequences: SEQUENCES,
            ..LoadOptions::default()
        };
        let pool = Arc::new(ThreadPool::new(1));
        let (executor, _, _) = load::load(&source, &options, &pool, &mut |_, _| {}).unwrap();
        check(Box::new(executor));
    }
}

fn check(executor: Box<dyn Executor>) {
    let (mut core, mut streams) = engine(executor);
    let (mut in_steps, mut in_delivery, mut tokens) = (0, 0, 0u64);
    for step in 0..WARM_UP + MEASURED {
        let now = Tick(u64::from(step));
        let mut here = allocations(|| {
            assert!(core.schedule(now));
            core.launch().expect("the executor works");
        });
        let delivery = allocations(|| {
            core.deliver();
        });
        here += allocations(|| {
            core.collect().expect("the executor works");
            core.commit().expect("the executor works");
            core.publish();
        });
        let measured = step >= WARM_UP;
        for stream in &mut streams {
            while let Some(event) = stream.try_next() {
                assert!(!matches!(event, TokenEvent::Finished(_)), "too short to measure");
                tokens += u64::from(measured);
            }
        }
        if measured {
            in_steps += here;
            in_delivery += delivery;
        }
    }
    assert_eq!(tokens, u64::from(SEQUENCES * MEASURED), "every sequence decodes in every step");
    assert_eq!(in_steps, 0, "allocations in {MEASURED} steps");
    let bound = tokens.div_ceil(32) + u64::from(SEQUENCES);
    assert!(in_delivery <= bound, "{in_delivery} allocations delivered {tokens} tokens");
}
