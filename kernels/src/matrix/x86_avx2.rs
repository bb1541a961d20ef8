//! AVX2 with FMA and F16C: a panel in two halves of 16 columns (float) or four quarters of 8
//! (8-bit), so that the accumulators of 4 tokens fit the 16 vector registers.
//!
//! The 8-bit products are exact integers, as everywhere: 4-bit weights are summed in 16 bits
//! (8 terms of at most `2 * 15 * 127` fit), 8-bit weights go through the sign trick
//! (`2 * 128 * 127` fits).

use std::arch::x86_64::*;

use super::input::QuantX;
use super::layout::{Line, WIDTH, WeightType};
use super::product::{Sums, Tile};

/// Tokens per register tile.
const TILE_ROWS: usize = 4;

/// Sums of one tile.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn tile(tile: &Tile<'_>, sums: &mut Sums) {
    let groups = tile.rows.div_ceil(TILE_ROWS);
    for group in 0..groups {
        let rows = crate::pool::part_range(tile.rows, groups, group);
        let (first, sums) = (rows.start, &mut sums[rows]);
        match sums.len() {
            1 => tile_rows::<1>(tile, first, sums),
            2 => tile_rows::<2>(tile, first, sums),
            3 => tile_rows::<3>(tile, first, sums),
            _ => tile_rows::<4>(tile, first, sums),
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn tile_rows<const ROWS: usize>(tile: &Tile<'_>, first: usize, sums: &mut Sums) {
    if tile.dtype.is_quantised() {
        for quarter in 0..WIDTH / 8 {
            quantised::<ROWS>(tile, first, quarter, sums);
        }
    } else {
        for half in 0..WIDTH / 16 {
            float::<ROWS>(tile, first, half, sums);
        }
    }
}

/// 8 words from byte `32 * half` of a line.
#[inline]
#[target_feature(enable = "avx2")]
fn load(line: &Line, half: usize) -> __m256i {
    let bytes = &line.0.as_chunks::<32>().0[half];
    // SAFETY: 32 readable bytes; the load asks for no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// Widens 8 half-precision values from byte `16 * quarter` of a line.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn widen_f16(line: &Line, quarter: usize) -> __m256 {
    let bytes = &line.0.as_chunks::<16>().0[quarter];
    // SAFETY: 16 readable bytes; the load asks for no alignment.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(sums: &mut [f32; WIDTH], eighth: usize, value: __m256) {
    let sums = &mut sums.as_chunks_mut::<8>().0[eighth];
    // SAFETY: 8 floats are 32 writable bytes.
    unsafe { _mm256_storeu_ps(sums.as_mut_ptr(), value) };
}

/// Columns `16 * half..` for `ROWS` tokens.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn float<const ROWS: usize>(tile: &Tile<'_>, first: usize, half: usize, sums: &mut Sums) {
    let mut acc = [[_mm256_setzero_ps(); 2]; ROWS];
    let mut xs =
        tile.floats.chunks_exact(tile.rows).filter_map(|x| x[first..].first_chunk::<ROWS>());
    match tile.dtype {
        WeightType::F32 => {
            for (lines, x) in tile.panel.as_chunks::<2>().0.iter().zip(xs) {
                let weights = [0, 1].map(|i| _mm256_castsi256_ps(load(&lines[half], i)));
                add_products(&mut acc, weights, x);
            }
        }
        WeightType::F16 => {
            for (line, x) in tile.panel.iter().zip(xs) {
                add_products(&mut acc, [0, 1].map(|i| widen_f16(line, 2 * half + i)), x);
            }
        }
        _ => {
            let high = _mm256_set1_epi32(-65536);
            for lines in tile.panel.as_chunks::<2>().0 {
                let words = [0, 1].map(|i| load(&lines[half], i));
                let even = words.map(|word| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(word)));
                let odd = words.map(|word| _mm256_castsi256_ps(_mm256_and_si256(word, high)));
                for weights in [even, odd] {
                    // The second half of the last pair of an odd row has no activations.
                    if let Some(x) = xs.next() {
                        add_products(&mut acc, weights, x);
                    }
                }
            }
        }
    }
    for (sums, acc) in sums.iter_mut().zip(acc) {
        store(sums, 2 * half, acc[0]);
        store(sums, 2 * half + 1, acc[1]);
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_products<const ROWS: usize>(
    acc: &mut [[__m256; 2]; ROWS],
    weights: [__m256; 2],
    x: &[f32; ROWS],
) {
    for (acc, x) in acc.iter_mut().zip(x) {
        let x = _mm256_set1_ps(*x);
        acc[0] = _mm256_fmadd_ps(x, weights[0], acc[0]);
        acc[1] = _mm256_fmadd_ps(x, weights[1], acc[1]);
    }
}

/// Columns `8 * quarter..` for `ROWS` tokens.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn quantised<const ROWS: usize>(tile: &Tile<'_>, first: usize, quarter: usize, sums: &mut Sums) {
    let mut acc = [_mm256_setzero_ps(); ROWS];
    let (_, lines) = tile.dtype.step();
    for (lines, xs) in tile.panel.chunks_exact(lines).zip(tile.quants.chunks_exact(tile.rows)) {
        let Some(xs) = xs[first..].first_chunk::<ROWS>() else { unreachable!("rows of a block") };
        let dots = match tile.dtype {
            WeightType::Q8_0 => dot_bytes(&lines[1..], quarter, xs),
            WeightType::Q4_0 => {
                dot_nibbles(&lines[1..], quarter, xs, xs.each_ref().map(|x| x.minus_8))
            }
            _ => dot_nibbles(&lines[2..], quarter, xs, [0; ROWS]),
        };
        let scales = widen_f16(&lines[0], quarter);
        for ((acc, dots), x) in acc.iter_mut().zip(dots).zip(xs) {
            let scale = _mm256_mul_ps(scales, _mm256_set1_ps(x.scale));
            *acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), scale, *acc);
        }
        if tile.dtype == WeightType::Q4_1 {
            let minimums = widen_f16(&lines[1], quarter);
            for (acc, x) in acc.iter_mut().zip(xs) {
                *acc = _mm256_fmadd_ps(_mm256_set1_ps(x.weighted_sum), minimums, *acc);
            }
        }
    }
    for (sums, acc) in sums.iter_mut().zip(acc) {
        store(sums, quarter, acc);
    }
}

/// Dot products of 32 bytes (stored with 128 added) per column.
#[inline]
#[target_feature(enable = "avx2")]
fn dot_bytes<const ROWS: usize>(
    lines: &[Line],
    quarter: usize,
    xs: &[QuantX; ROWS],
) -> [__m256i; ROWS] {
    let (top, ones) = (_mm256_set1_epi8(-128), _mm256_set1_epi16(1));
    let mut dots = [[_mm256_setzero_si256(); 2]; ROWS];
    for j in 0..8 {
        let weights = load(&lines[2 * j + quarter / 2], quarter % 2);
        let weights = _mm256_xor_si256(weights, top);
        let magnitudes = _mm256_abs_epi8(weights);
        for (dots, x) in dots.iter_mut().zip(xs) {
            for (dots, quad) in dots.iter_mut().zip([x.high[j], x.low[j]]) {
                let signed = _mm256_sign_epi8(_mm256_set1_epi32(quad), weights);
                let pairs = _mm256_maddubs_epi16(magnitudes, signed);
                *dots = _mm256_add_epi32(*dots, _mm256_madd_epi16(pairs, ones));
            }
        }
    }
    dots.map(|[high, low]| _mm256_add_epi32(_mm256_slli_epi32::<8>(high), low))
}

/// Dot products of 32 nibbles per column, added to `start`.
#[inline]
#[target_feature(enable = "avx2")]
fn dot_nibbles<const ROWS: usize>(
    lines: &[Line],
    quarter: usize,
    xs: &[QuantX; ROWS],
    start: [i32; ROWS],
) -> [__m256i; ROWS] {
    let (mask, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
    let mut pairs = [[_mm256_setzero_si256(); 2]; ROWS];
    for j in 0..4 {
        let packed = load(&lines[2 * j + quarter / 2], quarter % 2);
        let low = _mm256_and_si256(packed, mask);
        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(packed), mask);
        for (pairs, x) in pairs.iter_mut().zip(xs) {
            for (weights, quad) in [(low, j), (high, 4 + j)] {
                for (pairs, quad) in pairs.iter_mut().zip([x.high[quad], x.low[quad]]) {
                    let products = _mm256_maddubs_epi16(weights, _mm256_set1_epi32(quad));
                    *pairs = _mm256_add_epi16(*pairs, products);
                }
            }
        }
    }
    let mut dots = start.map(|start| _mm256_set1_epi32(start));
    for (dots, pairs) in dots.iter_mut().zip(pairs) {
        let [high, low] = pairs.map(|pairs| _mm256_madd_epi16(pairs, ones));
        let joined = _mm256_add_epi32(_mm256_slli_epi32::<8>(high), low);
        *dots = _mm256_add_epi32(*dots, joined);
    }
    dots
}
