//! One file per format, each lowering to the internal forms: `ensemble` and `steps`.

pub mod lightgbm;
pub mod mlflow;
pub mod sklearn;
pub mod xgboost;

use crate::format::Format;

/// Every format; where two are equally sure of a file, the first wins.
pub static FORMATS: &[&dyn Format] =
    &[&mlflow::Mlflow, &lightgbm::LightGbm, &sklearn::Sklearn, &xgboost::XgBoost];
