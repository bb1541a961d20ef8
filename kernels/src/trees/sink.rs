//! Where leaves go when rows reach them: into sums, or into a table of their numbers.

use super::lanes::Add;
use super::places::Places;
use super::reference::Reference;

/// Rows whose sums are in registers.
const STRETCH_ROWS: usize = 8;

/// Takes leaves; the trees of a row come in order.
pub(super) trait Sink {
    /// The places of the leaves of consecutive rows in a tree.
    fn take(&mut self, tree: usize, first: usize, places: &[u32]);
    /// The places of the leaves of a few consecutive rows in consecutive trees, `[trees, rows]`; there may be more
    /// columns than rows.
    fn stretch<P: Copy + Into<u32>, const N: usize>(
        &mut self,
        tree: usize,
        first: usize,
        rows: usize,
        places: &[[P; N]],
    ) {
        one_by_one(self, tree, first, rows, places);
    }
    /// The place of the leaf of one row in a tree.
    fn one(&mut self, tree: usize, row: usize, place: u32);
}

/// Hands a sink a stretch leaf by leaf.
#[inline(always)]
fn one_by_one<P: Copy + Into<u32>, const N: usize>(
    sink: &mut (impl Sink + ?Sized),
    tree: usize,
    first: usize,
    rows: usize,
    places: &[[P; N]],
) {
    for (tree, places) in (tree..).zip(places) {
        for (row, &place) in (first..first + rows).zip(places) {
            sink.one(tree, row, place.into());
        }
    }
}

/// A number that sums are made of.
pub(super) trait Sum: Copy + std::ops::AddAssign {
    /// Rounded.
    fn of(value: f64) -> Self;
}

impl Sum for f32 {
    fn of(value: f64) -> Self {
        value as f32
    }
}

impl Sum for f64 {
    fn of(value: f64) -> Self {
        value
    }
}

/// What is at the places of all trees: numbers in the precision of the sum, or the leaves' numbers.
#[derive(Clone, Debug)]
pub(super) struct Leaves<S> {
    values: Vec<S>,
    /// Where each tree's numbers start, and its output.
    trees: Vec<(usize, usize)>,
    /// Numbers of a leaf.
    width: usize,
}

impl<S: Sum> Leaves<S> {
    pub(super) fn new(forest: &Reference, places: &[Places]) -> Self {
        let width = if forest.vector_leaves { forest.base.len() } else { 1 };
        let mut leaves = Self { values: Vec::new(), trees: Vec::new(), width };
        for (tree, places) in forest.trees.iter().zip(places) {
            let values = tree.leaves.iter().map(|&value| S::of(value));
            leaves.push(places, tree.output as usize, &values.collect::<Vec<_>>(), S::of(0.0));
        }
        leaves
    }
}

impl Leaves<u32> {
    /// The number of the leaf at each place.
    pub(super) fn numbers(forest: &Reference, places: &[Places]) -> Self {
        let mut leaves = Self { values: Vec::new(), trees: Vec::new(), width: 1 };
        for (tree, places) in forest.trees.iter().zip(places) {
            let numbers: Vec<u32> = (0..=tree.splits.len() as u32).collect();
            leaves.push(places, 0, &numbers, 0);
        }
        leaves
    }
}

impl<S: Copy> Leaves<S> {
    /// Adds a tree's leaves; places without one hold `empty`.
    fn push(&mut self, places: &Places, output: usize, values: &[S], empty: S) {
        let start = self.values.len();
        self.trees.push((start, output));
        self.values.resize(start + places.count * self.width, empty);
        for (leaf, values) in values.chunks_exact(self.width).enumerate() {
            let place = start + places.of(leaf as u32) as usize * self.width;
            self.values[place..place + self.width].copy_from_slice(values);
        }
    }

    /// The numbers of a tree's leaves, and the output they start at.
    #[inline(always)]
    fn tree(&self, tree: usize) -> (&[S], usize) {
        let (start, output) = self.trees[tree];
        let end = self.trees.get(tree + 1).map_or(self.values.len(), |next| next.0);
        (&self.values[start..end], if self.width > 1 { 0 } else { output })
    }
}

/// Adds up leaves: `sums` is `[outputs, rows]`, so that a tree's rows lie side by side.
pub(super) struct SumSink<'a, S> {
    pub(super) leaves: &'a Leaves<S>,
    pub(super) sums: &'a mut [S],
    pub(super) rows: usize,
    pub(super) add: Add<S>,
}

impl<S: Sum> SumSink<'_, S> {
    /// Adds a stretch's places of at most `M` rows to their only sums, which stay in registers.
    #[inline(always)]
    fn add_rows<P: Copy + Into<u32>, const N: usize, const M: usize>(
        &mut self,
        tree: usize,
        first: usize,
        rows: usize,
        places: &[[P; N]],
        from: usize,
    ) {
        let out = &mut self.sums[first..first + rows];
        let mut sums = [S::of(0.0); M];
        sums[..rows].copy_from_slice(out);
        for (&(start, _), places) in self.leaves.trees[tree..].iter().zip(places) {
            for (sum, &place) in sums.iter_mut().zip(&places[from..from + M]) {
                *sum += self.leaves.values[start + place.into() as usize];
            }
        }
        out.copy_from_slice(&sums[..rows]);
    }
}

impl<S: Sum> Sink for SumSink<'_, S> {
    fn take(&mut self, tree: usize, first: usize, places: &[u32]) {
        let (values, output) = self.leaves.tree(tree);
        for position in 0..self.leaves.width {
            let start = (output + position) * self.rows + first;
            let sums = &mut self.sums[start..start + places.len()];
            // SAFETY: the kernel is one that the machine supports, and `places` are places of the tree.
            unsafe { (self.add)(sums, values, places, self.leaves.width, position) };
        }
    }

    fn stretch<P: Copy + Into<u32>, const N: usize>(
        &mut self,
        tree: usize,
        first: usize,
        rows: usize,
        places: &[[P; N]],
    ) {
        if self.sums.len() > self.rows || self.leaves.width > 1 {
            return one_by_one(self, tree, first, rows, places);
        }
        if N == 1 {
            return self.add_rows::<P, N, 1>(tree, first, 1, places, 0);
        }
        for from in (0..rows).step_by(STRETCH_ROWS) {
            let count = STRETCH_ROWS.min(rows - from);
            self.add_rows::<P, N, STRETCH_ROWS>(tree, first + from, count, places, from);
        }
    }

    #[inline(always)]
    fn one(&mut self, tree: usize, row: usize, place: u32) {
        let (values, output) = self.leaves.tree(tree);
        for position in 0..self.leaves.width {
            self.sums[(output + position) * self.rows + row] +=
                values[place as usize * self.leaves.width + position];
        }
    }
}

/// Writes numbers of leaves: `out` is `[rows, trees]`.
pub(super) struct LeafSink<'a> {
    pub(super) numbers: &'a Leaves<u32>,
    pub(super) out: &'a mut [u32],
    pub(super) trees: usize,
}

impl Sink for LeafSink<'_> {
    fn take(&mut self, tree: usize, first: usize, places: &[u32]) {
        places.iter().enumerate().for_each(|(row, &place)| self.one(tree, first + row, place));
    }

    #[inline(always)]
    fn one(&mut self, tree: usize, row: usize, place: u32) {
        self.out[row * self.trees + tree] = self.numbers.tree(tree).0[place as usize];
    }
}
