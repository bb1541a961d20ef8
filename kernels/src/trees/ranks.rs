//! Ranks: what rows look like to trees whose nodes compare bytes.
//!
//! A value becomes a rank, the number of its feature's thresholds that are below it: `value <= threshold[k]` is
//! `rank <= k`, exactly. A byte holds the rank against 255 thresholds; a feature with more has several columns, each
//! with the ranks of its stretch clamped. Ranks are columns of 64 rows for [`super::lanes`], and rows for [`super::jumps`].

use std::collections::HashMap;
use std::ops::Range;

use super::Split;
use super::columns::{Column, Columns, Key, Missing, Reader, Rule, threshold_key};
use super::lanes::Kernels;
use super::reference::Reference;

/// Rows of a vector.
pub(super) const LANES: usize = 64;
/// Thresholds of a column.
const SEGMENT: u32 = 255;
/// Values of a level of [`Search`] that are compared at once.
pub(super) const GROUP: usize = 16;

/// One vector of bytes.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Line(pub(super) [u8; LANES]);

/// Numbers of a level of [`Search`] that are compared at once, in one line of a cache or two.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Sixteen<K>([K; GROUP]);

/// Ascending numbers in a tree of groups of 16: a search is a comparison with a group per level.
#[derive(Clone, Debug)]
pub(super) struct Search<K> {
    root: Sixteen<K>,
    /// Levels behind the root, down to the numbers themselves, padded with [`Key::RIGHT`].
    levels: Vec<Vec<Sixteen<K>>>,
}

impl<K: Key> Search<K> {
    fn new(sorted: &[K]) -> Self {
        let mut levels = Vec::new();
        let mut level = sorted.to_vec();
        loop {
            // At least one pad: every key finds a place before the end of its group.
            level.resize((level.len() + 1).next_multiple_of(GROUP), K::RIGHT);
            let groups: Vec<_> = level.as_chunks().0.iter().copied().map(Sixteen).collect();
            if let [root] = groups[..] {
                levels.reverse();
                return Self { root, levels };
            }
            level = groups.iter().map(|group| group.0[GROUP - 1]).collect();
            levels.push(groups);
            // The last group of the level below has a pad, so its maximum pads this one.
            level.pop();
        }
    }

    /// How many of the numbers are below each key; `count` says how many of a group are.
    #[inline(always)]
    fn ranks(&self, keys: &[K], ranks: &mut [u32], count: impl Fn(&[K; GROUP], K) -> u32) {
        let step = |rank: u32, level: &[Sixteen<K>], key| {
            rank * GROUP as u32 + count(&level[rank as usize].0, key)
        };
        if let [level] = &self.levels[..] {
            // The most common case in one pass, which keeps the root in registers.
            for (rank, &key) in ranks.iter_mut().zip(keys) {
                *rank = step(count(&self.root.0, key), level, key);
            }
            return;
        }
        for (rank, &key) in ranks.iter_mut().zip(keys) {
            *rank = self
                .levels
                .iter()
                .fold(count(&self.root.0, key), |rank, level| step(rank, level, key));
        }
    }
}

/// A feature and the columns that look at its ranks.
#[derive(Clone, Debug)]
pub(super) struct Feature<K> {
    feature: u32,
    search: Search<K>,
    targets: Vec<Target>,
}

/// A column of ranks: of a column's thresholds, those from `base` on.
#[derive(Clone, Debug)]
struct Target {
    column: Column,
    base: u32,
    target: usize,
    /// The rank of a missing value.
    missing: u8,
}

impl Target {
    /// Whether any of the values is missing in this column.
    #[inline(always)]
    fn any_missing(&self, values: &[f64]) -> bool {
        values.iter().fold(false, |any, &value| any | self.column.is_missing(value))
    }

    /// The rank among the thresholds of this column.
    #[inline(always)]
    fn rank(&self, rank: u32) -> u8 {
        segment_rank(rank, self.base)
    }
}

/// A rank among the thresholds of a column from `base` on.
#[inline(always)]
fn segment_rank(rank: u32, base: u32) -> u8 {
    rank.saturating_sub(base).min(SEGMENT) as u8
}

/// Fills the columns of a feature: `ranks` is `[columns, halves]`, where blocks have `halves` vectors of rows.
pub(super) type Fill<K> = unsafe fn(&Feature<K>, Reader<'_>, Block, &mut [Line]);

/// Rows that are evaluated together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub(super) first: usize,
    pub(super) count: usize,
    pub(super) halves: usize,
}

#[inline(always)]
pub(super) fn fill<K: Key>(
    feature: &Feature<K>,
    reader: Reader<'_>,
    block: Block,
    ranks: &mut [Line],
    count: impl Fn(&[K; GROUP], K) -> u32,
) {
    let (mut values, mut keys, mut all) = ([0.0; 2 * LANES], [K::LEFT; 2 * LANES], [0; 2 * LANES]);
    let rows = block.halves * LANES;
    let values = &mut values[..rows];
    reader.column(block.first, feature.feature as usize, &mut values[..block.count]);
    keys.iter_mut().zip(&*values).for_each(|(key, &value)| *key = K::of(value));
    feature.search.ranks(&keys[..block.count], &mut all[..block.count], count);
    for target in &feature.targets {
        let lines = &mut ranks[target.target * block.halves..][..block.halves];
        let all = all.as_chunks::<LANES>().0;
        for ((line, ranks), values) in lines.iter_mut().zip(all).zip(values.as_chunks().0) {
            for (out, rank) in line.0.iter_mut().zip(ranks) {
                *out = target.rank(*rank);
            }
            clear_missing(target, values, line);
        }
    }
}

/// Ranks of missing values.
#[inline(always)]
fn clear_missing(target: &Target, values: &[f64; LANES], line: &mut Line) {
    if target.any_missing(values) {
        for (out, &value) in line.0.iter_mut().zip(values) {
            *out = if target.column.is_missing(value) { target.missing } else { *out };
        }
    }
}

/// Columns of a row of [`RankRows`] at most.
pub(super) const MAX_WIDTH: usize = 128;
/// Rows that are followed together: a feature's thresholds come into the first-level cache once for them.
pub(super) const ROWS: usize = 32;

/// Ranks of a few rows, `[rows, width]`.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct RankRows(pub(super) [u8; ROWS * MAX_WIDTH]);

/// Fills the columns of all features in at most [`ROWS`] rows of a width of at most [`MAX_WIDTH`].
pub(super) type FillRows<K> =
    unsafe fn(&[Feature<K>], Reader<'_>, Range<usize>, usize, &mut RankRows);

#[inline(always)]
pub(super) fn fill_rows<K: Key>(
    features: &[Feature<K>],
    reader: Reader<'_>,
    rows: Range<usize>,
    width: usize,
    out: &mut RankRows,
    count: impl Fn(&[K; GROUP], K) -> u32,
) {
    if rows.len() == 1 {
        return fill_row(features, reader, rows.start, &mut out.0[..width], count);
    }
    let mut values = [0.0; ROWS];
    let (mut keys, mut ranks) = ([K::LEFT; ROWS], [0; ROWS]);
    let out = &mut out.0[..rows.len() * width];
    for feature in features {
        let values = &mut values[..rows.len()];
        reader.column(rows.start, feature.feature as usize, values);
        keys.iter_mut().zip(&*values).for_each(|(key, &value)| *key = K::of(value));
        feature.search.ranks(&keys[..rows.len()], &mut ranks, &count);
        for target in &feature.targets {
            for (out, &rank) in out.chunks_exact_mut(width).zip(&ranks) {
                out[target.target] = target.rank(rank);
            }
            if target.any_missing(values) {
                for (out, &value) in out.chunks_exact_mut(width).zip(&*values) {
                    if target.column.is_missing(value) {
                        out[target.target] = target.missing;
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn fill_row<K: Key>(
    features: &[Feature<K>],
    reader: Reader<'_>,
    row: usize,
    out: &mut [u8],
    count: impl Fn(&[K; GROUP], K) -> u32,
) {
    for feature in features {
        let value = reader.value(row, feature.feature as usize);
        let mut rank = [0];
        feature.search.ranks(&[K::of(value)], &mut rank, &count);
        for target in &feature.targets {
            out[target.target] = match target.column.is_missing(value) {
                true => target.missing,
                false => target.rank(rank[0]),
            };
        }
    }
}

pub(super) fn count<K: Key>(group: &[K; GROUP], key: K) -> u32 {
    group.iter().map(|&value| u32::from(value < key)).sum()
}

/// Keys that have variants of [`Fill`] and [`FillRows`].
pub(super) trait RankKey: Key {
    fn fill(kernels: &Kernels) -> Fill<Self>;
    fn fill_rows(kernels: &Kernels) -> FillRows<Self>;
}

impl RankKey for i32 {
    fn fill(kernels: &Kernels) -> Fill<Self> {
        kernels.fill_i32
    }

    fn fill_rows(kernels: &Kernels) -> FillRows<Self> {
        kernels.fill_rows_i32
    }
}

impl RankKey for i64 {
    fn fill(kernels: &Kernels) -> Fill<Self> {
        kernels.fill_i64
    }

    fn fill_rows(kernels: &Kernels) -> FillRows<Self> {
        kernels.fill_rows_i64
    }
}

/// The columns of ranks that a forest compares.
#[derive(Clone, Debug)]
pub(super) struct Ranks<K> {
    features: Vec<Feature<K>>,
    categories: Vec<(Column, usize)>,
    /// The column of a stretch of 255 thresholds of a column of the forest.
    numbers: HashMap<(u32, u32), usize>,
}

impl<K: RankKey> Ranks<K> {
    pub(super) fn new(forest: &Reference, columns: &Columns) -> Self {
        let (categories, numbers) = (Vec::new(), HashMap::new());
        Self { features: features(forest, columns), categories, numbers }
    }

    /// Number of columns.
    pub(super) fn columns(&self) -> usize {
        self.numbers.len()
    }

    /// The column of a split, which is `number` of `columns`, and the rank that it compares to.
    pub(super) fn of_split(
        &mut self,
        split: &Split,
        columns: &Columns,
        number: u32,
    ) -> (usize, u8) {
        let column = &columns.list[number as usize];
        let feature = match column.rule {
            Rule::Number { .. } => {
                self.features.binary_search_by_key(&split.feature, |f| f.feature).ok()
            }
            Rule::Category(_) => None,
        };
        let mut rank = [0];
        if let Some(feature) = feature {
            self.features[feature].search.ranks(&[threshold_key(split)], &mut rank, count);
        }
        let [rank] = rank;
        let new = self.numbers.len();
        let target = *self.numbers.entry((number, rank / SEGMENT)).or_insert(new);
        if target == new {
            let column = column.clone();
            match feature {
                Some(feature) => {
                    let base = rank / SEGMENT * SEGMENT;
                    let feature = &mut self.features[feature];
                    let mut missing = [0];
                    feature.search.ranks(&[column.missing_key()], &mut missing, count);
                    let missing = match column.missing {
                        Missing::Right => SEGMENT as u8,
                        _ => segment_rank(missing[0], base),
                    };
                    feature.targets.push(Target { column, base, target, missing });
                }
                None => self.categories.push((column, target)),
            }
        }
        (target, (rank % SEGMENT) as u8)
    }

    /// Fills `[columns, halves]` with the ranks of a block of rows.
    pub(super) fn fill(
        &self,
        kernels: &Kernels,
        reader: Reader<'_>,
        block: Block,
        ranks: &mut [Line],
    ) {
        let fill = K::fill(kernels);
        for feature in &self.features {
            // SAFETY: kernels are chosen by what the machine supports.
            unsafe { fill(feature, reader, block, ranks) };
        }
        for (column, target) in &self.categories {
            let lines = ranks[target * block.halves..][..block.halves].iter_mut();
            let bytes = lines.flat_map(|line| &mut line.0);
            for (row, out) in bytes.take(block.count).enumerate() {
                *out = category_rank::<K>(column, reader, block.first + row);
            }
        }
    }

    /// Fills the ranks of at most [`ROWS`] rows, of a width of at least as many columns as there are.
    pub(super) fn fill_rows(
        &self,
        kernels: &Kernels,
        reader: Reader<'_>,
        rows: Range<usize>,
        width: usize,
        out: &mut RankRows,
    ) {
        // SAFETY: kernels are chosen by what the machine supports.
        unsafe { K::fill_rows(kernels)(&self.features, reader, rows.clone(), width, out) };
        for (column, target) in &self.categories {
            for (row, out) in rows.clone().zip(out.0.chunks_exact_mut(width)) {
                out[*target] = category_rank::<K>(column, reader, row);
            }
        }
    }
}

/// Below or above the one threshold of a column of categories.
fn category_rank<K: Key>(column: &Column, reader: Reader<'_>, row: usize) -> u8 {
    let value = reader.value(row, column.feature as usize);
    if column.key::<K>(value) == K::LEFT { 0 } else { SEGMENT as u8 }
}

/// The features that are compared by size, with all their thresholds.
fn features<K: Key>(forest: &Reference, columns: &Columns) -> Vec<Feature<K>> {
    let splits = forest.trees.iter().flat_map(|tree| &tree.splits);
    let numbers = splits
        .zip(&columns.of_split)
        .filter(|(_, column)| matches!(columns.list[**column as usize].rule, Rule::Number { .. }));
    let mut keys: Vec<(u32, K)> =
        numbers.map(|(split, _)| (split.feature, threshold_key(split))).collect();
    keys.sort_unstable();
    keys.dedup();
    let same = keys.chunk_by(|a, b| a.0 == b.0);
    same.map(|keys| Feature {
        feature: keys[0].0,
        search: Search::new(&keys.iter().map(|key| key.1).collect::<Vec<_>>()),
        targets: Vec::new(),
    })
    .collect()
}
