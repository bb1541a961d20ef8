//! Linear classifiers: labels by the sign or the greatest of `D`, probabilities by the loss they were fitted with.

use crate::array::Array;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::Object;
use crate::steps::linear::Linear;
use crate::steps::numeric::{Answer, Base, Points, Rule, best, pairs, shaped};
use crate::steps::{Builder, Estimator, Row, input, math};

/// How decision values become probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probabilities {
    /// Not at all.
    None,
    /// Logistic; one versus rest divides by the sum.
    Logistic,
    /// Multinomial.
    Softmax,
    /// `(clip(D, -1, 1) + 1) / 2`; one versus rest divides by the sum.
    ModifiedHuber,
}

struct Classifier {
    linear: Linear,
    probabilities: Probabilities,
    /// One truth value per column of `D` instead of one label.
    multilabel: bool,
}

impl Rule for Classifier {
    fn predict(&self, base: &Base, x: &Points<'_>) -> Answer {
        let scores = self.linear.decide(x);
        if self.multilabel {
            let labels = scores.iter().map(|&score| i64::from(score > 0.0)).collect();
            return Ok(Array::i64(vec![x.rows, self.linear.outputs()], labels));
        }
        if self.linear.outputs() > 1 {
            return Ok(best(base.labels(), x.rows, &scores));
        }
        let indices: Vec<usize> = scores.iter().map(|&score| usize::from(score > 0.0)).collect();
        Ok(base.labels().take(vec![x.rows], &indices))
    }

    fn decision(&self, _: &Base, x: &Points<'_>) -> Answer {
        Ok(shaped(x.rows, self.linear.outputs(), !self.multilabel, self.linear.decide(x)))
    }

    fn proba(&self, base: &Base, x: &Points<'_>) -> Result<Vec<Array>, PredictError> {
        let (scores, binary) = (self.linear.decide(x), self.linear.outputs() == 1);
        let classes = base.labels().len();
        let values = match (self.probabilities, binary) {
            (Probabilities::Softmax, true) => pairs(scores.iter().map(|d| math::expit(2.0 * d))),
            (Probabilities::Softmax, false) => {
                let mut values = scores;
                values.chunks_exact_mut(classes).for_each(math::softmax);
                values
            }
            (Probabilities::ModifiedHuber, true) => pairs(scores.into_iter().map(clipped)),
            (Probabilities::ModifiedHuber, false) => shares(scores, classes, clipped),
            (_, true) => pairs(scores.into_iter().map(math::expit)),
            (_, false) => shares(scores, classes, math::expit),
        };
        Ok(vec![Array::f64(vec![x.rows, classes], values)])
    }
}

fn clipped(score: f64) -> f64 {
    (score.clamp(-1.0, 1.0) + 1.0) / 2.0
}

/// One probability per class on its own, divided by their sum; uniform where all are zero.
fn shares(mut scores: Vec<f64>, classes: usize, probability: impl Fn(f64) -> f64) -> Vec<f64> {
    scores.iter_mut().for_each(|score| *score = probability(*score));
    for row in scores.chunks_exact_mut(classes) {
        if row.iter().all(|&value| value == 0.0) {
            row.fill(1.0);
        }
        math::normalise(row);
    }
    scores
}

/// What `LogisticRegression` was fitted as: `multi_class` decided until 1.8.
fn logistic(object: Object<'_>, binary: bool) -> Result<Probabilities, Fault> {
    let solver = object.get("solver").and_then(|value| value.as_str()).unwrap_or("lbfgs");
    // newton-cholesky learnt the multinomial loss in 1.6.
    let old = object.version().is_none_or(|version| version < (1, 6));
    let rest = binary || solver == "liblinear" || (solver == "newton-cholesky" && old);
    let ovr = match object.get("multi_class").and_then(|value| value.as_str()) {
        Some("ovr" | "warn") => true,
        Some("multinomial") => false,
        Some("auto" | "deprecated") | None => rest,
        Some(other) => {
            let reason = format!("{other:?} is none of auto, ovr and multinomial");
            return Err(object.wrong("multi_class", reason));
        }
    };
    Ok(if ovr { Probabilities::Logistic } else { Probabilities::Softmax })
}

fn probabilities(object: Object<'_>, binary: bool) -> Result<Probabilities, Fault> {
    Ok(match object.class {
        "LogisticRegression" | "LogisticRegressionCV" => logistic(object, binary)?,
        "SGDClassifier" => match object.str("loss")? {
            "log_loss" | "log" => Probabilities::Logistic,
            "modified_huber" => Probabilities::ModifiedHuber,
            _ => Probabilities::None,
        },
        _ => Probabilities::None,
    })
}

fn classifier(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let ridge = object.class.starts_with("RidgeClassifier");
    let holder = if ridge { object.object("_label_binarizer")? } else { object };
    let multilabel = ridge && holder.str("y_type_")?.starts_with("multilabel");
    let classes = input::labels(holder, "classes_")?;
    let mut base = Base::new(object, &[Method::Predict, Method::DecisionFunction])?;
    let linear = Linear::read(object, &mut base)?;
    let expected = if multilabel { classes.len() } else { one_or_all(classes.len()) };
    if linear.outputs() != expected || classes.len() < 2 {
        let (outputs, classes) = (linear.outputs(), classes.len());
        let reason = format!("has {outputs} rows for {classes} classes, expected {expected}");
        return Err(object.wrong("coef_", reason));
    }
    let probabilities = probabilities(object, linear.outputs() == 1)?;
    if probabilities != Probabilities::None {
        base.methods.extend([Method::PredictProba, Method::PredictLogProba]);
    }
    if !multilabel {
        base.classes = vec![classes];
    }
    Ok(base.with(Classifier { linear, probabilities, multilabel }))
}

/// Rows of `coef_` for a number of classes: two share one.
fn one_or_all(classes: usize) -> usize {
    if classes == 2 { 1 } else { classes }
}

const fn row(class: &'static str) -> Row {
    Row { class, build: classifier }
}

/// Linear classifiers.
pub(crate) static CLASSIFIERS: &[Row] = &[
    row("LinearSVC"),
    row("LogisticRegression"),
    row("LogisticRegressionCV"),
    row("PassiveAggressiveClassifier"),
    row("Perceptron"),
    row("RidgeClassifier"),
    row("RidgeClassifierCV"),
    row("SGDClassifier"),
];
