//! The trait that every format lowers to.

use crate::tensor::{DataType, TensorMap};

/// One named input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: DataType,
    /// Its sizes; `None` where any size is accepted (the batch).
    pub shape: Vec<Option<usize>>,
}

/// Inputs and outputs of a model, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    /// What `predict` needs.
    pub inputs: Vec<TensorSpec>,
    /// What it gives by default.
    pub outputs: Vec<TensorSpec>,
    /// Rows of the first axis are independent, so requests may be merged.
    pub batchable: bool,
    /// Whether a column was text when the model was fitted, so that `"7"` in a row is a text and not a number.
    pub text_columns: bool,
    /// Names of the columns of the one input, where the file knows them: frames are matched by them.
    pub columns: Option<Vec<String>>,
}

/// What a loaded model is, for metadata and `inspect`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Name of the format, as KServe's `modelFormat.name` has it: `sklearn`, `xgboost`, `lightgbm`.
    pub format: &'static str,
    /// The library that wrote the file and its version, where the file says: `scikit-learn 1.5.2`.
    pub library: Option<String>,
    /// What it is: `Pipeline(StandardScaler, LogisticRegression)`, `gbtree binary:logistic`.
    pub kind: String,
    /// Facts for people: trees, depth, bytes of parameters, classes. Name and value.
    pub facts: Vec<(&'static str, String)>,
}

/// What a tabular model is asked to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Labels or values.
    Predict,
    /// Class probabilities.
    PredictProba,
    /// Their logarithms.
    PredictLogProba,
    /// Distance to the decision border, or the raw margin of a boosted ensemble.
    DecisionFunction,
    /// Transformed features.
    Transform,
    /// Log-likelihood or anomaly score of each row.
    ScoreSamples,
    /// Leaf of each tree.
    Apply,
    /// Distances to the nearest training rows, and their indices.
    Kneighbors,
}

impl Method {
    /// Every method with the library's name.
    pub const NAMES: [(Method, &'static str); 8] = [
        (Method::Predict, "predict"),
        (Method::PredictProba, "predict_proba"),
        (Method::PredictLogProba, "predict_log_proba"),
        (Method::DecisionFunction, "decision_function"),
        (Method::Transform, "transform"),
        (Method::ScoreSamples, "score_samples"),
        (Method::Apply, "apply"),
        (Method::Kneighbors, "kneighbors"),
    ];

    /// The library's name.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(method, _)| *method == self).map_or("", |(_, name)| name)
    }

    /// The method of a name.
    pub fn from_name(name: &str) -> Option<Method> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(method, _)| *method)
    }
}

/// One request, whatever protocol it came by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The tensors.
    pub inputs: TensorMap,
    /// Each tensor is a named column (`[n]` or `[n, 1]`) of one table, not an input of its own.
    pub frame: bool,
    /// Methods to call, each an output of its name; empty asks for the default, whose output is `output-0`.
    pub methods: Vec<Method>,
}

/// Why a prediction failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PredictError {
    /// The request's values: names the input.
    #[error("input {input}: {reason}")]
    Input {
        /// Name of the input.
        input: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The model has no such method: names it and those it has.
    #[error("{0}")]
    Unsupported(String),
    /// Our fault.
    #[error("{0}")]
    Internal(String),
}

impl PredictError {
    /// The values of the one input of a tabular model are wrong.
    pub fn input(reason: impl Into<String>) -> Self {
        PredictError::Input { input: "x".into(), reason: reason.into() }
    }
}

/// A loaded model.
pub trait Model: Send + Sync {
    /// What goes in and out.
    fn signature(&self) -> &Signature;
    /// What it is.
    fn description(&self) -> &Description;
    /// Methods that a request may name; empty for models without methods. The first is the default.
    fn methods(&self) -> &[Method] {
        &[]
    }
    /// Computes the outputs; on a thread of a rayon pool it may split rows over it, elsewhere it stays on its thread.
    ///
    /// # Errors
    /// [`PredictError::Input`] when the inputs do not fit the signature.
    fn predict(&self, request: &Request) -> Result<TensorMap, PredictError>;
}
