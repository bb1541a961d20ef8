//! Robust covariance: the Mahalanobis distance from the centre as a score of outliers.

use crate::array::Array;
use crate::error::Fault;
use crate::model::Method;
use crate::pickle::Object;
use crate::steps::decomposition::solve;
use crate::steps::numeric::{Answer, Base, Points, Rule, dot, matrix};
use crate::steps::{Builder, Estimator, Row};

/// Columns of the largest covariance, which may have to be inverted as a model loads.
const MAX_COLUMNS: usize = 4096;

struct Envelope {
    location: Vec<f64>,
    precision: Vec<f64>,
    offset: f64,
}

impl Envelope {
    fn scores(&self, x: &Points<'_>) -> Vec<f64> {
        x.map(1, |row, answer| {
            let gaps: Vec<f64> = row.iter().zip(&self.location).map(|(x, at)| x - at).collect();
            let rows = self.precision.chunks_exact(gaps.len().max(1));
            let norm: f64 = rows.zip(&gaps).map(|(row, gap)| dot(row, &gaps) * gap).sum();
            answer[0] = -norm;
        })
    }

    fn decide(&self, x: &Points<'_>) -> Vec<f64> {
        self.scores(x).into_iter().map(|score| score - self.offset).collect()
    }
}

impl Rule for Envelope {
    fn predict(&self, _: &Base, x: &Points<'_>) -> Answer {
        let inlier = |value: f64| if value >= 0.0 { 1 } else { -1 };
        Ok(Array::i64(vec![x.rows], self.decide(x).into_iter().map(inlier).collect()))
    }

    fn decision(&self, _: &Base, x: &Points<'_>) -> Answer {
        Ok(Array::f64(vec![x.rows], self.decide(x)))
    }

    fn scores(&self, _: &Base, x: &Points<'_>) -> Answer {
        Ok(Array::f64(vec![x.rows], Envelope::scores(self, x)))
    }
}

fn envelope(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let methods = [Method::Predict, Method::DecisionFunction, Method::ScoreSamples];
    let mut base = Base::new(object, &methods)?;
    let location = object.vector("location_", None)?;
    base.columns(object, "location_", location.len())?;
    // With `store_precision=False` it has to be had from the covariance.
    let stored = object.some("precision_").is_some();
    let name = if stored { "precision_" } else { "covariance_" };
    let (rows, columns, values) = matrix(object, name)?;
    if (rows, columns) != (location.len(), location.len()) || rows > MAX_COLUMNS {
        let reason = format!("expected {} rows and columns, at most {MAX_COLUMNS}", location.len());
        return Err(object.wrong(name, reason));
    }
    let identity = || {
        let cell = |index: usize| f64::from(u8::from(index.is_multiple_of(rows + 1)));
        (0..rows * rows).map(cell).collect()
    };
    let precision = if stored { Some(values) } else { solve(values, rows, identity()) };
    let precision = precision.ok_or_else(|| object.wrong(name, "it cannot be inverted"))?;
    let offset = object.f64("offset_")?;
    Ok(base.with(Envelope { location, precision, offset }))
}

/// Outliers by robust covariance.
pub(crate) static ESTIMATORS: &[Row] = &[Row { class: "EllipticEnvelope", build: envelope }];
