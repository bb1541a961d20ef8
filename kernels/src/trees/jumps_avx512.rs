//! [`super::jumps`] with AVX-512 and its byte permutations.

use std::arch::x86_64::*;
use std::ops::Range;

use super::jumps::{Follow, Jumps, PATHS, RIGHT};
use super::ranks::{GROUP_ROWS, Group, LANES, Line};

/// With [`crate::isa::Isa::Avx512Vbmi`].
pub(super) const FOLLOW: Follow = Follow {
    rows: [[rows::<1, 1>, rows::<1, 2>], [rows::<2, 1>, rows::<2, 2>]],
    trees: [[trees::<1, 1>, trees::<1, 2>], [trees::<2, 1>, trees::<2, 2>]],
};

#[inline(always)]
fn load<const N: usize>(lines: &[Line]) -> [__m512i; N] {
    let lines: &[Line; N] = lines.first_chunk().expect("as many lines");
    // SAFETY: a line is as large as a vector, and as aligned.
    lines.each_ref().map(|line| unsafe { *line.0.as_ptr().cast::<__m512i>() })
}

/// A row's ranks, of a group of that row only.
#[inline(always)]
fn load_row<const C: usize>(group: &Group) -> [__m512i; C] {
    let bytes = group.0.as_flattened().as_ptr();
    // SAFETY: a group is at least two vectors, and aligned as they are.
    std::array::from_fn(|word| unsafe { *bytes.add(word * LANES).cast::<__m512i>() })
}

/// The ranks of each row of a group.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn load_rows<const C: usize>(group: &Group) -> [[__m512i; C]; GROUP_ROWS] {
    let mut rows = [[_mm512_setzero_si512(); C]; GROUP_ROWS];
    for word in 0..C {
        let bytes = group.0[word * LANES..][..LANES].as_flattened().as_ptr();
        // SAFETY: these are eight vectors.
        let eight = std::array::from_fn(|at| unsafe { *bytes.add(at * LANES).cast::<__m512i>() });
        for (row, ranks) in rows.iter_mut().zip(transpose(eight)) {
            row[word] = ranks;
        }
    }
    rows
}

/// Turns 64 columns of eight rows into eight rows of 64 columns.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn transpose(columns: [__m512i; 8]) -> [__m512i; 8] {
    const EIGHT_BY_EIGHT: [u8; LANES] = {
        let mut index = [0; LANES];
        let mut at = 0;
        while at < LANES {
            index[at] = (at % 8 * 8 + at / 8) as u8;
            at += 1;
        }
        index
    };
    // SAFETY: it is as large as a vector.
    let index = unsafe { _mm512_loadu_si512(EIGHT_BY_EIGHT.as_ptr().cast()) };
    // Eight columns of a row in each 64 bits, then 16 in each 128, then all.
    let eights = columns.map(|columns| _mm512_permutexvar_epi8(index, columns));
    let mut rows = [index; 8];
    for odd in 0..2 {
        let [a, b, c, d] = [0, 2, 4, 6].map(|at| match odd {
            0 => _mm512_unpacklo_epi64(eights[at], eights[at + 1]),
            _ => _mm512_unpackhi_epi64(eights[at], eights[at + 1]),
        });
        let [ab, cd] = [(a, b), (c, d)].map(|(a, b)| _mm512_shuffle_i64x2::<0x44>(a, b));
        rows[odd] = _mm512_shuffle_i64x2::<0x88>(ab, cd);
        rows[odd + 2] = _mm512_shuffle_i64x2::<0xdd>(ab, cd);
        let [ab, cd] = [(a, b), (c, d)].map(|(a, b)| _mm512_shuffle_i64x2::<0xee>(a, b));
        rows[odd + 4] = _mm512_shuffle_i64x2::<0x88>(ab, cd);
        rows[odd + 6] = _mm512_shuffle_i64x2::<0xdd>(ab, cd);
    }
    rows
}

/// The bytes of a table of `N` vectors at `index`: at its low six bits, or seven when there are two vectors.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn look_up<const N: usize>(table: [__m512i; N], index: __m512i) -> __m512i {
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
            leaps: tree.leaps,
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

/// Places of the leaves where eight paths end: in the upper half, a byte each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn places(ends: __m128i) -> [u32; PATHS] {
    let right = _mm_set1_epi8(RIGHT as i8);
    let node = _mm_andnot_si128(right, ends);
    // Subtracting -1 where the right leaf of the node is reached.
    let right = _mm_movm_epi8(_mm_test_epi8_mask(ends, right));
    let places = _mm256_cvtepu8_epi32(_mm_unpackhi_epi64(_mm_sub_epi8(node, right), ends));
    let mut out = [0; PATHS];
    // SAFETY: eight numbers are written.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), places) };
    out
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
fn rows<const W: usize, const C: usize>(
    jumps: &Jumps,
    group: &Group,
    trees: Range<usize>,
    out: &mut [[u32; PATHS]],
) {
    let rows = load_rows::<C>(group);
    for (tree, out) in trees.zip(out) {
        let tree = Tree::<W>::load(jumps, tree);
        let mut ends = _mm_setzero_si128();
        for row in rows {
            ends = _mm_alignr_epi8::<1>(tree.end::<C>(row), ends);
        }
        *out = places(ends);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
fn trees<const W: usize, const C: usize>(
    jumps: &Jumps,
    group: &Group,
    trees: Range<usize>,
    out: &mut [[u32; 1]],
) {
    let row = load_row::<C>(group);
    let last = trees.end - 1;
    for (first, out) in trees.step_by(PATHS).zip(out.chunks_mut(PATHS)) {
        let mut ends = _mm_setzero_si128();
        for tree in first..first + PATHS {
            let tree = Tree::<W>::load(jumps, tree.min(last));
            ends = _mm_alignr_epi8::<1>(tree.end::<C>(row), ends);
        }
        out.iter_mut().zip(places(ends)).for_each(|(out, place)| *out = [place]);
    }
}
