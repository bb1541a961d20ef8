//! A scheduler, clients and an executor whose memory is checked.
//!
//! The executor keeps, per cache group, one number per cache slot: a hash of the salt and of the
//! tokens up to the position stored there. Before it samples it reads every position that a query
//! sees through the block tables of the plan, so a wrong table, a block reused too early or a false
//! cache hit is found at once. The token it samples depends on the sequence's tokens alone.

use std::collections::{HashMap, HashSet};

use tokenmill_scheduler::{
    BlockId, Event, FAILED_TOKEN, FinishReason, OutputKind, PlannedSequence, Scheduler,
    SchedulerConfig, SeqKey, SequenceSpec, StepPlan, SubmitError, Tick, TokenId,
};

/// Tokens that the executor samples.
pub(crate) const SAMPLED: TokenId = 5;

/// What is known of an accepted sequence from the outside.
pub(crate) struct Client {
    spec: SequenceSpec,
    /// Prompt and reported tokens.
    tokens: Vec<TokenId>,
    /// Content of every position of `tokens`.
    contents: Vec<u64>,
    is_admitted: bool,
    end: Option<FinishReason>,
}

/// The scheduler under test and everything around it.
pub(crate) struct World {
    pub(crate) scheduler: Scheduler,
    pub(crate) now: u64,
    config: SchedulerConfig,
    plan: StepPlan,
    in_flight: bool,
    memory: Vec<Vec<u64>>,
    clients: HashMap<SeqKey, Client>,
    order: Vec<SeqKey>,
    /// Everything that was reported.
    pub(crate) history: Vec<Event>,
}

/// Content of the position that holds `token` after a position with content `before`.
fn content(before: u64, token: TokenId) -> u64 {
    let mixed = (before ^ u64::from(token)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 29
}

/// Tokens of a sequence after its prompt when it runs alone.
fn tokens_alone(spec: &SequenceSpec, config: &SchedulerConfig) -> Vec<TokenId> {
    let mut state = spec.prompt.iter().fold(0, |state, token| content(state, *token));
    let mut tokens = Vec::new();
    let room = config.max_model_len as usize - spec.prompt.len();
    while tokens.len() < room.min(spec.max_tokens as usize) {
        let token = sample(state);
        tokens.push(token);
        if spec.stop_tokens.contains(&token) {
            break;
        }
        state = content(state, token);
    }
    tokens
}

/// The token after a prefix whose unsalted content is `state`.
fn sample(state: u64) -> TokenId {
    (state >> 40) as TokenId % SAMPLED
}

impl World {
    pub(crate) fn new(config: SchedulerConfig) -> Self {
        let slots = |blocks: u32| vec![0; (blocks * config.block_size) as usize];
        World {
            scheduler: Scheduler::new(config.clone()).expect("the test's limits are sound"),
            now: 0,
            memory: config.groups.iter().map(|group| slots(group.num_blocks)).collect(),
            config,
            plan: StepPlan::default(),
            in_flight: false,
            clients: HashMap::new(),
            order: Vec::new(),
            history: Vec::new(),
        }
    }

    pub(crate) fn submit(&mut self, spec: SequenceSpec) {
        let waiting = self.scheduler.load().waiting;
        match self.scheduler.submit(spec.clone(), Tick(self.now)) {
            Ok(key) => {
                let tokens = spec.prompt.clone();
                let contents = Vec::new();
                let client = Client { spec, tokens, contents, is_admitted: false, end: None };
                let limit = self.config.max_sequences + self.config.max_waiting;
                assert!(key.slot < limit, "slots are dense");
                assert!(self.clients.insert(key, client).is_none(), "keys are never reused");
                self.order.push(key);
            }
            Err(error) => {
                let limit = self.config.max_waiting;
                assert_eq!(error, SubmitError::Overloaded { waiting, limit });
                assert!(waiting >= limit, "refused with room in the queue");
            }
        }
        self.scheduler.check_invariants();
    }

    /// Cancels any sequence that was ever accepted, dead ones too.
    pub(crate) fn cancel(&mut self, choice: usize) {
        let Some(&key) = self.order.get(choice % self.order.len().max(1)) else { return };
        let mut events = Vec::new();
        self.scheduler.cancel(key, &mut events);
        self.observe(events);
    }

    /// Schedules, or runs and commits what was scheduled. `failing`: the sampling sequence whose
    /// logits are not numbers. False when there was nothing to schedule.
    pub(crate) fn half_step(&mut self, failing: Option<usize>) -> bool {
        let mut events = Vec::new();
        let has_work = if self.in_flight {
            let mut sampled = self.execute();
            if let Some(token) = failing.and_then(|index| sampled.get_mut(index)) {
                *token = FAILED_TOKEN;
            }
            self.scheduler.commit(&self.plan, &sampled, &mut events);
            self.in_flight = false;
            true
        } else {
            self.in_flight = self.scheduler.schedule(Tick(self.now), &mut self.plan, &mut events);
            self.in_flight
        };
        self.observe(events);
        has_work
    }

    /// Runs until nothing is left, then checks that every client got its due.
    pub(crate) fn drain(&mut self) {
        let mut half_steps = 0;
        while self.half_step(None) {
            half_steps += 1;
            assert!(half_steps < 100_000, "the scheduler makes no progress");
        }
        assert!(self.scheduler.is_idle(), "work is left but nothing runs");
        let load = self.scheduler.load();
        for (index, group) in self.config.groups.iter().enumerate() {
            assert_eq!(
                load.groups[index].free, group.num_blocks,
                "all blocks of group {index} return"
            );
        }
        for client in self.clients.values() {
            self.check_client(client);
        }
    }

    fn check_client(&self, client: &Client) {
        let reported = &client.tokens[client.spec.prompt.len()..];
        let alone = match client.spec.output {
            OutputKind::Sample => tokens_alone(&client.spec, &self.config),
            OutputKind::Pool => Vec::new(),
        };
        let is_stop = alone.last().is_some_and(|token| client.spec.stop_tokens.contains(token));
        match client.end.expect("every accepted sequence ends") {
            FinishReason::Stop => assert!(is_stop && reported == alone),
            FinishReason::Length => assert!(!is_stop && reported == alone),
            FinishReason::Pooled => assert_eq!(client.spec.output, OutputKind::Pool),
            FinishReason::Deadline => {
                let deadline = client.spec.deadline.expect("only a deadline ends so");
                assert!(deadline.0 <= self.now && alone.starts_with(reported));
            }
            FinishReason::Cancelled | FinishReason::Failed => assert!(alone.starts_with(reported)),
        }
    }

    /// Records events, and checks their order for each sequence.
    fn observe(&mut self, events: Vec<Event>) {
        for &event in &events {
            let (Event::Admitted { key, .. } | Event::Token(key, _) | Event::Finished(key, _)) =
                event;
            let client = self.clients.get_mut(&key).expect("events are about accepted sequences");
            assert_eq!(client.end, None, "an event after the end");
            match event {
                Event::Admitted { cached_tokens, .. } => {
                    assert!(!std::mem::replace(&mut client.is_admitted, true), "admitted twice");
                    let is_whole = cached_tokens % self.config.block_size == 0;
                    assert!(is_whole && (cached_tokens as usize) < client.spec.prompt.len());
                    let may_hit = self.config.prefix_cache && !client.spec.skip_prefix_cache;
                    assert!(may_hit || cached_tokens == 0, "a hit against the rules");
                }
                Event::Token(_, token) => {
                    assert!(client.is_admitted, "a token before the admission");
                    client.tokens.push(token);
                }
                Event::Finished(_, reason) => client.end = Some(reason),
            }
        }
        self.history.extend(events);
        self.scheduler.check_invariants();
    }

    /// Runs the plan: writes, reads back everything visible, samples.
    fn execute(&mut self) -> Vec<TokenId> {
        self.check_limits();
        let mut written = HashSet::new();
        for planned in self.plan.sequences.clone() {
            self.write(&planned, &mut written);
        }
        let mut sampled = Vec::new();
        for planned in &self.plan.sequences {
            self.read(planned);
            let client = &self.clients[&planned.key];
            let is_last =
                (planned.start + planned.tokens.len() as u32) as usize == client.tokens.len();
            assert_eq!(planned.output, is_last.then_some(client.spec.output));
            if planned.output == Some(OutputKind::Sample) {
                let state = client.tokens.iter().fold(0, |state, token| content(state, *token));
                sampled.push(sample(state));
            }
        }
        assert_eq!(sampled.len(), self.plan.num_sampled());
        sampled
    }

    fn check_limits(&self) {
        let StepPlan { sequences, tokens, block_tables, .. } = &self.plan;
        assert!(sequences.len() <= self.config.max_sequences as usize);
        assert!(tokens.len() <= self.config.max_step_tokens as usize);
        assert_eq!(block_tables.len(), self.config.groups.len());
        let (mut next_token, mut next_block) = (0, 0);
        for planned in sequences {
            assert_eq!(
                (planned.tokens.start, planned.blocks.start),
                (next_token, next_block),
                "packed"
            );
            assert!(
                !planned.tokens.is_empty()
                    && planned.tokens.len() as u32 <= self.config.max_chunk_tokens
            );
            let end = planned.start + planned.tokens.len() as u32;
            assert_eq!(planned.blocks.len() as u32, end.div_ceil(self.config.block_size));
            (next_token, next_block) = (planned.tokens.end, planned.blocks.end);
        }
        assert_eq!(next_token as usize, tokens.len());
        assert!(block_tables.iter().all(|packed| packed.len() == next_block as usize));
    }

    /// The cache slot of a position of a planned sequence.
    fn slot(&self, group: usize, planned: &PlannedSequence, position: u32) -> usize {
        let index = planned.blocks.start + position / self.config.block_size;
        let block = self.plan.block_tables[group][index as usize];
        assert_ne!(block, BlockId::NONE, "position {position} of group {group} has no block");
        (block.0 * self.config.block_size + position % self.config.block_size) as usize
    }

    fn write(&mut self, planned: &PlannedSequence, written: &mut HashSet<(usize, usize)>) {
        let client =
            self.clients.get_mut(&planned.key).expect("only accepted sequences are planned");
        assert_eq!(client.end, None, "a dead sequence is planned");
        for index in client.contents.len()..client.tokens.len() {
            let before =
                index.checked_sub(1).map_or(!client.spec.cache_salt, |i| client.contents[i]);
            client.contents.push(content(before, client.tokens[index]));
        }
        let range = planned.start as usize..planned.start as usize + planned.tokens.len();
        let tokens = &self.plan.tokens[planned.tokens.start as usize..planned.tokens.end as usize];
        assert_eq!(tokens, &client.tokens[range.clone()], "query tokens");
        let contents = client.contents[range].to_vec();
        for group in 0..self.memory.len() {
            for (position, &content) in (planned.start..).zip(&contents) {
                let slot = self.slot(group, planned, position);
                assert!(written.insert((group, slot)), "two sequences write to one cache slot");
                self.memory[group][slot] = content;
            }
        }
    }

    fn read(&self, planned: &PlannedSequence) {
        let contents = &self.clients[&planned.key].contents;
        for (group, limits) in self.config.groups.iter().enumerate() {
            for query in planned.start..planned.start + planned.tokens.len() as u32 {
                let first = limits.window.map_or(0, |window| (query + 1).saturating_sub(window));
                for position in first..=query {
                    let got = self.memory[group][self.slot(group, planned, position)];
                    let want = contents[position as usize];
                    assert_eq!(got, want, "query {query} reads position {position}, group {group}");
                }
            }
        }
    }
}
