//! `PowerTransformer` and `QuantileTransformer`: columns made to follow a distribution.

use crate::error::Fault;
use crate::model::PredictError;
use crate::pickle::Object;
use crate::steps::input::Nan;
use crate::steps::normal::{cumulative, quantile};
use crate::steps::transform::{Transform, map, numeric, transformer};
use crate::steps::{Builder, Estimator, Row};
use crate::table::Table;

pub(crate) static ESTIMATORS: &[Row] = &[
    Row { class: "PowerTransformer", build: power },
    Row { class: "QuantileTransformer", build: quantiles },
];

struct PowerTransformer {
    lambdas: Vec<f64>,
    box_cox: bool,
    scaler: Option<Box<dyn Estimator>>,
}

fn box_cox(x: f64, lambda: f64) -> f64 {
    if lambda.abs() < 1e-19 { x.ln() } else { (lambda * x.ln()).exp_m1() / lambda }
}

fn box_cox_inverse(x: f64, lambda: f64) -> f64 {
    if lambda == 0.0 { x.exp() } else { ((lambda * x).ln_1p() / lambda).exp() }
}

fn yeo_johnson(x: f64, lambda: f64) -> f64 {
    if x >= 0.0 {
        let log = x.ln_1p();
        return if lambda.abs() < f64::EPSILON { log } else { (lambda * log).exp_m1() / lambda };
    }
    let (log, rest) = ((-x).ln_1p(), 2.0 - lambda);
    if rest.abs() > f64::EPSILON { -(rest * log).exp_m1() / rest } else { -log }
}

fn yeo_johnson_inverse(x: f64, lambda: f64) -> f64 {
    let rest = 2.0 - lambda;
    if x >= 0.0 {
        return match lambda.abs() < f64::EPSILON {
            true => x.exp_m1(),
            false => (x * lambda + 1.0).powf(1.0 / lambda) - 1.0,
        };
    }
    match rest.abs() > f64::EPSILON {
        true => 1.0 - (1.0 - rest * x).powf(1.0 / rest),
        false => -(-x).exp_m1(),
    }
}

impl Transform for PowerTransformer {
    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        let x = numeric(x, Nan::Allow)?;
        if self.box_cox && x.to_f64().iter().any(|&value| value <= 0.0) {
            let reason = "the Box-Cox transformation can only be applied to strictly positive data";
            return Err(PredictError::input(reason));
        }
        let function = if self.box_cox { box_cox } else { yeo_johnson };
        let moved = Table::Dense(map(&x, |column, value| function(value, self.lambdas[column])));
        self.scaler.as_ref().map_or(Ok(moved.clone()), |scaler| scaler.transform(&moved))
    }

    fn inverse(&self, x: &Table) -> Option<Result<Table, PredictError>> {
        let scaled = match &self.scaler {
            Some(scaler) => scaler.inverse_transform(x),
            None => Ok(x.clone()),
        };
        let function = if self.box_cox { box_cox_inverse } else { yeo_johnson_inverse };
        Some(scaled.and_then(|x| {
            let x = numeric(&x, Nan::Allow)?;
            if x.columns != self.lambdas.len() {
                let reason = format!("X has {} columns, not {}", x.columns, self.lambdas.len());
                return Err(PredictError::input(reason));
            }
            Ok(Table::Dense(map(&x, |column, value| function(value, self.lambdas[column]))))
        }))
    }
}

fn power(object: Object<'_>, builder: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let lambdas = object.vector("lambdas_", None)?;
    let box_cox = match object.str("method")? {
        "box-cox" => true,
        "yeo-johnson" => false,
        other => {
            let reason = format!("{other:?} is not known; yeo-johnson and box-cox are");
            return Err(object.wrong("method", reason));
        }
    };
    let scaler = match object.bool("standardize")? {
        true => Some(builder.build(object.object("_scaler")?)?),
        false => None,
    };
    let count = lambdas.len();
    if scaler.as_ref().is_some_and(|scaler| scaler.input().columns != Some(count)) {
        return Err(object.wrong("_scaler", format!("is not for {count} columns")));
    }
    transformer(object, Some(count), PowerTransformer { lambdas, box_cox, scaler })
}

/// How near to a bound counts as at it, as in the library.
const BOUND: f64 = 1e-7;

struct QuantileTransformer {
    /// The quantiles of each column, ascending.
    quantiles: Vec<Vec<f64>>,
    references: Vec<f64>,
    normal: bool,
    /// Least and greatest values of normal outputs.
    clip: (f64, f64),
}

/// Linear interpolation between ascending `from`, as `numpy.interp`; the ends beyond them.
fn interpolate(x: f64, from: &[f64], to: &[f64]) -> f64 {
    let after = from.partition_point(|&known| known <= x);
    match after {
        0 => to[0],
        after if after == from.len() => to[after - 1],
        after => {
            let at = after - 1;
            let slope = (to[after] - to[at]) / (from[after] - from[at]);
            slope * (x - from[at]) + to[at]
        }
    }
}

/// The same from above: of equal `from` it takes the first, where [`interpolate`] takes the last.
fn interpolate_down(x: f64, from: &[f64], to: &[f64]) -> f64 {
    match from.partition_point(|&known| known < x) {
        0 => to[0],
        at if at == from.len() => to[at - 1],
        at => {
            let slope = (to[at] - to[at - 1]) / (from[at] - from[at - 1]);
            to[at] - slope * (from[at] - x)
        }
    }
}

impl QuantileTransformer {
    fn forward(&self, column: usize, x: f64) -> f64 {
        if x.is_nan() {
            return x;
        }
        let quantiles = &self.quantiles[column];
        let (low, high) = (quantiles[0], quantiles[quantiles.len() - 1]);
        let margin = if self.normal { BOUND } else { 0.0 };
        let at_low = if self.normal { x - margin < low } else { x == low };
        let at_high = if self.normal { x + margin > high } else { x == high };
        let y = if at_low {
            0.0
        } else if at_high {
            1.0
        } else {
            // Upwards and downwards, so that of repeated quantiles the middle is taken.
            let up = interpolate(x, quantiles, &self.references);
            0.5 * (up + interpolate_down(x, quantiles, &self.references))
        };
        if self.normal { quantile(y).clamp(self.clip.0, self.clip.1) } else { y }
    }

    fn backward(&self, column: usize, x: f64) -> f64 {
        if x.is_nan() {
            return x;
        }
        let quantiles = &self.quantiles[column];
        let x = if self.normal { cumulative(x) } else { x };
        let margin = if self.normal { BOUND } else { 0.0 };
        if if self.normal { x - margin < 0.0 } else { x == 0.0 } {
            quantiles[0]
        } else if if self.normal { x + margin > 1.0 } else { x == 1.0 } {
            quantiles[quantiles.len() - 1]
        } else {
            interpolate(x, &self.references, quantiles)
        }
    }
}

impl Transform for QuantileTransformer {
    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        if let Table::Sparse(sparse) = x {
            let mut sparse = sparse.clone();
            for (value, &column) in sparse.values.iter_mut().zip(&sparse.indices) {
                *value = self.forward(column as usize, *value);
            }
            return Ok(Table::Sparse(sparse));
        }
        let x = numeric(x, Nan::Allow)?;
        Ok(Table::Dense(map(&x, |column, value| self.forward(column, value))))
    }

    fn inverse(&self, x: &Table) -> Option<Result<Table, PredictError>> {
        Some(numeric(x, Nan::Allow).and_then(|x| {
            if x.columns != self.quantiles.len() {
                let reason = format!("X has {} columns, not {}", x.columns, self.quantiles.len());
                return Err(PredictError::input(reason));
            }
            Ok(Table::Dense(map(&x, |column, value| self.backward(column, value))))
        }))
    }
}

fn quantiles(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let (rows, columns, values) = object.matrix("quantiles_")?;
    let references = object.vector("references_", Some(rows))?;
    if rows == 0 {
        return Err(object.wrong("quantiles_", "has no quantile"));
    }
    let column = |column| (0..rows).map(|row| values[row * columns + column]).collect();
    let normal = match object.str("output_distribution")? {
        "normal" => true,
        "uniform" => false,
        other => {
            let reason = format!("{other:?} is not known; uniform and normal are");
            return Err(object.wrong("output_distribution", reason));
        }
    };
    let quantiles = (0..columns).map(column).collect();
    let edge = BOUND - f64::EPSILON;
    let clip = (quantile(edge), quantile(1.0 - edge));
    let inner = QuantileTransformer { quantiles, references, normal, clip };
    transformer(object, Some(columns), inner)
}
