//! A row's [`super::jumps`] with AVX-512 and its byte permutations.

use std::arch::x86_64::*;
use std::ops::Range;

use super::jumps::{Follow, FollowRows, Jumps, RIGHT};
use super::paths_avx512::rows;
use super::ranks::{LANES, Line, ROWS, RankRows};

/// With [`crate::isa::Isa::Avx512Vbmi`].
pub(super) const FOLLOW: Follow = Follow {
    rows: [
        [paths::<1, 4>(), eights::<1>()],
        [paths::<1, 4>(), eights::<2>()],
        [paths::<1, 2>(), paths::<2, 2>()],
    ],
    trees: [[trees::<1, 1>, trees::<1, 2>], [trees::<2, 1>, trees::<2, 2>]],
};

/// Loops for trees of `W` vectors, `TREES` to a vector of paths.
const fn paths<const W: usize, const TREES: usize>() -> [FollowRows; 3] {
    [rows::<W, 1, TREES>, rows::<W, 2, TREES>, rows::<W, 4, TREES>]
}

/// Loops for trees of two vectors, `EIGHTS` times eight rows one by one.
const fn eights<const EIGHTS: usize>() -> [FollowRows; 3] {
    [one_by_one::<2, 1, EIGHTS>, one_by_one::<2, 1, EIGHTS>, one_by_one::<2, 2, EIGHTS>]
}

/// Trees whose paths are followed side by side.
const PATHS: usize = 8;
/// Levels of a look-up in a table of jumps.
const LEAP: u8 = 8;

#[inline(always)]
pub(super) fn load<const N: usize>(lines: &[Line]) -> [__m512i; N] {
    let lines: &[Line; N] = lines.first_chunk().expect("as many lines");
    // SAFETY: a line is as large as a vector, and as aligned.
    lines.each_ref().map(|line| unsafe { *line.0.as_ptr().cast::<__m512i>() })
}

/// The ranks of the row that comes first.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_row<const C: usize>(ranks: &[u8]) -> [__m512i; C] {
    let vectors: &[[u8; LANES]; C] = ranks.as_chunks().0.first_chunk().expect("whole vectors");
    // SAFETY: as many bytes are read as a vector has.
    vectors.each_ref().map(|bytes| unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) })
}

/// The bytes of a table of `N` vectors at `index`: at its low six bits, or seven when there are two vectors.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn look_up<const N: usize>(table: [__m512i; N], index: __m512i) -> __m512i {
    match table[..] {
        [table] => _mm512_permutexvar_epi8(index, table),
        [low, high, ..] => _mm512_permutex2var_epi8(low, index, high),
        [] => index,
    }
}

/// A tree of `W` vectors of nodes.
struct Tree<const W: usize> {
    columns: [__m512i; W],
    ranks: [__m512i; W],
    left: [__m512i; W],
    right: [__m512i; W],
    root: u8,
    leaps: u8,
}

impl<const W: usize> Tree<W> {
    #[inline(always)]
    fn load(jumps: &Jumps, tree: usize) -> Self {
        let nodes = &jumps.nodes[tree * 2 * W..][..2 * W];
        let tree = jumps.trees[tree];
        let links = &jumps.links[tree.links as usize..][..2 * W];
        Self {
            columns: load(&nodes[..W]),
            ranks: load(&nodes[W..]),
            left: load(&links[..W]),
            right: load(&links[W..]),
            root: tree.root,
            leaps: tree.levels.div_ceil(LEAP),
        }
    }

    /// Where the path of a row of `C` vectors of columns ends, in the lowest byte.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    fn end<const C: usize>(&self, row: [__m512i; C]) -> __m128i {
        let mut jumps = self.left;
        for (word, jumps) in jumps.iter_mut().enumerate() {
            let ranks = look_up(row, self.columns[word]);
            let right = _mm512_cmpgt_epu8_mask(ranks, self.ranks[word]);
            *jumps = _mm512_mask_blend_epi8(right, self.left[word], self.right[word]);
        }
        // One jump, then two, four, and in the end eight from the root on.
        jumps = jumps.map(|at| look_up(jumps, at));
        jumps = jumps.map(|at| look_up(jumps, at));
        jumps = jumps.map(|at| look_up(jumps, at));
        let mut at = _mm512_castsi128_si512(_mm_cvtsi32_si128(self.root.into()));
        for _ in 0..self.leaps {
            at = look_up(jumps, at);
        }
        _mm512_castsi512_si128(at)
    }
}

/// Places of the leaves where paths end.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn places(ends: __m512i) -> __m512i {
    let right = _mm512_set1_epi8(RIGHT as i8);
    // Subtracting -1 where the right leaf of the node is reached.
    let one = _mm512_movm_epi8(_mm512_movepi8_mask(ends));
    _mm512_sub_epi8(_mm512_andnot_si512(right, ends), one)
}

/// Places of the leaves where eight paths end: in the upper half, a byte each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn eight_places(ends: __m128i) -> [u8; PATHS] {
    let places = places(_mm512_castsi128_si512(_mm_unpackhi_epi64(ends, ends)));
    _mm_cvtsi128_si64(_mm512_castsi512_si128(places)).to_le_bytes()
}

/// Follows `EIGHTS` times eight rows of `C` vectors in each tree.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
fn one_by_one<const W: usize, const C: usize, const EIGHTS: usize>(
    jumps: &Jumps,
    ranks: &RankRows,
    trees: Range<usize>,
    out: &mut [[u8; ROWS]],
) {
    for first in (0..EIGHTS * PATHS).step_by(PATHS) {
        let mut rows = [[_mm512_setzero_si512(); C]; PATHS];
        for (number, row) in rows.iter_mut().enumerate() {
            // A vector may be longer than a row, which does not matter.
            *row = load_row(&ranks.0[(first + number) * jumps.width..]);
        }
        for (tree, out) in trees.clone().zip(&mut *out) {
            let tree = Tree::<W>::load(jumps, tree);
            let mut ends = _mm_setzero_si128();
            for row in rows {
                ends = _mm_alignr_epi8::<1>(tree.end::<C>(row), ends);
            }
            out[first..first + PATHS].copy_from_slice(&eight_places(ends));
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
fn trees<const W: usize, const C: usize>(
    jumps: &Jumps,
    ranks: &RankRows,
    trees: Range<usize>,
    out: &mut [[u8; 1]],
) {
    let row = load_row::<C>(&ranks.0);
    let last = trees.end - 1;
    for (first, out) in trees.step_by(PATHS).zip(out.chunks_mut(PATHS)) {
        let mut ends = _mm_setzero_si128();
        for tree in first..first + PATHS {
            let tree = Tree::<W>::load(jumps, tree.min(last));
            ends = _mm_alignr_epi8::<1>(tree.end::<C>(row), ends);
        }
        let places = eight_places(ends);
        let out = out.as_flattened_mut();
        // All eight of them most of the time, which is one store.
        match out.first_chunk_mut() {
            Some(out) => *out = places,
            None => out.copy_from_slice(&places[..out.len()]),
        }
    }
}
