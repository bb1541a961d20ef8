//! Averages of trees: random forests and extremely randomised trees, and the embedding by their leaves.

use tokenmill_kernels::trees::Forest as Trees;

use crate::array::Array;
use crate::ensemble;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::Object;
use crate::steps::input::{self, Nan};
use crate::steps::tree::{self, values_array};
use crate::steps::tree_data::{self, TreeData};
use crate::steps::{Builder, Estimator, InputSpec, OutputSpec, Row, labels, math, output};
use crate::table::{Matrix, Numbers, Table};
use crate::tensor::DataType;

/// Forests.
pub(crate) static ESTIMATORS: &[Row] = &[
    Row { class: "RandomForestClassifier", build },
    Row { class: "RandomForestRegressor", build },
    Row { class: "ExtraTreesClassifier", build },
    Row { class: "ExtraTreesRegressor", build },
    Row { class: "RandomTreesEmbedding", build },
];

/// A fitted forest.
struct Forest {
    name: String,
    spec: InputSpec,
    nan: Nan,
    trees: Trees,
    leaf_nodes: Vec<Vec<u32>>,
    /// Labels of each output of a classifier.
    classes: Option<Vec<Array>>,
    /// The encoder of an embedding.
    encoder: Option<Box<dyn Estimator>>,
}

/// The trees of `estimators_`, each with the object it was read from.
pub(crate) fn read_trees<'a>(object: Object<'a>) -> Result<Vec<(Object<'a>, TreeData)>, Fault> {
    let mut trees = Vec::new();
    for value in object.list("estimators_")? {
        let tree = value.as_object().ok_or_else(|| {
            object.wrong("estimators_", format!("expected trees, found {}", value.describe()))
        })?;
        trees.push((tree, TreeData::read(tree)?));
    }
    let Some((_, first)) = trees.first() else {
        return Err(object.wrong("estimators_", "expected at least one tree"));
    };
    if let Some((_, other)) = trees.iter().find(|(_, tree)| tree.classes != first.classes) {
        let reason = format!("trees of {:?} and {:?} classes", first.classes, other.classes);
        return Err(object.wrong("estimators_", reason));
    }
    Ok(trees)
}

fn build(object: Object<'_>, builder: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut trees = read_trees(object)?;
    let (first, counts) = (trees[0].0, trees[0].1.classes.clone());
    let features = trees[0].1.features;
    let is_old = object.version().is_none_or(|version| version < (1, 4));
    let nan = if is_old { Nan::Refuse } else { tree_data::nan(first) };
    let classes = tree::classes(object, &counts)?;
    let outputs = classes.as_ref().map_or(counts.len(), |_| counts.iter().sum());
    let holds_counts = tree::holds_counts(first);
    let mut kernel_trees = Vec::with_capacity(trees.len());
    for (_, tree) in &mut trees {
        let mut leaves = Vec::with_capacity(tree.leaves() * outputs);
        for leaf in 0..tree.leaves() {
            for output in 0..counts.len() {
                match &classes {
                    Some(_) => leaves.extend(tree::proba(tree, leaf, output, holds_counts)),
                    None => leaves.push(tree.value(leaf, output)[0]),
                }
            }
        }
        kernel_trees.push(tree.take_tree(leaves, 0));
    }
    let encoder = match object.class {
        "RandomTreesEmbedding" => Some(builder.build(object.object("one_hot_encoder_")?)?),
        _ => None,
    };
    Ok(Box::new(Forest {
        name: object.class.to_owned(),
        spec: tree::spec(object, features)?,
        nan,
        trees: tree_data::forest(features, vec![0.0; outputs], true, kernel_trees)?,
        leaf_nodes: trees.into_iter().map(|(_, tree)| tree.leaf_nodes).collect(),
        classes,
        encoder,
    }))
}

/// The sums of a forest that sums in double precision.
pub(crate) fn sums(trees: &Trees, x: &Matrix) -> Vec<f64> {
    match ensemble::sums(trees, x) {
        Numbers::F64(sums) => sums,
        Numbers::F32(sums) => sums.into_iter().map(f64::from).collect(),
    }
}

impl Forest {
    /// Means over the trees, `[rows, outputs]`.
    fn means(&self, x: &Table) -> Result<(usize, Vec<f64>), PredictError> {
        let x = input::single(x, &self.spec, self.nan)?;
        let mut means = sums(&self.trees, &x);
        let count = self.trees.trees() as f64;
        means.iter_mut().for_each(|value| *value /= count);
        Ok((x.rows, means))
    }

    /// Nodes of the leaves, `[rows, trees]`.
    fn leaves(&self, x: &Table) -> Result<(usize, Vec<u32>), PredictError> {
        let x = input::single(x, &self.spec, self.nan)?;
        let mut leaves = ensemble::leaves(&self.trees, &x);
        for row in leaves.chunks_exact_mut(self.trees.trees()) {
            for (leaf, nodes) in row.iter_mut().zip(&self.leaf_nodes) {
                *leaf = nodes[*leaf as usize];
            }
        }
        Ok((x.rows, leaves))
    }
}

impl Estimator for Forest {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn input(&self) -> &InputSpec {
        &self.spec
    }

    fn methods(&self) -> &[Method] {
        match (&self.classes, &self.encoder) {
            (Some(_), _) => {
                &[Method::Predict, Method::PredictProba, Method::PredictLogProba, Method::Apply]
            }
            (None, None) => &[Method::Predict, Method::Apply],
            (None, Some(_)) => &[Method::Transform, Method::Apply],
        }
    }

    fn output_specs(&self, method: Method) -> Vec<OutputSpec> {
        match (method, &self.encoder) {
            (Method::Apply, _) => vec![OutputSpec::columns(DataType::Int64, self.trees.trees())],
            (Method::Transform, Some(encoder)) => encoder.output_specs(method),
            (Method::Predict, _) if self.classes.is_none() => {
                vec![OutputSpec::targets(DataType::Fp64, self.trees.outputs())]
            }
            _ => output::usual(self.classes(), None, method),
        }
    }

    fn classes(&self) -> &[Array] {
        self.classes.as_deref().unwrap_or_default()
    }

    fn predict(&self, x: &Table) -> Result<Array, PredictError> {
        if self.encoder.is_some() {
            return Err(self.lacks(Method::Predict));
        }
        let Some(classes) = &self.classes else {
            let (rows, means) = self.means(x)?;
            return Ok(values_array(rows, self.trees.outputs(), means));
        };
        let best = |proba: &Array| {
            math::argmax_rows(&proba.to_f64().unwrap_or_default(), proba.shape()[1])
        };
        let indices: Vec<Vec<usize>> = self.predict_proba(x)?.iter().map(best).collect();
        Ok(labels::take(classes, &indices))
    }

    fn predict_proba(&self, x: &Table) -> Result<Vec<Array>, PredictError> {
        let Some(classes) = &self.classes else { return Err(self.lacks(Method::PredictProba)) };
        let (rows, means) = self.means(x)?;
        if let [classes] = classes.as_slice() {
            return Ok(vec![Array::f64(vec![rows, classes.len()], means)]);
        }
        let mut start = 0;
        let output = |classes: &Array| {
            let range = start..start + classes.len();
            start = range.end;
            let rows_of = means.chunks_exact(self.trees.outputs());
            let values = rows_of.flat_map(|row| &row[range.clone()]).copied().collect();
            Array::f64(vec![rows, classes.len()], values)
        };
        Ok(classes.iter().map(output).collect())
    }

    fn apply(&self, x: &Table) -> Result<Array, PredictError> {
        let (rows, leaves) = self.leaves(x)?;
        let leaves = leaves.into_iter().map(i64::from).collect();
        Ok(Array::i64(vec![rows, self.trees.trees()], leaves))
    }

    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        let Some(encoder) = &self.encoder else { return Err(self.lacks(Method::Transform)) };
        let (rows, leaves) = self.leaves(x)?;
        let leaves = leaves.into_iter().map(f64::from).collect();
        encoder.transform(&Table::Dense(Matrix::f64(rows, self.trees.trees(), leaves)))
    }
}
