//! One step: what runs ([`Scheduler::schedule`]), and what came of it ([`Scheduler::commit`]).

use crate::ids::{Tick, TokenId};
use crate::plan::{Event, FinishReason, PlannedSequence, StepPlan};
use crate::scheduler::Scheduler;
use crate::sequence::OutputKind;

impl Scheduler {
    /// Plans the next step at time `now`. False when there is nothing to run; otherwise the plan must
    /// come back through [`Scheduler::commit`] before the next call. Deadlines that have passed end
    /// their sequences first. Reuses the buffers of `plan`.
    ///
    /// # Panics
    /// When the step before was not committed.
    pub fn schedule(&mut self, now: Tick, plan: &mut StepPlan, events: &mut Vec<Event>) -> bool {
        assert!(!self.is_in_flight, "step {} was scheduled but not committed", self.step);
        self.expire(now, events);
        plan.clear(self.groups.len());
        self.reserve(plan);
        let mut budget = self.config.max_step_tokens;
        let has_preempted = self.plan_running(&mut budget, plan);
        if !has_preempted {
            self.admit_waiting(&mut budget, plan, events);
        }
        if plan.sequences.is_empty() {
            return false;
        }
        self.step += 1;
        plan.step = self.step;
        self.is_in_flight = true;
        true
    }

    /// Applies a step that has run. `sampled`: one token per planned sequence that samples, in plan
    /// order, also for those cancelled meanwhile. A token outside the vocabulary, and
    /// [`crate::FAILED_TOKEN`] is one, ends its sequence with [`FinishReason::Failed`]; its blocks
    /// are not found again.
    ///
    /// # Panics
    /// When `plan` is not the step that was scheduled last, or `sampled` has another length.
    pub fn commit(&mut self, plan: &StepPlan, sampled: &[TokenId], events: &mut Vec<Event>) {
        assert!(self.is_in_flight && plan.step == self.step, "step {} is not in flight", plan.step);
        self.is_in_flight = false;
        let mut sampled = sampled.iter();
        for planned in &plan.sequences {
            let token = match planned.output {
                Some(OutputKind::Sample) => {
                    Some(*sampled.next().expect("`sampled` has a token per sampling sequence"))
                }
                Some(OutputKind::Pool) | None => None,
            };
            self.commit_sequence(planned, token, events);
        }
        assert_eq!(sampled.len(), 0, "`sampled` has tokens beyond the sampling sequences");
    }

    /// Gives a sequence its next `chunk` query tokens, with blocks for them. They must be free.
    pub(crate) fn plan_sequence(&mut self, slot: u32, chunk: u32, plan: &mut StepPlan) {
        let (sequence, groups, config) = self.parts(slot);
        let start = sequence.computed;
        let end = start + chunk;
        let table_len = end.div_ceil(config.block_size);
        let first_token = plan.tokens.len() as u32;
        let first_block = plan.block_tables[0].len() as u32;
        for ((group, table), packed) in
            groups.iter_mut().zip(&mut sequence.tables).zip(&mut plan.block_tables)
        {
            group.extend(table, table_len);
            packed.extend_from_slice(&table.blocks);
        }
        plan.tokens.extend_from_slice(&sequence.tokens[start as usize..end as usize]);
        sequence.in_flight = chunk;
        plan.sequences.push(PlannedSequence {
            key: sequence.key,
            start,
            tokens: first_token..first_token + chunk,
            blocks: first_block..first_block + table_len,
            output: (end == sequence.known()).then_some(sequence.output),
        });
    }

    /// Ends the sequences whose time is up.
    fn expire(&mut self, now: Tick, events: &mut Vec<Event>) {
        while let Some(((deadline, _), slot)) = self.deadlines.peek()
            && deadline <= now
        {
            self.finish(slot, FinishReason::Deadline, events);
        }
    }

    /// Grows the plan's buffers for everything that the running sequences can need, so that steps
    /// without admissions do not allocate.
    fn reserve(&self, plan: &mut StepPlan) {
        let StepPlan { sequences, tokens, block_tables, .. } = plan;
        sequences.reserve(self.running.len());
        tokens.reserve(self.running.len());
        block_tables.iter_mut().for_each(|packed| packed.reserve(self.table_room));
    }

    /// Gives every running sequence what it lacks, in order, while the budget lasts. True when one
    /// was preempted.
    fn plan_running(&mut self, budget: &mut u32, plan: &mut StepPlan) -> bool {
        let (mut index, mut has_preempted) = (0, false);
        while *budget > 0 && index < self.running.len() {
            let (_, slot) = self.running[index];
            let sequence = self.sequence(slot);
            let chunk = sequence.known() - sequence.computed;
            let chunk = chunk.min(self.config.chunk_tokens()).min(*budget);
            while index < self.running.len() && !self.has_room(slot, chunk) {
                // The victim is this sequence or one behind it, so no plan is taken back.
                self.preempt_last();
                has_preempted = true;
            }
            if index == self.running.len() {
                break;
            }
            self.plan_sequence(slot, chunk, plan);
            *budget -= chunk;
            index += 1;
        }
        has_preempted
    }

    /// Whether every group has free blocks for the next `chunk` tokens of a running sequence.
    fn has_room(&self, slot: u32, chunk: u32) -> bool {
        let sequence = self.sequence(slot);
        let table_len = (sequence.computed + chunk).div_ceil(self.config.block_size);
        let mut groups = self.groups.iter().zip(&sequence.tables);
        groups.all(|(group, table)| table_len - table.len() <= group.pool.free())
    }

    fn commit_sequence(
        &mut self,
        planned: &PlannedSequence,
        token: Option<TokenId>,
        events: &mut Vec<Event>,
    ) {
        let slot = planned.key.slot;
        let vocab_size = self.config.vocab_size;
        let sequence = self.sequence_mut(slot);
        assert_eq!(sequence.key, planned.key, "a planned sequence lives until its commit");
        sequence.computed += sequence.in_flight;
        sequence.in_flight = 0;
        let is_cancelled = sequence.is_cancelled;
        let has_failed = token.is_some_and(|token| token >= vocab_size);
        if has_failed {
            self.retract_blocks(slot);
        } else {
            self.publish_blocks(slot);
        }
        if is_cancelled {
            return self.finish(slot, FinishReason::Cancelled, events);
        }
        if has_failed {
            return self.finish(slot, FinishReason::Failed, events);
        }
        if planned.output == Some(OutputKind::Pool) {
            return self.finish(slot, FinishReason::Pooled, events);
        }
        if let Some(token) = token
            && let Some(reason) = self.append(slot, token, events)
        {
            return self.finish(slot, reason, events);
        }
        let (sequence, groups, _) = self.parts(slot);
        for (group, table) in groups.iter_mut().zip(&mut sequence.tables) {
            group.release_before(table, sequence.computed);
        }
    }

    /// Adds a sampled token; says whether it was the last.
    fn append(
        &mut self,
        slot: u32,
        token: TokenId,
        events: &mut Vec<Event>,
    ) -> Option<FinishReason> {
        self.counters.generated_tokens += 1;
        let sequence = self.sequence_mut(slot);
        sequence.tokens.push(token);
        events.push(Event::Token(sequence.key, token));
        if sequence.stop_tokens.contains(&token) {
            Some(FinishReason::Stop)
        } else if sequence.tokens.len() as u32 >= sequence.max_len {
            Some(FinishReason::Length)
        } else {
            None
        }
    }

    /// Makes the blocks that a step has filled findable.
    fn publish_blocks(&mut self, slot: u32) {
        let (sequence, groups, config) = self.parts(slot);
        let full = sequence.computed / config.block_size;
        if !config.prefix_cache || sequence.published == full {
            return;
        }
        sequence.hash_blocks(full, config);
        let filled = sequence.published as usize..full as usize;
        for (group, table) in groups.iter_mut().zip(&sequence.tables) {
            let blocks = table.blocks[filled.clone()].iter();
            for (&block, &hash) in blocks.zip(&sequence.hashes[filled.clone()]) {
                group.pool.publish(block, hash);
            }
        }
        sequence.published = full;
    }

    /// Makes the content of a sequence unfindable: whatever spoiled its logits may be in its blocks,
    /// and would spoil every later sequence with the same beginning.
    fn retract_blocks(&mut self, slot: u32) {
        let (sequence, groups, _) = self.parts(slot);
        for group in groups {
            sequence.hashes.iter().for_each(|hash| group.pool.retract(*hash));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CacheGroup, SchedulerConfig};
    use crate::harness::{Harness, config, prompt, spec};
    use crate::ids::BlockId;
    use crate::plan::FAILED_TOKEN;
    use crate::policy::Policy;
    use crate::sequence::SequenceSpec;

    #[test]
    fn a_prompt_is_computed_in_chunks_beside_decodes() {
        let limits = SchedulerConfig { max_step_tokens: 10, max_chunk_tokens: 6, ..config(16) };
        let mut harness = Harness::new(limits);
        let short = harness.submit(spec(prompt(0, 3), 9));
        harness.step(900);
        let long = harness.submit(spec(prompt(100, 15), 2));
        let mut chunks = Vec::new();
        while harness.finish_of(long).is_none() {
            harness.step(901);
            chunks.push(harness.planned());
        }
        assert_eq!(chunks[0], [(short, 3, 1), (long, 0, 6)]);
        assert_eq!(chunks[1], [(short, 4, 1), (long, 6, 6)]);
        assert_eq!(chunks[2], [(short, 5, 1), (long, 12, 3)]);
        assert_eq!(chunks[3], [(short, 6, 1), (long, 15, 1)]);
        assert_eq!(harness.tokens_of(long), [901, 901]);
    }

    #[test]
    fn the_plan_is_packed_and_asks_for_output_at_the_last_known_token() {
        let limits = SchedulerConfig { max_step_tokens: 12, ..config(16) };
        let mut harness = Harness::new(limits);
        harness.submit(spec(prompt(0, 5), 1));
        harness.submit(SequenceSpec { output: OutputKind::Pool, ..spec(prompt(10, 9), 0) });
        assert!(harness.schedule(0));
        let plan = &harness.plan;
        assert_eq!(plan.tokens, [prompt(0, 5), prompt(10, 7)].concat());
        assert_eq!(plan.block_tables, [(0..4).map(BlockId).collect::<Vec<_>>()]);
        assert_eq!(
            (plan.sequences[0].blocks.clone(), plan.sequences[1].blocks.clone()),
            (0..2, 2..4)
        );
        assert_eq!(
            (plan.sequences[0].output, plan.sequences[1].output),
            (Some(OutputKind::Sample), None)
        );
        harness.commit(&[7]);
        assert!(harness.schedule(0));
        assert_eq!(
            (harness.plan.step, harness.plan.sequences[0].output),
            (2, Some(OutputKind::Pool))
        );
        harness.commit(&[]);
        let pooled = harness.plan.sequences[0].key;
        assert_eq!(harness.finish_of(pooled), Some(FinishReason::Pooled));
        assert!(!harness.schedule(0));
        assert_eq!(harness.plan.step, 0);
    }

    #[test]
    fn sequences_end_for_the_first_reason_that_applies() {
        let stopping =
            |max_tokens| SequenceSpec { stop_tokens: vec![7, 8], ..spec(prompt(0, 3), max_tokens) };
        // Specification, token sampled in every step, reported tokens, reason.
        let cases = [
            (stopping(5), 8, vec![8], FinishReason::Stop),
            (stopping(1), 8, vec![8], FinishReason::Stop),
            (stopping(2), 9, vec![9, 9], FinishReason::Length),
            (spec(prompt(0, 13), 99), 9, vec![9; 3], FinishReason::Length),
            (spec(prompt(0, 15), u32::MAX), 9, vec![9], FinishReason::Length),
            (spec(prompt(0, 3), 5), FAILED_TOKEN, vec![], FinishReason::Failed),
            (spec(prompt(0, 3), 5), 1000, vec![], FinishReason::Failed),
        ];
        for (spec, sampled, tokens, reason) in cases {
            let mut harness = Harness::new(config(4));
            let key = harness.submit(spec);
            while harness.step(sampled) {}
            assert_eq!((harness.tokens_of(key), harness.finish_of(key)), (tokens, Some(reason)));
            assert_eq!(harness.scheduler.load().groups[0].free, 4, "{reason:?}");
        }
    }

    #[test]
    fn a_failed_sequence_leaves_nothing_in_the_prefix_cache_and_others_alone() {
        let mut harness = Harness::new(config(16));
        let (bad, good) =
            (harness.submit(spec(prompt(0, 9), 5)), harness.submit(spec(prompt(50, 9), 5)));
        harness.schedule(0);
        harness.commit(&[900, 900]);
        harness.schedule(0);
        harness.commit(&[FAILED_TOKEN, 901]);
        assert_eq!(harness.finish_of(bad), Some(FinishReason::Failed));
        assert_eq!(harness.tokens_of(good), [900, 901]);
        let (again, other) =
            (harness.submit(spec(prompt(0, 9), 1)), harness.submit(spec(prompt(50, 9), 1)));
        harness.drain();
        assert_eq!((harness.cached_of(again), harness.cached_of(other)), (0, 8));
    }

    #[test]
    fn the_newest_is_preempted_and_recomputed_without_sampling_again() {
        let mut harness = Harness::new(SchedulerConfig { prefix_cache: false, ..config(5) });
        let (old, new) =
            (harness.submit(spec(prompt(0, 8), 8)), harness.submit(spec(prompt(50, 7), 9)));
        for _ in 0..2 {
            harness.step(900);
        }
        // Both need a third block for the third step; one is left.
        harness.schedule(0);
        assert_eq!(harness.planned(), [(old, 9, 1)]);
        assert_eq!(harness.scheduler.load().preemptions, 1);
        assert_eq!(harness.scheduler.tokens(new).unwrap().len(), 9);
        harness.commit(&[900]);
        harness.drain();
        assert_eq!(harness.tokens_of(old).len(), 8);
        assert_eq!(harness.tokens_of(new).len(), 9);
        assert_eq!(harness.cached_of(new), 0);
        assert!(harness.scheduler.load().recomputed_tokens >= 8);
    }

    #[test]
    fn priorities_choose_who_starts_and_who_is_preempted() {
        let limits = SchedulerConfig { policy: Policy::Priority, max_sequences: 2, ..config(4) };
        let mut harness = Harness::new(SchedulerConfig { prefix_cache: false, ..limits });
        let with = |priority, first| SequenceSpec { priority, ..spec(prompt(first, 7), 9) };
        let [low, high, middle] =
            [(5, 0), (-5, 100), (0, 200)].map(|(p, f)| harness.submit(with(p, f)));
        harness.step(900);
        assert_eq!(harness.planned().iter().map(|p| p.0).collect::<Vec<_>>(), [high, middle]);
        harness.step(900);
        harness.step(900);
        assert_eq!(harness.planned(), [(high, 8, 1)], "the larger priority value gave way");
        harness.drain();
        let order: Vec<_> = harness
            .events
            .iter()
            .filter_map(|event| match event {
                Event::Finished(key, _) => Some(*key),
                _ => None,
            })
            .collect();
        assert_eq!(order, [high, middle, low]);
    }

    #[test]
    fn blocks_that_left_the_window_come_back_and_leave_gaps() {
        let groups = vec![
            CacheGroup { num_blocks: 8, window: None },
            CacheGroup { num_blocks: 4, window: Some(5) },
        ];
        let limits = SchedulerConfig { groups, max_step_tokens: 4, max_model_len: 32, ..config(8) };
        let mut harness = Harness::new(limits);
        let key = harness.submit(spec(prompt(0, 20), 12));
        let mut released = Vec::new();
        while harness.schedule(0) {
            let tables = &harness.plan.block_tables;
            assert_eq!(tables[0].len(), tables[1].len());
            assert!(!tables[0].contains(&BlockId::NONE));
            released.push(tables[1].iter().filter(|block| **block == BlockId::NONE).count());
            harness.commit(&vec![900; harness.plan.num_sampled()]);
        }
        // Chunks of 4 up to position 20, then single tokens; position p sees p - 4 and later.
        assert_eq!(released, [0, 0, 1, 2, 3, 4, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6]);
        assert_eq!(harness.finish_of(key), Some(FinishReason::Length));
    }

    #[test]
    fn deadlines_end_waiting_and_running_sequences() {
        let mut harness = Harness::new(SchedulerConfig { max_sequences: 1, ..config(8) });
        let until = |deadline, first| SequenceSpec {
            deadline: Some(Tick(deadline)),
            ..spec(prompt(first, 4), 20)
        };
        let [running, waiting, late] =
            [(20, 0), (10, 50), (30, 100)].map(|(d, f)| harness.submit(until(d, f)));
        for (now, ended) in
            [(9, vec![]), (10, vec![waiting]), (19, vec![waiting]), (20, vec![waiting, running])]
        {
            assert!(harness.schedule(now));
            harness.commit(&[900]);
            let all = [running, waiting, late].map(|key| harness.finish_of(key));
            let count =
                all.iter().flatten().filter(|reason| **reason == FinishReason::Deadline).count();
            assert_eq!(count, ended.len(), "at {now}");
            assert!(ended.iter().all(|key| harness.finish_of(*key).is_some()));
        }
        assert!(!harness.schedule(u64::MAX));
        assert_eq!(harness.finish_of(late), Some(FinishReason::Deadline));
        assert_eq!(harness.scheduler.load().groups[0].free, 8);
    }

    #[test]
    #[should_panic(expected = "scheduled but not committed")]
    fn a_step_is_committed_before_the_next() {
        let mut harness = Harness::new(config(8));
        harness.submit(spec(prompt(0, 4), 4));
        harness.schedule(0);
        harness.schedule(0);
    }

    #[test]
    #[should_panic(expected = "beyond the sampling sequences")]
    fn surplus_tokens_are_a_bug_of_the_executor() {
        let mut harness = Harness::new(config(8));
        harness.submit(spec(prompt(0, 4), 4));
        harness.schedule(0);
        harness.commit(&[1, 2]);
    }
}
