//! `tokenmill bench --body`: the same POST again and again, for requests that are answered in microseconds.
//!
//! One thread keeps every connection busy, because a generator takes its time from a server on the same machine.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use reqwest::Url;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::stats::Distribution;
use super::wire::Connection;
use super::{BenchArgs, positive, report};

/// How long the last answers may take after the end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause after a connection that could not be opened.
const PAUSE: Duration = Duration::from_millis(100);

/// The options of this mode.
#[derive(Args, Debug)]
pub(super) struct PostArgs {
    /// Instead of prompts, POST this file as it is to --base-url, which is the whole address then (http only).
    #[arg(long, conflicts_with_all = [
        "model", "requests", "rate", "prompt_words", "shared_words", "dataset", "max_tokens",
        "stop_at_eos", "temperature", "extra_body", "endpoint", "seed", "html",
    ])]
    pub(super) body: Option<PathBuf>,
    /// With --body: a header, as "Name: value"; Content-Type is application/json unless given.
    #[arg(long, requires = "body")]
    header: Vec<String>,
    /// With --body: seconds.
    #[arg(long, requires = "body", default_value_t = 10.0, value_parser = positive)]
    duration: f64,
}

/// What was measured; times in seconds.
#[derive(Debug, Serialize)]
struct Report {
    url: String,
    body_bytes: usize,
    concurrency: u32,
    seconds: f64,
    answered: usize,
    failed: usize,
    requests_per_second: f64,
    /// From sending to the last byte.
    latency: Distribution,
    /// Why requests failed, and how often.
    errors: BTreeMap<String, usize>,
}

/// Where the requests go, and their bytes.
#[derive(Clone, Debug)]
struct Target {
    authority: Arc<str>,
    request: Arc<[u8]>,
}

impl Target {
    fn new(url: &Url, headers: &[String], key: Option<&str>, body: &[u8]) -> anyhow::Result<Self> {
        ensure!(url.scheme() == "http", "--base-url {url}: --body needs an http:// address");
        let host = url.host_str().with_context(|| format!("--base-url {url}: no host"))?;
        let authority = format!("{host}:{}", url.port_or_known_default().unwrap_or(80));
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let mut head = format!("POST {}{query} HTTP/1.1\r\nhost: {authority}\r\n", url.path());
        let mut typed = false;
        for header in headers {
            let (name, value) = header
                .split_once(':')
                .map(|(n, v)| (n.trim(), v.trim()))
                .context(format!("--header {header:?}: expected \"Name: value\""))?;
            let plain = |text: &str| !text.contains(char::is_control);
            ensure!(
                !name.is_empty() && plain(name) && plain(value) && !name.contains(' '),
                "--header {header:?}: expected \"Name: value\" on one line"
            );
            for own in ["host", "content-length", "transfer-encoding", "connection"] {
                ensure!(
                    !name.eq_ignore_ascii_case(own),
                    "--header {header:?}: {own} is set already"
                );
            }
            typed |= name.eq_ignore_ascii_case("content-type");
            write!(head, "{name}: {value}\r\n")?;
        }
        if !typed {
            head.push_str("content-type: application/json\r\n");
        }
        if let Some(key) = key {
            write!(head, "authorization: Bearer {key}\r\n")?;
        }
        write!(head, "content-length: {}\r\n\r\n", body.len())?;
        let request = [head.as_bytes(), body].concat();
        Ok(Self { authority: authority.into(), request: request.into() })
    }

    async fn connect(&self) -> std::io::Result<Connection<TcpStream>> {
        let socket = TcpStream::connect(&*self.authority).await?;
        socket.set_nodelay(true)?;
        Ok(Connection::new(socket))
    }

    /// So many requests before the measured ones.
    async fn warm_up(&self, requests: u32) -> anyhow::Result<()> {
        let mut samples = Samples::default();
        let mut connection = None;
        for _ in 0..requests {
            self.one(&mut connection, &mut samples).await;
        }
        if let Some(error) = samples.errors.keys().next() {
            bail!("the warm-up request failed: {error}");
        }
        Ok(())
    }

    /// One client of the closed loop.
    async fn client(self, end: Instant) -> Samples {
        let mut samples = Samples::default();
        let mut connection = None;
        while Instant::now() < end {
            self.one(&mut connection, &mut samples).await;
        }
        samples
    }

    /// One request, on `connection` if there is one.
    async fn one(&self, connection: &mut Option<Connection<TcpStream>>, samples: &mut Samples) {
        let sent = Instant::now();
        let mut open = match connection.take() {
            Some(open) => open,
            None => match self.connect().await {
                Ok(open) => open,
                Err(error) => {
                    samples.fail(format!("{}: {error}", self.authority));
                    return tokio::time::sleep(PAUSE).await;
                }
            },
        };
        match open.exchange(&self.request).await {
            Ok(answer) => {
                match answer.status {
                    200..300 => samples.seconds.push(sent.elapsed().as_secs_f64()),
                    status => samples.fail(format!("status {status}")),
                }
                *connection = Some(open).filter(|_| !answer.closes);
            }
            Err(error) => samples.fail(error.to_string()),
        }
    }
}

/// What a client saw.
#[derive(Debug, Default)]
struct Samples {
    seconds: Vec<f64>,
    errors: BTreeMap<String, usize>,
}

impl Samples {
    fn fail(&mut self, error: String) {
        *self.errors.entry(error).or_default() += 1;
    }

    fn add(&mut self, other: Self) {
        self.seconds.extend(other.seconds);
        for (error, count) in other.errors {
            *self.errors.entry(error).or_default() += count;
        }
    }
}

/// The closed loop on this thread: samples, and the seconds it took.
fn measure(target: &Target, clients: u32, duration: Duration) -> anyhow::Result<(Samples, f64)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let start = Instant::now();
        let mut tasks: JoinSet<Samples> =
            (0..clients).map(|_| target.clone().client(start + duration)).collect();
        let mut all = Samples::default();
        let finish = async {
            while let Some(samples) = tasks.join_next().await {
                all.add(samples.context("a client of the bench failed")?);
            }
            anyhow::Ok(())
        };
        let finished = tokio::time::timeout(duration + PATIENCE, finish).await;
        finished.with_context(|| format!("no answer for {} s", PATIENCE.as_secs()))??;
        Ok((all, start.elapsed().as_secs_f64()))
    })
}

/// Runs this mode with the file at `path`.
pub(super) async fn run(args: &BenchArgs, path: &PathBuf) -> anyhow::Result<()> {
    let body = std::fs::read(path).with_context(|| path.display().to_string())?;
    let url: Url =
        args.base_url.parse().with_context(|| format!("--base-url {}", args.base_url))?;
    let target = Target::new(&url, &args.post.header, args.api_key.as_deref(), &body)?;
    target.warm_up(args.warmup).await?;
    let (clients, duration) = (args.concurrency, Duration::from_secs_f64(args.post.duration));
    let loops = tokio::task::spawn_blocking(move || measure(&target, clients, duration));
    let (samples, seconds) = loops.await??;
    let answered = samples.seconds.len();
    let report = Report {
        url: url.to_string(),
        body_bytes: body.len(),
        concurrency: clients,
        seconds,
        answered,
        failed: samples.errors.values().sum(),
        requests_per_second: answered as f64 / seconds,
        latency: Distribution::of(samples.seconds),
        errors: samples.errors,
    };
    crate::cli::say(&text(&report));
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    ensure!(answered > 0, "every request failed");
    Ok(())
}

fn text(report: &Report) -> String {
    let Report { url, body_bytes, concurrency, answered, failed, latency: d, .. } = report;
    let mut text =
        format!("POST {url}, {body_bytes} bytes\nclosed loop, {concurrency} in flight\n\n");
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<24}{value}");
    };
    line("requests", format!("{answered} answered, {failed} failed"));
    line("duration", report::time(report.seconds));
    line("requests per second", format!("{:.1}", report.requests_per_second));
    let head = ["mean", "p50", "p90", "p95", "p99", "max"];
    line("", head.map(|name| format!("{name:>10}")).concat());
    let cells = [d.mean, d.p50, d.p90, d.p95, d.p99, d.max];
    line("whole request", cells.map(|s| format!("{:>10}", report::time(s))).concat());
    for (error, count) in report.errors.iter().take(5) {
        line("failed", format!("{count} times: {error}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::test_server::{Answer, TestServer};

    fn target(url: &str) -> Target {
        Target::new(&url.parse().unwrap(), &[], None, b"{\"a\":1}").unwrap()
    }

    #[test]
    fn the_loop_sends_the_file_and_counts_what_failed() {
        let server = TestServer::start(|asked| match asked.path.as_str() {
            "/good" => Answer::json(200, "{}"),
            _ => Answer::json(503, "{}"),
        });
        let run = |path| {
            let target = target(&format!("{}{path}", server.url));
            measure(&target, 3, Duration::from_millis(50)).unwrap().0
        };
        let good = run("/good");
        assert!(good.errors.is_empty() && !good.seconds.is_empty(), "{good:?}");
        assert_eq!(server.bodies().len(), good.seconds.len());
        assert_eq!(server.bodies()[0], serde_json::json!({"a": 1}));
        let bad = run("/full");
        assert!(bad.seconds.is_empty());
        assert_eq!(bad.errors.keys().collect::<Vec<_>>(), ["status 503"]);
    }

    #[test]
    fn the_head_is_what_was_asked_for() {
        let url = "http://localhost:81/v2/x?y=1".parse().unwrap();
        let headers = ["Content-Type: a/b".to_owned(), "X: 1".to_owned()];
        let target = Target::new(&url, &headers, Some("k"), b"12").unwrap();
        let text = String::from_utf8(target.request.to_vec()).unwrap();
        assert_eq!(
            text,
            "POST /v2/x?y=1 HTTP/1.1\r\nhost: localhost:81\r\nContent-Type: a/b\r\nX: 1\r\n\
             authorization: Bearer k\r\ncontent-length: 2\r\n\r\n12"
        );
        for (url, header, part) in [
            ("https://a/", "X: 1", "needs an http:// address"),
            ("http://a/", "X 1", "expected \"Name: value\""),
            ("http://a/", "X: 1\r\nY: 2", "on one line"),
            ("http://a/", "Host: b", "host is set already"),
        ] {
            let error = Target::new(&url.parse().unwrap(), &[header.to_owned()], None, b"");
            let error = error.expect_err(header).to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn options_of_the_other_mode_are_refused() {
        use clap::Parser;
        #[derive(Parser)]
        struct Words {
            #[command(flatten)]
            bench: BenchArgs,
        }
        let read = |words: &str| Words::try_parse_from(words.split(' ')).map(|words| words.bench);
        let bench = read("bench --url http://a/b --body f -c 3 --duration 0.5").unwrap();
        assert_eq!((bench.concurrency, bench.post.duration), (3, 0.5));
        for words in [
            "bench --body f --rate 2",
            "bench --body f -n 5",
            "bench --body f --max-tokens 4",
            "bench --body f --html x",
            "bench --duration 4",
            "bench --header X:1",
            "bench --body f --duration 0",
        ] {
            assert!(read(words).is_err(), "{words}");
        }
    }
}
