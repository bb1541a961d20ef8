//! The model document: what JSON and UBJSON hold, in any order of keys. Unknown keys are passed over.

use super::names::Categories;
use super::source::{Source, inside};
use crate::error::Fault;

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

/// One tree as parallel arrays over its nodes.
#[derive(Default)]
pub(super) struct RawTree {
    /// Left child; -1 in a leaf.
    pub(super) left: Vec<i32>,
    /// Right child; in a leaf with `leaf_weights` its row there.
    pub(super) right: Vec<i32>,
    /// Feature.
    pub(super) features: Vec<u32>,
    /// Threshold, or the value of a leaf.
    pub(super) conditions: Vec<f32>,
    /// Where missing values go.
    pub(super) default_left: Vec<u8>,
    /// 1 for categorical nodes; empty when there is none.
    pub(super) split_type: Vec<u8>,
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
            source.list(|source| {
                raw.trees.push(tree(source)?);
                Ok(())
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
    let mut tree = RawTree::default();
    let mut nodes = None;
    source.object(|source, key| {
        match key {
            "tree_param" => source.object(|source, key| {
                match key {
                    "num_nodes" => nodes = Some(count(source)?),
                    "size_leaf_vector" => tree.leaf_size = count(source)?,
                    _ => source.skip()?,
                }
                Ok(())
            })?,
            "left_children" => tree.left = source.numbers()?,
            "right_children" => tree.right = source.numbers()?,
            "split_indices" => tree.features = source.numbers()?,
            "split_conditions" => tree.conditions = source.numbers()?,
            "default_left" => tree.default_left = source.numbers()?,
            "split_type" => tree.split_type = source.numbers()?,
            "categories" => tree.categories = source.numbers()?,
            "categories_nodes" => tree.category_nodes = source.numbers()?,
            "categories_segments" => tree.category_segments = source.numbers()?,
            "categories_sizes" => tree.category_sizes = source.numbers()?,
            "base_weights" => tree.base_weights = source.numbers()?,
            "leaf_weights" => tree.leaf_weights = Some(source.numbers()?),
            _ => source.skip()?,
        }
        Ok(())
    })?;
    if tree.leaf_size <= 1 {
        tree.base_weights = Vec::new();
        tree.leaf_weights = None;
    }
    if nodes.is_some_and(|nodes| nodes != tree.left.len()) || tree.left.is_empty() {
        let (found, said) = (tree.left.len(), nodes.unwrap_or(1));
        let reason = format!("{found} nodes, the tree's num_nodes says {said}");
        return Err(Fault::corrupt("left_children", reason));
    }
    Ok(tree)
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
