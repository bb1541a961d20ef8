//! Activation functions, alone and gating another activation (`f(gate) * up`).

#[cfg(target_arch = "x86_64")]
mod x86;

use crate::isa::{Isa, Variant, select};
use crate::pool::{SharedMut, ThreadPool};
use crate::rows::split_rows;

/// What one element of the work counts for when it is split over threads: an exponential is some ten operations.
const COST: usize = 4;

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x / (1 + e^-x)`
    Silu,
    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`: `gelu_pytorch_tanh`, `gelu_new`.
    GeluTanh,
    /// `x / 2 * (1 + erf(x / sqrt(2)))`
    Gelu,
    /// `max(x, 0)`
    Relu,
    /// `x / (1 + e^(-1.702 x))`
    QuickGelu,
}

impl Activation {
    /// Every activation function.
    pub const ALL: [Activation; 5] = [
        Activation::Silu,
        Activation::GeluTanh,
        Activation::Gelu,
        Activation::Relu,
        Activation::QuickGelu,
    ];

    /// The function under the name that model configurations give it (`hidden_act`), `None` for an unknown one.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "silu" | "swish" => Activation::Silu,
            "gelu_pytorch_tanh" | "gelu_new" | "gelu_fast" => Activation::GeluTanh,
            "gelu" => Activation::Gelu,
            "relu" => Activation::Relu,
            "quick_gelu" => Activation::QuickGelu,
            _ => return None,
        })
    }
}

/// `x = f(x)`.
pub type Act = fn(f: Activation, x: &mut [f32]);

/// `out = f(gate) * up`, all of one length.
pub type ActMul = fn(f: Activation, gate: &[f32], up: &[f32], out: &mut [f32]);

/// Every variant of [`act`], reference first; the last one this machine supports is used.
pub static ACT_VARIANTS: &[Variant<Act>] = &[
    Variant { name: "reference", isa: Isa::Scalar, run: act_reference },
    #[cfg(target_arch = "x86_64")]
    Variant { name: "avx2", isa: Isa::Avx2, run: x86::act_avx2 },
    #[cfg(target_arch = "x86_64")]
    Variant { name: "avx512", isa: Isa::Avx512, run: x86::act_avx512 },
];

/// Every variant of the gate, which [`matmul_gated`](crate::matrix::matmul_gated) calls on its sums, reference first; the last one this machine supports is used.
pub static VARIANTS: &[Variant<ActMul>] = &[
    Variant { name: "reference", isa: Isa::Scalar, run: reference },
    #[cfg(target_arch = "x86_64")]
    Variant { name: "avx2", isa: Isa::Avx2, run: x86::act_mul_avx2 },
    #[cfg(target_arch = "x86_64")]
    Variant { name: "avx512", isa: Isa::Avx512, run: x86::act_mul_avx512 },
];

/// `x = f(x)`, any shape.
pub fn act(pool: &ThreadPool, f: Activation, x: &mut [f32]) {
    let run = select(ACT_VARIANTS).run;
    let (len, x) = (x.len(), SharedMut::new(x));
    split_rows(pool, len, COST, &|range| {
        // SAFETY: the ranges of a split do not overlap.
        run(f, unsafe { x.slice(range) });
    });
}

/// The definition of [`ActMul`].
pub fn reference(f: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
        *out = (value(f, f64::from(gate)) * f64::from(up)) as f32;
    }
}

/// The definition of [`act`].
pub fn act_reference(f: Activation, x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = value(f, f64::from(*x)) as f32);
}

/// One value, in `f64`.
fn value(f: Activation, x: f64) -> f64 {
    match f {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::Gelu => 0.5 * x * erfc(-x * std::f64::consts::FRAC_1_SQRT_2),
        // Written so that NaN stays NaN.
        Activation::Relu => {
            if x < 0.0 {
                0.0
            } else {
                x
            }
        }
        Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
    }
}

/// The complementary error function in `f64`, to about 1e-15: the power series near 0, the continued fraction
/// (Abramowitz and Stegun 7.1.14) elsewhere.
fn erfc(x: f64) -> f64 {
    let z = x.abs();
    let tail = if z < 2.5 {
        let (mut term, mut sum) = (z, z);
        for n in 1..80 {
            let n = f64::from(n);
            term *= -z * z / n;
            sum += term / (2.0 * n + 1.0);
        }
        1.0 - sum * std::f64::consts::FRAC_2_SQRT_PI
    } else {
        let fraction = (1..120).rev().fold(z, |below, n| z + 0.5 * f64::from(n) / below);
        (-z * z).exp() / (std::f64::consts::PI.sqrt() * fraction)
    };
    if x < 0.0 { 2.0 - tail } else { tail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, assert_same, values};

    /// `tanh` within 4 ulp, `erfc` within 2e-6, times values of at most the gate's size.
    const TOLERANCE: f32 = 2e-6;

    fn inputs(seed: u64, len: usize) -> Vec<f32> {
        values(seed, len).iter().map(|x| x * 12.0).collect()
    }

    #[test]
    fn every_variant_matches_the_reference() {
        for f in Activation::ALL {
            for len in [1, 7, 8, 15, 16, 17, 1023, 4096] {
                let (gate, up) = (inputs(1, len), values(2, len));
                let mut want = vec![f32::NAN; len];
                reference(f, &gate, &up, &mut want);
                let mut want_alone = gate.clone();
                act_reference(f, &mut want_alone);
                for (variant, alone) in VARIANTS.iter().zip(ACT_VARIANTS) {
                    if !variant.isa.is_supported() {
                        continue;
                    }
                    let label = format!("{} {f:?} {len}", variant.name);
                    let mut got = vec![f32::NAN; len];
                    (variant.run)(f, &gate, &up, &mut got);
                    assert_close(&label, &got, &want, TOLERANCE);
                    let mut got = gate.clone();
                    (alone.run)(f, &mut got);
                    assert_close(&label, &got, &want_alone, TOLERANCE);
                }
            }
        }
    }

    #[test]
    fn extremes_saturate_and_nan_stays() {
        let x = [-1e30, -1000.0, -90.0, -0.0, 0.0, 90.0, 1000.0, 1e10, f32::NAN];
        for f in Activation::ALL {
            let mut want = x;
            act_reference(f, &mut want);
            for variant in ACT_VARIANTS.iter().filter(|v| v.isa.is_supported()) {
                let mut got = x;
                (variant.run)(f, &mut got);
                assert_close(&format!("{} {f:?}", variant.name), &got[1..], &want[1..], TOLERANCE);
                assert!(got[0] <= 0.0 && got[0] > -1e-2, "{} {f:?}: {}", variant.name, got[0]);
            }
        }
    }

    #[test]
    fn erfc_meets_known_values() {
        // Abramowitz and Stegun, table 7.1, and the asymptotic series at 5.
        for (x, want) in [
            (0.0, 1.0),
            (0.5, 0.479_500_122_186_953_5),
            (-1.0, 1.842_700_792_949_715),
            (2.0, 0.004_677_734_981_047_266),
            (3.0, 2.209_049_699_858_544e-5),
            (5.0, 1.537_459_794_428_035e-12),
        ] {
            assert!((erfc(x) / want - 1.0).abs() < 1e-10, "erfc({x}) = {:e}", erfc(x));
        }
    }

    #[test]
    fn a_split_changes_nothing() {
        let x = inputs(3, 40_001);
        let run = |threads| {
            let mut x = x.clone();
            act(&ThreadPool::new(threads), Activation::Silu, &mut x);
            x
        };
        let (want, mut reference) = (run(1), x.clone());
        act_reference(Activation::Silu, &mut reference);
        assert_close("one thread", &want, &reference, TOLERANCE);
        for threads in [2, 4] {
            assert_same(&format!("{threads} threads"), &run(threads), &want);
        }
    }

    #[test]
    fn names_are_those_of_configurations() {
        assert_eq!(Activation::from_name("gelu_pytorch_tanh"), Some(Activation::GeluTanh));
        assert_eq!(Activation::from_name("mish"), None);
    }
}
