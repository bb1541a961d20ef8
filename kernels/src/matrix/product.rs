//! The product: which thread computes which panels for which tokens, and where the sums go.

use std::ops::Range;

use super::input::{Forms, Input, QuantX, ROWS, Scratch, row_blocks};
use super::layout::{BLOCK, Line, PackedMatrix, WIDTH, WeightType};
use crate::isa::Variant;
use crate::pool::{SharedMut, ThreadPool, part_range};

/// Where a product goes: element `[t, r]` is `data[t * stride + offset + r]`.
#[derive(Debug)]
pub struct OutMut<'a> {
    /// The rows.
    pub data: &'a mut [f32],
    /// Elements from one row to the next.
    pub stride: usize,
    /// First column written.
    pub offset: usize,
    /// Add to what is there instead of replacing it.
    pub accumulate: bool,
}

impl<'a> OutMut<'a> {
    /// Replaces the elements of a matrix `[tokens, width]` without gaps.
    pub fn dense(data: &'a mut [f32], width: usize) -> OutMut<'a> {
        OutMut { data, stride: width, offset: 0, accumulate: false }
    }

    /// The same place, added to.
    pub fn accumulate(self) -> OutMut<'a> {
        OutMut { accumulate: true, ..self }
    }
}

/// The sums of one row block and one panel.
pub(crate) type Sums = [[f32; WIDTH]];

/// One panel against one row block: what a variant computes. Made by this module only.
#[derive(Debug)]
pub struct Tile<'a> {
    pub(crate) dtype: WeightType,
    pub(crate) panel: &'a [Line],
    /// Number of tokens, `1..=ROWS`.
    pub(crate) rows: usize,
    /// `[cols][rows]`; empty for quantised weights.
    pub(crate) floats: &'a [f32],
    /// `[cols / 32][rows]`; empty for float weights.
    pub(crate) quants: &'a [QuantX],
    /// Lines of the next panel that this call asks for while it computes: the processor alone looks less far ahead
    /// than memory is away, with one token as with many (measured: 375 to 515 tokens/s of one stream). The AVX-512
    /// variants do; the others leave it to the processor.
    pub(crate) next: &'a [Line],
}

/// Writes the sums of a tile: one row of 32 per token.
///
/// # Safety
/// The processor supports the instruction set of the variant.
pub type TileFn = unsafe fn(&Tile<'_>, &mut [[f32; WIDTH]]);

/// A matrix and its bias.
pub(crate) type Part<'a> = (&'a PackedMatrix, Option<&'a [f32]>);

/// Weight bytes (times row blocks) below which another thread does not pay for its fork and join.
const MIN_PART_BYTES: usize = 24 << 10;

/// Bytes of activations that stay in the second-level cache while panels stream by.
const CACHED_INPUT_BYTES: usize = 384 << 10;

/// Tasks per thread with many tokens, so that a slow thread is helped out.
const TASKS_PER_THREAD: usize = 4;

/// Multiplies with a given variant; see [`PackedMatrix::matmul`] and
/// [`matmul_many`](super::matmul_many).
pub(crate) fn multiply(
    variant: &Variant<TileFn>,
    pool: &ThreadPool,
    parts: &[Part<'_>],
    (x, tokens): (&[f32], usize),
    scratch: &mut Scratch,
    out: OutMut<'_>,
) {
    if tokens == 0 || parts.is_empty() {
        return;
    }
    check(parts, (x, tokens), &out);
    let x = &x[..tokens * parts[0].0.cols()];
    let product = Product {
        run: variant.run,
        parts,
        input: scratch.prepare(pool, (x, tokens), forms(parts)),
        out: SharedMut::new(out.data),
        stride: out.stride,
        offset: out.offset,
        accumulate: out.accumulate,
    };
    let panels = parts.iter().map(|(matrix, _)| matrix.panels()).sum();
    let split = Split::new(pool.threads(), parts, tokens, panels);
    pool.run(split.tasks(), &|task| {
        let (blocks, panels) = split.task(task);
        product.run(blocks, panels);
    });
}

/// The forms of the activations that the matrices of a product read.
pub(super) fn forms(parts: &[Part<'_>]) -> Forms {
    Forms {
        floats: parts.iter().any(|(matrix, _)| !matrix.dtype().is_quantised()),
        quants: parts.iter().any(|(matrix, _)| matrix.dtype().is_quantised()),
    }
}

fn check(parts: &[Part<'_>], (x, tokens): (&[f32], usize), out: &OutMut<'_>) {
    let cols = parts[0].0.cols();
    assert!(x.len() >= tokens * cols, "{} activations for {tokens} x {cols}", x.len());
    for (matrix, bias) in parts {
        assert_eq!(matrix.cols(), cols, "matrices of one product share their input");
        assert!(bias.is_none_or(|bias| bias.len() == matrix.rows()), "one bias per output");
    }
    let columns = out.offset + parts.iter().map(|(matrix, _)| matrix.rows()).sum::<usize>();
    assert!(columns <= out.stride, "{columns} columns in rows of {}", out.stride);
    let end = (tokens - 1) * out.stride + columns;
    assert!(out.data.len() >= end, "{} elements of output, {end} needed", out.data.len());
}

/// Everything a task needs; shared by all threads.
struct Product<'a> {
    run: TileFn,
    parts: &'a [Part<'a>],
    input: Input<'a>,
    out: SharedMut<'a, f32>,
    stride: usize,
    offset: usize,
    accumulate: bool,
}

impl Product<'_> {
    /// Computes the panels `panels` (counted through all matrices) for the row blocks `blocks`.
    fn run(&self, blocks: Range<usize>, panels: Range<usize>) {
        let (mut first, mut column) = (0, self.offset);
        let mut sums = [[0.0; WIDTH]; ROWS];
        for &(matrix, bias) in self.parts {
            let end = first + matrix.panels();
            let range = panels.start.max(first)..panels.end.min(end);
            for panel in range.clone() {
                let next = match panel + 1 {
                    next if next < range.end => matrix.panel(next - first),
                    _ => &[],
                };
                for block in blocks.clone() {
                    let part = part_range(next.len(), blocks.len(), block - blocks.start);
                    let rows = self.input.rows(block);
                    let sums = &mut sums[..rows.len()];
                    let place = (panel - first, rows.clone());
                    panel_sums(self.run, &self.input, matrix, place, &next[part], sums);
                    self.store((matrix, bias), panel - first, column, rows, sums);
                }
            }
            (first, column) = (end, column + matrix.rows());
        }
    }

    /// Writes the sums of a panel, whose matrix has its first column at `column`, for the tokens `rows`.
    fn store(
        &self,
        (matrix, bias): Part<'_>,
        panel: usize,
        column: usize,
        rows: Range<usize>,
        sums: &mut Sums,
    ) {
        let width = WIDTH.min(matrix.rows() - panel * WIDTH);
        add_bias(sums, bias, panel, width);
        for (token, sums) in rows.zip(sums) {
            let start = token * self.stride + column + panel * WIDTH;
            // SAFETY: each token and panel is one task's, and columns of different panels do not
            // overlap.
            let out = unsafe { self.out.slice(start..start + width) };
            match (out.first_chunk_mut::<WIDTH>(), self.accumulate) {
                (Some(out), false) => *out = *sums,
                (Some(out), true) => out.iter_mut().zip(sums).for_each(|(out, sum)| *out += *sum),
                (None, false) => out.copy_from_slice(&sums[..width]),
                (None, true) => out.iter_mut().zip(sums).for_each(|(out, sum)| *out += *sum),
            }
        }
    }
}

/// The products of one panel with the tokens `rows`, which are a row block; `next` is what to ask for meanwhile.
pub(super) fn panel_sums(
    run: TileFn,
    input: &Input<'_>,
    matrix: &PackedMatrix,
    (panel, rows): (usize, Range<usize>),
    next: &[Line],
    sums: &mut Sums,
) {
    let quantised = matrix.dtype().is_quantised();
    let tile = Tile {
        dtype: matrix.dtype(),
        panel: matrix.panel(panel),
        rows: rows.len(),
        floats: if quantised { &[] } else { input.floats(rows.clone()) },
        quants: if quantised { input.quants(rows) } else { &[] },
        next,
    };
    // SAFETY: variants are chosen among those whose instruction set is supported.
    unsafe { run(&tile, sums) };
}

/// Adds the part of a bias that belongs to the `width` columns of a panel.
pub(super) fn add_bias(sums: &mut Sums, bias: Option<&[f32]>, panel: usize, width: usize) {
    let Some(bias) = bias else { return };
    let bias = &bias[panel * WIDTH..][..width];
    for sums in sums {
        sums.iter_mut().zip(bias).for_each(|(sum, bias)| *sum += bias);
    }
}

/// How a product is split into tasks: the panels are shared out evenly among the threads, a thread's panels cut into
/// tasks, and those (outer) by row blocks (inner), so that a thread keeps its panels.
pub(super) struct Split {
    row_blocks: usize,
    row_parts: usize,
    panels: usize,
    /// Threads that take part.
    threads: usize,
    /// Ranges of panels of a thread.
    panel_parts: usize,
}

impl Split {
    pub(super) fn new(threads: usize, parts: &[Part<'_>], tokens: usize, panels: usize) -> Split {
        let row_blocks = row_blocks(tokens);
        let bytes: usize = parts.iter().map(|(matrix, _)| matrix.bytes()).sum();
        let quantised = parts.iter().all(|(matrix, _)| matrix.dtype().is_quantised());
        let block = if quantised { size_of::<QuantX>() } else { BLOCK * size_of::<f32>() };
        let input = tokens * parts[0].0.cols().div_ceil(BLOCK) * block;
        let row_parts = input.div_ceil(CACHED_INPUT_BYTES).min(row_blocks);
        let worth = (bytes.saturating_mul(row_blocks) / MIN_PART_BYTES).min(panels).max(1);
        let threads = threads.min(worth);
        let wanted = match (threads, row_blocks) {
            (1, _) | (_, 1) => 1,
            _ => TASKS_PER_THREAD.div_ceil(row_parts),
        };
        let panel_parts = wanted.min(worth / threads);
        Split { row_blocks, row_parts, panels, threads, panel_parts }
    }

    pub(super) fn tasks(&self) -> usize {
        self.threads * self.panel_parts * self.row_parts
    }

    /// Row blocks and panels of a task.
    pub(super) fn task(&self, index: usize) -> (Range<usize>, Range<usize>) {
        let rows = part_range(self.row_blocks, self.row_parts, index % self.row_parts);
        let index = index / self.row_parts;
        let own = part_range(self.panels, self.threads, index / self.panel_parts);
        let panels = part_range(own.len(), self.panel_parts, index % self.panel_parts);
        (rows, own.start + panels.start..own.start + panels.end)
    }
}
