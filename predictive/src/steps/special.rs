//! Special functions that the standard library lacks: the error function and digamma.

/// Terms of the series and of the continued fraction below that always suffice.
const TERMS: usize = 200;

/// The error function, to about 1e-15: its Taylor series below 3, the continued fraction of its complement above.
pub(crate) fn erf(x: f64) -> f64 {
    let size = x.abs();
    if x.is_nan() {
        return x;
    }
    if size > 6.0 {
        return x.signum();
    }
    let square = x * x;
    let root_pi = std::f64::consts::PI.sqrt();
    if size < 3.0 {
        // erf x = 2 / sqrt(pi) * exp(-x^2) * sum of x (2 x^2)^n / (1 * 3 * 5 ... (2n + 1)): all terms positive.
        let (mut term, mut sum) = (x, x);
        for n in 1..TERMS {
            term *= 2.0 * square / (2 * n + 1) as f64;
            sum += term;
            if term.abs() < sum.abs() * 1e-17 {
                break;
            }
        }
        return 2.0 / root_pi * (-square).exp() * sum;
    }
    // erfc x = exp(-x^2) / sqrt(pi) / (x + (1/2) / (x + 1 / (x + (3/2) / (x + ...)))), from the inside out.
    let tail = (1..TERMS).rev().fold(size, |inner, n| size + n as f64 / 2.0 / inner);
    x.signum() * (1.0 - (-square).exp() / root_pi / tail)
}

/// The logarithmic derivative of the gamma function for positive arguments: recurrence up to 10, then the asymptotic
/// series (Abramowitz and Stegun 6.3.18).
pub(crate) fn digamma(x: f64) -> f64 {
    let (mut x, mut shift) = (x, 0.0);
    if x.is_nan() || x <= 0.0 {
        return f64::NAN;
    }
    while x < 10.0 {
        shift -= 1.0 / x;
        x += 1.0;
    }
    let inverse = 1.0 / (x * x);
    let series = inverse
        * (1.0 / 12.0
            - inverse
                * (1.0 / 120.0
                    - inverse
                        * (1.0 / 252.0
                            - inverse
                                * (1.0 / 240.0
                                    - inverse * (1.0 / 132.0 - inverse * 691.0 / 32760.0)))));
    shift + x.ln() - 0.5 / x - series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_the_tables() {
        let check = |got: f64, wanted: f64| assert!((got - wanted).abs() < 2e-15, "{got} {wanted}");
        // scipy.special.erf and digamma.
        check(erf(0.0), 0.0);
        check(erf(0.1), 0.1124629160182849);
        check(erf(1.0), 0.8427007929497149);
        check(erf(-2.9), -0.9999589021219005);
        check(erf(3.1), 0.9999883513426328);
        check(erf(7.0), 1.0);
        check(digamma(1.0), -0.5772156649015329);
        check(digamma(0.5), -1.9635100260214235);
        check(digamma(12.5), 2.485195651274913);
    }
}
