//! Decoding through the whole engine, against the bandwidth floor of the same threads.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokenmill_engine::handle::{EngineConfig, EngineHandle, GenerateRequest};
use tokenmill_engine::load::{self, LoadOptions, ModelSource, ThreadPool};
use tokenmill_engine::sampling::SamplingParams;
use tokenmill_engine::stream::{TokenEvent, TokenStream};
use tokenmill_scheduler::{Policy, SequenceSpec};

use crate::bandwidth;

/// Tokens of every prompt and completion.
const PROMPT: u32 = 64;

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Kernel threads.
    pub threads: usize,
    /// Tokens that each stream decodes.
    pub tokens: u32,
    /// Repetitions; the median is reported, with the extremes.
    pub repetitions: usize,
}

/// Decodes with 1 and 16 streams and a prompt of 512 tokens; the read bandwidth is measured before
/// and after with the footprint of a decode step.
///
/// # Errors
/// When the model cannot be loaded or the engine fails.
pub fn run(name: &str, source: &ModelSource, shape: Shape) -> Result<Value> {
    let pool = Arc::new(ThreadPool::new(shape.threads));
    let options =
        LoadOptions { max_model_len: Some(1024), max_sequences: 64, ..LoadOptions::default() };
    let (executor, plan, _) = load::load(source, &options, &pool, &mut |_, _| {})?;
    let bytes = plan.decode_weight_bytes as usize;
    let before = bandwidth::read(&pool, bytes, 10);
    let vocab = plan.limits.vocab_size;
    let config = EngineConfig {
        max_waiting: 64,
        max_chunk_tokens: 2048,
        prefix_cache: false,
        policy: Policy::FirstCome,
        hash_key: [1, 2],
    };
    let (engine, thread) = EngineHandle::spawn(Box::new(executor), config)?;
    let one = repeat(shape, || decode(&engine, 1, shape.tokens, vocab))?;
    let sixteen = repeat(shape, || decode(&engine, 16, shape.tokens, vocab))?;
    let prefill = repeat(shape, || prefill(&engine, 512, vocab))?;
    drop(engine);
    if thread.join().is_err() {
        bail!("the engine thread panicked");
    }
    let bandwidth = before.max(bandwidth::read(&pool, bytes, 10));
    let floor = bandwidth / bytes as f64;
    Ok(json!({
        "model": name,
        "threads": shape.threads,
        "decode_bytes": bytes,
        "read_gb_per_s": bandwidth / 1e9,
        "floor_tokens_per_s": floor,
        "one_stream_tokens_per_s": one,
        "one_stream_of_floor": one[1] / floor,
        "sixteen_streams_tokens_per_s": sixteen,
        "sixteen_over_one": sixteen[1] / one[1],
        "prefill_512_tokens_per_s": prefill,
    }))
}

/// Minimum, median and maximum.
fn repeat(shape: Shape, mut measure: impl FnMut() -> Result<f64>) -> Result<[f64; 3]> {
    measure()?;
    let mut figures = (0..shape.repetitions).map(|_| measure()).collect::<Result<Vec<_>>>()?;
    figures.sort_by(f64::total_cmp);
    let last = figures.len().checked_sub(1).context("at least one repetition")?;
    Ok([figures[0], figures[last / 2], figures[last]])
}

/// Tokens per second of `streams` streams from the first token of the last stream on.
fn decode(engine: &EngineHandle, streams: u32, tokens: u32, vocab: u32) -> Result<f64> {
    let mut streams = (0..streams)
        .map(|stream| submit(engine, stream, PROMPT, tokens, vocab))
        .collect::<Result<Vec<_>>>()?;
    let mut decoded = 0u64;
    for stream in &mut streams {
        wait_for_token(stream)?;
    }
    let start = Instant::now();
    for stream in &mut streams {
        loop {
            match stream.blocking_next() {
                Some(TokenEvent::Token { .. }) => decoded += 1,
                Some(TokenEvent::Finished(_)) => break,
                Some(TokenEvent::Lost) | None => bail!("the engine was lost"),
                Some(_) => {}
            }
        }
    }
    Ok(decoded as f64 / start.elapsed().as_secs_f64())
}

/// Prompt tokens per second until the first token.
fn prefill(engine: &EngineHandle, tokens: u32, vocab: u32) -> Result<f64> {
    let start = Instant::now();
    let mut stream = submit(engine, 0, tokens, 1, vocab)?;
    wait_for_token(&mut stream)?;
    Ok(f64::from(tokens) / start.elapsed().as_secs_f64())
}

fn wait_for_token(stream: &mut TokenStream) -> Result<()> {
    loop {
        match stream.blocking_next() {
            Some(TokenEvent::Token { .. }) => return Ok(()),
            Some(TokenEvent::Lost) | None => bail!("the engine was lost"),
            Some(_) => {}
        }
    }
}

fn submit(
    engine: &EngineHandle,
    stream: u32,
    prompt: u32,
    max_tokens: u32,
    vocab: u32,
) -> Result<TokenStream> {
    let token = |index: u32| (index * 7919 + stream * 104_729) % vocab;
    let spec = SequenceSpec {
        prompt: (0..prompt).map(token).collect(),
        max_tokens,
        ..SequenceSpec::default()
    };
    let sampling = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
    Ok(engine.submit(GenerateRequest { spec, sampling })?)
}
