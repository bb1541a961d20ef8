//! Rows through small trees, one at a time: all nodes of a tree compared at once, then a path followed by permutations.
//!
//! Ranks of a row are one or two vectors of bytes ([`super::ranks`]). A tree of at most 128 nodes is as many vectors of
//! the nodes' columns, of the ranks they compare to, and of what follows on the left and on the right. A permutation
//! gives every node its rank, a comparison and a choice the node that follows it: a table of jumps. The table permuted
//! by itself jumps twice as far; three times that, and a path is a look-up for every eight levels. Nothing waits for
//! memory, and nothing branches. That is for a few rows; with more, a vector is 32 rows in two trees, and permutations
//! look up what each of the paths needs in the same tables, level by level (`paths_avx512.rs`).
//!
//! Nodes are numbered from left to right, so that leaf `n` is the left one of node `n` or the right one of node `n - 1`.
//! A jump to a leaf is a jump of its node to itself, with [`RIGHT`] set if it is the right one: however often such a
//! path is continued, it stays, and where it stays says which leaf it is.

use std::collections::HashMap;
use std::ops::Range;

use super::Child;
use super::columns::Reader;
use super::lanes::{Kernels, Lanes};
use super::ranks::{LANES, Line, MAX_WIDTH, ROWS, RankKey, RankRows};
use super::sink::Sink;

/// Rows from which paths of rows side by side are faster than each row in eight trees.
const MIN_ROWS: usize = 6;
/// Flag of a path that ends on the right of a node.
pub(super) const RIGHT: u8 = 128;
/// Nodes of a tree: their numbers are below the flag.
const MAX_NODES: usize = RIGHT as usize;
/// Trees of a stretch: the first-level cache holds them.
const STRETCH: usize = 64;

/// Follows the paths of some rows in some trees, at least one: places are `[trees, rows]`.
pub(super) type FollowRows = unsafe fn(&Jumps, &RankRows, Range<usize>, &mut [[u8; ROWS]]);

/// Follows the path of the first row in some trees, at least one.
pub(super) type FollowTrees = unsafe fn(&Jumps, &RankRows, Range<usize>, &mut [[u8; 1]]);

/// The inner loops.
#[derive(Clone, Copy, Debug)]
pub(super) struct Follow {
    /// For at most 8, 16, and 32 rows, for trees of one and two vectors, for rows of 32, 64, and 128 columns.
    pub(super) rows: [[[FollowRows; 3]; 2]; 3],
    /// For trees of one and two vectors, for rows of at most one and of two vectors of columns.
    pub(super) trees: [[FollowTrees; 2]; 2],
}

/// A forest laid out for following.
#[derive(Clone, Debug)]
pub(super) struct Jumps {
    /// Vectors of nodes of a tree: one or two.
    words: usize,
    /// Columns of a row: 32, 64, or 128.
    pub(super) width: usize,
    /// Of each tree, `words` vectors of columns and as many of ranks.
    pub(super) nodes: Vec<Line>,
    /// What follows on the left and then on the right, `words` vectors each. Trees of one shape share them.
    pub(super) links: Vec<Line>,
    pub(super) trees: Vec<JumpTree>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct JumpTree {
    /// Where its links start.
    pub(super) links: u32,
    pub(super) root: u8,
    /// Look-ups that reach every leaf.
    pub(super) levels: u8,
}

/// A node as [`Jumps`] takes it, behind its parent. Leaves are numbered from left to right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Jump {
    pub(super) column: usize,
    pub(super) rank: u8,
    pub(super) children: [Child; 2],
}

impl Jumps {
    /// `None` when a tree has more than [`MAX_NODES`] nodes or there are more than [`MAX_WIDTH`] columns.
    pub(super) fn new<K: RankKey>(lanes: &Lanes<K>) -> Option<Self> {
        let trees: Vec<Vec<Jump>> = (0..lanes.trees()).map(|tree| lanes.jumps(tree)).collect();
        let (nodes, columns) = (trees.iter().map(Vec::len).max()?, lanes.ranks.columns());
        if nodes > MAX_NODES || columns > MAX_WIDTH {
            return None;
        }
        let words = nodes.div_ceil(LANES).max(1);
        let width = columns.next_power_of_two().max(ROWS);
        let (nodes, links) = (Vec::new(), Vec::new());
        let mut jumps = Jumps { words, width, nodes, links, trees: Vec::new() };
        let mut shapes = HashMap::new();
        trees.iter().for_each(|tree| jumps.push(tree, &mut shapes));
        Some(jumps)
    }

    /// Rows up to which this is faster than evaluating trees whole.
    pub(super) fn max_rows(&self) -> usize {
        if self.words == 1 { 32 } else { usize::MAX }
    }

    fn push(&mut self, tree: &[Jump], shapes: &mut HashMap<[Vec<u8>; 2], u32>) {
        // A tree without nodes is one that never goes right.
        let leaf = [Jump { column: 0, rank: u8::MAX, children: [Child::Leaf(0); 2] }];
        let tree = if tree.is_empty() { &leaf } else { tree };
        let (numbers, levels) = number(tree);
        let bytes = |byte: &dyn Fn(usize) -> u8| {
            let mut bytes = vec![0; self.words * LANES];
            numbers.iter().enumerate().for_each(|(node, &n)| bytes[usize::from(n)] = byte(node));
            bytes
        };
        let next = |right: usize| {
            bytes(&|node| match tree[node].children[right] {
                Child::Node(child) => numbers[child as usize],
                Child::Leaf(_) => numbers[node] | if right == 1 { RIGHT } else { 0 },
            })
        };
        let (columns, ranks) =
            (bytes(&|node| tree[node].column as u8), bytes(&|node| tree[node].rank));
        let shape = [next(0), next(1)];
        let lines =
            |bytes: &[u8]| bytes.as_chunks().0.iter().copied().map(Line).collect::<Vec<_>>();
        self.nodes.extend([columns, ranks].iter().flat_map(|bytes| lines(bytes)));
        let links = *shapes.entry(shape).or_insert_with_key(|shape| {
            self.links.extend(shape.iter().flat_map(|bytes| lines(bytes)));
            (self.links.len() - 2 * self.words) as u32
        });
        self.trees.push(JumpTree { links, root: numbers[0], levels });
    }
}

/// Number of each node from left to right, and the levels of the tree.
fn number(tree: &[Jump]) -> (Vec<u8>, u8) {
    let mut leaves = vec![0u8; tree.len()];
    let of = |leaves: &[u8], child| match child {
        Child::Node(node) => leaves[node as usize],
        Child::Leaf(_) => 1,
    };
    for (node, jump) in tree.iter().enumerate().rev() {
        leaves[node] = jump.children.iter().map(|&child| of(&leaves, child)).sum();
    }
    let (mut first, mut level) = (vec![0u8; tree.len()], vec![1u8; tree.len()]);
    let mut numbers = vec![0; tree.len()];
    for (node, jump) in tree.iter().enumerate() {
        let middle = first[node] + of(&leaves, jump.children[0]);
        numbers[node] = middle - 1;
        for (child, first_leaf) in jump.children.into_iter().zip([first[node], middle]) {
            if let Child::Node(child) = child {
                (first[child as usize], level[child as usize]) = (first_leaf, level[node] + 1);
            }
        }
    }
    (numbers, level.into_iter().max().unwrap_or(1))
}

impl<K: RankKey> Lanes<K> {
    /// Follows `rows` rows from `first` on through all trees. There are jumps and kernels that follow them.
    pub(super) fn follow(
        &self,
        kernels: &Kernels,
        reader: Reader<'_>,
        first: usize,
        rows: usize,
        sink: &mut impl Sink,
    ) {
        let (Some(jumps), Some(follow)) = (&self.jumps, &kernels.follow) else {
            panic!("jumps and kernels that follow them");
        };
        let kind = (jumps.words - 1, jumps.width.ilog2() as usize - 5);
        let many = follow.rows.map(|loops| loops[kind.0][kind.1]);
        let one = follow.trees[kind.0][kind.1 / 2];
        let mut ranks = RankRows([0; ROWS * MAX_WIDTH]);
        let few = if rows < MIN_ROWS { 1 } else { ROWS };
        for start in (first..first + rows).step_by(few) {
            let rows = start..(start + few).min(first + rows);
            self.ranks.fill_rows(kernels, reader, rows.clone(), jumps.width, &mut ranks);
            let many = many[rows.len().div_ceil(8).next_power_of_two().ilog2() as usize];
            for tree in (0..self.trees()).step_by(STRETCH) {
                let trees = tree..self.trees().min(tree + STRETCH);
                if rows.len() == 1 {
                    let places = &mut [[0; 1]; STRETCH][..trees.len()];
                    // SAFETY: kernels are chosen by what the machine supports.
                    unsafe { one(jumps, &ranks, trees, places) };
                    sink.stretch(tree, start, 1, places);
                } else {
                    let places = &mut [[0; ROWS]; STRETCH][..trees.len()];
                    // SAFETY: as above.
                    unsafe { many(jumps, &ranks, trees, places) };
                    sink.stretch(tree, start, rows.len(), places);
                }
            }
        }
    }
}
