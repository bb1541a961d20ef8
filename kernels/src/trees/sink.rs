//! Where leaves go when rows reach them: into sums, or into a table of their numbers.

use super::lanes::Add;
use super::reference::Reference;

/// Takes leaves; the trees of a row come in order.
pub(super) trait Sink {
    /// The leaves of consecutive rows in a tree.
    fn take(&mut self, tree: usize, first: usize, ids: &[u32]);
    /// The leaf of one row in a tree.
    fn one(&mut self, tree: usize, row: usize, id: u32);
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

/// Numbers of the leaves of all trees, in the precision of the sum.
#[derive(Clone, Debug)]
pub(super) struct Leaves<S> {
    values: Vec<S>,
    /// Where each tree's numbers start, and its output.
    trees: Vec<(usize, usize)>,
    /// Numbers of a leaf.
    width: usize,
}

impl<S: Sum> Leaves<S> {
    pub(super) fn new(forest: &Reference) -> Self {
        let mut values =
            Vec::with_capacity(forest.trees.iter().map(|tree| tree.leaves.len()).sum());
        let mut trees = Vec::with_capacity(forest.trees.len());
        for tree in &forest.trees {
            trees.push((values.len(), tree.output as usize));
            values.extend(tree.leaves.iter().map(|&value| S::of(value)));
        }
        let width = if forest.vector_leaves { forest.base.len() } else { 1 };
        Self { values, trees, width }
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

impl<S: Sum> Sink for SumSink<'_, S> {
    fn take(&mut self, tree: usize, first: usize, ids: &[u32]) {
        let (values, output) = self.leaves.tree(tree);
        for position in 0..self.leaves.width {
            let start = (output + position) * self.rows + first;
            let sums = &mut self.sums[start..start + ids.len()];
            // SAFETY: the kernel is one that the machine supports, and `ids` are leaves of the tree.
            unsafe { (self.add)(sums, values, ids, self.leaves.width, position) };
        }
    }

    #[inline(always)]
    fn one(&mut self, tree: usize, row: usize, id: u32) {
        let (values, output) = self.leaves.tree(tree);
        for position in 0..self.leaves.width {
            self.sums[(output + position) * self.rows + row] +=
                values[id as usize * self.leaves.width + position];
        }
    }
}

/// Writes numbers of leaves: `out` is `[rows, trees]`.
pub(super) struct LeafSink<'a> {
    pub(super) out: &'a mut [u32],
    pub(super) trees: usize,
}

impl Sink for LeafSink<'_> {
    fn take(&mut self, tree: usize, first: usize, ids: &[u32]) {
        ids.iter().enumerate().for_each(|(row, &id)| self.one(tree, first + row, id));
    }

    #[inline(always)]
    fn one(&mut self, tree: usize, row: usize, id: u32) {
        self.out[row * self.trees + tree] = id;
    }
}
