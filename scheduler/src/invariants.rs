//! What must hold between any two calls. Always compiled: tests and simulation call it after every
//! operation.

use crate::ids::BlockId;
use crate::scheduler::Scheduler;
use crate::sequence::Sequence;

impl Scheduler {
    /// Walks everything, in O(slots + blocks).
    ///
    /// # Panics
    /// When lists, counts, tables and pools disagree; the message names what.
    pub fn check_invariants(&self) {
        self.check_lists();
        let live = self.slots.iter().filter_map(|slot| slot.sequence.as_ref());
        live.for_each(|sequence| self.check_sequence(sequence));
        for index in 0..self.groups.len() {
            self.check_group(index);
        }
    }

    /// Every slot is free, waiting or running, in the lists that say so.
    fn check_lists(&self) {
        let (max_sequences, max_waiting) = (self.config.max_sequences, self.config.max_waiting);
        assert!(self.running.len() <= max_sequences as usize, "running sequences");
        assert!(self.slots.len() <= (max_sequences + max_waiting) as usize, "slots are dense");
        let listed = self.running.len() + self.waiting.len() + self.free_slots.len();
        assert_eq!(listed, self.slots.len(), "every slot is in one list");
        assert_eq!(self.waiting.len(), self.ages.len(), "ages of waiting sequences");
        self.waiting.check();
        self.ages.check();
        self.deadlines.check();
        assert!(self.running.is_sorted_by(|a, b| a.0 < b.0), "running sequences are in order");
        let mut table_room = 0;
        for &(rank, slot) in &self.running {
            let sequence = self.sequence(slot);
            assert!(sequence.is_running && sequence.rank == rank, "slot {slot} runs");
            table_room += sequence.table_room;
        }
        assert_eq!(self.table_room, table_room, "table entries reserved");
        for &slot in &self.free_slots {
            assert!(self.slots[slot as usize].sequence.is_none(), "slot {slot} is free");
            assert!(!self.deadlines.contains(slot), "slot {slot} has no deadline");
        }
    }

    fn check_sequence(&self, sequence: &Sequence) {
        let slot = sequence.key.slot;
        assert_eq!(self.slots[slot as usize].generation, sequence.key.generation, "slot {slot}");
        assert_eq!(self.waiting.contains(slot), !sequence.is_running, "slot {slot} waits");
        assert_eq!(self.ages.contains(slot), !sequence.is_running, "slot {slot} ages");
        let known = sequence.known();
        assert!(
            known < sequence.max_len || sequence.max_len == sequence.prompt_len,
            "slot {slot} ended"
        );
        assert!(sequence.computed < known, "slot {slot} has something to compute");
        assert!(
            sequence.computed + sequence.in_flight <= known,
            "slot {slot} computes known tokens"
        );
        assert_eq!(sequence.placeholders, 0, "slot {slot} at depth 1");
        if !self.is_in_flight {
            assert_eq!(sequence.in_flight, 0, "slot {slot} is not on the device");
            assert!(!sequence.is_cancelled, "slot {slot} outlived its cancellation");
        }
        if self.config.prefix_cache && sequence.is_running {
            let full = sequence.computed / self.config.block_size;
            assert_eq!(sequence.published, full, "published blocks of slot {slot}");
        }
        let end = sequence.computed + sequence.in_flight;
        let table_len = end.div_ceil(self.config.block_size);
        for ((table, group), limits) in
            sequence.tables.iter().zip(&self.groups).zip(&self.config.groups)
        {
            let want = if sequence.is_running { table_len } else { 0 };
            assert_eq!(table.len(), want, "table length of slot {slot}");
            assert_eq!(table.reserved, table.outstanding(), "reservation of slot {slot}");
            let first = group.first_visible_block(sequence.computed).min(table.len());
            assert_eq!(table.released, first, "released blocks of slot {slot}");
            let is_gap = |block: &BlockId| *block == BlockId::NONE;
            assert!(table.blocks[..first as usize].iter().all(is_gap), "released, slot {slot}");
            assert!(!table.blocks[first as usize..].iter().any(is_gap), "held, slot {slot}");
            let peak = self.config.peak_blocks(limits, end);
            assert!(table.held() <= peak, "slot {slot} holds {} of {peak} blocks", table.held());
        }
    }

    /// The pool's counts are those of the tables.
    fn check_group(&self, index: usize) {
        let group = &self.groups[index];
        let (mut refs, mut reserved) = (vec![0; group.pool.total() as usize], 0);
        for sequence in self.slots.iter().filter_map(|slot| slot.sequence.as_ref()) {
            let table = &sequence.tables[index];
            reserved += table.reserved;
            for block in &table.blocks[table.released as usize..] {
                refs[block.0 as usize] += 1;
            }
        }
        assert_eq!(group.reserved, reserved, "reserved blocks of group {index}");
        group.pool.check(&refs);
    }
}
