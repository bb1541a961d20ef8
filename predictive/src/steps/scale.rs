//! Scalers: column-wise arithmetic with fitted parameters, and the row-wise ones.

use crate::error::Fault;
use crate::model::PredictError;
use crate::pickle::Object;
use crate::steps::input::Nan;
use crate::steps::transform::{Transform, map, numeric, sparse_rows, transformer};
use crate::steps::{Builder, Estimator, Row};
use crate::table::{Matrix, Sparse, Table};

pub(crate) static ESTIMATORS: &[Row] = &[
    Row { class: "StandardScaler", build: standard },
    Row { class: "MinMaxScaler", build: min_max },
    Row { class: "MaxAbsScaler", build: max_abs },
    Row { class: "RobustScaler", build: robust },
    Row { class: "Normalizer", build: normalizer },
    Row { class: "Binarizer", build: binarizer },
    Row { class: "KernelCenterer", build: kernel_centerer },
];

/// One operation with a parameter per column; in single precision each is rounded, as numpy does in place.
enum Operation {
    Add(Vec<f64>),
    Subtract(Vec<f64>),
    Multiply(Vec<f64>),
    Divide(Vec<f64>),
}

/// Operations in order, then a clip.
struct Scaler {
    operations: Vec<Operation>,
    clip: Option<(f64, f64)>,
    /// Whether parameters are rounded to single precision before they meet single precision values.
    rounds: bool,
    sparse: bool,
}

impl Scaler {
    fn parameters(&self, single: bool, values: &[f64]) -> Vec<f64> {
        let round =
            |&value: &f64| if single && self.rounds { f64::from(value as f32) } else { value };
        values.iter().map(round).collect()
    }

    fn forward(&self, x: &Matrix) -> Matrix {
        let mut x = x.clone();
        for operation in &self.operations {
            x = self.apply(&x, operation);
        }
        if let Some((low, high)) = self.clip {
            x = map(&x, |_, value| {
                if value < low {
                    low
                } else if value > high {
                    high
                } else {
                    value
                }
            });
        }
        x
    }

    fn apply(&self, x: &Matrix, operation: &Operation) -> Matrix {
        let parameters = |values: &[f64]| self.parameters(x.is_single(), values);
        match operation {
            Operation::Add(by) => {
                let by = parameters(by);
                map(x, |column, value| value + by[column])
            }
            Operation::Subtract(by) => {
                let by = parameters(by);
                map(x, |column, value| value - by[column])
            }
            Operation::Multiply(by) => {
                let by = parameters(by);
                map(x, |column, value| value * by[column])
            }
            Operation::Divide(by) => {
                let by = parameters(by);
                map(x, |column, value| value / by[column])
            }
        }
    }

    fn columns(&self) -> usize {
        let first = self.operations.first();
        first.map_or(0, |operation| match operation {
            Operation::Add(by)
            | Operation::Subtract(by)
            | Operation::Multiply(by)
            | Operation::Divide(by) => by.len(),
        })
    }
}

impl Transform for Scaler {
    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        let Table::Sparse(sparse) = x else {
            return Ok(Table::Dense(self.forward(numeric(x, Nan::Allow)?.as_ref())));
        };
        let mut answer: Sparse = sparse.clone();
        for operation in &self.operations {
            let Operation::Divide(by) = operation else {
                return Err(centred());
            };
            for (value, &column) in answer.values.iter_mut().zip(&sparse.indices) {
                *value *= 1.0 / by[column as usize];
            }
        }
        if !self.sparse {
            return Err(centred());
        }
        if let Some((low, high)) = self.clip {
            answer.values.iter_mut().for_each(|value| *value = value.clamp(low, high));
        }
        Ok(Table::Sparse(answer))
    }

    fn inverse(&self, x: &Table) -> Option<Result<Table, PredictError>> {
        let undo = |x: &Matrix| {
            if x.columns != self.columns() && !self.operations.is_empty() {
                let reason = format!("X has {} columns, not {}", x.columns, self.columns());
                return Err(PredictError::input(reason));
            }
            let mut x = x.clone();
            for operation in self.operations.iter().rev() {
                x = match operation {
                    Operation::Add(by) => self.apply(&x, &Operation::Subtract(by.clone())),
                    Operation::Subtract(by) => self.apply(&x, &Operation::Add(by.clone())),
                    Operation::Multiply(by) => self.apply(&x, &Operation::Divide(by.clone())),
                    Operation::Divide(by) => self.apply(&x, &Operation::Multiply(by.clone())),
                };
            }
            Ok(Table::Dense(x))
        };
        Some(numeric(x, Nan::Allow).and_then(|x| undo(x.as_ref())))
    }
}

fn centred() -> PredictError {
    PredictError::input("sparse rows cannot be centred; the estimator before must give dense ones")
}

/// The scaler of those operations that the object's parameters ask for.
fn scaler(
    object: Object<'_>,
    operations: Vec<Operation>,
    clip: Option<(f64, f64)>,
    sparse: bool,
) -> Result<Box<dyn Estimator>, Fault> {
    let rounds = object.class == "StandardScaler"
        && object.version().is_some_and(|version| version >= ROUNDED_SINCE);
    let scaler = Scaler { operations, clip, rounds, sparse };
    let columns = scaler.columns();
    for operation in &scaler.operations {
        let (Operation::Add(by)
        | Operation::Subtract(by)
        | Operation::Multiply(by)
        | Operation::Divide(by)) = operation;
        if by.len() != columns {
            return Err(object.wrong("scale_", format!("has {} values, not {columns}", by.len())));
        }
    }
    let columns = (!scaler.operations.is_empty()).then_some(columns);
    transformer(object, columns, scaler)
}

/// The version from which the library rounds the scaler's parameters to the precision of the rows first.
const ROUNDED_SINCE: (u32, u32) = (1, 8);

fn optional(object: Object<'_>, flag: &str, name: &str) -> Result<Option<Vec<f64>>, Fault> {
    match object.bool(flag)? {
        true => object.vector(name, None).map(Some),
        false => Ok(None),
    }
}

fn standard(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut operations = Vec::new();
    operations.extend(optional(object, "with_mean", "mean_")?.map(Operation::Subtract));
    operations.extend(optional(object, "with_std", "scale_")?.map(Operation::Divide));
    scaler(object, operations, None, true)
}

fn robust(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut operations = Vec::new();
    operations.extend(optional(object, "with_centering", "center_")?.map(Operation::Subtract));
    operations.extend(optional(object, "with_scaling", "scale_")?.map(Operation::Divide));
    scaler(object, operations, None, true)
}

fn min_max(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let scale = object.vector("scale_", None)?;
    let min = object.vector("min_", Some(scale.len()))?;
    let clip = match object.some("clip").and_then(|clip| clip.as_bool()).unwrap_or(false) {
        true => {
            let range = object.vector("feature_range", Some(2))?;
            Some((range[0], range[1]))
        }
        false => None,
    };
    scaler(object, vec![Operation::Multiply(scale), Operation::Add(min)], clip, false)
}

fn max_abs(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let clip = object.some("clip").and_then(|clip| clip.as_bool()).unwrap_or(false);
    let scale = object.vector("scale_", None)?;
    scaler(object, vec![Operation::Divide(scale)], clip.then_some((-1.0, 1.0)), true)
}

/// Rows divided by their norm.
enum Normalizer {
    L1,
    L2,
    Max,
}

impl Normalizer {
    fn norm(&self, row: impl Iterator<Item = f64>) -> f64 {
        let norm = match self {
            Normalizer::L1 => row.map(f64::abs).sum(),
            Normalizer::L2 => row.map(|value| value * value).sum::<f64>().sqrt(),
            Normalizer::Max => row.map(f64::abs).fold(0.0, f64::max),
        };
        if norm == 0.0 { 1.0 } else { norm }
    }
}

impl Transform for Normalizer {
    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        if let Table::Sparse(sparse) = x {
            let row = |row: usize| {
                let norm = self.norm(sparse.row(row).map(|(_, value)| value));
                sparse.row(row).map(|(at, value)| (at as u32, value / norm)).collect()
            };
            return Ok(Table::Sparse(sparse_rows(sparse.columns, (0..sparse.rows).map(row))));
        }
        let x = numeric(x, Nan::Refuse)?;
        let values = x.to_f64();
        let mut answer = Vec::with_capacity(values.len());
        for row in values.chunks(x.columns.max(1)) {
            let norm = self.norm(row.iter().copied());
            let norm = if x.is_single() { f64::from(norm as f32) } else { norm };
            answer.extend(row.iter().map(|value| value / norm));
        }
        Ok(Table::Dense(x.like(x.rows, x.columns, answer)))
    }
}

fn normalizer(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let inner = match object.str("norm")? {
        "l1" => Normalizer::L1,
        "l2" => Normalizer::L2,
        "max" => Normalizer::Max,
        other => return Err(object.wrong("norm", format!("expected l1, l2 or max, found {other}"))),
    };
    transformer(object, None, inner)
}

/// 1 above the threshold, else 0.
struct Binarizer {
    threshold: f64,
}

impl Transform for Binarizer {
    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        if let Table::Sparse(sparse) = x {
            if self.threshold < 0.0 {
                let reason = "sparse rows cannot be binarised with a threshold below 0";
                return Err(PredictError::input(reason));
            }
            let row = |row: usize| {
                let above = sparse.row(row).filter(|&(_, value)| value > self.threshold);
                above.map(|(at, _)| (at as u32, 1.0)).collect()
            };
            return Ok(Table::Sparse(sparse_rows(sparse.columns, (0..sparse.rows).map(row))));
        }
        let x = numeric(x, Nan::Refuse)?;
        Ok(Table::Dense(map(&x, |_, value| f64::from(u8::from(value > self.threshold)))))
    }
}

fn binarizer(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    transformer(object, None, Binarizer { threshold: object.f64("threshold")? })
}

/// A kernel matrix centred in feature space.
struct KernelCenterer {
    rows: Vec<f64>,
    all: f64,
}

impl Transform for KernelCenterer {
    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        let x = numeric(x, Nan::Refuse)?;
        let values = x.to_f64();
        let count = self.rows.len() as f64;
        let mut answer = Vec::with_capacity(values.len());
        for row in values.chunks(x.columns.max(1)) {
            let mean = row.iter().sum::<f64>() / count;
            let centred = |(value, fitted): (&f64, &f64)| value - fitted - mean + self.all;
            answer.extend(row.iter().zip(&self.rows).map(centred));
        }
        Ok(Table::Dense(x.like(x.rows, x.columns, answer)))
    }
}

fn kernel_centerer(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let rows = object.vector("K_fit_rows_", None)?;
    let columns = rows.len();
    transformer(object, Some(columns), KernelCenterer { rows, all: object.f64("K_fit_all_")? })
}
