//! What transformers share: the check of their input, numbers of any table, masks, and one wrapper that makes an
//! [`Estimator`] of a function over tables.

use std::borrow::Cow;
use std::sync::Arc;

use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::{Object, Value};
use crate::steps::input::{self, Nan};
use crate::steps::{Estimator, InputSpec, OutputSpec};
use crate::table::{Column, Frame, Matrix, Numbers, Sparse, Table};
use crate::tensor::DataType;

/// A fitted transformation of tables whose columns are checked already.
pub(super) trait Transform: Send + Sync + 'static {
    /// Transformed features.
    fn transform(&self, x: &Table) -> Result<Table, PredictError>;

    /// Back from them; `None` when the class has no such method.
    fn inverse(&self, x: &Table) -> Option<Result<Table, PredictError>> {
        let _ = x;
        None
    }

    /// What the answers hold.
    fn dtype(&self) -> DataType {
        DataType::Fp64
    }

    /// Whether some column held texts when it was fitted.
    fn text_columns(&self) -> bool {
        false
    }

    /// Names of the outputs for inputs of these names; the same by default.
    fn names(&self, input: Vec<String>) -> Option<Vec<String>> {
        Some(input)
    }
}

/// An estimator of a [`Transform`].
struct Transformer<T> {
    class: String,
    input: InputSpec,
    /// `set_output(transform="pandas")`: answers are frames.
    framed: bool,
    inner: T,
}

/// The estimator of `inner`, which `object` holds; its columns must be `columns` where that is known.
///
/// # Errors
/// When the object's own count of features differs.
pub(super) fn transformer(
    object: Object<'_>,
    columns: Option<usize>,
    inner: impl Transform,
) -> Result<Box<dyn Estimator>, Fault> {
    let mut input = input::spec(object)?;
    if let (Some(expected), Some(columns)) = (input.columns, columns)
        && expected != columns
    {
        let reason = format!("is {expected}, but the parameters are for {columns} features");
        return Err(object.wrong("n_features_in_", reason));
    }
    input.columns = input.columns.or(columns);
    input.text_columns = inner.text_columns();
    let class = object.class.to_owned();
    Ok(Box::new(Transformer { class, input, framed: framed(object), inner }))
}

/// Whether answers are frames with names: `set_output(transform="pandas")`.
pub(super) fn framed(object: Object<'_>) -> bool {
    let wanted = object.some("_sklearn_output_config").and_then(|config| config.key("transform"));
    wanted.and_then(Value::as_str).is_some_and(|wanted| wanted != "default")
}

/// The items of a list, tuple or array of one dimension, each as indices or a truth mask: the positions chosen of
/// `count`, ascending for a mask.
pub(super) fn positions(value: Value<'_>, count: usize) -> Option<Vec<usize>> {
    let (numbers, mask) = match value.as_array() {
        Some(array) => (array.to_f64()?, array.dtype() == crate::tensor::DataType::Bool),
        None => {
            let items = value.as_list()?;
            let mask = !items.is_empty()
                && items.iter().all(|item| matches!(item.node(), crate::pickle::Node::Bool(_)));
            (items.into_iter().map(Value::as_f64).collect::<Option<_>>()?, mask)
        }
    };
    if mask {
        let chosen = (0..numbers.len()).filter(|&index| numbers[index] != 0.0).collect();
        return (numbers.len() == count).then_some(chosen);
    }
    let position = |number: f64| {
        let number = if number < 0.0 { number + count as f64 } else { number };
        let inside = number >= 0.0 && number < count as f64 && number.fract() == 0.0;
        inside.then_some(number as usize)
    };
    numbers.into_iter().map(position).collect()
}

/// `x0`, `x1`, ...: what columns without names are called.
pub(super) fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("x{index}")).collect()
}

impl<T: Transform> Estimator for Transformer<T> {
    fn name(&self) -> String {
        self.class.clone()
    }

    fn input(&self) -> &InputSpec {
        &self.input
    }

    fn methods(&self) -> &[Method] {
        &[Method::Transform]
    }

    fn output_specs(&self, _: Method) -> Vec<OutputSpec> {
        let columns = self.output_names().map(|names| names.len());
        vec![OutputSpec::columns(self.inner.dtype(), columns)]
    }

    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        let x = input::align(x, &self.input)?;
        let answer = self.inner.transform(x.as_ref())?;
        Ok(match self.framed.then(|| self.output_names()).flatten() {
            Some(names) => named(answer, names),
            None => answer,
        })
    }

    fn inverse_transform(&self, x: &Table) -> Result<Table, PredictError> {
        let none = || PredictError::Unsupported(format!("{} has no inverse_transform", self.class));
        self.inner.inverse(x).unwrap_or_else(|| Err(none()))
    }

    fn output_names(&self) -> Option<Vec<String>> {
        let own = self.input.names.clone();
        let names = own.or_else(|| self.input.columns.map(numbered))?;
        self.inner.names(names)
    }
}

/// The table as a frame with names; sparse ones and those whose width differs stay as they are.
pub(super) fn named(table: Table, names: Vec<String>) -> Table {
    if names.len() != table.columns() || matches!(table, Table::Sparse(_)) {
        return table;
    }
    let mut frame = to_frame(&table).into_owned();
    frame.names = Some(names.into_iter().map(Arc::from).collect());
    Table::Frame(frame)
}

/// Any table as columns; texts are one column, sparse zeros are written out.
pub(super) fn to_frame(x: &Table) -> Cow<'_, Frame> {
    let of = |matrix: &Matrix| {
        let values = matrix.to_f64();
        let column = |column: usize| {
            let cells = (0..matrix.rows).map(|row| values[row * matrix.columns + column]);
            Column::Numbers(cells.collect())
        };
        let columns = (0..matrix.columns).map(column).collect();
        Cow::Owned(Frame { rows: matrix.rows, names: None, columns })
    };
    match x {
        Table::Frame(frame) => Cow::Borrowed(frame),
        Table::Dense(matrix) => of(matrix),
        Table::Sparse(sparse) => of(&sparse.to_dense()),
        Table::Texts(texts) => {
            let column = Column::Texts(texts.iter().cloned().map(Some).collect());
            Cow::Owned(Frame { rows: texts.len(), names: None, columns: vec![column] })
        }
    }
}

/// Columns of a table by position, in that order.
///
/// # Panics
/// When a position is outside the table.
pub(super) fn select(x: &Table, positions: &[usize]) -> Table {
    fn dense<T: Copy>(values: &[T], rows: usize, columns: usize, positions: &[usize]) -> Vec<T> {
        let row = |row| positions.iter().map(move |&column| values[row * columns + column]);
        (0..rows).flat_map(row).collect()
    }
    match x {
        Table::Dense(matrix) => {
            let (rows, columns) = (matrix.rows, matrix.columns);
            let values = match &matrix.values {
                Numbers::F32(values) => Numbers::F32(dense(values, rows, columns, positions)),
                Numbers::F64(values) => Numbers::F64(dense(values, rows, columns, positions)),
            };
            Table::Dense(Matrix { rows, columns: positions.len(), values })
        }
        Table::Sparse(sparse) => {
            let mut targets: Vec<Vec<u32>> = vec![Vec::new(); sparse.columns];
            for (target, &column) in positions.iter().enumerate() {
                targets[column].push(target as u32);
            }
            let rows = (0..sparse.rows).map(|row| {
                let cells = sparse.row(row);
                let moved = cells.flat_map(|(column, value)| {
                    targets[column].iter().map(move |&target| (target, value))
                });
                let mut cells: Vec<(u32, f64)> = moved.collect();
                cells.sort_unstable_by_key(|&(column, _)| column);
                cells
            });
            Table::Sparse(sparse_rows(positions.len(), rows))
        }
        Table::Frame(frame) => {
            let pick =
                |names: &Vec<Arc<str>>| positions.iter().map(|&at| names[at].clone()).collect();
            let columns = positions.iter().map(|&at| frame.columns[at].clone()).collect();
            Table::Frame(Frame { rows: frame.rows, names: frame.names.as_ref().map(pick), columns })
        }
        Table::Texts(_) => Table::Frame(Frame {
            columns: positions.iter().map(|_| to_frame(x).columns[0].clone()).collect(),
            ..to_frame(x).into_owned()
        }),
    }
}

/// A sparse table of rows of ascending columns; zeros are kept as they come.
pub(super) fn sparse_rows(columns: usize, rows: impl Iterator<Item = Vec<(u32, f64)>>) -> Sparse {
    let mut sparse =
        Sparse { rows: 0, columns, starts: vec![0], indices: Vec::new(), values: Vec::new() };
    for row in rows {
        sparse.rows += 1;
        for (column, value) in row {
            sparse.indices.push(column);
            sparse.values.push(value);
        }
        sparse.starts.push(sparse.indices.len());
    }
    sparse
}

/// The stored values of a dense matrix that are not zero.
pub(super) fn to_sparse(matrix: &Matrix) -> Sparse {
    let values = matrix.to_f64();
    let row = |row: usize| {
        let cells = (0..matrix.columns).map(|column| values[row * matrix.columns + column]);
        cells
            .enumerate()
            .filter(|&(_, value)| value != 0.0)
            .map(|(at, value)| (at as u32, value))
            .collect()
    };
    sparse_rows(matrix.columns, (0..matrix.rows).map(row))
}

/// Any table as a dense matrix of numbers; texts of numbers are read.
///
/// # Errors
/// When a text is no number, or a number is not finite where `nan` says it must be.
pub(super) fn numeric(x: &Table, nan: Nan) -> Result<Cow<'_, Matrix>, PredictError> {
    input::dense(x, &InputSpec::default(), nan)
}

/// The matrix with every value replaced, column by column number, in its own precision.
pub(super) fn map(x: &Matrix, change: impl Fn(usize, f64) -> f64) -> Matrix {
    let columns = x.columns.max(1);
    let values = x.to_f64();
    let changed = values.iter().enumerate().map(|(at, &value)| change(at % columns, value));
    x.like(x.rows, x.columns, changed.collect())
}

/// Tables side by side: sparse when `sparse`, columns where one holds texts or has names, else dense. Single precision
/// only when all are.
pub(super) fn beside(tables: Vec<Table>, rows: usize, sparse: bool) -> Result<Table, PredictError> {
    let columns: usize = tables.iter().map(Table::columns).sum();
    if sparse {
        let parts: Vec<Cow<'_, Sparse>> = tables
            .iter()
            .map(|table| match table {
                Table::Sparse(sparse) => Ok(Cow::Borrowed(sparse)),
                other => numeric(other, Nan::Any).map(|matrix| Cow::Owned(to_sparse(&matrix))),
            })
            .collect::<Result<_, _>>()?;
        let row = |row: usize| {
            let mut offset = 0;
            let mut cells = Vec::new();
            for part in &parts {
                cells.extend(part.row(row).map(|(at, value)| ((offset + at) as u32, value)));
                offset += part.columns;
            }
            cells
        };
        return Ok(Table::Sparse(sparse_rows(columns, (0..rows).map(row))));
    }
    if tables.iter().any(|table| matches!(table, Table::Frame(_) | Table::Texts(_))) {
        let frames: Vec<Cow<'_, Frame>> = tables.iter().map(to_frame).collect();
        let names: Option<Vec<_>> = frames.iter().map(|frame| frame.names.clone()).collect();
        let names = names.map(|names| names.concat());
        let columns = frames.into_iter().flat_map(|frame| frame.into_owned().columns).collect();
        return Ok(Table::Frame(Frame { rows, names, columns }));
    }
    let parts: Vec<Cow<'_, Matrix>> =
        tables.iter().map(|table| numeric(table, Nan::Any)).collect::<Result<_, _>>()?;
    let single = !parts.is_empty() && parts.iter().all(|part| part.is_single());
    let parts: Vec<(usize, Cow<'_, [f64]>)> =
        parts.iter().map(|part| (part.columns, part.to_f64())).collect();
    let mut values = Vec::with_capacity(rows * columns);
    for row in 0..rows {
        for (width, part) in &parts {
            values.extend_from_slice(&part[row * width..(row + 1) * width]);
        }
    }
    let matrix = Matrix::f64(rows, columns, values);
    Ok(Table::Dense(if single {
        Matrix::f32(rows, columns, matrix.to_f32().into_owned())
    } else {
        matrix
    }))
}
