//! Estimators over finite numbers: one adapter from tables to rows of `f64`, and the rules that compute on them.
//!
//! A family of estimators implements [`Rule`] on its parameters; [`Numeric`] checks the input and makes it an
//! [`Estimator`]. Sparse rows stay sparse: linear rules read their entries, others one dense row at a time.

mod attributes;
mod points;

use crate::array::{Array, Values};
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::{Object, Value};
use crate::steps::{Estimator, InputSpec, OutputSpec, input, math, output};
use crate::table::{Matrix, Numbers, Table};
use crate::tensor::DataType;

pub(crate) use attributes::{broadcast, matrix, sparse, transposed};
pub(crate) use points::{Points, dot};

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

    /// Notes whether an array or sparse matrix of the file is single precision.
    pub(crate) fn precision(&mut self, object: Object<'_>, name: &str) {
        let value = object.get(name);
        let sparse = value.and_then(Value::as_object).and_then(|inner| inner.get("data"));
        let array = sparse.or(value).and_then(|value| value.as_array());
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
