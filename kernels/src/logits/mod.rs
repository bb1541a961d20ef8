//! Reductions over one row of logits: sums, maxima, ranks and the best few.
//!
//! These run on the calling thread: one row of 49 to 256 thousand values takes tens of microseconds and the rows of a
//! step are independent, so the caller splits rows. Ties always go to the lower token id.

mod top_k;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::elementwise::{SCALE_VARIANTS, SOFTCAP_VARIANTS};
use crate::isa::{Isa, Variant, select};

/// The functions of one instruction set.
#[derive(Clone, Copy, Debug)]
pub struct Kernels {
    /// Largest value (NaN when any value is NaN, `-inf` without values).
    pub max: fn(row: &[f32]) -> f32,
    /// Sum of `e^(x - max)`, for a finite `max` at or above every value.
    pub sum_exp: fn(row: &[f32], max: f32) -> f64,
    /// Index of the first value that equals `value`.
    pub position: fn(row: &[f32], value: f32) -> Option<usize>,
    /// How many values are above `value`.
    pub count_above: fn(row: &[f32], value: f32) -> usize,
    /// Index of the first value above `value`, at or after `start`.
    pub next_above: fn(row: &[f32], start: usize, value: f32) -> Option<usize>,
}

/// Every variant, reference first; the last one this machine supports is used.
pub static VARIANTS: &[Variant<Kernels>] = &[
    Variant {
        name: "reference",
        isa: Isa::Scalar,
        run: Kernels {
            max: max_reference,
            sum_exp: sum_exp_reference,
            position: position_reference,
            count_above: count_above_reference,
            next_above: next_above_reference,
        },
    },
    #[cfg(target_arch = "x86_64")]
    Variant { name: "avx2", isa: Isa::Avx2, run: x86::AVX2 },
    #[cfg(target_arch = "x86_64")]
    Variant { name: "avx512", isa: Isa::Avx512, run: x86::AVX512 },
];

/// The largest value and the logarithm of the sum of exponentials: `(max, log(sum(e^x)))`. Both are NaN when a value
/// is, both `-inf` for a row without a value above `-inf`, both `inf` when a value is.
pub fn log_sum_exp(row: &[f32]) -> (f32, f32) {
    let kernels = &select(VARIANTS).run;
    let max = (kernels.max)(row);
    if !max.is_finite() {
        return (max, max);
    }
    let sum = (kernels.sum_exp)(row, max);
    (max, (f64::from(max) + sum.ln()) as f32)
}

/// Index and value of the largest value, the lowest index at ties; `None` for an empty row or one that holds NaN.
pub fn argmax(row: &[f32]) -> Option<(usize, f32)> {
    let kernels = &select(VARIANTS).run;
    let max = (kernels.max)(row);
    // A NaN equals nothing, so it has no position.
    (kernels.position)(row, max).map(|index| (index, max))
}

/// Rank of token `id` among the row, 1 for the best: one more than the values above it and its equals of lower id.
///
/// # Panics
/// When the row has no such token.
pub fn rank(row: &[f32], id: usize) -> usize {
    let value = row[id];
    1 + (select(VARIANTS).run.count_above)(row, value)
        + row[..id].iter().filter(|&&other| other == value).count()
}

/// The `k` largest values with their token ids, largest first, ties by lower id, into `best`, whose contents are
/// replaced and whose capacity is reused. Fewer where the row is shorter than `k`; NaN is never listed.
///
/// Allocates when `best` has room for fewer than `2 * k` entries.
pub fn top_k(row: &[f32], k: usize, best: &mut Vec<(u32, f32)>) {
    top_k::top_k(&select(VARIANTS).run, row, k, best);
}

/// Divides every value by `temperature`.
///
/// # Panics
/// When `temperature` is not above 0.
pub fn apply_temperature(row: &mut [f32], temperature: f32) {
    assert!(temperature > 0.0, "a temperature is above 0, not {temperature}");
    (select(SCALE_VARIANTS).run)(row, 1.0 / temperature);
}

/// `x = cap * tanh(x / cap)` over the row.
///
/// # Panics
/// When `cap` is not above 0.
pub fn softcap(row: &mut [f32], cap: f32) {
    assert!(cap > 0.0, "a soft cap is above 0, not {cap}");
    (select(SOFTCAP_VARIANTS).run)(row, cap);
}

fn max_reference(row: &[f32]) -> f32 {
    row.iter().fold(f32::NEG_INFINITY, |max, &x| {
        if max.is_nan() || x.is_nan() { f32::NAN } else { max.max(x) }
    })
}

fn sum_exp_reference(row: &[f32], max: f32) -> f64 {
    row.iter().map(|&x| (f64::from(x) - f64::from(max)).exp()).sum()
}

fn position_reference(row: &[f32], value: f32) -> Option<usize> {
    row.iter().position(|&x| x == value)
}

fn count_above_reference(row: &[f32], value: f32) -> usize {
    row.iter().filter(|&&x| x > value).count()
}

fn next_above_reference(row: &[f32], start: usize, value: f32) -> Option<usize> {
    row[start..].iter().position(|&x| x > value).map(|offset| start + offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::values;

    const LENGTHS: [usize; 9] = [1, 7, 8, 15, 16, 17, 1023, 5000, 49_152];

    fn check(row: &[f32], probes: &[f32]) {
        let reference = &VARIANTS[0].run;
        let want = (reference.max)(row);
        for variant in VARIANTS.iter().filter(|v| v.isa.is_supported()) {
            let (name, got) = (variant.name, &variant.run);
            let max = (got.max)(row);
            assert!(
                max == want || (max.is_nan() && want.is_nan()),
                "{name}: max {max}, not {want}"
            );
            if want.is_finite() {
                // `exp` is within 2 ulp, and blocks of 256 are summed in f32.
                let (got, want) = ((got.sum_exp)(row, want), (reference.sum_exp)(row, want));
                assert!((got / want - 1.0).abs() < 1e-6, "{name}: sum {got}, not {want}");
            }
            for &probe in probes {
                assert_eq!((got.position)(row, probe), position_reference(row, probe), "{name}");
                assert_eq!(
                    (got.count_above)(row, probe),
                    count_above_reference(row, probe),
                    "{name}"
                );
                for start in [0, row.len() / 2, row.len()] {
                    let want = next_above_reference(row, start, probe);
                    assert_eq!((got.next_above)(row, start, probe), want, "{name} {start} {probe}");
                }
            }
        }
    }

    #[test]
    fn every_variant_matches_the_reference() {
        for len in LENGTHS {
            let mut row: Vec<f32> = values(1, len).iter().map(|x| x * 30.0).collect();
            let probes = [row[0], row[len - 1], row[len / 2], 29.9, -31.0, 31.0, f32::NAN];
            check(&row, &probes);
            row[len / 2] = f32::NEG_INFINITY;
            check(&row, &probes);
            row[len - 1] = f32::NAN;
            check(&row, &probes);
        }
        check(&[], &[0.0]);
        check(&[f32::NEG_INFINITY; 40], &[0.0, f32::NEG_INFINITY]);
    }

    #[test]
    fn log_sum_exp_of_odd_rows() {
        assert_eq!(log_sum_exp(&[f32::NEG_INFINITY; 3]), (f32::NEG_INFINITY, f32::NEG_INFINITY));
        assert_eq!(log_sum_exp(&[0.0, f32::INFINITY]), (f32::INFINITY, f32::INFINITY));
        assert!(log_sum_exp(&[0.0, f32::NAN]).1.is_nan());
        let (max, sum) = log_sum_exp(&[3.0; 1000]);
        assert!(max == 3.0 && (sum - (3.0 + 1000f32.ln())).abs() < 1e-6, "{sum}");
    }

    #[test]
    fn argmax_takes_the_first_of_equals_and_refuses_nan() {
        let mut row = vec![0.5; 100];
        row[40] = 2.0;
        row[90] = 2.0;
        assert_eq!(argmax(&row), Some((40, 2.0)));
        row[99] = f32::NAN;
        assert_eq!(argmax(&row), None);
        assert_eq!(argmax(&[]), None);
        assert_eq!(argmax(&[f32::NEG_INFINITY; 20]), Some((0, f32::NEG_INFINITY)));
    }

    #[test]
    fn rank_counts_equals_of_lower_id() {
        let row = [1.0, 3.0, 2.0, 3.0, 2.0];
        let ranks: Vec<usize> = (0..5).map(|id| rank(&row, id)).collect();
        assert_eq!(ranks, [5, 1, 3, 2, 4]);
    }

    #[test]
    fn temperature_and_softcap_change_the_row() {
        let mut row = [1.0, -2.0];
        apply_temperature(&mut row, 0.5);
        assert_eq!(row, [2.0, -4.0]);
        softcap(&mut row, 1.0);
        assert!((row[0] - 2f32.tanh()).abs() < 1e-6 && (row[1] + 4f32.tanh()).abs() < 1e-6);
    }
}
