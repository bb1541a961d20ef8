//! The booster: raw scores, what the objective makes of them, leaves.

use tokenmill_kernels::trees::{Ensemble, Forest, Precision};

use super::columns::Columns;
use super::objective::Objective;
use super::source::{LinearLeaf, Source};
use crate::array::{Array, Values};
use crate::ensemble;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::steps::{Estimator, InputSpec, OutputSpec};
use crate::table::{Matrix, Numbers, Table};
use crate::tensor::DataType;

/// A trained model of the library, `lightgbm.Booster`.
///
/// Its `predict` answers as the library's: probabilities of classifiers, values of regressions, `[n]` or
/// `[n, outputs]`; `decision_function` is `raw_score=True`, `apply` is `pred_leaf=True`.
#[derive(Debug)]
pub struct Booster {
    forest: Forest,
    /// Leaves of each tree, where any tree is linear.
    linear: Option<Vec<Leaves>>,
    outputs: usize,
    rounds: usize,
    average: bool,
    objective: Objective,
    columns: Columns,
    input: InputSpec,
    about: About,
}

/// The leaves of a tree in an ensemble that has linear trees.
#[derive(Debug)]
struct Leaves {
    values: Vec<f64>,
    linear: Option<Vec<LinearLeaf>>,
}

/// Facts for people.
#[derive(Clone, Debug)]
pub(super) struct About {
    pub(super) version: String,
    pub(super) objective: String,
    pub(super) leaves: usize,
    pub(super) is_linear: bool,
}

impl Booster {
    /// Checks and lowers a file's model.
    pub(super) fn new(source: Source) -> Result<Self, Fault> {
        let line = source.objective.as_deref().unwrap_or("none");
        let outputs = source.per_round;
        let objective = Objective::parse(line, outputs, source.classes)?;
        let columns = Columns::new(&source)?;
        let is_linear = source.linear.iter().any(Option::is_some);
        let about = About {
            version: source.version.clone(),
            objective: line.split_whitespace().next().unwrap_or("none").to_owned(),
            leaves: source.trees.iter().map(|tree| tree.leaves.len()).sum(),
            is_linear,
        };
        let rounds = source.rounds();
        let ensemble = Ensemble {
            features: source.names.len(),
            outputs,
            vector_leaves: false,
            input: Precision::Double,
            sum: Precision::Double,
            base: vec![0.0; outputs],
            trees: source.trees,
        };
        let forest = Forest::new(&ensemble)
            .map_err(|error| Fault::corrupt(format!("Tree={}", error.tree), error.reason))?;
        let linear = is_linear.then(|| {
            let leaves = ensemble.trees.into_iter().zip(source.linear);
            leaves.map(|(tree, linear)| Leaves { values: tree.leaves, linear }).collect()
        });
        let input = InputSpec {
            columns: Some(source.names.len()),
            names: columns.names().map(<[String]>::to_vec),
            texts: false,
            text_columns: false,
        };
        let average = source.average;
        Ok(Self { forest, linear, outputs, rounds, average, objective, columns, input, about })
    }

    /// Numbers of a raw score: trees of one round.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Number of trees.
    pub fn trees(&self) -> usize {
        self.forest.trees()
    }

    pub(super) fn about(&self) -> &About {
        &self.about
    }

    /// The raw scores of rows, `[rows, outputs]`.
    fn raw(&self, x: &Matrix) -> Vec<f64> {
        match &self.linear {
            Some(leaves) => self.linear_sums(leaves, x),
            None => match ensemble::sums(&self.forest, x) {
                Numbers::F64(sums) => sums,
                Numbers::F32(sums) => sums.into_iter().map(f64::from).collect(),
            },
        }
    }

    /// The sums where leaves are linear functions of the row; trees in order.
    fn linear_sums(&self, leaves: &[Leaves], x: &Matrix) -> Vec<f64> {
        let values = x.to_f64();
        let reached = ensemble::leaves(&self.forest, x);
        let mut sums = vec![0.0; x.rows * self.outputs];
        for (row, sums) in sums.chunks_exact_mut(self.outputs).enumerate() {
            let features = &values[row * x.columns..][..x.columns];
            let reached = &reached[row * leaves.len()..][..leaves.len()];
            for (tree, (leaves, &leaf)) in leaves.iter().zip(reached).enumerate() {
                sums[tree % self.outputs] += leaves.value(leaf as usize, features);
            }
        }
        sums
    }

    /// `[rows]`, or `[rows, outputs]` of several.
    fn answer(&self, rows: usize, values: Vec<f64>) -> Array {
        let shape = if self.outputs == 1 { vec![rows] } else { vec![rows, self.outputs] };
        Array::f64(shape, values)
    }
}

impl Leaves {
    /// The value of a leaf for a row; of a linear one, its constant where a feature is missing.
    fn value(&self, leaf: usize, features: &[f64]) -> f64 {
        let Some(linear) = &self.linear else { return self.values[leaf] };
        let LinearLeaf { constant, terms } = &linear[leaf];
        let mut sum = *constant;
        for &(feature, coefficient) in terms {
            let value = features[feature as usize];
            if value.is_nan() {
                return self.values[leaf];
            }
            sum += coefficient * value;
        }
        sum
    }
}

impl Estimator for Booster {
    fn name(&self) -> String {
        "Booster".into()
    }

    fn input(&self) -> &InputSpec {
        &self.input
    }

    fn methods(&self) -> &[Method] {
        &[Method::Predict, Method::DecisionFunction, Method::Apply]
    }

    fn output_specs(&self, method: Method) -> Vec<OutputSpec> {
        vec![match method {
            Method::Apply => OutputSpec::columns(DataType::Int32, self.trees()),
            _ => OutputSpec::targets(DataType::Fp64, self.outputs),
        }]
    }

    fn predict(&self, x: &Table) -> Result<Array, PredictError> {
        let x = self.columns.rows(x)?;
        let mut scores = self.raw(&x);
        if self.average {
            let rounds = self.rounds as f64;
            scores.iter_mut().for_each(|score| *score /= rounds);
        }
        self.objective.apply(&mut scores, self.outputs);
        Ok(self.answer(x.rows, scores))
    }

    fn decision_function(&self, x: &Table) -> Result<Array, PredictError> {
        let x = self.columns.rows(x)?;
        let scores = self.raw(&x);
        Ok(self.answer(x.rows, scores))
    }

    fn apply(&self, x: &Table) -> Result<Array, PredictError> {
        let x = self.columns.rows(x)?;
        let trees = self.trees();
        let leaves = if trees == 0 { Vec::new() } else { ensemble::leaves(&self.forest, &x) };
        let leaves = leaves.into_iter().map(i64::from).collect();
        Ok(Array::new(DataType::Int32, vec![x.rows, trees], Values::Int(leaves)))
    }
}
