//! The timings of `docs/performance.md`, as JSON lines.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use tokenmill_benches::decode::{self, Shape};
use tokenmill_benches::synthetic;
use tokenmill_engine::load::open;

/// Decoding speed against the machine's read bandwidth.
#[derive(Parser)]
struct Arguments {
    /// A model directory or GGUF file.
    #[arg(long)]
    model: PathBuf,
    /// Kernel threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Tokens that each stream decodes.
    #[arg(long, default_value_t = 128)]
    tokens: u32,
    /// Repetitions of each figure.
    #[arg(long, default_value_t = 5)]
    repetitions: usize,
    /// Also a random bf16 model of the shape of Qwen3-0.6B (takes 2 GB of memory).
    #[arg(long)]
    qwen3: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let shape = Shape {
        threads: arguments.threads,
        tokens: arguments.tokens,
        repetitions: arguments.repetitions,
    };
    let name = arguments.model.display().to_string();
    println!("{}", decode::run(&name, &open(&arguments.model)?, shape)?);
    if arguments.qwen3 {
        let shape = Shape { tokens: shape.tokens.min(32), ..shape };
        println!("{}", decode::run("qwen3-0.6b-random-bf16", &synthetic::qwen3_0_6b()?, shape)?);
    }
    Ok(())
}
