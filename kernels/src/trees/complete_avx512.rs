//! Completed trees with AVX-512: recursion over the levels, unrolled, so that results of subtrees stay in registers.

use std::arch::x86_64::*;

use super::lanes::{CompleteNode, DecideComplete};
use super::ranks::{LANES, Line};

/// The functions of each depth.
pub(super) const fn table<const HALVES: usize>() -> [DecideComplete; 6] {
    [one::<HALVES>, two::<HALVES>, three::<HALVES>, four::<HALVES>, five::<HALVES>, six::<HALVES>]
}

/// Which rows go right at a node.
///
/// # Safety
/// `ranks` has, in units of `HALVES` lines, the column that the node names.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn right<const HALVES: usize>(node: CompleteNode, ranks: *const u8) -> [__mmask64; HALVES] {
    let threshold = _mm512_set1_epi8(node.rank as i8);
    let mut right = [0; HALVES];
    for (half, right) in right.iter_mut().enumerate() {
        let offset = node.offset as usize * HALVES + half * LANES;
        // SAFETY: as the caller promises.
        let rank = unsafe { _mm512_load_si512(ranks.add(offset).cast()) };
        *right = _mm512_cmpgt_epu8_mask(rank, threshold);
    }
    right
}

/// Places below a node of the lowest level.
///
/// # Safety
/// As [`right`], for every node.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn level1<const HALVES: usize>(
    nodes: &[CompleteNode],
    at: usize,
    ranks: *const u8,
) -> [__m512i; HALVES] {
    // SAFETY: as the caller promises.
    let right = unsafe { right::<HALVES>(nodes[at], ranks) };
    let mut places = [_mm512_setzero_si512(); HALVES];
    for (place, right) in places.iter_mut().zip(right) {
        *place = _mm512_maskz_set1_epi8(right, 1);
    }
    places
}

macro_rules! level {
    ($name:ident, $below:ident, $bit:expr) => {
        /// Places below a node.
        ///
        /// # Safety
        /// As [`right`], for every node.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
        unsafe fn $name<const HALVES: usize>(
            nodes: &[CompleteNode],
            at: usize,
            ranks: *const u8,
        ) -> [__m512i; HALVES] {
            // SAFETY: as the caller promises.
            let low = unsafe { $below::<HALVES>(nodes, 2 * at + 1, ranks) };
            // SAFETY: as above.
            let high = unsafe { $below::<HALVES>(nodes, 2 * at + 2, ranks) };
            // SAFETY: as above.
            let right = unsafe { right::<HALVES>(nodes[at], ranks) };
            let mut places = low;
            for half in 0..HALVES {
                let place = _mm512_mask_blend_epi8(right[half], low[half], high[half]);
                let bit = _mm512_set1_epi8($bit);
                places[half] = _mm512_mask_add_epi8(place, right[half], place, bit);
            }
            places
        }
    };
}
level!(level2, level1, 2);
level!(level3, level2, 4);
level!(level4, level3, 8);
level!(level5, level4, 16);
level!(level6, level5, 32);

macro_rules! complete {
    ($name:ident, $level:ident, $depth:expr) => {
        /// # Safety
        /// As [`DecideComplete`] says: `ranks` holds every column that nodes name.
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
        unsafe fn $name<const HALVES: usize>(
            nodes: &[CompleteNode],
            ranks: &[Line],
            out: &mut [Line],
        ) {
            let nodes = &nodes[..(1 << $depth) - 1];
            // SAFETY: as the caller promises.
            let places = unsafe { $level::<HALVES>(nodes, 0, ranks.as_ptr().cast()) };
            for (line, place) in out.iter_mut().zip(places) {
                // SAFETY: a line is an aligned vector.
                unsafe { _mm512_store_si512(line.0.as_mut_ptr().cast(), place) };
            }
        }
    };
}
complete!(one, level1, 1);
complete!(two, level2, 2);
complete!(three, level3, 3);
complete!(four, level4, 4);
complete!(five, level5, 5);
complete!(six, level6, 6);
