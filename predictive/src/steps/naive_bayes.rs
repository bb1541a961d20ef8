//! Naive Bayes: joint log-likelihoods per class, the greatest of which is the label.

use std::f64::consts::PI;

use crate::array::Array;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::Object;
use crate::steps::numeric::{Answer, Base, Points, Rule, best, changed, matrix, normalise_logs};
use crate::steps::{Builder, Estimator, Row};

/// How the joint log-likelihood of a class is computed.
enum Likelihood {
    /// `constant - 0.5 * sum((x - mean)^2 / variance)`.
    Gaussian { means: Vec<f64>, variances: Vec<f64> },
    /// `constant + sum(x * weight)`.
    Linear { weights: Vec<f64> },
    /// The same over `x > threshold` as 0 and 1.
    Binary { weights: Vec<f64>, threshold: f64 },
    /// `constant + sum(weight[column][class][x])`: `[classes, categories]` of each column.
    Categories { columns: Vec<(usize, Vec<f64>)> },
}

struct NaiveBayes {
    constants: Vec<f64>,
    likelihood: Likelihood,
}

impl NaiveBayes {
    /// `[rows, classes]`.
    fn joint(&self, x: &Points<'_>) -> Result<Vec<f64>, PredictError> {
        let classes = self.constants.len();
        let mut joint = match &self.likelihood {
            Likelihood::Gaussian { means, variances } => x.map(classes, |row, answer| {
                for (class, answer) in answer.iter_mut().enumerate() {
                    let range = class * row.len()..(class + 1) * row.len();
                    let parameters = means[range.clone()].iter().zip(&variances[range]);
                    let term = |(x, (mean, variance)): (&f64, (&f64, &f64))| {
                        (x - mean) * (x - mean) / variance
                    };
                    *answer = -0.5 * row.iter().zip(parameters).map(term).sum::<f64>();
                }
            }),
            Likelihood::Linear { weights } => x.products(weights, classes),
            Likelihood::Binary { weights, threshold } => {
                x.mapped(|value| f64::from(value > *threshold)).products(weights, classes)
            }
            Likelihood::Categories { columns } => categories(columns, x, classes)?,
        };
        for row in joint.chunks_exact_mut(classes) {
            row.iter_mut().zip(&self.constants).for_each(|(value, add)| *value += add);
        }
        Ok(joint)
    }
}

fn categories(
    columns: &[(usize, Vec<f64>)],
    x: &Points<'_>,
    classes: usize,
) -> Result<Vec<f64>, PredictError> {
    let codes = x.dense();
    let mut joint = vec![0.0; x.rows * classes];
    for (row, joint) in codes.chunks_exact(x.columns.max(1)).zip(joint.chunks_exact_mut(classes)) {
        for (column, (&code, (known, weights))) in row.iter().zip(columns).enumerate() {
            let code = code.trunc();
            if code < 0.0 {
                return Err(PredictError::input(format!(
                    "Negative values in data passed to CategoricalNB (input X): column {column}"
                )));
            }
            if code >= *known as f64 {
                return Err(PredictError::input(format!(
                    "column {column} has category {code}, the model knows 0 to {}",
                    known.saturating_sub(1)
                )));
            }
            for (class, value) in joint.iter_mut().enumerate() {
                *value += weights[class * known + code as usize];
            }
        }
    }
    Ok(joint)
}

impl Rule for NaiveBayes {
    fn predict(&self, base: &Base, x: &Points<'_>) -> Answer {
        Ok(best(base.labels(), x.rows, &self.joint(x)?))
    }

    fn proba(&self, base: &Base, x: &Points<'_>) -> Result<Vec<Array>, PredictError> {
        Ok(self.log_proba(base, x)?.iter().map(|array| changed(array, f64::exp)).collect())
    }

    fn log_proba(&self, _: &Base, x: &Points<'_>) -> Result<Vec<Array>, PredictError> {
        let mut joint = self.joint(x)?;
        normalise_logs(x.rows, &mut joint);
        Ok(vec![Array::f64(vec![x.rows, self.constants.len()], joint)])
    }
}

/// A matrix of one row per class and as many columns as the estimator reads.
fn per_class(object: Object<'_>, name: &str, base: &mut Base) -> Result<Vec<f64>, Fault> {
    let (rows, columns, values) = matrix(object, name)?;
    let classes = base.labels().len();
    if rows != classes {
        return Err(object.wrong(name, format!("has {rows} rows for {classes} classes")));
    }
    base.columns(object, name, columns)?;
    Ok(values)
}

fn base(object: Object<'_>) -> Result<Base, Fault> {
    let methods = [Method::Predict, Method::PredictProba, Method::PredictLogProba];
    Base::classifier(object, &methods)
}

fn gaussian(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = base(object)?;
    let classes = base.labels().len();
    let means = per_class(object, "theta_", &mut base)?;
    base.precision(object, "theta_");
    // var_ was sigma_ before 1.0.
    let name = if object.get("var_").is_some() { "var_" } else { "sigma_" };
    let variances = per_class(object, name, &mut base)?;
    let priors = object.vector("class_prior_", Some(classes))?;
    let columns = means.len() / classes;
    let constant = |(class, prior): (usize, &f64)| {
        let own = &variances[class * columns..][..columns];
        prior.ln() - 0.5 * own.iter().map(|variance| (2.0 * PI * variance).ln()).sum::<f64>()
    };
    let constants = priors.iter().enumerate().map(constant).collect();
    let likelihood = Likelihood::Gaussian { means, variances };
    Ok(base.with(NaiveBayes { constants, likelihood }))
}

fn multinomial(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = base(object)?;
    let classes = base.labels().len();
    let weights = per_class(object, "feature_log_prob_", &mut base)?;
    let priors = object.vector("class_log_prior_", Some(classes))?;
    // The complement rule uses the prior only where there is one class.
    let complement = object.class == "ComplementNB" && classes > 1;
    let constants = if complement { vec![0.0; classes] } else { priors };
    Ok(base.with(NaiveBayes { constants, likelihood: Likelihood::Linear { weights } }))
}

fn bernoulli(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = base(object)?;
    let classes = base.labels().len();
    let mut weights = per_class(object, "feature_log_prob_", &mut base)?;
    let mut constants = object.vector("class_log_prior_", Some(classes))?;
    let columns = weights.len() / classes;
    for (class, row) in weights.chunks_exact_mut(columns.max(1)).enumerate() {
        for weight in row {
            let absent = (1.0 - weight.exp()).ln();
            constants[class] += absent;
            *weight -= absent;
        }
    }
    let likelihood = match object.some("binarize") {
        Some(_) => Likelihood::Binary { weights, threshold: object.f64("binarize")? },
        None => Likelihood::Linear { weights },
    };
    Ok(base.with(NaiveBayes { constants, likelihood }))
}

fn categorical(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = base(object)?;
    let classes = base.labels().len();
    let name = "feature_log_prob_";
    let mut columns = Vec::new();
    for value in object.list(name)? {
        let wrong = || object.wrong(name, "expected a matrix of a row per class for each column");
        let array = value.as_array().ok_or_else(wrong)?;
        match *array.shape() {
            [rows, known] if rows == classes => {
                columns.push((known, array.to_f64().ok_or_else(wrong)?));
            }
            _ => return Err(wrong()),
        }
    }
    base.columns(object, name, columns.len())?;
    let constants = object.vector("class_log_prior_", Some(classes))?;
    Ok(base.with(NaiveBayes { constants, likelihood: Likelihood::Categories { columns } }))
}

/// Naive Bayes classifiers.
pub(crate) static ESTIMATORS: &[Row] = &[
    Row { class: "BernoulliNB", build: bernoulli },
    Row { class: "CategoricalNB", build: categorical },
    Row { class: "ComplementNB", build: multinomial },
    Row { class: "GaussianNB", build: gaussian },
    Row { class: "MultinomialNB", build: multinomial },
];
