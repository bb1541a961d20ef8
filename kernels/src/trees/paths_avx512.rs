//! Rows through small trees, 64 paths to a vector: those of 32 rows in two trees, or of 16 in four.
//!
//! A path is the number of the node it is at, as in [`super::jumps`], whose tables are looked up by all paths at once:
//! columns, ranks to compare with, and what follows on the left and on the right. The rank of a path's row in its column
//! is looked up in the ranks of all rows. A look-up covers two vectors; those of several tables, or of several rows, are
//! merged by the bits of the paths' numbers, which are those of the row below those of the tree.

use std::arch::x86_64::*;
use std::hint::black_box;
use std::ops::Range;

use super::jumps::Jumps;
use super::jumps_avx512::{load, look_up, places};
use super::ranks::{LANES, Line, ROWS, RankRows};

/// Vectors of paths that are followed side by side, as each waits for its look-ups.
const VECTORS: usize = 4;
/// Bits of a path's number.
const BITS: usize = LANES.ilog2() as usize;

/// For each bit of a path's number, the paths that have it set. The compiler does not see which: knowing, it makes of
/// choices what takes longer.
struct Masks([u64; BITS]);

impl Masks {
    #[inline(always)]
    fn new() -> Self {
        let with = |bit| (0..LANES).filter(|lane| lane >> bit & 1 == 1).map(|lane| 1 << lane).sum();
        Self(black_box(std::array::from_fn(with)))
    }
}

/// What the trees of a vector look up, each in tables of `W` vectors.
#[derive(Clone, Copy)]
struct Trees<'a, const W: usize, const TREES: usize> {
    /// Columns and ranks.
    nodes: [&'a [[Line; W]; 2]; TREES],
    /// What follows on the left and on the right.
    links: [&'a [[Line; W]; 2]; TREES],
    roots: [u8; TREES],
}

impl<'a, const W: usize, const TREES: usize> Trees<'a, W, TREES> {
    /// Bits of a row's number.
    const ROW_BITS: usize = (LANES / TREES).ilog2() as usize;

    /// Trees from `first` on, the last of them again where there are no more.
    #[inline(always)]
    fn new(jumps: &'a Jumps, first: usize, last: usize) -> Self {
        let tables = |lines: &'a [Line]| {
            lines.as_chunks::<W>().0.first_chunk::<2>().expect("two tables a tree")
        };
        let trees: [usize; TREES] = std::array::from_fn(|tree| last.min(first + tree));
        Self {
            nodes: trees.map(|tree| tables(&jumps.nodes[tree * 2 * W..])),
            links: trees.map(|tree| tables(&jumps.links[jumps.trees[tree].links as usize..])),
            roots: trees.map(|tree| jumps.trees[tree].root),
        }
    }

    /// Each path's of what its tree has.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn choose(masks: &Masks, mut of: [__m512i; TREES]) -> __m512i {
        for bit in 0..TREES.ilog2() as usize {
            for tree in (0..TREES).step_by(2 << bit) {
                let other = of[tree + (1 << bit)];
                of[tree] = _mm512_mask_blend_epi8(masks.0[Self::ROW_BITS + bit], of[tree], other);
            }
        }
        of[0]
    }

    /// Where the paths start.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn start(&self, masks: &Masks) -> __m512i {
        let mut roots = [_mm512_setzero_si512(); TREES];
        for (vector, &root) in roots.iter_mut().zip(&self.roots) {
            *vector = _mm512_set1_epi8(root as i8);
        }
        Self::choose(masks, roots)
    }

    /// Each path's bytes of two tables.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    fn look_up(masks: &Masks, tables: [&[[Line; W]; 2]; TREES], at: __m512i) -> [__m512i; 2] {
        let mut found = [at; 2];
        for (side, found) in found.iter_mut().enumerate() {
            let mut of = [at; TREES];
            for (of, tables) in of.iter_mut().zip(tables) {
                *of = look_up(load::<W>(&tables[side]), at);
            }
            *found = Self::choose(masks, of);
        }
        found
    }

    /// Replaces columns by the ranks that the paths' rows have there, rows being `32 * C` columns. All vectors side by
    /// side, so that ranks are loaded once.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    fn look_up_ranks<const C: usize>(
        masks: &Masks,
        ranks: &RankRows,
        columns: [__m512i; VECTORS],
    ) -> [__m512i; VECTORS] {
        // Rows that share two vectors: the lowest bits of a row's number say where it starts there.
        const STARTS: [[u8; LANES]; 3] = [starts(1), starts(2), starts(4)];
        // SAFETY: as many bytes are read as a vector has.
        let starts = unsafe { _mm512_loadu_si512(STARTS[C.ilog2() as usize].as_ptr().cast()) };
        let columns = columns.map(|columns| _mm512_or_si512(columns, starts));
        let bit = (4 / C).ilog2() as usize;
        let halves = [!masks.0[bit], masks.0[bit]];
        // What is found in two pairs of vectors, merged with another such as soon as there are two.
        let mut open = [columns; BITS];
        for pairs in 0..8 * C / TREES {
            let mut found = columns;
            for (half, paths) in halves.into_iter().enumerate() {
                let [low, high] = [0, 1].map(|side| vector(ranks, 4 * pairs + 2 * half + side));
                for found in &mut found {
                    *found = _mm512_mask2_permutex2var_epi8(low, *found, paths, high);
                }
            }
            let merges = pairs.trailing_ones() as usize;
            for (open, mask) in open[..merges].iter().zip(&masks.0[bit + 1..]) {
                for (found, open) in found.iter_mut().zip(open) {
                    *found = _mm512_mask_blend_epi8(*mask, *open, *found);
                }
            }
            open[merges] = found;
        }
        open[Self::ROW_BITS - bit - 1]
    }
}

/// A vector of the ranks.
#[inline(always)]
fn vector(ranks: &RankRows, number: usize) -> __m512i {
    let bytes = &ranks.0.as_chunks::<LANES>().0[number];
    // SAFETY: the ranks are aligned as vectors are.
    unsafe { *bytes.as_ptr().cast::<__m512i>() }
}

/// Where each path's row starts in the two vectors that it is in, rows being `32 * words` columns.
const fn starts(words: usize) -> [u8; LANES] {
    let mut starts = [0; LANES];
    let mut lane = 0;
    while lane < LANES {
        starts[lane] = (lane * 32 * words % (2 * LANES)) as u8;
        lane += 1;
    }
    starts
}

/// Follows `64 / TREES` rows of `32 * C` columns in trees of `W` vectors of nodes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
pub(super) fn rows<const W: usize, const C: usize, const TREES: usize>(
    jumps: &Jumps,
    ranks: &RankRows,
    trees: Range<usize>,
    out: &mut [[u8; ROWS]],
) {
    let masks = Masks::new();
    let last = trees.end - 1;
    for (first, out) in trees.step_by(VECTORS * TREES).zip(out.chunks_mut(VECTORS * TREES)) {
        let trees: [_; VECTORS] = std::array::from_fn(|vector| {
            Trees::<W, TREES>::new(jumps, first + vector * TREES, last)
        });
        let mut at = [_mm512_setzero_si512(); VECTORS];
        at.iter_mut().zip(&trees).for_each(|(at, trees)| *at = trees.start(&masks));
        let levels = jumps.trees[first..][..out.len()].iter().map(|tree| tree.levels).max();
        for _ in 0..levels.unwrap_or(0) {
            // Behind a wall, so that tables are loaded where they are needed: there are not enough registers for them.
            let (trees, ranks) = black_box((&trees, ranks));
            let (mut columns, mut compared) = (at, at);
            for vector in 0..VECTORS {
                let nodes = trees[vector].nodes;
                [columns[vector], compared[vector]] =
                    Trees::<W, TREES>::look_up(&masks, nodes, at[vector]);
            }
            let ranks = Trees::<W, TREES>::look_up_ranks::<C>(&masks, ranks, columns);
            let mut moved = 0;
            for vector in 0..VECTORS {
                let right = _mm512_cmpgt_epu8_mask(ranks[vector], compared[vector]);
                let [on_left, on_right] =
                    Trees::<W, TREES>::look_up(&masks, trees[vector].links, at[vector]);
                let next = _mm512_mask_blend_epi8(right, on_left, on_right);
                moved |= _mm512_cmpneq_epi8_mask(next, at[vector]);
                at[vector] = next;
            }
            if moved == 0 {
                break;
            }
        }
        for (at, out) in at.into_iter().zip(out.chunks_mut(TREES)) {
            let mut ends = Line([0; LANES]);
            // SAFETY: a line is as large as a vector.
            unsafe { _mm512_storeu_si512(ends.0.as_mut_ptr().cast(), places(at)) };
            for (out, ends) in out.iter_mut().zip(ends.0.chunks_exact(LANES / TREES)) {
                out[..ends.len()].copy_from_slice(ends);
            }
        }
    }
}
