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
    /// order, also for those cancelled meanwhile. A token outside the vocabulary, [`crate::FAILED_TOKEN`] among
    /// them, ends its sequence with [`FinishReason::Failed`], and its blocks are not found again.
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
