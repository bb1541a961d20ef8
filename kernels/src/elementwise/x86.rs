//! AVX-512 and AVX2 variants of the element-wise kernels.

use crate::simd::{Simd, instantiate, tanh};

#[inline(always)]
fn add<S: Simd>(simd: S, y: &mut [f32], x: &[f32]) {
    for (y, x) in y.chunks_mut(S::LANES).zip(x.chunks(S::LANES)) {
        simd.store(y, simd.add(simd.load(y), simd.load(x)));
    }
}

#[inline(always)]
fn scale<S: Simd>(simd: S, x: &mut [f32], factor: f32) {
    let factor = simd.splat(factor);
    for x in x.chunks_mut(S::LANES) {
        simd.store(x, simd.mul(simd.load(x), factor));
    }
}

#[inline(always)]
fn softcap<S: Simd>(simd: S, x: &mut [f32], cap: f32) {
    let cap = simd.splat(cap);
    for x in x.chunks_mut(S::LANES) {
        simd.store(x, simd.mul(cap, tanh(simd, simd.div(simd.load(x), cap))));
    }
}

instantiate! {
    /// `y += x`.
    add => add_avx512, add_avx2(y: &mut [f32], x: &[f32])
}
instantiate! {
    /// `x *= factor`.
    scale => scale_avx512, scale_avx2(x: &mut [f32], factor: f32)
}
instantiate! {
    /// `x = cap * tanh(x / cap)`.
    softcap => softcap_avx512, softcap_avx2(x: &mut [f32], cap: f32)
}
