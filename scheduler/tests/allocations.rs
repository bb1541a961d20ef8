//! A step allocates nothing: counted by the global allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use tokenmill_scheduler::{
    CacheGroup, Policy, Scheduler, SchedulerConfig, SequenceSpec, StepPlan, Tick, TokenId,
};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting calls that give memory to this thread.
struct Counting;

fn count() {
    // Fails only while the thread is torn down, when no test counts.
    let _ = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
}

// SAFETY: every method forwards its arguments to `System`; counting touches a plain thread-local.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps `dealloc`'s contract; `pointer` came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps `realloc`'s contract; `pointer` came from `System`.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const RUNNING: u32 = 256;

fn config(num_blocks: u32, prefix_cache: bool) -> SchedulerConfig {
    SchedulerConfig {
        block_size: 16,
        groups: vec![
            CacheGroup { num_blocks, window: None },
            CacheGroup { num_blocks, window: Some(128) },
        ],
        max_sequences: RUNNING,
        max_waiting: 1024,
        max_step_tokens: 2048,
        max_chunk_tokens: 512,
        max_model_len: 2048,
        vocab_size: 50_000,
        prefix_cache,
        hash_key: [7, 8],
        policy: Policy::FirstCome,
    }
}

fn spec(number: u32, max_tokens: u32) -> SequenceSpec {
    let prompt = (0..64 + number % 32).map(|index| (index * 31 + number) % 50_000).collect();
    SequenceSpec { prompt, max_tokens, stop_tokens: vec![49_999], ..SequenceSpec::default() }
}

/// Allocations in `schedule` and `commit` over some steps, and whether work was left at their end.
fn count_steps(scheduler: &mut Scheduler, buffers: &mut Buffers, steps: u32) -> u64 {
    let before = ALLOCATIONS.get();
    for _ in 0..steps {
        buffers.events.clear();
        if !scheduler.schedule(Tick(0), &mut buffers.plan, &mut buffers.events) {
            break;
        }
        let sampled = &buffers.sampled[..buffers.plan.num_sampled()];
        scheduler.commit(&buffers.plan, sampled, &mut buffers.events);
    }
    ALLOCATIONS.get() - before
}

struct Buffers {
    plan: StepPlan,
    events: Vec<tokenmill_scheduler::Event>,
    sampled: Vec<TokenId>,
}

impl Buffers {
    fn new() -> Self {
        let events = Vec::with_capacity(8 * RUNNING as usize);
        Buffers { plan: StepPlan::default(), events, sampled: vec![17; RUNNING as usize] }
    }
}

#[test]
fn decoding_256_sequences_allocates_nothing() {
    for prefix_cache in [false, true] {
        let mut scheduler = Scheduler::new(config(20_000, prefix_cache)).unwrap();
        let mut buffers = Buffers::new();
        for number in 0..RUNNING {
            scheduler.submit(spec(number, 1000), Tick(0)).unwrap();
        }
        // Warm-up: all prompts, and the first step that sees them all running.
        assert!(count_steps(&mut scheduler, &mut buffers, 14) > 0, "the counter counts");
        assert_eq!(scheduler.load().running, RUNNING);
        assert_eq!(count_steps(&mut scheduler, &mut buffers, 900), 0);
        assert_eq!(scheduler.load().running, RUNNING, "all of them were running all the time");
    }
}

#[test]
fn admissions_ends_and_preemptions_allocate_nothing_after_warm_up() {
    let mut scheduler = Scheduler::new(config(2_500, true)).unwrap();
    let mut buffers = Buffers::new();
    let mut number = 0;
    let mut steady = 0;
    for round in 0..200 {
        while scheduler.load().waiting < 64 {
            scheduler.submit(spec(number, 100 + number * 7 % 300), Tick(0)).unwrap();
            number += 1;
        }
        let allocations = count_steps(&mut scheduler, &mut buffers, 10);
        if round >= 100 {
            steady += allocations;
        }
    }
    let load = scheduler.load();
    assert!(load.preemptions > 100 && load.evictions > 1000, "{load:?}");
    assert!(number > 1000, "{number} sequences came and went");
    assert_eq!(steady, 0);
}
