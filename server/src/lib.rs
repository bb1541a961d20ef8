//! One binary that serves language models and classic models: the HTTP server over the engine.

#![forbid(unsafe_code)]

mod admission;
pub mod app;
mod body;
pub mod cli;
pub mod config;
pub mod error;
pub mod fields;
pub mod hub;
pub mod keys;
pub mod kserve;
pub mod lifecycle;
pub mod logging;
pub mod metrics;
mod openai;
mod openapi;
mod outgoing;
mod probes;
mod random;
pub mod registry;
pub mod repository;
mod sse;
pub mod storage;
pub mod tls;
mod track;
