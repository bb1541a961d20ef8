//! The normal distribution: its cumulative function and the inverse of it.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// The complementary error function, to about 1e-14 relative.
fn erfc(x: f64) -> f64 {
    if x < 0.0 {
        return 2.0 - erfc(-x);
    }
    if x < 1.5 {
        // erf(x) = 2/sqrt(pi) exp(-x^2) sum of 2^n x^(2n+1) / (2n+1)!!: all terms are positive.
        let (mut term, mut sum, mut n) = (x, x, 1.0);
        while term > sum * 1e-17 {
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
            n += 1.0;
        }
        return 1.0 - 2.0 / PI.sqrt() * (-x * x).exp() * sum;
    }
    if x > 27.0 {
        return 0.0;
    }
    // The continued fraction 1/(x + (1/2)/(x + (2/2)/(x + ...))), from its tail; 200 terms suffice from 1.5 on.
    let tail = (1..200).rev().fold(x, |tail, n| x + 0.5 * f64::from(n) / tail);
    (-x * x).exp() / PI.sqrt() / tail
}

/// The probability of values below `x`.
pub(super) fn cumulative(x: f64) -> f64 {
    0.5 * erfc(-x * FRAC_1_SQRT_2)
}

/// The value below which others are with probability `p`; infinite at 0 and 1, NaN outside.
pub(super) fn quantile(p: f64) -> f64 {
    if !(0.0..=1.0).contains(&p) {
        return f64::NAN;
    }
    if p == 0.0 {
        return f64::NEG_INFINITY;
    }
    if p == 0.5 {
        return 0.0;
    }
    if p > 0.5 {
        return -quantile(1.0 - p);
    }
    // A first guess to 5e-4 (Abramowitz and Stegun 26.2.23), then Halley's method, which triples the digits.
    let t = (-2.0 * p.ln()).sqrt();
    let above = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let below = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    let mut x = above / below - t;
    for _ in 0..3 {
        let error = (cumulative(x) - p) * (2.0 * PI).sqrt() * (x * x / 2.0).exp();
        x -= error / (1.0 + x * error / 2.0);
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_scipys() {
        // scipy.special.ndtri and ndtr.
        for (p, wanted) in [
            (1e-7, -5.199_337_582_192_816),
            (0.001, -3.090_232_306_167_813_5),
            (0.025, -1.959_963_984_540_054_5),
            (0.3, -0.524_400_512_708_040_9),
            (0.975, 1.959_963_984_540_054),
        ] {
            assert!((quantile(p) - wanted).abs() < 1e-13 * wanted.abs(), "{p}: {}", quantile(p));
            assert!((cumulative(wanted) / p - 1.0).abs() < 1e-13, "{p}: {}", cumulative(wanted));
        }
        assert_eq!(quantile(0.5), 0.0);
        assert!(quantile(-0.1).is_nan() && quantile(0.0) == f64::NEG_INFINITY);
    }
}
