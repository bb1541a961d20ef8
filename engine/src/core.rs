//! The step state machine: scheduler, executor and streams, without a thread and without a clock.
//!
//! A step is [`schedule`](EngineCore::schedule), [`launch`](EngineCore::launch),
//! [`deliver`](EngineCore::deliver), [`apply`](EngineCore::apply) for each submission,
//! [`collect`](EngineCore::collect), [`commit`](EngineCore::commit). Delivery of the last step's
//! events and submissions come after the launch so that the device hides them.
//!
//! *Invariant:* submissions are applied only when no event is undelivered. A freed slot is reused by
//! the next submission, so the old tenant's stream must be gone by then.

use std::sync::Arc;

use tokenmill_scheduler::{
    ConfigError, Event, FinishReason, OutputKind, Scheduler, SchedulerConfig, SeqKey, SequenceSpec,
    StepPlan, Tick, TokenId,
};

use crate::executor::{
    DeviceTimes, Executor, ExecutorError, PositionLogprobs, SequenceInit, StepOutput,
};
use crate::sampling::SamplingParams;
use crate::stats::{Counters, EngineStats};
use crate::stream::{TokenEvent, TokenSender};

/// Why an engine stopped. Every stream it had ends with `Lost`.
#[derive(Debug, thiserror::Error)]
pub enum EngineFault {
    /// The device failed.
    #[error("the device failed: {0}")]
    Device(#[from] ExecutorError),
    /// The executor broke its contract.
    #[error("the executor returned {got} {what} for a step that has {want}")]
    Output {
        /// What was counted.
        what: &'static str,
        /// How many came.
        got: usize,
        /// How many the plan asks for.
        want: usize,
    },
    /// The scheduler runs nothing although there are sequences.
    #[error("nothing can run although {live} sequences are live")]
    Stalled {
        /// Sequences that have not ended.
        live: usize,
    },
}

/// A sequence on its way into the engine.
#[derive(Debug)]
pub struct Submission {
    /// Prompt and limits, already checked.
    pub spec: SequenceSpec,
    /// How tokens are chosen, already validated.
    pub sampling: Arc<SamplingParams>,
    /// Where its events go.
    pub sender: TokenSender,
}

/// The engine's state of one live sequence.
#[derive(Debug)]
struct Live {
    key: SeqKey,
    sender: TokenSender,
    /// Index in [`EngineCore::live`].
    index: usize,
    prompt_tokens: u32,
    /// Prompt tokens are counted when the first output shows that prefill is complete.
    prompt_counted: bool,
    /// Log-probabilities of the token that the next `Token` event carries.
    logprobs: Option<Box<PositionLogprobs>>,
    /// Position of the next prompt token to report; recomputation reports none twice.
    next_prompt_logprob: u32,
    pooled: Option<Box<[f32]>>,
}

/// Scheduler, executor and the streams between them and their readers.
pub struct EngineCore {
    scheduler: Scheduler,
    executor: Box<dyn Executor>,
    stats: Arc<EngineStats>,
    counters: Counters,
    /// By slot.
    sequences: Vec<Option<Live>>,
    /// Slots in use, in no order.
    live: Vec<u32>,
    plan: StepPlan,
    output: StepOutput,
    events: Vec<Event>,
    /// Slots of the plan's sampling sequences, in plan order.
    sampling: Vec<u32>,
    prompt_logprobs: Vec<(u32, Box<PositionLogprobs>)>,
    launched: bool,
}

impl EngineCore {
    /// An idle engine. `config` must describe `executor`'s limits.
    ///
    /// # Errors
    /// When the scheduler refuses the configuration.
    pub fn new(
        executor: Box<dyn Executor>,
        config: SchedulerConfig,
        stats: Arc<EngineStats>,
    ) -> Result<Self, ConfigError> {
        let slots = config.max_sequences as usize + config.max_waiting as usize;
        let running = config.max_sequences as usize;
        Ok(Self {
            scheduler: Scheduler::new(config)?,
            executor,
            stats,
            counters: Counters::default(),
            sequences: std::iter::repeat_with(|| None).take(slots).collect(),
            live: Vec::with_capacity(slots),
            plan: StepPlan::default(),
            output: StepOutput::default(),
            events: Vec::with_capacity(2 * running + slots),
            sampling: Vec::with_capacity(running),
            prompt_logprobs: Vec::new(),
            launched: false,
        })
    }

    /// Sequences that were submitted and whose end was not delivered.
    pub fn live(&self) -> usize {
        self.live.len()
    }

    /// The present step; meaningful after [`schedule`](Self::schedule) returned true.
    pub fn plan(&self) -> &StepPlan {
        &self.plan
    }

    /// Cancels the sequences whose streams were dropped and plans a step. False when nothing can run.
    ///
    /// # Panics
    /// While a step is launched.
    pub fn schedule(&mut self, now: Tick) -> bool {
        assert!(!self.launched, "a step is committed before the next is planned");
        let before = self.events.len();
        for &slot in &self.live {
            if let Some(live) = &self.sequences[slot as usize]
                && live.sender.is_closed()
            {
                self.scheduler.cancel(live.key, &mut self.events);
            }
        }
        let runs = self.scheduler.schedule(now, &mut self.plan, &mut self.events);
        self.count(before);
        runs
    }

    /// Starts the planned step on the device.
    ///
    /// # Errors
    /// When the device failed.
    pub fn launch(&mut self) -> Result<(), EngineFault> {
        self.executor.launch(&self.plan)?;
        self.launched = true;
        self.counters.steps += 1;
        for planned in &self.plan.sequences {
            let live = self.sequences[planned.key.slot as usize].as_ref();
            let prompt = live.map_or(u32::MAX, |live| live.prompt_tokens);
            let tokens = u64::from(planned.tokens.end - planned.tokens.start);
            match planned.output {
                Some(_) if tokens == 1 && planned.start >= prompt => {
                    self.counters.decode_tokens += 1;
                }
                _ => self.counters.prefill_tokens += tokens,
            }
        }
        Ok(())
    }

    /// Counts the events from the `from`th on, before anybody reads them.
    fn count(&mut self, from: usize) {
        for index in from..self.events.len() {
            match self.events[index] {
                Event::Admitted { .. } => {}
                Event::Token(key, _) => {
                    self.count_prompt(key);
                    self.counters.generation_tokens += 1;
                }
                Event::Finished(key, reason) => {
                    if reason == FinishReason::Pooled {
                        self.count_prompt(key);
                    }
                    self.counters.finish(reason, 1);
                }
            }
        }
    }

    /// Hands out what happened since the last delivery; returns the number of scheduler events.
    pub fn deliver(&mut self) -> usize {
        for (slot, logprobs) in self.prompt_logprobs.drain(..) {
            if let Some(live) = &self.sequences[slot as usize] {
                live.sender.send(TokenEvent::PromptLogprobs(logprobs));
            }
        }
        // Taken out so that events can be handled by `&mut self`; the buffer comes back.
        let mut events = std::mem::take(&mut self.events);
        let delivered = events.len();
        for event in events.drain(..) {
            match event {
                Event::Admitted { key, cached_tokens } => {
                    self.sequence(key).sender.send(TokenEvent::Admitted { cached_tokens });
                }
                Event::Token(key, id) => self.token(key, id),
                Event::Finished(key, reason) => self.finished(key, reason),
            }
        }
        self.events = events;
        delivered
    }

    fn sequence(&mut self, key: SeqKey) -> &mut Live {
        let live = self.sequences[key.slot as usize].as_mut();
        live.filter(|live| live.key == key).expect("events are of sequences that have not ended")
    }

    fn token(&mut self, key: SeqKey, id: TokenId) {
        let live = self.sequence(key);
        let logprobs = live.logprobs.take();
        live.sender.send(TokenEvent::Token { id, logprobs });
    }

    fn count_prompt(&mut self, key: SeqKey) {
        let live = self.sequence(key);
        if !std::mem::replace(&mut live.prompt_counted, true) {
            let prompt_tokens = u64::from(live.prompt_tokens);
            self.counters.prompt_tokens += prompt_tokens;
        }
    }

    fn finished(&mut self, key: SeqKey, reason: FinishReason) {
        let live = self.sequences[key.slot as usize].take();
        let live = live.filter(|live| live.key == key).expect("a sequence ends once");
        self.live.swap_remove(live.index);
        if let Some(&moved) = self.live.get(live.index) {
            let moved = self.sequences[moved as usize].as_mut();
            moved.expect("live slots have a sequence").index = live.index;
        }
        if let Some(pooled) = live.pooled {
            live.sender.send(TokenEvent::Pooled(pooled));
        }
        live.sender.end(TokenEvent::Finished(reason));
        self.executor.forget(key);
    }

    /// Takes a submission in.
    ///
    /// # Panics
    /// While an event is undelivered (see the module's invariant).
    pub fn apply(&mut self, submission: Submission, now: Tick) {
        assert!(self.events.is_empty(), "events are delivered before submissions are applied");
        let Submission { spec, sampling, sender } = submission;
        let prompt_tokens = spec.prompt.len() as u32;
        // The scheduler keeps the specification; the executor needs it under the key it returns.
        let (prompt, stop_tokens) = (spec.prompt.clone(), spec.stop_tokens.clone());
        let key = match self.scheduler.submit(spec, now) {
            Ok(key) => key,
            Err(error) => {
                // Submissions are checked and permits are fewer than places: this is our mistake.
                tracing::error!(%error, "a checked submission was refused");
                self.counters.finish(FinishReason::Failed, 1);
                return sender.end(TokenEvent::Finished(FinishReason::Failed));
            }
        };
        self.executor.admit(SequenceInit {
            key,
            prompt: &prompt,
            stop_tokens: &stop_tokens,
            sampling: &sampling,
        });
        let tenant = &mut self.sequences[key.slot as usize];
        assert!(tenant.is_none(), "a slot is free before it is given out again");
        *tenant = Some(Live {
            key,
            sender,
            index: self.live.len(),
            prompt_tokens,
            prompt_counted: false,
            logprobs: None,
            next_prompt_logprob: 1,
            pooled: None,
        });
        self.live.push(key.slot);
    }

    /// Waits for the launched step; returns what it took.
    ///
    /// # Errors
    /// When the device failed or the executor broke its contract.
    pub fn collect(&mut self) -> Result<DeviceTimes, EngineFault> {
        self.executor.collect(&self.plan, &mut self.output)?;
        self.sampling.clear();
        let sampling = self.plan.sequences.iter();
        let sampling = sampling.filter(|sequence| sequence.output == Some(OutputKind::Sample));
        self.sampling.extend(sampling.map(|sequence| sequence.key.slot));
        let (got, want) = (self.output.tokens.len(), self.sampling.len());
        if got != want {
            return Err(EngineFault::Output { what: "tokens", got, want });
        }
        Ok(self.output.times)
    }

    /// Takes the step's results in. Its events wait for the next delivery.
    ///
    /// # Errors
    /// When the executor broke its contract.
    ///
    /// # Panics
    /// When no step is launched.
    pub fn commit(&mut self) -> Result<(), EngineFault> {
        assert!(self.launched, "a step is launched before it is committed");
        self.keep_logprobs()?;
        self.keep_prompt_logprobs()?;
        self.keep_pooled()?;
        let before = self.events.len();
        self.scheduler.commit(&self.plan, &self.output.tokens, &mut self.events);
        self.count(before);
        self.launched = false;
        Ok(())
    }

    fn keep_logprobs(&mut self) -> Result<(), EngineFault> {
        let want = self.sampling.len();
        for (index, logprobs) in self.output.logprobs.drain(..) {
            let Some(&slot) = self.sampling.get(index as usize) else {
                let got = index as usize + 1;
                return Err(EngineFault::Output { what: "log-probabilities", got, want });
            };
            if let Some(live) = &mut self.sequences[slot as usize] {
                live.logprobs = Some(Box::new(logprobs));
            }
        }
        Ok(())
    }

    fn keep_prompt_logprobs(&mut self) -> Result<(), EngineFault> {
        let want = self.plan.sequences.len();
        let mut position = (usize::MAX, 0);
        for (index, logprobs) in self.output.prompt_logprobs.drain(..) {
            let index = index as usize;
            let Some(planned) = self.plan.sequences.get(index) else {
                let (what, got) = ("prompt log-probabilities", index + 1);
                return Err(EngineFault::Output { what, got, want });
            };
            // Entries of a sequence are in position order, the first is of the token after `start`.
            let at = if position.0 == index { position.1 + 1 } else { planned.start + 1 };
            position = (index, at);
            if let Some(live) = &mut self.sequences[planned.key.slot as usize]
                && live.next_prompt_logprob == at
            {
                live.next_prompt_logprob += 1;
                self.prompt_logprobs.push((planned.key.slot, Box::new(logprobs)));
            }
        }
        Ok(())
    }

    fn keep_pooled(&mut self) -> Result<(), EngineFault> {
        let pools = |output: Option<OutputKind>| output == Some(OutputKind::Pool);
        let want = self.plan.sequences.iter().filter(|sequence| pools(sequence.output)).count();
        let got = self.output.pooled.len();
        if (want == 0) != (got == 0) || got.checked_rem(want).is_some_and(|rest| rest != 0) {
            return Err(EngineFault::Output { what: "pooled values", got, want });
        }
        let Some(width) = got.checked_div(want) else { return Ok(()) };
        let pooling = self.plan.sequences.iter().filter(|sequence| pools(sequence.output));
        for (planned, row) in pooling.zip(self.output.pooled.chunks_exact(width)) {
            if let Some(live) = &mut self.sequences[planned.key.slot as usize] {
                live.pooled = Some(row.into());
            }
        }
        Ok(())
    }

    /// Stores the counters where readers see them; once per step.
    pub fn publish(&mut self) {
        let load = self.scheduler.load();
        let counters = &mut self.counters;
        counters.running = u64::from(load.running);
        counters.waiting = u64::from(load.waiting);
        counters.oldest_waiting = load.oldest_waiting;
        let groups = &load.groups[..load.num_groups as usize];
        counters.blocks_total = groups.iter().map(|group| u64::from(group.total)).sum();
        counters.blocks_free = groups.iter().map(|group| u64::from(group.free)).sum();
        counters.blocks_cached = groups.iter().map(|group| u64::from(group.cached)).sum();
        counters.prefix_queries = load.prefix_queries;
        counters.cached_tokens = load.cached_tokens;
        counters.preemptions = load.preemptions;
        counters.recomputed_tokens = load.recomputed_tokens;
        counters.evictions = load.evictions;
        self.stats.publish(counters);
    }

    /// Ends every stream with `Lost` and shows nobody running; for an engine that cannot go on.
    pub fn abandon(&mut self) {
        // Those whose end is known but undelivered are counted.
        let ended = self.events.iter().filter(|event| matches!(event, Event::Finished(..))).count();
        self.counters.finish(FinishReason::Failed, self.live.len().saturating_sub(ended) as u64);
        self.counters.running = 0;
        self.counters.waiting = 0;
        self.counters.oldest_waiting = None;
        self.live.clear();
        for live in self.sequences.iter_mut().filter_map(Option::take) {
            live.sender.end(TokenEvent::Lost);
        }
        self.stats.publish(&self.counters);
    }

    /// The scheduler's own check of its state; for tests.
    ///
    /// # Panics
    /// When the state is inconsistent.
    pub fn check_invariants(&self) {
        self.scheduler.check_invariants();
        for (index, &slot) in self.live.iter().enumerate() {
            let live = self.sequences[slot as usize].as_ref().expect("live slots have a sequence");
            assert_eq!((live.index, live.key.slot), (index, slot));
        }
        assert_eq!(self.live.len(), self.sequences.iter().flatten().count());
    }
}
