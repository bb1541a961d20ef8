//! A row's [`super::jumps`] with AVX-512 and its byte permutations.

use std::arch::x86_64::*;
use std::ops::Range;

use super::jumps::{Follow, FollowRows, Jumps, RIGHT};
use super::paths_avx512::rows;
use super::ranks::{LANES, Line, RankRows};

/// With [`crate::isa::Isa::Avx512Vbmi`].
pub(super) const FOLLOW: Follow = Follow {
    rows: [of_rows::<4>(), of_rows::<2>()],
    trees: [[trees::<1, 1>, trees::<1, 2>], [trees::<2, 1>, trees::<2, 2>]],
};

/// Loops for vectors of `TREES` trees.
const fn of_rows<const TREES: usize>() -> [[FollowRows; 3]; 2] {
    [
        [rows::<1, 1, TREES>, rows::<1, 2, TREES>, rows::<1, 4, TREES>],
        [rows::<2, 1, TREES>, rows::<2, 2, TREES>, rows::<2, 4, TREES>],
    ]
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

/// The ranks of the first row.
#[inline(always)]
fn load_row<const C: usize>(ranks: &RankRows) -> [__m512i; C] {
    let vectors: &[[u8; LANES]; C] = ranks.0.as_chunks().0.first_chunk().expect("two vectors");
    // SAFETY: the ranks are aligned as vectors are.
    vectors.each_ref().map(|bytes| unsafe { *bytes.as_ptr().cast::<__m512i>() })
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

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
fn trees<const W: usize, const C: usize>(
    jumps: &Jumps,
    ranks: &RankRows,
    trees: Range<usize>,
    out: &mut [[u8; 1]],
) {
    let row = load_row::<C>(ranks);
    let last = trees.end - 1;
    for (first, out) in trees.step_by(PATHS).zip(out.chunks_mut(PATHS)) {
        let mut ends = _mm_setzero_si128();
        for tree in first..first + PATHS {
            let tree = Tree::<W>::load(jumps, tree.min(last));
            ends = _mm_alignr_epi8::<1>(tree.end::<C>(row), ends);
        }
        let places = places(_mm512_castsi128_si512(_mm_unpackhi_epi64(ends, ends)));
        let places = _mm_cvtsi128_si64(_mm512_castsi512_si128(places)).to_le_bytes();
        let out = out.as_flattened_mut();
        out.copy_from_slice(&places[..out.len()]);
    }
}
