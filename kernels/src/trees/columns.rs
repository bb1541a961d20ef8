//! Columns: what nodes compare, so that every node of a fast layout asks one question, `key > threshold`.
//!
//! A column is a feature together with the rule for missing values, or a feature together with a set of categories. A
//! value becomes a key of its column once, however many nodes look at it: an integer in the order of the numbers, the
//! smallest where a missing value goes left and the largest where it goes right. Categories become those two.

use std::collections::HashMap;

use super::reference::{Reference, ZERO};
use super::{CategorySplit, Precision, Rows, Split, Test};

/// An integer in the order of floating-point numbers.
pub(super) trait Key: Copy + Ord + std::fmt::Debug + Send + Sync {
    /// Goes left everywhere: below every number.
    const LEFT: Self;
    /// Goes right everywhere: above every number.
    const RIGHT: Self;
    /// Of a number that is not NaN; both zeros are one. Numbers of the forest's input precision keep their order.
    fn of(value: f64) -> Self;
    /// The key of the largest number of this precision that is not above `threshold`.
    fn of_threshold(threshold: f64) -> Self;
    /// A place of a leaf, kept where a node keeps its threshold.
    fn of_place(place: u32) -> Self;
    /// The place that was kept.
    fn place(self) -> u32;
}

impl Key for i32 {
    fn of_place(place: u32) -> Self {
        place as i32
    }

    #[inline(always)]
    fn place(self) -> u32 {
        self as u32
    }

    const LEFT: Self = i32::MIN;
    const RIGHT: Self = i32::MAX;

    #[inline(always)]
    fn of(value: f64) -> Self {
        let bits = (value as f32 + 0.0).to_bits() as i32;
        bits ^ ((bits >> 31) & i32::MAX)
    }

    fn of_threshold(threshold: f64) -> Self {
        Self::of(round_down(threshold))
    }
}

impl Key for i64 {
    fn of_place(place: u32) -> Self {
        place as i64
    }

    #[inline(always)]
    fn place(self) -> u32 {
        self as u32
    }

    const LEFT: Self = i64::MIN;
    const RIGHT: Self = i64::MAX;

    #[inline(always)]
    fn of(value: f64) -> Self {
        let bits = (value + 0.0).to_bits() as i64;
        bits ^ ((bits >> 63) & i64::MAX)
    }

    fn of_threshold(threshold: f64) -> Self {
        Self::of(threshold)
    }
}

/// The largest single-precision number that is not above `threshold`.
fn round_down(threshold: f64) -> f64 {
    let nearest = threshold as f32;
    f64::from(if f64::from(nearest) > threshold { nearest.next_down() } else { nearest })
}

/// How a column reads a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Rule {
    /// By its size.
    Number {
        /// Values next to zero are missing.
        zero_missing: bool,
    },
    /// By its category.
    Category(CategorySplit),
}

/// Where nodes send missing values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Missing {
    Left,
    Right,
    /// Left where a threshold is at least this number (its bits), right where it is below: as the number itself goes.
    As(u64),
}

/// A feature and how it is read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Column {
    pub(super) feature: u32,
    pub(super) missing: Missing,
    pub(super) rule: Rule,
}

impl Column {
    fn of(split: &Split) -> Self {
        let rule = match &split.test {
            Test::AtMost(_) => Rule::Number { zero_missing: false },
            Test::AtMostZeroMissing(_) => Rule::Number { zero_missing: true },
            Test::Category(categories) => Rule::Category(CategorySplit::clone(categories)),
        };
        let missing = if split.missing_left { Missing::Left } else { Missing::Right };
        Self { feature: split.feature, missing, rule }
    }

    /// Whether a value is missing in this column.
    #[inline(always)]
    pub(super) fn is_missing(&self, value: f64) -> bool {
        let zero_missing = matches!(self.rule, Rule::Number { zero_missing: true });
        value.is_nan() || (zero_missing && value.abs() <= ZERO)
    }

    /// The key of a value.
    #[inline(always)]
    pub(super) fn key<K: Key>(&self, value: f64) -> K {
        match &self.rule {
            _ if self.is_missing(value) => self.missing_key(),
            Rule::Number { .. } => K::of(value),
            Rule::Category(categories) if categories.goes_left(value) => K::LEFT,
            Rule::Category(_) => K::RIGHT,
        }
    }

    /// The key of a missing value.
    #[inline(always)]
    pub(super) fn missing_key<K: Key>(&self) -> K {
        match self.missing {
            Missing::Left => K::LEFT,
            Missing::Right => K::RIGHT,
            Missing::As(threshold) => K::of_threshold(f64::from_bits(threshold)),
        }
    }
}

/// The columns of a forest, each once.
#[derive(Clone, Debug, Default)]
pub(super) struct Columns {
    pub(super) list: Vec<Column>,
    /// Column of each split, trees one behind the other.
    pub(super) of_split: Vec<u32>,
}

impl Columns {
    pub(super) fn new(forest: &Reference) -> Self {
        let mut columns = Columns::default();
        let mut numbers = HashMap::new();
        let cuts = cuts(forest);
        for split in forest.trees.iter().flat_map(|tree| &tree.splits) {
            let mut column = Column::of(split);
            if let Rule::Number { zero_missing } = column.rule
                && let Some(&(below, from)) = cuts.get(&(column.feature, zero_missing))
                && below < from
            {
                column.missing = Missing::As(from.to_bits());
            }
            let number = *numbers.entry(column).or_insert_with_key(|column| {
                columns.list.push(column.clone());
                columns.list.len() as u32 - 1
            });
            columns.of_split.push(number);
        }
        columns
    }

    /// Number of category columns: each costs a look-up per row, whether nodes are reached or not.
    pub(super) fn categories(&self) -> usize {
        self.list.iter().filter(|column| matches!(column.rule, Rule::Category(_))).count()
    }
}

/// Of each feature and rule of numbers, the largest threshold that sends missing values to the right and the smallest that
/// sends them to the left, where there are both. If they lie in this order, a missing value is like a number between them,
/// and one column serves all (LightGBM, to which a missing value may be zero).
fn cuts(forest: &Reference) -> HashMap<(u32, bool), (f64, f64)> {
    let mut cuts = HashMap::new();
    for split in forest.trees.iter().flat_map(|tree| &tree.splits) {
        let (threshold, zero_missing) = match split.test {
            Test::AtMost(threshold) => (threshold, false),
            Test::AtMostZeroMissing(threshold) => (threshold, true),
            Test::Category(_) => continue,
        };
        let threshold = match forest.input {
            Precision::Single => round_down(threshold),
            Precision::Double => threshold,
        };
        let (below, from) =
            cuts.entry((split.feature, zero_missing)).or_insert((f64::NAN, f64::NAN));
        if split.missing_left {
            *from = from.min(threshold);
        } else {
            *below = below.max(threshold);
        }
    }
    cuts
}

/// The threshold of a split as a key of its column.
pub(super) fn threshold_key<K: Key>(split: &Split) -> K {
    match split.test {
        Test::AtMost(threshold) | Test::AtMostZeroMissing(threshold) => K::of_threshold(threshold),
        Test::Category(_) => K::of(0.0),
    }
}

/// Rows with what it takes to read them as the forest does.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) rows: Rows<'a>,
    pub(super) features: usize,
    pub(super) input: Precision,
}

impl Reader<'_> {
    /// The value of a feature in a row, rounded to the forest's input precision.
    #[inline(always)]
    pub(super) fn value(&self, row: usize, feature: usize) -> f64 {
        let position = row * self.features + feature;
        match self.rows {
            Rows::F32(values) => f64::from(values[position]),
            Rows::F64(values) if self.input == Precision::Single => {
                f64::from(values[position] as f32)
            }
            Rows::F64(values) => values[position],
        }
    }

    /// The values of a feature in `out.len()` rows.
    #[inline(always)]
    pub(super) fn column(&self, first: usize, feature: usize, out: &mut [f64]) {
        let start = first * self.features;
        match self.rows {
            Rows::F32(values) => column(&values[start..], self.features, feature, out, f64::from),
            Rows::F64(values) if self.input == Precision::Single => {
                let round = |value| f64::from(value as f32);
                column(&values[start..], self.features, feature, out, round);
            }
            Rows::F64(values) => {
                column(&values[start..], self.features, feature, out, |value| value);
            }
        }
    }
}

/// A column of as many rows as there is room for.
#[inline(always)]
fn column<T: Copy>(
    rows: &[T],
    width: usize,
    column: usize,
    out: &mut [f64],
    of: impl Fn(T) -> f64,
) {
    for (row, out) in rows.chunks_exact(width).zip(out) {
        *out = of(row[column]);
    }
}
