//! Instruction sets and the tables of kernel variants.
//!
//! Every kernel lists its variants in one table, scalar reference first; dispatch, tests and
//! benches read the same table. Detection asks the processor at run time, so one binary serves
//! every machine of an architecture. Nothing here reads the environment: the choice is a value that
//! a caller can print.

/// An instruction set that a kernel variant needs. Later entries are stronger on the machines that
/// have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Portable code: present everywhere.
    Scalar,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ and VL (and everything of [`Isa::Avx2`]).
    Avx512,
    /// [`Isa::Avx512`] with the 8-bit dot products of AVX512-VNNI.
    Avx512Vnni,
    /// [`Isa::Avx512Vnni`] with AVX512-BF16.
    Avx512Bf16,
    /// [`Isa::Avx512Bf16`] with the byte permutations of AVX512-VBMI.
    Avx512Vbmi,
}

impl Isa {
    /// Every instruction set, weakest first.
    pub const ALL: [Isa; 6] =
        [Isa::Scalar, Isa::Avx2, Isa::Avx512, Isa::Avx512Vnni, Isa::Avx512Bf16, Isa::Avx512Vbmi];

    /// True when this processor and its operating system run the instructions.
    #[cfg(target_arch = "x86_64")]
    pub fn is_supported(self) -> bool {
        let avx2 = || {
            is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
        };
        let avx512 = || {
            avx2()
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
        };
        let vnni = || avx512() && is_x86_feature_detected!("avx512vnni");
        let bf16 = || vnni() && is_x86_feature_detected!("avx512bf16");
        match self {
            Isa::Scalar => true,
            Isa::Avx2 => avx2(),
            Isa::Avx512 => avx512(),
            Isa::Avx512Vnni => vnni(),
            Isa::Avx512Bf16 => bf16(),
            Isa::Avx512Vbmi => bf16() && is_x86_feature_detected!("avx512vbmi"),
        }
    }

    /// True when this processor and its operating system run the instructions.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn is_supported(self) -> bool {
        self == Isa::Scalar
    }

    /// The strongest supported instruction set.
    pub fn best() -> Isa {
        Isa::ALL.into_iter().rev().find(|isa| isa.is_supported()).unwrap_or(Isa::Scalar)
    }

    /// Lower-case name as printed at start: `avx512-vnni`.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Vnni => "avx512-vnni",
            Isa::Avx512Bf16 => "avx512-bf16",
            Isa::Avx512Vbmi => "avx512-vbmi",
        }
    }
}

/// One implementation of a kernel. `F` is the kernel's function pointer type.
#[derive(Clone, Copy, Debug)]
pub struct Variant<F> {
    /// Name in listings and test failures.
    pub name: &'static str,
    /// What the processor must have before `run` may be called.
    pub isa: Isa,
    /// The function. Variants other than the reference may only be called when `isa` is supported.
    pub run: F,
}

/// The last variant of a table that this machine supports.
///
/// # Panics
/// When the table has no supported variant: tables start with the scalar reference, so an empty
/// table is our bug.
pub fn select<F>(variants: &'static [Variant<F>]) -> &'static Variant<F> {
    variants
        .iter()
        .rev()
        .find(|variant| variant.isa.is_supported())
        .expect("a table of variants starts with the scalar reference")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalar_is_always_supported_and_best_is_supported() {
        assert!(Isa::Scalar.is_supported());
        assert!(Isa::best().is_supported());
    }

    #[test]
    fn a_stronger_set_implies_the_weaker_ones() {
        for pair in Isa::ALL.windows(2) {
            assert!(!pair[1].is_supported() || pair[0].is_supported(), "{pair:?}");
        }
    }

    #[test]
    fn select_takes_the_last_supported_variant() {
        static TABLE: &[Variant<u32>] = &[
            Variant { name: "reference", isa: Isa::Scalar, run: 1 },
            Variant { name: "better", isa: Isa::Scalar, run: 2 },
        ];
        assert_eq!(select(TABLE).run, 2);
    }
}
