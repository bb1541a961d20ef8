//! Pickles and joblib files as plain data. Nothing in them is executed.

mod value;

pub(crate) use value::{Id, Node, Records};
pub use value::{Object, Pickle, Value};
