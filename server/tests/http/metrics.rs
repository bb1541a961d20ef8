//! `/metrics` and its document.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tokenmill::metrics::{Kind, METRICS, document};
use tokenmill_scheduler::FinishReason;

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
        "tokenmill_host_memory_bytes",
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
    server.idle().await;
    // The engine publishes a step's tokens and ends after it has handed them out.
    let stats = server.model.engine.stats();
    for _ in 0..2000 {
        if stats.finished(FinishReason::Length) == 4 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
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
