//! Identifiers. Every index that must not meet another is its own type.

/// A vocabulary index, as tokenizers count them.
pub type TokenId = u32;

/// Index of a physical KV cache block within its cache group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);

impl BlockId {
    /// Placeholder in a block table for a block that left the sliding window; never read.
    pub const NONE: BlockId = BlockId(u32::MAX);
}

/// A live sequence: a slot and the generation that tells its present tenant from the last one.
///
/// Slots are dense and reused, so executors may index per-sequence state by `slot`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeqKey {
    /// Dense index, below the scheduler's `max_sequences + max_waiting`.
    pub slot: u32,
    /// Counts the tenants of the slot.
    pub generation: u32,
}

/// Monotonic nanoseconds, supplied by the caller: the scheduler never reads a clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u64);
