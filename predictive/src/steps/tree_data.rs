//! The arrays of scikit-learn's `Tree` as nodes of the kernels, with what its leaves hold.

use tokenmill_kernels::trees::{Child, Ensemble, Forest, Precision, Split, Test, Tree, TreeError};

use crate::error::Fault;
use crate::pickle::{Object, Records};
use crate::steps::input::Nan;

/// One tree: inner nodes, and the leaves in the order of their nodes.
#[derive(Debug)]
pub(crate) struct TreeData {
    /// Columns of a row.
    pub(crate) features: usize,
    /// Number of classes of each output; 1 for values.
    pub(crate) classes: Vec<usize>,
    /// Inner nodes.
    pub(crate) splits: Vec<Split>,
    /// Number of each leaf's node in the file.
    pub(crate) leaf_nodes: Vec<u32>,
    /// `[leaves, outputs, largest of classes]`: values, weighted counts (files to 1.3) or fractions.
    pub(crate) values: Vec<f64>,
    /// Training rows of each leaf.
    pub(crate) samples: Vec<f64>,
    /// Nodes on the way from the root to each leaf, both counted.
    pub(crate) path: Vec<u32>,
}

/// The fault of the first of `trees` that cannot be evaluated.
pub(crate) fn fault(error: TreeError) -> Fault {
    Fault::corrupt(format!("tree {}", error.tree), error.reason)
}

/// The largest single-precision number that is not above `threshold`: `x <= threshold` for single-precision `x`.
pub(crate) fn round_down(threshold: f64) -> f64 {
    let rounded = threshold as f32;
    let above = f64::from(rounded) > threshold;
    f64::from(if above { rounded.next_down() } else { rounded })
}

/// A child of a node: its number in the file to a node or leaf of the kernels.
///
/// # Errors
/// When it does not lie behind its parent.
pub(crate) fn child(at: &str, parent: usize, child: f64, places: &[Child]) -> Result<Child, Fault> {
    let index = child as usize;
    if child.fract() != 0.0 || child <= parent as f64 || index >= places.len() {
        let reason = format!(
            "node {parent} has the child {child}; children lie behind their parent, below {}",
            places.len()
        );
        return Err(Fault::corrupt(at, reason));
    }
    Ok(places[index])
}

/// Numbers nodes: the n-th inner node, the n-th leaf.
pub(crate) fn places(leaves: impl Iterator<Item = bool>) -> Vec<Child> {
    let (mut splits, mut ends) = (0, 0);
    leaves
        .map(|leaf| {
            let next = if leaf { &mut ends } else { &mut splits };
            *next += 1;
            if leaf { Child::Leaf(*next - 1) } else { Child::Node(*next - 1) }
        })
        .collect()
}

/// An integer column of node records within `u32`.
///
/// # Errors
/// When there is no such column or a number is out of range.
pub(crate) fn column_u32(nodes: &Records, field: &str) -> Result<Vec<u32>, Fault> {
    let number = |value: f64| {
        let fits = value.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&value);
        fits.then_some(value as u32)
            .ok_or_else(|| Fault::corrupt(field, format!("{value} is no index")))
    };
    nodes.numbers(field)?.into_iter().map(number).collect()
}

impl TreeData {
    /// Reads the `tree_` of a decision tree.
    ///
    /// # Errors
    /// Names the attribute that is missing or wrong.
    pub(crate) fn read(estimator: Object<'_>) -> Result<Self, Fault> {
        let tree = estimator.object("tree_")?;
        let (features, classes) = dimensions(tree)?;
        let nodes = tree.attribute("nodes")?.as_records();
        let nodes = nodes.ok_or_else(|| tree.wrong("nodes", "expected records of nodes"))?;
        let left = nodes.numbers("left_child")?;
        let right = nodes.numbers("right_child")?;
        let feature = nodes.numbers("feature")?;
        let threshold = nodes.numbers("threshold")?;
        let node_samples = nodes.numbers("n_node_samples")?;
        let missing_left = match nodes.fields.iter().any(|(name, ..)| &**name == MISSING) {
            true => nodes.numbers(MISSING)?,
            false => vec![0.0; left.len()],
        };
        let places = places(left.iter().map(|&child| child == LEAF));
        let mut splits = Vec::new();
        let (mut leaf_nodes, mut samples, mut path) = (Vec::new(), Vec::new(), Vec::new());
        let mut depth = vec![1u32; left.len()];
        for (node, place) in places.iter().enumerate() {
            if let Child::Leaf(_) = place {
                leaf_nodes.push(node as u32);
                samples.push(node_samples[node]);
                path.push(depth[node]);
                continue;
            }
            if !(0.0..features as f64).contains(&feature[node]) {
                let reason =
                    format!("node {node} asks for feature {}, there are {features}", feature[node]);
                return Err(tree.wrong("nodes", reason));
            }
            let left_child = child("Tree.nodes", node, left[node], &places)?;
            let right_child = child("Tree.nodes", node, right[node], &places)?;
            depth[left[node] as usize] = depth[node] + 1;
            depth[right[node] as usize] = depth[node] + 1;
            splits.push(Split {
                feature: feature[node] as u32,
                test: Test::AtMost(round_down(threshold[node])),
                missing_left: missing_left[node] != 0.0,
                left: left_child,
                right: right_child,
            });
        }
        let width = classes.len() * classes.iter().copied().max().unwrap_or(1);
        let values = leaf_values(tree, left.len(), width, &leaf_nodes)?;
        Ok(Self { features, classes, splits, leaf_nodes, values, samples, path })
    }

    /// Number of leaves.
    pub(crate) fn leaves(&self) -> usize {
        self.leaf_nodes.len()
    }

    /// The values of an output in a leaf: one a class.
    pub(crate) fn value(&self, leaf: usize, output: usize) -> &[f64] {
        let classes = self.classes.iter().copied().max().unwrap_or(1);
        let start = (leaf * self.classes.len() + output) * classes;
        &self.values[start..start + self.classes[output]]
    }

    /// The tree with other numbers in its leaves; drops nothing but what it moves.
    pub(crate) fn take_tree(&mut self, leaves: Vec<f64>, output: usize) -> Tree {
        Tree { splits: std::mem::take(&mut self.splits), leaves, output: output as u32 }
    }
}

/// The field that says where NaN goes, from 1.3 on.
const MISSING: &str = "missing_go_to_left";
/// The child of a leaf.
const LEAF: f64 = -1.0;

/// `n_features` and `n_classes` of a tree's arguments.
fn dimensions(tree: Object<'_>) -> Result<(usize, Vec<usize>), Fault> {
    let wrong = |reason: &str| Fault::corrupt("Tree", reason);
    let arguments = tree.arguments.as_list().unwrap_or_default();
    let [features, classes, outputs] = arguments.as_slice() else {
        return Err(wrong("expected the arguments n_features, n_classes and n_outputs"));
    };
    let features = features.as_usize().ok_or_else(|| wrong("n_features is no count"))?;
    let outputs = outputs.as_usize().ok_or_else(|| wrong("n_outputs is no count"))?;
    let counts = classes.as_array().and_then(|array| array.to_f64());
    let counts = counts.ok_or_else(|| wrong("n_classes is no array of counts"))?;
    let valid = |&count: &f64| count.fract() == 0.0 && (1.0..1e6).contains(&count);
    if counts.len() != outputs || outputs == 0 || !counts.iter().all(valid) {
        return Err(wrong("n_classes holds one count for each of at least one output"));
    }
    Ok((features, counts.into_iter().map(|count| count as usize).collect()))
}

/// The rows of `values` that belong to leaves.
fn leaf_values(
    tree: Object<'_>,
    nodes: usize,
    width: usize,
    leaf_nodes: &[u32],
) -> Result<Vec<f64>, Fault> {
    let values = tree.array("values")?;
    let fits = nodes > 0 && nodes.checked_mul(width) == Some(values.len());
    let numbers = values.to_f64().filter(|_| fits).ok_or_else(|| {
        let shape = values.shape();
        tree.wrong("values", format!("expected {nodes} rows of {width} numbers, found {shape:?}"))
    })?;
    let row = |&node: &u32| &numbers[node as usize * width..][..width];
    Ok(leaf_nodes.iter().flat_map(row).copied().collect())
}

/// A forest over rows of `features` single-precision columns; each tree's leaves are numbers of one output, or vectors
/// of all outputs where `vector_leaves` says so. Sums start from `base`.
///
/// # Errors
/// When a tree is none.
pub(crate) fn forest(
    features: usize,
    base: Vec<f64>,
    vector_leaves: bool,
    trees: Vec<Tree>,
) -> Result<Forest, Fault> {
    let ensemble = Ensemble {
        features,
        outputs: base.len(),
        vector_leaves,
        input: Precision::Single,
        sum: Precision::Double,
        base,
        trees,
    };
    Forest::new(&ensemble).map_err(fault)
}

/// What a decision tree thinks of NaN: the version that wrote it decides.
pub(crate) fn nan(tree: Object<'_>) -> Nan {
    let version = tree.version().unwrap_or((0, 0));
    let text = |name| tree.some(name).and_then(|value| value.as_str()).unwrap_or_default();
    let (splitter, criterion) = (text("splitter"), text("criterion"));
    let extra = tree.class.starts_with("ExtraTree");
    let criteria = ["gini", "log_loss", "entropy", "squared_error", "friedman_mse", "poisson"];
    let free = criteria.contains(&criterion) && tree.some("monotonic_cst").is_none();
    let allowed = if version < (1, 3) {
        false
    } else if version < (1, 6) {
        splitter == "best" && free && !extra
    } else {
        (splitter == "random" || !extra) && (free || version >= (1, 9))
    };
    if allowed { Nan::Allow } else { Nan::Refuse }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_round_down_to_single_precision() {
        for threshold in [0.5, 0.1, -0.1, 1e39, -1e39, 1e-60, -1e-60, f64::INFINITY, 16_777_217.0] {
            let rounded = round_down(threshold);
            assert!(rounded <= threshold);
            let near = threshold as f32;
            for x in [near.next_down(), near, near.next_up()].into_iter().filter(|x| x.is_finite())
            {
                let x = f64::from(x);
                assert_eq!(x <= threshold, x <= rounded, "{threshold} {x}");
            }
        }
    }
}
