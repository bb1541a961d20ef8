//! `/metrics` and its document.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tokenmill::metrics::{Kind, METRICS, document};

use crate::support::{Server, Setup, chat_body, completion_body};

/// The value of a series, written exactly like that.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in {text}")).parse().expect("a number")
}

const MODEL: &str = "{model_name=\"tiny\",engine=\"0\"}";

#[tokio::test]
async fn every_family_is_there_before_the_first_request() {
    let server = Server::new(Setup::default());
    let reply = server.get("/metrics").await;
    assert_eq!(reply.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let text = reply.text();
    // Labels of these come with the first request.
    let later = [
        "http_requests_total",
        "http_request_duration_seconds",
        "http_request_size_bytes",
        "http_response_size_bytes",
        "tokenmill_startup_seconds",
    ];
    for metric in METRICS {
        assert!(text.contains(&format!("# TYPE {} ", metric.name)), "{}", metric.name);
        let suffix =
            if matches!(metric.kind, Kind::Histogram | Kind::Summary) { "_count" } else { "" };
        let sample = format!("\n{}{suffix}", metric.name);
        assert!(later.contains(&metric.name) || text.contains(&sample), "{sample}");
    }
    let names: std::collections::HashSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), METRICS.len());
    for metric in METRICS.iter().filter(|metric| metric.kind == Kind::Counter) {
        assert!(metric.name.ends_with("_total"), "{}", metric.name);
    }
}

/// What dashboards, autoscalers and gateways read, with the labels they select by: the list that this server
/// promises for language models without adapters, speculation and constrained output.
const PROMISED: [(&str, &str); 61] = [
    ("vllm:num_requests_running", "model_name,engine"),
    ("vllm:num_requests_waiting", "model_name,engine"),
    ("vllm:num_requests_waiting_by_reason", "model_name,engine,reason"),
    ("vllm:kv_cache_usage_perc", "model_name,engine"),
    ("vllm:gpu_cache_usage_perc", "model_name,engine"),
    (
        "vllm:cache_config_info",
        "model_name,engine,block_size,num_gpu_blocks,cache_dtype,enable_prefix_caching,gpu_memory_utilization,kv_cache_size_tokens,kv_cache_max_concurrency",
    ),
    ("vllm:prompt_tokens_total", "model_name,engine"),
    ("vllm:generation_tokens_total", "model_name,engine"),
    ("vllm:prompt_tokens_cached_total", "model_name,engine"),
    ("vllm:prefix_cache_queries_total", "model_name,engine"),
    ("vllm:prefix_cache_hits_total", "model_name,engine"),
    ("vllm:num_preemptions_total", "model_name,engine"),
    ("vllm:request_success_total", "model_name,engine,finished_reason"),
    ("vllm:admission_rejections_total", "model_name,reason"),
    ("vllm:time_to_first_token_seconds_bucket", "model_name,engine,le"),
    ("vllm:inter_token_latency_seconds_bucket", "model_name,engine,le"),
    ("vllm:request_time_per_output_token_seconds_bucket", "model_name,engine,le"),
    ("vllm:e2e_request_latency_seconds_bucket", "model_name,engine,le"),
    ("vllm:request_queue_time_seconds_sum", "model_name,engine"),
    ("vllm:request_inference_time_seconds_sum", "model_name,engine"),
    ("vllm:request_prefill_time_seconds_sum", "model_name,engine"),
    ("vllm:request_decode_time_seconds_sum", "model_name,engine"),
    ("vllm:request_prompt_tokens_bucket", "model_name,engine,le"),
    ("vllm:request_generation_tokens_bucket", "model_name,engine,le"),
    ("vllm:request_max_num_generation_tokens_sum", "model_name,engine"),
    ("vllm:request_params_max_tokens_sum", "model_name,engine"),
    ("vllm:request_prefill_kv_computed_tokens_sum", "model_name,engine"),
    ("vllm:iteration_tokens_total_bucket", "model_name,engine,le"),
    ("vllm:iteration_tokens_total_count", "model_name,engine"),
    ("vllm:request_params_n_bucket", "model_name,engine,le"),
    ("http_requests_total", "handler,method,status"),
    ("http_request_duration_seconds_bucket", "handler,method,le"),
    ("http_request_duration_highr_seconds_bucket", "le"),
    ("http_request_size_bytes_sum", "handler"),
    ("http_request_size_bytes_count", "handler"),
    ("http_response_size_bytes_sum", "handler"),
    ("http_response_size_bytes_count", "handler"),
    ("process_resident_memory_bytes", ""),
    ("process_virtual_memory_bytes", ""),
    ("process_cpu_seconds_total", ""),
    ("process_open_fds", ""),
    ("process_max_fds", ""),
    ("process_start_time_seconds", ""),
    ("tokenmill_build_info", "version,commit,arch,cpu_isa,cuda"),
    ("tokenmill_ready", ""),
    ("tokenmill_startup_seconds", "model_name,engine,phase"),
    ("tokenmill_step_seconds_bucket", "model_name,engine,part,le"),
    ("tokenmill_step_tokens_total", "model_name,engine,kind"),
    ("tokenmill_requests_rejected_total", "reason,status"),
    ("tokenmill_requests_cancelled_total", "model_name,engine,by"),
    ("tokenmill_tokens_wasted_total", "model_name,engine,cause"),
    ("tokenmill_kv_blocks", "model_name,engine,state"),
    ("tokenmill_kv_evictions_total", "model_name,engine"),
    ("tokenmill_host_memory_bytes", "model_name,engine,part"),
    ("tokenmill_panics_total", ""),
    ("tokenmill_requests_isolated_total", ""),
    // Values of a label that something selects by.
    ("tokenmill_kv_blocks", "state=\"pinned\""),
    ("tokenmill_step_seconds_bucket", "part=\"forward\""),
    ("tokenmill_step_seconds_bucket", "part=\"detokenize\""),
    ("tokenmill_host_memory_bytes", "part=\"free\""),
    ("vllm:num_requests_waiting_by_reason", "reason=\"deferred\""),
];

/// Names of the labels of a sample, and the name of the sample.
fn shape(line: &str) -> (&str, String) {
    let (name, rest) = line.split_once(['{', ' ']).expect("a sample has a value");
    let mut labels = Vec::new();
    let mut rest =
        line.as_bytes()[name.len()..].first().filter(|&&b| b == b'{').map_or("", |_| rest);
    while let Some((label, after)) = rest.split_once("=\"") {
        labels.push(label.trim_start_matches(','));
        rest = after.split_once('"').expect("a quoted value").1;
    }
    (name, labels.join(","))
}

#[tokio::test]
async fn what_others_read_is_there() {
    let server = Server::new(Setup::default());
    server.chat(chat_body(json!({}))).await;
    server.model.metrics.record_startup("open", 0.5);
    let reply = server.get("/metrics").await;
    let samples = || reply.text().lines().filter(|line| !line.starts_with('#'));
    for (name, labels) in PROMISED {
        let found = samples().any(|line| match labels.contains('"') {
            true => line.starts_with(&format!("{name}{{")) && line.contains(labels),
            false => shape(line) == (name, labels.to_owned()),
        });
        assert!(found, "{name}{{{labels}}}");
    }
}

#[tokio::test]
async fn open_metrics_are_there_for_who_asks() {
    let server = Server::new(Setup::default());
    server.chat(chat_body(json!({}))).await;
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.3";
    let request = axum::http::Request::get("/metrics").header("accept", accept);
    let reply = server.send(request.body(axum::body::Body::empty()).expect("a request")).await;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(reply.header("content-type"), kind);
    let text = reply.text();
    assert!(text.ends_with("\n# EOF\n") && text.matches("# EOF").count() == 1);
    assert!(text.contains("# TYPE vllm:prompt_tokens counter\n"));
    assert!(text.contains(&format!("\nvllm:prompt_tokens_total{MODEL} ")));
    let mut family = ("", "");
    for line in text.lines().filter(|line| !line.starts_with("# HELP") && *line != "# EOF") {
        if let Some(header) = line.strip_prefix("# TYPE ") {
            family = header.split_once(' ').expect("name and type");
            continue;
        }
        let suffixes: &[&str] = match family.1 {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_sum", "_count"],
            "summary" => &["_sum", "_count"],
            _ => &[""],
        };
        let name = shape(line).0;
        assert!(suffixes.iter().any(|suffix| name == format!("{}{suffix}", family.0)), "{line}");
        assert!(!line.contains("le=\"1\""), "{line}");
    }
}

#[tokio::test]
async fn counts_follow_the_requests() {
    let mut setup = Setup::default();
    // A device that takes its time: tokens that come at once are one output.
    setup.sim.cost.step = Duration::from_millis(10);
    let server = Server::new(setup);
    for _ in 0..3 {
        server.chat(chat_body(json!({"ignore_eos": true}))).await;
    }
    server
        .ask("/v1/completions", completion_body(json!({"stream": true, "ignore_eos": true})))
        .await;
    server.post("/v1/completions", "{").await;
    server.get("/nowhere").await;
    server.post("/nowhere", "").await;
    // No wait: what a client has read is counted, and its sequence no longer runs.
    server.model.metrics.record_startup("open", 0.5);
    let text = server.get("/metrics").await.text().to_owned();
    for (series, want) in [
        (format!("vllm:generation_tokens_total{MODEL}"), 32.0),
        (
            format!(
                "vllm:request_success_total{}",
                MODEL.replace('}', ",finished_reason=\"length\"}")
            ),
            4.0,
        ),
        (
            format!(
                "vllm:request_success_total{}",
                MODEL.replace('}', ",finished_reason=\"repetition\"}")
            ),
            0.0,
        ),
        (format!("vllm:time_to_first_token_seconds_count{MODEL}"), 4.0),
        (format!("vllm:e2e_request_latency_seconds_count{MODEL}"), 4.0),
        (format!("vllm:request_queue_time_seconds_count{MODEL}"), 4.0),
        (format!("vllm:request_generation_tokens_sum{MODEL}"), 32.0),
        (format!("vllm:request_params_max_tokens_sum{MODEL}"), 32.0),
        (format!("tokenmill_step_tokens_total{}", MODEL.replace('}', ",kind=\"decode\"}")), 28.0),
        (format!("tokenmill_step_tokens_total{}", MODEL.replace('}', ",kind=\"padding\"}")), 0.0),
        ("tokenmill_requests_isolated_total".into(), 0.0),
        (format!("vllm:kv_cache_usage_perc{MODEL}"), 0.0),
        (format!("vllm:num_requests_running{MODEL}"), 0.0),
        (format!("tokenmill_startup_seconds{}", MODEL.replace('}', ",phase=\"open\"}")), 0.5),
        (
            "http_requests_total{handler=\"/v1/chat/completions\",method=\"POST\",status=\"2xx\"}"
                .into(),
            3.0,
        ),
        (
            "http_requests_total{handler=\"/v1/completions\",method=\"POST\",status=\"4xx\"}"
                .into(),
            1.0,
        ),
        ("http_requests_total{handler=\"none\",method=\"GET\",status=\"4xx\"}".into(), 1.0),
        ("tokenmill_requests_rejected_total{reason=\"validation\",status=\"400\"}".into(), 1.0),
        ("tokenmill_requests_rejected_total{reason=\"queue_full\",status=\"429\"}".into(), 0.0),
        (format!("vllm:request_params_n_count{MODEL}"), 4.0),
        (format!("vllm:request_max_num_generation_tokens_sum{MODEL}"), 32.0),
        ("tokenmill_ready".into(), 1.0),
        ("tokenmill_requests_in_flight".into(), 0.0),
    ] {
        assert_eq!(value(&text, &series), want, "{series}");
    }
    assert!(value(&text, &format!("vllm:inter_token_latency_seconds_count{MODEL}")) >= 4.0);
    assert!(value(&text, "process_resident_memory_bytes") > 1e6);
    let sent = value(&text, "http_response_size_bytes_sum{handler=\"/v1/chat/completions\"}");
    assert!(sent > 1000.0, "{sent}");
    assert!(!text.contains("handler=\"/metrics\""));
    let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let series = samples.iter().filter_map(|line| Some(line.rsplit_once(' ')?.0));
    let distinct: std::collections::HashSet<&str> = series.collect();
    assert_eq!(distinct.len(), samples.len(), "a series appears twice");
}

/// Rewrites the document when `TOKENMILL_BLESS` is set.
#[test]
fn the_document_is_the_tables() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    if std::env::var_os("TOKENMILL_BLESS").is_some() {
        std::fs::write(&path, document()).expect("docs/ can be written");
    }
    let have = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(have, document(), "run this test with TOKENMILL_BLESS=1 and commit docs/metrics.md");
}
