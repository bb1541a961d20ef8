//! CPU kernels: each a scalar reference that defines the result, with SIMD variants chosen at run time.
//!
//! Results never depend on the number of rows computed together or on the number of threads: every output element is
//! summed in one fixed order. Public functions check lengths at the entry and are safe to call.

pub mod activation;
pub mod attention;
pub mod elementwise;
pub mod isa;
pub mod layer_norm;
pub mod logits;
pub mod matrix;
mod pages;
pub mod pool;
pub mod rms_norm;
pub mod rope;
pub mod rows;
mod simd;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod trees;
