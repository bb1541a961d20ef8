//! From the arrays of a file to checked trees and weights.
//!
//! Only nodes that the root reaches are looked at: deleted nodes may hold anything.

use tokenmill_kernels::trees::{CategorySplit, Child, Ensemble, Precision, Split, Test, Tree};

use super::schema::{Raw, RawBooster, RawExtras, RawNode, RawTree};
use super::source::inside;
use crate::error::Fault;

/// Categories from here on go where unknown ones go.
const MAX_CATEGORY: i32 = 1 << 24;

/// Words of category sets that a model may hold beyond those that its own size pays for.
const FREE_CATEGORY_WORDS: usize = 12 << 20;

/// Trees as the kernel takes them, and what it does not keep.
pub(super) struct Lowered {
    /// The trees.
    pub(super) ensemble: Ensemble,
    /// The file's node number of each leaf of each tree.
    pub(super) leaf_nodes: Vec<Vec<u32>>,
}

/// Lowers the trees of a model whose sums start from `base`.
pub(super) fn trees(raw: &mut Raw, base: &[f32]) -> Result<Lowered, Fault> {
    let outputs = base.len();
    let booster = std::mem::take(&mut raw.booster);
    let RawBooster { trees, tree_info, weight_drop, .. } = booster;
    let vectors = trees.iter().any(|tree| tree.leaf_size() > 1);
    if tree_info.len() < trees.len() {
        let reason = format!("{} entries for {} trees", tree_info.len(), trees.len());
        return Err(within(Fault::corrupt("tree_info", reason)));
    }
    let stored: usize = trees.iter().map(|tree| tree.nodes.len()).sum();
    let mut words = FREE_CATEGORY_WORDS.saturating_add(stored);
    let mut lowered = Lowered {
        ensemble: Ensemble {
            features: raw.num_feature,
            outputs,
            vector_leaves: vectors,
            input: Precision::Single,
            sum: Precision::Single,
            base: base.iter().copied().map(f64::from).collect(),
            trees: Vec::with_capacity(trees.len()),
        },
        leaf_nodes: Vec::with_capacity(trees.len()),
    };
    for (index, tree) in trees.into_iter().enumerate() {
        let named = |fault| within(inside(&format!("trees[{index}]"), fault));
        let output = match vectors {
            true => Some(0),
            false => u32::try_from(tree_info[index]).ok().filter(|&o| (o as usize) < outputs),
        };
        let output = output.ok_or_else(|| {
            let reason = format!("{} is not below the {outputs} outputs", tree_info[index]);
            within(Fault::corrupt(format!("tree_info[{index}]"), reason))
        })?;
        if vectors && tree.leaf_size() != outputs {
            let reason = format!("leaves of {} numbers for {outputs} outputs", tree.leaf_size());
            return Err(named(Fault::corrupt("tree_param.size_leaf_vector", reason)));
        }
        let weight = weight_drop.get(index).copied();
        let mut walk = Walk::new(&tree, raw.num_feature, weight, &mut words).map_err(named)?;
        walk.run().map_err(named)?;
        let Walk { splits, leaves, leaf_nodes, .. } = walk;
        lowered.ensemble.trees.push(Tree { splits, leaves, output });
        lowered.leaf_nodes.push(leaf_nodes);
    }
    Ok(lowered)
}

/// The place of the trees.
fn within(fault: Fault) -> Fault {
    inside("learner.gradient_booster.model", fault)
}

/// A walk over the nodes of one tree, each parent before its children.
struct Walk<'a> {
    tree: &'a RawTree,
    features: usize,
    weight: Option<f32>,
    /// Words that category sets may still take.
    words: &'a mut usize,
    /// Entry of each node in the tree's lists of categories; empty for a tree without categorical nodes.
    category_entries: Vec<u32>,
    seen: Vec<bool>,
    splits: Vec<Split>,
    leaves: Vec<f64>,
    leaf_nodes: Vec<u32>,
}

/// No entry in the lists of categories.
const NONE: u32 = u32::MAX;

impl<'a> Walk<'a> {
    fn new(
        tree: &'a RawTree,
        features: usize,
        weight: Option<f32>,
        words: &'a mut usize,
    ) -> Result<Self, Fault> {
        let nodes = tree.nodes.len();
        let none: &[i32] = &[];
        let category_nodes = tree.extras.as_ref().map_or(none, |extras| &extras.category_nodes);
        let entries = category_nodes.len();
        let other = |extras: &RawExtras| {
            extras.category_segments.len() != entries || extras.category_sizes.len() != entries
        };
        if tree.extras.as_deref().is_some_and(other) {
            let reason = "segments and sizes have another number of entries";
            return Err(Fault::corrupt("categories_nodes", reason));
        }
        let mut category_entries = vec![NONE; if entries > 0 { nodes } else { 0 }];
        for (entry, &node) in (0..).zip(category_nodes) {
            let slot = usize::try_from(node).ok().and_then(|node| category_entries.get_mut(node));
            let reason = || format!("{node} is not one of {nodes} nodes");
            *slot
                .ok_or_else(|| Fault::corrupt(format!("categories_nodes[{entry}]"), reason()))? =
                entry;
        }
        Ok(Self {
            tree,
            features,
            weight,
            words,
            category_entries,
            seen: vec![false; nodes],
            splits: Vec::with_capacity(nodes / 2),
            leaves: Vec::with_capacity(nodes / 2 + 1),
            leaf_nodes: Vec::with_capacity(nodes / 2 + 1),
        })
    }

    fn run(&mut self) -> Result<(), Fault> {
        // Nodes to visit, with the split and the side that they hang on.
        let mut pending: Vec<(usize, Option<(usize, bool)>)> = vec![(0, None)];
        while let Some((node, parent)) = pending.pop() {
            if std::mem::replace(&mut self.seen[node], true) {
                let reason = "is reached twice; the nodes are not a tree";
                return Err(Fault::corrupt(format!("node {node}"), reason));
            }
            let child = if self.tree.nodes[node].left == -1 {
                self.leaf(node)?
            } else {
                let index = self.splits.len();
                let left = self.child("left_children", node, self.tree.nodes[node].left)?;
                let right = self.child("right_children", node, self.tree.nodes[node].right)?;
                pending.push((right, Some((index, false))));
                pending.push((left, Some((index, true))));
                let split = self.split(node)?;
                self.splits.push(split);
                Child::Node(number(index))
            };
            match parent {
                Some((split, true)) => self.splits[split].left = child,
                Some((split, false)) => self.splits[split].right = child,
                None => {}
            }
        }
        Ok(())
    }

    fn child(&self, field: &str, node: usize, child: i32) -> Result<usize, Fault> {
        let nodes = self.tree.nodes.len();
        usize::try_from(child).ok().filter(|&child| child < nodes).ok_or_else(|| {
            let reason = format!("{child} is not one of {nodes} nodes");
            Fault::corrupt(format!("{field}[{node}]"), reason)
        })
    }

    fn leaf(&mut self, node: usize) -> Result<Child, Fault> {
        let tree = self.tree;
        let index = number(self.leaf_nodes.len());
        let size = tree.leaf_size();
        let extras = tree.extras.as_deref().filter(|_| size > 1);
        let own = std::slice::from_ref(&tree.nodes[node].condition);
        let (row, vectors, field) = match extras.map(|extras| (extras, &extras.leaf_weights)) {
            None => (0, own, "split_conditions"),
            Some((_, Some(rows))) => {
                let row = usize::try_from(tree.nodes[node].right).unwrap_or(usize::MAX);
                (row, rows.as_slice(), "leaf_weights")
            }
            Some((extras, None)) => (node, extras.base_weights.as_slice(), "base_weights"),
        };
        let start = row.checked_mul(size);
        let end = start.and_then(|start| start.checked_add(size));
        let values = start.zip(end).and_then(|(start, end)| vectors.get(start..end));
        let values = values.ok_or_else(|| {
            let reason = format!("has no vector of {size} numbers for the leaf {node}");
            Fault::corrupt(field, reason)
        })?;
        let weighted = |&value: &f32| f64::from(self.weight.map_or(value, |weight| value * weight));
        self.leaves.extend(values.iter().map(weighted));
        self.leaf_nodes.push(number(node));
        Ok(Child::Leaf(index))
    }

    fn split(&mut self, node: usize) -> Result<Split, Fault> {
        let &RawNode { feature, condition, default_left, split_type, .. } = &self.tree.nodes[node];
        if feature as usize >= self.features {
            let reason = format!("{feature} is not below the {} features", self.features);
            return Err(Fault::corrupt(format!("split_indices[{node}]"), reason));
        }
        let test = match split_type {
            0 => Test::AtMost(below(condition)),
            1 => Test::Category(Box::new(self.categories(node)?)),
            other => {
                let reason = format!("{other} is neither 0 (numeric) nor 1 (categorical)");
                return Err(Fault::corrupt(format!("split_type[{node}]"), reason));
            }
        };
        // The children are filled in when they are visited.
        let missing_left = default_left != 0;
        let unknown = Child::Leaf(NONE);
        Ok(Split { feature, test, missing_left, left: unknown, right: unknown })
    }

    /// The categories of a node go right, all others left.
    fn categories(&mut self, node: usize) -> Result<CategorySplit, Fault> {
        let wrong = |reason: String| Fault::corrupt(format!("categories of node {node}"), reason);
        let entry = self.category_entries.get(node).filter(|&&entry| entry != NONE);
        let found = entry.zip(self.tree.extras.as_deref());
        let (&entry, extras) = found.ok_or_else(|| wrong("are missing".into()))?;
        let entry = entry as usize;
        let (start, size) = (extras.category_segments[entry], extras.category_sizes[entry]);
        let range = usize::try_from(start).ok().zip(usize::try_from(size).ok());
        let end = range.and_then(|(start, size)| start.checked_add(size));
        let set = range.zip(end).and_then(|((start, _), end)| extras.categories.get(start..end));
        let set = set.ok_or_else(|| {
            let stored = extras.categories.len();
            wrong(format!("{size} from {start} are outside the {stored} that are stored"))
        })?;
        if let Some(category) = set.iter().find(|category| !(0..MAX_CATEGORY).contains(category)) {
            return Err(wrong(format!("{category} is not between 0 and {MAX_CATEGORY}")));
        }
        let length = set.iter().max().map_or(0, |&most| most as usize / 32 + 1);
        let left = self.words.checked_sub(length);
        *self.words = left.ok_or_else(|| wrong("the sets are too large for the file".into()))?;
        let mut right = vec![0u32; length];
        set.iter().for_each(|&category| right[category as usize / 32] |= 1 << (category % 32));
        let left = Vec::new();
        Ok(CategorySplit { left, right, other_left: true, truncates_negative: false })
    }
}

/// The bound `b` for which `x <= b` says what `x < threshold` says. No finite number is below NaN.
fn below(threshold: f32) -> f64 {
    if threshold.is_nan() { f64::NEG_INFINITY } else { f64::from(threshold.next_down()) }
}

/// A node's number: containers hold 32-bit children, so there are no more.
fn number(index: usize) -> u32 {
    u32::try_from(index).expect("children are 32-bit numbers and each node is reached once")
}

/// Trees of the first `rounds` rounds.
pub(super) fn trees_of_rounds(booster: &RawBooster, rounds: usize) -> Result<usize, Fault> {
    let trees = booster.trees.len();
    let (end, total) = match &booster.iteration_indptr {
        Some(starts) => {
            let end = starts.get(rounds).and_then(|&end| usize::try_from(end).ok());
            (end.filter(|&end| end <= trees), starts.len().saturating_sub(1))
        }
        None => {
            let groups = booster.tree_info.iter().max().map_or(1, |&most| i64::from(most) + 1);
            let groups = usize::try_from(groups).unwrap_or(0).max(1);
            let round = groups.saturating_mul(booster.num_parallel_tree.max(1));
            let end = round.checked_mul(rounds).filter(|&end| end <= trees);
            (end, trees / round.max(1))
        }
    };
    end.ok_or_else(|| {
        let reason = format!("asks for {rounds} rounds, the model has {total}");
        Fault::corrupt("learner.attributes.best_iteration", reason)
    })
}
