//! AVX-512 and AVX2 variants of the activation functions.

use super::Activation;
use crate::simd::{Simd, erfc, exp, instantiate, tanh};

/// `x / (1 + e^(-slope x))`.
#[inline(always)]
fn sigmoid_times<S: Simd>(simd: S, x: S::F, slope: f32) -> S::F {
    let e = exp(simd, simd.mul(x, simd.splat(-slope)));
    simd.div(x, simd.add(simd.splat(1.0), e))
}

#[inline(always)]
fn gelu_tanh<S: Simd>(simd: S, x: S::F) -> S::F {
    // sqrt(2 / pi), and 0.044715 times it.
    let (a, b) = (simd.splat(0.797_884_6), simd.splat(0.035_677_408));
    let inner = simd.mul(x, simd.fma(simd.mul(x, x), b, a));
    // Above 10 the hyperbolic tangent is 1; the bound keeps the cube of huge values from mattering.
    let inner = simd.max(simd.splat(-10.0), simd.min(simd.splat(10.0), inner));
    let half = simd.mul(simd.splat(0.5), x);
    simd.fma(half, tanh(simd, inner), half)
}

#[inline(always)]
fn gelu<S: Simd>(simd: S, x: S::F) -> S::F {
    let tail = erfc(simd, simd.mul(x, simd.splat(-std::f32::consts::FRAC_1_SQRT_2)));
    simd.mul(simd.mul(simd.splat(0.5), x), tail)
}

#[inline(always)]
fn relu<S: Simd>(simd: S, x: S::F) -> S::F {
    // `max` returns its second operand at NaN.
    simd.max(simd.splat(0.0), x)
}

/// Calls `$body` with `$value` bound to the function, chosen once for the whole slice.
macro_rules! with_function {
    ($simd:ident, $f:ident, $body:ident ( $($arg:expr),* )) => {
        match $f {
            Activation::Silu => {
                $body($simd, $($arg,)* #[inline(always)] |x| sigmoid_times($simd, x, 1.0))
            }
            Activation::GeluTanh => {
                $body($simd, $($arg,)* #[inline(always)] |x| gelu_tanh($simd, x))
            }
            Activation::Gelu => $body($simd, $($arg,)* #[inline(always)] |x| gelu($simd, x)),
            Activation::Relu => $body($simd, $($arg,)* #[inline(always)] |x| relu($simd, x)),
            Activation::QuickGelu => {
                $body($simd, $($arg,)* #[inline(always)] |x| sigmoid_times($simd, x, 1.702))
            }
        }
    };
}

#[inline(always)]
fn map<S: Simd>(simd: S, x: &mut [f32], f: impl Fn(S::F) -> S::F) {
    for x in x.chunks_mut(S::LANES) {
        simd.store(x, f(simd.load(x)));
    }
}

#[inline(always)]
fn map_mul<S: Simd>(simd: S, gate: &[f32], up: &[f32], out: &mut [f32], f: impl Fn(S::F) -> S::F) {
    let inputs = gate.chunks(S::LANES).zip(up.chunks(S::LANES));
    for (out, (gate, up)) in out.chunks_mut(S::LANES).zip(inputs) {
        simd.store(out, simd.mul(f(simd.load(gate)), simd.load(up)));
    }
}

#[inline(always)]
fn act<S: Simd>(simd: S, f: Activation, x: &mut [f32]) {
    with_function!(simd, f, map(x));
}

#[inline(always)]
fn act_mul<S: Simd>(simd: S, f: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    with_function!(simd, f, map_mul(gate, up, out));
}

instantiate! {
    /// `x = f(x)`.
    act => act_avx512, act_avx2(f: Activation, x: &mut [f32])
}
instantiate! {
    /// `out = f(gate) * up`.
    act_mul => act_mul_avx512, act_mul_avx2(f: Activation, gate: &[f32], up: &[f32], out: &mut [f32])
}
