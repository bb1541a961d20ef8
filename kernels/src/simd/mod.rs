//! Vector operations that kernels are written over once and compiled for every vector width.
//!
//! A [`Simd`] value is proof that the processor has its instructions: it is made by detection only, so its methods are
//! safe. A kernel is an `#[inline(always)]` function over `S: Simd`; the `instantiate!` macro wraps it in a
//! function compiled with the instructions switched on. Tails are masked, so an element is computed by the same
//! operations wherever it stands in a row.

mod math;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use math::{erfc, exp, tanh};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

/// A vector unit. `F` holds [`Simd::LANES`] `f32` values.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// A vector register.
    type F: Copy;
    /// Values per vector.
    const LANES: usize;

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::F;
    /// The first [`Simd::LANES`] values; lanes beyond the end of `from` are 0.
    fn load(self, from: &[f32]) -> Self::F;
    /// Writes the first lanes, as many as `to` has room for.
    fn store(self, to: &mut [f32], v: Self::F);
    /// # Safety
    /// [`Simd::LANES`] values must be readable at `from`.
    unsafe fn load_f32_at(self, from: *const f32) -> Self::F;
    /// Widens IEEE half precision.
    ///
    /// # Safety
    /// [`Simd::LANES`] values must be readable at `from`.
    unsafe fn load_f16_at(self, from: *const u16) -> Self::F;
    /// Widens bfloat16.
    ///
    /// # Safety
    /// [`Simd::LANES`] values must be readable at `from`.
    unsafe fn load_bf16_at(self, from: *const u16) -> Self::F;

    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The larger; `b` where either is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// The smaller; `b` where either is NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    fn abs(self, a: Self::F) -> Self::F;
    /// The magnitude of `a` with the sign of `sign`.
    fn copy_sign(self, a: Self::F, sign: Self::F) -> Self::F;
    /// To the nearest integer, ties to even.
    fn round(self, a: Self::F) -> Self::F;
    /// `a * 2^n` for integral `n` in `-200..=200`, rounded once.
    fn scale_by_power(self, a: Self::F, n: Self::F) -> Self::F;
    /// Where `a < b` the first, elsewhere (NaN too) the second.
    fn select_less(self, a: Self::F, b: Self::F, then: Self::F, otherwise: Self::F) -> Self::F;
    /// Lanes `first..end` of `v`, elsewhere `otherwise`. Bounds past the vector are allowed.
    fn select_lanes(self, first: usize, end: usize, v: Self::F, otherwise: Self::F) -> Self::F;
    /// A bit per lane where `a > b`.
    fn greater(self, a: Self::F, b: Self::F) -> u32;
    /// A bit per lane where `a == b`.
    fn equal(self, a: Self::F, b: Self::F) -> u32;
    /// A bit per lane that is NaN.
    fn nan(self, a: Self::F) -> u32;
    /// Sum of the lanes, in a fixed tree.
    fn sum(self, v: Self::F) -> f32;
    /// Largest lane.
    fn max_lane(self, v: Self::F) -> f32;
}

/// Wraps a generic kernel `fn kernel<S: Simd>(simd: S, ...)` into two functions, compiled for AVX-512 and for AVX2.
macro_rules! instantiate {
    ($(#[$doc:meta])* $kernel:ident => $avx512:ident, $avx2:ident ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)?) => {
        $crate::simd::instantiate!(
            @one $(#[$doc])* $kernel => $avx512($($arg: $ty),*) $(-> $ret)?,
            $crate::simd::Avx512, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"
        );
        $crate::simd::instantiate!(
            @one $(#[$doc])* $kernel => $avx2($($arg: $ty),*) $(-> $ret)?,
            $crate::simd::Avx2, "avx2,fma,f16c"
        );
    };
    (@one $(#[$doc:meta])* $kernel:ident => $name:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)?, $simd:ty, $features:literal) => {
        $(#[$doc])*
        pub(super) fn $name($($arg: $ty),*) $(-> $ret)? {
            #[target_feature(enable = $features)]
            fn inner(simd: $simd, $($arg: $ty),*) $(-> $ret)? {
                $kernel(simd, $($arg),*)
            }
            let simd = <$simd>::detect().expect("the variant is chosen where its instructions exist");
            // SAFETY: `simd` exists, so the processor has the features of `inner`.
            unsafe { inner(simd, $($arg),*) }
        }
    };
}
pub(crate) use instantiate;
