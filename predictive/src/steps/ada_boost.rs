//! AdaBoost: weighted votes of classifiers, weighted medians of regressors.

use crate::array::Array;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::{Object, Value};
use crate::steps::input::{self, Nan};
use crate::steps::meta::{column, numbers, one, read_estimators};
use crate::steps::{Builder, Estimator, InputSpec, Row, labels, math, tree};
use crate::table::Table;

/// AdaBoost.
pub(crate) static ESTIMATORS: &[Row] = &[
    Row { class: "AdaBoostClassifier", build: build_classifier },
    Row { class: "AdaBoostRegressor", build: build_regressor },
];

/// What classifiers give to the sum.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Vote {
    /// The weight for the class they predict, this share of it for the others.
    Label { other: f64 },
    /// Logarithms of their probabilities (SAMME.R).
    Proba,
}

/// A fitted classifier.
struct Classifier {
    spec: InputSpec,
    estimators: Vec<Box<dyn Estimator>>,
    weights: Vec<f64>,
    classes: Array,
    vote: Vote,
}

/// A fitted regressor.
struct Regressor {
    spec: InputSpec,
    estimators: Vec<Box<dyn Estimator>>,
    weights: Vec<f64>,
}

/// At least as many weights as there are estimators.
fn read_weights(object: Object<'_>, estimators: usize) -> Result<Vec<f64>, Fault> {
    let weights = object.vector("estimator_weights_", None)?;
    if weights.len() < estimators {
        let reason = format!("{} weights of {estimators} estimators", weights.len());
        return Err(object.wrong("estimator_weights_", reason));
    }
    Ok(weights)
}

fn build_classifier(object: Object<'_>, builder: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let estimators = read_estimators(object, "estimators_", builder)?;
    let weights = read_weights(object, estimators.len())?;
    let classes = input::labels(object, "classes_")?;
    if classes.len() < 2 {
        return Err(object.wrong("classes_", "expected at least two classes"));
    }
    let algorithm = object.get("algorithm").and_then(Value::as_str).unwrap_or("SAMME");
    let version = object.version().unwrap_or((0, 0));
    let vote = match algorithm {
        "SAMME.R" => Vote::Proba,
        _ if version >= (1, 3) => Vote::Label { other: -1.0 / (classes.len() - 1) as f64 },
        _ => Vote::Label { other: 0.0 },
    };
    if vote == Vote::Proba {
        for estimator in &estimators {
            let found = estimator.classes().first().map_or(0, Array::len);
            if found != classes.len() {
                let reason = format!("has {found} classes, not {}", classes.len());
                return Err(object.wrong("estimators_", reason));
            }
        }
    }
    Ok(Box::new(Classifier { spec: input::spec(object)?, estimators, weights, classes, vote }))
}

fn build_regressor(object: Object<'_>, builder: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let estimators = read_estimators(object, "estimators_", builder)?;
    let weights = read_weights(object, estimators.len())?;
    Ok(Box::new(Regressor { spec: input::spec(object)?, estimators, weights }))
}

impl Classifier {
    /// `[rows, classes]`.
    fn sums(&self, x: &Table) -> Result<Vec<f64>, PredictError> {
        let classes = self.classes.len();
        let x = Table::Dense(input::dense(x, &self.spec, Nan::Refuse)?.into_owned());
        let mut sums = vec![0.0; x.rows() * classes];
        for (estimator, &weight) in self.estimators.iter().zip(&self.weights) {
            match self.vote {
                Vote::Label { other } => {
                    let labels = estimator.predict(&x)?;
                    let positions = labels::positions(&self.classes, &labels);
                    for (row, position) in sums.chunks_exact_mut(classes).zip(positions) {
                        for (class, sum) in row.iter_mut().enumerate() {
                            let hit = position == Some(class);
                            *sum += if hit { weight } else { other * weight };
                        }
                    }
                }
                Vote::Proba => {
                    let proba = numbers(one(estimator.predict_proba(&x)?)?, x.rows(), classes)?;
                    let rows = proba.chunks_exact(classes);
                    for (row, proba) in sums.chunks_exact_mut(classes).zip(rows) {
                        add_logs(row, proba);
                    }
                }
            }
        }
        let total: f64 = self.weights.iter().sum();
        sums.iter_mut().for_each(|sum| *sum /= total);
        Ok(sums)
    }

    /// Decision values: `[rows]` for two classes, `[rows, classes]` for more.
    fn decision(&self, x: &Table) -> Result<Vec<f64>, PredictError> {
        let sums = self.sums(x)?;
        Ok(match self.classes.len() {
            2 => sums.chunks_exact(2).map(|row| row[1] - row[0]).collect(),
            _ => sums,
        })
    }
}

/// Adds what SAMME.R makes of a row of probabilities.
fn add_logs(row: &mut [f64], proba: &[f64]) {
    let classes = proba.len() as f64;
    let logs: Vec<f64> = proba.iter().map(|&p| p.max(f64::EPSILON).ln()).collect();
    let mean = (1.0 / classes) * logs.iter().sum::<f64>();
    row.iter_mut().zip(logs).for_each(|(sum, log)| *sum += (classes - 1.0) * (log - mean));
}

impl Estimator for Classifier {
    fn name(&self) -> String {
        "AdaBoostClassifier".into()
    }

    fn input(&self) -> &InputSpec {
        &self.spec
    }

    fn methods(&self) -> &[Method] {
        &[Method::Predict, Method::PredictProba, Method::PredictLogProba, Method::DecisionFunction]
    }

    fn classes(&self) -> &[Array] {
        std::slice::from_ref(&self.classes)
    }

    fn predict(&self, x: &Table) -> Result<Array, PredictError> {
        let decision = self.decision(x)?;
        let indices: Vec<usize> = match self.classes.len() {
            2 => decision.iter().map(|&value| usize::from(value > 0.0)).collect(),
            classes => math::argmax_rows(&decision, classes),
        };
        Ok(self.classes.take(vec![indices.len()], &indices))
    }

    fn predict_proba(&self, x: &Table) -> Result<Vec<Array>, PredictError> {
        let decision = self.decision(x)?;
        let classes = self.classes.len();
        let mut proba: Vec<f64> = match classes {
            2 => decision.into_iter().flat_map(|value| [-value / 2.0, value / 2.0]).collect(),
            _ => decision.into_iter().map(|value| value / (classes - 1) as f64).collect(),
        };
        proba.chunks_exact_mut(classes).for_each(math::softmax);
        Ok(vec![Array::f64(vec![x.rows(), classes], proba)])
    }

    fn decision_function(&self, x: &Table) -> Result<Array, PredictError> {
        let decision = self.decision(x)?;
        let width = if self.classes.len() == 2 { 1 } else { self.classes.len() };
        Ok(tree::values_array(x.rows(), width, decision))
    }
}

impl Estimator for Regressor {
    fn name(&self) -> String {
        "AdaBoostRegressor".into()
    }

    fn input(&self) -> &InputSpec {
        &self.spec
    }

    fn methods(&self) -> &[Method] {
        &[Method::Predict]
    }

    fn predict(&self, x: &Table) -> Result<Array, PredictError> {
        let x = Table::Dense(input::dense(x, &self.spec, Nan::Refuse)?.into_owned());
        let mut answers = Vec::with_capacity(self.estimators.len());
        for estimator in &self.estimators {
            answers.push(column(&estimator.predict(&x)?, x.rows())?);
        }
        let median = |row: usize| {
            let mut order: Vec<usize> = (0..answers.len()).collect();
            order.sort_by(|&a, &b| answers[a][row].total_cmp(&answers[b][row]));
            let total = order.iter().fold(0.0, |sum, &index| sum + self.weights[index]);
            let mut sum = 0.0;
            let reached = order.iter().find(|&&index| {
                sum += self.weights[index];
                sum >= 0.5 * total
            });
            reached.map_or(f64::NAN, |&index| answers[index][row])
        };
        Ok(Array::f64(vec![x.rows()], (0..x.rows()).map(median).collect()))
    }
}
