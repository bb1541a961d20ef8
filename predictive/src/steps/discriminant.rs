//! Linear and quadratic discriminant analysis.

use crate::array::Array;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::{Object, Value};
use crate::steps::linear::Linear;
use crate::steps::neighbors::binary_or_all;
use crate::steps::numeric::{
    Answer, Base, Points, Rule, best, changed, dot, matrix, normalise_logs, pairs, shaped,
    transposed,
};
use crate::steps::{Builder, Estimator, Row, math};

/// Linear discriminant analysis.
struct LinearDiscriminant {
    linear: Linear,
    transform: Option<Scaling>,
}

/// `(X - mean) . scalings`, with `scalings` as `[components, columns]`.
struct Scaling {
    mean: Vec<f64>,
    weights: Vec<f64>,
    components: usize,
}

impl Rule for LinearDiscriminant {
    fn predict(&self, base: &Base, x: &Points<'_>) -> Answer {
        let scores = self.linear.decide(x);
        if self.linear.outputs() > 1 {
            return Ok(best(base.labels(), x.rows, &scores));
        }
        let indices: Vec<usize> = scores.iter().map(|&score| usize::from(score > 0.0)).collect();
        Ok(base.labels().take(vec![x.rows], &indices))
    }

    fn decision(&self, _: &Base, x: &Points<'_>) -> Answer {
        Ok(shaped(x.rows, self.linear.outputs(), true, self.linear.decide(x)))
    }

    fn proba(&self, base: &Base, x: &Points<'_>) -> Result<Vec<Array>, PredictError> {
        let (mut scores, classes) = (self.linear.decide(x), base.labels().len());
        if self.linear.outputs() == 1 {
            scores = pairs(scores.into_iter().map(math::expit));
        } else {
            scores.chunks_exact_mut(classes).for_each(math::softmax);
        }
        Ok(vec![Array::f64(vec![x.rows, classes], scores)])
    }

    fn log_proba(&self, base: &Base, x: &Points<'_>) -> Result<Vec<Array>, PredictError> {
        // The smallest normal number stands for zero.
        let log = |p: f64| if p == 0.0 { f64::MIN_POSITIVE.ln() } else { p.ln() };
        Ok(self.proba(base, x)?.iter().map(|array| changed(array, log)).collect())
    }

    fn transform(&self, base: &Base, x: &Points<'_>) -> Answer {
        let Some(scaling) = &self.transform else {
            return Err(PredictError::Internal(format!("{} has no scalings", base.name)));
        };
        let values = x.map(scaling.components, |row, answer| {
            let centred: Vec<f64> =
                row.iter().zip(&scaling.mean).map(|(x, mean)| x - mean).collect();
            for (component, answer) in answer.iter_mut().enumerate() {
                *answer = dot(&centred, &scaling.weights[component * row.len()..][..row.len()]);
            }
        });
        Ok(Array::f64(vec![x.rows, scaling.components], values))
    }
}

fn linear(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let methods =
        [Method::Predict, Method::PredictProba, Method::PredictLogProba, Method::DecisionFunction];
    let mut base = Base::classifier(object, &methods)?;
    let linear = Linear::read(object, &mut base)?;
    let classes = base.labels().len();
    if linear.outputs() != if classes == 2 { 1 } else { classes } {
        let reason = format!("has {} rows for {classes} classes", linear.outputs());
        return Err(object.wrong("coef_", reason));
    }
    let solver = object.str("solver")?;
    let transform = match solver {
        "lsqr" => None,
        "svd" | "eigen" => Some(scaling(object, &base, solver)?),
        other => return Err(object.wrong("solver", format!("{other:?} is not known"))),
    };
    if transform.is_some() {
        base.methods.push(Method::Transform);
    }
    Ok(base.with(LinearDiscriminant { linear, transform }))
}

fn scaling(object: Object<'_>, base: &Base, solver: &str) -> Result<Scaling, Fault> {
    let (columns, found, scalings) = matrix(object, "scalings_")?;
    let expected = base.input.columns.unwrap_or(columns);
    if columns != expected {
        return Err(object.wrong("scalings_", format!("{columns} rows, expected {expected}")));
    }
    let mean = match solver {
        "svd" => object.vector("xbar_", Some(columns))?,
        _ => vec![0.0; columns],
    };
    let components = object.usize("_max_components")?.min(found);
    let weights = transposed(columns, found, &scalings);
    Ok(Scaling { mean, weights, components })
}

/// Quadratic discriminant analysis: of each class its mean, the constant of its score, and rotations divided by the
/// root of their scalings, `[axes, columns]`.
struct Quadratic {
    classes: Vec<Gaussian>,
}

struct Gaussian {
    mean: Vec<f64>,
    axes: Vec<f64>,
    constant: f64,
}

impl Quadratic {
    fn scores(&self, x: &Points<'_>) -> Vec<f64> {
        x.map(self.classes.len(), |row, answer| {
            for (class, answer) in self.classes.iter().zip(answer) {
                let centred: Vec<f64> = row.iter().zip(&class.mean).map(|(x, m)| x - m).collect();
                let axes = class.axes.chunks_exact(row.len().max(1));
                let norm: f64 = axes.map(|axis| dot(axis, &centred).powi(2)).sum();
                *answer = class.constant - 0.5 * norm;
            }
        })
    }
}

impl Rule for Quadratic {
    fn predict(&self, base: &Base, x: &Points<'_>) -> Answer {
        Ok(best(base.labels(), x.rows, &self.scores(x)))
    }

    fn decision(&self, _: &Base, x: &Points<'_>) -> Answer {
        Ok(binary_or_all(self.scores(x), x.rows, self.classes.len()))
    }

    fn proba(&self, base: &Base, x: &Points<'_>) -> Result<Vec<Array>, PredictError> {
        Ok(self.log_proba(base, x)?.iter().map(|array| changed(array, f64::exp)).collect())
    }

    fn log_proba(&self, _: &Base, x: &Points<'_>) -> Result<Vec<Array>, PredictError> {
        let mut scores = self.scores(x);
        normalise_logs(x.rows, &mut scores);
        Ok(vec![Array::f64(vec![x.rows, self.classes.len()], scores)])
    }
}

fn quadratic(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let methods =
        [Method::Predict, Method::PredictProba, Method::PredictLogProba, Method::DecisionFunction];
    let mut base = Base::classifier(object, &methods)?;
    let count = base.labels().len();
    let (rows, columns, means) = matrix(object, "means_")?;
    base.columns(object, "means_", columns)?;
    let (scalings, rotations) = (object.list("scalings_")?, object.list("rotations_")?);
    if rows != count || scalings.len() != count || rotations.len() != count {
        return Err(object.wrong("means_", format!("does not fit {count} classes")));
    }
    let priors = object.vector("priors_", Some(count))?;
    let mut classes = Vec::new();
    for (index, (scaling, rotation)) in scalings.into_iter().zip(rotations).enumerate() {
        let wrong = || object.wrong("rotations_", format!("class {index} does not fit scalings_"));
        let numbers = |value: Value<'_>| value.as_array().and_then(Array::to_f64);
        let (scaling, values) = numbers(scaling).zip(numbers(rotation)).ok_or_else(wrong)?;
        if rotation.shape() != Some(vec![columns, scaling.len()]) {
            return Err(wrong());
        }
        let mut axes = transposed(columns, scaling.len(), &values);
        for (axis, scale) in axes.chunks_exact_mut(columns.max(1)).zip(&scaling) {
            axis.iter_mut().for_each(|value| *value *= scale.powf(-0.5));
        }
        let spread: f64 = scaling.iter().map(|scale| scale.ln()).sum();
        let constant = priors[index].ln() - 0.5 * spread;
        let mean = means[index * columns..][..columns].to_vec();
        classes.push(Gaussian { mean, axes, constant });
    }
    Ok(base.with(Quadratic { classes }))
}

/// Discriminant analysis.
pub(crate) static ESTIMATORS: &[Row] = &[
    Row { class: "LinearDiscriminantAnalysis", build: linear },
    Row { class: "QuadraticDiscriminantAnalysis", build: quadratic },
];
