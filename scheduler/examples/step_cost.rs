//! Time of `schedule` and `commit` with 256 running sequences that decode.
//!
//! ```text
//! step_cost [tokens of context, 512 by default]
//! ```
//!
//! Prints the fastest and the median of many short batches: the fastest is what the code costs when
//! nothing else wants the core.

use std::time::Instant;

use tokenmill_scheduler::{
    CacheGroup, Policy, Scheduler, SchedulerConfig, SequenceSpec, StepPlan, Tick,
};

const RUNNING: u32 = 256;
const BATCH: u32 = 50;
const BATCHES: u32 = 40;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let context = std::env::args().nth(1).map_or(Ok(512), |text| text.parse::<u32>())?;
    for (name, windows) in [("one group", &[None][..]), ("two groups", &[None, Some(1024)])] {
        for prefix_cache in [false, true] {
            let (fastest, median) = measure(context, windows, prefix_cache)?;
            println!(
                "{RUNNING} running, context {context}, {name}, prefix cache {prefix_cache}: \
                 fastest {fastest} ns, median {median} ns per step"
            );
        }
    }
    Ok(())
}

/// The fastest and the median batch, in nanoseconds per step.
fn measure(
    context: u32,
    windows: &[Option<u32>],
    prefix_cache: bool,
) -> Result<(u64, u64), Box<dyn std::error::Error>> {
    let max_model_len = context + BATCH * BATCHES + 256;
    let num_blocks = RUNNING * (max_model_len / 16 + 1);
    let mut scheduler = Scheduler::new(SchedulerConfig {
        block_size: 16,
        groups: windows.iter().map(|&window| CacheGroup { num_blocks, window }).collect(),
        max_sequences: RUNNING,
        max_waiting: RUNNING,
        max_step_tokens: 8192,
        max_chunk_tokens: 8192,
        max_model_len,
        vocab_size: 32_000,
        prefix_cache,
        hash_key: [1, 2],
        policy: Policy::FirstCome,
    })?;
    for number in 0..RUNNING {
        let prompt = (0..context).map(|index| (index * 7 + number) % 32_000).collect();
        let spec = SequenceSpec { prompt, max_tokens: u32::MAX, ..SequenceSpec::default() };
        scheduler.submit(spec, Tick(0))?;
    }
    let (mut plan, mut events, sampled) = (StepPlan::default(), Vec::new(), [5; RUNNING as usize]);
    let mut step = |scheduler: &mut Scheduler| {
        events.clear();
        scheduler.schedule(Tick(0), &mut plan, &mut events);
        scheduler.commit(&plan, &sampled[..plan.num_sampled()], &mut events);
        plan.num_sampled()
    };
    while step(&mut scheduler) < RUNNING as usize {}
    let mut batches: Vec<u64> = (0..BATCHES)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..BATCH {
                step(&mut scheduler);
            }
            start.elapsed().as_nanos() as u64 / u64::from(BATCH)
        })
        .collect();
    batches.sort_unstable();
    Ok((batches[0], batches[batches.len() / 2]))
}
