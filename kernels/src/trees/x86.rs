//! AVX-512 and AVX2 variants of the inner loops. Where the compiler makes of the portable loops what a hand would, they
//! are those, compiled for the instruction set.

use std::arch::x86_64::*;
use std::ops::Range;

use super::columns::Reader;
use super::complete_avx512;
use super::jumps_avx512;
use super::lanes::{Kernels, Node, add, decide};
use super::ranks::{Block, Feature, GROUP, LANES, Line, RankRows, fill, fill_rows};

/// With [`crate::isa::Isa::Avx2`].
pub(super) const AVX2: Kernels = Kernels {
    fill_i32: fill_i32_avx2,
    fill_rows_i32: fill_rows_i32_avx2,
    fill_i64: fill_i64_avx2,
    fill_rows_i64: fill_rows_i64_avx2,
    decide: [decide_avx2::<1>, decide_avx2::<2>],
    complete: None,
    follow: None,
    add_f32: add,
    add_f64: add,
};

/// With [`crate::isa::Isa::Avx512`].
pub(super) const AVX512: Kernels = Kernels {
    fill_i32: fill_i32_avx512,
    fill_rows_i32: fill_rows_i32_avx512,
    fill_i64: fill_i64_avx512,
    fill_rows_i64: fill_rows_i64_avx512,
    decide: [decide_avx512::<1>, decide_avx512::<2>],
    complete: Some([complete_avx512::table::<1>(), complete_avx512::table::<2>()]),
    follow: None,
    add_f32: add_f32_avx512,
    add_f64: add_f64_avx512,
};

/// With [`crate::isa::Isa::Avx512Vbmi`].
pub(super) const AVX512_VBMI: Kernels = Kernels { follow: Some(jumps_avx512::FOLLOW), ..AVX512 };

/// How many of a group are below a key.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn count_i32_avx2(group: &[i32; GROUP], key: i32) -> u32 {
    let key = _mm256_set1_epi32(key);
    let [low, high] = [0, 8].map(|from| {
        // SAFETY: eight of the sixteen numbers are behind `from`.
        let group = unsafe { _mm256_loadu_si256(group.as_ptr().add(from).cast()) };
        _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(key, group)))
    });
    (low | high << 8).count_ones()
}

#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn fill_i32_avx2(feature: &Feature<i32>, reader: Reader<'_>, block: Block, ranks: &mut [Line]) {
    fill(feature, reader, block, ranks, |group, key| count_i32_avx2(group, key));
}

#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn fill_rows_i32_avx2(
    features: &[Feature<i32>],
    reader: Reader<'_>,
    rows: Range<usize>,
    width: usize,
    out: &mut RankRows,
) {
    fill_rows(features, reader, rows, width, out, |group, key| count_i32_avx2(group, key));
}

/// How many of a group are below a key.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn count_i64_avx2(group: &[i64; GROUP], key: i64) -> u32 {
    let key = _mm256_set1_epi64x(key);
    let masks = [0, 4, 8, 12].map(|from| {
        // SAFETY: four of the sixteen numbers are behind `from`.
        let group = unsafe { _mm256_loadu_si256(group.as_ptr().add(from).cast()) };
        _mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpgt_epi64(key, group))) << from
    });
    masks.into_iter().fold(0, |all, mask| all | mask).count_ones()
}

#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn fill_i64_avx2(feature: &Feature<i64>, reader: Reader<'_>, block: Block, ranks: &mut [Line]) {
    fill(feature, reader, block, ranks, |group, key| count_i64_avx2(group, key));
}

#[target_feature(enable = "avx2,fma,f16c,popcnt")]
fn fill_rows_i64_avx2(
    features: &[Feature<i64>],
    reader: Reader<'_>,
    rows: Range<usize>,
    width: usize,
    out: &mut RankRows,
) {
    fill_rows(features, reader, rows, width, out, |group, key| count_i64_avx2(group, key));
}

#[target_feature(enable = "avx2,fma,f16c")]
fn decide_avx2<const HALVES: usize>(
    nodes: &[Node],
    ranks: &[Line],
    slots: &mut [Line],
    nodes_from: usize,
) {
    decide::<HALVES>(nodes, ranks, slots, nodes_from);
}

/// How many of a group are below a key.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
fn count_i32_avx512(group: &[i32; GROUP], key: i32) -> u32 {
    // SAFETY: sixteen numbers are read.
    let group = unsafe { _mm512_loadu_si512(group.as_ptr().cast()) };
    u32::from(_mm512_cmplt_epi32_mask(group, _mm512_set1_epi32(key))).count_ones()
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
fn fill_i32_avx512(feature: &Feature<i32>, reader: Reader<'_>, block: Block, ranks: &mut [Line]) {
    fill(feature, reader, block, ranks, |group, key| count_i32_avx512(group, key));
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
fn fill_rows_i32_avx512(
    features: &[Feature<i32>],
    reader: Reader<'_>,
    rows: Range<usize>,
    width: usize,
    out: &mut RankRows,
) {
    fill_rows(features, reader, rows, width, out, |group, key| count_i32_avx512(group, key));
}

/// How many of a group are below a key.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
fn count_i64_avx512(group: &[i64; GROUP], key: i64) -> u32 {
    let key = _mm512_set1_epi64(key);
    // SAFETY: the first eight of sixteen numbers are read.
    let low = unsafe { _mm512_loadu_si512(group.as_ptr().cast()) };
    // SAFETY: the last eight of sixteen numbers are read.
    let high = unsafe { _mm512_loadu_si512(group.as_ptr().add(8).cast()) };
    let [low, high] = [low, high].map(|group| _mm512_cmplt_epi64_mask(group, key).into());
    u32::from(_mm512_kunpackb(high, low)).count_ones()
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
fn fill_i64_avx512(feature: &Feature<i64>, reader: Reader<'_>, block: Block, ranks: &mut [Line]) {
    fill(feature, reader, block, ranks, |group, key| count_i64_avx512(group, key));
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
fn fill_rows_i64_avx512(
    features: &[Feature<i64>],
    reader: Reader<'_>,
    rows: Range<usize>,
    width: usize,
    out: &mut RankRows,
) {
    fill_rows(features, reader, rows, width, out, |group, key| count_i64_avx512(group, key));
}

/// # Safety
/// As [`super::lanes::Decide`] says: `ranks` and `slots` hold all that the nodes name, in units of `HALVES` lines.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn decide_avx512<const HALVES: usize>(
    nodes: &[Node],
    ranks: &[Line],
    slots: &mut [Line],
    nodes_from: usize,
) {
    assert!(slots.len() >= (nodes_from + nodes.len()) * HALVES, "a slot for each node");
    let slots = slots.as_mut_ptr().cast::<u8>();
    let ranks = ranks.as_ptr().cast::<u8>();
    let at = |offset: u32| offset as usize * HALVES;
    for (index, node) in nodes.iter().enumerate().rev() {
        let threshold = _mm512_set1_epi8(node.rank as i8);
        for half in 0..HALVES {
            let half = half * LANES;
            // SAFETY: the caller has ranks of every column that nodes name.
            let rank = unsafe { _mm512_load_si512(ranks.add(at(node.column) + half).cast()) };
            // SAFETY: the caller has slots of everything that nodes name.
            let left = unsafe { _mm512_load_si512(slots.add(at(node.left) + half).cast()) };
            // SAFETY: as above.
            let right = unsafe { _mm512_load_si512(slots.add(at(node.right) + half).cast()) };
            let chosen =
                _mm512_mask_blend_epi8(_mm512_cmpgt_epu8_mask(rank, threshold), left, right);
            // SAFETY: the slots of all nodes are there, as asserted.
            unsafe {
                _mm512_store_si512(
                    slots.add((nodes_from + index) * HALVES * LANES + half).cast(),
                    chosen,
                )
            };
        }
    }
}

/// The low `n` bits.
fn low_mask(n: usize) -> u16 {
    ((1u32 << n.min(16)) - 1) as u16
}

/// # Safety
/// As [`super::lanes::Add`] says: `ids` are leaves of `values`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn add_f32_avx512(
    sums: &mut [f32],
    values: &[f32],
    ids: &[u32],
    width: usize,
    position: usize,
) {
    let tables = (width == 1 && values.len() <= 64).then(|| {
        [0, 16, 32, 48].map(|from| {
            let mask = low_mask(values.len().saturating_sub(from));
            // SAFETY: the mask covers what is behind `from`; the address is used only with bits set.
            unsafe { _mm512_maskz_loadu_ps(mask, values.as_ptr().wrapping_add(from)) }
        })
    });
    let (width, position) = (_mm512_set1_epi32(width as i32), _mm512_set1_epi32(position as i32));
    for (sums, ids) in sums.chunks_mut(16).zip(ids.chunks(16)) {
        let mask = low_mask(sums.len().min(ids.len()));
        // SAFETY: the mask covers the chunk.
        let ids = unsafe { _mm512_maskz_loadu_epi32(mask, ids.as_ptr().cast()) };
        let value = if let Some([a, b, c, d]) = tables {
            let upper = _mm512_test_epi32_mask(ids, _mm512_set1_epi32(32));
            let [low, high] = [(a, b), (c, d)].map(|(a, b)| _mm512_permutex2var_ps(a, ids, b));
            _mm512_mask_blend_ps(upper, low, high)
        } else {
            let index = _mm512_add_epi32(_mm512_mullo_epi32(ids, width), position);
            let zero = _mm512_setzero_ps();
            // SAFETY: the caller's ids are leaves of `values`, and the mask covers them.
            unsafe { _mm512_mask_i32gather_ps::<4>(zero, mask, index, values.as_ptr()) }
        };
        // SAFETY: the mask covers the chunk.
        let sum = unsafe { _mm512_maskz_loadu_ps(mask, sums.as_ptr()) };
        // SAFETY: as above.
        unsafe { _mm512_mask_storeu_ps(sums.as_mut_ptr(), mask, _mm512_add_ps(sum, value)) };
    }
}

/// # Safety
/// As [`super::lanes::Add`] says: `ids` are leaves of `values`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn add_f64_avx512(
    sums: &mut [f64],
    values: &[f64],
    ids: &[u32],
    width: usize,
    position: usize,
) {
    let (width, position) = (_mm256_set1_epi32(width as i32), _mm256_set1_epi32(position as i32));
    for (sums, ids) in sums.chunks_mut(8).zip(ids.chunks(8)) {
        let mask = low_mask(sums.len().min(ids.len())) as u8;
        // SAFETY: the mask covers the chunk.
        let ids = unsafe { _mm256_maskz_loadu_epi32(mask, ids.as_ptr().cast()) };
        let index = _mm256_add_epi32(_mm256_mullo_epi32(ids, width), position);
        let zero = _mm512_setzero_pd();
        // SAFETY: the caller's ids are leaves of `values`, and the mask covers them.
        let value = unsafe { _mm512_mask_i32gather_pd::<8>(zero, mask, index, values.as_ptr()) };
        // SAFETY: the mask covers the chunk.
        let sum = unsafe { _mm512_maskz_loadu_pd(mask, sums.as_ptr()) };
        // SAFETY: as above.
        unsafe { _mm512_mask_storeu_pd(sums.as_mut_ptr(), mask, _mm512_add_pd(sum, value)) };
    }
}
