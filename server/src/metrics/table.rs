//! The table of everything that `/metrics` publishes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokenmill_engine::Isa;
use tokenmill_engine::stats::StepPart;

use super::histogram::Histogram;
use super::panics;
use super::text::{Buckets, Family, Format};
use super::{CANCELLER_LABELS, FINISHED_LABELS, ModelMetrics, classic, process};
use crate::app::App;
use crate::config::machine;
use crate::kserve::Predictive;
use crate::registry::Generative;

/// Prometheus' type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets, sum and count.
    Histogram,
    /// Sum and count.
    Summary,
}

impl Kind {
    fn label(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Summary => "summary",
        }
    }
}

/// A model with the name that its series carry.
pub(super) struct ModelScope<'a> {
    pub(super) name: &'a str,
    pub(super) model: &'a Generative,
}

/// How a family's samples are made.
#[derive(Clone, Copy)]
pub(super) enum Write {
    /// Once.
    Server(fn(&App, &mut Family<'_>)),
    /// Once per language model, with the labels `model_name` and `engine`.
    Model(fn(&ModelScope<'_>, &mut Family<'_>)),
    /// Once per classic model, with the label `model_name`.
    Classic(fn(&Predictive, &mut Family<'_>)),
    /// Once per classic model, with the labels `model` and `version`.
    Versioned(fn(&Predictive, &mut Family<'_>)),
    /// The same where the settings ask for it.
    Triton(fn(&Predictive, &mut Family<'_>)),
}

/// One family.
pub struct Metric {
    /// As it is on the wire (histograms and summaries add their suffixes).
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Labels besides `model_name` and `engine`, separated by commas.
    pub labels: &'static str,
    /// What it means.
    pub help: &'static str,
    pub(super) write: Write,
}

impl Metric {
    pub(super) fn header(&self, format: Format, out: &mut String) {
        let Self { name, kind, help, .. } = self;
        let (name, kind) = match (format, kind) {
            (Format::OpenMetrics, Kind::Counter) => match name.strip_suffix("_total") {
                Some(family) => (family, "counter"),
                // A name of others that OpenMetrics has no counter for.
                None => (*name, "unknown"),
            },
            _ => (*name, kind.label()),
        };
        out.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }
}

/// A row of the tables.
pub(super) const fn metric(
    name: &'static str,
    kind: Kind,
    labels: &'static str,
    help: &'static str,
    write: Write,
) -> Metric {
    Metric { name, kind, labels, help, write }
}

/// The document about [`METRICS`], as `docs/metrics.md` holds it.
pub fn document() -> String {
    let mut out = String::from(
        "# Metrics\n\nGenerated from the table in `server/src/metrics/table.rs`; a test compares the two. \
         `GET /metrics` answers in\nPrometheus' text format, or in OpenMetrics' where the `Accept` header names it. Series exist from the start, but for those whose labels come \
         with a request.\nFamilies marked *model* carry the labels `model_name` (the first \
         served name) and `engine`; those marked *triton* need \
         `--triton-metrics`.\n\n\
         | name | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for metric in METRICS.iter().chain(classic::FAMILIES) {
        let base = match metric.write {
            Write::Server(_) => None,
            Write::Model(_) => Some("*model*"),
            Write::Classic(_) => Some("`model_name`"),
            Write::Versioned(_) => Some("`model`, `version`"),
            Write::Triton(_) => Some("*triton*, `model`, `version`"),
        };
        let labels: Vec<String> = base
            .map(str::to_owned)
            .into_iter()
            .chain(
                metric
                    .labels
                    .split(',')
                    .filter(|label| !label.is_empty())
                    .map(|label| format!("`{label}`")),
            )
            .collect();
        let Metric { name, kind, help, .. } = metric;
        out.push_str(&format!(
            "| `{name}` | {} | {} | {help} |\n",
            kind.label(),
            labels.join(", ")
        ));
    }
    out
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}

fn histogram(family: &mut Family<'_>, histogram: &Histogram) {
    labelled_histogram(family, &[], histogram);
}

fn labelled_histogram(family: &mut Family<'_>, labels: &[(&str, &str)], histogram: &Histogram) {
    let (bounds, counts) = (histogram.bounds(), histogram.counts().collect());
    family.buckets(labels, &Buckets { bounds, counts, sum: histogram.sum() });
}

fn engine_histogram(
    family: &mut Family<'_>,
    labels: &[(&str, &str)],
    histogram: &tokenmill_engine::stats::Histogram,
) {
    let (bounds, counts) = (histogram.bounds(), histogram.counts().collect());
    family.buckets(labels, &Buckets { bounds, counts, sum: histogram.sum() });
}

fn own<'a>(scope: &ModelScope<'a>) -> &'a ModelMetrics {
    &scope.model.metrics
}

fn stats<'a>(scope: &ModelScope<'a>) -> &'a tokenmill_engine::stats::EngineStats {
    scope.model.engine.stats()
}

fn optional(family: &mut Family<'_>, value: Option<f64>) {
    if let Some(value) = value {
        family.value(&[], value);
    }
}

/// Python's spelling, which readers of `vllm:cache_config_info` expect.
fn python(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

fn cache_config(scope: &ModelScope<'_>, family: &mut Family<'_>) {
    let limits = scope.model.engine.limits();
    let blocks: u64 =
        limits.groups.iter().map(|group| u64::from(group.num_blocks)).min().unwrap_or(0);
    let tokens = blocks * u64::from(limits.block_size);
    let concurrency = tokens as f64 / f64::from(limits.max_model_len.max(1));
    family.value(
        &[
            ("block_size", &limits.block_size.to_string()),
            ("num_gpu_blocks", &blocks.to_string()),
            ("cache_dtype", &scope.model.kv_dtype),
            ("enable_prefix_caching", python(scope.model.prefix_cache)),
            ("gpu_memory_utilization", "None"),
            ("kv_cache_size_tokens", &tokens.to_string()),
            ("kv_cache_max_concurrency", &format!("{concurrency:.2}")),
        ],
        1.0,
    );
}

fn kv_blocks(scope: &ModelScope<'_>, family: &mut Family<'_>) {
    let stats = stats(scope);
    // The engine counts cached blocks among the free ones; the series are disjoint.
    let (unused, cached) = (stats.blocks_free.get(), stats.blocks_cached.get());
    let used = stats.blocks_total.get().saturating_sub(unused);
    let free = unused.saturating_sub(cached);
    // Nothing pins blocks here; readers of the family expect the state.
    for (state, count) in [("free", free), ("cached", cached), ("used", used), ("pinned", 0)] {
        family.count(&[("state", state)], count);
    }
}

fn waiting_by_reason(scope: &ModelScope<'_>, family: &mut Family<'_>) {
    family.count(&[("reason", "capacity")], stats(scope).waiting.get());
    family.count(&[("reason", "deferred")], 0);
}

fn kv_usage(scope: &ModelScope<'_>, family: &mut Family<'_>) {
    family.value(&[], stats(scope).kv_usage());
}

fn finished(scope: &ModelScope<'_>, family: &mut Family<'_>) {
    for (reason, count) in FINISHED_LABELS.into_iter().zip(&own(scope).finished) {
        family.count(&[("finished_reason", reason)], load(count));
    }
}

fn cancelled(scope: &ModelScope<'_>, family: &mut Family<'_>) {
    for (by, count) in CANCELLER_LABELS.into_iter().zip(&own(scope).cancelled) {
        family.count(&[("by", by)], load(count));
    }
}

fn wasted(scope: &ModelScope<'_>, family: &mut Family<'_>) {
    family.count(&[("cause", "preempt_recompute")], stats(scope).recomputed_tokens.get());
    family.count(&[("cause", "abort")], load(&own(scope).aborted_tokens));
}

fn steps(scope: &ModelScope<'_>, family: &mut Family<'_>) {
    for part in StepPart::ALL {
        engine_histogram(family, &[("part", part.name())], stats(scope).step_seconds(part));
    }
    labelled_histogram(family, &[("part", "detokenize")], &own(scope).detokenize);
}

fn step_tokens(scope: &ModelScope<'_>, family: &mut Family<'_>) {
    let stats = stats(scope);
    // Nothing drafts tokens, and packed steps have no padding.
    let (prefill, decode) = (stats.prefill_tokens.get(), stats.decode_tokens.get());
    for (kind, count) in [("prefill", prefill), ("decode", decode), ("draft", 0), ("padding", 0)] {
        family.count(&[("kind", kind)], count);
    }
}

fn queue_rejections(app: &App, family: &mut Family<'_>) {
    let names = app.registry.generatives();
    let name = names.first().map_or("", |(name, _)| name);
    let reasons = ["max_num_queued_reqs", "max_num_queued_tokens"];
    for (reason, count) in reasons.into_iter().zip(&app.metrics.queue_rejections) {
        family.count(&[("model_name", name), ("reason", reason)], load(count));
    }
}

fn http_requests(app: &App, family: &mut Family<'_>) {
    app.metrics.http.visit(|handler, method, route| {
        for (status, count) in &route.by_status {
            family.count(&[("handler", handler), ("method", method), ("status", status)], *count);
        }
    });
}

fn http_duration(app: &App, family: &mut Family<'_>) {
    app.metrics.http.visit(|handler, method, route| {
        let labels = [("handler", handler), ("method", method)];
        labelled_histogram(family, &labels, &route.duration);
    });
}

fn http_request_size(app: &App, family: &mut Family<'_>) {
    for (handler, size) in app.metrics.http.request_sizes() {
        family.summary(&[("handler", &handler)], size.sum as f64, size.count);
    }
}

fn http_response_size(app: &App, family: &mut Family<'_>) {
    for (handler, size) in app.metrics.http.response_sizes() {
        family.summary(&[("handler", &handler)], size.sum as f64, size.count);
    }
}

fn rejected(app: &App, family: &mut Family<'_>) {
    app.metrics.visit_rejected(|reason, status, count| {
        family.count(&[("reason", reason), ("status", status)], count);
    });
}

fn startup(scope: &ModelScope<'_>, family: &mut Family<'_>) {
    for (phase, seconds) in own(scope).startup() {
        family.value(&[("phase", &phase)], seconds);
    }
}

fn memory(scope: &ModelScope<'_>, family: &mut Family<'_>) {
    for (part, bytes) in own(scope).memory() {
        family.value(&[("part", &part)], bytes);
    }
    if let Some(free) = machine::free_memory() {
        family.count(&[("part", "free")], free);
    }
}

fn build_info(_: &App, family: &mut Family<'_>) {
    let commit = option_env!("TOKENMILL_COMMIT").unwrap_or("unknown");
    let labels = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("commit", commit),
        ("arch", std::env::consts::ARCH),
        ("cpu_isa", Isa::best().name()),
        ("cuda", "none"),
    ];
    family.value(&labels, 1.0);
}

use Kind::{Counter, Gauge, Histogram as Hist, Summary};
use Write::{Model, Server};

/// Every family, in the order of the text.
#[rustfmt::skip]
pub static METRICS: &[Metric] = &[
    metric("vllm:num_requests_running", Gauge, "", "Sequences in the execution batch.", Model(|s, f| f.count(&[], stats(s).running.get()))),
    metric("vllm:num_requests_waiting", Gauge, "", "Sequences that wait for room.", Model(|s, f| f.count(&[], stats(s).waiting.get()))),
    metric("vllm:num_requests_waiting_by_reason", Gauge, "reason", "Sequences that wait, by what they wait for.", Model(waiting_by_reason)),
    metric("vllm:kv_cache_usage_perc", Gauge, "", "Used fraction of the KV blocks, 0 to 1.", Model(kv_usage)),
    metric("vllm:gpu_cache_usage_perc", Gauge, "", "Older name of vllm:kv_cache_usage_perc.", Model(kv_usage)),
    metric("vllm:cache_config_info", Gauge, "block_size,num_gpu_blocks,cache_dtype,enable_prefix_caching,gpu_memory_utilization,kv_cache_size_tokens,kv_cache_max_concurrency", "Settings of the KV cache; the value is 1.", Model(cache_config)),
    metric("vllm:prompt_tokens_total", Counter, "", "Prompt tokens of sequences whose prefill is complete, cached ones included.", Model(|s, f| f.count(&[], stats(s).prompt_tokens.get()))),
    metric("vllm:generation_tokens_total", Counter, "", "Tokens sampled.", Model(|s, f| f.count(&[], stats(s).generation_tokens.get()))),
    metric("vllm:prompt_tokens_cached_total", Counter, "", "Prompt tokens found in the prefix cache.", Model(|s, f| f.count(&[], stats(s).cached_tokens.get()))),
    metric("vllm:prefix_cache_queries_total", Counter, "", "Prompt tokens looked up in the prefix cache.", Model(|s, f| f.count(&[], stats(s).prefix_queries.get()))),
    metric("vllm:prefix_cache_hits_total", Counter, "", "Prompt tokens found in the prefix cache.", Model(|s, f| f.count(&[], stats(s).cached_tokens.get()))),
    metric("vllm:num_preemptions_total", Counter, "", "Times a running sequence lost its blocks.", Model(|s, f| f.count(&[], stats(s).preemptions.get()))),
    metric("vllm:request_success_total", Counter, "finished_reason", "Sequences that ended, by reason; a client that left counts as abort.", Model(finished)),
    metric("vllm:admission_rejections_total", Counter, "model_name,reason", "Requests refused by a queue limit.", Server(queue_rejections)),
    metric("vllm:time_to_first_token_seconds", Hist, "", "From the arrival of a request to its first token.", Model(|s, f| histogram(f, &own(s).ttft))),
    metric("vllm:inter_token_latency_seconds", Hist, "", "Between two outputs of a sequence.", Model(|s, f| histogram(f, &own(s).inter_token))),
    metric("vllm:request_time_per_output_token_seconds", Hist, "", "Mean time of a sequence's tokens after the first.", Model(|s, f| histogram(f, &own(s).time_per_token))),
    metric("vllm:e2e_request_latency_seconds", Hist, "", "From the arrival of a request to the end of a sequence.", Model(|s, f| histogram(f, &own(s).e2e))),
    metric("vllm:request_queue_time_seconds", Hist, "", "From submission to admission.", Model(|s, f| histogram(f, &own(s).queue))),
    metric("vllm:request_inference_time_seconds", Hist, "", "From admission to the last token.", Model(|s, f| histogram(f, &own(s).inference))),
    metric("vllm:request_prefill_time_seconds", Hist, "", "From admission to the first token.", Model(|s, f| histogram(f, &own(s).prefill))),
    metric("vllm:request_decode_time_seconds", Hist, "", "From the first to the last token.", Model(|s, f| histogram(f, &own(s).decode))),
    metric("vllm:request_prompt_tokens", Hist, "", "Prompt tokens of a sequence.", Model(|s, f| histogram(f, &own(s).prompt_tokens))),
    metric("vllm:request_generation_tokens", Hist, "", "Completion tokens of a sequence.", Model(|s, f| histogram(f, &own(s).generation_tokens))),
    metric("vllm:request_max_num_generation_tokens", Hist, "", "Completion tokens of the longest choice of a prompt.", Model(|s, f| histogram(f, &own(s).longest))),
    metric("vllm:request_params_max_tokens", Hist, "", "Completion tokens that a prompt's choices were allowed.", Model(|s, f| histogram(f, &own(s).max_tokens))),
    metric("vllm:request_prefill_kv_computed_tokens", Hist, "", "Prompt tokens of a sequence that were not in the prefix cache.", Model(|s, f| histogram(f, &own(s).computed_tokens))),
    metric("vllm:iteration_tokens_total", Hist, "", "Query tokens of a step.", Model(|s, f| engine_histogram(f, &[], &stats(s).iteration_tokens))),
    metric("vllm:request_params_n", Hist, "", "Choices that a request asked for.", Model(|s, f| histogram(f, &own(s).choices))),
    metric("http_requests_total", Counter, "handler,method,status", "Answered requests; probes and /metrics are not counted.", Server(http_requests)),
    metric("http_request_duration_seconds", Hist, "handler,method", "From the head of a request to the end of its answer.", Server(http_duration)),
    metric("http_request_duration_highr_seconds", Hist, "", "The same with more buckets and no labels.", Server(|a, f| histogram(f, &a.metrics.http.fine))),
    metric("http_request_size_bytes", Summary, "handler", "Size of bodies received.", Server(http_request_size)),
    metric("http_response_size_bytes", Summary, "handler", "Size of bodies sent.", Server(http_response_size)),
    metric("process_resident_memory_bytes", Gauge, "", "Resident memory.", Server(|_, f| optional(f, process::resident_bytes()))),
    metric("process_virtual_memory_bytes", Gauge, "", "Virtual memory.", Server(|_, f| optional(f, process::virtual_bytes()))),
    metric("process_cpu_seconds_total", Counter, "", "CPU time, user and system.", Server(|_, f| optional(f, process::cpu_seconds()))),
    metric("process_open_fds", Gauge, "", "Open file descriptors.", Server(|_, f| optional(f, process::open_fds()))),
    metric("process_max_fds", Gauge, "", "Limit of open file descriptors.", Server(|_, f| optional(f, process::max_fds()))),
    metric("process_start_time_seconds", Gauge, "", "Unix time at which the process started.", Server(|_, f| optional(f, process::start_time_seconds()))),
    metric("tokenmill_build_info", Gauge, "version,commit,arch,cpu_isa,cuda", "What this binary is and which instructions its kernels use; the value is 1.", Server(build_info)),
    metric("tokenmill_ready", Gauge, "", "1 when /health/ready answers 200.", Server(|a, f| f.count(&[], u64::from(a.is_ready())))),
    metric("tokenmill_requests_in_flight", Gauge, "", "Requests being served, as /load reports them.", Server(|a, f| f.count(&[], a.in_flight()))),
    metric("tokenmill_startup_seconds", Gauge, "phase", "How long the phases of the start took.", Model(startup)),
    metric("tokenmill_host_memory_bytes", Gauge, "part", "Host memory by what it holds.", Model(memory)),
    metric("tokenmill_step_seconds", Hist, "part", "Time of an engine step by its parts; detokenize is of a stream's new tokens, outside the step.", Model(steps)),
    metric("tokenmill_step_tokens_total", Counter, "kind", "Query tokens of steps: of prompts (and of what is computed again), of sequences that generate.", Model(step_tokens)),
    metric("tokenmill_steps_total", Counter, "", "Engine steps.", Model(|s, f| f.count(&[], stats(s).steps.get()))),
    metric("tokenmill_kv_blocks", Gauge, "state", "KV blocks: free, cached (content findable, no owner), used, pinned (none ever is).", Model(kv_blocks)),
    metric("tokenmill_kv_evictions_total", Counter, "", "Cached blocks whose content was given up.", Model(|s, f| f.count(&[], stats(s).evictions.get()))),
    metric("tokenmill_requests_rejected_total", Counter, "reason,status", "Requests refused, by cause.", Server(rejected)),
    metric("tokenmill_requests_isolated_total", Counter, "", "Requests that failed by the server's fault while it went on.", Server(|a, f| f.count(&[], load(&a.metrics.isolated)))),
    metric("tokenmill_panics_total", Counter, "", "Panics of the process, caught ones included.", Server(|_, f| f.count(&[], panics::count()))),
    metric("tokenmill_requests_cancelled_total", Counter, "by", "Sequences ended early, by whom.", Model(cancelled)),
    metric("tokenmill_tokens_wasted_total", Counter, "cause", "Tokens computed in vain.", Model(wasted)),
];
