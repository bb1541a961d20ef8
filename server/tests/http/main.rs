//! The HTTP server over the simulated executor.

mod chat;
mod completions;
mod errors;
mod metrics;
mod routes;
mod sockets;
mod support;
mod tls;
