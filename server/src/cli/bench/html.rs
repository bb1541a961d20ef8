//! The report as one page: tables and plots drawn as inline SVG. It loads nothing.

use std::fmt::Write;

use super::Report;
use super::report::{figures, load, rows, time};
use super::stats::Sample;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;\
color:#1c2330;background:#fff}table{border-collapse:collapse;margin:1rem 0}td,th{padding:.25rem .9rem .25rem 0;\
text-align:right}td:first-child,th:first-child{text-align:left}tr+tr td{border-top:1px solid #8884}\
svg{width:100%;height:auto;margin:.5rem 0 1.5rem}svg text{font-size:12px;fill:currentColor}\
.axis{stroke:currentColor;stroke-opacity:.35}.grid{stroke:currentColor;stroke-opacity:.12}\
.a{stroke:#2a6fdb;fill:#2a6fdb}.b{stroke:#d9742b;fill:#d9742b}.f{stroke:#c62f3b;fill:#c62f3b}\
polyline{fill:none!important;stroke-width:2}\
@media(prefers-color-scheme:dark){body{color:#dde3ee;background:#12161d}}";

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 40.0;
const TOP: f64 = 14.0;

/// The page.
pub(super) fn page(report: &Report) -> String {
    let model = escape(&report.model);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{model}</title>\
         <style>{STYLE}</style></head><body>\n<h1>{model}</h1>\n<p>{}<br>{}; {}; up to {} tokens; seed {}</p>\n",
        escape(&report.base_url),
        load(report.load),
        escape(&report.prompts),
        report.max_tokens,
        report.seed
    );
    page.push_str("<table>\n");
    for (name, value) in figures(report) {
        let _ = writeln!(page, "<tr><td>{name}</td><td>{value}</td></tr>");
    }
    page.push_str("</table>\n<table>\n<tr><th></th>");
    for name in ["mean", "p50", "p90", "p95", "p99", "max"] {
        let _ = write!(page, "<th>{name}</th>");
    }
    page.push_str("</tr>\n");
    for (name, d) in rows(report) {
        let cells = [d.mean, d.p50, d.p90, d.p95, d.p99, d.max]
            .map(|seconds| format!("<td>{}</td>", time(seconds)));
        let _ = writeln!(page, "<tr><td>{name}</td>{}</tr>", cells.concat());
    }
    page.push_str("</table>\n");
    for (error, count) in report.summary.errors.iter().take(20) {
        let _ = writeln!(page, "<p>failed {count} times: {}</p>", escape(error));
    }
    plots(report, &mut page);
    page.push_str("</body></html>\n");
    page
}

fn plots(report: &Report, page: &mut String) {
    let good = || report.samples.iter().filter(|sample| sample.error.is_none());
    let ttft: Vec<f64> = good().filter_map(|sample| sample.ttft).collect();
    let e2e: Vec<f64> = good().map(|sample| sample.e2e).collect();
    let itl: Vec<f64> = good().flat_map(|sample| sample.itl.iter().copied()).collect();
    for (title, values) in [
        ("Time to first token: share of requests below", ttft),
        ("Between pieces of text: share of gaps below", itl),
        ("Whole request: share of requests below", e2e),
    ] {
        if values.len() > 1 {
            let _ = writeln!(page, "<h2>{title}</h2>\n{}", cumulative(values));
        }
    }
    if report.samples.len() > 1 {
        let _ = writeln!(
            page,
            "<h2>Over time</h2>\n<p>By the time each request was sent: \
             <b style=\"color:#2a6fdb\">first token</b>, \
             <b style=\"color:#d9742b\">whole request</b>, <b style=\"color:#c62f3b\">failed</b>.</p>\n{}",
            timeline(&report.samples)
        );
    }
}

/// A plot's frame: maps values to places, draws axes.
struct Frame {
    max_x: f64,
    max_y: f64,
}

impl Frame {
    fn x(&self, value: f64) -> f64 {
        LEFT + value / self.max_x * (WIDTH - LEFT - 20.0)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - value / self.max_y * (HEIGHT - BOTTOM - TOP)
    }

    fn axes(&self, label_x: fn(f64) -> String, label_y: fn(f64) -> String) -> String {
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n");
        for step in 0..=4 {
            let part = f64::from(step) / 4.0;
            let (x, y) = (self.x(self.max_x * part), self.y(self.max_y * part));
            let (bottom, right) = (self.y(0.0), self.x(self.max_x));
            let kind = if step == 0 { "axis" } else { "grid" };
            let _ = writeln!(
                svg,
                "<line class=\"{kind}\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right:.1}\" y2=\"{y:.1}\"/>\
                 <line class=\"{kind}\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                bottom + 20.0,
                label_x(self.max_x * part),
                LEFT - 8.0,
                y + 4.0,
                label_y(self.max_y * part),
            );
        }
        svg
    }
}

/// At most this many points of a curve are drawn; a page stays small for any number of tokens.
const POINTS: usize = 400;

fn cumulative(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    let frame = Frame { max_x: values[last].max(1e-9), max_y: 1.0 };
    let mut svg = frame.axes(time, |share| format!("{:.0}%", share * 100.0));
    svg.push_str("<polyline class=\"a\" points=\"");
    let points = POINTS.min(values.len());
    for point in 0..points {
        let index = point * last / (points - 1).max(1);
        let share = (index + 1) as f64 / values.len() as f64;
        let _ = write!(svg, "{:.1},{:.1} ", frame.x(values[index]), frame.y(share));
    }
    svg.push_str("\"/>\n</svg>");
    svg
}

fn timeline(samples: &[Sample]) -> String {
    let max = |of: fn(&Sample) -> f64| samples.iter().map(of).fold(1e-9, f64::max);
    let frame = Frame { max_x: max(|sample| sample.start), max_y: max(|sample| sample.e2e) };
    let mut svg = frame.axes(time, time);
    let mut dot = |class: &str, sample: &Sample, value: f64| {
        let (x, y) = (frame.x(sample.start), frame.y(value));
        let _ = writeln!(svg, "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\"/>");
    };
    for sample in samples {
        match (&sample.error, sample.ttft) {
            (Some(_), _) => dot("f", sample, sample.e2e),
            (None, ttft) => {
                dot("b", sample, sample.e2e);
                if let Some(ttft) = ttft {
                    dot("a", sample, ttft);
                }
            }
        }
    }
    svg.push_str("</svg>");
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::drive::Load;
    use crate::cli::bench::stats::Summary;
    use crate::cli::bench::{Route, report};

    fn sample_report() -> Report {
        let sample = |index: usize| Sample {
            start: index as f64,
            ttft: Some(0.1 * index as f64),
            itl: vec![0.01; 5],
            e2e: 1.0 + index as f64,
            prompt_tokens: 9,
            completion_tokens: 6,
            cached_tokens: 0,
            error: (index == 3).then(|| "<script src=\"x\">".to_owned()),
        };
        let samples: Vec<Sample> = (0..20).map(sample).collect();
        Report {
            base_url: "http://localhost:1/v1".to_owned(),
            model: "a<b>".to_owned(),
            endpoint: Route::Chat,
            load: Load::Open { rate: 2.0 },
            prompts: "p".to_owned(),
            max_tokens: 6,
            seed: 1,
            summary: Summary::of(&samples, 10.0),
            samples,
        }
    }

    #[test]
    fn the_page_loads_nothing_and_escapes_what_is_foreign() {
        let page = page(&sample_report());
        for part in
            ["src=\"", "href=", "url(", "@import", "<script", "<link", "<iframe", "<img", "a<b>"]
        {
            assert!(!page.contains(part), "{part}");
        }
        assert_eq!(page.matches("://").count(), 1, "only the address that was measured");
        assert_eq!(page.matches("<svg").count(), 4);
        assert_eq!(page.matches("</svg>").count(), 4);
        assert_eq!(page.matches("class=\"f\"").count(), 1);
        assert!(!page.contains("NaN") && !page.contains("inf"));
    }

    #[test]
    fn the_text_has_every_figure() {
        let text = report::text(&sample_report());
        for part in
            ["19 answered, 1 failed", "open loop, 2 requests per second", "p99", "failed 1 times"]
        {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
