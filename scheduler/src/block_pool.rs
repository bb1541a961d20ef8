//! The blocks of one cache group: reference counts, free list, prefix index.
//!
//! A cached block is a free block that still has a hash. The free list is the eviction order: blocks
//! without a hash go to its front and are reused first, hashed ones to its back, so that reuse from
//! the front forgets the least recently used content. List and index are intrusive: after
//! construction nothing allocates, and every operation is O(1) (expected, for the index).

use crate::hash::BlockHash;
use crate::ids::BlockId;

/// End of a list.
const NIL: u32 = u32::MAX;

#[derive(Clone, Debug)]
struct Block {
    /// Sequences that hold the block.
    refs: u32,
    /// Neighbours in the free list, valid while `refs` is zero.
    previous: u32,
    next: u32,
    /// Next block of the same bucket of the index, valid while `hash` is set.
    chain: u32,
    /// Content, when the index points here.
    hash: Option<BlockHash>,
}

/// Blocks, which of them are free, and what the free and held ones contain.
#[derive(Debug)]
pub(crate) struct BlockPool {
    blocks: Vec<Block>,
    /// Ends of the free list.
    head: u32,
    tail: u32,
    num_free: u32,
    /// Free blocks with a hash.
    num_cached: u32,
    /// Heads of the index's chains; a power of two of them.
    buckets: Vec<u32>,
    evictions: u64,
}

impl BlockPool {
    /// All blocks free and without content. `num_blocks` is at least 1 and below `u32::MAX`.
    pub(crate) fn new(num_blocks: u32) -> Self {
        let blocks = (0..num_blocks)
            .map(|index| Block {
                refs: 0,
                previous: index.checked_sub(1).unwrap_or(NIL),
                next: if index + 1 < num_blocks { index + 1 } else { NIL },
                chain: NIL,
                hash: None,
            })
            .collect();
        BlockPool {
            blocks,
            head: 0,
            tail: num_blocks - 1,
            num_free: num_blocks,
            num_cached: 0,
            buckets: vec![NIL; (num_blocks as usize).next_power_of_two()],
            evictions: 0,
        }
    }

    /// Physical blocks.
    pub(crate) fn total(&self) -> u32 {
        self.blocks.len() as u32
    }

    /// Blocks that can be allocated, cached ones included.
    pub(crate) fn free(&self) -> u32 {
        self.num_free
    }

    /// Free blocks that the index still finds.
    pub(crate) fn cached(&self) -> u32 {
        self.num_cached
    }

    /// Cached blocks reused for other content so far.
    pub(crate) fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Whether no sequence holds the block.
    pub(crate) fn is_free(&self, id: BlockId) -> bool {
        self.blocks[id.0 as usize].refs == 0
    }

    /// Takes the block at the front of the free list; its old content is no longer findable.
    pub(crate) fn allocate(&mut self) -> BlockId {
        let index = self.head;
        assert!(index != NIL, "a block was allocated from an empty pool");
        self.unlink(index);
        if self.blocks[index as usize].hash.is_some() {
            self.num_cached -= 1;
            self.evictions += 1;
            self.remove_from_index(index);
        }
        self.blocks[index as usize].refs = 1;
        BlockId(index)
    }

    /// One more sequence holds a block that [`Self::lookup`] found.
    pub(crate) fn acquire(&mut self, id: BlockId) {
        if self.is_free(id) {
            self.unlink(id.0);
            self.num_cached -= u32::from(self.blocks[id.0 as usize].hash.is_some());
        }
        self.blocks[id.0 as usize].refs += 1;
    }

    /// One sequence fewer holds the block. Callers release from the tail of a table to its head, so
    /// that the ends of cached sequences are reused before their beginnings.
    pub(crate) fn release(&mut self, id: BlockId) {
        let block = &mut self.blocks[id.0 as usize];
        assert!(block.refs > 0, "block {} was released more often than acquired", id.0);
        block.refs -= 1;
        if block.refs > 0 {
            return;
        }
        if block.hash.is_some() {
            self.num_cached += 1;
            self.link_back(id.0);
        } else {
            self.link_front(id.0);
        }
    }

    /// The block with this content.
    pub(crate) fn lookup(&self, hash: BlockHash) -> Option<BlockId> {
        let mut index = self.buckets[self.bucket(hash)];
        while index != NIL {
            let block = &self.blocks[index as usize];
            if block.hash == Some(hash) {
                return Some(BlockId(index));
            }
            index = block.chain;
        }
        None
    }

    /// Makes a held block findable, unless another one has the same content already.
    pub(crate) fn publish(&mut self, id: BlockId, hash: BlockHash) {
        debug_assert!(!self.is_free(id), "block {} was published after its release", id.0);
        if self.blocks[id.0 as usize].hash.is_some() || self.lookup(hash).is_some() {
            return;
        }
        let bucket = self.bucket(hash);
        let block = &mut self.blocks[id.0 as usize];
        block.hash = Some(hash);
        block.chain = self.buckets[bucket];
        self.buckets[bucket] = id.0;
    }

    /// Makes a content unfindable: it turned out to be bad. Holders of the block keep it.
    pub(crate) fn retract(&mut self, hash: BlockHash) {
        let Some(BlockId(index)) = self.lookup(hash) else { return };
        self.remove_from_index(index);
        if self.is_free(BlockId(index)) {
            self.num_cached -= 1;
            self.unlink(index);
            self.link_front(index);
        }
    }

    fn bucket(&self, hash: BlockHash) -> usize {
        hash.bucket_bits() as usize & (self.buckets.len() - 1)
    }

    fn remove_from_index(&mut self, index: u32) {
        let hash = self.blocks[index as usize].hash.take().expect("only hashed blocks are indexed");
        let bucket = self.bucket(hash);
        let after = self.blocks[index as usize].chain;
        let mut cursor = self.buckets[bucket];
        if cursor == index {
            self.buckets[bucket] = after;
            return;
        }
        while self.blocks[cursor as usize].chain != index {
            cursor = self.blocks[cursor as usize].chain;
        }
        self.blocks[cursor as usize].chain = after;
    }

    fn unlink(&mut self, index: u32) {
        let Block { previous, next, .. } = self.blocks[index as usize];
        match previous {
            NIL => self.head = next,
            _ => self.blocks[previous as usize].next = next,
        }
        match next {
            NIL => self.tail = previous,
            _ => self.blocks[next as usize].previous = previous,
        }
        self.num_free -= 1;
    }

    fn link_front(&mut self, index: u32) {
        let next = self.head;
        self.blocks[index as usize].previous = NIL;
        self.blocks[index as usize].next = next;
        match next {
            NIL => self.tail = index,
            _ => self.blocks[next as usize].previous = index,
        }
        self.head = index;
        self.num_free += 1;
    }

    fn link_back(&mut self, index: u32) {
        let previous = self.tail;
        self.blocks[index as usize].previous = previous;
        self.blocks[index as usize].next = NIL;
        match previous {
            NIL => self.head = index,
            _ => self.blocks[previous as usize].next = index,
        }
        self.tail = index;
        self.num_free += 1;
    }

    /// Panics when list, index and counts disagree, or when a block is not held `refs[block]` times.
    pub(crate) fn check(&self, refs: &[u32]) {
        for (index, block) in self.blocks.iter().enumerate() {
            assert_eq!(block.refs, refs[index], "references of block {index}");
            if let Some(hash) = block.hash {
                assert_eq!(
                    self.lookup(hash),
                    Some(BlockId(index as u32)),
                    "block {index} in the index"
                );
            }
        }
        let (mut index, mut previous, mut free, mut cached) = (self.head, NIL, 0, 0);
        while index != NIL {
            let block = &self.blocks[index as usize];
            assert_eq!(block.refs, 0, "block {index} is in the free list");
            assert_eq!(block.previous, previous, "back link of block {index}");
            free += 1;
            assert!(free <= self.total(), "the free list is circular");
            cached += u32::from(block.hash.is_some());
            (previous, index) = (index, block.next);
        }
        assert_eq!(self.tail, previous, "tail of the free list");
        assert_eq!(self.num_free, free, "free blocks");
        assert_eq!(self.num_cached, cached, "cached blocks");
        let held = refs.iter().filter(|&&refs| refs > 0).count() as u32;
        assert_eq!(free + held, self.total(), "every block is free or held");
        self.check_index();
    }

    fn check_index(&self) {
        let mut indexed = 0;
        for (bucket, &first) in self.buckets.iter().enumerate() {
            let mut index = first;
            while index != NIL {
                let block = &self.blocks[index as usize];
                let hash = block.hash.expect("indexed blocks have a hash");
                assert_eq!(self.bucket(hash), bucket, "bucket of block {index}");
                indexed += 1;
                assert!(indexed <= self.blocks.len(), "a chain of the index is circular");
                index = block.chain;
            }
        }
        let hashed = self.blocks.iter().filter(|block| block.hash.is_some()).count();
        assert_eq!(indexed, hashed, "hashed blocks are in the index");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::{Parent, hash_block};

    fn hash(content: u32) -> BlockHash {
        hash_block([1, 2], Parent::Salt(0), &[content])
    }

    fn check(pool: &BlockPool) {
        let refs: Vec<u32> = pool.blocks.iter().map(|block| block.refs).collect();
        pool.check(&refs);
    }

    #[test]
    fn unhashed_blocks_are_reused_first_then_the_least_recently_used() {
        let mut pool = BlockPool::new(4);
        let blocks: Vec<BlockId> = (0..4).map(|_| pool.allocate()).collect();
        for (content, &block) in blocks.iter().take(3).enumerate() {
            pool.publish(block, hash(content as u32));
        }
        for &block in [1, 0, 2, 3].map(|index| &blocks[index]) {
            pool.release(block);
            check(&pool);
        }
        assert_eq!((pool.free(), pool.cached()), (4, 3));
        let order: Vec<BlockId> = (0..4).map(|_| pool.allocate()).collect();
        assert_eq!(order, [3, 1, 0, 2].map(|index| blocks[index]));
        assert_eq!((pool.evictions(), pool.lookup(hash(0))), (3, None));
        check(&pool);
    }

    #[test]
    fn a_hit_takes_a_cached_block_out_of_the_middle_of_the_free_list() {
        let mut pool = BlockPool::new(3);
        let blocks: Vec<BlockId> = (0..3).map(|_| pool.allocate()).collect();
        for (content, &block) in blocks.iter().enumerate() {
            pool.publish(block, hash(content as u32));
            pool.release(block);
        }
        let found = pool.lookup(hash(1)).unwrap();
        pool.acquire(found);
        pool.acquire(found);
        check(&pool);
        assert_eq!((found, pool.free(), pool.cached()), (blocks[1], 2, 2));
        pool.release(found);
        assert!(!pool.is_free(found), "one holder is left");
        pool.release(found);
        check(&pool);
        assert_eq!(pool.free(), 3);
    }

    #[test]
    fn the_first_block_of_a_content_keeps_its_place_in_the_index() {
        let mut pool = BlockPool::new(2);
        let (first, second) = (pool.allocate(), pool.allocate());
        pool.publish(first, hash(7));
        pool.publish(second, hash(7));
        assert_eq!(pool.lookup(hash(7)), Some(first));
        pool.release(second);
        assert_eq!(pool.allocate(), second, "the duplicate was never in the index");
        pool.retract(hash(7));
        assert_eq!(pool.lookup(hash(7)), None);
        check(&pool);
    }

    #[test]
    fn bad_content_is_forgotten_in_held_and_in_cached_blocks() {
        let mut pool = BlockPool::new(3);
        let blocks: Vec<BlockId> = (0..3).map(|_| pool.allocate()).collect();
        for (content, &block) in blocks.iter().enumerate() {
            pool.publish(block, hash(content as u32));
        }
        pool.release(blocks[0]);
        pool.release(blocks[1]);
        pool.retract(hash(1));
        pool.retract(hash(2));
        pool.retract(hash(9));
        check(&pool);
        assert_eq!((pool.cached(), pool.lookup(hash(2))), (1, None));
        assert_eq!(pool.allocate(), blocks[1], "a block without content is reused first");
    }

    #[test]
    fn chains_survive_removals_in_any_order() {
        let mut pool = BlockPool::new(64);
        for content in 0..64 {
            let block = pool.allocate();
            pool.publish(block, hash(content));
        }
        for step in 0..64 {
            let content = step * 37 % 64;
            pool.retract(hash(content));
            check(&pool);
            assert_eq!(pool.lookup(hash(content)), None);
        }
    }

    #[test]
    #[should_panic(expected = "released more often than acquired")]
    fn a_double_release_panics() {
        let mut pool = BlockPool::new(1);
        let block = pool.allocate();
        pool.release(block);
        pool.release(block);
    }

    #[test]
    #[should_panic(expected = "empty pool")]
    fn allocating_from_an_empty_pool_panics() {
        let mut pool = BlockPool::new(1);
        pool.allocate();
        pool.allocate();
    }
}
