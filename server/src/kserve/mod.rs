//! KServe's protocols: V1, the Open Inference Protocol (V2) over HTTP and gRPC.

mod model;

pub use model::{Predictive, Unserved};
