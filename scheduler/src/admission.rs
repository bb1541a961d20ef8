//! Which waiting sequences start, and which of their blocks are cached.
//!
//! A sequence starts when its whole prompt, less what is cached, fits into the free blocks that are
//! not promised to prompts still being computed: a prompt is computed in chunks, and one that starts
//! without room for its last chunk would push others out. A sequence that was preempted counts all
//! its tokens as prompt.

use crate::group::Table;
use crate::ids::BlockId;
use crate::plan::{Event, StepPlan};
use crate::scheduler::Scheduler;

impl Scheduler {
    /// Starts waiting sequences in order until one does not fit.
    pub(crate) fn admit_waiting(
        &mut self,
        budget: &mut u32,
        plan: &mut StepPlan,
        events: &mut Vec<Event>,
    ) {
        while *budget > 0 && self.running.len() < self.config.max_sequences as usize {
            let Some((_, slot)) = self.waiting.peek() else { break };
            let hit_blocks = self.find_hit(slot);
            if !self.fits_whole(slot, hit_blocks) {
                break;
            }
            self.start_running(slot);
            self.take_hit(slot, hit_blocks);
            self.record_admission(slot, events);
            let sequence = self.sequence(slot);
            let chunk = sequence.known() - sequence.computed;
            let chunk = chunk.min(self.config.chunk_tokens()).min(*budget);
            self.plan_sequence(slot, chunk, plan);
            *budget -= chunk;
        }
    }

    /// Leading blocks of a sequence that are cached in every group; leaves the blocks in `hits`. At
    /// least one token stays to be computed, since something has to be sampled from.
    fn find_hit(&mut self, slot: u32) -> u32 {
        let Scheduler { hits, groups, slots, config, .. } = self;
        hits.iter_mut().for_each(Vec::clear);
        let sequence = slots[slot as usize].sequence.as_ref().expect("waiting slots have a tenant");
        if !config.prefix_cache || sequence.skip_prefix_cache {
            return 0;
        }
        let hashes = &sequence.hashes[..];
        let longest = (sequence.known() - 1) / config.block_size;
        let mut length = longest.min(hashes.len() as u32);
        for (group, found) in groups.iter().zip(hits.iter_mut()) {
            if !group.is_windowed() {
                let cached = hashes[..length as usize].iter();
                found.extend(cached.map_while(|hash| group.pool.lookup(*hash)));
                length = found.len() as u32;
            }
        }
        loop {
            let before = length;
            for group in groups.iter().filter(|group| group.is_windowed()) {
                length = group.shorten_hit(hashes, length);
            }
            if length == before {
                break;
            }
        }
        for (group, found) in groups.iter().zip(hits.iter_mut()) {
            let first = group.first_visible_block(length * config.block_size);
            let searched = if group.is_windowed() { first } else { length };
            found.resize(searched as usize, BlockId::NONE);
            let visible = &hashes[found.len()..length as usize];
            found.extend(visible.iter().map(|hash| {
                group.pool.lookup(*hash).expect("the search ended where all of these are cached")
            }));
        }
        length
    }

    /// Whether every group has room for all known tokens of a sequence after the hit in `hits`.
    fn fits_whole(&self, slot: u32, hit_blocks: u32) -> bool {
        let known = self.sequence(slot).known();
        let table_len = known.div_ceil(self.config.block_size);
        let groups = self.groups.iter().zip(&self.config.groups).zip(&self.hits);
        groups.into_iter().all(|((group, limits), found)| {
            let held = found.iter().filter(|block| **block != BlockId::NONE);
            let (mut num_held, mut num_idle) = (0, 0);
            for &block in held {
                num_held += 1;
                num_idle += u32::from(group.pool.is_free(block));
            }
            let peak = self.config.peak_blocks(limits, known);
            let new = peak.saturating_sub(num_held).min(table_len - hit_blocks);
            let available = group.pool.free().saturating_sub(group.reserved);
            new + num_idle <= available
        })
    }

    /// Gives the blocks in `hits` to a sequence and reserves room for the rest of its tokens.
    fn take_hit(&mut self, slot: u32, hit_blocks: u32) {
        let Scheduler { hits, groups, slots, config, .. } = self;
        let sequence = slots[slot as usize].sequence.as_mut().expect("running slots have a tenant");
        let known = sequence.known();
        let limits = config.groups.iter();
        for (((group, limits), table), found) in
            groups.iter_mut().zip(limits).zip(&mut sequence.tables).zip(hits)
        {
            debug_assert!(table.blocks.is_empty(), "waiting sequences hold no blocks");
            for &block in found.iter().filter(|block| **block != BlockId::NONE) {
                group.pool.acquire(block);
            }
            table.blocks.extend_from_slice(found);
            let released = group.first_visible_block(hit_blocks * config.block_size);
            let peak = config.peak_blocks(limits, known);
            let prefill_len = known.div_ceil(config.block_size);
            let blocks = std::mem::take(&mut table.blocks);
            *table = Table { blocks, released, peak, prefill_len, reserved: table.reserved };
            group.settle(table);
        }
        sequence.computed = hit_blocks * config.block_size;
        sequence.published = hit_blocks;
    }

    fn record_admission(&mut self, slot: u32, events: &mut Vec<Event>) {
        let uses_cache = self.config.prefix_cache;
        let sequence = self.sequence_mut(slot);
        let cached_tokens = sequence.computed;
        if sequence.was_admitted {
            let again = sequence.lost.saturating_sub(cached_tokens);
            self.counters.recomputed_tokens += u64::from(again);
            return;
        }
        sequence.was_admitted = true;
        events.push(Event::Admitted { key: sequence.key, cached_tokens });
        let prompt_tokens = u64::from(sequence.prompt_len);
        let is_query = uses_cache && !sequence.skip_prefix_cache;
        self.counters.prompt_tokens += prompt_tokens;
        self.counters.cached_tokens += u64::from(cached_tokens);
        self.counters.prefix_queries += if is_query { prompt_tokens } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{CacheGroup, SchedulerConfig};
    use crate::harness::{Harness, config, prompt, spec};
    use crate::sequence::SequenceSpec;

    /// Runs the first prompt to its end, then the second; tokens of the second that were cached.
    fn cached_after(limits: SchedulerConfig, first: SequenceSpec, second: SequenceSpec) -> u32 {
        let mut harness = Harness::new(limits);
        harness.submit(first);
        harness.drain();
        let key = harness.submit(second);
        harness.drain();
        harness.cached_of(key)
    }

    #[test]
    fn whole_blocks_are_found_again_but_one_token_is_computed() {
        let salted = |salt, len| SequenceSpec { cache_salt: salt, ..spec(prompt(0, len), 1) };
        let whole = SequenceSpec { skip_prefix_cache: true, ..spec(prompt(0, 12), 1) };
        let off = SchedulerConfig { prefix_cache: false, ..config(16) };
        let cases = [
            (config(16), salted(0, 12), salted(0, 12), 8),
            (config(16), salted(0, 12), salted(0, 13), 12),
            (config(16), salted(0, 11), salted(0, 16), 8),
            (config(16), salted(0, 12), salted(1, 12), 0),
            (config(16), salted(0, 12), whole.clone(), 0),
            (config(16), whole, salted(0, 12), 8),
            (config(16), salted(0, 3), salted(0, 16), 0),
            (off, salted(0, 12), salted(0, 12), 0),
        ];
        for (index, (limits, first, second, want)) in cases.into_iter().enumerate() {
            assert_eq!(cached_after(limits, first, second), want, "case {index}");
        }
    }

    #[test]
    fn completions_are_found_again_too() {
        let completed = [prompt(0, 6), vec![900; 6]].concat();
        let got = cached_after(config(16), spec(prompt(0, 6), 7), spec(completed, 1));
        assert_eq!(got, 8, "12 tokens are cached, of which whole blocks of 12 - 1 count");
    }

    #[test]
    fn a_hit_needs_every_group_but_windows_only_what_they_still_show() {
        let with = |window, num_blocks| SchedulerConfig {
            groups: vec![
                CacheGroup { num_blocks: 16, window: None },
                CacheGroup { num_blocks, window: Some(window) },
            ],
            max_step_tokens: 4,
            ..config(16)
        };
        // The window's pool keeps the last blocks of the first prompt only.
        for (window, num_blocks, second, want) in [
            (5, 3, prompt(0, 33), 32),
            (5, 3, prompt(0, 25), 24),
            (5, 3, prompt(0, 13), 0),
            (5, 16, prompt(0, 13), 12),
        ] {
            let got =
                cached_after(with(window, num_blocks), spec(prompt(0, 32), 1), spec(second, 1));
            assert_eq!(got, want, "window {window}, {num_blocks} blocks");
        }
    }

    #[test]
    fn running_sequences_share_blocks_after_their_commit_only() {
        let mut harness = Harness::new(config(16));
        let [first, twin] = [0, 0]
            .map(|salt| harness.submit(SequenceSpec { cache_salt: salt, ..spec(prompt(0, 9), 3) }));
        harness.step(900);
        let third = harness.submit(spec(prompt(0, 9), 3));
        harness.step(900);
        assert_eq!([first, twin, third].map(|key| harness.cached_of(key)), [0, 0, 8]);
        // Three and three blocks, and one beside the two shared ones.
        assert_eq!(harness.scheduler.load().groups[0].free, 16 - 7);
    }

    #[test]
    fn a_prompt_starts_only_with_room_for_its_last_chunk() {
        let limits = SchedulerConfig { max_chunk_tokens: 4, ..config(8) };
        let mut harness = Harness::new(limits);
        let long = harness.submit(spec(prompt(0, 24), 1));
        let second = harness.submit(spec(prompt(100, 12), 1));
        harness.step(900);
        assert_eq!(harness.planned(), [(long, 0, 4)], "6 of 8 blocks are promised, 3 are needed");
        let mut waited = 1;
        while harness.planned().iter().all(|planned| planned.0 != second) {
            harness.step(900);
            waited += 1;
        }
        assert_eq!((waited, harness.scheduler.load().preemptions), (7, 0));
    }

    #[test]
    fn a_long_prompt_needs_only_its_window() {
        let groups = vec![CacheGroup { num_blocks: 8, window: Some(4) }];
        let limits =
            SchedulerConfig { groups, max_chunk_tokens: 4, max_model_len: 400, ..config(8) };
        let mut harness = Harness::new(limits);
        for first in [0, 100] {
            harness.submit(spec(prompt(first, 90), 1));
        }
        harness.step(900);
        assert_eq!(harness.planned().len(), 2, "three blocks each, not 23");
        harness.drain();
        assert_eq!(harness.scheduler.load().preemptions, 0);
    }
}
