//! Nearest centroid; from 1.6 on also with priors and probabilities.

use crate::array::Array;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::Object;
use crate::steps::numeric::{Answer, Base, Points, Rule, best, changed, matrix, normalise_logs};
use crate::steps::pairwise::{Metric, against};
use crate::steps::{Builder, Estimator, Row};

/// Centroids, one per class.
struct Centroids {
    metric: Metric,
    values: Vec<f64>,
    discriminant: Option<Discriminant>,
}

/// Scores of 1.6 and later: `2 ln(prior) - distance^2` of rows divided by deviations.
struct Discriminant {
    deviations: Vec<f64>,
    priors: Vec<f64>,
    /// All classes are as probable: the nearest wins without the scores.
    even: bool,
}

impl Centroids {
    /// Minus the distance, or the discriminant scores: `[rows, classes]`.
    fn nearness(&self, x: &Points<'_>, classes: usize) -> Vec<f64> {
        x.map(classes, |row, answer| {
            against(row, &self.values, answer, |a, b| -self.metric.distance(a, b));
        })
    }

    fn scores(&self, found: &Discriminant, x: &Points<'_>) -> Vec<f64> {
        let classes = found.priors.len();
        let scale = |row: &[f64]| {
            let divide = |(value, deviation): (&f64, &f64)| value / deviation;
            row.iter().zip(&found.deviations).map(divide).collect::<Vec<f64>>()
        };
        let centroids: Vec<f64> =
            self.values.chunks_exact(found.deviations.len().max(1)).flat_map(scale).collect();
        x.map(classes, |row, answer| {
            against(&scale(row), &centroids, answer, |a, b| self.metric.distance(a, b));
            for (value, prior) in answer.iter_mut().zip(&found.priors) {
                *value = -(*value * *value) + 2.0 * prior.ln();
            }
        })
    }

    fn found(&self, base: &Base) -> Result<&Discriminant, PredictError> {
        let lacks = || PredictError::Internal(format!("{} has no scores", base.name));
        self.discriminant.as_ref().ok_or_else(lacks)
    }
}

impl Rule for Centroids {
    fn predict(&self, base: &Base, x: &Points<'_>) -> Answer {
        let scores = match &self.discriminant {
            Some(found) if !found.even => self.scores(found, x),
            _ => self.nearness(x, base.labels().len()),
        };
        Ok(best(base.labels(), x.rows, &scores))
    }

    fn decision(&self, base: &Base, x: &Points<'_>) -> Answer {
        let scores = self.scores(self.found(base)?, x);
        Ok(binary_or_all(scores, x.rows, base.labels().len()))
    }

    fn proba(&self, base: &Base, x: &Points<'_>) -> Result<Vec<Array>, PredictError> {
        Ok(self.log_proba(base, x)?.iter().map(|array| changed(array, f64::exp)).collect())
    }

    fn log_proba(&self, base: &Base, x: &Points<'_>) -> Result<Vec<Array>, PredictError> {
        let mut scores = self.scores(self.found(base)?, x);
        normalise_logs(x.rows, &mut scores);
        Ok(vec![Array::f64(vec![x.rows, base.labels().len()], scores)])
    }
}

/// Scores per class, or of two classes the difference.
pub(crate) fn binary_or_all(scores: Vec<f64>, rows: usize, classes: usize) -> Array {
    if classes != 2 {
        return Array::f64(vec![rows, classes], scores);
    }
    Array::f64(vec![rows], scores.chunks_exact(2).map(|pair| pair[1] - pair[0]).collect())
}

fn centroid(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = Base::classifier(object, &[Method::Predict])?;
    let classes = base.labels().len();
    let (rows, columns, values) = matrix(object, "centroids_")?;
    base.columns(object, "centroids_", columns)?;
    if rows != classes {
        return Err(object.wrong("centroids_", format!("{rows} rows for {classes} classes")));
    }
    let name = object.str("metric")?;
    let Some(metric) = Metric::of(name, None) else {
        let reason = format!("NearestCentroid.metric: {name} is not supported");
        return Err(Fault::unsupported(reason));
    };
    let discriminant = match object.some("class_prior_") {
        None => None,
        Some(_) => {
            let priors = object.vector("class_prior_", Some(classes))?;
            let even = 1.0 / classes as f64;
            let near = |prior: &f64| (prior - even).abs() <= 1e-8 + 1e-5 * even.abs();
            let even = priors.iter().all(near);
            let mut deviations = object.vector("within_class_std_dev_", Some(columns))?;
            // Columns without deviation are not divided.
            deviations.iter_mut().filter(|value| **value == 0.0).for_each(|value| *value = 1.0);
            Some(Discriminant { deviations, priors, even })
        }
    };
    if discriminant.is_some() && metric == Metric::Euclidean {
        let more = [Method::PredictProba, Method::PredictLogProba, Method::DecisionFunction];
        base.methods.extend(more);
    }
    Ok(base.with(Centroids { metric, values, discriminant }))
}

/// Nearest centroid.
pub(crate) static CENTROID: &[Row] = &[Row { class: "NearestCentroid", build: centroid }];
