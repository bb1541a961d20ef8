//! Tree ensembles: rows in, sums of leaf values out, bit-equal to the library that grew the trees.
//!
//! A format lowers its trees to [`Ensemble`]; [`Forest`] checks it once and answers batches. One test of a node sends a
//! value to the left or to the right; every library's rules (which of `<` and `<=`, where missing values and unknown
//! categories go) are said by [`Test`], so that one evaluator serves all.

mod check;
mod columns;
#[cfg(target_arch = "x86_64")]
mod complete_avx512;
mod jumps;
#[cfg(target_arch = "x86_64")]
mod jumps_avx512;
mod lanes;
mod layouts;
#[cfg(target_arch = "x86_64")]
mod paths_avx512;
mod places;
mod ranks;
mod reference;
mod sink;
#[cfg(test)]
mod tests;
mod walk;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::ops::Range;

use check::check;
use layouts::{Layouts, Path};
use reference::Reference;

/// Where a branch of a node leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Child {
    /// Another node of the tree, behind its parent.
    Node(u32),
    /// A leaf.
    Leaf(u32),
}

/// What a node asks about the value of its feature. NaN never reaches it: it goes where [`Split::missing_left`] says.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// `value <= threshold` goes left. A library's `value < t` is the same as `<=` with the next number below `t` in the
    /// precision of the input.
    AtMost(f64),
    /// As [`Test::AtMost`], but values with `|value| <= 1e-35` (as a single-precision number) are missing (LightGBM).
    AtMostZeroMissing(f64),
    /// Categories, the value truncated towards zero. In a box: most nodes have none, and there are many nodes.
    Category(Box<CategorySplit>),
}

/// Bit sets over category numbers, 32 a word; a category beyond the words is in neither.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CategorySplit {
    /// Categories that go left.
    pub left: Vec<u32>,
    /// Categories that go right.
    pub right: Vec<u32>,
    /// Where categories in neither set go, and negative values.
    pub other_left: bool,
    /// Values between -1 and 0 are category 0 (LightGBM), not negative.
    pub truncates_negative: bool,
}

/// An inner node.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// Column of the rows.
    pub feature: u32,
    /// What decides.
    pub test: Test,
    /// Where NaN goes.
    pub missing_left: bool,
    /// Where the test sends to when it holds.
    pub left: Child,
    /// Where it sends to when it does not.
    pub right: Child,
}

/// One tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Tree {
    /// Inner nodes, the root first; empty for a tree that is a single leaf.
    pub splits: Vec<Split>,
    /// Values of the leaves: one number a leaf, or `outputs` numbers a leaf when the leaves are vectors.
    pub leaves: Vec<f64>,
    /// The output that a tree of scalar leaves adds to.
    pub output: u32,
}

/// Precision of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// `f32`.
    Single,
    /// `f64`.
    Double,
}

/// A whole ensemble, as a format describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Ensemble {
    /// Columns of a row.
    pub features: usize,
    /// Numbers of a result.
    pub outputs: usize,
    /// Each leaf holds `outputs` numbers, added to all outputs.
    pub vector_leaves: bool,
    /// Precision of the rows that tests compare: thresholds are exact in it.
    pub input: Precision,
    /// Precision of leaves and of the sum: one rounding per addition, trees in order.
    pub sum: Precision,
    /// What the sums start from, one number per output.
    pub base: Vec<f64>,
    /// The trees.
    pub trees: Vec<Tree>,
}

/// Why an [`Ensemble`] cannot be evaluated: a tree that is none, a feature or output out of range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tree {tree}: {reason}")]
pub struct TreeError {
    /// Number of the tree.
    pub tree: usize,
    /// What is wrong with it.
    pub reason: String,
}

/// Row-major rows of as many columns as the forest has features.
#[derive(Clone, Copy, Debug)]
pub enum Rows<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// Double precision.
    F64(&'a [f64]),
}

impl<'a> Rows<'a> {
    /// Numbers in all rows together.
    pub fn len(&self) -> usize {
        match self {
            Rows::F32(values) => values.len(),
            Rows::F64(values) => values.len(),
        }
    }

    /// True without numbers.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The numbers of a range of positions.
    fn slice(&self, range: Range<usize>) -> Rows<'a> {
        match self {
            Rows::F32(values) => Rows::F32(&values[range]),
            Rows::F64(values) => Rows::F64(&values[range]),
        }
    }
}

/// Where sums go: `[rows, outputs]`, in the precision that the forest sums in.
#[derive(Debug)]
pub enum Sums<'a> {
    /// Of a forest that sums in single precision.
    F32(&'a mut [f32]),
    /// Of a forest that sums in double precision.
    F64(&'a mut [f64]),
}

impl Sums<'_> {
    /// Numbers in all rows together.
    pub fn len(&self) -> usize {
        match self {
            Sums::F32(values) => values.len(),
            Sums::F64(values) => values.len(),
        }
    }

    /// True without numbers.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A checked ensemble: nothing in it leads outside, so evaluation cannot fail.
#[derive(Clone, Debug)]
pub struct Forest {
    reference: Reference,
    layouts: Layouts,
}

impl Forest {
    /// Checks an ensemble and lays it out.
    ///
    /// # Errors
    /// [`TreeError`] names the tree: when a child is not behind its parent or is not reached exactly once, when a leaf,
    /// feature or output is out of range, when a threshold is NaN.
    pub fn new(ensemble: &Ensemble) -> Result<Self, TreeError> {
        check(ensemble)?;
        let reference = Reference::new(ensemble);
        Ok(Self { layouts: Layouts::new(&reference), reference })
    }

    /// Columns of a row.
    pub fn features(&self) -> usize {
        self.reference.features
    }

    /// Numbers of a result.
    pub fn outputs(&self) -> usize {
        self.reference.base.len()
    }

    /// Number of trees.
    pub fn trees(&self) -> usize {
        self.reference.trees.len()
    }

    /// Precision of the sums.
    pub fn sum(&self) -> Precision {
        self.reference.sum
    }

    /// For each row the base and, in the order of the trees, the leaf it reaches. Runs on the caller's thread; a row's
    /// result does not depend on its neighbours. Rows of the other precision are rounded to the nearest first.
    ///
    /// # Panics
    /// When `out` is not `[rows, outputs]` in the precision of [`Forest::sum`].
    pub fn sums(&self, rows: Rows<'_>, out: Sums<'_>) {
        self.check_rows(rows, out.len() / self.outputs());
        assert_eq!(out.len() % self.outputs(), 0, "sums are whole rows of {}", self.outputs());
        self.layouts.sums(&self.reference, Path::Fastest, rows, out);
    }

    /// Number of the leaf that each row reaches in each tree: `[rows, trees]`.
    ///
    /// # Panics
    /// When `out` has not that shape.
    pub fn leaves(&self, rows: Rows<'_>, out: &mut [u32]) {
        if self.trees() > 0 {
            self.check_rows(rows, out.len() / self.trees());
            assert_eq!(out.len() % self.trees(), 0, "leaves are whole rows of {}", self.trees());
            self.layouts.leaves(&self.reference, Path::Fastest, rows, out);
        }
    }

    fn check_rows(&self, rows: Rows<'_>, count: usize) {
        assert_eq!(rows.len(), count * self.features(), "as many rows go in as come out");
    }
}
