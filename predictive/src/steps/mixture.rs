//! Gaussian mixtures, also with variational weights.

use std::f64::consts::PI;

use crate::array::Array;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::Object;
use crate::steps::numeric::{
    Answer, Base, Points, Rule, broadcast, changed, matrix, normalise_logs, transposed,
};
use crate::steps::special::digamma;
use crate::steps::{Builder, Estimator, Row, math};

/// The inverse of each covariance, as its Cholesky factor.
enum Precisions {
    /// `[columns, columns]` per component, transposed: rows are the factor's columns.
    Full(Vec<f64>),
    /// One for all components.
    Tied(Vec<f64>),
    /// `[components, columns]`.
    Diagonal(Vec<f64>),
    /// One number per component.
    Spherical(Vec<f64>),
}

struct Mixture {
    means: Vec<f64>,
    precisions: Precisions,
    /// Everything of the log-likelihood but the distance, per component, with its log weight.
    constants: Vec<f64>,
}

impl Mixture {
    /// Squared distance of the row from the mean of `component`, in units of its spread.
    fn distance(&self, row: &[f64], component: usize) -> f64 {
        let columns = row.len();
        let mean = &self.means[component * columns..][..columns];
        let gaps = || row.iter().zip(mean).map(|(x, mean)| x - mean);
        let through = |factor: &[f64]| {
            let axis = |axis: &[f64]| gaps().zip(axis).map(|(gap, value)| gap * value).sum::<f64>();
            factor.chunks_exact(columns.max(1)).map(|values| axis(values).powi(2)).sum()
        };
        match &self.precisions {
            Precisions::Full(factors) => {
                let size = columns * columns;
                through(&factors[component * size..][..size])
            }
            Precisions::Tied(factor) => through(factor),
            Precisions::Diagonal(factors) => {
                let own = &factors[component * columns..][..columns];
                gaps().zip(own).map(|(gap, factor)| (gap * factor).powi(2)).sum()
            }
            Precisions::Spherical(factors) => {
                gaps().map(|gap| gap * gap).sum::<f64>() * factors[component].powi(2)
            }
        }
    }

    /// Log-likelihood of each component with its weight, `[rows, components]`.
    fn joint(&self, x: &Points<'_>) -> Vec<f64> {
        x.map(self.constants.len(), |row, answer| {
            for (component, answer) in answer.iter_mut().enumerate() {
                *answer = self.constants[component] - 0.5 * self.distance(row, component);
            }
        })
    }
}

impl Rule for Mixture {
    fn predict(&self, _: &Base, x: &Points<'_>) -> Answer {
        let found = math::argmax_rows(&self.joint(x), self.constants.len());
        Ok(Array::i64(vec![x.rows], found.into_iter().map(|index| index as i64).collect()))
    }

    fn proba(&self, _: &Base, x: &Points<'_>) -> Result<Vec<Array>, PredictError> {
        let mut joint = self.joint(x);
        normalise_logs(x.rows, &mut joint);
        let logs = Array::f64(vec![x.rows, self.constants.len()], joint);
        Ok(vec![changed(&logs, f64::exp)])
    }

    fn scores(&self, _: &Base, x: &Points<'_>) -> Answer {
        let joint = self.joint(x);
        let scores = joint.chunks_exact(self.constants.len()).map(math::log_sum_exp).collect();
        Ok(Array::f64(vec![x.rows], scores))
    }
}

/// The factors, and the logarithm of each one's determinant.
fn precisions(
    object: Object<'_>,
    count: usize,
    columns: usize,
) -> Result<(Precisions, Vec<f64>), Fault> {
    let name = "precisions_cholesky_";
    let (shape, values) = object.numbers(name)?;
    let kind = object.str("covariance_type")?;
    let expected: &[usize] = match kind {
        "full" => &[count, columns, columns],
        "tied" => &[columns, columns],
        "diag" => &[count, columns],
        "spherical" => &[count],
        other => return Err(object.wrong("covariance_type", format!("{other:?} is not known"))),
    };
    if shape != expected {
        return Err(object.wrong(name, format!("expected shape {expected:?}, found {shape:?}")));
    }
    let diagonal = |factor: &[f64]| -> f64 {
        factor.iter().step_by(columns + 1).map(|value| value.ln()).sum()
    };
    let size = (columns * columns).max(1);
    Ok(match kind {
        "full" => {
            let logs = values.chunks_exact(size).map(diagonal).collect();
            let turn = |factor| transposed(columns, columns, factor);
            (Precisions::Full(values.chunks_exact(size).flat_map(turn).collect()), logs)
        }
        "tied" => {
            let logs = vec![diagonal(&values); count];
            (Precisions::Tied(transposed(columns, columns, &values)), logs)
        }
        "diag" => {
            let log = |row: &[f64]| row.iter().map(|value| value.ln()).sum();
            let logs = values.chunks_exact(columns.max(1)).map(log).collect();
            (Precisions::Diagonal(values), logs)
        }
        _ => {
            let logs = values.iter().map(|value| columns as f64 * value.ln()).collect();
            (Precisions::Spherical(values), logs)
        }
    })
}

fn mixture(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let methods = [Method::Predict, Method::PredictProba, Method::ScoreSamples];
    let mut base = Base::new(object, &methods)?;
    let (count, columns, means) = matrix(object, "means_")?;
    base.columns(object, "means_", columns)?;
    base.precision(object, "means_");
    if count == 0 {
        return Err(object.wrong("means_", "has no row"));
    }
    let (precisions, mut constants) = precisions(object, count, columns)?;
    let common = -0.5 * columns as f64 * (2.0 * PI).ln();
    constants.iter_mut().for_each(|constant| *constant += common);
    let more = match object.class {
        "BayesianGaussianMixture" => variational(object, count, columns)?,
        _ => object.vector("weights_", Some(count))?.into_iter().map(f64::ln).collect(),
    };
    constants.iter_mut().zip(more).for_each(|(constant, more)| *constant += more);
    Ok(base.with(Mixture { means, precisions, constants }))
}

/// Expected log weights and the corrections of a variational mixture, per component.
fn variational(object: Object<'_>, count: usize, columns: usize) -> Result<Vec<f64>, Fault> {
    // One for all where they share a covariance.
    let freedom = broadcast(object, "degrees_of_freedom_", count)?;
    let precision = object.vector("mean_precision_", Some(count))?;
    let name = "weight_concentration_";
    let mut logs = match object.str("weight_concentration_prior_type")? {
        "dirichlet_distribution" => {
            let concentration = object.vector(name, Some(count))?;
            let total = digamma(concentration.iter().sum());
            concentration.into_iter().map(|value| digamma(value) - total).collect()
        }
        _ => stick_breaking(object, name, count)?,
    };
    let wide = columns as f64;
    for (index, log) in logs.iter_mut().enumerate() {
        let parts = (0..columns).map(|column| digamma(0.5 * (freedom[index] - column as f64)));
        let spread = wide * 2f64.ln() + parts.sum::<f64>();
        *log += 0.5 * (spread - wide / precision[index]) - 0.5 * wide * freedom[index].ln();
    }
    Ok(logs)
}

/// Expected log weights of a Dirichlet process.
fn stick_breaking(object: Object<'_>, name: &str, count: usize) -> Result<Vec<f64>, Fault> {
    let parts = object.list(name)?;
    let numbers: Option<Vec<Vec<f64>>> = parts
        .into_iter()
        .map(|value| value.as_array().and_then(Array::to_f64).filter(|row| row.len() == count))
        .collect();
    let Some([a, b]) = numbers.as_deref() else {
        return Err(object.wrong(name, format!("expected two arrays of {count} numbers")));
    };
    let mut rest = 0.0;
    let log = |(a, b): (&f64, &f64)| {
        let sum = digamma(a + b);
        let log = digamma(*a) - sum + rest;
        rest += digamma(*b) - sum;
        log
    };
    Ok(a.iter().zip(b).map(log).collect())
}

/// Mixtures.
pub(crate) static ESTIMATORS: &[Row] = &[
    Row { class: "BayesianGaussianMixture", build: mixture },
    Row { class: "GaussianMixture", build: mixture },
];
