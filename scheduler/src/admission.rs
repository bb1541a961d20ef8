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
