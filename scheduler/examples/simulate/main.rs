//! A simulation of the scheduler with clients, faults and a device that only costs time.
//!
//! ```text
//! simulate [--requests N] [--seed S] [--blocks B] [--rate R] [--window W]
//!          [--prefix-cache] [--priority] [--check]
//! ```
//!
//! The same options give the same digest. `--window W` adds a second cache group with that sliding
//! window; `--check` checks all invariants after every step.

mod report;
mod trace;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::process::ExitCode;
use std::time::Instant;

use report::Report;
use tokenmill_scheduler::{
    CacheGroup, Event, FAILED_TOKEN, FinishReason, OutputKind, Policy, Scheduler, SchedulerConfig,
    SeqKey, StepPlan, Tick, TokenId,
};
use trace::{Random, Request, Trace, VOCAB_SIZE};

const BLOCK_SIZE: u32 = 16;

/// What was asked for.
struct Options {
    requests: u64,
    seed: u64,
    blocks: u32,
    rate: u64,
    window: Option<u32>,
    prefix_cache: bool,
    policy: Policy,
    check: bool,
}

/// Time of a step, in nanoseconds.
struct CostModel {
    fixed: u64,
    per_query_token: u64,
    /// Per 1000 tokens of context that queries attend to.
    per_thousand_cached: u64,
}

const COST: CostModel =
    CostModel { fixed: 4_000_000, per_query_token: 15_000, per_thousand_cached: 20_000 };

/// The client of a slot.
#[derive(Clone, Copy, Default)]
struct Client {
    request: u64,
    arrival: u64,
    ttft_ns: Option<u64>,
    /// Hash of the sequence's tokens.
    state: u64,
}

/// Everything but the scheduler.
struct Simulation {
    options: Options,
    trace: Trace,
    /// Faults of the device and the clock.
    random: Random,
    next: Request,
    submitted: u64,
    clients: Vec<Client>,
    leaving: BinaryHeap<Reverse<(u64, u32, u32)>>,
    now: u64,
    events: Vec<Event>,
    sampled: Vec<TokenId>,
    report: Report,
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)).and_then(simulate) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("simulate: {message}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        requests: 100_000,
        seed: 1,
        blocks: 4096,
        rate: 130,
        window: None,
        prefix_cache: false,
        policy: Policy::FirstCome,
        check: false,
    };
    while let Some(flag) = args.next() {
        let mut number = |limit: u64| {
            let value = args.next().ok_or_else(|| format!("{flag} needs a number"))?;
            let parsed = value.parse::<u64>().ok().filter(|number| *number <= limit);
            parsed.ok_or_else(|| format!("{flag} {value}: expected a number up to {limit}"))
        };
        match flag.as_str() {
            "--requests" => options.requests = number(u64::MAX)?,
            "--seed" => options.seed = number(u64::MAX)?,
            "--blocks" => options.blocks = number(1 << 24)? as u32,
            "--rate" => options.rate = number(1_000_000)?.max(1),
            "--window" => options.window = Some(number(1 << 20)? as u32),
            "--prefix-cache" => options.prefix_cache = true,
            "--priority" => options.policy = Policy::Priority,
            "--check" => options.check = true,
            _ => return Err(format!("{flag} is unknown; see the head of the source")),
        }
    }
    Ok(options)
}

fn config(options: &Options) -> SchedulerConfig {
    let group = |window| CacheGroup { num_blocks: options.blocks, window };
    let windowed = options.window.map(|window| group(Some(window)));
    SchedulerConfig {
        block_size: BLOCK_SIZE,
        groups: [Some(group(None)), windowed].into_iter().flatten().collect(),
        max_sequences: 256,
        max_waiting: 4096,
        max_step_tokens: 2048,
        max_chunk_tokens: 512,
        max_model_len: (options.blocks * BLOCK_SIZE).min(2048),
        vocab_size: VOCAB_SIZE,
        prefix_cache: options.prefix_cache,
        hash_key: [options.seed, 0x7469_6d65],
        policy: options.policy,
    }
}

fn simulate(options: Options) -> Result<(), String> {
    let config = config(&options);
    let mut scheduler = Scheduler::new(config.clone()).map_err(|error| error.to_string())?;
    if config.max_model_len < 32 {
        return Err(format!("--blocks {}: expected at least 2", options.blocks));
    }
    let mut trace = Trace::new(options.seed, options.rate, config.max_model_len);
    println!("{:?}", trace.faults);
    let mut simulation = Simulation {
        random: Random::new(!options.seed),
        next: trace.request(),
        trace,
        options,
        submitted: 0,
        clients: vec![Client::default(); (config.max_sequences + config.max_waiting) as usize],
        leaving: BinaryHeap::new(),
        now: 0,
        events: Vec::new(),
        sampled: Vec::new(),
        report: Report::default(),
    };
    let before = cpu_ns();
    simulation.run(&mut scheduler)?;
    let cpu = before.and_then(|before| Some(cpu_ns()? - before));
    simulation.report.print(&scheduler.load(), simulation.now, cpu);
    Ok(())
}

/// CPU time of this thread so far, where the system tells.
fn cpu_ns() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

impl Simulation {
    fn run(&mut self, scheduler: &mut Scheduler) -> Result<(), String> {
        let mut plan = StepPlan::default();
        loop {
            self.apply_clients(scheduler);
            let start = Instant::now();
            let has_work = scheduler.schedule(Tick(self.now), &mut plan, &mut self.events);
            let mut scheduler_ns = start.elapsed().as_nanos() as u64;
            self.deliver();
            if has_work {
                self.now += self.cost(&plan);
                self.apply_clients(scheduler);
                self.sample(&plan);
                let start = Instant::now();
                scheduler.commit(&plan, &self.sampled, &mut self.events);
                scheduler_ns += start.elapsed().as_nanos() as u64;
                self.report.steps += 1;
                self.report.planned_sequences += plan.sequences.len() as u64;
                self.report.scheduler_ns += scheduler_ns;
                self.deliver();
            } else if self.submitted < self.options.requests {
                self.now = self.now.max(self.next.arrival);
            } else {
                break;
            }
            if self.options.check {
                scheduler.check_invariants();
            }
        }
        self.check_end(scheduler)
    }

    fn check_end(&self, scheduler: &Scheduler) -> Result<(), String> {
        let (accepted, finished) = (self.report.accepted, self.report.num_finished());
        if accepted != finished {
            return Err(format!("{accepted} sequences were accepted, {finished} ended"));
        }
        let load = scheduler.load();
        match load.groups.iter().position(|group| group.free != group.total) {
            Some(group) => Err(format!("group {group} has lost blocks: {:?}", load.groups[group])),
            None => Ok(()),
        }
    }

    /// Clients that came or left until now, whether or not a step is on the device.
    fn apply_clients(&mut self, scheduler: &mut Scheduler) {
        while self.submitted < self.options.requests && self.next.arrival <= self.now {
            let next = self.trace.request();
            let Request { arrival, spec, leaves } = std::mem::replace(&mut self.next, next);
            let request = self.submitted;
            self.submitted += 1;
            let state = spec.prompt.iter().fold(0, |state, token| mix(state, *token));
            let Ok(key) = scheduler.submit(spec, Tick(self.now)) else {
                self.report.refused += 1;
                continue;
            };
            self.report.accepted += 1;
            self.clients[key.slot as usize] = Client { request, arrival, ttft_ns: None, state };
            if let Some(time) = leaves {
                self.leaving.push(Reverse((time, key.slot, key.generation)));
            }
        }
        while let Some(&Reverse((time, slot, generation))) = self.leaving.peek()
            && time <= self.now
        {
            self.leaving.pop();
            scheduler.cancel(SeqKey { slot, generation }, &mut self.events);
            self.deliver();
        }
    }

    fn cost(&mut self, plan: &StepPlan) -> u64 {
        let context: u64 = plan.sequences.iter().map(|planned| u64::from(planned.start)).sum();
        let jump = match self.random.happens(self.trace.faults.clock_jump) {
            true => self.random.below(500_000_000),
            false => 0,
        };
        let attention = context * COST.per_thousand_cached / 1000;
        COST.fixed + plan.tokens.len() as u64 * COST.per_query_token + attention + jump
    }

    /// A token for everything that samples: a function of the sequence's tokens, or a failure.
    fn sample(&mut self, plan: &StepPlan) {
        self.sampled.clear();
        for planned in &plan.sequences {
            if planned.output != Some(OutputKind::Sample) {
                continue;
            }
            let state = self.clients[planned.key.slot as usize].state;
            let has_failed =
                self.random.happens(self.trace.faults.failure) && self.random.happens(50);
            let token = (u64::from(VOCAB_SIZE) * (state >> 32)) >> 32;
            self.sampled.push(if has_failed { FAILED_TOKEN } else { token as TokenId });
        }
    }

    fn deliver(&mut self) {
        for event in self.events.drain(..) {
            let (Event::Admitted { key, .. } | Event::Token(key, _) | Event::Finished(key, _)) =
                event;
            let client = &mut self.clients[key.slot as usize];
            self.report.record_event(client.request, &event);
            match event {
                Event::Admitted { .. } => {}
                Event::Token(_, token) => {
                    client.state = mix(client.state, token);
                    if client.ttft_ns.is_none() {
                        let ttft_ns = self.now - client.arrival;
                        client.ttft_ns = Some(ttft_ns);
                        self.report.record_first_token(ttft_ns);
                    }
                }
                Event::Finished(_, FinishReason::Stop | FinishReason::Length) => {
                    client.ttft_ns.into_iter().for_each(|ns| self.report.record_completion(ns));
                }
                Event::Finished(..) => {}
            }
        }
    }
}

fn mix(state: u64, token: TokenId) -> u64 {
    let mixed = (state ^ u64::from(token)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 32
}
