//! The report for terminals.

use std::fmt::Write;

use super::Report;
use super::drive::Load;
use super::stats::Distribution;

/// The load in words.
pub(super) fn load(load: Load) -> String {
    match load {
        Load::Closed { concurrency } => format!("closed loop, {concurrency} in flight"),
        Load::Open { rate } => format!("open loop, {rate} requests per second"),
    }
}

/// Seconds as people read them.
pub(super) fn time(seconds: f64) -> String {
    match seconds {
        s if s < 0.001 => format!("{:.0} us", s * 1e6),
        s if s < 0.1 => format!("{:.2} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

/// The distributions by name.
pub(super) fn rows(report: &Report) -> [(&'static str, Distribution); 4] {
    let summary = &report.summary;
    [
        ("time to first token", summary.ttft),
        ("time per later token", summary.tpot),
        ("between pieces of text", summary.itl),
        ("whole request", summary.e2e),
    ]
}

/// The figures by name, apart from distributions.
pub(super) fn figures(report: &Report) -> [(&'static str, String); 6] {
    let summary = &report.summary;
    let requests = format!("{} answered, {} failed", summary.completed, summary.failed);
    let prompt = format!("{} ({} cached)", summary.prompt_tokens, summary.cached_tokens);
    [
        ("requests", requests),
        ("duration", time(summary.seconds)),
        ("prompt tokens", prompt),
        ("completion tokens", summary.completion_tokens.to_string()),
        ("requests per second", format!("{:.2}", summary.requests_per_second)),
        (
            "tokens per second",
            format!(
                "{:.1} generated, {:.1} in all",
                summary.completion_tokens_per_second, summary.total_tokens_per_second
            ),
        ),
    ]
}

pub(super) fn text(report: &Report) -> String {
    let mut text = format!(
        "{} at {}\n{}; {}; up to {} tokens; seed {}\n\n",
        report.model,
        report.base_url,
        load(report.load),
        report.prompts,
        report.max_tokens,
        report.seed
    );
    for (name, value) in figures(report) {
        let _ = writeln!(text, "{name:<24}{value}");
    }
    let head =
        ["mean", "p50", "p90", "p95", "p99", "max"].map(|name| format!("{name:>10}")).concat();
    let _ = writeln!(text, "\n{:<24}{head}", "");
    for (name, d) in rows(report) {
        let cells = [d.mean, d.p50, d.p90, d.p95, d.p99, d.max].map(|s| format!("{:>10}", time(s)));
        let _ = writeln!(text, "{name:<24}{}", cells.concat());
    }
    for (error, count) in report.summary.errors.iter().take(5) {
        let _ = writeln!(text, "failed {count} times: {error}");
    }
    text
}
