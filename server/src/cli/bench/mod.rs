//! `tokenmill bench`: load on a server, closed loop or open loop, and what it feels like to clients.
//! Prompts whose answers stream are the default; `post` sends one body to any address.
//!
//! The client measures and shares the machine when the server is local: its share is small, but it is
//! there. Prompts and arrivals follow from the seed alone, so two servers can be given the same load.

mod drive;
mod html;
mod post;
mod prompts;
mod random;
mod report;
mod stats;
mod wire;

use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::{Map, Value};

use super::openai_client::OpenAiClient;
use super::progress;
use prompts::Shape;
use stats::{Sample, Summary};

/// Measure a server: time to first token, time between tokens, throughput.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  tokenmill bench --base-url http://localhost:8080 --concurrency 8 --requests 64
  tokenmill bench --rate 2.5 --requests 200 --prompt-words 512 --max-tokens 64 --html run.html
  tokenmill bench --dataset prompts.jsonl --json run.json
  tokenmill bench --url http://localhost:8080/v2/models/iris/infer --body row.json --concurrency 32")]
pub(super) struct BenchArgs {
    /// Server, with or without /v1 at its end; with --body the whole address.
    #[arg(long, visible_alias = "url", default_value = "http://127.0.0.1:8080")]
    base_url: String,
    /// Model; the first one that the server lists when absent.
    #[arg(long)]
    model: Option<String>,
    /// Key sent as a bearer token.
    #[arg(long)]
    api_key: Option<String>,
    /// Requests in all.
    #[arg(long, short = 'n', default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    requests: u32,
    /// Closed loop: requests that are always in flight.
    #[arg(long, short = 'c', default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: u32,
    /// Open loop instead: mean arrivals per second, with exponentially distributed gaps.
    #[arg(long, conflicts_with = "concurrency", value_parser = positive)]
    rate: Option<f64>,
    /// Requests before the measured ones.
    #[arg(long, default_value_t = 1)]
    warmup: u32,
    /// Words of a synthetic prompt (a word is about a token).
    #[arg(long, default_value_t = 128)]
    prompt_words: usize,
    /// Of them, words at the start that all prompts share.
    #[arg(long, default_value_t = 0)]
    shared_words: usize,
    /// File of prompts instead: one JSON object per line with "messages" or "prompt", and "max_tokens" if wanted.
    #[arg(long)]
    dataset: Option<PathBuf>,
    /// Completion tokens per request.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
    /// Let completions end by themselves before max-tokens.
    #[arg(long)]
    stop_at_eos: bool,
    /// Temperature.
    #[arg(long, default_value_t = 0.0)]
    temperature: f64,
    /// Further members of every request, as a JSON object.
    #[arg(long)]
    extra_body: Option<String>,
    /// Route.
    #[arg(long, value_enum, default_value_t = Route::Chat)]
    endpoint: Route,
    /// Seed of prompts and arrivals; with the same seed a second run finds its prompts in the prefix cache.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write every figure and every request here.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write a page with plots here; it needs nothing else to be read.
    #[arg(long)]
    html: Option<PathBuf>,
    #[command(flatten)]
    post: post::PostArgs,
}

/// The route that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Route {
    /// /v1/chat/completions.
    Chat,
    /// /v1/completions.
    Completions,
}

/// What was measured under which load.
#[derive(Clone, Debug, Serialize)]
struct Report {
    base_url: String,
    model: String,
    endpoint: Route,
    load: drive::Load,
    prompts: String,
    max_tokens: u32,
    seed: u64,
    summary: Summary,
    samples: Vec<Sample>,
}

impl BenchArgs {
    /// With this key unless one was given.
    pub(super) fn or_key(mut self, key: Option<String>) -> Self {
        self.api_key = self.api_key.or(key);
        self
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("expected a number above 0".to_owned()),
    }
}

/// Runs the benchmark and reports it.
pub(super) async fn run(args: BenchArgs) -> anyhow::Result<()> {
    if let Some(path) = &args.post.body {
        return post::run(&args, path).await;
    }
    let client = OpenAiClient::new(&args.base_url, args.api_key.clone())?;
    let model = match &args.model {
        Some(model) => model.clone(),
        None => client.first_model().await.context("asking the server for its models")?,
    };
    let extra = extra(args.extra_body.as_deref())?;
    let count = args.requests as usize;
    let shape =
        Shape { words: args.prompt_words, shared_words: args.shared_words, seed: args.seed };
    let prompts = match &args.dataset {
        Some(path) => prompts::from_file(path, count)?,
        None => prompts::synthetic(count, shape),
    };
    let load = match args.rate {
        Some(rate) => drive::Load::Open { rate },
        None => drive::Load::Closed { concurrency: args.concurrency as usize },
    };
    let plan = drive::Plan {
        client: client.clone(),
        model: model.clone(),
        route: args.endpoint,
        max_tokens: args.max_tokens,
        stop_at_eos: args.stop_at_eos,
        temperature: args.temperature,
        extra,
    };
    // Warm-up prompts have another seed: nothing of the measured ones is cached by them.
    let warm = Shape { seed: args.seed ^ u64::MAX, ..shape };
    for prompt in prompts::synthetic(args.warmup as usize, warm) {
        let sample = plan.measure(&prompt).await;
        if let Some(error) = sample.error {
            anyhow::bail!("the warm-up request failed: {error}");
        }
    }
    let bar = progress::requests(u64::from(args.requests));
    let (samples, seconds) = drive::run(plan, prompts, load, args.seed, &bar).await;
    bar.finish_and_clear();
    let report = Report {
        base_url: client.base().to_owned(),
        model,
        endpoint: args.endpoint,
        load,
        prompts: match &args.dataset {
            Some(path) => path.display().to_string(),
            None => format!("{} synthetic words, {} shared", shape.words, shape.shared_words),
        },
        max_tokens: args.max_tokens,
        seed: args.seed,
        summary: Summary::of(&samples, seconds),
        samples,
    };
    super::say(&report::text(&report));
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &args.html {
        std::fs::write(path, html::page(&report)).with_context(|| path.display().to_string())?;
    }
    ensure!(report.summary.completed > 0, "every request failed");
    Ok(())
}

fn extra(text: Option<&str>) -> anyhow::Result<Map<String, Value>> {
    let Some(text) = text else { return Ok(Map::new()) };
    serde_json::from_str(text).context("--extra-body: expected a JSON object")
}
