//! The evaluation that defines the results: node by node, row by row.

use std::ops::Range;

use super::{CategorySplit, Child, Ensemble, Precision, Rows, Split, Test, Tree};

/// Values up to this size count as zero (LightGBM): 1e-35 in single precision.
pub(super) const ZERO: f64 = 1e-35f32 as f64;

/// What [`Ensemble`] says, kept as it is.
#[derive(Clone, Debug)]
pub(super) struct Reference {
    pub(super) features: usize,
    pub(super) vector_leaves: bool,
    pub(super) input: Precision,
    pub(super) sum: Precision,
    pub(super) base: Vec<f64>,
    pub(super) trees: Vec<Tree>,
}

impl Reference {
    /// Of a checked ensemble.
    pub(super) fn new(ensemble: &Ensemble) -> Self {
        Self {
            features: ensemble.features,
            vector_leaves: ensemble.vector_leaves,
            input: ensemble.input,
            sum: ensemble.sum,
            base: ensemble.base.clone(),
            trees: ensemble.trees.clone(),
        }
    }

    /// Hands the number of the leaf of every row in every tree to `each`, with tree and row before it.
    pub(super) fn each(
        &self,
        rows: Rows<'_>,
        range: Range<usize>,
        mut each: impl FnMut(usize, usize, u32),
    ) {
        for row in range {
            for (number, tree) in self.trees.iter().enumerate() {
                each(number, row, self.leaf(tree, rows, row));
            }
        }
    }

    fn leaf(&self, tree: &Tree, rows: Rows<'_>, row: usize) -> u32 {
        if tree.splits.is_empty() {
            return 0;
        }
        let mut node = 0;
        loop {
            let split = &tree.splits[node as usize];
            let position = row * self.features + split.feature as usize;
            let value = match rows {
                Rows::F32(values) => f64::from(values[position]),
                Rows::F64(values) if self.input == Precision::Single => {
                    f64::from(values[position] as f32)
                }
                Rows::F64(values) => values[position],
            };
            match if split.goes_left(value) { split.left } else { split.right } {
                Child::Node(next) => node = next,
                Child::Leaf(leaf) => return leaf,
            }
        }
    }
}

impl Split {
    /// Whether a value goes left.
    pub(super) fn goes_left(&self, value: f64) -> bool {
        if value.is_nan() {
            return self.missing_left;
        }
        match &self.test {
            Test::AtMost(threshold) => value <= *threshold,
            Test::AtMostZeroMissing(_) if value.abs() <= ZERO => self.missing_left,
            Test::AtMostZeroMissing(threshold) => value <= *threshold,
            Test::Category(categories) => categories.goes_left(value),
        }
    }
}

impl CategorySplit {
    /// Whether a value that is not NaN goes left.
    pub(super) fn goes_left(&self, value: f64) -> bool {
        let negative = if self.truncates_negative { value <= -1.0 } else { value < 0.0 };
        if negative || value >= f64::from(u32::MAX) {
            return self.other_left;
        }
        let category = value as u32;
        let holds = |words: &[u32]| {
            words.get(category as usize / 32).is_some_and(|word| word >> (category % 32) & 1 == 1)
        };
        holds(&self.left) || (!holds(&self.right) && self.other_left)
    }
}
