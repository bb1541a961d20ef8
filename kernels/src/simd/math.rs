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
        [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5],
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
        [-5.704_988_7e-3, 2.063_909e-2, -5.373_971_6e-2, 1.333_144_3e-1, -3.333_328e-1],
    );
    let near = simd.fma(simd.mul(p, square), x, x);
    let e = exp(simd, simd.add(magnitude, magnitude));
    let far = simd.sub(simd.splat(1.0), simd.div(simd.splat(2.0), simd.add(e, simd.splat(1.0))));
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
            1.488_515_9,
            -1.135_204,
            0.278_868_07,
            -0.186_288_06,
            0.096_784_18,
            0.374_091_96,
            1.000_023_7,
            -1.265_512_2,
        ],
    );
    let exponent = simd.fma(simd.sub(simd.splat(0.0), z), z, p);
    let tail = simd.mul(t, exp(simd, exponent));
    simd.select_less(x, simd.splat(0.0), simd.sub(simd.splat(2.0), tail), tail)
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::simd::{Avx2, Avx512, instantiate};

    #[inline(always)]
    fn apply_exp<S: Simd>(simd: S, x: &mut [f32]) {
        for x in x.chunks_mut(S::LANES) {
            simd.store(x, exp(simd, simd.load(x)));
        }
    }

    #[inline(always)]
    fn apply_tanh<S: Simd>(simd: S, x: &mut [f32]) {
        for x in x.chunks_mut(S::LANES) {
            simd.store(x, tanh(simd, simd.load(x)));
        }
    }

    instantiate! { apply_exp => exp_avx512, exp_avx2(x: &mut [f32]) }
    instantiate! { apply_tanh => tanh_avx512, tanh_avx2(x: &mut [f32]) }

    /// Largest distance from the rounded `f64` result, in units of the last place.
    fn worst(inputs: &[f32], apply: fn(&mut [f32]), want: fn(f64) -> f64) -> f64 {
        let mut got = inputs.to_vec();
        apply(&mut got);
        let error = |(&x, &got): (&f32, &f32)| {
            let want = want(f64::from(x));
            let ulp = f64::from((want as f32).abs().next_up()) - f64::from((want as f32).abs());
            (f64::from(got) - want).abs() / ulp
        };
        inputs.iter().zip(&got).map(error).fold(0.0, f64::max)
    }

    /// Every 5000th bit pattern from `low` to `high`, both signs.
    fn grid(low: f32, high: f32) -> Vec<f32> {
        (low.to_bits()..high.to_bits())
            .step_by(5000)
            .flat_map(|bits| [f32::from_bits(bits), -f32::from_bits(bits)])
            .collect()
    }

    fn supported(avx512: fn(&mut [f32]), avx2: fn(&mut [f32])) -> Vec<fn(&mut [f32])> {
        let mut functions = vec![];
        functions.extend(Avx512::detect().map(|_| avx512));
        functions.extend(Avx2::detect().map(|_| avx2));
        functions
    }

    #[test]
    fn exp_is_within_two_units() {
        for apply in supported(exp_avx512, exp_avx2) {
            let worst = worst(&grid(1e-30, 87.3), apply, f64::exp);
            assert!(worst <= 2.0, "{worst} ulp");
        }
    }

    #[test]
    fn tanh_is_within_four_units() {
        for apply in supported(tanh_avx512, tanh_avx2) {
            let worst = worst(&grid(1e-30, 20.0), apply, f64::tanh);
            assert!(worst <= 4.0, "{worst} ulp");
        }
    }

    #[test]
    fn exp_ends_in_zero_infinity_and_nan() {
        for apply in supported(exp_avx512, exp_avx2) {
            let mut x =
                [f32::NEG_INFINITY, -1e9, -104.5, 0.0, -0.0, 88.7, 88.8, 1e9, f32::INFINITY];
            apply(&mut x);
            assert_eq!(x[..5], [0.0, 0.0, 0.0, 1.0, 1.0]);
            assert!(x[5].is_finite() && x[6..].iter().all(|&x| x == f32::INFINITY), "{x:?}");
            let mut nan = [f32::NAN];
            apply(&mut nan);
            assert!(nan[0].is_nan());
        }
    }
}
