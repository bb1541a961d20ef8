//! AVX-512 and AVX2 variants of the RMS norm.

use super::Norm;
use crate::simd::{Simd, instantiate};

#[inline(always)]
fn rms_norm<S: Simd>(simd: S, norm: &Norm<'_>, row: &mut [f32]) {
    let squares = sum_of_squares(simd, row);
    let scale = simd.splat(1.0 / (squares / row.len() as f32 + norm.eps).sqrt());
    let offset = simd.splat(norm.weight_offset);
    for (x, weight) in row.chunks_mut(S::LANES).zip(norm.weight.chunks(S::LANES)) {
        let weight = simd.add(simd.load(weight), offset);
        let y = simd.mul(simd.mul(simd.load(x), scale), weight);
        simd.store(x, y);
    }
}

/// Four running sums, so that additions do not wait for each other.
#[inline(always)]
fn sum_of_squares<S: Simd>(simd: S, row: &[f32]) -> f32 {
    let mut sums = [simd.splat(0.0); 4];
    for x in row.chunks(4 * S::LANES) {
        for (sum, x) in sums.iter_mut().zip(x.chunks(S::LANES)) {
            let x = simd.load(x);
            *sum = simd.fma(x, x, *sum);
        }
    }
    simd.sum(simd.add(simd.add(sums[0], sums[1]), simd.add(sums[2], sums[3])))
}

instantiate! {
    /// Normalises one row in place.
    rms_norm => rms_norm_avx512, rms_norm_avx2(norm: &Norm<'_>, row: &mut [f32])
}
