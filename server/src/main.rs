//! The `tokenmill` binary.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    tokenmill::cli::run(std::env::args().collect())
}
