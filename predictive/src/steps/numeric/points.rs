//! Rows of finite numbers, dense or sparse, and what is computed of each of them.

use std::borrow::Cow;

use rayon::prelude::*;

use crate::model::PredictError;
use crate::pool;
use crate::steps::{InputSpec, input};
use crate::table::{Matrix, Numbers, Sparse, Table};

/// Operations below which rows are not split over threads.
const PARALLEL: usize = 1 << 16;

/// Rows of finite numbers.
pub(crate) struct Points<'a> {
    /// Rows.
    pub(crate) rows: usize,
    /// Columns.
    pub(crate) columns: usize,
    /// They came in single precision.
    pub(crate) single: bool,
    cells: Cells<'a>,
}

enum Cells<'a> {
    Dense(Cow<'a, [f64]>),
    Sparse(Cow<'a, Sparse>),
}

impl<'a> Points<'a> {
    /// Rows of `x`, checked against what the estimator was fitted with; NaN and infinities are refused.
    pub(crate) fn read(x: &'a Table, spec: &InputSpec) -> Result<Self, PredictError> {
        if let Table::Sparse(sparse) = x {
            input::align(x, spec)?;
            let (rows, columns) = (sparse.rows, sparse.columns);
            let stored = Matrix::f64(1, sparse.values.len(), sparse.values.clone());
            input::check_finite(&stored, input::Nan::Refuse)?;
            return Ok(Self {
                rows,
                columns,
                single: false,
                cells: Cells::Sparse(Cow::Borrowed(sparse)),
            });
        }
        let matrix = input::dense(x, spec, input::Nan::Refuse)?;
        let (rows, columns, single) = (matrix.rows, matrix.columns, matrix.is_single());
        let values = match matrix {
            Cow::Borrowed(Matrix { values: Numbers::F64(values), .. }) => {
                Cow::Borrowed(&values[..])
            }
            Cow::Owned(Matrix { values: Numbers::F64(values), .. }) => Cow::Owned(values),
            other => Cow::Owned(other.to_f64().into_owned()),
        };
        Ok(Self { rows, columns, single, cells: Cells::Dense(values) })
    }

    /// Rows of numbers that are known to be finite.
    pub(crate) fn of(rows: usize, columns: usize, values: Vec<f64>) -> Points<'static> {
        assert_eq!(values.len(), rows * columns, "values fill the rows");
        Points { rows, columns, single: false, cells: Cells::Dense(Cow::Owned(values)) }
    }

    /// `width` numbers per row: `compute` reads a dense row and fills its answer. `[rows, width]`.
    pub(crate) fn map(
        &self,
        width: usize,
        compute: impl Fn(&[f64], &mut [f64]) + Sync,
    ) -> Vec<f64> {
        let mut answers = vec![0.0; self.rows * width];
        if answers.is_empty() {
            return answers;
        }
        let row = |scratch: &mut Vec<f64>, index: usize, answer: &mut [f64]| match &self.cells {
            Cells::Dense(values) => {
                compute(&values[index * self.columns..][..self.columns], answer);
            }
            Cells::Sparse(sparse) => {
                scratch.clear();
                scratch.resize(self.columns, 0.0);
                sparse.row(index).for_each(|(column, value)| scratch[column] = value);
                compute(scratch, answer);
            }
        };
        if pool::threads() == 1
            || self.rows == 1
            || answers.len().saturating_mul(self.columns) < PARALLEL
        {
            let mut scratch = Vec::new();
            let rows = answers.chunks_exact_mut(width).enumerate();
            rows.for_each(|(index, answer)| row(&mut scratch, index, answer));
        } else {
            let rows = answers.par_chunks_exact_mut(width).enumerate();
            rows.for_each_init(Vec::new, |scratch, (index, answer)| row(scratch, index, answer));
        }
        answers
    }

    /// Products of every row with every row of `weights` (`[outputs, columns]`): `[rows, outputs]`.
    pub(crate) fn products(&self, weights: &[f64], outputs: usize) -> Vec<f64> {
        let Cells::Sparse(sparse) = &self.cells else {
            return self.map(outputs, |row, answer| {
                for (output, answer) in answer.iter_mut().enumerate() {
                    *answer = dot(row, &weights[output * row.len()..][..row.len()]);
                }
            });
        };
        let mut answers = vec![0.0; self.rows * outputs];
        for (index, answer) in answers.chunks_exact_mut(outputs.max(1)).enumerate() {
            for (column, value) in sparse.row(index) {
                for (output, answer) in answer.iter_mut().enumerate() {
                    *answer += value * weights[output * self.columns + column];
                }
            }
        }
        answers
    }

    /// The same rows with every value changed; sparse rows stay sparse where zero stays zero.
    pub(crate) fn mapped(&self, change: impl Fn(f64) -> f64 + Sync) -> Points<'static> {
        match &self.cells {
            Cells::Sparse(sparse) if change(0.0) == 0.0 => {
                let values = sparse.values.iter().map(|&value| change(value)).collect();
                let sparse = Sparse { values, ..sparse.as_ref().clone() };
                let cells = Cells::Sparse(Cow::Owned(sparse));
                Points { cells, rows: self.rows, columns: self.columns, single: self.single }
            }
            _ => {
                let values = self.map(self.columns, |row, answer| {
                    row.iter().zip(answer).for_each(|(&value, answer)| *answer = change(value));
                });
                Points::of(self.rows, self.columns, values)
            }
        }
    }

    /// The rows written out.
    pub(crate) fn dense(&self) -> Cow<'_, [f64]> {
        match &self.cells {
            Cells::Dense(values) => Cow::Borrowed(values),
            Cells::Sparse(sparse) => Cow::Owned(sparse.to_dense().to_f64().into_owned()),
        }
    }

    /// The smallest value; zero where sparse rows leave one out.
    pub(crate) fn minimum(&self) -> f64 {
        match &self.cells {
            Cells::Dense(values) => values.iter().copied().fold(f64::INFINITY, f64::min),
            Cells::Sparse(sparse) => sparse.values.iter().copied().fold(0.0, f64::min),
        }
    }
}

/// The scalar product of two rows of equal length.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (left, right) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = left.remainder().iter().zip(right.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in left.zip(right) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f64>() + rest
}
