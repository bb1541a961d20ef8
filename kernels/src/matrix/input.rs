//! Activations in the form that the panel products read.
//!
//! Tokens are taken in row blocks of at most [`ROWS`]. Within a block, f32 values lie as
//! `[cols][rows]` and quantised ones as `[cols / 32][rows]`, so a register tile reads them from
//! front to back. One token alone needs no copy of its f32 values.
//!
//! Quantisation: per 32 elements `scale = max |x| / 32512`, `q = round(x / scale)`, ties to even, and
//! `q = 256 * high + low` with two signed bytes (a `low` of -128 becomes -127). Two byte products are
//! exact where one loses what decides near ties: 8 bits alone put the log-probabilities of a trained
//! 135M model 0.2 away from the dequantised model's, 16 bits leave the rounding of f32. A block with
//! a NaN or infinite element gets a NaN scale; one whose largest element is below 1e-35 counts as
//! zero.

use super::layout::BLOCK;
use crate::pool::{SharedMut, ThreadPool, part_range};

/// Rows of the register tile: 12 rows of 32 columns take 24 of the 32 vector registers of AVX-512.
pub(crate) const ROWS: usize = 12;

/// Fewer elements than this are prepared by the caller alone: less work than a fork and join.
const SERIAL_ELEMENTS: usize = 8192;

/// 32 quantised activations of one token.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct QuantX {
    /// The high bytes of the quants, four to a word, little endian.
    pub(crate) high: [i32; BLOCK / 4],
    /// Their low bytes.
    pub(crate) low: [i32; BLOCK / 4],
    pub(crate) scale: f32,
    /// `scale * sum(q)`: meets the minimum of a weight block.
    pub(crate) weighted_sum: f32,
    /// `-128 * sum(q)`: takes back the 128 added to Q8_0 quants.
    pub(crate) minus_128: i32,
    /// `-8 * sum(q)`: the zero point of Q4_0.
    pub(crate) minus_8: i32,
}

/// Working memory of matrix products, reused by every call. Grows when a call needs more than any
/// before.
#[derive(Debug, Default)]
pub struct Scratch {
    floats: Vec<f32>,
    quants: Vec<QuantX>,
}

impl Scratch {
    /// Room for `max_tokens` rows of `max_cols` inputs, of either form.
    pub fn with_capacity(max_tokens: usize, max_cols: usize) -> Scratch {
        let elements = max_tokens * max_cols;
        let blocks = max_tokens * max_cols.div_ceil(BLOCK);
        Scratch { floats: vec![0.0; elements], quants: vec![QuantX::default(); blocks] }
    }

    /// Bytes that [`with_capacity`](Self::with_capacity) takes; `usize::MAX` when that overflows.
    pub fn bytes_for(max_tokens: usize, max_cols: usize) -> usize {
        let floats = max_cols.saturating_mul(size_of::<f32>());
        let quants = max_cols.div_ceil(BLOCK).saturating_mul(size_of::<QuantX>());
        max_tokens.saturating_mul(floats.saturating_add(quants))
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        size_of_val(self.floats.as_slice()) + size_of_val(self.quants.as_slice())
    }

    /// Prepares `x`, `[tokens, cols]`, in the forms asked for.
    pub(crate) fn prepare<'a>(
        &'a mut self,
        pool: &ThreadPool,
        (x, tokens): (&'a [f32], usize),
        forms: Forms,
    ) -> Input<'a> {
        let cols = x.len() / tokens;
        let floats = match tokens {
            1 => x,
            _ if !forms.floats => &[],
            _ => {
                grow(&mut self.floats, x.len());
                let floats = &mut self.floats[..x.len()];
                fill(pool, (x, tokens), floats, transpose);
                floats
            }
        };
        let quants: &[QuantX] = if forms.quants {
            let len = tokens * (cols / BLOCK);
            grow(&mut self.quants, len);
            let quants = &mut self.quants[..len];
            fill(pool, (x, tokens), quants, quantise);
            quants
        } else {
            &[]
        };
        Input { tokens, cols, floats, quants }
    }
}

/// Which forms of the activations the matrices of a call read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forms {
    pub(crate) floats: bool,
    pub(crate) quants: bool,
}

/// Prepared activations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input<'a> {
    pub(crate) tokens: usize,
    cols: usize,
    floats: &'a [f32],
    quants: &'a [QuantX],
}

/// Number of row blocks of `tokens` tokens.
pub(crate) fn row_blocks(tokens: usize) -> usize {
    tokens.div_ceil(ROWS)
}

impl<'a> Input<'a> {
    /// First token and number of tokens of a row block.
    pub(crate) fn rows(&self, block: usize) -> std::ops::Range<usize> {
        part_range(self.tokens, row_blocks(self.tokens), block)
    }

    /// f32 values of the tokens `rows`, `[cols][rows]`.
    pub(crate) fn floats(&self, rows: std::ops::Range<usize>) -> &'a [f32] {
        &self.floats[rows.start * self.cols..rows.end * self.cols]
    }

    /// Quantised values of the tokens `rows`, `[cols / 32][rows]`.
    pub(crate) fn quants(&self, rows: std::ops::Range<usize>) -> &'a [QuantX] {
        let blocks = self.cols / BLOCK;
        &self.quants[rows.start * blocks..rows.end * blocks]
    }
}

fn grow<T: Clone + Default>(buffer: &mut Vec<T>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len, T::default());
    }
}

/// Fills `to` row block by row block, in parallel when that pays: `convert(x of the block, rows,
/// part of to)`.
fn fill<T: Send, F>(pool: &ThreadPool, (x, tokens): (&[f32], usize), to: &mut [T], convert: F)
where
    F: Fn(&[f32], usize, &mut [T]) + Sync,
{
    let (cols, per_token, blocks) = (x.len() / tokens, to.len() / tokens, row_blocks(tokens));
    let to = SharedMut::new(to);
    let one = |block: usize| {
        let rows = part_range(tokens, blocks, block);
        // SAFETY: row blocks do not overlap and each is filled once.
        let part = unsafe { to.slice(rows.start * per_token..rows.end * per_token) };
        convert(&x[rows.start * cols..rows.end * cols], rows.len(), part);
    };
    if x.len() < SERIAL_ELEMENTS {
        (0..blocks).for_each(one);
    } else {
        pool.run(blocks, &one);
    }
}

/// `[rows][cols]` to `[cols][rows]`.
fn transpose(x: &[f32], rows: usize, to: &mut [f32]) {
    let cols = x.len() / rows;
    for (row, values) in x.chunks_exact(cols).enumerate() {
        for (value, column) in values.iter().zip(to.chunks_exact_mut(rows)) {
            column[row] = *value;
        }
    }
}

/// `[rows][cols]` to quantised `[cols / 32][rows]`, by every variant with the same bits.
fn quantise(x: &[f32], rows: usize, to: &mut [QuantX]) {
    #[cfg(target_arch = "x86_64")]
    if crate::isa::Isa::Avx512.is_supported() {
        // SAFETY: the processor has AVX-512, as just asked.
        return unsafe { super::x86_avx512::quantise(x, rows, to) };
    } else if crate::isa::Isa::Avx2.is_supported() {
        // SAFETY: the processor has AVX2, as just asked.
        return unsafe { quantise_avx2(x, rows, to) };
    }
    quantise_portable(x, rows, to);
}

/// The portable code, compiled for AVX2: the same operations, so the same bits.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn quantise_avx2(x: &[f32], rows: usize, to: &mut [QuantX]) {
    quantise_portable(x, rows, to);
}

#[inline(always)]
fn quantise_portable(x: &[f32], rows: usize, to: &mut [QuantX]) {
    let cols = x.len() / rows;
    for (row, values) in x.chunks_exact(cols).enumerate() {
        for (values, to) in values.as_chunks::<BLOCK>().0.iter().zip(to.chunks_exact_mut(rows)) {
            to[row] = quantise_block(values);
        }
    }
}

/// Adding and taking off 1.5 * 2^23 rounds to an integer, ties to even, on every processor alike;
/// its low bits are the integer in two's complement.
const ROUND: f32 = 12_582_912.0;

/// Quants of the largest element of a block: 127 in the high byte, 0 in the low one.
pub(super) const STEPS: f32 = 32512.0;

/// Below this a block counts as zero: the reciprocal of its scale would overflow.
pub(super) const SMALLEST: f32 = 1e-35;

#[inline(always)]
pub(super) fn quantise_block(x: &[f32; BLOCK]) -> QuantX {
    // The bits of absolute values order like the values, infinity and then NaN above all.
    let largest = x.iter().fold(0, |largest, v| largest.max(v.to_bits() & 0x7fff_ffff));
    let largest = f32::from_bits(largest);
    if largest < SMALLEST {
        return QuantX::default();
    }
    if !largest.is_finite() {
        return QuantX { scale: f32::NAN, weighted_sum: f32::NAN, ..QuantX::default() };
    }
    let (scale, inverse) = (largest / STEPS, STEPS / largest);
    let (mut highs, mut lows) = ([0i32; BLOCK], [0i32; BLOCK]);
    for ((high, low), value) in highs.iter_mut().zip(&mut lows).zip(x) {
        let quant = (value * inverse + ROUND).to_bits() as i32 - ROUND.to_bits() as i32;
        *high = (quant + 128) >> 8;
        *low = (quant - (*high << 8)).max(-127);
    }
    let sum = 256 * highs.iter().sum::<i32>() + lows.iter().sum::<i32>();
    QuantX {
        high: quads(&highs),
        low: quads(&lows),
        scale,
        weighted_sum: scale * sum as f32,
        minus_128: -128 * sum,
        minus_8: -8 * sum,
    }
}

/// Signed bytes, four to a word.
#[inline(always)]
fn quads(bytes: &[i32; BLOCK]) -> [i32; BLOCK / 4] {
    let mut quads = [0i32; BLOCK / 4];
    for (quad, q) in quads.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *quad = q[0] & 255 | (q[1] & 255) << 8 | (q[2] & 255) << 16 | q[3] << 24;
    }
    quads
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::values;

    #[test]
    fn every_variant_quantises_to_the_same_bits() {
        let (rows, cols) = (5, 96);
        let mut x = values(3, rows * cols);
        // Blocks of halves of a step, of nothing, of hardly anything, of the largest, of no number.
        x[..32].iter_mut().zip(0..).for_each(|(x, i)| *x = i as f32 - 15.5);
        x[31] = STEPS;
        x[32..64].fill(0.0);
        x[64..96].fill(SMALLEST * 0.5);
        x[100] = f32::MAX;
        x[130] = f32::NAN;
        x[170] = f32::NEG_INFINITY;
        x[200] = -1e30;
        let run = |quantise: &dyn Fn(&mut [QuantX])| {
            let mut to = vec![QuantX::default(); rows * cols / BLOCK];
            quantise(&mut to);
            let bits = |x: &QuantX| {
                let scales = (x.scale.to_bits(), x.weighted_sum.to_bits());
                (x.high, x.low, scales, x.minus_128, x.minus_8)
            };
            to.iter().map(bits).collect::<Vec<_>>()
        };
        let expected = run(&|to| quantise_portable(&x, rows, to));
        assert_eq!(run(&|to| quantise(&x, rows, to)), expected, "the chosen variant");
        #[cfg(target_arch = "x86_64")]
        if crate::isa::Isa::Avx2.is_supported() {
            // SAFETY: the processor has AVX2, as just asked.
            let got = run(&|to| unsafe { quantise_avx2(&x, rows, to) });
            assert_eq!(got, expected, "AVX2");
        }
    }
}
