//! AVX-512: one panel is two registers wide, so a row block keeps 2 accumulators per token in
//! registers.

use std::arch::x86_64::*;

use super::input::{QuantX, SMALLEST, STEPS, quantise_block};
use super::layout::{BLOCK, Line, WIDTH, WeightType};
use super::product::{Sums, Tile};
use super::x86_avx2;

/// Rows of the register tile of quantised weights: each takes 4 integer accumulators. The float sums stay in memory,
/// where they are met once in 32 steps.
const QUANT_ROWS: usize = 4;

const F32: u8 = 0;
const F16: u8 = 1;
const BF16: u8 = 2;
const Q8_0: u8 = 3;
const Q4_0: u8 = 4;
const Q4_1: u8 = 5;

/// A panel row: 32 columns.
type Pair = [__m512; 2];

/// AVX-512 without VNNI: float weights here, 8-bit weights in the AVX2 code.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(crate) fn tile(tile: &Tile<'_>, sums: &mut Sums) {
    match tile.dtype {
        WeightType::F32 => float::<F32>(tile, sums),
        WeightType::F16 => float::<F16>(tile, sums),
        WeightType::Bf16 => float::<BF16>(tile, sums),
        _ => x86_avx2::tile(tile, sums),
    }
}

/// AVX-512 with VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(crate) fn tile_vnni(tile: &Tile<'_>, sums: &mut Sums) {
    match tile.dtype {
        WeightType::F32 => float::<F32>(tile, sums),
        WeightType::F16 => float::<F16>(tile, sums),
        WeightType::Bf16 => float::<BF16>(tile, sums),
        WeightType::Q8_0 => quantised::<Q8_0>(tile, sums),
        WeightType::Q4_0 => quantised::<Q4_0>(tile, sums),
        WeightType::Q4_1 => quantised::<Q4_1>(tile, sums),
    }
}

/// The lines of the next panel, asked for in equal parts while the steps of this one are computed.
struct Next<'a>(std::slice::Chunks<'a, Line>);

impl<'a> Next<'a> {
    fn new(lines: &'a [Line], steps: usize) -> Next<'a> {
        Next(lines.chunks(lines.len().div_ceil(steps.max(1)).max(1)))
    }

    /// Asks for the part of one step.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn ask(&mut self) {
        for line in self.0.next().into_iter().flatten() {
            _mm_prefetch::<_MM_HINT_T0>(line.0.as_ptr().cast());
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(line: &Line) -> __m512i {
    // SAFETY: a line is 64 bytes, aligned to 64.
    unsafe { _mm512_load_si512(line.0.as_ptr().cast()) }
}

/// Widens 32 half-precision values.
#[inline]
#[target_feature(enable = "avx512f")]
fn widen_f16(line: &Line) -> Pair {
    let halves = load(line);
    [
        _mm512_cvtph_ps(_mm512_castsi512_si256(halves)),
        _mm512_cvtph_ps(_mm512_extracti64x4_epi64::<1>(halves)),
    ]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(sums: &mut [f32; WIDTH], pair: Pair) {
    for (sums, value) in sums.as_chunks_mut::<16>().0.iter_mut().zip(pair) {
        // SAFETY: 16 floats are 64 writable bytes.
        unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), value) };
    }
}

/// Calls a tile function with the number of rows as a constant.
macro_rules! with_rows {
    ($rows:expr, $name:ident::<$kind:ident> $arguments:tt, $($count:literal)*) => {
        match $rows {
            $($count => $name::<$kind, $count> $arguments,)*
            rows => unreachable!("a row block of {rows} tokens"),
        }
    };
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn float<const KIND: u8>(tile: &Tile<'_>, sums: &mut Sums) {
    with_rows!(tile.rows, float_rows::<KIND>(tile, sums),
        1 2 3 4 5 6 7 8 9 10 11 12);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn float_rows<const KIND: u8, const ROWS: usize>(tile: &Tile<'_>, sums: &mut Sums) {
    let mut acc = [[_mm512_setzero_ps(); 2]; ROWS];
    let (panel, x) = (tile.panel, tile.floats.as_chunks::<ROWS>().0);
    let mut next = Next::new(tile.next, panel.len().div_ceil(2));
    match KIND {
        F32 => {
            for (lines, x) in panel.as_chunks::<2>().0.iter().zip(x) {
                next.ask();
                let weights = lines.each_ref().map(|line| _mm512_castsi512_ps(load(line)));
                add_products(&mut acc, weights, x);
            }
        }
        F16 => {
            for (lines, x) in panel.chunks(2).zip(x.chunks(2)) {
                next.ask();
                for (line, x) in lines.iter().zip(x) {
                    add_products(&mut acc, widen_f16(line), x);
                }
            }
        }
        _ => {
            let (lines, (pairs, last)) = (panel.as_chunks::<2>().0, x.as_chunks::<2>());
            for (lines, [even, odd]) in lines.iter().zip(pairs) {
                next.ask();
                let words = lines.each_ref().map(|line| load(line));
                add_products(&mut acc, even_bf16(words), even);
                add_products(&mut acc, odd_bf16(words), odd);
            }
            if let ([even], Some(lines)) = (last, lines.last()) {
                add_products(&mut acc, even_bf16(lines.each_ref().map(|line| load(line))), even);
            }
        }
    }
    for (sums, acc) in sums.iter_mut().zip(acc) {
        store(sums, acc);
    }
}

/// The low halves of 32-bit words as f32.
#[inline]
#[target_feature(enable = "avx512f")]
fn even_bf16(words: [__m512i; 2]) -> Pair {
    words.map(|word| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(word)))
}

/// The high halves of 32-bit words as f32.
#[inline]
#[target_feature(enable = "avx512f")]
fn odd_bf16(words: [__m512i; 2]) -> Pair {
    let high = _mm512_set1_epi32(-65536);
    words.map(|word| _mm512_castsi512_ps(_mm512_and_si512(word, high)))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add_products<const ROWS: usize>(acc: &mut [Pair; ROWS], weights: Pair, x: &[f32; ROWS]) {
    for (acc, x) in acc.iter_mut().zip(x) {
        let x = _mm512_set1_ps(*x);
        acc[0] = _mm512_fmadd_ps(x, weights[0], acc[0]);
        acc[1] = _mm512_fmadd_ps(x, weights[1], acc[1]);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn quantised<const KIND: u8>(tile: &Tile<'_>, sums: &mut Sums) {
    let halves = tile.rows.div_ceil(QUANT_ROWS);
    for half in 0..halves {
        let rows = crate::pool::part_range(tile.rows, halves, half);
        let next = &tile.next[crate::pool::part_range(tile.next.len(), halves, half)];
        let x = Columns { quants: tile.quants, rows: tile.rows, first: rows.start, next };
        with_rows!(rows.len(), quantised_rows::<KIND>(tile.panel, x, &mut sums[rows]), 1 2 3 4);
    }
}

/// Quantised activations of some of the tokens of a row block.
struct Columns<'a> {
    quants: &'a [QuantX],
    rows: usize,
    first: usize,
    /// Lines to ask for meanwhile.
    next: &'a [Line],
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn quantised_rows<const KIND: u8, const ROWS: usize>(
    panel: &[Line],
    x: Columns<'_>,
    sums: &mut Sums,
) {
    let Some(sums) = sums.first_chunk_mut::<ROWS>() else { unreachable!("rows of a block") };
    sums.fill([0.0; WIDTH]);
    let lines = match KIND {
        Q8_0 => WeightType::Q8_0.step().1,
        Q4_0 => WeightType::Q4_0.step().1,
        _ => WeightType::Q4_1.step().1,
    };
    let mut next = Next::new(x.next, panel.len() / lines);
    for (lines, xs) in panel.chunks_exact(lines).zip(x.quants.chunks_exact(x.rows)) {
        next.ask();
        let Some(xs) = xs[x.first..].first_chunk::<ROWS>() else { unreachable!("rows of a block") };
        let mut dots = [[_mm512_setzero_si512(); 4]; ROWS];
        for (dots, x) in dots.iter_mut().zip(xs) {
            let start = match KIND {
                Q8_0 => x.minus_128,
                Q4_0 => x.minus_8,
                _ => 0,
            };
            (dots[2], dots[3]) = (_mm512_set1_epi32(start), _mm512_set1_epi32(start));
        }
        let quants = match KIND {
            Q4_1 => &lines[2..],
            _ => &lines[1..],
        };
        if KIND == Q8_0 {
            add_bytes(&mut dots, quants, xs);
        } else {
            add_nibbles::<KIND, ROWS>(&mut dots, quants, xs);
        }
        let scales = widen_f16(&lines[0]);
        let minimums = if KIND == Q4_1 { widen_f16(&lines[1]) } else { scales };
        for ((sums, dots), x) in sums.iter_mut().zip(&dots).zip(xs) {
            let (x_scale, x_sum) = (_mm512_set1_ps(x.scale), _mm512_set1_ps(x.weighted_sum));
            for (column, sums) in sums.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                let dot = _mm512_slli_epi32::<8>(dots[column]);
                let dot = _mm512_cvtepi32_ps(_mm512_add_epi32(dot, dots[2 + column]));
                // SAFETY: 16 floats are 64 readable and writable bytes.
                let mut sum = unsafe { _mm512_loadu_ps(sums.as_ptr()) };
                sum = _mm512_fmadd_ps(dot, _mm512_mul_ps(scales[column], x_scale), sum);
                if KIND == Q4_1 {
                    sum = _mm512_fmadd_ps(x_sum, minimums[column], sum);
                }
                // SAFETY: as above.
                unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), sum) };
            }
        }
    }
}

/// Sums of the products with the high bytes, two registers of columns, then with the low bytes, per token.
type Dots<const ROWS: usize> = [[__m512i; 4]; ROWS];

/// Adds the products of 32 unsigned bytes per column.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn add_bytes<const ROWS: usize>(dots: &mut Dots<ROWS>, lines: &[Line], xs: &[QuantX; ROWS]) {
    let Some(lines) = lines.first_chunk::<16>() else { unreachable!("32 bytes per column") };
    macro_rules! quads {
        ($($quad:literal)*) => { $(
            let weights = [load(&lines[2 * $quad]), load(&lines[2 * $quad + 1])];
            add_quad::<$quad, ROWS>(dots, weights, xs);
        )* };
    }
    quads!(0 1 2 3 4 5 6 7);
}

/// Adds the products of 32 nibbles per column.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn add_nibbles<const KIND: u8, const ROWS: usize>(
    dots: &mut Dots<ROWS>,
    lines: &[Line],
    xs: &[QuantX; ROWS],
) {
    let Some(lines) = lines.first_chunk::<8>() else { unreachable!("32 nibbles per column") };
    let mask = _mm512_set1_epi8(15);
    macro_rules! quads {
        ($($low:literal $high:literal,)*) => { $(
            let packed = [load(&lines[2 * $low]), load(&lines[2 * $low + 1])];
            let low = [_mm512_and_si512(packed[0], mask), _mm512_and_si512(packed[1], mask)];
            add_quad::<$low, ROWS>(dots, low, xs);
            let high = [_mm512_srli_epi16::<4>(packed[0]), _mm512_srli_epi16::<4>(packed[1])];
            let high = [_mm512_and_si512(high[0], mask), _mm512_and_si512(high[1], mask)];
            add_quad::<$high, ROWS>(dots, high, xs);
        )* };
    }
    quads!(0 4, 1 5, 2 6, 3 7,);
}

/// Adds the products with the quants `4 * QUAD..` of each token.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn add_quad<const QUAD: usize, const ROWS: usize>(
    dots: &mut Dots<ROWS>,
    weights: [__m512i; 2],
    xs: &[QuantX; ROWS],
) {
    for (dots, x) in dots.iter_mut().zip(xs) {
        let (high, low) = (broadcast::<QUAD>(&x.high), broadcast::<QUAD>(&x.low));
        dots[0] = _mm512_dpbusd_epi32(dots[0], weights[0], high);
        dots[1] = _mm512_dpbusd_epi32(dots[1], weights[1], high);
        dots[2] = _mm512_dpbusd_epi32(dots[2], weights[0], low);
        dots[3] = _mm512_dpbusd_epi32(dots[3], weights[1], low);
    }
}

/// The word `QUAD` in every lane, by a load that broadcasts. As an intrinsic the compiler merges such loads into
/// wide ones and takes the words apart again, two shuffles for a load.
#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast<const QUAD: usize>(quads: &[i32; BLOCK / 4]) -> __m512i {
    const { assert!(QUAD < BLOCK / 4) };
    let word: __m512i;
    // SAFETY: reads one word of the array.
    unsafe {
        std::arch::asm!(
            "vpbroadcastd {word}, dword ptr [{quads} + {offset}]",
            word = lateout(zmm_reg) word,
            quads = in(reg) quads.as_ptr(),
            offset = const 4 * QUAD,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    word
}

/// `[rows][cols]` to quantised `[cols / 32][rows]`: [`quantise_block`] with the same roundings.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) fn quantise(x: &[f32], rows: usize, to: &mut [QuantX]) {
    let cols = x.len() / rows;
    for (row, values) in x.chunks_exact(cols).enumerate() {
        for (values, to) in values.as_chunks::<BLOCK>().0.iter().zip(to.chunks_exact_mut(rows)) {
            quantise_one(values, &mut to[row]);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn quantise_one(values: &[f32; BLOCK], to: &mut QuantX) {
    let halves = values.as_chunks::<16>().0;
    // SAFETY: 16 floats are 64 readable bytes.
    let x = [0, 1].map(|half| unsafe { _mm512_loadu_ps(halves[half].as_ptr()) });
    let sign = _mm512_set1_epi32(i32::MAX);
    let bits = x.map(|x| _mm512_and_si512(_mm512_castps_si512(x), sign));
    let largest = f32::from_bits(_mm512_reduce_max_epu32(_mm512_max_epu32(bits[0], bits[1])));
    if !(SMALLEST..=f32::MAX).contains(&largest) {
        *to = quantise_block(values);
        return;
    }
    let inverse = _mm512_set1_ps(STEPS / largest);
    let quants = x.map(|x| _mm512_cvtps_epi32(_mm512_mul_ps(x, inverse)));
    let high = quants.map(|q| _mm512_srai_epi32::<8>(_mm512_add_epi32(q, _mm512_set1_epi32(128))));
    let low = [0, 1].map(|half| {
        let low = _mm512_sub_epi32(quants[half], _mm512_slli_epi32::<8>(high[half]));
        _mm512_max_epi32(low, _mm512_set1_epi32(-127))
    });
    for half in 0..2 {
        let [high, low] = [high[half], low[half]].map(|bytes| _mm512_cvtepi32_epi8(bytes));
        let [to_high, to_low] = [&mut to.high, &mut to.low]
            .map(|bytes| bytes.as_chunks_mut::<4>().0[half].as_mut_ptr());
        // SAFETY: 4 words are 16 writable bytes.
        unsafe {
            _mm_storeu_si128(to_high.cast(), high);
            _mm_storeu_si128(to_low.cast(), low);
        }
    }
    let sums = [0, 1].map(|half| _mm512_add_epi32(_mm512_slli_epi32::<8>(high[half]), low[half]));
    let sum = _mm512_reduce_add_epi32(_mm512_add_epi32(sums[0], sums[1]));
    to.scale = largest / STEPS;
    to.weighted_sum = to.scale * sum as f32;
    (to.minus_128, to.minus_8) = (-128 * sum, -8 * sum);
}
