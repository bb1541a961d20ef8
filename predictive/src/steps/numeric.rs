//! Estimators over finite numbers: one adapter from tables to rows of `f64`, and the rules that compute on them.
//!
//! A family of estimators implements [`Rule`] on its parameters; [`Numeric`] checks the input and makes it an
//! [`Estimator`]. Sparse rows stay sparse: linear rules read their entries, others one dense row at a time.

use std::borrow::Cow;

use rayon::prelude::*;

use crate::array::{Array, Values};
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::{Object, Value};
use crate::pool;
use crate::steps::{Estimator, InputSpec, OutputSpec, input, math, output};
use crate::table::{Matrix, Numbers, Sparse, Table};
use crate::tensor::DataType;

/// Operations below which rows are not split over threads.
const PARALLEL: usize = 1 << 16;

/// Elements of the largest sparse attribute that is written out dense (64 MiB).
const MAX_DENSE: usize = 1 << 23;

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

/// What every numeric estimator has.
pub(crate) struct Base {
    /// Class name.
    pub(crate) name: String,
    /// What it reads.
    pub(crate) input: InputSpec,
    /// Its methods, the default first.
    pub(crate) methods: Vec<Method>,
    /// Classes of a classifier, one array per output.
    pub(crate) classes: Vec<Array>,
    /// The file's precision is single: with single input, answers are single too.
    pub(crate) single: bool,
}

impl Base {
    /// The base of an object that is no classifier.
    pub(crate) fn new(object: Object<'_>, methods: &[Method]) -> Result<Self, Fault> {
        Ok(Self {
            name: object.class.into(),
            input: input::spec(object)?,
            methods: methods.to_vec(),
            classes: Vec::new(),
            single: false,
        })
    }

    /// The base of a classifier with `classes_`.
    pub(crate) fn classifier(object: Object<'_>, methods: &[Method]) -> Result<Self, Fault> {
        let base = Self::new(object, methods)?;
        Ok(Self { classes: vec![input::labels(object, "classes_")?], ..base })
    }

    /// Classes of the one output.
    pub(crate) fn labels(&self) -> &Array {
        &self.classes[0]
    }

    /// Checks that parameters have `found` columns, as many as the estimator reads.
    pub(crate) fn columns(
        &mut self,
        object: Object<'_>,
        name: &str,
        found: usize,
    ) -> Result<(), Fault> {
        let expected = *self.input.columns.get_or_insert(found);
        if expected != found {
            let reason = format!("has {found} columns, n_features_in_ is {expected}");
            return Err(object.wrong(name, reason));
        }
        Ok(())
    }

    /// Notes whether an array of the file is single precision.
    pub(crate) fn precision(&mut self, object: Object<'_>, name: &str) {
        let array = object.get(name).and_then(|value| value.as_array());
        self.single = array.is_some_and(|array| array.dtype() == DataType::Fp32);
    }

    /// The estimator of a rule.
    pub(crate) fn with<R: Rule + 'static>(self, rule: R) -> Box<dyn Estimator> {
        Box::new(Numeric { base: self, rule })
    }
}

/// An answer to rows, `[n]` or `[n, columns]`; a rule is asked only for methods that its base lists.
pub(crate) type Answer = Result<Array, PredictError>;

/// What a family computes from its parameters.
pub(crate) trait Rule: Send + Sync {
    /// Labels or values.
    fn predict(&self, base: &Base, x: &Points<'_>) -> Answer {
        let _ = x;
        Err(absent(base))
    }

    /// Probabilities, one array per output.
    fn proba(&self, base: &Base, x: &Points<'_>) -> Result<Vec<Array>, PredictError> {
        let _ = x;
        Err(absent(base))
    }

    /// Logarithms of the probabilities.
    fn log_proba(&self, base: &Base, x: &Points<'_>) -> Result<Vec<Array>, PredictError> {
        Ok(self.proba(base, x)?.iter().map(|array| changed(array, f64::ln)).collect())
    }

    /// Decision values.
    fn decision(&self, base: &Base, x: &Points<'_>) -> Answer {
        let _ = x;
        Err(absent(base))
    }

    /// A score per row.
    fn scores(&self, base: &Base, x: &Points<'_>) -> Answer {
        let _ = x;
        Err(absent(base))
    }

    /// Distances to neighbours and their indices.
    fn kneighbors(&self, base: &Base, x: &Points<'_>) -> Result<Vec<Array>, PredictError> {
        let _ = x;
        Err(absent(base))
    }

    /// Transformed rows `[n, columns]`.
    fn transform(&self, base: &Base, x: &Points<'_>) -> Answer {
        let _ = x;
        Err(absent(base))
    }
}

fn absent(base: &Base) -> PredictError {
    PredictError::Internal(format!("{} lists a method that it lacks", base.name))
}

/// Every number of an array changed.
pub(crate) fn changed(array: &Array, change: impl Fn(f64) -> f64) -> Array {
    let values = array.to_f64().unwrap_or_default();
    Array::f64(array.shape().to_vec(), values.into_iter().map(change).collect())
}

/// A rule as an estimator.
struct Numeric<R> {
    base: Base,
    rule: R,
}

impl<R> Numeric<R> {
    fn read<'a>(&self, method: Method, x: &'a Table) -> Result<Points<'a>, PredictError>
    where
        Self: Estimator,
    {
        if !self.base.methods.contains(&method) {
            return Err(self.lacks(method));
        }
        Points::read(x, &self.base.input)
    }

    /// Rounds an answer to single precision where parameters and rows are.
    fn width(&self, x: &Points<'_>, array: Array) -> Array {
        match array.values() {
            Values::F64(values) if self.base.single && x.single => {
                let values = values.iter().map(|&value| value as f32).collect();
                Array::f32(array.shape().to_vec(), values)
            }
            _ => array,
        }
    }
}

impl<R: Rule> Estimator for Numeric<R> {
    fn name(&self) -> String {
        self.base.name.clone()
    }

    fn input(&self) -> &InputSpec {
        &self.base.input
    }

    fn methods(&self) -> &[Method] {
        &self.base.methods
    }

    fn output_specs(&self, method: Method) -> Vec<OutputSpec> {
        output::tried(self, method)
    }

    fn classes(&self) -> &[Array] {
        &self.base.classes
    }

    fn predict(&self, x: &Table) -> Answer {
        let x = self.read(Method::Predict, x)?;
        Ok(self.width(&x, self.rule.predict(&self.base, &x)?))
    }

    fn predict_proba(&self, x: &Table) -> Result<Vec<Array>, PredictError> {
        let x = self.read(Method::PredictProba, x)?;
        let answers = self.rule.proba(&self.base, &x)?;
        Ok(answers.into_iter().map(|array| self.width(&x, array)).collect())
    }

    fn predict_log_proba(&self, x: &Table) -> Result<Vec<Array>, PredictError> {
        let x = self.read(Method::PredictLogProba, x)?;
        let answers = self.rule.log_proba(&self.base, &x)?;
        Ok(answers.into_iter().map(|array| self.width(&x, array)).collect())
    }

    fn decision_function(&self, x: &Table) -> Answer {
        let x = self.read(Method::DecisionFunction, x)?;
        Ok(self.width(&x, self.rule.decision(&self.base, &x)?))
    }

    fn score_samples(&self, x: &Table) -> Answer {
        let x = self.read(Method::ScoreSamples, x)?;
        Ok(self.width(&x, self.rule.scores(&self.base, &x)?))
    }

    fn kneighbors(&self, x: &Table) -> Result<Vec<Array>, PredictError> {
        let x = self.read(Method::Kneighbors, x)?;
        self.rule.kneighbors(&self.base, &x)
    }

    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        let x = self.read(Method::Transform, x)?;
        let array = self.width(&x, self.rule.transform(&self.base, &x)?);
        let columns = array.shape().get(1).copied().unwrap_or(1);
        let values = match array.values() {
            Values::F32(values) => Numbers::F32(values.clone()),
            _ => Numbers::F64(array.to_f64().unwrap_or_default()),
        };
        Ok(Table::Dense(Matrix { rows: x.rows, columns, values }))
    }
}

/// `[n]` for one column that the library answers flat, else `[n, columns]`.
pub(crate) fn shaped(rows: usize, columns: usize, flat: bool, values: Vec<f64>) -> Array {
    Array::f64(if flat && columns == 1 { vec![rows] } else { vec![rows, columns] }, values)
}

/// Labels of the greatest score of each row of `scores`; the first wins.
pub(crate) fn best(labels: &Array, rows: usize, scores: &[f64]) -> Array {
    labels.take(vec![rows], &math::argmax_rows(scores, labels.len()))
}

/// Index of the smallest of each of `rows` rows; the first wins.
pub(crate) fn smallest(rows: usize, distances: &[f64]) -> Vec<usize> {
    let width = distances.len() / rows.max(1);
    let nearest = |row: &[f64]| {
        (0..row.len()).fold(0, |best, index| if row[index] < row[best] { index } else { best })
    };
    distances.chunks_exact(width.max(1)).map(nearest).collect()
}

/// Subtracts from each row of joint log-likelihoods the logarithm of its sum: log-probabilities.
pub(crate) fn normalise_logs(rows: usize, joint: &mut [f64]) {
    let width = joint.len() / rows.max(1);
    for row in joint.chunks_exact_mut(width.max(1)) {
        let total = math::log_sum_exp(row);
        row.iter_mut().for_each(|value| *value -= total);
    }
}

/// Two probabilities per row from that of the second class.
pub(crate) fn pairs(positive: impl IntoIterator<Item = f64>) -> Vec<f64> {
    positive.into_iter().flat_map(|p| [1.0 - p, p]).collect()
}

/// Rows, columns and numbers of an attribute that is a dense or a compressed sparse matrix (written out). It has
/// columns, so that the number of its rows is bounded by the file.
pub(crate) fn matrix(object: Object<'_>, name: &str) -> Result<(usize, usize, Vec<f64>), Fault> {
    let (rows, columns, values) = match object.attribute(name)?.as_object() {
        None => object.matrix(name)?,
        Some(inner) => {
            let sparse = sparse(object, name, inner)?;
            if sparse.rows.saturating_mul(sparse.columns) > MAX_DENSE {
                let reason = "is a sparse matrix too large to be written out";
                return Err(object.wrong(name, reason));
            }
            let values = sparse.to_dense().to_f64().into_owned();
            (sparse.rows, sparse.columns, values)
        }
    };
    if columns == 0 || (rows == 0 && columns > MAX_DENSE) {
        return Err(object.wrong(name, format!("has {rows} rows of {columns} columns")));
    }
    Ok((rows, columns, values))
}

/// A compressed sparse row matrix of a file.
pub(crate) fn sparse(owner: Object<'_>, name: &str, inner: Object<'_>) -> Result<Sparse, Fault> {
    if !inner.class.starts_with("csr_") {
        let reason = format!("expected an array or a csr matrix, found {}", inner.class);
        return Err(owner.wrong(name, reason));
    }
    let wrong = |reason: &str| owner.wrong(name, reason);
    let shape = inner.attribute("_shape")?.as_list().unwrap_or_default();
    let sizes: Option<Vec<usize>> = shape.into_iter().map(Value::as_usize).collect();
    let [rows, columns] = sizes.unwrap_or_default()[..] else {
        return Err(wrong("the sparse matrix has no shape of two sizes"));
    };
    let whole = |field: &str| -> Result<Vec<usize>, Fault> {
        let values = inner.vector(field, None)?;
        let fits = |value: &f64| *value >= 0.0 && *value < u32::MAX.into();
        if !values.iter().all(fits) {
            return Err(wrong("an index of the sparse matrix is out of range"));
        }
        Ok(values.into_iter().map(|value| value as usize).collect())
    };
    let (starts, indices) = (whole("indptr")?, whole("indices")?);
    let values = inner.vector("data", Some(indices.len()))?;
    let ascending = starts.windows(2).all(|pair| pair[0] <= pair[1]);
    let ends = starts.first() == Some(&0) && starts.last().is_some_and(|&end| end <= indices.len());
    if starts.len() != rows.saturating_add(1) || !ascending || !ends {
        return Err(wrong("the row positions of the sparse matrix do not fit its shape"));
    }
    if indices.iter().any(|&index| index >= columns) {
        return Err(wrong("a column index of the sparse matrix is out of range"));
    }
    sorted(
        Sparse { rows, columns, starts, indices: Vec::new(), values: Vec::new() },
        &indices,
        &values,
    )
    .ok_or_else(|| wrong("the sparse matrix stores a column twice in a row"))
}

/// Fills `shell` with the entries of each row in ascending order of columns; `None` for a repeated one.
fn sorted(mut shell: Sparse, indices: &[usize], values: &[f64]) -> Option<Sparse> {
    for row in 0..shell.rows {
        let range = shell.starts[row]..shell.starts[row + 1];
        let entries = indices[range.clone()].iter().copied().zip(values[range].iter().copied());
        let mut entries: Vec<(usize, f64)> = entries.collect();
        entries.sort_by_key(|&(column, _)| column);
        if entries.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return None;
        }
        for (column, value) in entries {
            shell.indices.push(u32::try_from(column).ok()?);
            shell.values.push(value);
        }
    }
    Some(shell)
}

/// The transpose of a row-major `[rows, columns]` matrix.
pub(crate) fn transposed(rows: usize, columns: usize, values: &[f64]) -> Vec<f64> {
    let cell = |index: usize| values[index % rows.max(1) * columns + index / rows.max(1)];
    (0..rows * columns).map(cell).collect()
}

/// A vector of `length`, or one number for all of them (an intercept of 0.0).
pub(crate) fn broadcast(object: Object<'_>, name: &str, length: usize) -> Result<Vec<f64>, Fault> {
    let values = object.vector(name, None)?;
    match values.len() {
        found if found == length => Ok(values),
        1 => Ok(vec![values[0]; length]),
        found => Err(object.wrong(name, format!("expected {length} values or one, found {found}"))),
    }
}
