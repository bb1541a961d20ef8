//! AVX-512 and AVX2 variants of the reductions over logits.

use super::Kernels;
use crate::simd::{Simd, exp, instantiate};

/// Values whose exponentials are summed in `f32` before they join the `f64` sum: 16 additions per lane at AVX-512.
const BLOCK: usize = 256;

/// The AVX-512 functions.
pub(super) const AVX512: Kernels = Kernels {
    max: max_avx512,
    sum_exp: sum_exp_avx512,
    position: position_avx512,
    count_above: count_above_avx512,
    next_above: next_above_avx512,
};

/// The AVX2 functions.
pub(super) const AVX2: Kernels = Kernels {
    max: max_avx2,
    sum_exp: sum_exp_avx2,
    position: position_avx2,
    count_above: count_above_avx2,
    next_above: next_above_avx2,
};

/// The low `lanes` bits.
#[inline(always)]
fn used(lanes: usize) -> u32 {
    ((1u64 << lanes) - 1) as u32
}

#[inline(always)]
fn max<S: Simd>(simd: S, row: &[f32]) -> f32 {
    let lowest = simd.splat(f32::NEG_INFINITY);
    let (mut maxima, mut nan) = ([lowest; 4], 0);
    for block in row.chunks(4 * S::LANES) {
        for (max, x) in maxima.iter_mut().zip(block.chunks(S::LANES)) {
            let v = simd.load(x);
            nan |= simd.nan(v);
            *max = simd.max(*max, simd.select_lanes(0, x.len(), v, lowest));
        }
    }
    if nan != 0 {
        return f32::NAN;
    }
    simd.max_lane(simd.max(simd.max(maxima[0], maxima[1]), simd.max(maxima[2], maxima[3])))
}

#[inline(always)]
fn sum_exp<S: Simd>(simd: S, row: &[f32], max: f32) -> f64 {
    let (max, zero) = (simd.splat(max), simd.splat(0.0));
    let mut total = 0.0;
    for block in row.chunks(BLOCK) {
        let mut sums = [zero; 2];
        for pair in block.chunks(2 * S::LANES) {
            for (sum, x) in sums.iter_mut().zip(pair.chunks(S::LANES)) {
                let e = exp(simd, simd.sub(simd.load(x), max));
                *sum = simd.add(*sum, simd.select_lanes(0, x.len(), e, zero));
            }
        }
        total += f64::from(simd.sum(simd.add(sums[0], sums[1])));
    }
    total
}

#[inline(always)]
fn position<S: Simd>(simd: S, row: &[f32], value: f32) -> Option<usize> {
    let value = simd.splat(value);
    for (index, x) in row.chunks(S::LANES).enumerate() {
        let hits = simd.equal(simd.load(x), value) & used(x.len());
        if hits != 0 {
            return Some(index * S::LANES + hits.trailing_zeros() as usize);
        }
    }
    None
}

#[inline(always)]
fn count_above<S: Simd>(simd: S, row: &[f32], value: f32) -> usize {
    let value = simd.splat(value);
    let mut count = 0;
    for x in row.chunks(S::LANES) {
        count += (simd.greater(simd.load(x), value) & used(x.len())).count_ones() as usize;
    }
    count
}

#[inline(always)]
fn next_above<S: Simd>(simd: S, row: &[f32], start: usize, value: f32) -> Option<usize> {
    let value = simd.splat(value);
    for (index, x) in row[start..].chunks(S::LANES).enumerate() {
        let hits = simd.greater(simd.load(x), value) & used(x.len());
        if hits != 0 {
            return Some(start + index * S::LANES + hits.trailing_zeros() as usize);
        }
    }
    None
}

instantiate! {
    /// Largest value.
    max => max_avx512, max_avx2(row: &[f32]) -> f32
}
instantiate! {
    /// Sum of `e^(x - max)`.
    sum_exp => sum_exp_avx512, sum_exp_avx2(row: &[f32], max: f32) -> f64
}
instantiate! {
    /// Index of the first equal value.
    position => position_avx512, position_avx2(row: &[f32], value: f32) -> Option<usize>
}
instantiate! {
    /// How many values are above.
    count_above => count_above_avx512, count_above_avx2(row: &[f32], value: f32) -> usize
}
instantiate! {
    /// Index of the first value above, from `start` on.
    next_above => next_above_avx512, next_above_avx2(row: &[f32], start: usize, value: f32) -> Option<usize>
}
