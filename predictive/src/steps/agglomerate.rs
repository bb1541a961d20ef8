//! `FeatureAgglomeration`: columns of one cluster pooled into one.

use crate::array::Array;
use crate::error::Fault;
use crate::model::Method;
use crate::pickle::Object;
use crate::steps::numeric::{Answer, Base, Points, Rule};
use crate::steps::{Builder, Estimator, Row};

/// What becomes of the values of a cluster.
#[derive(Clone, Copy)]
enum Pooling {
    Mean,
    Median,
    Least,
    Greatest,
    Sum,
}

impl Pooling {
    fn of(self, values: &mut [f64]) -> f64 {
        let sum = |values: &[f64]| values.iter().fold(0.0, |sum, value| sum + value);
        match self {
            Pooling::Mean => sum(values) / values.len() as f64,
            Pooling::Sum => sum(values),
            Pooling::Least => values.iter().copied().fold(f64::INFINITY, f64::min),
            Pooling::Greatest => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            Pooling::Median => {
                values.sort_unstable_by(f64::total_cmp);
                let middle = values.len() / 2;
                match values.len() % 2 {
                    1 => values[middle],
                    _ => (values[middle - 1] + values[middle]) / 2.0,
                }
            }
        }
    }
}

struct Agglomeration {
    /// The columns of each cluster.
    clusters: Vec<Vec<usize>>,
    pooling: Pooling,
}

impl Rule for Agglomeration {
    fn transform(&self, _: &Base, x: &Points<'_>) -> Answer {
        let values = x.map(self.clusters.len(), |row, answer| {
            for (columns, answer) in self.clusters.iter().zip(answer) {
                let mut values: Vec<f64> = columns.iter().map(|&column| row[column]).collect();
                *answer = self.pooling.of(&mut values);
            }
        });
        Ok(Array::f64(vec![x.rows, self.clusters.len()], values))
    }
}

fn build(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = Base::new(object, &[Method::Transform])?;
    let labels = object.vector("labels_", None)?;
    base.columns(object, "labels_", labels.len())?;
    let mut clusters: Vec<Vec<usize>> = vec![Vec::new(); labels.len()];
    for (column, &label) in labels.iter().enumerate() {
        let index = label as usize;
        if label.fract() != 0.0 || label < 0.0 || index >= clusters.len() {
            return Err(object.wrong("labels_", format!("{label} is not the number of a cluster")));
        }
        clusters[index].push(column);
    }
    clusters.retain(|columns| !columns.is_empty());
    let function = object.attribute("pooling_func")?.as_global();
    let pooling = match function {
        Some((_, "mean")) => Pooling::Mean,
        Some((_, "median")) => Pooling::Median,
        Some((_, "min" | "amin")) => Pooling::Least,
        Some((_, "max" | "amax")) => Pooling::Greatest,
        Some((_, "sum")) => Pooling::Sum,
        _ => {
            return Err(Fault::unsupported(
                "FeatureAgglomeration.pooling_func: supported are numpy's mean, median, min, max \
                 and sum",
            ));
        }
    };
    Ok(base.with(Agglomeration { clusters, pooling }))
}

/// Pooled columns.
pub(crate) static ESTIMATORS: &[Row] = &[Row { class: "FeatureAgglomeration", build }];
