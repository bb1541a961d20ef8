//! Places: the numbers that layouts give to leaves.
//!
//! A tree of at most [`MAX_DEPTH`] levels is completed to a full one, where the path to a leaf, read as bits, is its
//! place: nothing has to say where children are, and a table look-up by place fits registers. Leaves of other trees are
//! numbered from left to right.

use super::{Child, Tree};

/// Levels of a tree that is completed: 64 leaves.
pub(super) const MAX_DEPTH: u32 = 6;

/// Where the leaves of a tree are.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// Levels of the completed tree; `None` when it is too deep for that.
    pub(super) depth: Option<u32>,
    /// Place of each leaf.
    of_leaf: Vec<u32>,
    /// Number of places.
    pub(super) count: usize,
    /// Position of each node in the completed tree, children of `n` at `2 n + 1` and `2 n + 2`.
    pub(super) of_node: Vec<u32>,
}

impl Places {
    pub(super) fn new(tree: &Tree) -> Self {
        let leaves = tree.splits.len() + 1;
        let deep = Places { depth: None, of_leaf: Vec::new(), count: leaves, of_node: Vec::new() };
        if leaves > 1 << MAX_DEPTH {
            return Places { of_leaf: left_to_right(tree), ..deep };
        }
        // Heap positions of the completed tree of all levels: the root is 1, children of n are 2 n and 2 n + 1.
        let (mut of_node, mut of_leaf) = (vec![1u32; leaves - 1], vec![1u32; leaves]);
        for (index, split) in tree.splits.iter().enumerate() {
            for (right, child) in [split.left, split.right].into_iter().enumerate() {
                let position = of_node[index] * 2 + right as u32;
                if position >> MAX_DEPTH > 1 {
                    return Places { of_leaf: left_to_right(tree), ..deep };
                }
                match child {
                    Child::Node(node) => of_node[node as usize] = position,
                    Child::Leaf(leaf) => of_leaf[leaf as usize] = position,
                }
            }
        }
        let depth = of_leaf.iter().map(|leaf| leaf.ilog2()).max().unwrap_or(0);
        let place = |leaf: &u32| (leaf << (depth - leaf.ilog2())) - (1 << depth);
        let of_leaf = of_leaf.iter().map(place).collect();
        let of_node = of_node.into_iter().map(|node| node - 1).collect();
        Places { depth: Some(depth), of_leaf, count: 1 << depth, of_node }
    }

    /// The place of a leaf.
    pub(super) fn of(&self, leaf: u32) -> u32 {
        self.of_leaf[leaf as usize]
    }
}

/// Number of each leaf from left to right.
fn left_to_right(tree: &Tree) -> Vec<u32> {
    let (mut numbers, mut next) = (vec![0; tree.splits.len() + 1], 0);
    let mut open = vec![Child::Node(0)];
    while let Some(child) = open.pop() {
        match child {
            Child::Node(node) => {
                let split = &tree.splits[node as usize];
                open.extend([split.right, split.left]);
            }
            Child::Leaf(leaf) => {
                numbers[leaf as usize] = next;
                next += 1;
            }
        }
    }
    numbers
}
