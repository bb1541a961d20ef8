//! Benchmarks of tokenmill; see `docs/performance.md`.

pub mod bandwidth;
pub mod decode;
pub mod synthetic;
