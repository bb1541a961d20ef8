//! AVX-512 and AVX2 variants of the layer norm.

use super::Norm;
use crate::simd::{Simd, instantiate};

#[inline(always)]
fn layer_norm<S: Simd>(simd: S, norm: &Norm<'_>, row: &mut [f32]) {
    let width = row.len() as f32;
    let zero = simd.splat(0.0);
    let mean = simd.splat(
        sum_of(
            simd,
            row,
            #[inline(always)]
            |x, _| x,
        ) / width,
    );
    let squares = sum_of(
        simd,
        row,
        #[inline(always)]
        |x, lanes| {
            // Lanes past the end of the row are no distance from the mean.
            let distance = simd.select_lanes(0, lanes, simd.sub(x, mean), zero);
            simd.mul(distance, distance)
        },
    );
    let scale = simd.splat(1.0 / (squares / width + norm.eps).sqrt());
    for (index, x) in row.chunks_mut(S::LANES).enumerate() {
        let first = index * S::LANES;
        let weight = simd.load(&norm.weight[first..]);
        let bias = norm.bias.map_or(zero, |bias| simd.load(&bias[first..]));
        let distance = simd.sub(simd.load(x), mean);
        simd.store(x, simd.fma(simd.mul(distance, scale), weight, bias));
    }
}

/// Sum of `term(values, lanes in use)` over the row, in four running sums.
#[inline(always)]
fn sum_of<S: Simd>(simd: S, row: &[f32], term: impl Fn(S::F, usize) -> S::F) -> f32 {
    let mut sums = [simd.splat(0.0); 4];
    for x in row.chunks(4 * S::LANES) {
        for (sum, x) in sums.iter_mut().zip(x.chunks(S::LANES)) {
            *sum = simd.add(*sum, term(simd.load(x), x.len()));
        }
    }
    simd.sum(simd.add(simd.add(sums[0], sums[1]), simd.add(sums[2], sums[3])))
}

instantiate! {
    /// Normalises one row in place.
    layer_norm => layer_norm_avx512, layer_norm_avx2(norm: &Norm<'_>, row: &mut [f32])
}
