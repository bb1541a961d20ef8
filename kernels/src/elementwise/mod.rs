//! Sums, multiples and soft caps of whole activations, element by element.

#[cfg(target_arch = "x86_64")]
mod x86;

use crate::isa::{Isa, Variant, select};
use crate::pool::{SharedMut, ThreadPool};
use crate::rows::split_rows;

/// `y += x`.
pub type Add = fn(y: &mut [f32], x: &[f32]);

/// Changes every element by one parameter.
pub type Map = fn(x: &mut [f32], parameter: f32);

/// Every variant of [`add`], reference first; the last one this machine supports is used.
pub static ADD_VARIANTS: &[Variant<Add>] = &[
    Variant { name: "reference", isa: Isa::Scalar, run: add_reference },
    #[cfg(target_arch = "x86_64")]
    Variant { name: "avx2", isa: Isa::Avx2, run: x86::add_avx2 },
    #[cfg(target_arch = "x86_64")]
    Variant { name: "avx512", isa: Isa::Avx512, run: x86::add_avx512 },
];

/// Every variant of [`scale`], reference first.
pub static SCALE_VARIANTS: &[Variant<Map>] = &[
    Variant { name: "reference", isa: Isa::Scalar, run: scale_reference },
    #[cfg(target_arch = "x86_64")]
    Variant { name: "avx2", isa: Isa::Avx2, run: x86::scale_avx2 },
    #[cfg(target_arch = "x86_64")]
    Variant { name: "avx512", isa: Isa::Avx512, run: x86::scale_avx512 },
];

/// Every variant of [`softcap`], reference first.
pub static SOFTCAP_VARIANTS: &[Variant<Map>] = &[
    Variant { name: "reference", isa: Isa::Scalar, run: softcap_reference },
    #[cfg(target_arch = "x86_64")]
    Variant { name: "avx2", isa: Isa::Avx2, run: x86::softcap_avx2 },
    #[cfg(target_arch = "x86_64")]
    Variant { name: "avx512", isa: Isa::Avx512, run: x86::softcap_avx512 },
];

/// `y += x`, the same shape.
///
/// # Panics
/// When the lengths differ.
pub fn add(pool: &ThreadPool, y: &mut [f32], x: &[f32]) {
    assert_eq!(y.len(), x.len(), "both operands of a sum have the same shape");
    let run = select(ADD_VARIANTS).run;
    let (len, y) = (y.len(), SharedMut::new(y));
    split_rows(pool, len, 1, &|range| {
        // SAFETY: the ranges of a split do not overlap.
        run(unsafe { y.slice(range.clone()) }, &x[range]);
    });
}

/// `x *= factor`.
pub fn scale(pool: &ThreadPool, x: &mut [f32], factor: f32) {
    map(pool, select(SCALE_VARIANTS).run, x, factor);
}

/// `x = cap * tanh(x / cap)` (Gemma 2): keeps values within `-cap..=cap`, smoothly.
///
/// # Panics
/// When `cap` is not above 0.
pub fn softcap(pool: &ThreadPool, x: &mut [f32], cap: f32) {
    assert!(cap > 0.0, "a soft cap is above 0, not {cap}");
    map(pool, select(SOFTCAP_VARIANTS).run, x, cap);
}

fn map(pool: &ThreadPool, run: Map, x: &mut [f32], parameter: f32) {
    let (len, x) = (x.len(), SharedMut::new(x));
    split_rows(pool, len, 1, &|range| {
        // SAFETY: the ranges of a split do not overlap.
        run(unsafe { x.slice(range) }, parameter);
    });
}

/// The definition of [`add`].
pub fn add_reference(y: &mut [f32], x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
}

/// The definition of [`scale`].
pub fn scale_reference(x: &mut [f32], factor: f32) {
    x.iter_mut().for_each(|x| *x *= factor);
}

/// The definition of [`softcap`], in `f64`.
pub fn softcap_reference(x: &mut [f32], cap: f32) {
    let cap = f64::from(cap);
    x.iter_mut().for_each(|x| *x = (cap * (f64::from(*x) / cap).tanh()) as f32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, assert_same, values};

    const LENGTHS: [usize; 8] = [1, 7, 8, 15, 16, 17, 1023, 4096];

    #[test]
    fn every_sum_equals_the_reference() {
        for len in LENGTHS {
            let (y, x) = (values(1, len), values(2, len));
            let mut want = y.clone();
            add_reference(&mut want, &x);
            for variant in ADD_VARIANTS.iter().filter(|v| v.isa.is_supported()) {
                let mut got = y.clone();
                (variant.run)(&mut got, &x);
                assert_same(&format!("{} {len}", variant.name), &got, &want);
            }
        }
    }

    /// `scale` rounds once, as the reference does; `softcap` rounds its quotient, `tanh` (4 ulp) and product.
    #[test]
    fn every_map_matches_its_reference() {
        for (variants, parameter, tolerance) in [
            (SCALE_VARIANTS, 0.3, 0.0),
            (SOFTCAP_VARIANTS, 30.0, 1e-6),
            (SOFTCAP_VARIANTS, 0.1, 1e-6),
        ] {
            for len in LENGTHS {
                let x: Vec<f32> = values(3, len).iter().map(|x| x * 100.0).collect();
                let mut want = x.clone();
                (variants[0].run)(&mut want, parameter);
                for variant in variants.iter().filter(|v| v.isa.is_supported()) {
                    let mut got = x.clone();
                    (variant.run)(&mut got, parameter);
                    assert_close(&format!("{} {len}", variant.name), &got, &want, tolerance);
                }
            }
        }
    }

    #[test]
    fn threads_change_nothing_and_reach_every_element() {
        let (y, x) = (values(4, 100_003), values(5, 100_003));
        let run = |threads| {
            let (pool, mut y) = (ThreadPool::new(threads), y.clone());
            add(&pool, &mut y, &x);
            scale(&pool, &mut y, 40.0);
            softcap(&pool, &mut y, 20.0);
            y
        };
        let want = run(1);
        assert!(want.iter().zip(&y).all(|(a, b)| a != b));
        for threads in [2, 4] {
            assert_same(&format!("{threads} threads"), &run(threads), &want);
        }
    }
}
