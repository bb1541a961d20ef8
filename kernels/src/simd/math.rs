//! Exponential, hyperbolic tangent and complementary error function, the same in every lane.

use crate::simd::Simd;

/// Evaluates a polynomial, highest coefficient first.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(simd: S, x: S::F, coefficients: [f32; N]) -> S::F {
    let mut y = simd.splat(coefficients[0]);
    for &c in &coefficients[1..] {
        y = simd.fma(y, x, simd.splat(c));
    }
    y
}

/// `e^x`, within 2 ulp for normal results; below -104 it is 0, above 88.73 infinite, NaN stays NaN. Range reduction
/// and coefficients of Cephes `expf`.
#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, x: S::F) -> S::F {
    // The operand order lets NaN through: `min` and `max` return their second argument then.
    let x = simd.max(simd.splat(-104.0), simd.min(simd.splat(89.0), x));
    let n = simd.round(simd.mul(x, simd.splat(std::f32::consts::LOG2_E)));
    let r = simd.fma(n, simd.splat(-0.693_359_4), x);
    let r = simd.fma(n, simd.splat(2.121_944_4e-4), r);
    let p = polynomial(
        simd,
        r,
        [
            1.987_569_1e-4,
            1.398_2e-3,
            8.333_452e-3,
            4.166_579_6e-2,
            1.666_666_5e-1,
            5.000_000_1e-1,
        ],
    );
    let y = simd.add(simd.fma(p, simd.mul(r, r), r), simd.splat(1.0));
    simd.scale_by_power(y, n)
}

/// `tanh(x)`, within 4 ulp. Cephes `tanhf`: a polynomial below 0.625, else `1 - 2 / (e^{2|x|} + 1)`.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(simd: S, x: S::F) -> S::F {
    let magnitude = simd.abs(x);
    let square = simd.mul(x, x);
    let p = polynomial(
        simd,
        square,
        [
            -5.704_988_7e-3,
            2.063_908_9e-2,
            -5.373_971_6e-2,
            1.333_144_3e-1,
            -3.333_328e-1,
        ],
    );
    let near = simd.fma(simd.mul(p, square), x, x);
    let e = exp(simd, simd.add(magnitude, magnitude));
    let far = simd.sub(
        simd.splat(1.0),
        simd.div(simd.splat(2.0), simd.add(e, simd.splat(1.0))),
    );
    simd.select_less(magnitude, simd.splat(0.625), near, simd.copy_sign(far, x))
}

/// `erfc(x)`, relative error below 2e-6 down to `erfc(4)`. Chebyshev fit of Numerical Recipes (`erfcc`, 1.2e-7)
/// plus the rounding of the exponent.
#[inline(always)]
pub(crate) fn erfc<S: Simd>(simd: S, x: S::F) -> S::F {
    let z = simd.abs(x);
    let one = simd.splat(1.0);
    let t = simd.div(one, simd.fma(simd.splat(0.5), z, one));
    let p = polynomial(
        simd,
        t,
        [
            0.170_872_77,
            -0.822_152_23,
            1.488_515_87,
            -1.135_203_98,
            0.278_868_07,
            -0.186_288_06,
            0.096_784_18,
            0.374_091_96,
            1.000_023_68,
            -1.265_512_23,
        ],
    );
    let exponent = simd.fma(simd.sub(simd.splat(0.0), z), z, p);
    let tail = simd.mul(t, exp(simd, exponent));
    simd.select_less(x, simd.splat(0.0), simd.sub(simd.splat(2.0), tail), tail)
}
