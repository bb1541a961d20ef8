//! Tree ensembles: rows in, sums of leaf values out, bit-equal to the library that grew the trees.
//!
//! A format lowers its trees to [`Ensemble`]; [`Forest`] checks it once and answers batches. One test of a node sends a
//! value to the left or to the right; every library's rules (which of `<` and `<=`, where missing values and unknown
//! categories go) are said by [`Test`], so that one evaluator serves all.

mod reference;

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
    /// Categories, the value truncated towards zero.
    Category(CategorySplit),
}

/// Bit sets over category numbers, 32 a word; a category beyond the words is in neither.
#[derive(Clone, Debug, PartialEq)]
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
