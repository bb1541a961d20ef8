//! V1 and V2 over HTTP, called in process: what clients of KServe's servers send, and what they read.

mod strict;
mod support;
mod v1;
mod v2;
