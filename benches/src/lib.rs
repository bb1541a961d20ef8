//! Benchmarks of tokenmill; see `docs/performance.md`.
