//! The model document: what JSON and UBJSON hold, in any order of keys. Unknown keys are passed over.

use super::names::Categories;
use super::source::{Source, inside};
use crate::ensemble::afford;
use crate::error::Fault;

/// Names of columns that a model may have.
const MAX_NAMES: usize = 1 << 20;

/// Bytes of a node while a model is lowered: as it is here, as a split, in the kernels; and the nodes of as many bytes as a
/// tree takes beside its nodes.
const NODE: usize = 100;
const TREE: usize = 2;

/// What a container holds, before anything is checked against anything else.
#[derive(Default)]
pub(super) struct Raw {
    /// Major, minor, patch of the library that wrote it.
    pub(super) version: Option<[u32; 3]>,
    /// Name of the objective.
    pub(super) objective: String,
    /// Base score: one number, or one per output.
    pub(super) base_score: Vec<f32>,
    /// Files before 1.0 store the margin itself.
    pub(super) base_is_margin: bool,
    /// Columns.
    pub(super) num_feature: usize,
    /// Classes; 0 unless the objective is one of `multi:`.
    pub(super) num_class: usize,
    /// Targets; 0 where the file does not say.
    pub(super) num_target: usize,
    /// Names of the columns; may be empty.
    pub(super) feature_names: Vec<String>,
    /// The attribute `best_iteration`.
    pub(super) best_iteration: Option<String>,
    /// Trees or weights.
    pub(super) booster: RawBooster,
}

/// What `gradient_booster` holds.
#[derive(Default)]
pub(super) struct RawBooster {
    /// `gbtree`, `dart` or `gblinear`.
    pub(super) name: String,
    /// The trees, as the arrays of the file.
    pub(super) trees: Vec<RawTree>,
    /// Output of each tree.
    pub(super) tree_info: Vec<i32>,
    /// First tree of each round, and the number of trees.
    pub(super) iteration_indptr: Option<Vec<i64>>,
    /// Trees of a round and output; 0 where the file does not say.
    pub(super) num_parallel_tree: usize,
    /// Factor of each tree; trees beyond have 1.
    pub(super) weight_drop: Vec<f32>,
    /// Weights of `gblinear`, feature by feature, biases last.
    pub(super) weights: Vec<f32>,
    /// Names of the categories of each feature.
    pub(super) categories: Vec<Option<Categories>>,
}

/// One tree. Small, because a small part of a file can hold many of them.
pub(super) struct RawTree {
    /// The nodes, the root first.
    pub(super) nodes: Box<[RawNode]>,
    /// What most trees do not have.
    pub(super) extras: Option<Box<RawExtras>>,
}

/// One node.
pub(super) struct RawNode {
    /// Left child; -1 in a leaf.
    pub(super) left: i32,
    /// Right child; in a leaf with `leaf_weights` its row there.
    pub(super) right: i32,
    /// Feature.
    pub(super) feature: u32,
    /// Threshold, or the value of a leaf.
    pub(super) condition: f32,
    /// Where missing values go: 0 is right.
    pub(super) default_left: u8,
    /// 0 for a threshold, 1 for categories.
    pub(super) split_type: u8,
}

/// Categories and vector leaves.
#[derive(Default)]
pub(super) struct RawExtras {
    /// Categories of all nodes.
    pub(super) categories: Vec<i32>,
    /// Categorical nodes.
    pub(super) category_nodes: Vec<i32>,
    /// First category of each of them.
    pub(super) category_segments: Vec<i64>,
    /// Number of categories of each of them.
    pub(super) category_sizes: Vec<i64>,
    /// Numbers of a leaf; 0 and 1 are scalars.
    pub(super) leaf_size: usize,
    /// Vectors of all nodes (up to 3.1); kept for vector leaves only.
    pub(super) base_weights: Vec<f32>,
    /// Vectors of the leaves (from 3.2).
    pub(super) leaf_weights: Option<Vec<f32>>,
}

/// The arrays of a tree, one element a node.
#[derive(Default)]
struct Arrays {
    nodes: Option<usize>,
    left: Vec<i32>,
    right: Vec<i32>,
    features: Vec<u32>,
    conditions: Vec<f32>,
    default_left: Vec<u8>,
    split_type: Vec<u8>,
}

impl RawTree {
    /// Numbers of a leaf.
    pub(super) fn leaf_size(&self) -> usize {
        self.extras.as_ref().map_or(1, |extras| extras.leaf_size.max(1))
    }
}

impl Arrays {
    /// The nodes, when all arrays have as many elements.
    fn nodes(&self) -> Result<Box<[RawNode]>, Fault> {
        let nodes = self.left.len();
        if self.nodes.is_some_and(|said| said != nodes) || nodes == 0 {
            let said = self.nodes.unwrap_or(1);
            let reason = format!("{nodes} nodes, the tree's num_nodes says {said}");
            return Err(Fault::corrupt("left_children", reason));
        }
        let lengths = [
            ("right_children", self.right.len()),
            ("split_indices", self.features.len()),
            ("split_conditions", self.conditions.len()),
            ("default_left", self.default_left.len()),
            ("split_type", if self.split_type.is_empty() { nodes } else { self.split_type.len() }),
        ];
        if let Some((field, length)) = lengths.into_iter().find(|(_, length)| *length != nodes) {
            return Err(Fault::corrupt(field, format!("{length} entries for {nodes} nodes")));
        }
        let node = |index: usize| RawNode {
            left: self.left[index],
            right: self.right[index],
            feature: self.features[index],
            condition: self.conditions[index],
            default_left: self.default_left[index],
            split_type: self.split_type.get(index).copied().unwrap_or(0),
        };
        Ok((0..nodes).map(node).collect())
    }
}

/// Reads a model, or the snapshot of a pickle, whose model is under `Model`.
pub(super) fn read<S: Source>(source: &mut S) -> Result<Raw, Fault> {
    let (mut model, mut snapshot) = (Raw::default(), None);
    let mut has_learner = false;
    source.object(|source, key| match key {
        "Model" => {
            let mut inner = Raw::default();
            let mut found = false;
            source.object(|source, key| entry(source, key, &mut inner, &mut found))?;
            snapshot = Some((inner, found));
            Ok(())
        }
        _ => entry(source, key, &mut model, &mut has_learner),
    })?;
    source.finish()?;
    if let Some((inner, found)) = snapshot {
        (model, has_learner) = (inner, found);
    }
    if !has_learner {
        return Err(Fault::unsupported(
            "this is not a model of XGBoost: it has no \"learner\"; write one with \
             Booster.save_model (dumps and files of other libraries hold too little)",
        ));
    }
    Ok(model)
}

/// One key of the model.
fn entry<S: Source>(
    source: &mut S,
    key: &str,
    raw: &mut Raw,
    has_learner: &mut bool,
) -> Result<(), Fault> {
    match key {
        "learner" => {
            *has_learner = true;
            source.object(|source, key| learner(source, key, raw))
        }
        "version" => {
            let parts: Vec<u32> = source.numbers()?;
            raw.version = parts.first_chunk().copied();
            Ok(())
        }
        _ => source.skip(),
    }
}

fn learner<S: Source>(source: &mut S, key: &str, raw: &mut Raw) -> Result<(), Fault> {
    match key {
        "feature_names" => {
            raw.feature_names = texts(source)?;
            Ok(())
        }
        "attributes" => source.object(|source, key| match key {
            "best_iteration" => {
                raw.best_iteration = Some(source.text()?);
                Ok(())
            }
            _ => source.skip(),
        }),
        "objective" => source.object(|source, key| match key {
            "name" => {
                raw.objective = source.text()?;
                Ok(())
            }
            _ => source.skip(),
        }),
        "learner_model_param" => source.object(|source, key| {
            match key {
                "base_score" => raw.base_score = base_score(&source.text()?)?,
                "num_feature" => raw.num_feature = count(source)?,
                "num_class" => raw.num_class = count(source)?,
                "num_target" => raw.num_target = count(source)?,
                _ => source.skip()?,
            }
            Ok(())
        }),
        "gradient_booster" => source.object(|source, key| booster(source, key, &mut raw.booster)),
        _ => source.skip(),
    }
}

fn booster<S: Source>(source: &mut S, key: &str, raw: &mut RawBooster) -> Result<(), Fault> {
    match key {
        "name" => {
            raw.name = source.text()?;
            Ok(())
        }
        "model" => source.object(|source, key| model(source, key, raw)),
        // Dart up to 3.2: the trees lie one level deeper, under a booster of their own.
        "gbtree" => source.object(|source, key| match key {
            "model" => source.object(|source, key| model(source, key, raw)),
            _ => source.skip(),
        }),
        "weight_drop" => {
            raw.weight_drop = source.numbers()?;
            Ok(())
        }
        _ => source.skip(),
    }
}

fn model<S: Source>(source: &mut S, key: &str, raw: &mut RawBooster) -> Result<(), Fault> {
    match key {
        "trees" => {
            raw.trees.clear();
            let (mut nodes, file) = (0, source.len());
            source.list(|source| {
                let tree = tree(source)?;
                nodes += tree.nodes.len() + TREE;
                raw.trees.push(tree);
                afford(nodes, NODE, file)
            })?;
        }
        "tree_info" => raw.tree_info = source.numbers()?,
        "iteration_indptr" => raw.iteration_indptr = Some(source.numbers()?),
        "gbtree_model_param" => source.object(|source, key| {
            match key {
                "num_parallel_tree" => raw.num_parallel_tree = count(source)?,
                _ => source.skip()?,
            }
            Ok(())
        })?,
        "weight_drop" => raw.weight_drop = source.numbers()?,
        "weights" => raw.weights = source.numbers()?,
        "cats" => source.object(|source, key| match key {
            "enc" => {
                raw.categories.clear();
                source.list(|source| {
                    raw.categories.push(categories(source)?);
                    Ok(())
                })
            }
            _ => source.skip(),
        })?,
        _ => source.skip()?,
    }
    Ok(())
}

fn tree<S: Source>(source: &mut S) -> Result<RawTree, Fault> {
    let (mut arrays, mut extras) = (Arrays::default(), RawExtras::default());
    source.object(|source, key| {
        match key {
            "tree_param" => source.object(|source, key| {
                match key {
                    "num_nodes" => arrays.nodes = Some(count(source)?),
                    "size_leaf_vector" => extras.leaf_size = count(source)?,
                    _ => source.skip()?,
                }
                Ok(())
            })?,
            "left_children" => arrays.left = source.numbers()?,
            "right_children" => arrays.right = source.numbers()?,
            "split_indices" => arrays.features = source.numbers()?,
            "split_conditions" => arrays.conditions = source.numbers()?,
            "default_left" => arrays.default_left = source.numbers()?,
            "split_type" => arrays.split_type = source.numbers()?,
            "categories" => extras.categories = source.numbers()?,
            "categories_nodes" => extras.category_nodes = source.numbers()?,
            "categories_segments" => extras.category_segments = source.numbers()?,
            "categories_sizes" => extras.category_sizes = source.numbers()?,
            "base_weights" => extras.base_weights = source.numbers()?,
            "leaf_weights" => extras.leaf_weights = Some(source.numbers()?),
            _ => source.skip()?,
        }
        Ok(())
    })?;
    let nodes = arrays.nodes()?;
    if extras.leaf_size <= 1 {
        extras.base_weights = Vec::new();
        extras.leaf_weights = None;
    }
    let plain = extras.leaf_size <= 1 && extras.category_nodes.is_empty();
    Ok(RawTree { nodes, extras: (!plain).then(|| Box::new(extras)) })
}

/// One feature of `cats.enc`.
fn categories<S: Source>(source: &mut S) -> Result<Option<Categories>, Fault> {
    let (mut offsets, mut values, mut kind) = (None::<Vec<i64>>, Vec::<i64>::new(), None::<i64>);
    source.object(|source, key| {
        match key {
            "offsets" => offsets = Some(source.numbers()?),
            "values" => values = source.numbers()?,
            "type" => kind = Some(source.number()?),
            _ => source.skip()?,
        }
        Ok(())
    })?;
    match (offsets, kind) {
        (Some(offsets), _) => Categories::texts(&offsets, &values),
        (None, Some(kind)) => Categories::integers(kind, &values),
        (None, None) => Err(Fault::corrupt("offsets", "neither offsets nor a type of index")),
    }
}

fn texts<S: Source>(source: &mut S) -> Result<Vec<String>, Fault> {
    let mut texts = Vec::new();
    source.list(|source| {
        if texts.len() == MAX_NAMES {
            return Err(Fault::corrupt("", format!("more than {MAX_NAMES} names")));
        }
        texts.push(source.text()?);
        Ok(())
    })?;
    Ok(texts)
}

/// An integer that the file holds as text.
fn count<S: Source>(source: &mut S) -> Result<usize, Fault> {
    let text = source.text()?;
    let number = text.trim().parse::<u32>().ok();
    number.map(|number| number as usize).ok_or_else(|| {
        Fault::corrupt("value", format!("expected a count in text, found {:?}", shown(&text)))
    })
}

fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

/// `5E-1`, or from 3.1 a list `[1E-1,2E-1]`.
fn base_score(text: &str) -> Result<Vec<f32>, Fault> {
    let inner = text.trim();
    let inner = inner.strip_prefix('[').and_then(|list| list.strip_suffix(']')).unwrap_or(inner);
    let number = |part: &str| part.trim().parse::<f32>().ok().filter(|score| score.is_finite());
    inner.split(',').map(number).collect::<Option<Vec<f32>>>().ok_or_else(|| {
        let reason = format!("expected finite numbers, found {:?}", shown(text));
        inside("base_score", Fault::corrupt("value", reason))
    })
}
