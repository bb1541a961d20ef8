//! What must hold of an ensemble before anything walks it: afterwards no index is out of range and no walk is endless.

use super::{Child, Ensemble, Split, Test, Tree, TreeError};

/// Nodes and leaves of all trees together, and numbers in all leaves: offsets stay below 31 bits.
const MAX_SIZE: usize = 1 << 31;

/// Checks every tree.
pub(super) fn check(ensemble: &Ensemble) -> Result<(), TreeError> {
    let error = |tree, reason| TreeError { tree, reason };
    if ensemble.outputs == 0 || ensemble.base.len() != ensemble.outputs {
        let (base, outputs) = (ensemble.base.len(), ensemble.outputs);
        let reason = format!("sums start from {base} numbers, but there are {outputs} outputs");
        return Err(error(0, reason));
    }
    let (mut nodes, mut numbers) = (0, 0);
    for (index, tree) in ensemble.trees.iter().enumerate() {
        check_tree(ensemble, tree).map_err(|reason| error(index, reason))?;
        nodes += 2 * tree.splits.len() + 1;
        numbers += tree.leaves.len();
        if nodes.max(numbers) >= MAX_SIZE || ensemble.features >= MAX_SIZE {
            return Err(error(index, format!("the ensemble has more than {MAX_SIZE} nodes")));
        }
    }
    Ok(())
}

fn check_tree(ensemble: &Ensemble, tree: &Tree) -> Result<(), String> {
    let width = if ensemble.vector_leaves { ensemble.outputs } else { 1 };
    let leaves = tree.splits.len() + 1;
    if leaves.checked_mul(width) != Some(tree.leaves.len()) {
        let found = tree.leaves.len();
        return Err(format!(
            "{leaves} leaves of {width} numbers are expected, {found} numbers found"
        ));
    }
    if tree.output as usize >= ensemble.outputs {
        return Err(format!("output {} of {}", tree.output, ensemble.outputs));
    }
    let mut reached = vec![false; tree.splits.len() + leaves];
    for (index, split) in tree.splits.iter().enumerate() {
        let node = |reason| format!("node {index}: {reason}");
        check_split(ensemble, split).map_err(node)?;
        for child in [split.left, split.right] {
            let place = place(tree, index, child).map_err(node)?;
            if std::mem::replace(&mut reached[place], true) {
                return Err(node(format!("{child:?} is reached twice")));
            }
        }
    }
    // 2 n children, all different, of n - 1 nodes behind the root and n + 1 leaves: each is reached.
    Ok(())
}

fn check_split(ensemble: &Ensemble, split: &Split) -> Result<(), String> {
    if split.feature as usize >= ensemble.features {
        return Err(format!("feature {} of {}", split.feature, ensemble.features));
    }
    match split.test {
        Test::AtMost(threshold) | Test::AtMostZeroMissing(threshold) if threshold.is_nan() => {
            Err("the threshold is NaN".into())
        }
        _ => Ok(()),
    }
}

/// Position of a child among nodes and, behind them, leaves.
fn place(tree: &Tree, parent: usize, child: Child) -> Result<usize, String> {
    let nodes = tree.splits.len();
    match child {
        Child::Node(index) if index as usize >= nodes => Err(format!("node {index} of {nodes}")),
        Child::Node(index) if index as usize <= parent => {
            Err(format!("node {index} is not behind its parent"))
        }
        Child::Node(index) => Ok(index as usize),
        Child::Leaf(index) if index as usize > nodes => {
            Err(format!("leaf {index} of {}", nodes + 1))
        }
        Child::Leaf(index) => Ok(nodes + index as usize),
    }
}
