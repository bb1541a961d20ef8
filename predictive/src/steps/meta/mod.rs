//! Estimators made of estimators: votes, averages, chains, searches, and what their parts have in common.

pub(crate) mod bagging;
pub(crate) mod calibrated;
pub(crate) mod delegate;
pub(crate) mod dummy;
pub(crate) mod multi_class;
pub(crate) mod multi_output;
pub(crate) mod stacking;
pub(crate) mod target;
pub(crate) mod threshold;
pub(crate) mod voting;

use crate::array::Array;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::Object;
use crate::steps::{Builder, Estimator, InputSpec, input};
use crate::table::{Column, Frame, Matrix, Numbers, Table};

/// Name of a wrapper with what it wraps: `GridSearchCV(SVC)`.
pub(crate) fn wrapped(name: &str, inner: &dyn Estimator) -> String {
    format!("{name}({})", inner.name())
}

/// The estimators of a list; at least one.
///
/// # Errors
/// When the attribute is no such list, or an estimator cannot be built.
pub(crate) fn read_estimators(
    object: Object<'_>,
    name: &str,
    builder: Builder,
) -> Result<Vec<Box<dyn Estimator>>, Fault> {
    let mut estimators = Vec::new();
    for value in object.list(name)? {
        let inner = value.as_object().ok_or_else(|| {
            object.wrong(name, format!("expected estimators, found {}", value.describe()))
        })?;
        estimators.push(builder.build(inner)?);
    }
    match estimators.is_empty() {
        true => Err(object.wrong(name, "expected at least one estimator")),
        false => Ok(estimators),
    }
}

/// The wrapper's own columns, or those of its first estimator.
pub(crate) fn spec(object: Object<'_>, first: &dyn Estimator) -> Result<InputSpec, Fault> {
    let named = input::spec(object)?;
    Ok(if named.columns.is_some() { named } else { first.input().clone() })
}

/// An answer of an inner estimator that has another shape than its kind promises.
fn unexpected(what: &str, array: &Array) -> PredictError {
    let (shape, dtype) = (array.shape(), array.dtype().name());
    PredictError::Internal(format!("an inner estimator answered {dtype} {shape:?}, not {what}"))
}

/// The numbers of an answer `[rows]` or `[rows, 1]`.
///
/// # Errors
/// When it is something else.
pub(crate) fn column(array: &Array, rows: usize) -> Result<Vec<f64>, PredictError> {
    let numbers = array.to_f64().filter(|numbers| numbers.len() == rows);
    numbers.ok_or_else(|| unexpected("one number a row", array))
}

/// The numbers of an answer `[rows, columns]`.
///
/// # Errors
/// When it is something else.
pub(crate) fn numbers(array: Array, rows: usize, columns: usize) -> Result<Vec<f64>, PredictError> {
    let fits = array.shape() == [rows, columns];
    let numbers = array.to_f64().filter(|_| fits);
    numbers.ok_or_else(|| unexpected(&format!("{columns} numbers a row"), &array))
}

/// The only array of an answer.
///
/// # Errors
/// When there are several.
pub(crate) fn one(mut arrays: Vec<Array>) -> Result<Array, PredictError> {
    match arrays.len() {
        1 => Ok(arrays.remove(0)),
        several => Err(PredictError::Internal(format!(
            "an inner estimator answered {several} outputs, not one"
        ))),
    }
}

/// Probabilities of class 1 of a classifier of two classes.
///
/// # Errors
/// When it has not two classes, or the rows do not fit.
pub(crate) fn positive(estimator: &dyn Estimator, x: &Table) -> Result<Vec<f64>, PredictError> {
    let proba = numbers(one(estimator.predict_proba(x)?)?, x.rows(), 2)?;
    Ok(proba.chunks_exact(2).map(|row| row[1]).collect())
}

/// One score a row of an estimator that tells two classes apart: its decision, the probability of class 1, or the value
/// of a regressor.
///
/// # Errors
/// When it answers something else, or the rows do not fit.
pub(crate) fn binary_score(estimator: &dyn Estimator, x: &Table) -> Result<Vec<f64>, PredictError> {
    let methods = estimator.methods();
    if methods.contains(&Method::DecisionFunction) {
        column(&estimator.decision_function(x)?, x.rows())
    } else if methods.contains(&Method::PredictProba) {
        positive(estimator, x)
    } else {
        column(&estimator.predict(x)?, x.rows())
    }
}

/// What [`binary_score`] of class 1 is above.
pub(crate) fn binary_threshold(estimator: &dyn Estimator) -> f64 {
    let decides = estimator.methods().contains(&Method::DecisionFunction);
    if decides && !estimator.classes().is_empty() { 0.0 } else { 0.5 }
}

/// Values of several estimators side by side: `columns` of `rows` numbers each as `[rows, columns]`.
pub(crate) fn transpose(columns: &[Vec<f64>], rows: usize) -> Vec<f64> {
    (0..rows).flat_map(|row| columns.iter().map(move |column| column[row])).collect()
}

/// The table of some columns; all are below its number.
pub(crate) fn select(x: &Table, columns: &[usize]) -> Table {
    let pick = |matrix: &Matrix| {
        let (rows, width) = (matrix.rows, matrix.columns);
        fn picked<T: Copy>(values: &[T], width: usize, columns: &[usize]) -> Vec<T> {
            let rows = values.chunks_exact(width.max(1));
            rows.flat_map(|row| columns.iter().map(move |&column| row[column])).collect()
        }
        Table::Dense(match &matrix.values {
            Numbers::F32(values) => {
                Matrix::f32(rows, columns.len(), picked(values, width, columns))
            }
            Numbers::F64(values) => {
                Matrix::f64(rows, columns.len(), picked(values, width, columns))
            }
        })
    };
    match x {
        Table::Dense(matrix) => pick(matrix),
        Table::Sparse(sparse) => pick(&sparse.to_dense()),
        Table::Frame(frame) => Table::Frame(Frame {
            rows: frame.rows,
            names: frame.names.as_ref().map(|names| {
                columns.iter().map(|&column| std::sync::Arc::clone(&names[column])).collect()
            }),
            columns: columns.iter().map(|&column| frame.columns[column].clone()).collect(),
        }),
        Table::Texts(texts) => {
            let column = Column::Texts(texts.iter().cloned().map(Some).collect());
            let columns = columns.iter().map(|_| column.clone()).collect();
            Table::Frame(Frame { rows: texts.len(), names: None, columns })
        }
    }
}

/// Dense blocks of equal rows side by side, in double precision.
pub(crate) fn stack(rows: usize, blocks: &[(usize, Vec<f64>)]) -> Matrix {
    let width = blocks.iter().map(|(width, _)| width).sum();
    let mut values = Vec::with_capacity(rows * width);
    for row in 0..rows {
        for (width, block) in blocks {
            values.extend_from_slice(&block[row * width..][..*width]);
        }
    }
    Matrix::f64(rows, width, values)
}
