//! Model zoo, weights, KV cache, sampling, text, and the engine thread.

pub mod config;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
pub mod core;
pub mod cpu;
pub mod executor;
pub mod handle;
pub mod layers;
pub mod load;
pub mod memory_plan;
pub mod model_executor;
pub mod models;
pub mod ops;
pub mod sampling;
pub mod sim;
pub mod stats;
pub mod stream;
pub mod text;
mod thread;
pub mod weights;

pub use tokenmill_kernels::isa::Isa;
