//! AVX-512 and AVX2 variants of the attention of one unit.
//!
//! Scores: keys in lanes, queries broadcast; even and odd values of a head are summed apart, so that few rows still
//! keep the multipliers busy, in the same order for any number of rows. Sums of values: the values of a head in lanes,
//! weights broadcast, keys in order of position.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use std::ops::Range;

use super::cache::{Element, Pair, Shape, Store};
use super::{KEY_TILE, Partial, SCORE_STRIDE, Unit, place};
use crate::simd::{Simd, exp, instantiate, tanh};

/// Up to so many packed queries wait for memory and not for arithmetic: a decode.
const FEW_ROWS: usize = 8;

/// How many positions ahead keys and values are asked for. Blocks lie apart, so the processor cannot foresee them.
const AHEAD: usize = 64;

#[inline(always)]
fn partial<S: Simd>(simd: S, unit: &Unit<'_>, partial: &mut Partial<'_>) {
    match unit.cache.store() {
        Store::F32(pair) => run(simd, unit, pair, partial),
        Store::F16(pair) => run(simd, unit, pair, partial),
        Store::Bf16(pair) => run(simd, unit, pair, partial),
    }
}

instantiate! {
    /// Fills `max`, `sum` and `out` of a partial result.
    partial => partial_avx512, partial_avx2(unit: &Unit<'_>, state: &mut Partial<'_>)
}

#[inline(always)]
fn run<S: Simd, E: Element>(simd: S, unit: &Unit<'_>, pair: &Pair<E>, partial: &mut Partial<'_>) {
    partial.max[..unit.rows].fill(f32::NEG_INFINITY);
    partial.sum[..unit.rows].fill(0.0);
    partial.out.fill(0.0);
    let keys = unit.keys();
    for base in (keys.start / KEY_TILE * KEY_TILE..keys.end).step_by(KEY_TILE) {
        let tile = keys.start.max(base)..keys.end.min(base + KEY_TILE);
        score_tile(simd, unit, pair, partial, base, &tile);
        for row in 0..unit.rows {
            weigh(simd, unit, partial, row, base);
        }
        let rows = ValueRows::new(unit, pair, tile.clone());
        add_values(simd, unit, &rows, partial, tile.start - base);
    }
}

/// Where the keys and values lie that are read [`AHEAD`] positions after `position`, a multiple of the tile of keys: of
/// this sequence, or of what comes after it. One of them is asked for with each that is read now: a row of requests
/// would fill the processor's list of them and then wait.
#[inline(always)]
fn ahead(unit: &Unit<'_>, position: usize) -> Option<(usize, usize, usize)> {
    // Many rows hide the latency of memory behind arithmetic.
    if unit.rows > FEW_ROWS {
        return None;
    }
    let lanes = unit.cache.shape().tile();
    let (position, end) = (position + AHEAD, unit.end.next_multiple_of(lanes));
    let (table, kv_head, position) = if position < end {
        (unit.table, unit.kv_head, position)
    } else {
        let next = unit.next.as_ref()?;
        let position = next.positions.start / lanes * lanes + (position - end);
        if position >= next.positions.end {
            return None;
        }
        (next.table, next.kv_head, position)
    };
    let (block, offset) = place(unit.cache.shape().block_size, table, position);
    Some((block, kv_head, offset))
}

/// Asks for the cache lines that hold `bytes` bytes from `address` on, an address within an allocation.
#[inline(always)]
fn prefetch<E: Element>(address: *const E, bytes: usize) {
    for line in (0..bytes).step_by(64) {
        // SAFETY: a prefetch reads nothing that the program can see, and faults at no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast::<i8>().wrapping_add(line)) }
    }
}

/// Asks for the cache lines of `data`.
#[inline(always)]
pub(super) fn prefetch_lines<E: Element>(data: &[E]) {
    for line in data.chunks(64 / size_of::<E>()) {
        // SAFETY: a prefetch reads nothing that the program can see, and the address is that of a slice.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) }
    }
}

/// Scores of all rows against the keys of a tile. Places of keys outside `tile` are left or hold anything.
#[inline(always)]
fn score_tile<S: Simd, E: Element>(
    simd: S,
    unit: &Unit<'_>,
    pair: &Pair<E>,
    partial: &mut Partial<'_>,
    base: usize,
    tile: &Range<usize>,
) {
    let shape = unit.cache.shape();
    let lanes = shape.tile();
    for position in (tile.start / lanes * lanes..tile.end).step_by(lanes) {
        let (block, offset) = unit.place(position);
        let start = shape.key_tile(block, unit.kv_head, offset);
        let ahead = ahead(unit, position)
            .map(|(block, head, offset)| &pair.keys[shape.key_tile(block, head, offset)..]);
        for part in (0..lanes).step_by(S::LANES) {
            let keys = &pair.keys[start + part..];
            let place = position - base + part;
            let mut row = 0;
            while row < unit.rows {
                let ahead = if part + row == 0 { ahead } else { None };
                let keys = (keys, ahead);
                let q = &partial.q[row * shape.value_width()..];
                let scores = &mut partial.scores[row * SCORE_STRIDE + place..];
                row += match unit.rows - row {
                    8.. if S::LANES == 16 => score_rows::<S, E, 8>(simd, shape, keys, q, scores),
                    6.. => score_rows::<S, E, 6>(simd, shape, keys, q, scores),
                    4.. => score_rows::<S, E, 4>(simd, shape, keys, q, scores),
                    3 => score_rows::<S, E, 3>(simd, shape, keys, q, scores),
                    2 => score_rows::<S, E, 2>(simd, shape, keys, q, scores),
                    _ => score_rows::<S, E, 1>(simd, shape, keys, q, scores),
                };
            }
        }
    }
}

/// The vector of stored values from `index` on.
///
/// # Safety
/// `index + S::LANES <= from.len()`.
#[inline(always)]
unsafe fn at<S: Simd, E: Element>(simd: S, from: &[E], index: usize) -> S::F {
    // SAFETY: the caller's promise.
    unsafe { E::load(simd, from.as_ptr().add(index)) }
}

/// Scores of `R` rows against one vector of keys, while the tile `ahead` is asked for; returns `R`.
#[inline(always)]
fn score_rows<S: Simd, E: Element, const R: usize>(
    simd: S,
    shape: &Shape,
    (keys, ahead): (&[E], Option<&[E]>),
    q: &[f32],
    scores: &mut [f32],
) -> usize {
    let (head_dim, step, width) = (shape.head_dim, shape.tile(), shape.value_width());
    assert!(keys.len() >= (head_dim - 1) * step + S::LANES, "the last vector lies in the cache");
    assert!(q.len() >= (R - 1) * width + head_dim, "q holds the rows");
    let (mut even, mut odd) = ([simd.splat(0.0); R], [simd.splat(0.0); R]);
    for d in (0..head_dim / 2 * 2).step_by(2) {
        if let Some(ahead) = ahead {
            prefetch(ahead.as_ptr().wrapping_add(d * step), 2 * step * size_of::<E>());
        }
        // SAFETY: `d + 1 < head_dim`, so the vectors end inside `keys` by the assertion above.
        let (a, b) = unsafe { (at(simd, keys, d * step), at(simd, keys, (d + 1) * step)) };
        for (r, (even, odd)) in even.iter_mut().zip(&mut odd).enumerate() {
            // SAFETY: `r < R` and `d + 1 < head_dim`, so the values lie inside `q` by the assertion above.
            let (x, y) =
                unsafe { (q.get_unchecked(r * width + d), q.get_unchecked(r * width + d + 1)) };
            *even = simd.fma(simd.splat(*x), a, *even);
            *odd = simd.fma(simd.splat(*y), b, *odd);
        }
    }
    if !head_dim.is_multiple_of(2) {
        // SAFETY: the last vector ends inside `keys` by the assertion above.
        let a = unsafe { at(simd, keys, (head_dim - 1) * step) };
        for (r, even) in even.iter_mut().enumerate() {
            *even = simd.fma(simd.splat(q[r * width + head_dim - 1]), a, *even);
        }
    }
    for (r, (even, odd)) in even.into_iter().zip(odd).enumerate() {
        simd.store(&mut scores[r * SCORE_STRIDE..][..S::LANES], simd.add(even, odd));
    }
    R
}

/// Turns a row's scores into weights `e^(score - max)`, 0 where the query does not see the key, and moves its maximum
/// and sum on.
#[inline(always)]
fn weigh<S: Simd>(simd: S, unit: &Unit<'_>, partial: &mut Partial<'_>, row: usize, base: usize) {
    let keys = unit.keys_of(row);
    let (first, end) = (keys.start.saturating_sub(base), keys.end.saturating_sub(base));
    let scores = &mut partial.scores[row * SCORE_STRIDE..][..KEY_TILE];
    let lowest = simd.splat(f32::NEG_INFINITY);
    let mut max = lowest;
    for (index, scores) in scores.chunks_exact_mut(S::LANES).enumerate() {
        let place = index * S::LANES;
        let mut score = simd.load(scores);
        if let Some(cap) = unit.spec.softcap {
            let cap = simd.splat(cap);
            score = simd.mul(cap, tanh(simd, simd.div(score, cap)));
        }
        let (first, end) = (first.saturating_sub(place), end.saturating_sub(place));
        score = simd.select_lanes(first, end, score, lowest);
        simd.store(scores, score);
        max = simd.max(score, max);
    }
    let before = partial.max[row];
    let max = simd.max_lane(max).max(before);
    if first >= end || end == 0 || first >= KEY_TILE {
        // No key of the tile: nothing to weigh, and the first maximum may not exist yet.
        scores.fill(0.0);
        partial.rescale[row] = 1.0;
        return;
    }
    let (new, mut sum) = (simd.splat(max), simd.splat(0.0));
    for scores in scores.chunks_exact_mut(S::LANES) {
        let weight = exp(simd, simd.sub(simd.load(scores), new));
        simd.store(scores, weight);
        sum = simd.add(sum, weight);
    }
    let rescale = simd.max_lane(exp(simd, simd.splat(before - max)));
    partial.rescale[row] = rescale;
    partial.max[row] = max;
    partial.sum[row] = partial.sum[row] * rescale + simd.sum(sum);
}

/// Where the value rows of a tile's keys start, all of them inside the cache.
struct ValueRows<'a, E: Element> {
    values: &'a [E],
    starts: [usize; KEY_TILE],
    /// Where the rows start that are asked for meanwhile; `usize::MAX` for none.
    ahead: [usize; KEY_TILE],
    len: usize,
    width: usize,
}

impl<'a, E: Element> ValueRows<'a, E> {
    #[inline(always)]
    fn new(unit: &Unit<'_>, pair: &'a Pair<E>, keys: Range<usize>) -> Self {
        let shape = unit.cache.shape();
        let (values, width, len): (&[E], _, _) = (&pair.values, shape.value_width(), keys.len());
        let (mut starts, mut later) = ([0; KEY_TILE], [usize::MAX; KEY_TILE]);
        let (mut filled, mut position) = (0, keys.start);
        while position < keys.end {
            let (block, offset) = unit.place(position);
            let count = (shape.block_size - offset).min(keys.end - position);
            let first = shape.value_row(block, unit.kv_head, offset);
            assert!(first + count * width <= values.len(), "the value rows lie in the cache");
            for (index, start) in starts[filled..filled + count].iter_mut().enumerate() {
                *start = first + index * width;
            }
            if let Some((block, head, offset)) = ahead(unit, position) {
                let first = shape.value_row(block, head, offset);
                for (index, start) in later[filled..filled + count].iter_mut().enumerate() {
                    *start = first + index * width;
                }
            }
            (filled, position) = (filled + count, position + count);
        }
        Self { values, starts, ahead: later, len, width }
    }

    /// One vector of the row of key `key`, from `column` on.
    ///
    /// # Safety
    /// `key < self.len` and `column + S::LANES <= self.width`.
    #[inline(always)]
    unsafe fn load<S: Simd>(&self, simd: S, key: usize, column: usize) -> S::F {
        // SAFETY: the caller's promise and the assertion in `new`.
        unsafe {
            let start = *self.starts.get_unchecked(key);
            E::load(simd, self.values.as_ptr().add(start + column))
        }
    }
}

/// `out = out * rescale + weights * values` for all rows; weights start `first` places into the tile.
#[inline(always)]
fn add_values<S: Simd, E: Element>(
    simd: S,
    unit: &Unit<'_>,
    values: &ValueRows<'_, E>,
    partial: &mut Partial<'_>,
    first: usize,
) {
    let mut row = 0;
    while row < unit.rows {
        let rows = Weighted {
            weights: &partial.scores[row * SCORE_STRIDE + first..],
            rescale: &partial.rescale[row..],
            out: &mut partial.out[row * values.width..],
        };
        row += match unit.rows - row {
            4.. => add_rows::<S, E, 4>(simd, values, rows),
            3 => add_rows::<S, E, 3>(simd, values, rows),
            2 => add_rows::<S, E, 2>(simd, values, rows),
            _ => add_rows::<S, E, 1>(simd, values, rows),
        };
    }
}

/// Some rows of a partial result.
struct Weighted<'a> {
    weights: &'a [f32],
    rescale: &'a [f32],
    out: &'a mut [f32],
}

/// `R` rows, as many columns at a time as registers hold; returns `R`.
#[inline(always)]
fn add_rows<S: Simd, E: Element, const R: usize>(
    simd: S,
    values: &ValueRows<'_, E>,
    mut rows: Weighted<'_>,
) -> usize {
    let mut column = 0;
    while column < values.width {
        column += S::LANES
            * match (values.width - column) / S::LANES {
                4.. if S::LANES == 16 => add_columns::<S, E, R, 4>(simd, values, &mut rows, column),
                2.. => add_columns::<S, E, R, 2>(simd, values, &mut rows, column),
                _ => add_columns::<S, E, R, 1>(simd, values, &mut rows, column),
            };
    }
    R
}

/// `R` rows and `C` vectors of columns; returns `C`.
#[inline(always)]
fn add_columns<S: Simd, E: Element, const R: usize, const C: usize>(
    simd: S,
    values: &ValueRows<'_, E>,
    rows: &mut Weighted<'_>,
    column: usize,
) -> usize {
    assert!(column + C * S::LANES <= values.width, "the columns lie in the row");
    assert!(rows.weights.len() >= (R - 1) * SCORE_STRIDE + values.len, "one weight for each key");
    let mut sums = [[simd.splat(0.0); C]; R];
    for (r, sums) in sums.iter_mut().enumerate() {
        let rescale = simd.splat(rows.rescale[r]);
        for (c, sum) in sums.iter_mut().enumerate() {
            let out = &rows.out[r * values.width + column + c * S::LANES..];
            *sum = simd.mul(simd.load(out), rescale);
        }
    }
    for key in 0..values.len {
        if values.ahead[key] != usize::MAX {
            let row = values.values.as_ptr().wrapping_add(values.ahead[key] + column);
            prefetch(row, C * S::LANES * size_of::<E>());
        }
        let mut loaded = [simd.splat(0.0); C];
        for (c, loaded) in loaded.iter_mut().enumerate() {
            // SAFETY: `key < values.len`, and the columns lie in the row by the assertion above.
            *loaded = unsafe { values.load(simd, key, column + c * S::LANES) };
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: `r < R` and `key < values.len`, so the weight is there by the assertion above.
            let weight = simd.splat(unsafe { *rows.weights.get_unchecked(r * SCORE_STRIDE + key) });
            for (sum, value) in sums.iter_mut().zip(loaded) {
                *sum = simd.fma(weight, value, *sum);
            }
        }
    }
    for (r, sums) in sums.into_iter().enumerate() {
        for (c, sum) in sums.into_iter().enumerate() {
            let out = &mut rows.out[r * values.width + column + c * S::LANES..];
            simd.store(&mut out[..S::LANES], sum);
        }
    }
    C
}
