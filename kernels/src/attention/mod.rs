//! Causal attention of packed queries over paged keys and values: prefill chunks and decodes mixed, grouped query
//! heads, sliding windows and capped scores.
//!
//! A query's result depends on its position and on the keys and values it sees, never on the chunk it came in, its
//! neighbours or the number of threads. Keys are taken in tiles of [`KEY_TILE`] positions at multiples of it, with a
//! running maximum and sum (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018), and the tiles
//! of each [`SPLIT`] positions form a partial result of their own; partial results are merged in order of position.
//! Whether one thread runs the splits of a query after each other or several run them at once is then the same sum.
//!
//! The queries that share a key head (the group's heads of some consecutive tokens) are packed, so that a tile of keys
//! and values is read once for all of them.

mod cache;
mod schedule;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::ops::Range;

pub use cache::{KvCache, KvType, write_kv};
pub use schedule::AttentionScratch;

use crate::isa::{Isa, Variant};
use crate::pool::ThreadPool;
use crate::rows::Rows;
use cache::{Element, Pair, Store};

/// Positions per tile of keys.
pub const KEY_TILE: usize = 64;

/// Positions per partial result; a multiple of [`KEY_TILE`].
pub const SPLIT: usize = 512;

/// Floats between the scores of two queries: a tile and one vector that may be written past it.
const SCORE_STRIDE: usize = KEY_TILE + 16;

/// Heads and scores of a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionSpec {
    /// Query heads, a multiple of `kv_heads`; head `h` reads key head `h / (heads / kv_heads)`.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Values per head.
    pub head_dim: usize,
    /// Multiplies every score.
    pub scale: f32,
    /// How many positions a query sees, itself included; `None` for all before it.
    pub window: Option<u32>,
    /// Scores become `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
}

impl AttentionSpec {
    /// Query heads per key head.
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Positions that the query at `position` sees.
    fn visible(&self, position: usize) -> Range<usize> {
        let window = self.window.map_or(usize::MAX, |window| window as usize);
        (position + 1).saturating_sub(window)..position + 1
    }
}

/// The queries of one sequence in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionSeq {
    /// Row of the first query.
    pub query_start: u32,
    /// Number of queries.
    pub query_len: u32,
    /// Position of the first query in its sequence.
    pub position: u32,
    /// First entry of the block table.
    pub table_start: u32,
    /// Entries of the block table. Entry `i` is the block of positions from `i * block_size` on; entries wholly before
    /// the window are never read.
    pub table_len: u32,
}

/// Attention of the queries of a step: `q: [tokens, heads * head_dim]`, `out` the same shape without gaps. The keys and
/// values of the queries' own positions must be in the cache already. Rows of `out` that belong to no sequence are left.
///
/// A NaN or infinity in the cache reaches the queries that see its position, and may reach queries of the same chunk
/// just before it.
///
/// # Panics
/// When shapes do not fit each other, sequences are not in order of their rows or share some, a block table is too
/// short for the positions, or an entry that a query needs is not a block of the cache.
#[expect(
    clippy::too_many_arguments,
    reason = "one operand each; the order is that of the other kernels"
)]
pub fn paged_attention(
    pool: &ThreadPool,
    spec: &AttentionSpec,
    q: Rows<'_>,
    cache: &KvCache,
    seqs: &[AttentionSeq],
    block_tables: &[u32],
    scratch: &mut AttentionScratch,
    out: &mut [f32],
) {
    check_shapes(spec, q, cache, out);
    check_sequences(spec, q, cache, seqs, block_tables);
    let run = crate::isa::select(VARIANTS).run;
    let step = schedule::Step { spec, q, cache, seqs, block_tables };
    schedule::run(pool, run, &step, scratch, out);
}

fn check_shapes(spec: &AttentionSpec, q: Rows<'_>, cache: &KvCache, out: &[f32]) {
    let shape = cache.shape();
    assert!(
        spec.kv_heads == shape.kv_heads && spec.head_dim == shape.head_dim,
        "the cache has {} heads of {}, the attention {} of {}",
        shape.kv_heads,
        shape.head_dim,
        spec.kv_heads,
        spec.head_dim
    );
    assert!(
        spec.heads > 0 && spec.heads.is_multiple_of(spec.kv_heads),
        "heads must be a multiple of kv_heads, {} is none of {}",
        spec.heads,
        spec.kv_heads
    );
    assert!(spec.window != Some(0), "a window has at least one position");
    assert!(spec.softcap.is_none_or(|cap| cap > 0.0), "a soft cap is above 0");
    let width = spec.heads * spec.head_dim;
    assert_eq!(q.width(), width, "a row of q is heads * head_dim wide");
    assert_eq!(out.len(), q.len() * width, "out has the shape of q");
}

fn check_sequences(
    spec: &AttentionSpec,
    q: Rows<'_>,
    cache: &KvCache,
    seqs: &[AttentionSeq],
    block_tables: &[u32],
) {
    let mut next_row = 0;
    for (index, seq) in seqs.iter().enumerate() {
        let query_start = seq.query_start as usize;
        assert!(query_start >= next_row, "sequence {index} starts in the rows of another");
        next_row = query_start + seq.query_len as usize;
        assert!(next_row <= q.len(), "sequence {index} ends past the rows of q");
        if seq.query_len == 0 {
            continue;
        }
        let table_start = seq.table_start as usize;
        let table = block_tables
            .get(table_start..table_start + seq.table_len as usize)
            .unwrap_or_else(|| panic!("the table of sequence {index} ends past block_tables"));
        let first = spec.visible(seq.position as usize).start / cache.block_size();
        let last = (seq.position as usize + seq.query_len as usize - 1) / cache.block_size();
        assert!(last < table.len(), "the table of sequence {index} is too short for its positions");
        for (entry, &block) in table.iter().enumerate().take(last + 1).skip(first) {
            assert!(
                (block as usize) < cache.blocks(),
                "entry {entry} of sequence {index} is {block}, not one of {} blocks",
                cache.blocks()
            );
        }
    }
}

/// Queries of one key head over the keys of one split: what a variant computes at once.
#[derive(Debug)]
pub struct Unit<'a> {
    spec: &'a AttentionSpec,
    cache: &'a KvCache,
    /// Blocks of the sequence.
    table: &'a [u32],
    kv_head: usize,
    /// Position of the first packed query; every `group` rows are one position.
    position: usize,
    /// Packed queries.
    rows: usize,
    /// Positions of the split.
    split: Range<usize>,
    /// End of the positions that the same thread reads of this sequence: past the split when it goes on.
    end: usize,
    /// What the same thread probably reads after `end`.
    next: Option<Stretch<'a>>,
}

/// Keys and values of some positions of a sequence under one key head.
#[derive(Clone, Debug)]
pub(crate) struct Stretch<'a> {
    table: &'a [u32],
    kv_head: usize,
    positions: Range<usize>,
}

impl Unit<'_> {
    /// Positions of the split that a packed query sees; may be empty.
    fn keys_of(&self, row: usize) -> Range<usize> {
        let visible = self.spec.visible(self.position + row / self.spec.group());
        let start = visible.start.max(self.split.start);
        start..visible.end.min(self.split.end).max(start)
    }

    /// Positions of the split that any packed query sees.
    fn keys(&self) -> Range<usize> {
        self.keys_of(0).start..self.keys_of(self.rows - 1).end
    }

    /// Block and offset of a position.
    fn place(&self, position: usize) -> (usize, usize) {
        place(self.cache.block_size(), self.table, position)
    }
}

/// Block and offset of a position.
fn place(block_size: usize, table: &[u32], position: usize) -> (usize, usize) {
    // The size is a power of two; a division here would cost as much as the arithmetic of a key.
    (table[position >> block_size.trailing_zeros()] as usize, position & (block_size - 1))
}

/// Packed queries and the partial result of a unit. Rows of `q` and `out` are as wide as the cache's value rows.
#[derive(Debug)]
pub struct Partial<'a> {
    /// Scaled queries `[rows, width]`.
    q: &'a [f32],
    /// Room for the scores of a tile: `[rows, SCORE_STRIDE]`.
    scores: &'a mut [f32],
    /// Room for one factor per row.
    rescale: &'a mut [f32],
    /// Largest score `[rows]`, `-inf` for a query that sees no key of the split.
    max: &'a mut [f32],
    /// Sum of `e^(score - max)`: `[rows]`.
    sum: &'a mut [f32],
    /// Sum of `e^(score - max) * value`: `[rows, width]`.
    out: &'a mut [f32],
}

/// Fills `max`, `sum` and `out` of a partial result.
pub type PartialAttention = fn(unit: &Unit<'_>, partial: &mut Partial<'_>);

/// Every variant, reference first; the last one this machine supports is used.
pub static VARIANTS: &[Variant<PartialAttention>] = &[
    Variant { name: "reference", isa: Isa::Scalar, run: reference },
    #[cfg(target_arch = "x86_64")]
    Variant { name: "avx2", isa: Isa::Avx2, run: x86::partial_avx2 },
    #[cfg(target_arch = "x86_64")]
    Variant { name: "avx512", isa: Isa::Avx512, run: x86::partial_avx512 },
];

/// The definition: two passes over the keys, in `f64`.
pub fn reference(unit: &Unit<'_>, partial: &mut Partial<'_>) {
    match unit.cache.store() {
        Store::F32(pair) => reference_of(unit, pair, partial),
        Store::F16(pair) => reference_of(unit, pair, partial),
        Store::Bf16(pair) => reference_of(unit, pair, partial),
    }
}

fn reference_of<E: Element>(unit: &Unit<'_>, pair: &Pair<E>, partial: &mut Partial<'_>) {
    let width = unit.cache.shape().value_width();
    for row in 0..unit.rows {
        let q = &partial.q[row * width..][..unit.spec.head_dim];
        let out = &mut partial.out[row * width..][..width];
        let score = |position| reference_score(unit, pair, q, position);
        let max = unit.keys_of(row).map(score).fold(f64::NEG_INFINITY, f64::max);
        let (mut sum, mut mean) = (0.0, vec![0.0; unit.spec.head_dim]);
        for position in unit.keys_of(row) {
            let weight = (score(position) - max).exp();
            sum += weight;
            let (block, offset) = unit.place(position);
            let start = unit.cache.shape().value_row(block, unit.kv_head, offset);
            for (mean, value) in mean.iter_mut().zip(&pair.values[start..]) {
                *mean += weight * f64::from(value.widen());
            }
        }
        (partial.max[row], partial.sum[row]) = (max as f32, sum as f32);
        out.fill(0.0);
        out.iter_mut().zip(&mean).for_each(|(out, &mean)| *out = mean as f32);
    }
}

fn reference_score<E: Element>(unit: &Unit<'_>, pair: &Pair<E>, q: &[f32], position: usize) -> f64 {
    let (shape, (block, offset)) = (unit.cache.shape(), unit.place(position));
    let start = shape.key_tile(block, unit.kv_head, offset) + offset % shape.tile();
    let keys = pair.keys[start..].iter().step_by(shape.tile());
    let score: f64 =
        q.iter().zip(keys).map(|(&q, key)| f64::from(q) * f64::from(key.widen())).sum();
    match unit.spec.softcap {
        Some(cap) => f64::from(cap) * (score / f64::from(cap)).tanh(),
        None => score,
    }
}
