//! A model as its file describes it, whichever form the file has: what the text and the JSON dump both lower to.

use serde_json::Value;
use tokenmill_kernels::trees::{CategorySplit, Child, Split, Test, Tree};

use crate::error::Fault;

/// Everything of a file that predictions need.
#[derive(Debug)]
pub(super) struct Source {
    /// `v3`, `v4`.
    pub(super) version: String,
    /// `num_class`.
    pub(super) classes: usize,
    /// `num_tree_per_iteration`: trees of a round, and numbers of a raw score.
    pub(super) per_round: usize,
    /// The objective's line; `None` for custom objectives.
    pub(super) objective: Option<String>,
    /// Random forest mode: the sum is divided by the rounds.
    pub(super) average: bool,
    /// Name of each feature.
    pub(super) names: Vec<String>,
    /// What each feature was in training.
    pub(super) kinds: Vec<Kind>,
    /// The trees, all of one round together.
    pub(super) trees: Vec<Tree>,
    /// The leaves of each linear tree; `None` for a tree of constants.
    pub(super) linear: Vec<Option<Vec<LinearLeaf>>>,
    /// `pandas_categorical`: the categories of each categorical column of the training frame.
    pub(super) categories: Vec<Vec<Value>>,
}

/// What a feature was in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Constant, or the file does not say.
    Unknown,
    /// A number.
    Number,
    /// A category.
    Category,
}

/// A leaf of a linear tree: `constant + sum of coefficient * feature`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct LinearLeaf {
    /// `leaf_const`.
    pub(super) constant: f64,
    /// Feature and coefficient, in the order of addition.
    pub(super) terms: Vec<(u32, f64)>,
}

impl Source {
    /// Numbers of rounds.
    pub(super) fn rounds(&self) -> usize {
        self.trees.len() / self.per_round
    }

    /// Keeps the first `rounds` rounds: what `best_iteration` says.
    pub(super) fn truncate(&mut self, rounds: usize) {
        let trees = rounds.saturating_mul(self.per_round);
        self.trees.truncate(trees);
        self.linear.truncate(trees);
    }

    /// Checks what concerns the whole, and says which output each tree adds to.
    pub(super) fn finish(mut self) -> Result<Self, Fault> {
        let (trees, per_round) = (self.trees.len(), self.per_round);
        if per_round == 0 || !trees.is_multiple_of(per_round) {
            let reason = format!("{trees} trees are no whole number of rounds of {per_round}");
            return Err(Fault::corrupt("num_tree_per_iteration", reason));
        }
        if trees == 0 && per_round > MAX_EMPTY {
            let reason = format!("{per_round} outputs without a tree; at most {MAX_EMPTY}");
            return Err(Fault::corrupt("num_tree_per_iteration", reason));
        }
        if self.classes == 0 {
            return Err(Fault::corrupt("num_class", "expected at least 1, found 0"));
        }
        for (index, tree) in self.trees.iter_mut().enumerate() {
            tree.output = u32::try_from(index % per_round)
                .map_err(|_| Fault::corrupt("num_tree_per_iteration", "does not fit 32 bits"))?;
        }
        Ok(self)
    }
}

/// Outputs of a model without trees, which nothing else in the file bounds.
const MAX_EMPTY: usize = 1 << 16;

/// Where missing values of a node's feature go; bits 2 and 3 of `decision_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// There is none: NaN is 0.
    Nothing,
    /// Zero and NaN are missing.
    Zero,
    /// NaN is missing.
    NotANumber,
}

impl Missing {
    /// A node that sends `value <= threshold` left, and missing values to the side of `default_left`.
    pub(super) fn split(self, threshold: f64, default_left: bool) -> (Test, bool) {
        match self {
            Missing::Nothing => (Test::AtMost(threshold), 0.0 <= threshold),
            Missing::Zero => (Test::AtMostZeroMissing(threshold), default_left),
            Missing::NotANumber => (Test::AtMost(threshold), default_left),
        }
    }
}

/// A node that sends the categories in `words` left, everything else right.
pub(super) fn category_split(words: Vec<u32>) -> (Test, bool) {
    let (left, right) = (words, Vec::new());
    let split = CategorySplit { left, right, other_left: false, truncates_negative: true };
    (Test::Category(Box::new(split)), false)
}

/// A node of what [`Missing::split`] or [`category_split`] gave; `children` as the text numbers them.
pub(super) fn node(feature: u32, (test, missing_left): (Test, bool), children: [i32; 2]) -> Split {
    let [left, right] = children.map(|child| match u32::try_from(child) {
        Ok(node) => Child::Node(node),
        Err(_) => Child::Leaf(!child as u32),
    });
    Split { feature, test, missing_left, left, right }
}
