//! The CPU device: operations run at once on the kernel pool.

mod ops;
mod step;

pub use ops::CpuOps;
pub use step::StepInputs;
