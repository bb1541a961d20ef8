//! Models through the whole engine: parity with `transformers`, and invariance under scheduling.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod common;
mod conformance;
mod parity;
mod real_model;
