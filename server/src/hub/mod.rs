//! Models by hub id: `org/name`, downloaded once into the cache that the hub's Python client uses too.
//!
//! `hf-hub` gives the layout of that cache. Its downloads trust what comes: no checksum, no second try, no
//! end of a silent connection; `docs/dependencies.md` has the comparison. What is here is the part a server
//! needs: one listing, the files that matter, resumed and verified downloads.

mod cache;
mod client;
mod download;
mod error;
mod files;
mod id;
#[cfg(test)]
mod tests;

pub use client::{HubClient, Progress};
pub(crate) use download::sha256;
pub use error::HubError;
pub(crate) use files::is_model_file;
pub use id::HubId;
