//! The JSON form: what `dump_model()` of the library's Python package gives, written with full precision.
//!
//! Trees are nested as deep as they are. The reader of JSON stops at a depth of 128, which bounds the stack; deeper
//! trees are refused, their text form is not.

use serde::Deserialize;
use serde_json::Value;
use tokenmill_kernels::trees::{Split, Tree};

use super::source::{Kind, LinearLeaf, Missing, Source, category_split, node};
use crate::ensemble::afford;
use crate::error::Fault;

/// What is read of a dump.
#[derive(Deserialize)]
struct Dump {
    #[serde(default)]
    version: String,
    num_class: usize,
    num_tree_per_iteration: usize,
    max_feature_idx: usize,
    objective: Option<String>,
    #[serde(default)]
    average_output: bool,
    feature_names: Vec<String>,
    #[serde(default)]
    feature_infos: std::collections::HashMap<String, Info>,
    tree_info: Vec<TreeInfo>,
    pandas_categorical: Option<Vec<Vec<Value>>>,
}

#[derive(Deserialize)]
struct Info {
    /// Categories seen; empty for numbers.
    #[serde(default)]
    values: Vec<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct TreeInfo {
    num_leaves: usize,
    tree_structure: Node,
}

/// A node or a leaf; a leaf has `leaf_value`.
#[derive(Deserialize)]
struct Node {
    split_index: Option<usize>,
    split_feature: Option<u32>,
    threshold: Option<Threshold>,
    decision_type: Option<String>,
    #[serde(default)]
    default_left: bool,
    missing_type: Option<String>,
    left_child: Option<Box<Node>>,
    right_child: Option<Box<Node>>,
    leaf_index: Option<usize>,
    leaf_value: Option<f64>,
    leaf_const: Option<f64>,
    leaf_features: Option<Vec<u32>>,
    leaf_coeff: Option<Vec<f64>>,
}

/// A number, or categories as `1||4`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Threshold {
    Number(f64),
    Categories(String),
}

/// Largest category of a set: the bits of a set are written out up to its largest.
const MAX_CATEGORY: u32 = 1 << 20;

/// Bytes of bit sets for each byte of text, so that sets cannot outgrow the file.
const MAX_WORDS_PER_BYTE: usize = 1;

/// A node and a leaf with the fields that are required take more text than this.
const MIN_BYTES_PER_LEAF: usize = 64;

/// Bytes of a node as it is read, with its texts and the place that a list keeps free, and of what it becomes.
const NODE: usize = 360;

/// Reads a whole file.
pub(super) fn parse(text: &str) -> Result<Source, Fault> {
    afford(text.bytes().filter(|&byte| byte == b'{').count(), NODE, text.len())?;
    let dump: Dump = serde_json::from_str(text).map_err(|error| {
        let at = format!("line {} column {}", error.line(), error.column());
        let deep = error.to_string().contains("recursion limit");
        let hint = if deep { "; trees this deep can be read from the text model" } else { "" };
        Fault::corrupt(at, format!("expected a model as dump_model() writes it: {error}{hint}"))
    })?;
    let features = dump.feature_names.len();
    if dump.max_feature_idx.checked_add(1) != Some(features) {
        let reason = format!("{features} names for features up to {}", dump.max_feature_idx);
        return Err(Fault::corrupt("feature_names", reason));
    }
    let kind = |name: &String| match dump.feature_infos.get(name) {
        None => Kind::Unknown,
        Some(info) if info.values.is_empty() => Kind::Number,
        Some(_) => Kind::Category,
    };
    let kinds = dump.feature_names.iter().map(kind).collect();
    let mut words = text.len().saturating_mul(MAX_WORDS_PER_BYTE);
    let (mut trees, mut linear) = (Vec::new(), Vec::new());
    for (index, info) in dump.tree_info.into_iter().enumerate() {
        let mut reader = Reader::new(index, info.num_leaves, text.len())?;
        reader.read(info.tree_structure, features, &mut words)?;
        let (tree, leaves) = reader.finish()?;
        trees.push(tree);
        linear.push(leaves);
    }
    let source = Source {
        version: dump.version,
        classes: dump.num_class,
        per_round: dump.num_tree_per_iteration,
        objective: dump.objective,
        average: dump.average_output,
        names: dump.feature_names,
        kinds,
        trees,
        linear,
        categories: dump.pandas_categorical.unwrap_or_default(),
    };
    source.finish()
}

/// One tree, its nodes and leaves at the places that their indices say.
struct Reader {
    tree: usize,
    splits: Vec<Option<Split>>,
    leaves: Vec<Option<(f64, Option<LinearLeaf>)>>,
}

impl Reader {
    fn new(tree: usize, leaves: usize, bytes: usize) -> Result<Self, Fault> {
        if leaves == 0 || leaves > bytes / MIN_BYTES_PER_LEAF + 1 {
            let at = format!("tree_info[{tree}].num_leaves");
            return Err(Fault::corrupt(at, format!("{leaves} leaves in a file of {bytes} bytes")));
        }
        let empty = |length| std::iter::repeat_with(|| None).take(length);
        let leaf = std::iter::repeat_with(|| None).take(leaves).collect();
        Ok(Self { tree, splits: empty(leaves - 1).collect(), leaves: leaf })
    }

    fn wrong(&self, field: &str, reason: impl Into<String>) -> Fault {
        Fault::corrupt(format!("tree_info[{}].{field}", self.tree), reason)
    }

    /// Places all nodes below `root`, without recursion.
    fn read(&mut self, root: Node, features: usize, words: &mut usize) -> Result<(), Fault> {
        let mut pending = vec![root];
        while let Some(mut at) = pending.pop() {
            if at.leaf_value.is_some() {
                self.leaf(&at, features)?;
                continue;
            }
            let (Some(left), Some(right)) = (at.left_child.take(), at.right_child.take()) else {
                return Err(
                    self.wrong("tree_structure", "a node has neither leaf_value nor children")
                );
            };
            let children = [self.number(&left)?, self.number(&right)?];
            let test = self.test(&at, words)?;
            let feature =
                at.split_feature.ok_or_else(|| self.wrong("split_feature", "is missing"))?;
            let index = at.split_index.unwrap_or(usize::MAX);
            let count = self.splits.len();
            match self.splits.get_mut(index) {
                Some(place @ None) => *place = Some(node(feature, test, children)),
                _ => {
                    let reason = format!(
                        "{:?} is missing, twice there, or not below {count}",
                        at.split_index
                    );
                    return Err(self.wrong("split_index", reason));
                }
            }
            pending.extend([*left, *right]);
        }
        Ok(())
    }

    /// A child as the text form numbers it: leaves below zero.
    fn number(&self, child: &Node) -> Result<i32, Fault> {
        let (index, leaf) = match child.leaf_value {
            Some(_) => (child.leaf_index, true),
            None => (child.split_index, false),
        };
        let index = index.and_then(|index| i32::try_from(index).ok());
        let index = index.ok_or_else(|| self.wrong("leaf_index", "or split_index is missing"))?;
        Ok(if leaf { !index } else { index })
    }

    fn leaf(&mut self, at: &Node, features: usize) -> Result<(), Fault> {
        let count = self.leaves.len();
        let linear = at.leaf_const.map(|constant| {
            let (features, coefficients) = (at.leaf_features.as_ref(), at.leaf_coeff.as_ref());
            let features = features.map(Vec::as_slice).unwrap_or_default();
            let coefficients = coefficients.map(Vec::as_slice).unwrap_or_default();
            let terms = features.iter().copied().zip(coefficients.iter().copied()).collect();
            (features.len() == coefficients.len(), LinearLeaf { constant, terms })
        });
        if let Some((equal, leaf)) = &linear
            && !(*equal && leaf.terms.iter().all(|term| (term.0 as usize) < features))
        {
            let reason = format!("expected as many as leaf_coeff, each below {features}");
            return Err(self.wrong("leaf_features", reason));
        }
        // A tree of one leaf may leave its number out.
        let index = at.leaf_index.or((count == 1).then_some(0)).unwrap_or(usize::MAX);
        match self.leaves.get_mut(index) {
            Some(place @ None) => {
                let value = at.leaf_value.unwrap_or_default();
                *place = Some((value, linear.map(|(_, leaf)| leaf)));
                Ok(())
            }
            _ => {
                let reason =
                    format!("{:?} is missing, twice there, or not below {count}", at.leaf_index);
                Err(self.wrong("leaf_index", reason))
            }
        }
    }

    fn test(
        &self,
        at: &Node,
        words: &mut usize,
    ) -> Result<(tokenmill_kernels::trees::Test, bool), Fault> {
        match (at.decision_type.as_deref(), &at.threshold) {
            (Some("<="), Some(Threshold::Number(threshold))) => {
                let missing = match at.missing_type.as_deref() {
                    Some("None") => Missing::Nothing,
                    Some("Zero") => Missing::Zero,
                    Some("NaN") => Missing::NotANumber,
                    other => {
                        let reason = format!("expected None, Zero or NaN, found {other:?}");
                        return Err(self.wrong("missing_type", reason));
                    }
                };
                Ok(missing.split(*threshold, at.default_left))
            }
            (Some("=="), Some(Threshold::Categories(text))) => {
                self.categories(text, words).map(category_split)
            }
            // A set of one category is written as a number by some readers of the dump.
            (Some("=="), Some(Threshold::Number(category))) => {
                self.categories(&category.to_string(), words).map(category_split)
            }
            (other, _) => {
                let reason = format!(
                    "expected \"<=\" with a number or \"==\" with categories as in 1||4, found {other:?}"
                );
                Err(self.wrong("decision_type", reason))
            }
        }
    }

    /// The bit set of `1||4`; `words` is what all sets of the file may still take.
    fn categories(&self, text: &str, words: &mut usize) -> Result<Vec<u32>, Fault> {
        let category = |word: &str| {
            let category: Option<u32> = word.parse().ok();
            category.filter(|category| *category <= MAX_CATEGORY).ok_or_else(|| {
                let reason = format!("expected categories up to {MAX_CATEGORY}, found {word:?}");
                self.wrong("threshold", reason)
            })
        };
        let found = match text.is_empty() {
            true => Vec::new(),
            false => text.split("||").map(category).collect::<Result<Vec<u32>, Fault>>()?,
        };
        let length = found.iter().max().map_or(0, |largest| *largest as usize / 32 + 1);
        let left = words.checked_sub(length);
        *words = left.ok_or_else(|| self.wrong("threshold", "category sets outgrow the file"))?;
        let mut set = vec![0; length];
        found.iter().for_each(|category| set[*category as usize / 32] |= 1 << (category % 32));
        Ok(set)
    }

    fn finish(self) -> Result<(Tree, Option<Vec<LinearLeaf>>), Fault> {
        let tree = self.tree;
        let incomplete = |what: &str| {
            let reason = format!("num_leaves says more {what} than there are");
            Fault::corrupt(format!("tree_info[{tree}].tree_structure"), reason)
        };
        let splits: Option<Vec<Split>> = self.splits.into_iter().collect();
        let leaves: Option<Vec<_>> = self.leaves.into_iter().collect();
        let splits = splits.ok_or_else(|| incomplete("nodes"))?;
        let (leaves, linear): (Vec<f64>, Vec<Option<LinearLeaf>>) =
            leaves.ok_or_else(|| incomplete("leaves"))?.into_iter().unzip();
        let linear: Option<Vec<LinearLeaf>> = match linear.iter().any(Option::is_some) {
            true => Some(linear.into_iter().collect::<Option<_>>().ok_or_else(|| {
                let at = format!("tree_info[{tree}].leaf_const");
                Fault::corrupt(at, "some leaves are linear and some are not")
            })?),
            false => None,
        };
        Ok((Tree { splits, leaves, output: 0 }, linear))
    }
}
