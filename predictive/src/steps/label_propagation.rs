//! Label propagation: the classes of new rows are those of the training rows around them.

use crate::array::Array;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::Object;
use crate::steps::neighbors::Neighbours;
use crate::steps::numeric::{Answer, Base, Points, Rule, best, matrix};
use crate::steps::pairwise::{Kernel, against};
use crate::steps::{Builder, Estimator, Row};

/// How training rows weigh.
enum Around {
    /// All, by a Gaussian kernel.
    Kernel {
        gamma: f64,
        rows: Vec<f64>,
    },
    Nearest(Neighbours),
}

/// The label distributions of the training rows, `[rows, classes]`.
struct Propagation {
    around: Around,
    distributions: Vec<f64>,
}

impl Propagation {
    fn probabilities(&self, base: &Base, x: &Points<'_>) -> Vec<f64> {
        let classes = base.labels().len();
        x.map(classes, |row, answer| {
            let mut add = |index: usize, weight: f64| {
                let known = &self.distributions[index * classes..][..classes];
                answer.iter_mut().zip(known).for_each(|(sum, part)| *sum += weight * part);
            };
            match &self.around {
                Around::Nearest(neighbours) => {
                    neighbours.of(row).into_iter().for_each(|(_, index)| add(index, 1.0));
                }
                Around::Kernel { gamma, rows } => {
                    let mut kernels = vec![0.0; rows.len() / row.len()];
                    let kernel = Kernel::Rbf { gamma: *gamma };
                    against(row, rows, &mut kernels, |a, b| kernel.at(a, b));
                    kernels.into_iter().enumerate().for_each(|(index, weight)| add(index, weight));
                }
            }
            // A row that nothing reaches has no probabilities: NaN, as in the library.
            let sum: f64 = answer.iter().sum();
            answer.iter_mut().for_each(|value| *value /= sum);
        })
    }
}

impl Rule for Propagation {
    fn predict(&self, base: &Base, x: &Points<'_>) -> Answer {
        Ok(best(base.labels(), x.rows, &self.probabilities(base, x)))
    }

    fn proba(&self, base: &Base, x: &Points<'_>) -> Result<Vec<Array>, PredictError> {
        let shape = vec![x.rows, base.labels().len()];
        Ok(vec![Array::f64(shape, self.probabilities(base, x))])
    }
}

fn build(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = Base::classifier(object, &[Method::Predict, Method::PredictProba])?;
    let (around, rows) = match object.attribute("kernel")?.as_str() {
        Some("rbf") => {
            let (count, columns, rows) = matrix(object, "X_")?;
            base.columns(object, "X_", columns)?;
            (Around::Kernel { gamma: object.f64("gamma")?, rows }, count)
        }
        Some("knn") => {
            let neighbours = Neighbours::read(object, "nn_fit", &mut base)?;
            let count = neighbours.len();
            (Around::Nearest(neighbours), count)
        }
        _ => {
            let what = format!("{}.kernel: only rbf and knn are supported", object.class);
            return Err(Fault::unsupported(what));
        }
    };
    let (found, classes, distributions) = matrix(object, "label_distributions_")?;
    if (found, classes) != (rows, base.labels().len()) {
        let reason = format!("expected {rows} rows of {} classes", base.labels().len());
        return Err(object.wrong("label_distributions_", reason));
    }
    Ok(base.with(Propagation { around, distributions }))
}

/// Semi-supervised classifiers.
pub(crate) static ESTIMATORS: &[Row] =
    &[Row { class: "LabelPropagation", build }, Row { class: "LabelSpreading", build }];
