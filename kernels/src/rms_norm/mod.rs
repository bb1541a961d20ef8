//! Root mean square normalisation: `x / sqrt(mean(x^2) + eps) * (weight + offset)`.
//!
//! The offset is 1 for models of the Gemma family, whose stored weights are distances from 1, and 0 for the others.
//! A row's squares are summed in one fixed order, so a row's result does not depend on its neighbours or on threads.
//! Source: Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019).

#[cfg(target_arch = "x86_64")]
mod x86;

use crate::elementwise;
use crate::isa::{Isa, Variant, select};
use crate::pool::{SharedMut, ThreadPool};
use crate::rows::{HeadsMut, split_rows};

/// What every row is normalised with.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// `[width]`
    pub weight: &'a [f32],
    /// Added to the mean of squares.
    pub eps: f32,
    /// Added to every weight.
    pub weight_offset: f32,
}

/// Normalises one row in place.
pub type RmsNormRow = fn(norm: &Norm<'_>, row: &mut [f32]);

/// Every variant, reference first; the last one this machine supports is used.
pub static VARIANTS: &[Variant<RmsNormRow>] = &[
    Variant { name: "reference", isa: Isa::Scalar, run: reference },
    #[cfg(target_arch = "x86_64")]
    Variant { name: "avx2", isa: Isa::Avx2, run: x86::rms_norm_avx2 },
    #[cfg(target_arch = "x86_64")]
    Variant { name: "avx512", isa: Isa::Avx512, run: x86::rms_norm_avx512 },
];

/// Normalises the rows of `x` into `out`; both are `[rows, width]` with the width of `weight`. `weight_offset` is 0,
/// or 1 for weights stored as distances from 1.
///
/// # Panics
/// When `x` and `out` differ in length or are not whole rows.
pub fn rms_norm(
    pool: &ThreadPool,
    x: &[f32],
    weight: &[f32],
    eps: f32,
    weight_offset: f32,
    out: &mut [f32],
) {
    let rows = check_rows(x, weight, out);
    let (norm, width) = (Norm { weight, eps, weight_offset }, weight.len());
    let (run, out) = (select(VARIANTS).run, SharedMut::new(out));
    split_rows(pool, rows, width, &|range| {
        for row in range {
            let columns = row * width..(row + 1) * width;
            // SAFETY: rows do not overlap and each belongs to one range.
            let out = unsafe { out.slice(columns.clone()) };
            out.copy_from_slice(&x[columns]);
            run(&norm, out);
        }
    });
}

/// Adds `x` to `residual`, then normalises the sum into `out`; all are `[rows, width]` with the width of `weight`.
///
/// # Panics
/// When the three differ in length or are not whole rows.
pub fn add_rms_norm(
    pool: &ThreadPool,
    residual: &mut [f32],
    x: &[f32],
    weight: &[f32],
    eps: f32,
    weight_offset: f32,
    out: &mut [f32],
) {
    let rows = check_rows(x, weight, out);
    assert_eq!(residual.len(), x.len(), "the residual has the shape of x");
    let (norm, width) = (Norm { weight, eps, weight_offset }, weight.len());
    let (run, add) = (select(VARIANTS).run, select(elementwise::ADD_VARIANTS).run);
    let (out, residual) = (SharedMut::new(out), SharedMut::new(residual));
    split_rows(pool, rows, width, &|range| {
        for row in range {
            let columns = row * width..(row + 1) * width;
            // SAFETY: rows do not overlap and each belongs to one range.
            let residual = unsafe { residual.slice(columns.clone()) };
            // SAFETY: as above.
            let out = unsafe { out.slice(columns.clone()) };
            add(residual, &x[columns]);
            out.copy_from_slice(residual);
            run(&norm, out);
        }
    });
}

/// Normalises every head of `x` in place, each with the same weights `[head_dim]` (Qwen3, Gemma 3).
///
/// # Panics
/// When a head and `norm.weight` differ in width.
pub fn rms_norm_heads(pool: &ThreadPool, x: HeadsMut<'_>, norm: &Norm<'_>) {
    assert_eq!(x.head_dim(), norm.weight.len(), "one weight for each value of a head");
    let run = select(VARIANTS).run;
    x.for_each(pool, &|_, head| run(norm, head));
}

fn check_rows(x: &[f32], weight: &[f32], out: &[f32]) -> usize {
    assert!(!weight.is_empty(), "a row has at least one value");
    assert_eq!(x.len(), out.len(), "x and out have the same shape");
    assert_eq!(x.len() % weight.len(), 0, "x must be whole rows of {}", weight.len());
    x.len() / weight.len()
}

/// The definition, summed in `f64`.
pub fn reference(norm: &Norm<'_>, row: &mut [f32]) {
    let squares: f64 = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    let scale = 1.0 / (squares / row.len() as f64 + f64::from(norm.eps)).sqrt();
    for (x, &weight) in row.iter_mut().zip(norm.weight) {
        *x = (f64::from(*x) * scale * (f64::from(weight) + f64::from(norm.weight_offset))) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, assert_same, values};

    /// A sum of `n` squares in `f32`, at most 64 of them in sequence, then four roundings.
    const TOLERANCE: f32 = 2e-6;

    #[test]
    fn every_variant_matches_the_reference() {
        for width in [1, 7, 8, 15, 16, 17, 64, 576, 1023, 4096] {
            for weight_offset in [0.0, 1.0] {
                let (x, weight) = (values(1, width), values(2, width));
                let norm = Norm { weight: &weight, eps: 1e-5, weight_offset };
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
    fn every_row_is_written_and_equals_the_row_alone() {
        let (rows, width) = (300, 579);
        let (x, weight) = (values(3, rows * width), values(4, width));
        let mut alone = vec![f32::NAN; x.len()];
        for (x, out) in x.chunks(width).zip(alone.chunks_mut(width)) {
            rms_norm(&ThreadPool::new(1), x, &weight, 1e-6, 1.0, out);
        }
        for threads in [1, 2, 4] {
            let mut got = vec![f32::NAN; x.len()];
            rms_norm(&ThreadPool::new(threads), &x, &weight, 1e-6, 1.0, &mut got);
            assert_same(&format!("{threads} threads"), &got, &alone);
        }
    }

    #[test]
    fn the_fused_sum_equals_the_sum_then_the_norm() {
        let (rows, width) = (130, 577);
        let (x, residual, weight) =
            (values(5, rows * width), values(6, rows * width), values(7, width));
        let sum: Vec<f32> = residual.iter().zip(&x).map(|(r, x)| r + x).collect();
        let pool = ThreadPool::new(2);
        let mut want = vec![f32::NAN; x.len()];
        rms_norm(&pool, &sum, &weight, 1e-6, 0.0, &mut want);
        let (mut updated, mut got) = (residual, vec![f32::NAN; x.len()]);
        add_rms_norm(&pool, &mut updated, &x, &weight, 1e-6, 0.0, &mut got);
        assert_same("residual", &updated, &sum);
        assert_same("out", &got, &want);
    }

    #[test]
    fn heads_are_normalised_in_place_and_other_columns_kept() {
        let (x, weight) = (values(8, 3 * 20), values(9, 4));
        let norm = Norm { weight: &weight, eps: 1e-6, weight_offset: 0.0 };
        let mut got = x.clone();
        rms_norm_heads(&ThreadPool::new(2), HeadsMut::new(&mut got, 20, 4..16, 4), &norm);
        let mut want = x;
        for row in want.chunks_mut(20) {
            row[4..16].chunks_mut(4).for_each(|head| reference(&norm, head));
        }
        assert_close("heads", &got, &want, TOLERANCE);
    }
}
