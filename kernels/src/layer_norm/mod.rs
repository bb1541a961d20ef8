//! Layer normalisation: `(x - mean(x)) / sqrt(variance(x) + eps) * weight + bias`.
//!
//! The variance is the mean squared distance from the mean, taken in a second pass over the row: one pass over squares
//! loses all digits when the mean is large. Source: Ba, Kiros and Hinton, "Layer Normalization" (2016).

#[cfg(target_arch = "x86_64")]
mod x86;

use crate::isa::{Isa, Variant, select};
use crate::pool::{SharedMut, ThreadPool};
use crate::rows::split_rows;

/// What every row is normalised with.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// `[width]`
    pub weight: &'a [f32],
    /// `[width]`, where the model has one.
    pub bias: Option<&'a [f32]>,
    /// Added to the variance.
    pub eps: f32,
}

/// Normalises one row in place.
pub type LayerNormRow = fn(norm: &Norm<'_>, row: &mut [f32]);

/// Every variant, reference first; the last one this machine supports is used.
pub static VARIANTS: &[Variant<LayerNormRow>] = &[
    Variant { name: "reference", isa: Isa::Scalar, run: reference },
    #[cfg(target_arch = "x86_64")]
    Variant { name: "avx2", isa: Isa::Avx2, run: x86::layer_norm_avx2 },
    #[cfg(target_arch = "x86_64")]
    Variant { name: "avx512", isa: Isa::Avx512, run: x86::layer_norm_avx512 },
];

/// Normalises the rows of `x` into `out`; both are `[rows, width]` with the width of `weight` and `bias`.
///
/// # Panics
/// When `x` and `out` differ in length or are not whole rows, or `bias` and `weight` differ in length.
pub fn layer_norm(
    pool: &ThreadPool,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    eps: f32,
    out: &mut [f32],
) {
    let width = weight.len();
    assert!(width > 0, "a row has at least one value");
    assert_eq!(x.len(), out.len(), "x and out have the same shape");
    assert_eq!(x.len() % width, 0, "x must be whole rows of {width}");
    assert!(bias.is_none_or(|bias| bias.len() == width), "one bias for each weight");
    let norm = Norm { weight, bias, eps };
    let (run, out) = (select(VARIANTS).run, SharedMut::new(out));
    split_rows(pool, x.len() / width, width, &|range| {
        for row in range {
            let columns = row * width..(row + 1) * width;
            // SAFETY: rows do not overlap and each belongs to one range.
            let out = unsafe { out.slice(columns.clone()) };
            out.copy_from_slice(&x[columns]);
            run(&norm, out);
        }
    });
}

/// The definition, summed in `f64`.
pub fn reference(norm: &Norm<'_>, row: &mut [f32]) {
    let width = row.len() as f64;
    let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / width;
    let variance = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / width;
    let scale = 1.0 / (variance + f64::from(norm.eps)).sqrt();
    for (column, x) in row.iter_mut().enumerate() {
        let bias = norm.bias.map_or(0.0, |bias| f64::from(bias[column]));
        *x = ((f64::from(*x) - mean) * scale * f64::from(norm.weight[column]) + bias) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, assert_same, values};

    /// Two sums in `f32` of at most 64 terms in sequence, then five roundings.
    const TOLERANCE: f32 = 3e-6;

    #[test]
    fn every_variant_matches_the_reference() {
        for width in [2, 7, 8, 15, 16, 17, 64, 384, 1023, 4096] {
            let (x, weight, bias) = (values(1, width), values(2, width), values(3, width));
            for bias in [None, Some(bias.as_slice())] {
                let norm = Norm { weight: &weight, bias, eps: 1e-5 };
                let mut want = x.clone();
                reference(&norm, &mut want);
                for variant in VARIANTS.iter().filter(|v| v.isa.is_supported()) {
                    let mut got = x.clone();
                    (variant.run)(&norm, &mut got);
                    assert_close(&format!("{} {width}", variant.name), &got, &want, TOLERANCE);
                }
            }
        }
    }

    #[test]
    fn a_large_mean_keeps_its_digits() {
        let x: Vec<f32> = values(4, 384).iter().map(|x| x + 1000.0).collect();
        let weight = vec![1.0; 384];
        let norm = Norm { weight: &weight, bias: None, eps: 1e-12 };
        let mut want = x.clone();
        reference(&norm, &mut want);
        for variant in VARIANTS.iter().filter(|v| v.isa.is_supported()) {
            let mut got = x.clone();
            (variant.run)(&norm, &mut got);
            // Near 1000 values are spaced 6e-5; a mean off by two of those is off by 2e-4 after the division by 0.57.
            // A variance from one pass would be off by a tenth.
            assert_close(variant.name, &got, &want, 5e-4);
        }
    }

    #[test]
    fn rows_do_not_depend_on_threads() {
        let (x, weight) = (values(5, 200 * 387), values(6, 387));
        let mut want = vec![f32::NAN; x.len()];
        layer_norm(&ThreadPool::new(1), &x, &weight, None, 1e-5, &mut want);
        for threads in [2, 4] {
            let mut got = vec![f32::NAN; x.len()];
            layer_norm(&ThreadPool::new(threads), &x, &weight, None, 1e-5, &mut got);
            assert_same(&format!("{threads} threads"), &got, &want);
        }
    }
}
