//! Black-box tests live in `tests/tests`; this library starts the binary for them and speaks HTTP
//! with nothing but sockets, so that a test sees every byte that a client would.

#![forbid(unsafe_code)]

pub mod bucket;
pub mod files;
pub mod http;
pub mod program;
pub mod server;

pub use http::{Answer, EventStream};
pub use program::Ended;
pub use server::Server;
