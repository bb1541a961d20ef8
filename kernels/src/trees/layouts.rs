//! The fast layouts of a forest, and which of them answers.
//!
//! Trees evaluated whole ([`super::lanes`]) cost the same for 16 rows as for 64; a row's jumps ([`super::jumps`]) and
//! paths walked ([`super::walk`]) cost by the row, jumps several times less, where the forest and the machine have them.
//! docs/performance.md has the measurements behind the choice.

use super::columns::{Columns, Reader};
use super::jumps::Jumps;
use super::lanes::{Add, KERNELS, Kernels, Lanes};
use super::places::Places;
use super::ranks::LANES;
use super::reference::Reference;
use super::sink::{LeafSink, Leaves, Sink, Sum, SumSink};
use super::walk::Walk;
use super::{Precision, Rows, Sums};
use crate::isa::select;

/// Rows from which evaluating trees whole is faster than walking them.
const MIN_LANE_ROWS: usize = 16;
/// Rows of a pass where sums are turned from `[outputs, rows]` to `[rows, outputs]`.
const CHUNK_ROWS: usize = 2048;

/// Which layout answers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Path {
    /// The one that is fastest for so many rows.
    Fastest,
    /// This one, or the reference where the forest does not fit it.
    #[cfg(test)]
    Only(Layout, &'static Kernels),
}

/// A way to evaluate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Reference,
    Walk,
    Jumps,
    Lanes,
}

#[derive(Clone, Debug)]
enum WalkLayout {
    /// At most 256 columns and 16 million nodes.
    Narrow(Walk<i32, u32, 8>),
    /// At most 4,096 columns and a million nodes.
    Middle(Walk<i32, u32, 12>),
    Wide(Walk<i64, u64, 32>),
}

#[derive(Clone, Debug)]
enum LaneLayout {
    Single(Lanes<i32>),
    Double(Lanes<i64>),
}

#[derive(Clone, Debug)]
enum LeafLayout {
    Single(Leaves<f32>),
    Double(Leaves<f64>),
}

/// All layouts that a forest fits.
#[derive(Clone, Debug)]
pub(super) struct Layouts {
    columns: Columns,
    walk: Option<WalkLayout>,
    lanes: Option<LaneLayout>,
    leaves: LeafLayout,
    numbers: Leaves<u32>,
    places: Vec<Places>,
}

impl Layouts {
    pub(super) fn new(forest: &Reference) -> Self {
        let mut columns = Columns::new(forest);
        let places: Vec<Places> = forest.trees.iter().map(Places::new).collect();
        let single = forest.input == Precision::Single;
        let lanes = if single {
            Lanes::new(forest, &columns, &places).map(LaneLayout::Single)
        } else {
            Lanes::new(forest, &columns, &places).map(LaneLayout::Double)
        };
        // A walk looks each category up in all sets before it starts.
        let few = columns.categories() <= 4 * forest.trees.len();
        let narrow = || Walk::new(forest, &columns, &places).map(WalkLayout::Narrow);
        let middle = || Walk::new(forest, &columns, &places).map(WalkLayout::Middle);
        let wide = || Walk::new(forest, &columns, &places).map(WalkLayout::Wide);
        let walk = match few {
            true if single => narrow().or_else(middle).or_else(wide),
            true => wide(),
            false => None,
        };
        columns.of_split = Vec::new();
        let leaves = match forest.sum {
            Precision::Single => LeafLayout::Single(Leaves::new(forest, &places)),
            Precision::Double => LeafLayout::Double(Leaves::new(forest, &places)),
        };
        let numbers = Leaves::numbers(forest, &places);
        Self { columns, walk, lanes, leaves, numbers, places }
    }

    fn jumps(&self) -> Option<&Jumps> {
        match self.lanes.as_ref()? {
            LaneLayout::Single(lanes) => lanes.jumps.as_ref(),
            LaneLayout::Double(lanes) => lanes.jumps.as_ref(),
        }
    }

    /// Whether the forest fits a layout.
    #[cfg(test)]
    pub(super) fn has(&self, layout: Layout) -> bool {
        match layout {
            Layout::Reference => true,
            Layout::Walk => self.walk.is_some(),
            Layout::Jumps => self.jumps().is_some(),
            Layout::Lanes => self.lanes.is_some(),
        }
    }

    /// Number of columns.
    #[cfg(test)]
    pub(super) fn columns(&self) -> usize {
        self.columns.list.len()
    }

    /// `out` is `[rows, outputs]`.
    pub(super) fn sums(&self, forest: &Reference, path: Path, rows: Rows<'_>, out: Sums<'_>) {
        let pass = Pass { layouts: self, forest, path };
        match (out, &self.leaves) {
            (Sums::F32(out), LeafLayout::Single(leaves)) => {
                pass.sums(rows, out, leaves, pass.kernels().add_f32);
            }
            (Sums::F64(out), LeafLayout::Double(leaves)) => {
                pass.sums(rows, out, leaves, pass.kernels().add_f64);
            }
            (Sums::F32(_), _) => panic!("the forest sums in double precision"),
            (Sums::F64(_), _) => panic!("the forest sums in single precision"),
        }
    }

    /// `out` is `[rows, trees]`.
    pub(super) fn leaves(&self, forest: &Reference, path: Path, rows: Rows<'_>, out: &mut [u32]) {
        let trees = forest.trees.len();
        let pass = Pass { layouts: self, forest, path };
        pass.run(rows, out.len() / trees, &mut LeafSink { numbers: &self.numbers, out, trees });
    }
}

/// One evaluation.
struct Pass<'a> {
    layouts: &'a Layouts,
    forest: &'a Reference,
    path: Path,
}

impl Pass<'_> {
    fn kernels(&self) -> &'static Kernels {
        match self.path {
            Path::Fastest => &select(KERNELS).run,
            #[cfg(test)]
            Path::Only(_, kernels) => kernels,
        }
    }

    /// Sums in passes of [`CHUNK_ROWS`]; with one output all at once, as nothing has to be turned.
    fn sums<S: Sum>(&self, rows: Rows<'_>, out: &mut [S], leaves: &Leaves<S>, add: Add<S>) {
        let (outputs, features) = (self.forest.base.len(), self.forest.features);
        if let [base] = self.forest.base[..] {
            out.fill(S::of(base));
            let rows_count = out.len();
            let sums = out;
            self.run(rows, rows_count, &mut SumSink { leaves, sums, rows: rows_count, add });
            return;
        }
        let mut sums = Vec::new();
        for (chunk, out) in out.chunks_mut(CHUNK_ROWS * outputs).enumerate() {
            let count = out.len() / outputs;
            let first = chunk * CHUNK_ROWS;
            let part = rows.slice(first * features..(first + count) * features);
            sums.clear();
            let base = self.forest.base.iter();
            sums.extend(base.flat_map(|&base| std::iter::repeat_n(S::of(base), count)));
            self.run(part, count, &mut SumSink { leaves, sums: &mut sums, rows: count, add });
            for (row, out) in out.chunks_exact_mut(outputs).enumerate() {
                let row = sums.iter().skip(row).step_by(count);
                out.iter_mut().zip(row).for_each(|(out, &sum)| *out = sum);
            }
        }
    }

    fn run(&self, rows: Rows<'_>, count: usize, sink: &mut impl Sink) {
        let (features, input) = (self.forest.features, self.forest.input);
        let reader = Reader { rows, features, input };
        // Rows that are too few for a vector are not evaluated whole.
        let tail = match (self.layout(count), self.layout(count % LANES)) {
            (Layout::Lanes, Layout::Lanes) => 0,
            (Layout::Lanes, _) => count % LANES,
            _ => 0,
        };
        for (first, rows) in [(0, count - tail), (count - tail, tail)] {
            if rows > 0 {
                self.part(self.layout(rows), reader, first, rows, sink);
            }
        }
    }

    /// Rows in one layout.
    fn part(
        &self,
        layout: Layout,
        reader: Reader<'_>,
        first: usize,
        rows: usize,
        sink: &mut impl Sink,
    ) {
        let Layouts { columns, walk, lanes, places, .. } = self.layouts;
        let kernels = self.kernels();
        match (layout, lanes, walk) {
            (Layout::Lanes, Some(LaneLayout::Single(lanes)), _) => {
                lanes.run(kernels, reader, first, rows, sink);
            }
            (Layout::Lanes, Some(LaneLayout::Double(lanes)), _) => {
                lanes.run(kernels, reader, first, rows, sink);
            }
            (Layout::Jumps, Some(LaneLayout::Single(lanes)), _) if self.jump_rows() > 0 => {
                lanes.follow(kernels, reader, first, rows, sink);
            }
            (Layout::Jumps, Some(LaneLayout::Double(lanes)), _) if self.jump_rows() > 0 => {
                lanes.follow(kernels, reader, first, rows, sink);
            }
            (Layout::Walk, _, Some(WalkLayout::Narrow(walk))) => {
                walk.run(columns, reader, first, rows, sink);
            }
            (Layout::Walk, _, Some(WalkLayout::Middle(walk))) => {
                walk.run(columns, reader, first, rows, sink);
            }
            (Layout::Walk, _, Some(WalkLayout::Wide(walk))) => {
                walk.run(columns, reader, first, rows, sink);
            }
            _ => self.forest.each(reader.rows, first..first + rows, |tree, row, leaf| {
                sink.one(tree, row, places[tree].of(leaf));
            }),
        }
    }

    /// Rows up to which jumps are fastest; none where the forest or the machine has no jumps.
    fn jump_rows(&self) -> usize {
        let jumps = self.layouts.jumps().filter(|_| self.kernels().follow.is_some());
        jumps.map_or(0, Jumps::max_rows)
    }

    /// The layout for so many rows.
    fn layout(&self, rows: usize) -> Layout {
        let layouts = self.layouts;
        match self.path {
            #[cfg(test)]
            Path::Only(layout, _) => layout,
            Path::Fastest if rows <= self.jump_rows() => Layout::Jumps,
            Path::Fastest if layouts.lanes.is_some() && rows >= MIN_LANE_ROWS => Layout::Lanes,
            Path::Fastest if layouts.walk.is_some() => Layout::Walk,
            Path::Fastest => Layout::Reference,
        }
    }
}
