//! The gated product `f(x . gate^T) * (x . up^T)`: the first half of a gated feed-forward block in one fork-join.
//!
//! A task computes the same panel of both matrices and joins the sums while they are in its cache. Written apart, the
//! two products are the largest activations of a layer, and half of them would be read by another core.

use std::ops::Range;

use super::input::{Input, ROWS, Scratch};
use super::layout::WIDTH;
use super::product::{Part, Split, Sums, TileFn, add_bias, forms, panel_sums};
use crate::activation::{ActMul, Activation};
use crate::isa::Variant;
use crate::pool::{SharedMut, ThreadPool, part_range};

/// Row blocks for which one matrix's panel is used before the other's: two panels together may be more than the
/// second-level cache holds.
const BLOCKS: usize = 8;

/// A gate, what it gates, and the function between.
pub(super) struct Gate<'a> {
    pub(super) function: Activation,
    pub(super) gate: Part<'a>,
    pub(super) up: Part<'a>,
}

/// Multiplies with given variants; see [`matmul_gated`](super::matmul_gated).
pub(super) fn multiply(
    (tile, act_mul): (&Variant<TileFn>, &Variant<ActMul>),
    pool: &ThreadPool,
    gate: &Gate<'_>,
    (x, tokens): (&[f32], usize),
    scratch: &mut Scratch,
    out: &mut [f32],
) {
    let (matrix, _) = gate.gate;
    let (cols, width) = (matrix.cols(), matrix.rows());
    let parts = [gate.gate, gate.up];
    for (part, bias) in parts {
        assert_eq!((part.rows(), part.cols()), (width, cols), "gate and up have one shape");
        assert!(bias.is_none_or(|bias| bias.len() == width), "one bias per output");
    }
    assert_eq!(
        (x.len(), out.len()),
        (tokens * cols, tokens * width),
        "x and out are {tokens} rows"
    );
    if tokens == 0 {
        return;
    }
    let split = Split::new(pool.threads(), &parts, tokens, matrix.panels());
    let product = Gated {
        tile: tile.run,
        act_mul: act_mul.run,
        gate,
        input: scratch.prepare(pool, (x, tokens), forms(&parts)),
        out: SharedMut::new(out),
        width,
    };
    pool.run(split.tasks(), &|task| {
        let (blocks, panels) = split.task(task);
        let mut sums = [[[0.0; WIDTH]; ROWS]; BLOCKS + 2];
        for panel in panels.clone() {
            product.run(blocks.clone(), panel, panels.end, &mut sums);
        }
    });
}

/// Everything a task needs; shared by all threads.
struct Gated<'a> {
    tile: TileFn,
    act_mul: ActMul,
    gate: &'a Gate<'a>,
    input: Input<'a>,
    out: SharedMut<'a, f32>,
    width: usize,
}

impl Gated<'_> {
    /// Computes a panel for the row blocks `blocks`; the task's panels end before `end`. `sums` is working memory.
    fn run(
        &self,
        blocks: Range<usize>,
        panel: usize,
        end: usize,
        sums: &mut [[[f32; WIDTH]; ROWS]; BLOCKS + 2],
    ) {
        let [gates @ .., ups, joined] = sums;
        let (gate, up) = (self.gate.gate.0, self.gate.up.0);
        let after = if panel + 1 < end { gate.panel(panel + 1) } else { &[] };
        for first in blocks.clone().step_by(BLOCKS) {
            let group = first..blocks.end.min(first + BLOCKS);
            for (block, sums) in group.clone().zip(&mut *gates) {
                // Up's panel is asked for once, while the first blocks meet the gate's.
                let next = if first == blocks.start { up.panel(panel) } else { &[] };
                let next = &next[part_range(next.len(), group.len(), block - first)];
                let rows = self.input.rows(block);
                let sums = &mut sums[..rows.len()];
                panel_sums(self.tile, &self.input, gate, (panel, rows), next, sums);
            }
            for (block, gates) in group.zip(&mut *gates) {
                let next = &after[part_range(after.len(), blocks.len(), block - blocks.start)];
                let rows = self.input.rows(block);
                let [gates, ups, joined] =
                    [gates, &mut *ups, &mut *joined].map(|sums| &mut sums[..rows.len()]);
                panel_sums(self.tile, &self.input, up, (panel, rows.clone()), next, ups);
                self.join(panel, rows, [gates, ups, joined]);
            }
        }
    }

    /// Writes `joined = f(gates) * ups` for the tokens `rows`.
    fn join(&self, panel: usize, rows: Range<usize>, [gates, ups, joined]: [&mut Sums; 3]) {
        let width = WIDTH.min(self.width - panel * WIDTH);
        add_bias(gates, self.gate.gate.1, panel, width);
        add_bias(ups, self.gate.up.1, panel, width);
        let (gates, ups) = (gates.as_flattened(), ups.as_flattened());
        (self.act_mul)(self.gate.function, gates, ups, joined.as_flattened_mut());
        for (token, joined) in rows.zip(joined) {
            let start = token * self.width + panel * WIDTH;
            // SAFETY: each token and panel is one task's, and columns of different panels do not overlap.
            let out = unsafe { self.out.slice(start..start + width) };
            match out.first_chunk_mut::<WIDTH>() {
                Some(out) => *out = *joined,
                None => out.copy_from_slice(&joined[..width]),
            }
        }
    }
}
