//! AVX-512 and AVX2 variants of the rotary position embedding.

use crate::simd::{Simd, instantiate};

#[inline(always)]
fn rotate<S: Simd>(simd: S, head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (first, rest) = head.split_at_mut(cos.len());
    let second = &mut rest[..cos.len()];
    let pairs = first.chunks_mut(S::LANES).zip(second.chunks_mut(S::LANES));
    for ((a, b), (cos, sin)) in pairs.zip(cos.chunks(S::LANES).zip(sin.chunks(S::LANES))) {
        let (x, y) = (simd.load(a), simd.load(b));
        let (cos, sin) = (simd.load(cos), simd.load(sin));
        simd.store(a, simd.sub(simd.mul(x, cos), simd.mul(y, sin)));
        simd.store(b, simd.fma(x, sin, simd.mul(y, cos)));
    }
}

instantiate! {
    /// Turns one head.
    rotate => rotate_avx512, rotate_avx2(head: &mut [f32], cos: &[f32], sin: &[f32])
}
