//! Classic models behind one trait: named tensors in, named tensors out.
//!
//! Formats lower to a few internal forms that implement [`Model`]: [`ensemble`] for trees, [`steps`] for estimators and
//! pipelines; a graph form for ONNX and its relatives takes its place beside them. Servers know [`Signature`] and
//! [`TensorMap`] only.

mod array;
mod batch;
pub mod ensemble;
mod error;
mod format;
pub mod formats;
mod handle;
mod model;
pub mod pickle;
mod pool;
mod queue;
pub mod steps;
mod table;
mod tensor;

pub use array::{Array, Values};
pub use batch::Batching;
pub use error::{Fault, LoadError};
pub use format::{Format, HEAD, LoadOptions, ModelFiles, Probe, load, recognise};
pub use handle::{HandleOptions, PredictHandle, Prediction, SubmitError, Timings};
pub use model::{Description, Method, Model, PredictError, Request, Signature, TensorSpec};
pub use pool::PredictPool;
pub use queue::Priority;
pub use table::{Column, Frame, Matrix, Numbers, Sparse, Table};
pub use tensor::{DataType, Element, Tensor, TensorError, TensorMap};
