//! What methods answer, known before any row is seen: the outputs that metadata lists.

use crate::array::Array;
use crate::model::{Method, PredictError};
use crate::steps::Estimator;
use crate::table::{Matrix, Table};
use crate::tensor::DataType;

/// One output of a method: rows, and behind them what the estimator fixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputSpec {
    /// Its element type, for inputs of the type that the signature names.
    pub dtype: DataType,
    /// Sizes behind the rows: none for a value a row; `None` where a size is not known or differs from request to request.
    pub sizes: Vec<Option<usize>>,
}

impl OutputSpec {
    /// A value a row: `[n]`.
    pub fn values(dtype: DataType) -> Self {
        Self { dtype, sizes: Vec::new() }
    }

    /// Several values a row: `[n, columns]`.
    pub fn columns(dtype: DataType, columns: impl Into<Option<usize>>) -> Self {
        Self { dtype, sizes: vec![columns.into()] }
    }

    /// A value a row for one target, else a column a target, as regressors answer.
    pub fn targets(dtype: DataType, targets: usize) -> Self {
        match targets {
            1 => Self::values(dtype),
            several => Self::columns(dtype, several),
        }
    }
}

/// Columns up to which a row of zeros is tried.
const MAX_TRIED: usize = 1 << 16;

/// What an estimator of numbers answers to a row of zeros: the shape of its answers does not depend on the numbers. Transforms
/// may be wide, so theirs is not tried.
pub(crate) fn tried(estimator: &impl Estimator, method: Method) -> Vec<OutputSpec> {
    let usual = || usual(estimator.classes(), None, method);
    let columns = estimator.input().columns.filter(|&columns| columns <= MAX_TRIED);
    let Some(columns) = columns else { return usual() };
    let x = Table::Dense(Matrix::f64(1, columns, vec![0.0; columns]));
    let one = |answer: Result<Array, PredictError>| answer.map(|array| vec![array]);
    let answers = match method {
        Method::Predict => one(estimator.predict(&x)),
        Method::PredictProba => estimator.predict_proba(&x),
        Method::PredictLogProba => estimator.predict_log_proba(&x),
        Method::DecisionFunction => one(estimator.decision_function(&x)),
        Method::ScoreSamples => one(estimator.score_samples(&x)),
        Method::Kneighbors => estimator.kneighbors(&x),
        Method::Apply | Method::Transform => return usual(),
    };
    let spec = |array: &Array| OutputSpec {
        dtype: array.dtype(),
        sizes: array.shape().iter().skip(1).copied().map(Some).collect(),
    };
    answers.map_or_else(|_| usual(), |arrays| arrays.iter().map(spec).collect())
}

/// What a method answers unless an estimator says otherwise: labels and probabilities of its classes, double precision for
/// everything else.
pub(crate) fn usual(classes: &[Array], names: Option<usize>, method: Method) -> Vec<OutputSpec> {
    let double = DataType::Fp64;
    match method {
        Method::Predict => vec![match classes {
            [] => OutputSpec::values(double),
            [one] => OutputSpec::values(one.dtype()),
            several => OutputSpec::columns(several[0].dtype(), several.len()),
        }],
        Method::PredictProba | Method::PredictLogProba => match classes {
            [] => vec![OutputSpec::columns(double, None)],
            classes => {
                classes.iter().map(|classes| OutputSpec::columns(double, classes.len())).collect()
            }
        },
        Method::DecisionFunction => vec![match classes {
            [classes] if classes.len() > 2 => OutputSpec::columns(double, classes.len()),
            _ => OutputSpec::values(double),
        }],
        Method::ScoreSamples => vec![OutputSpec::values(double)],
        Method::Kneighbors => {
            vec![OutputSpec::columns(double, None), OutputSpec::columns(DataType::Int64, None)]
        }
        Method::Apply => vec![OutputSpec::columns(DataType::Int64, None)],
        Method::Transform => vec![OutputSpec::columns(double, names)],
    }
}
