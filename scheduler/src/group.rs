//! One cache group: its pool, its window, and the room promised to prompts that are being computed.

use crate::block_pool::BlockPool;
use crate::config::CacheGroup;
use crate::hash::BlockHash;
use crate::ids::BlockId;

/// A sequence's blocks in one group.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// In order; the first `released` are [`BlockId::NONE`].
    pub(crate) blocks: Vec<BlockId>,
    /// Blocks that left the window.
    pub(crate) released: u32,
    /// Blocks held at most at once while the known tokens of the last admission are computed.
    pub(crate) peak: u32,
    /// Table length once those tokens are computed.
    pub(crate) prefill_len: u32,
    /// Free blocks that admission leaves for this table.
    pub(crate) reserved: u32,
}

impl Table {
    /// Entries, released ones included.
    pub(crate) fn len(&self) -> u32 {
        self.blocks.len() as u32
    }

    /// Blocks that belong to the sequence now.
    pub(crate) fn held(&self) -> u32 {
        self.len() - self.released
    }

    /// Blocks still to be allocated, at most, until the prompt is computed.
    pub(crate) fn outstanding(&self) -> u32 {
        self.peak.saturating_sub(self.held()).min(self.prefill_len.saturating_sub(self.len()))
    }
}

/// Blocks of one cache group and the rules of its window.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) pool: BlockPool,
    /// Sum of [`Table::reserved`].
    pub(crate) reserved: u32,
    window: Option<u32>,
    block_size: u32,
}

impl Group {
    /// All blocks free.
    pub(crate) fn new(group: &CacheGroup, block_size: u32) -> Self {
        let pool = BlockPool::new(group.num_blocks);
        Group { pool, reserved: 0, window: group.window, block_size }
    }

    /// Whether old blocks leave the window.
    pub(crate) fn is_windowed(&self) -> bool {
        self.window.is_some()
    }

    /// The first block that a query at `position` reads.
    pub(crate) fn first_visible_block(&self, position: u32) -> u32 {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window) / self.block_size)
    }

    /// Extends a table to `len` entries. The caller has checked that the blocks are there.
    pub(crate) fn extend(&mut self, table: &mut Table, len: u32) {
        while table.len() < len {
            table.blocks.push(self.pool.allocate());
        }
        self.settle(table);
    }

    /// Gives back the blocks that no query at or after `position` reads.
    pub(crate) fn release_before(&mut self, table: &mut Table, position: u32) {
        if !self.is_windowed() {
            return;
        }
        let first = self.first_visible_block(position).min(table.len());
        if table.released >= first {
            return;
        }
        for entry in &mut table.blocks[table.released as usize..first as usize] {
            self.pool.release(std::mem::replace(entry, BlockId::NONE));
        }
        table.released = first;
        self.settle(table);
    }

    /// Gives back everything, from the tail to the head.
    pub(crate) fn release_all(&mut self, table: &mut Table) {
        for &block in table.blocks[table.released as usize..].iter().rev() {
            self.pool.release(block);
        }
        table.blocks.clear();
        (table.released, table.peak, table.prefill_len) = (0, 0, 0);
        self.settle(table);
    }

    /// Brings the reservation in line with what the table still needs.
    pub(crate) fn settle(&mut self, table: &mut Table) {
        let outstanding = table.outstanding();
        self.reserved = self.reserved - table.reserved + outstanding;
        table.reserved = outstanding;
    }

    /// The longest hit of at most `length` blocks for which everything that the next query reads is
    /// cached: a window forgives what lies before it.
    pub(crate) fn shorten_hit(&self, hashes: &[BlockHash], mut length: u32) -> u32 {
        loop {
            let first = self.first_visible_block(length * self.block_size);
            let missing = (first..length)
                .rev()
                .find(|&index| self.pool.lookup(hashes[index as usize]).is_none());
            match missing {
                Some(index) => length = index,
                None => return length,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::{Parent, hash_block};

    fn group(window: Option<u32>) -> Group {
        Group::new(&CacheGroup { num_blocks: 16, window }, 4)
    }

    #[test]
    fn a_block_is_visible_until_its_last_position_leaves_the_window() {
        for (window, position, want) in [
            (None, 100, 0),
            (Some(1), 8, 2),
            (Some(4), 6, 0),
            (Some(4), 7, 1),
            (Some(5), 7, 0),
            (Some(5), 8, 1),
        ] {
            assert_eq!(
                group(window).first_visible_block(position),
                want,
                "{window:?} at {position}"
            );
        }
    }

    #[test]
    fn a_hole_in_the_cache_shortens_a_windowed_hit_to_what_the_next_query_reads() {
        let hashes: Vec<BlockHash> =
            (0..8).map(|index| hash_block([0, 0], Parent::Salt(0), &[index])).collect();
        // Cached blocks, window, hit. Blocks have 4 tokens.
        let cases: [(&[usize], Option<u32>, u32); 7] = [
            (&[0, 1, 2, 3, 4, 5, 6, 7], Some(5), 8),
            (&[7], Some(5), 8),
            (&[7], Some(6), 0),
            (&[2, 3, 4, 6], Some(8), 5),
            (&[0], Some(100), 1),
            (&[], Some(1), 8),
            (&[0, 1, 3], None, 2),
        ];
        for (cached, window, want) in cases {
            let mut group = group(window);
            for &index in cached {
                let block = group.pool.allocate();
                group.pool.publish(block, hashes[index]);
            }
            assert_eq!(group.shorten_hit(&hashes, 8), want, "{cached:?} with {window:?}");
        }
    }

    #[test]
    fn reservations_follow_the_table() {
        let mut group = group(Some(4));
        let mut table = Table { peak: 3, prefill_len: 6, ..Table::default() };
        group.settle(&mut table);
        assert_eq!(group.reserved, 3);
        group.extend(&mut table, 2);
        assert_eq!((group.reserved, group.pool.free()), (1, 14));
        group.release_before(&mut table, 8);
        assert_eq!((table.released, group.reserved, group.pool.free()), (1, 2, 15));
        group.extend(&mut table, 6);
        assert_eq!(group.reserved, 0, "the prompt has all its blocks");
        group.release_all(&mut table);
        assert_eq!((group.reserved, group.pool.free()), (0, 16));
    }
}
