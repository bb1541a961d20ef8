//! Batching must not change a token: prompts alone, then in random batches with chunked prefill, a
//! prefix cache and blocks so few that sequences are preempted. Tokens must be equal and
//! log-probabilities equal to the bit; the first difference ends the run with an error.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use clap::Parser;
use tokenmill_engine::executor::PositionLogprobs;
use tokenmill_engine::handle::{EngineConfig, EngineHandle, GenerateRequest};
use tokenmill_engine::load::{self, LoadOptions, ModelSource, ThreadPool, open};
use tokenmill_engine::sampling::SamplingParams;
use tokenmill_engine::stream::{TokenEvent, TokenStream};
use tokenmill_scheduler::{Policy, SequenceSpec};

/// Compares every answer in random batches with the one the same prompt gets alone.
#[derive(Parser)]
struct Arguments {
    /// A model directory or GGUF file.
    #[arg(long)]
    model: PathBuf,
    /// Prompts to compare.
    #[arg(long, default_value_t = 1000)]
    prompts: usize,
    /// Tokens of each completion.
    #[arg(long, default_value_t = 16)]
    tokens: u32,
    /// Sequences at once.
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Seed of prompts and batches.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A prompt and how it is sampled.
struct Case {
    prompt: Vec<u32>,
    sampling: SamplingParams,
}

type Answer = (Vec<u32>, Vec<PositionLogprobs>);

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let source = open(&arguments.model)?;
    let cases = cases(&arguments, source.config.vocab_size as u64);
    let alone = {
        let engine = start(&source, &options(None), 1 << 20, false)?;
        let answer = |case: &Case| collect(submit(&engine, case, arguments.tokens)?);
        cases.iter().map(answer).collect::<Result<Vec<_>>>()?
    };
    let pool = ThreadPool::new(2);
    let plan = load::plan(&source, &options(None), pool.threads())?;
    // Room for a quarter of a full batch.
    let room = arguments.batch as u64 * 128 / 4;
    let tight = options(Some(room.max(1024) * plan.kv_bytes_per_token));
    let engine = start(&source, &tight, 33, true)?;
    let (mut running, mut compared) = (VecDeque::new(), 0u64);
    for (index, case) in cases.iter().enumerate() {
        if running.len() == arguments.batch {
            compared += compare(&mut running, &alone)?;
        }
        running.push_back((index, submit(&engine, case, arguments.tokens)?));
    }
    while !running.is_empty() {
        compared += compare(&mut running, &alone)?;
    }
    let stats = engine.stats();
    println!(
        "{} prompts: tokens and log-probabilities identical; {} preemptions, {} prompt tokens from the cache, {} answers compared",
        cases.len(),
        stats.preemptions.get(),
        stats.cached_tokens.get(),
        compared
    );
    ensure!(stats.preemptions.get() > 0, "nothing was preempted: use more sequences");
    Ok(())
}

/// Takes the oldest stream to its end and compares it.
fn compare(running: &mut VecDeque<(usize, TokenStream)>, alone: &[Answer]) -> Result<u64> {
    let Some((index, stream)) = running.pop_front() else { return Ok(0) };
    let answer = collect(stream)?;
    ensure!(answer.0 == alone[index].0, "prompt {index}: other tokens than alone");
    ensure!(answer.1 == alone[index].1, "prompt {index}: other log-probabilities than alone");
    Ok(1)
}

fn options(kv_bytes: Option<u64>) -> LoadOptions {
    LoadOptions { max_model_len: Some(1024), max_sequences: 64, kv_bytes, ..LoadOptions::default() }
}

fn start(
    source: &ModelSource,
    options: &LoadOptions,
    max_chunk_tokens: u32,
    prefix_cache: bool,
) -> Result<EngineHandle> {
    let pool = Arc::new(ThreadPool::new(2));
    let (executor, _, _) = load::load(source, options, &pool, &mut |_, _| {})?;
    let config = EngineConfig {
        max_waiting: 1024,
        max_chunk_tokens,
        prefix_cache,
        policy: Policy::FirstCome,
        hash_key: [1, 2],
    };
    Ok(EngineHandle::spawn(Box::new(executor), config)?.0)
}

/// Prompts that share beginnings of a few texts; greedy, and sampled with and without narrowing.
fn cases(arguments: &Arguments, vocab: u64) -> Vec<Case> {
    let mut state = arguments.seed;
    let mut random = |below: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let texts: Vec<Vec<u32>> =
        (0..8).map(|_| (0..96).map(|_| random(vocab) as u32).collect()).collect();
    (0..arguments.prompts)
        .map(|index| {
            let shared = 1 + random(96) as usize;
            let mut prompt = texts[random(8) as usize][..shared].to_vec();
            prompt.extend((0..random(8)).map(|_| random(vocab) as u32));
            let sampling = SamplingParams {
                temperature: [0.0, 0.7, 1.0][index % 3],
                top_p: [1.0, 0.9][index % 2],
                seed: random(1 << 30),
                logprobs: Some(2),
                ..SamplingParams::default()
            };
            Case { prompt, sampling }
        })
        .collect()
}

fn submit(engine: &EngineHandle, case: &Case, max_tokens: u32) -> Result<TokenStream> {
    let spec = SequenceSpec { prompt: case.prompt.clone(), max_tokens, ..SequenceSpec::default() };
    Ok(engine.submit(GenerateRequest { spec, sampling: case.sampling.clone() })?)
}

fn collect(mut stream: TokenStream) -> Result<Answer> {
    let mut answer = Answer::default();
    loop {
        match stream.blocking_next() {
            Some(TokenEvent::Token { id, logprobs }) => {
                answer.0.push(id);
                answer.1.extend(logprobs.map(|logprobs| *logprobs));
            }
            Some(TokenEvent::Finished(_)) => return Ok(answer),
            Some(TokenEvent::Lost) | None => bail!("the engine was lost"),
            Some(_) => {}
        }
    }
}
