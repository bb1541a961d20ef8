//! Classic models behind one trait: named tensors in, named tensors out.
//!
//! Formats lower to a few internal forms that implement [`Model`]; servers know [`Signature`] and
//! [`TensorMap`] only. This crate holds the public types; the forms and formats build on them.

mod model;
mod tensor;

pub use model::{Model, PredictError, Signature, TensorSpec};
pub use tensor::{DataType, Tensor, TensorError, TensorMap};
