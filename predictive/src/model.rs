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
    /// What it gives.
    pub outputs: Vec<TensorSpec>,
    /// Rows of the first axis are independent, so requests may be merged.
    pub batchable: bool,
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
    /// Our fault.
    #[error("{0}")]
    Internal(String),
}

/// A loaded model.
pub trait Model: Send + Sync {
    /// What goes in and out.
    fn signature(&self) -> &Signature;
    /// Computes the outputs; runs on a CPU pool thread.
    ///
    /// # Errors
    /// [`PredictError::Input`] when the inputs do not fit the signature.
    fn predict(&self, inputs: &TensorMap) -> Result<TensorMap, PredictError>;
}
