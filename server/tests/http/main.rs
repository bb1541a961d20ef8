//! The HTTP server over the simulated executor.

mod chat;
mod completions;
mod errors;
mod generate;
mod metrics;
mod routes;
mod sockets;
mod support;
mod tls;
