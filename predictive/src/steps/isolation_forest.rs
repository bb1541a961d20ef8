//! Isolation forest: how few splits isolate a row.

use tokenmill_kernels::trees::Forest;

use crate::array::Array;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::Object;
use crate::steps::forest::{read_trees, sums};
use crate::steps::input::{self, Nan};
use crate::steps::{Builder, Estimator, InputSpec, OutputSpec, Row, tree_data};
use crate::table::Table;
use crate::tensor::DataType;

/// The isolation forest.
pub(crate) static ESTIMATORS: &[Row] = &[Row { class: "IsolationForest", build }];

/// A fitted forest whose leaves hold expected path lengths.
struct IsolationForest {
    spec: InputSpec,
    nan: Nan,
    forest: Forest,
    /// What the sum of path lengths is divided by: their expectation, times the trees.
    expected: f64,
    offset: f64,
}

/// Euler's constant as numpy has it.
const EULER: f64 = 0.577_215_664_901_532_9;

/// Average path length of an unsuccessful search among `count` rows.
fn average_path(count: f64) -> f64 {
    match count {
        ..=1.0 => 0.0,
        2.0 => 1.0,
        _ => 2.0 * ((count - 1.0).ln() + EULER) - 2.0 * (count - 1.0) / count,
    }
}

fn build(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut trees = read_trees(object)?;
    let spec = input::spec(object)?;
    let columns = spec.columns.unwrap_or(trees[0].1.features);
    let subsets = object.list("estimators_features_")?;
    if subsets.len() != trees.len() {
        let reason = format!("expected one list of columns for each of {} trees", trees.len());
        return Err(object.wrong("estimators_features_", reason));
    }
    let mut kernel_trees = Vec::with_capacity(trees.len());
    for ((_, tree), subset) in trees.iter_mut().zip(subsets) {
        let subset = input::indices(subset, columns)
            .filter(|subset| subset.len() == tree.features)
            .ok_or_else(|| {
                let reason = format!("expected {} columns below {columns}", tree.features);
                object.wrong("estimators_features_", reason)
            })?;
        for split in &mut tree.splits {
            split.feature = subset[split.feature as usize] as u32;
        }
        let length = |(&path, &samples)| f64::from(path) + average_path(samples) - 1.0;
        let lengths = tree.path.iter().zip(&tree.samples).map(length).collect();
        kernel_trees.push(tree.take_tree(lengths, 0));
    }
    let sampled = match object.some("_max_samples") {
        Some(_) => object.f64("_max_samples")?,
        None => object.f64("max_samples_")?,
    };
    let is_new = object.version().is_some_and(|version| version >= (1, 6));
    Ok(Box::new(IsolationForest {
        spec: InputSpec { columns: Some(columns), ..spec },
        nan: if is_new { Nan::Any } else { Nan::Refuse },
        expected: kernel_trees.len() as f64 * average_path(sampled),
        forest: tree_data::forest(columns, vec![0.0], false, kernel_trees)?,
        offset: object.f64("offset_")?,
    }))
}

impl IsolationForest {
    fn scores(&self, x: &Table) -> Result<Vec<f64>, PredictError> {
        let x = input::single(x, &self.spec, self.nan)?;
        let score = |length: f64| {
            let ratio = if self.expected == 0.0 { 1.0 } else { length / self.expected };
            -(-ratio).exp2()
        };
        Ok(sums(&self.forest, &x).into_iter().map(score).collect())
    }
}

impl Estimator for IsolationForest {
    fn name(&self) -> String {
        "IsolationForest".into()
    }

    fn input(&self) -> &InputSpec {
        &self.spec
    }

    fn methods(&self) -> &[Method] {
        &[Method::Predict, Method::DecisionFunction, Method::ScoreSamples]
    }

    fn output_specs(&self, method: Method) -> Vec<OutputSpec> {
        vec![OutputSpec::values(match method {
            Method::Predict => DataType::Int64,
            _ => DataType::Fp64,
        })]
    }

    fn predict(&self, x: &Table) -> Result<Array, PredictError> {
        let scores = self.scores(x)?;
        let side = |score: &f64| if score - self.offset < 0.0 { -1 } else { 1 };
        Ok(Array::i64(vec![scores.len()], scores.iter().map(side).collect()))
    }

    fn decision_function(&self, x: &Table) -> Result<Array, PredictError> {
        let scores = self.scores(x)?;
        let shifted = scores.iter().map(|score| score - self.offset).collect();
        Ok(Array::f64(vec![scores.len()], shifted))
    }

    fn score_samples(&self, x: &Table) -> Result<Array, PredictError> {
        let scores = self.scores(x)?;
        Ok(Array::f64(vec![scores.len()], scores))
    }
}
