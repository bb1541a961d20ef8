//! Gradient boosting: an initial estimator and regression trees, added one after the other.

use tokenmill_kernels::trees::{Forest, Tree};

use crate::array::Array;
use crate::ensemble;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::{Object, Value};
use crate::steps::forest::sums;
use crate::steps::input::{self, Nan};
use crate::steps::tree_data::{self, TreeData};
use crate::steps::{Builder, Estimator, InputSpec, OutputSpec, Row, math, output, tree};
use crate::table::{Matrix, Table};
use crate::tensor::DataType;

/// Boosted trees with an initial estimator.
pub(crate) static ESTIMATORS: &[Row] = &[
    Row { class: "GradientBoostingClassifier", build },
    Row { class: "GradientBoostingRegressor", build },
];

/// A fitted ensemble.
struct GradientBoosting {
    name: String,
    spec: InputSpec,
    /// NaN in [`Estimator::apply`], which asks the first tree; everything else refuses it.
    leaf_nan: Nan,
    /// `[rounds, width]` trees; their sums start from `init` where that is a constant.
    forest: Forest,
    leaf_nodes: Vec<Vec<u32>>,
    /// Trees of a round: the numbers of a raw prediction.
    width: usize,
    init: Option<Init>,
    /// Labels, of a classifier.
    classes: Option<Array>,
    exponential: bool,
    version: (u32, u32),
}

/// An initial estimator that reads the rows: the sum starts from its answer, so it is not the kernels'.
struct Init {
    estimator: Box<dyn Estimator>,
    /// Values of the leaves of each tree.
    leaves: Vec<Vec<f64>>,
}

fn build(object: Object<'_>, builder: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let classes = match object.class {
        "GradientBoostingClassifier" => Some(input::labels(object, "classes_")?),
        _ => None,
    };
    let width = match classes.as_ref().map_or(2, Array::len) {
        1 => return Err(object.wrong("classes_", "expected at least two classes")),
        2 => 1,
        several => several,
    };
    let (features, leaf_nan, mut trees) = read_trees(object, width)?;
    let rate = object.f64("learning_rate")?;
    let leaves: Vec<Vec<f64>> = trees
        .iter()
        .map(|tree| (0..tree.leaves()).map(|leaf| rate * tree.value(leaf, 0)[0]).collect())
        .collect();
    let kernel_trees: Vec<Tree> = trees
        .iter_mut()
        .enumerate()
        .map(|(index, tree)| tree.take_tree(leaves[index].clone(), index % width))
        .collect();
    let init = object.attribute("init_")?;
    let exponential = object.get("loss").and_then(Value::as_str) == Some("exponential");
    let mut model = GradientBoosting {
        name: object.class.to_owned(),
        spec: tree::spec(object, features)?,
        leaf_nan,
        forest: tree_data::forest(features, vec![0.0; width], false, kernel_trees.clone())?,
        leaf_nodes: trees.into_iter().map(|tree| tree.leaf_nodes).collect(),
        width,
        init: None,
        classes,
        exponential,
        version: object.version().unwrap_or((0, 0)),
    };
    if init.as_str() == Some("zero") {
        return Ok(Box::new(model));
    }
    let class = object.object("init_")?.class;
    let estimator = builder.build(object.object("init_")?)?;
    if class.starts_with("Dummy") {
        let row = Matrix::f32(1, 0, Vec::new());
        let base = model
            .start(estimator.as_ref(), &row)
            .map_err(|error| object.wrong("init_", error.to_string()))?;
        model.forest = tree_data::forest(features, base, false, kernel_trees)?;
    } else {
        model.init = Some(Init { estimator, leaves });
    }
    Ok(Box::new(model))
}

/// The trees of `estimators_`, `[rounds, width]`: their features and what the first thinks of NaN.
fn read_trees(object: Object<'_>, width: usize) -> Result<(usize, Nan, Vec<TreeData>), Fault> {
    let shape = object.attribute("estimators_")?.shape().unwrap_or_default();
    let wrong = |found: String| {
        let reason = format!("expected rounds of {width} regression trees, found {found}");
        object.wrong("estimators_", reason)
    };
    if !matches!(*shape, [rounds, columns] if rounds > 0 && columns == width) {
        return Err(wrong(format!("shape {shape:?}")));
    }
    let mut trees = Vec::new();
    let mut nan = Nan::Refuse;
    for value in object.list("estimators_")? {
        let tree = value.as_object().ok_or_else(|| wrong(value.describe()))?;
        if trees.is_empty() {
            nan = tree_data::nan(tree);
        }
        let tree = TreeData::read(tree)?;
        if tree.classes != [1] {
            return Err(wrong("a tree of several outputs".into()));
        }
        trees.push(tree);
    }
    Ok((trees[0].features, nan, trees))
}

impl GradientBoosting {
    /// What the sums of each row start from, `[rows, width]`.
    fn start(&self, init: &dyn Estimator, x: &Matrix) -> Result<Vec<f64>, PredictError> {
        let rows = x.rows;
        let table = Table::Dense(x.clone());
        let wrong = |found: &Array| {
            PredictError::Internal(format!("init_ answered an array {:?}", found.shape()))
        };
        let Some(classes) = &self.classes else {
            let values = init.predict(&table)?;
            let numbers = values.to_f64().filter(|numbers| numbers.len() == rows);
            return numbers.ok_or_else(|| wrong(&values));
        };
        let answer = init.predict_proba(&table)?;
        let [proba] = answer.as_slice() else {
            return Err(PredictError::Internal("init_ answered several outputs".into()));
        };
        if proba.shape() != [rows, classes.len()] {
            return Err(wrong(proba));
        }
        let eps = match self.version < (1, 8) {
            true => f64::from(f32::EPSILON),
            false => f64::EPSILON,
        };
        let proba = proba.to_f64().unwrap_or_default();
        let clipped = |value: f64| value.clamp(eps, 1.0 - eps);
        if self.width == 1 {
            let logit = |row: &[f64]| {
                let p = clipped(row[1]);
                let logit = (p / (1.0 - p)).ln();
                if self.exponential { 0.5 * logit } else { logit }
            };
            return Ok(proba.chunks_exact(2).map(logit).collect());
        }
        let mut logs: Vec<f64> = proba.into_iter().map(|value| clipped(value).ln()).collect();
        if self.version >= (1, 4) {
            for row in logs.chunks_exact_mut(self.width) {
                let mean = row.iter().sum::<f64>() / self.width as f64;
                row.iter_mut().for_each(|value| *value -= mean);
            }
        }
        Ok(logs)
    }

    /// Raw predictions, `[rows, width]`.
    fn raw(&self, x: &Table) -> Result<(usize, Vec<f64>), PredictError> {
        let x = input::single(x, &self.spec, Nan::Refuse)?;
        let Some(init) = &self.init else { return Ok((x.rows, sums(&self.forest, &x))) };
        let mut raw = self.start(init.estimator.as_ref(), &x)?;
        let leaves = ensemble::leaves(&self.forest, &x);
        let rows = raw.chunks_exact_mut(self.width).zip(leaves.chunks_exact(self.forest.trees()));
        for (raw, reached) in rows {
            for (index, (&leaf, values)) in reached.iter().zip(&init.leaves).enumerate() {
                raw[index % self.width] += values[leaf as usize];
            }
        }
        Ok((x.rows, raw))
    }

    /// Probabilities of raw predictions, `[rows, classes]`.
    fn proba(&self, mut raw: Vec<f64>) -> Vec<f64> {
        if self.width == 1 {
            let scale = if self.exponential { 2.0 } else { 1.0 };
            return raw
                .into_iter()
                .map(|raw| math::expit(scale * raw))
                .flat_map(|p| [1.0 - p, p])
                .collect();
        }
        for row in raw.chunks_exact_mut(self.width) {
            let total = math::log_sum_exp(row);
            row.iter_mut().for_each(|value| *value = (*value - total).exp());
        }
        raw
    }
}

impl Estimator for GradientBoosting {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn input(&self) -> &InputSpec {
        &self.spec
    }

    fn methods(&self) -> &[Method] {
        match self.classes {
            Some(_) => &[
                Method::Predict,
                Method::PredictProba,
                Method::PredictLogProba,
                Method::DecisionFunction,
                Method::Apply,
            ],
            None => &[Method::Predict, Method::Apply],
        }
    }

    fn output_specs(&self, method: Method) -> Vec<OutputSpec> {
        let (double, trees) = (DataType::Fp64, self.forest.trees());
        match (method, &self.classes) {
            (Method::DecisionFunction, _) => vec![OutputSpec::targets(double, self.width)],
            (Method::Apply, None) => vec![OutputSpec::columns(double, trees)],
            (Method::Apply, Some(_)) => {
                let sizes = vec![Some(trees / self.width), Some(self.width)];
                vec![OutputSpec { dtype: double, sizes }]
            }
            _ => output::usual(self.classes(), None, method),
        }
    }

    fn classes(&self) -> &[Array] {
        self.classes.as_slice()
    }

    fn predict(&self, x: &Table) -> Result<Array, PredictError> {
        let (rows, raw) = self.raw(x)?;
        let Some(classes) = &self.classes else { return Ok(Array::f64(vec![rows], raw)) };
        let by_sign = self.width == 1 && (self.exponential || self.version >= (1, 4));
        let indices = if by_sign {
            raw.iter().map(|&raw| usize::from(raw >= 0.0)).collect()
        } else if self.version >= (1, 4) {
            math::argmax_rows(&raw, self.width)
        } else {
            math::argmax_rows(&self.proba(raw), classes.len())
        };
        Ok(classes.take(vec![rows], &indices))
    }

    fn predict_proba(&self, x: &Table) -> Result<Vec<Array>, PredictError> {
        let Some(classes) = &self.classes else { return Err(self.lacks(Method::PredictProba)) };
        let (rows, raw) = self.raw(x)?;
        Ok(vec![Array::f64(vec![rows, classes.len()], self.proba(raw))])
    }

    fn decision_function(&self, x: &Table) -> Result<Array, PredictError> {
        if self.classes.is_none() {
            return Err(self.lacks(Method::DecisionFunction));
        }
        let (rows, raw) = self.raw(x)?;
        Ok(tree::values_array(rows, self.width, raw))
    }

    fn apply(&self, x: &Table) -> Result<Array, PredictError> {
        let x = input::single(x, &self.spec, self.leaf_nan)?;
        let trees = self.forest.trees();
        let leaves = ensemble::leaves(&self.forest, &x);
        let node =
            |(index, leaf): (usize, u32)| f64::from(self.leaf_nodes[index % trees][leaf as usize]);
        let nodes = leaves.into_iter().enumerate().map(node).collect();
        let shape = match self.classes {
            Some(_) => vec![x.rows, trees / self.width, self.width],
            None => vec![x.rows, trees],
        };
        Ok(Array::f64(shape, nodes))
    }
}
