//! `cargo xtask bench`: the timings of docs/performance.md.

use std::path::Path;

use anyhow::Result;

use crate::{model, shell};

/// Runs the benchmarks on the demo model; options go to the benchmark.
pub(crate) fn run(root: &Path, options: &[String]) -> Result<()> {
    let model = model::ensure_present(root)?;
    let mut bench =
        shell::command(root, "cargo", &["run", "--release", "--package", "tokenmill-benches"]);
    shell::run(bench.arg("--").arg("--model").arg(model).args(options))
}
