//! KServe's protocols: V1, the Open Inference Protocol (V2) over HTTP and gRPC.
//!
//! [`infer`] is neutral of the protocol: whoever speaks one makes an [`infer::InferRequest`] of it, calls
//! [`infer::plan`] and [`infer::run`], and prints the outputs or the [`failure::Failure`].

mod classification;
mod cloudevents;
pub mod failure;
mod generate;
pub mod grpc;
mod http;
pub mod infer;
mod json_array;
mod json_print;
pub(crate) mod metadata;
mod model;
pub(crate) mod openai;
mod parameters;
mod repository;
pub mod statistics;
mod strict;
pub(crate) mod v1;
mod v2;
pub mod v2_binary;
pub(crate) mod v2_json;

pub use cloudevents::CloudEventConfig;
pub(crate) use http::{fallback, routes};
pub use model::{Predictive, Unserved};
pub use parameters::{Parameter, Parameters};

/// Settings of these protocols.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KserveConfig {
    /// What KServe's servers answer also where ours answer better.
    pub strict: bool,
    /// Series under Triton's names in `/metrics`.
    pub triton_metrics: bool,
    /// The gRPC port.
    pub grpc: grpc::GrpcConfig,
    /// Attributes of CloudEvents.
    pub cloud_events: CloudEventConfig,
}
