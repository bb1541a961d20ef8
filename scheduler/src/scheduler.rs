//! The scheduler: which sequences exist, and how they come and go.
//!
//! [`Scheduler::schedule`] and [`Scheduler::commit`] are in `step.rs`, admission in `admission.rs`.
//! Between the two calls the step is on a device: nothing that happens then changes its blocks.

use crate::config::{ConfigError, SchedulerConfig};
use crate::group::Group;
use crate::ids::{BlockId, SeqKey, Tick, TokenId};
use crate::load::{Counters, GroupLoad, Load};
use crate::plan::{Event, FinishReason};
use crate::policy::Rank;
use crate::sequence::{Sequence, SequenceSpec, SubmitError};
use crate::slot_heap::SlotHeap;

/// A place for a sequence, reused when its tenant is gone.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) generation: u32,
    pub(crate) sequence: Option<Sequence>,
}

/// Decides which tokens of which sequences run in a step, and in which blocks.
///
/// One token budget per step, no phases: a step gives every running sequence, in order, what it
/// lacks, then admits waiting ones while there is budget and room for their whole prompts. When
/// running sequences outgrow the cache the last in order gives its blocks back and waits to be
/// recomputed; its tokens are kept.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) config: SchedulerConfig,
    pub(crate) groups: Vec<Group>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) free_slots: Vec<u32>,
    /// By rank, ascending; the last one is the next victim.
    pub(crate) running: Vec<(Rank, u32)>,
    pub(crate) waiting: SlotHeap<Rank>,
    /// The waiting sequences again, by arrival.
    pub(crate) ages: SlotHeap<u64>,
    /// Sequences with a deadline, by time and arrival.
    pub(crate) deadlines: SlotHeap<(Tick, u64)>,
    /// Scratch of admission: cached blocks of the sequence looked at, per group.
    pub(crate) hits: Vec<Vec<BlockId>>,
    /// Sum of the running sequences' `table_room`.
    pub(crate) table_room: usize,
    pub(crate) arrivals: u64,
    pub(crate) step: u64,
    /// A step was planned and not committed.
    pub(crate) is_in_flight: bool,
    pub(crate) counters: Counters,
}

impl Scheduler {
    /// An empty scheduler; the pools are allocated here.
    ///
    /// # Errors
    /// When the limits cannot work, see [`SchedulerConfig::validate`].
    pub fn new(config: SchedulerConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        let groups: Vec<Group> =
            config.groups.iter().map(|group| Group::new(group, config.block_size)).collect();
        Ok(Scheduler {
            hits: groups.iter().map(|_| Vec::new()).collect(),
            groups,
            config,
            slots: Vec::new(),
            free_slots: Vec::new(),
            running: Vec::new(),
            waiting: SlotHeap::new(),
            ages: SlotHeap::new(),
            deadlines: SlotHeap::new(),
            table_room: 0,
            arrivals: 0,
            step: 0,
            is_in_flight: false,
            counters: Counters::default(),
        })
    }

    /// What the scheduler was told.
    pub fn config(&self) -> &SchedulerConfig {
        &self.config
    }

    /// Accepts a sequence into the waiting queue. O(prompt): checks and hashes its tokens, and
    /// reserves the buffers of its first steps.
    ///
    /// # Errors
    /// When the sequence can never run, or the queue is full.
    pub fn submit(&mut self, spec: SequenceSpec, now: Tick) -> Result<SeqKey, SubmitError> {
        self.config.check(&spec)?;
        let (waiting, limit) = (self.waiting.len() as u32, self.config.max_waiting);
        if waiting >= limit {
            return Err(SubmitError::Overloaded { waiting, limit });
        }
        let slot = self.free_slots.pop().unwrap_or_else(|| self.add_slot());
        let key = SeqKey { slot, generation: self.slots[slot as usize].generation };
        let rank = self.config.policy.rank(spec.priority, self.arrivals);
        self.arrivals += 1;
        self.waiting.push(slot, rank);
        self.ages.push(slot, rank.arrival());
        if let Some(deadline) = spec.deadline {
            self.deadlines.push(slot, (deadline, rank.arrival()));
        }
        let sequence = Sequence::new(spec, (key, rank, now), &self.config);
        for hits in &mut self.hits {
            hits.reserve(sequence.hashes.len());
        }
        self.slots[slot as usize].sequence = Some(sequence);
        Ok(key)
    }

    /// Ends a sequence with [`FinishReason::Cancelled`]: now, or at `commit` when it is in the step
    /// on the device (its blocks are in use until then). Nothing happens for a key that is dead.
    pub fn cancel(&mut self, key: SeqKey, events: &mut Vec<Event>) {
        if !self.is_live(key) {
            return;
        }
        let sequence = self.sequence_mut(key.slot);
        if sequence.in_flight > 0 {
            sequence.is_cancelled = true;
        } else {
            self.finish(key.slot, FinishReason::Cancelled, events);
        }
    }

    /// Prompt and completion of a live sequence.
    pub fn tokens(&self, key: SeqKey) -> Option<&[TokenId]> {
        self.is_live(key).then(|| self.sequence(key.slot).tokens.as_slice())
    }

    /// Whether no sequence is waiting or running.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Queue lengths, free blocks and counters. O(groups), no allocation.
    pub fn load(&self) -> Load {
        let counters = &self.counters;
        let mut load = Load {
            waiting: self.waiting.len() as u32,
            running: self.running.len() as u32,
            num_groups: self.groups.len() as u32,
            oldest_waiting: self.ages.peek().map(|(_, slot)| self.sequence(slot).submitted),
            preemptions: counters.preemptions,
            prompt_tokens: counters.prompt_tokens,
            cached_tokens: counters.cached_tokens,
            prefix_queries: counters.prefix_queries,
            generated_tokens: counters.generated_tokens,
            recomputed_tokens: counters.recomputed_tokens,
            ..Load::default()
        };
        for (entry, Group { pool, .. }) in load.groups.iter_mut().zip(&self.groups) {
            *entry = GroupLoad { total: pool.total(), free: pool.free(), cached: pool.cached() };
            load.evictions += pool.evictions();
        }
        load
    }

    pub(crate) fn sequence(&self, slot: u32) -> &Sequence {
        self.slots[slot as usize].sequence.as_ref().expect("listed slots have a tenant")
    }

    pub(crate) fn sequence_mut(&mut self, slot: u32) -> &mut Sequence {
        self.slots[slot as usize].sequence.as_mut().expect("listed slots have a tenant")
    }

    /// A sequence and the groups that hold its blocks.
    pub(crate) fn parts(&mut self, slot: u32) -> (&mut Sequence, &mut [Group], &SchedulerConfig) {
        let sequence = self.slots[slot as usize].sequence.as_mut();
        (sequence.expect("listed slots have a tenant"), &mut self.groups, &self.config)
    }

    /// Puts a waiting sequence into the running list, at the place of its rank.
    pub(crate) fn start_running(&mut self, slot: u32) {
        self.waiting.remove(slot);
        self.ages.remove(slot);
        let sequence = self.sequence_mut(slot);
        sequence.is_running = true;
        let (rank, table_room) = (sequence.rank, sequence.table_room);
        self.table_room += table_room;
        let index = self.running.partition_point(|(other, _)| *other < rank);
        self.running.insert(index, (rank, slot));
    }

    /// Takes the last running sequence's blocks back. It waits, at the place of its rank, to be
    /// recomputed; under both policies that is before everything that ranks behind it.
    pub(crate) fn preempt_last(&mut self) -> u32 {
        let (rank, slot) = self.running.pop().expect("the caller saw a running sequence");
        self.release_blocks(slot);
        let sequence = self.sequence_mut(slot);
        sequence.is_running = false;
        sequence.lost = sequence.lost.max(sequence.computed);
        sequence.computed = 0;
        sequence.published = 0;
        let table_room = sequence.table_room;
        self.table_room -= table_room;
        self.waiting.push(slot, rank);
        self.ages.push(slot, rank.arrival());
        self.counters.preemptions += 1;
        slot
    }

    /// Ends a sequence: its blocks return, its key dies, its slot is free.
    pub(crate) fn finish(&mut self, slot: u32, reason: FinishReason, events: &mut Vec<Event>) {
        self.release_blocks(slot);
        let Slot { generation, sequence } = &mut self.slots[slot as usize];
        let sequence = sequence.take().expect("only live sequences end");
        *generation = generation.wrapping_add(1);
        if sequence.is_running {
            self.table_room -= sequence.table_room;
            let index = self.running.binary_search(&(sequence.rank, slot));
            self.running.remove(index.expect("running sequences are listed"));
        } else {
            self.waiting.remove(slot);
            self.ages.remove(slot);
        }
        self.deadlines.remove(slot);
        self.free_slots.push(slot);
        events.push(Event::Finished(sequence.key, reason));
    }

    fn is_live(&self, key: SeqKey) -> bool {
        self.slots
            .get(key.slot as usize)
            .is_some_and(|slot| slot.generation == key.generation && slot.sequence.is_some())
    }

    fn release_blocks(&mut self, slot: u32) {
        let (sequence, groups, _) = self.parts(slot);
        for (group, table) in groups.iter_mut().zip(&mut sequence.tables) {
            group.release_all(table);
        }
    }

    /// A new slot, and room for it in every list, so that steps need not allocate.
    fn add_slot(&mut self) -> u32 {
        let slot = self.slots.len() as u32;
        self.slots.push(Slot { generation: 0, sequence: None });
        self.waiting.add_slot();
        self.ages.add_slot();
        self.deadlines.add_slot();
        self.free_slots.reserve(self.slots.len() - self.free_slots.len());
        let running = self.slots.len().min(self.config.max_sequences as usize);
        self.running.reserve(running.saturating_sub(self.running.len()));
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::{Harness, config, prompt, spec};
    use crate::policy::Policy;

    #[test]
    fn the_queue_refuses_when_it_is_full() {
        let mut harness = Harness::new(SchedulerConfig { max_waiting: 2, ..config(8) });
        for first in [0, 10] {
            harness.submit(spec(prompt(first, 4), 1));
        }
        let refused = harness.scheduler.submit(spec(prompt(20, 4), 1), Tick(0));
        assert_eq!(refused, Err(SubmitError::Overloaded { waiting: 2, limit: 2 }));
        harness.step(900);
        harness.submit(spec(prompt(20, 4), 1));
    }

    #[test]
    fn cancelling_a_planned_sequence_waits_for_the_commit() {
        let mut harness = Harness::new(config(8));
        let key = harness.submit(spec(prompt(0, 9), 5));
        harness.schedule(0);
        harness.cancel(key);
        harness.cancel(key);
        assert_eq!((harness.finish_of(key), harness.scheduler.load().groups[0].free), (None, 5));
        let other = harness.submit(spec(prompt(50, 4), 1));
        assert_ne!(other.slot, key.slot, "the slot is taken until the commit");
        harness.commit(&[900]);
        assert_eq!(harness.finish_of(key), Some(FinishReason::Cancelled));
        assert_eq!((harness.tokens_of(key), harness.scheduler.load().groups[0].free), (vec![], 8));
    }

    #[test]
    fn dead_keys_do_nothing() {
        let mut harness = Harness::new(config(8));
        let first = harness.submit(spec(prompt(0, 4), 1));
        harness.cancel(first);
        let second = harness.submit(spec(prompt(0, 4), 1));
        assert_eq!((second.slot, second.generation), (first.slot, first.generation + 1));
        harness.cancel(first);
        harness.cancel(SeqKey { slot: 99, generation: 0 });
        assert_eq!(harness.events, [Event::Finished(first, FinishReason::Cancelled)]);
        assert_eq!(harness.scheduler.tokens(first), None);
        assert_eq!(harness.scheduler.tokens(second), Some(&prompt(0, 4)[..]));
    }

    #[test]
    fn a_huge_completion_limit_reserves_little() {
        let limits = SchedulerConfig { max_model_len: 1 << 20, ..config(1 << 18) };
        let mut harness = Harness::new(limits);
        let key = harness.submit(spec(prompt(0, 4), u32::MAX));
        let sequence = harness.scheduler.sequence(key.slot);
        assert!(sequence.tokens.capacity() <= 2048 && sequence.tables[0].blocks.capacity() <= 512);
    }

    #[test]
    fn the_oldest_waiting_is_known_whatever_the_policy() {
        for policy in [Policy::FirstCome, Policy::Priority] {
            let mut harness =
                Harness::new(SchedulerConfig { policy, max_sequences: 1, ..config(8) });
            assert_eq!(harness.scheduler.load().oldest_waiting, None);
            let keys: Vec<SeqKey> = [(30, 0), (20, 1), (10, -1)]
                .map(|(now, priority)| {
                    let spec = SequenceSpec { priority, ..spec(prompt(0, 4), 3) };
                    harness.scheduler.submit(spec, Tick(now)).unwrap()
                })
                .into();
            assert_eq!(harness.scheduler.load().oldest_waiting, Some(Tick(30)), "by arrival");
            harness.cancel(keys[0]);
            assert_eq!(harness.scheduler.load().oldest_waiting, Some(Tick(20)), "{policy:?}");
        }
    }

    #[test]
    fn load_counts_what_happened() {
        let mut harness = Harness::new(config(8));
        for _ in 0..2 {
            harness.submit(spec(prompt(0, 9), 2));
            harness.drain();
        }
        let load = harness.scheduler.load();
        assert_eq!((load.prompt_tokens, load.prefix_queries, load.cached_tokens), (18, 18, 8));
        assert_eq!((load.generated_tokens, load.preemptions, load.evictions), (4, 0, 0));
        assert_eq!((load.waiting, load.running, load.num_groups), (0, 0, 1));
        assert_eq!(load.groups[0], GroupLoad { total: 8, free: 8, cached: 2 });
        assert_eq!(load.groups[1], GroupLoad::default());
    }
}
