//! Gaussian processes: means of the posterior for regression, the Laplace approximation for classification.

mod kernels;

use std::f64::consts::PI;

use crate::array::Array;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::Object;
use crate::steps::numeric::{
    Answer, Base, Points, Rule, best, broadcast, dot, matrix, pairs, shaped, transposed,
};
use crate::steps::pairwise::{Kernel, against};
use crate::steps::special::erf;
use crate::steps::{Builder, Estimator, Row, math};

use kernels::Covariance;

/// Training rows, `[count, columns]`.
struct Training {
    rows: Vec<f64>,
    count: usize,
}

impl Training {
    fn read(object: Object<'_>, name: &str, base: &mut Base) -> Result<Self, Fault> {
        let (count, columns, rows) = matrix(object, name)?;
        base.columns(object, name, columns)?;
        Ok(Self { rows, count })
    }

    fn covariances(&self, row: &[f64], kernel: &impl Fn(&[f64], &[f64]) -> f64) -> Vec<f64> {
        let mut values = vec![0.0; self.count];
        against(row, &self.rows, &mut values, kernel);
        values
    }
}

/// `kernel(X, training) . duals`, scaled and shifted per output.
struct Regressor<K> {
    training: Training,
    kernel: K,
    /// `[outputs, count]`.
    duals: Vec<f64>,
    scales: Vec<f64>,
    means: Vec<f64>,
    flat: bool,
}

impl<K: Fn(&[f64], &[f64]) -> f64 + Send + Sync> Rule for Regressor<K> {
    fn predict(&self, _: &Base, x: &Points<'_>) -> Answer {
        let (outputs, count) = (self.means.len(), self.training.count);
        let values = x.map(outputs, |row, answer| {
            let covariances = self.training.covariances(row, &self.kernel);
            for (output, answer) in answer.iter_mut().enumerate() {
                let sum = dot(&covariances, &self.duals[output * count..][..count]);
                *answer = self.scales[output] * sum + self.means[output];
            }
        });
        Ok(shaped(x.rows, outputs, self.flat, values))
    }
}

/// Coefficients of the training rows as `[outputs, count]`, and whether they had one dimension.
fn duals(object: Object<'_>, name: &str, count: usize) -> Result<(usize, Vec<f64>, bool), Fault> {
    let (shape, values) = object.numbers(name)?;
    match *shape.as_slice() {
        [rows] if rows == count => Ok((1, values, true)),
        [rows, outputs] if rows == count => {
            Ok((outputs, transposed(rows, outputs, &values), false))
        }
        _ => Err(object.wrong(name, format!("shape {shape:?} does not fit {count} rows"))),
    }
}

fn regressor(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = Base::new(object, &[Method::Predict])?;
    let training = Training::read(object, "X_train_", &mut base)?;
    let columns = base.input.columns.unwrap_or(1);
    let covariance = Covariance::read(object.object("kernel_")?, columns)?;
    let (outputs, duals, _) = duals(object, "alpha_", training.count)?;
    let scales = broadcast(object, "_y_train_std", outputs)?;
    let means = broadcast(object, "_y_train_mean", outputs)?;
    let kernel = move |a: &[f64], b: &[f64]| covariance.at(a, b);
    Ok(base.with(Regressor { training, kernel, duals, scales, means, flat: true }))
}

/// KernelRidge is the same mean over a plain kernel.
fn kernel_ridge(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = Base::new(object, &[Method::Predict])?;
    let training = Training::read(object, "X_fit_", &mut base)?;
    let kernel = Kernel::read(object, base.input.columns.unwrap_or(1))?;
    if matches!(kernel, Kernel::Precomputed) {
        return Err(Fault::unsupported("KernelRidge.kernel: precomputed is not supported"));
    }
    let (outputs, duals, flat) = duals(object, "dual_coef_", training.count)?;
    let (scales, means) = (vec![1.0; outputs], vec![0.0; outputs]);
    let kernel = move |a: &[f64], b: &[f64]| kernel.at(a, b);
    Ok(base.with(Regressor { training, kernel, duals, scales, means, flat }))
}

/// One binary classifier: the second class against the first, or a class against the rest.
struct Laplace {
    training: Training,
    kernel: Covariance,
    /// `y - pi` of each training row.
    residuals: Vec<f64>,
    /// Roots of the weights, and the factor `L` of `I + W K W`, `[count, count]`.
    roots: Vec<f64>,
    factor: Vec<f64>,
}

/// The logistic function as five error functions (Williams and Barber 1998, appendix A).
const LAMBDAS: [f64; 5] = [0.41, 0.4, 0.37, 0.44, 0.39];
const WEIGHTS: [f64; 5] =
    [-1854.8214151, 3516.89893646, 221.29346712, 128.12323805, -2010.49422654];

impl Laplace {
    fn read(object: Object<'_>, base: &mut Base) -> Result<Self, Fault> {
        let training = Training::read(object, "X_train_", base)?;
        let count = training.count;
        let kernel = object.object("kernel_")?;
        let kernel = Covariance::read(kernel, base.input.columns.unwrap_or(1))?;
        let labels = object.vector("y_train_", Some(count))?;
        let pi = object.vector("pi_", Some(count))?;
        let residuals = labels.iter().zip(&pi).map(|(label, pi)| label - pi).collect();
        let roots = object.vector("W_sr_", Some(count))?;
        let (rows, columns, factor) = matrix(object, "L_")?;
        if (rows, columns) != (count, count) {
            return Err(object.wrong("L_", format!("expected {count} rows and columns")));
        }
        Ok(Self { training, kernel, residuals, roots, factor })
    }

    fn latent(&self, row: &[f64]) -> (f64, Vec<f64>) {
        let covariances =
            self.training.covariances(row, &|a: &[f64], b: &[f64]| self.kernel.at(a, b));
        (dot(&covariances, &self.residuals), covariances)
    }

    /// Probability of the second class.
    fn probability(&self, row: &[f64]) -> f64 {
        let (mean, mut v) = self.latent(row);
        v.iter_mut().zip(&self.roots).for_each(|(value, root)| *value *= root);
        for i in 0..v.len() {
            let (solved, line) = (dot(&self.factor[i * v.len()..][..i], &v[..i]), i * v.len() + i);
            v[i] = (v[i] - solved) / self.factor[line];
        }
        let variance = self.kernel.variance(row) - dot(&v, &v);
        let alpha = 1.0 / (2.0 * variance);
        let part = |(lambda, weight): (f64, f64)| {
            let scaled = lambda * mean * (alpha / (alpha + lambda * lambda)).sqrt();
            let integral = (PI / alpha).sqrt() * erf(scaled) / (2.0 * (variance * 2.0 * PI).sqrt());
            weight * integral
        };
        let sum: f64 = LAMBDAS.into_iter().zip(WEIGHTS).map(part).sum();
        sum + 0.5 * WEIGHTS.iter().sum::<f64>()
    }
}

/// One classifier for two classes, or one per class.
struct Classifier(Vec<Laplace>);

impl Classifier {
    fn probabilities(&self, x: &Points<'_>) -> Vec<f64> {
        x.map(self.0.len(), |row, answer| {
            let values = self.0.iter().map(|one| one.probability(row));
            answer.iter_mut().zip(values).for_each(|(answer, value)| *answer = value);
        })
    }
}

impl Rule for Classifier {
    fn predict(&self, base: &Base, x: &Points<'_>) -> Answer {
        let indices: Vec<usize> = if let [one] = &self.0[..] {
            let means = x.map(1, |row, answer| answer[0] = one.latent(row).0);
            means.into_iter().map(|mean| usize::from(mean > 0.0)).collect()
        } else {
            // One versus rest: of equal probabilities the last class wins.
            let last = |row: &[f64]| {
                (0..row.len())
                    .fold(0, |best, index| if row[index] >= row[best] { index } else { best })
            };
            self.probabilities(x).chunks_exact(self.0.len()).map(last).collect()
        };
        Ok(base.labels().take(vec![x.rows], &indices))
    }

    fn proba(&self, base: &Base, x: &Points<'_>) -> Result<Vec<Array>, PredictError> {
        let mut values = self.probabilities(x);
        if self.0.len() == 1 {
            values = pairs(values);
        } else {
            values.chunks_exact_mut(self.0.len()).for_each(math::normalise);
        }
        Ok(vec![Array::f64(vec![x.rows, base.labels().len()], values)])
    }
}

/// One classifier per pair of classes.
struct Pairs(Vec<Laplace>);

impl Rule for Pairs {
    fn predict(&self, base: &Base, x: &Points<'_>) -> Answer {
        let classes = base.labels().len();
        let scores = x.map(classes, |row, answer| {
            let votes = self.0.iter().map(|pair| (pair.latent(row).0 > 0.0, pair.probability(row)));
            math::one_vs_one(votes, answer);
        });
        Ok(best(base.labels(), x.rows, &scores))
    }
}

fn classifier(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = Base::classifier(object, &[Method::Predict, Method::PredictProba])?;
    let inner = object.object("base_estimator_")?;
    let estimators = match inner.class {
        "_BinaryGaussianProcessClassifierLaplace" => vec![inner],
        "OneVsRestClassifier" | "OneVsOneClassifier" => {
            let each = |value: crate::pickle::Value<'_>| {
                let name = "_BinaryGaussianProcessClassifierLaplace";
                value.as_object().filter(|object| object.class == name).is_some()
            };
            let values = inner.list("estimators_")?;
            if !values.iter().all(|&value| each(value)) {
                return Err(inner.wrong("estimators_", "a class was not there in training"));
            }
            values.into_iter().filter_map(|value| value.as_object()).collect()
        }
        other => {
            let reason = format!("{other} is not a classifier of Gaussian processes");
            return Err(object.wrong("base_estimator_", reason));
        }
    };
    let classes = base.labels().len();
    let pairs = inner.class == "OneVsOneClassifier";
    let expected = match classes {
        2 => 1,
        _ if pairs => classes.saturating_mul(classes - 1) / 2,
        _ => classes,
    };
    if classes < 2 || estimators.len() != expected {
        let reason = format!("{} classifiers for {classes} classes", estimators.len());
        return Err(object.wrong("base_estimator_", reason));
    }
    let read = |estimator: Object<'_>, base: &mut Base| Laplace::read(estimator, base);
    let mut parts = Vec::new();
    for estimator in estimators {
        parts.push(read(estimator, &mut base)?);
    }
    if pairs && classes > 2 {
        base.methods = vec![Method::Predict];
        return Ok(base.with(Pairs(parts)));
    }
    Ok(base.with(Classifier(parts)))
}

/// Gaussian processes and kernel ridge regression.
pub(crate) static ESTIMATORS: &[Row] = &[
    Row { class: "GaussianProcessClassifier", build: classifier },
    Row { class: "GaussianProcessRegressor", build: regressor },
    Row { class: "KernelRidge", build: kernel_ridge },
];
