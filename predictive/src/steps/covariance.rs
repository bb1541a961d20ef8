//! Robust covariance: the Mahalanobis distance from the centre as a score of outliers.

use crate::array::Array;
use crate::error::Fault;
use crate::model::Method;
use crate::pickle::Object;
use crate::steps::numeric::{Answer, Base, Points, Rule, dot, matrix};
use crate::steps::{Builder, Estimator, Row};

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
    let (rows, columns, precision) = matrix(object, "precision_")?;
    if (rows, columns) != (location.len(), location.len()) {
        let reason = format!("expected {} rows and columns", location.len());
        return Err(object.wrong("precision_", reason));
    }
    let offset = object.f64("offset_")?;
    Ok(base.with(Envelope { location, precision, offset }))
}

/// Outliers by robust covariance.
pub(crate) static ESTIMATORS: &[Row] = &[Row { class: "EllipticEnvelope", build: envelope }];
