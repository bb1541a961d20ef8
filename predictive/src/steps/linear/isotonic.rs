//! Isotonic regression: linear interpolation between thresholds.

use crate::array::Array;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::Object;
use crate::steps::numeric::{Answer, Base, Points, Rule};
use crate::steps::{Builder, Estimator, Row};

/// What happens to values outside of the thresholds.
enum Outside {
    Refuse,
    Clip,
    Missing,
}

/// Thresholds in ascending order and the values at them.
pub(crate) struct Isotonic {
    xs: Vec<f64>,
    ys: Vec<f64>,
    least: f64,
    most: f64,
    outside: Outside,
}

impl Isotonic {
    fn read(object: Object<'_>) -> Result<Self, Fault> {
        // Before 0.24 the thresholds were private.
        let (x, y) = match object.get("X_thresholds_") {
            Some(_) => ("X_thresholds_", "y_thresholds_"),
            None => ("_necessary_X_", "_necessary_y_"),
        };
        let xs = object.vector(x, None)?;
        let ys = object.vector(y, Some(xs.len()))?;
        if xs.is_empty()
            || xs
                .windows(2)
                .any(|pair| pair[0].partial_cmp(&pair[1]).is_none_or(std::cmp::Ordering::is_gt))
        {
            return Err(object.wrong(x, "expected ascending thresholds"));
        }
        let outside = match object.str("out_of_bounds")? {
            "nan" => Outside::Missing,
            "clip" => Outside::Clip,
            "raise" => Outside::Refuse,
            other => {
                let reason = format!("{other:?} is none of nan, clip and raise");
                return Err(object.wrong("out_of_bounds", reason));
            }
        };
        let bound = |name: &str, otherwise: f64| match object.get(name) {
            Some(_) => object.f64(name),
            None => Ok(otherwise),
        };
        let least = bound("X_min_", xs[0])?;
        let most = bound("X_max_", xs[xs.len() - 1])?;
        Ok(Self { xs, ys, least, most, outside })
    }

    fn at(&self, x: f64) -> Result<f64, PredictError> {
        let last = self.xs.len() - 1;
        if last == 0 {
            return Ok(self.ys[0]);
        }
        let inside = x >= self.least && x <= self.most;
        let x = match self.outside {
            Outside::Clip => x.max(self.least).min(self.most),
            _ if inside => x,
            Outside::Missing => return Ok(f64::NAN),
            Outside::Refuse => {
                return Err(PredictError::input(format!(
                    "a value in x_new is outside the interpolation range: {x} is not within \
                     {} and {}",
                    self.least, self.most
                )));
            }
        };
        let after = self.xs.partition_point(|&threshold| threshold <= x);
        if after == 0 || after > last {
            return Ok(if after == 0 { self.ys[0] } else { self.ys[last] });
        }
        let before = after - 1;
        let slope = (self.ys[after] - self.ys[before]) / (self.xs[after] - self.xs[before]);
        Ok(slope * (x - self.xs[before]) + self.ys[before])
    }
}

impl Rule for Isotonic {
    fn predict(&self, _: &Base, x: &Points<'_>) -> Answer {
        let values = x.map(1, |row, answer| answer[0] = row[0]);
        let values: Result<Vec<f64>, PredictError> =
            values.into_iter().map(|value| self.at(value)).collect();
        Ok(Array::f64(vec![x.rows], values?))
    }
}

fn isotonic(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = Base::new(object, &[Method::Predict])?;
    base.input.columns = Some(1);
    Ok(base.with(Isotonic::read(object)?))
}

/// Isotonic regression.
pub(crate) static ISOTONIC: &[Row] = &[Row { class: "IsotonicRegression", build: isotonic }];
