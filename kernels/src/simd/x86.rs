//! AVX-512 and AVX2 vectors.
//!
//! Every method of a type calls intrinsics whose instructions the type proves to exist, and touches no memory but
//! through slices whose length it looks at; that is the reason behind each `unsafe` block here.

use std::arch::x86_64::*;

use crate::isa::Isa;
use crate::simd::Simd;

/// Proof of [`Isa::Avx512`]; 16 lanes.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

/// Proof of [`Isa::Avx2`]; 8 lanes.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx512 {
    /// The vectors, where the processor has them.
    #[inline]
    pub(crate) fn detect() -> Option<Self> {
        Isa::Avx512.is_supported().then_some(Self(()))
    }
}

impl Avx2 {
    /// The vectors, where the processor has them.
    #[inline]
    pub(crate) fn detect() -> Option<Self> {
        Isa::Avx2.is_supported().then_some(Self(()))
    }
}

/// The low `n` of 16 mask bits, all of them from 16 on.
#[inline(always)]
fn low_mask(n: usize) -> __mmask16 {
    ((1u32 << n.min(16)) - 1) as __mmask16
}

/// Methods that are one register-only intrinsic.
macro_rules! register_only {
    ($($(#[$doc:meta])* fn $name:ident($self:ident $(, $arg:ident: $ty:ty)*) -> $ret:ty { $body:expr })*) => {
        $(
            $(#[$doc])*
            #[inline(always)]
            fn $name($self, $($arg: $ty),*) -> $ret {
                // SAFETY: `self` proves the instructions; no memory is touched.
                unsafe { $body }
            }
        )*
    };
}

impl Simd for Avx512 {
    type F = __m512;
    const LANES: usize = 16;

    #[inline(always)]
    fn load(self, from: &[f32]) -> __m512 {
        if from.len() >= 16 {
            // SAFETY: 16 values are there; `self` proves the instruction.
            unsafe { _mm512_loadu_ps(from.as_ptr()) }
        } else {
            // SAFETY: the mask covers exactly the lanes of `from`; `self` proves the instruction.
            unsafe { _mm512_maskz_loadu_ps(low_mask(from.len()), from.as_ptr()) }
        }
    }

    #[inline(always)]
    fn store(self, to: &mut [f32], v: __m512) {
        if to.len() >= 16 {
            // SAFETY: there is room for 16 values; `self` proves the instruction.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) }
        } else {
            // SAFETY: the mask covers exactly the lanes of `to`; `self` proves the instruction.
            unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), low_mask(to.len()), v) }
        }
    }

    #[inline(always)]
    unsafe fn load_f32_at(self, from: *const f32) -> __m512 {
        // SAFETY: the caller promises 16 values; `self` proves the instruction.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_f16_at(self, from: *const u16) -> __m512 {
        // SAFETY: the caller promises 16 values; `self` proves the instructions.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16_at(self, from: *const u16) -> __m512 {
        // SAFETY: the caller promises 16 values; `self` proves the instructions.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }

    register_only! {
        fn splat(self, x: f32) -> __m512 { _mm512_set1_ps(x) }
        fn add(self, a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn sub(self, a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
        fn mul(self, a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn div(self, a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) }
        fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        fn max(self, a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) }
        fn min(self, a: __m512, b: __m512) -> __m512 { _mm512_min_ps(a, b) }
        fn abs(self, a: __m512) -> __m512 { _mm512_abs_ps(a) }
        fn copy_sign(self, a: __m512, sign: __m512) -> __m512 {{
            let bit = _mm512_set1_ps(-0.0);
            _mm512_or_ps(_mm512_andnot_ps(bit, a), _mm512_and_ps(bit, sign))
        }}
        fn round(self, a: __m512) -> __m512 {
            _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a)
        }
        fn scale_by_power(self, a: __m512, n: __m512) -> __m512 { _mm512_scalef_ps(a, n) }
        fn select_less(self, a: __m512, b: __m512, then: __m512, otherwise: __m512) -> __m512 {
            _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), otherwise, then)
        }
        fn select_lanes(self, first: usize, end: usize, v: __m512, otherwise: __m512) -> __m512 {
            _mm512_mask_blend_ps(low_mask(end) & !low_mask(first), otherwise, v)
        }
        fn greater(self, a: __m512, b: __m512) -> u32 {
            u32::from(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b))
        }
        fn equal(self, a: __m512, b: __m512) -> u32 {
            u32::from(_mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b))
        }
        fn nan(self, a: __m512) -> u32 { u32::from(_mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a)) }
        fn sum(self, v: __m512) -> f32 {{
            let half = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            sum_256(half)
        }}
        fn max_lane(self, v: __m512) -> f32 {{
            let half = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            max_256(half)
        }}
    }
}

/// Sum of 8 lanes, in a fixed tree.
#[inline]
#[target_feature(enable = "avx2")]
fn sum_256(v: __m256) -> f32 {
    let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
}

/// Largest of 8 lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn max_256(v: __m256) -> f32 {
    let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
}

/// All ones in lanes `first..end`.
#[inline]
#[target_feature(enable = "avx2")]
fn lane_mask(first: usize, end: usize) -> __m256 {
    let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    let from = _mm256_cmpgt_epi32(lane, _mm256_set1_epi32(first.min(8) as i32 - 1));
    let below = _mm256_cmpgt_epi32(_mm256_set1_epi32(end.min(8) as i32), lane);
    _mm256_castsi256_ps(_mm256_and_si256(from, below))
}

/// `2^n` for integral `n` in `-126..=127`.
#[inline]
#[target_feature(enable = "avx2")]
fn power_of_two(n: __m256i) -> __m256 {
    _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127))))
}

impl Simd for Avx2 {
    type F = __m256;
    const LANES: usize = 8;

    #[inline(always)]
    fn load(self, from: &[f32]) -> __m256 {
        if from.len() >= 8 {
            // SAFETY: 8 values are there; `self` proves the instruction.
            unsafe { _mm256_loadu_ps(from.as_ptr()) }
        } else {
            // SAFETY: the mask covers exactly the lanes of `from`; `self` proves the instructions.
            unsafe {
                let mask = _mm256_castps_si256(lane_mask(0, from.len()));
                _mm256_maskload_ps(from.as_ptr(), mask)
            }
        }
    }

    #[inline(always)]
    fn store(self, to: &mut [f32], v: __m256) {
        if to.len() >= 8 {
            // SAFETY: there is room for 8 values; `self` proves the instruction.
            unsafe { _mm256_storeu_ps(to.as_mut_ptr(), v) }
        } else {
            // SAFETY: the mask covers exactly the lanes of `to`; `self` proves the instructions.
            unsafe {
                let mask = _mm256_castps_si256(lane_mask(0, to.len()));
                _mm256_maskstore_ps(to.as_mut_ptr(), mask, v);
            }
        }
    }

    #[inline(always)]
    unsafe fn load_f32_at(self, from: *const f32) -> __m256 {
        // SAFETY: the caller promises 8 values; `self` proves the instruction.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_f16_at(self, from: *const u16) -> __m256 {
        // SAFETY: the caller promises 8 values; `self` proves the instructions.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16_at(self, from: *const u16) -> __m256 {
        // SAFETY: the caller promises 8 values; `self` proves the instructions.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }

    register_only! {
        fn splat(self, x: f32) -> __m256 { _mm256_set1_ps(x) }
        fn add(self, a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
        fn sub(self, a: __m256, b: __m256) -> __m256 { _mm256_sub_ps(a, b) }
        fn mul(self, a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
        fn div(self, a: __m256, b: __m256) -> __m256 { _mm256_div_ps(a, b) }
        fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fmadd_ps(a, b, c) }
        fn max(self, a: __m256, b: __m256) -> __m256 { _mm256_max_ps(a, b) }
        fn min(self, a: __m256, b: __m256) -> __m256 { _mm256_min_ps(a, b) }
        fn abs(self, a: __m256) -> __m256 { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
        fn copy_sign(self, a: __m256, sign: __m256) -> __m256 {{
            let bit = _mm256_set1_ps(-0.0);
            _mm256_or_ps(_mm256_andnot_ps(bit, a), _mm256_and_ps(bit, sign))
        }}
        fn round(self, a: __m256) -> __m256 {
            _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a)
        }
        /// In two halves: `2^n` alone need not be a normal number. Only the second product can round.
        fn scale_by_power(self, a: __m256, n: __m256) -> __m256 {{
            let n = _mm256_cvtps_epi32(n);
            let half = _mm256_srai_epi32::<1>(n);
            let rest = _mm256_sub_epi32(n, half);
            _mm256_mul_ps(_mm256_mul_ps(a, power_of_two(half)), power_of_two(rest))
        }}
        fn select_less(self, a: __m256, b: __m256, then: __m256, otherwise: __m256) -> __m256 {
            _mm256_blendv_ps(otherwise, then, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b))
        }
        fn select_lanes(self, first: usize, end: usize, v: __m256, otherwise: __m256) -> __m256 {
            _mm256_blendv_ps(otherwise, v, lane_mask(first, end))
        }
        fn greater(self, a: __m256, b: __m256) -> u32 {
            _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(a, b)) as u32
        }
        fn equal(self, a: __m256, b: __m256) -> u32 {
            _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_EQ_OQ>(a, b)) as u32
        }
        fn nan(self, a: __m256) -> u32 {
            _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_UNORD_Q>(a, a)) as u32
        }
        fn sum(self, v: __m256) -> f32 { sum_256(v) }
        fn max_lane(self, v: __m256) -> f32 { max_256(v) }
    }
}
