//! What tabular models read: rows of numbers or of named columns, dense or sparse.

use std::sync::Arc;

/// Numbers in the precision they came in. As in numpy, a step over single precision answers in single precision.
#[derive(Clone, Debug, PartialEq)]
pub enum Numbers {
    /// Single precision.
    F32(Vec<f32>),
    /// Double precision; integers and booleans arrive as this.
    F64(Vec<f64>),
}

/// A dense row-major matrix; NaN is "missing".
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// `rows * columns` values.
    pub values: Numbers,
}

impl Matrix {
    /// Double precision.
    ///
    /// # Panics
    /// When `values` does not hold `rows * columns` numbers.
    pub fn f64(rows: usize, columns: usize, values: Vec<f64>) -> Self {
        assert_eq!(values.len(), rows * columns, "values fill the matrix");
        Self { rows, columns, values: Numbers::F64(values) }
    }

    /// Single precision.
    ///
    /// # Panics
    /// When `values` does not hold `rows * columns` numbers.
    pub fn f32(rows: usize, columns: usize, values: Vec<f32>) -> Self {
        assert_eq!(values.len(), rows * columns, "values fill the matrix");
        Self { rows, columns, values: Numbers::F32(values) }
    }

    /// Whether the values are single precision.
    pub fn is_single(&self) -> bool {
        matches!(self.values, Numbers::F32(_))
    }

    /// The values in double precision, borrowed where they are.
    pub fn to_f64(&self) -> std::borrow::Cow<'_, [f64]> {
        match &self.values {
            Numbers::F32(values) => values.iter().copied().map(f64::from).collect(),
            Numbers::F64(values) => values.into(),
        }
    }

    /// The values rounded to single precision, borrowed where they are.
    pub fn to_f32(&self) -> std::borrow::Cow<'_, [f32]> {
        match &self.values {
            Numbers::F32(values) => values.into(),
            Numbers::F64(values) => values.iter().map(|&value| value as f32).collect(),
        }
    }

    /// A matrix of `values` in this matrix's precision (rounded for single): what a step answers.
    ///
    /// # Panics
    /// When `values` does not hold `rows * columns` numbers.
    pub fn like(&self, rows: usize, columns: usize, values: Vec<f64>) -> Matrix {
        if self.is_single() {
            Matrix::f32(rows, columns, values.into_iter().map(|value| value as f32).collect())
        } else {
            Matrix::f64(rows, columns, values)
        }
    }
}

/// Compressed sparse rows; column indices of a row ascend and are unique.
#[derive(Clone, Debug, PartialEq)]
pub struct Sparse {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// `rows + 1` positions in `indices` and `values`.
    pub starts: Vec<usize>,
    /// Column of each stored value.
    pub indices: Vec<u32>,
    /// The stored values.
    pub values: Vec<f64>,
}

impl Sparse {
    /// Columns and values of one row.
    pub fn row(&self, row: usize) -> impl Iterator<Item = (usize, f64)> {
        let range = self.starts[row]..self.starts[row + 1];
        let indices = self.indices[range.clone()].iter().map(|&index| index as usize);
        indices.zip(self.values[range].iter().copied())
    }

    /// All zeros written out.
    pub fn to_dense(&self) -> Matrix {
        let mut values = vec![0.0; self.rows * self.columns];
        for row in 0..self.rows {
            for (column, value) in self.row(row) {
                values[row * self.columns + column] = value;
            }
        }
        Matrix::f64(self.rows, self.columns, values)
    }
}

/// One column of a frame.
#[derive(Clone, Debug, PartialEq)]
pub enum Column {
    /// Numbers; NaN is missing.
    Numbers(Vec<f64>),
    /// Texts; `None` is missing.
    Texts(Vec<Option<Arc<str>>>),
}

impl Column {
    /// Rows.
    pub fn len(&self) -> usize {
        match self {
            Column::Numbers(values) => values.len(),
            Column::Texts(values) => values.len(),
        }
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Columns of equal length, with names where the request or the step before gave them.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Rows (also when there is no column).
    pub rows: usize,
    /// Name of each column; `None` for an array without names.
    pub names: Option<Vec<Arc<str>>>,
    /// The columns.
    pub columns: Vec<Column>,
}

/// The input of a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Table {
    /// A numeric array.
    Dense(Matrix),
    /// A sparse numeric array (text vectorisers, one-hot encoders).
    Sparse(Sparse),
    /// Columns: a data frame, or an array that holds texts.
    Frame(Frame),
    /// A list of texts: what text vectorisers read.
    Texts(Vec<Arc<str>>),
}

impl Table {
    /// Rows.
    pub fn rows(&self) -> usize {
        match self {
            Table::Dense(matrix) => matrix.rows,
            Table::Sparse(sparse) => sparse.rows,
            Table::Frame(frame) => frame.rows,
            Table::Texts(texts) => texts.len(),
        }
    }

    /// Columns; 1 for a list of texts.
    pub fn columns(&self) -> usize {
        match self {
            Table::Dense(matrix) => matrix.columns,
            Table::Sparse(sparse) => sparse.columns,
            Table::Frame(frame) => frame.columns.len(),
            Table::Texts(_) => 1,
        }
    }

    /// The column names, where there are any.
    pub fn names(&self) -> Option<&[Arc<str>]> {
        match self {
            Table::Frame(frame) => frame.names.as_deref(),
            _ => None,
        }
    }
}
