//! What the server counts, and the text that Prometheus reads.
//!
//! Names and meanings follow vLLM where it has them, so that dashboards and autoscalers go on working;
//! [`METRICS`] is the one table of names, types and helps, from which `docs/metrics.md` is generated
//! too. Engine values are read from its atomics on scrape; times of requests are taken here, on one
//! monotonic clock. A scrape takes no lock of the engine.

mod classic;
mod histogram;
mod http;
mod panics;
mod process;
mod table;
mod text;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

pub use histogram::Histogram;
pub(crate) use http::{Exchange, HttpMetrics};
pub use panics::watch as watch_panics;
use table::ModelScope;
pub use table::{Kind, METRICS, Metric, document};
use text::Family;
pub(crate) use text::Format;

use tokenmill_engine::stats::STEP_SECONDS_BOUNDS;

use crate::app::App;
use crate::error::Cause;

/// Seconds until the first token.
const TTFT: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
];
/// Seconds between tokens: vLLM's bounds and three below them for small models.
const ITL: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
    5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];
/// Seconds of whole requests: vLLM's bounds and five below them for small models.
const REQUEST: &[f64] = &[
    0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0,
    40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0,
];
/// Choices of a request.
const CHOICES: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0];

/// How a sequence ended, as the label `finished_reason` of `vllm:request_success_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// End of sequence, a stop token or a stop string.
    Stop,
    /// A length limit.
    Length,
    /// The client left, or a deadline passed.
    Abort,
    /// It failed.
    Error,
}

/// Every value of the label; the last is there for dashboards, nothing here ends that way.
pub(crate) const FINISHED_LABELS: [&str; 5] = ["stop", "length", "abort", "error", "repetition"];

/// Who ended a sequence early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canceller {
    /// The client left.
    Client,
    /// Its deadline passed.
    Deadline,
    /// The server stops.
    Drain,
}

/// Values of the label `by`, in the order of [`Canceller`].
pub(crate) const CANCELLER_LABELS: [&str; 3] = ["client", "deadline", "drain"];

/// `1, 2, 5, 10, ...` up to `limit`.
fn one_two_five(limit: u32) -> Vec<f64> {
    let mut bounds = Vec::new();
    let mut decade = 1.0;
    loop {
        for step in [1.0, 2.0, 5.0] {
            let bound = step * decade;
            if bound > f64::from(limit) {
                return bounds;
            }
            bounds.push(bound);
        }
        decade *= 10.0;
    }
}

/// Counters and histograms of one model's requests.
#[derive(Debug)]
pub struct ModelMetrics {
    pub(crate) ttft: Histogram,
    pub(crate) inter_token: Histogram,
    pub(crate) time_per_token: Histogram,
    pub(crate) e2e: Histogram,
    pub(crate) queue: Histogram,
    pub(crate) inference: Histogram,
    pub(crate) prefill: Histogram,
    pub(crate) decode: Histogram,
    pub(crate) prompt_tokens: Histogram,
    pub(crate) generation_tokens: Histogram,
    pub(crate) computed_tokens: Histogram,
    pub(crate) max_tokens: Histogram,
    pub(crate) longest: Histogram,
    pub(crate) choices: Histogram,
    pub(crate) detokenize: Histogram,
    pub(crate) finished: [AtomicU64; FINISHED_LABELS.len()],
    pub(crate) cancelled: [AtomicU64; CANCELLER_LABELS.len()],
    pub(crate) aborted_tokens: AtomicU64,
    startup: Mutex<Vec<(String, f64)>>,
    memory: Mutex<Vec<(String, f64)>>,
}

impl ModelMetrics {
    /// Empty; token histograms reach up to `max_model_len`.
    pub fn new(max_model_len: u32) -> Self {
        let tokens = one_two_five(max_model_len);
        let lengths = || Histogram::counts_of(&tokens);
        Self {
            ttft: Histogram::seconds(TTFT),
            inter_token: Histogram::seconds(ITL),
            time_per_token: Histogram::seconds(ITL),
            e2e: Histogram::seconds(REQUEST),
            queue: Histogram::seconds(REQUEST),
            inference: Histogram::seconds(REQUEST),
            prefill: Histogram::seconds(REQUEST),
            decode: Histogram::seconds(REQUEST),
            prompt_tokens: lengths(),
            generation_tokens: lengths(),
            computed_tokens: lengths(),
            max_tokens: lengths(),
            longest: lengths(),
            choices: Histogram::counts_of(CHOICES),
            detokenize: Histogram::seconds(STEP_SECONDS_BOUNDS),
            finished: Default::default(),
            cancelled: Default::default(),
            aborted_tokens: AtomicU64::new(0),
            startup: Mutex::default(),
            memory: Mutex::default(),
        }
    }

    /// Says how long a phase of the start took (`open`, `map_weights`, `alloc_kv`, ...).
    pub fn record_startup(&self, phase: &str, seconds: f64) {
        record(&self.startup, phase, seconds);
    }

    /// Says how much host memory a part takes (`weights`, `kv`, `workspace`, ...).
    pub fn record_memory(&self, part: &str, bytes: u64) {
        record(&self.memory, part, bytes as f64);
    }

    pub(crate) fn startup(&self) -> Vec<(String, f64)> {
        self.startup.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn memory(&self) -> Vec<(String, f64)> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A prompt with `n` choices of at most `max_tokens` went to the engine.
    pub(crate) fn submitted(&self, n: u32, max_tokens: u32) {
        self.choices.observe(f64::from(n));
        self.max_tokens.observe(f64::from(max_tokens));
    }

    /// The choices of a prompt ended; the longest has `generated` tokens.
    pub(crate) fn prompt_ended(&self, generated: u32) {
        self.longest.observe(f64::from(generated));
    }

    /// A sequence was ended early after `generated` tokens.
    pub(crate) fn cancelled(&self, by: Canceller, generated: u32) {
        self.cancelled[by as usize].fetch_add(1, Relaxed);
        self.aborted_tokens.fetch_add(u64::from(generated), Relaxed);
    }
}

fn record(values: &Mutex<Vec<(String, f64)>>, name: &str, value: f64) {
    let mut values = values.lock().unwrap_or_else(PoisonError::into_inner);
    match values.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => *old = value,
        None => values.push((name.to_owned(), value)),
    }
}

/// When things happened to one sequence.
#[derive(Debug)]
pub(crate) struct SequenceTimes {
    arrival: Instant,
    submitted: Instant,
    admitted: Option<Instant>,
    first: Option<Instant>,
    last: Option<Instant>,
    prompt_tokens: usize,
    cached_tokens: u32,
}

fn seconds(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64()
}

impl SequenceTimes {
    /// `arrival` is before tokenisation; submission is now.
    pub(crate) fn new(arrival: Instant, prompt_tokens: usize) -> Self {
        let submitted = Instant::now();
        let (admitted, first, last) = (None, None, None);
        Self { arrival, submitted, admitted, first, last, prompt_tokens, cached_tokens: 0 }
    }

    /// The scheduler took the sequence up.
    pub(crate) fn admitted(&mut self, cached_tokens: u32) {
        self.admitted = Some(Instant::now());
        self.cached_tokens = cached_tokens;
    }

    /// Tokens came, together; reading them began at `began`.
    pub(crate) fn output(&mut self, metrics: &ModelMetrics, began: Instant) {
        let now = Instant::now();
        metrics.detokenize.observe(seconds(began, now));
        match self.last {
            Some(last) => metrics.inter_token.observe(seconds(last, now)),
            None => {
                self.first = Some(now);
                metrics.ttft.observe(seconds(self.arrival, now));
            }
        }
        self.last = Some(now);
    }

    /// The sequence ended with `generated` tokens.
    pub(crate) fn end(&self, metrics: &ModelMetrics, finished: Finished, generated: u32) {
        metrics.finished[finished as usize].fetch_add(1, Relaxed);
        if finished == Finished::Error {
            return;
        }
        let e2e = seconds(self.arrival, Instant::now());
        metrics.e2e.observe(e2e);
        metrics.prompt_tokens.observe(self.prompt_tokens as f64);
        metrics.generation_tokens.observe(f64::from(generated));
        let cached = self.cached_tokens as usize;
        metrics.computed_tokens.observe(self.prompt_tokens.saturating_sub(cached) as f64);
        if let Some(admitted) = self.admitted {
            metrics.queue.observe(seconds(self.submitted, admitted));
        }
        let (Some(admitted), Some(first), Some(last)) = (self.admitted, self.first, self.last)
        else {
            return;
        };
        metrics.prefill.observe(seconds(admitted, first));
        metrics.decode.observe(seconds(first, last));
        metrics.inference.observe(seconds(admitted, last));
        let later = f64::from(generated.saturating_sub(1));
        let ttft = seconds(self.arrival, first);
        metrics.time_per_token.observe(if later > 0.0 { (e2e - ttft) / later } else { 0.0 });
    }
}

/// Counters of the whole server.
#[derive(Debug)]
pub(crate) struct ServerMetrics {
    pub(crate) http: HttpMetrics,
    rejected: Mutex<std::collections::BTreeMap<(&'static str, u16), u64>>,
    pub(crate) queue_rejections: [AtomicU64; 2],
    /// Requests that failed by our fault while the server went on.
    pub(crate) isolated: AtomicU64,
}

impl Default for ServerMetrics {
    fn default() -> Self {
        let rejected = Cause::ANSWERS.map(|(cause, status)| ((cause.label(), status), 0));
        Self {
            http: HttpMetrics::default(),
            rejected: Mutex::new(rejected.into()),
            queue_rejections: Default::default(),
            isolated: AtomicU64::new(0),
        }
    }
}

impl ServerMetrics {
    /// A request was refused.
    pub(crate) fn reject(&self, cause: Cause, status: u16) {
        if cause == Cause::Internal && status == 500 {
            self.isolated.fetch_add(1, Relaxed);
        }
        let mut rejected = self.rejected.lock().unwrap_or_else(PoisonError::into_inner);
        *rejected.entry((cause.label(), status)).or_default() += 1;
    }

    /// Calls `visit` with cause, status and count.
    pub(crate) fn visit_rejected(&self, mut visit: impl FnMut(&str, &str, u64)) {
        let rejected = self.rejected.lock().unwrap_or_else(PoisonError::into_inner);
        for ((cause, status), count) in rejected.iter() {
            visit(cause, &status.to_string(), *count);
        }
    }
}

/// The answer to a scrape.
pub(crate) fn encode(app: &App, format: Format) -> String {
    let mut out = String::with_capacity(64 << 10);
    let scopes: Vec<ModelScope<'_>> = app
        .registry
        .generatives()
        .into_iter()
        .map(|(name, model)| ModelScope { name, model })
        .collect();
    let classics = app.registry.repository().ready();
    let triton = app.config.kserve.triton_metrics;
    let wanted = |metric: &&Metric| triton || !matches!(metric.write, table::Write::Triton(_));
    for metric in METRICS.iter().chain(classic::FAMILIES).filter(wanted) {
        metric.header(format, &mut out);
        match metric.write {
            table::Write::Classic(write) => {
                for model in &classics {
                    let base = vec![("model_name", model.name.as_str())];
                    write(model, &mut Family::new(&mut out, format, metric.name, base));
                }
            }
            table::Write::Triton(write) | table::Write::Versioned(write) => {
                for model in &classics {
                    let version = model.version.as_deref().unwrap_or_default();
                    let base = vec![("model", model.name.as_str()), ("version", version)];
                    write(model, &mut Family::new(&mut out, format, metric.name, base));
                }
            }
            table::Write::Server(write) => {
                write(app, &mut Family::new(&mut out, format, metric.name, Vec::new()));
            }
            table::Write::Model(write) => {
                for scope in &scopes {
                    let base = vec![("model_name", scope.name), ("engine", "0")];
                    write(scope, &mut Family::new(&mut out, format, metric.name, base));
                }
            }
        }
    }
    if format == Format::OpenMetrics {
        out.push_str("# EOF\n");
    }
    out
}
