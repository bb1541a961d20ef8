//! Random clients against small caches; every invariant and every cache slot is checked all the time.

mod world;

use proptest::collection::vec;
use proptest::prelude::*;
use tokenmill_scheduler::{
    CacheGroup, OutputKind, Policy, SchedulerConfig, SequenceSpec, Tick, TokenId,
};
use world::{SAMPLED, World};

/// One thing that happens to the scheduler.
#[derive(Clone, Debug)]
enum Op {
    Submit(SequenceSpec),
    Cancel(usize),
    /// Schedule or commit; the sampling sequence that fails.
    HalfStep(Option<usize>),
    /// The clock moves.
    Wait(u64),
}

fn limits() -> impl Strategy<Value = SchedulerConfig> {
    let group = (prop_oneof![Just(None), (1u32..14).prop_map(Some)], 0u32..8);
    let counts = (1u32..5, 1u32..8, 1u32..8, 1u32..24, 1u32..24, 8u32..40);
    let policy = prop_oneof![Just(Policy::FirstCome), Just(Policy::Priority)];
    (vec(group, 1..4), counts, any::<bool>(), policy).prop_map(
        |(groups, counts, prefix_cache, policy)| {
            let (block_size, max_sequences, max_waiting, max_step_tokens, max_chunk_tokens, len) =
                counts;
            let mut config = SchedulerConfig {
                block_size,
                groups: Vec::new(),
                max_sequences,
                max_waiting,
                max_step_tokens,
                max_chunk_tokens,
                max_model_len: len,
                vocab_size: 2 * SAMPLED,
                prefix_cache,
                hash_key: [5, 6],
                policy,
            };
            for (window, spare) in groups {
                let group = CacheGroup { num_blocks: 0, window };
                let num_blocks = config.peak_blocks(&group, len) + spare;
                config.groups.push(CacheGroup { num_blocks, window });
            }
            config
        },
    )
}

/// Prompts are beginnings of two long texts with a random end, so that many share blocks.
fn prompt() -> impl Strategy<Value = Vec<TokenId>> {
    (0u32..2, 1usize..24, vec(0..2 * SAMPLED, 0..3)).prop_map(|(text, len, end)| {
        let shared = (0..len as u32).map(|index| (index * (text + 2) + index / 3) % (2 * SAMPLED));
        shared.chain(end).collect()
    })
}

fn spec() -> impl Strategy<Value = SequenceSpec> {
    let flags = (prop::bool::weighted(0.1), prop::bool::weighted(0.1), prop::bool::weighted(0.2));
    let stop_tokens = prop_oneof![3 => Just(Vec::new()), 1 => vec(0..SAMPLED, 1..3)];
    let deadline = prop_oneof![4 => Just(None), 1 => (0u64..60).prop_map(Some)];
    (prompt(), 1u32..36, stop_tokens, -2i64..3, deadline, flags).prop_map(
        |(prompt, max_tokens, stop_tokens, priority, deadline, (is_pooled, skip, is_salted))| {
            SequenceSpec {
                prompt,
                max_tokens,
                stop_tokens,
                priority,
                cache_salt: u64::from(is_salted),
                skip_prefix_cache: skip,
                deadline: deadline.map(Tick),
                output: if is_pooled { OutputKind::Pool } else { OutputKind::Sample },
            }
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let failing = prop_oneof![20 => Just(None), 1 => (0usize..4).prop_map(Some)];
    prop_oneof![
        3 => spec().prop_map(Op::Submit),
        1 => any::<usize>().prop_map(Op::Cancel),
        8 => failing.prop_map(Op::HalfStep),
        1 => (1u64..5).prop_map(Op::Wait),
    ]
}

fn run(config: &SchedulerConfig, ops: &[Op]) -> World {
    let mut world = World::new(config.clone());
    for op in ops {
        match op {
            Op::Submit(spec) => {
                let mut spec = spec.clone();
                spec.prompt.truncate(config.max_model_len as usize - 1);
                world.submit(spec);
            }
            Op::Cancel(choice) => world.cancel(*choice),
            Op::HalfStep(failing) => {
                world.half_step(*failing);
            }
            Op::Wait(ticks) => world.now += ticks,
        }
    }
    world.drain();
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 384, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tokens_depend_on_nothing_but_the_sequence_and_no_block_leaks(
        config in limits(),
        ops in vec(op(), 1..160),
    ) {
        run(&config, &ops);
    }

    #[test]
    fn the_same_trace_gives_the_same_events(config in limits(), ops in vec(op(), 1..60)) {
        let (first, second) = (run(&config, &ops), run(&config, &ops));
        prop_assert_eq!(first.history, second.history);
        prop_assert_eq!(first.scheduler.load(), second.scheduler.load());
    }
}

/// The random traces are of use only if they reach the corners.
#[test]
fn traces_reach_preemptions_hits_evictions_and_every_end() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let strategy = (limits(), vec(op(), 100..160));
    let (mut preemptions, mut hits, mut evictions, mut recomputed) = (0, 0, 0, 0);
    let mut reasons = std::collections::HashSet::new();
    for _ in 0..100 {
        let (config, ops) = strategy.new_tree(&mut runner).expect("a trace").current();
        let world = run(&config, &ops);
        let load = world.scheduler.load();
        preemptions += load.preemptions;
        hits += load.cached_tokens;
        evictions += load.evictions;
        recomputed += load.recomputed_tokens;
        reasons.extend(world.history.iter().filter_map(|event| match event {
            tokenmill_scheduler::Event::Finished(_, reason) => Some(*reason),
            _ => None,
        }));
    }
    let counts = (preemptions, hits, evictions, recomputed);
    assert!(preemptions > 50 && hits > 500 && evictions > 100 && recomputed > 100, "{counts:?}");
    assert_eq!(reasons.len(), 6, "{reasons:?}");
}
