//! One binary that serves language models and classic models: the HTTP server over the engine.

#![forbid(unsafe_code)]

mod admission;
pub mod app;
mod body;
pub mod error;
pub mod fields;
pub mod lifecycle;
pub mod metrics;
mod openai;
mod openapi;
mod probes;
mod random;
pub mod registry;
mod sse;
mod track;
