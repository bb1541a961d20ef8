//! What only a real socket shows: clients that leave, clients that read slowly, the end of the server.

use std::time::Duration;

use serde_json::json;
use tokenmill::lifecycle::{Outcome, bind, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::support::{Server, Setup, chat_body};

/// A listening server.
struct Live {
    server: Server,
    address: std::net::SocketAddr,
    stop: mpsc::Sender<()>,
    ended: JoinHandle<Outcome>,
}

async fn start(setup: Setup) -> Live {
    let server = Server::new(setup);
    let listener = bind(&server.app).await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (stop, receiver) = mpsc::channel(4);
    let ended = tokio::spawn(serve(server.app.clone(), listener, None, receiver));
    Live { server, address, stop, ended }
}

/// A server whose steps take `step_ms`.
fn slow(step_ms: u64) -> Setup {
    let mut setup = Setup::default();
    setup.sim.cost.step = Duration::from_millis(step_ms);
    setup
}

impl Live {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("it listens")
    }

    /// Sends a chat request; `more` are further fields.
    async fn request(&self, more: serde_json::Value) -> TcpStream {
        let mut socket = self.connect().await;
        socket
            .write_all(&http("POST", "/v1/chat/completions", &chat_body(more).to_string()))
            .await
            .expect("it reads");
        socket
    }

    async fn until(&self, what: &str, holds: impl Fn(&Server) -> bool) {
        for _ in 0..2000 {
            if holds(&self.server) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("never: {what}");
    }

    async fn metric(&self, line: &str) -> bool {
        self.server.get("/metrics").await.text().lines().any(|have| have == line)
    }
}

fn http(method: &str, path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// Reads until `end` was seen or the peer closed.
async fn read_until(socket: &mut TcpStream, end: &str) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    let mut seen = 0;
    while !bytes[seen..].windows(end.len()).any(|part| part == end.as_bytes()) {
        seen = bytes.len().saturating_sub(end.len());
        let read = tokio::time::timeout(Duration::from_secs(20), socket.read(&mut buffer));
        // A reset ends the text as well as a clean close.
        match read.await.expect("an answer in time").unwrap_or(0) {
            0 => break,
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn clients_that_leave_free_their_blocks() {
    let live = start(slow(5)).await;
    for stream in [true, false] {
        let more =
            json!({"max_tokens": 480, "ignore_eos": true, "stream": stream, "n": 4, "seed": 1});
        let socket = live.request(more).await;
        live.until("running", |server| server.model.engine.stats().running.get() == 4).await;
        assert_eq!(live.server.app.in_flight(), 1);
        drop(socket);
        live.until("left", |server| server.app.in_flight() == 0).await;
        live.server.idle().await;
    }
    let labels = "model_name=\"tiny\",engine=\"0\"";
    for line in [
        format!("vllm:request_success_total{{{labels},finished_reason=\"abort\"}} 8"),
        format!("tokenmill_requests_cancelled_total{{{labels},by=\"client\"}} 8"),
    ] {
        assert!(live.metric(&line).await, "{line}");
    }
}

#[tokio::test]
async fn connections_are_kept_and_streams_have_no_length() {
    let live = start(Setup::default()).await;
    let mut socket = live.connect().await;
    for _ in 0..2 {
        socket.write_all(&http("GET", "/version", "")).await.unwrap();
        assert!(read_until(&mut socket, "}").await.starts_with("HTTP/1.1 200"));
    }
    let body = chat_body(json!({"stream": true})).to_string();
    socket.write_all(&http("POST", "/v1/chat/completions", &body)).await.unwrap();
    let text = read_until(&mut socket, "0\r\n\r\n").await;
    assert!(
        text.contains("data: [DONE]\n\n") && text.contains("transfer-encoding: chunked"),
        "{text}"
    );
    assert!(!text.to_lowercase().contains("content-length"), "{text}");
    assert!(
        text.contains("cache-control: no-cache") && text.contains("x-accel-buffering: no"),
        "{text}"
    );
}

#[tokio::test]
async fn idle_streams_carry_comments() {
    let mut setup = slow(300);
    setup.config.sse_keep_alive = Duration::from_millis(50);
    let live = start(setup).await;
    let mut socket =
        live.request(json!({"stream": true, "max_tokens": 2, "ignore_eos": true})).await;
    let text = read_until(&mut socket, "[DONE]").await;
    assert!(text.contains(": keep-alive\n\n"), "{text}");
}

#[tokio::test]
async fn a_slow_reader_gets_merged_chunks() {
    let live = start(Setup::default()).await;
    // Many choices, so that far more is sent than the sockets hold.
    let more = json!({"stream": true, "n": 16, "max_tokens": 300, "ignore_eos": true, "logprobs": true, "top_logprobs": 20});
    let mut socket = live.request(more).await;
    live.server.idle().await;
    // Idle also before it begins: wait for all tokens.
    live.until("done", |server| server.model.engine.stats().generation_tokens.get() >= 16 * 300)
        .await;
    let text = read_until(&mut socket, "[DONE]").await;
    let chunks = text.matches("\"delta\":{\"content\"").count();
    assert!(chunks < 16 * 300 / 2, "{chunks} chunks for {} tokens", 16 * 300);
    assert_eq!(text.matches("\"finish_reason\":\"length\"").count(), 16);
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_dropped() {
    let mut setup = Setup::default();
    setup.config.write_timeout = Duration::from_millis(200);
    let live = start(setup).await;
    // Far more than the buffers of both sockets hold.
    let mut socket = live
        .request(json!({"stream": true, "n": 32, "max_tokens": 450, "ignore_eos": true, "logprobs": true, "top_logprobs": 20}))
        .await;
    live.until("begun", |server| server.app.in_flight() == 1).await;
    live.until("dropped", |server| server.app.in_flight() == 0).await;
    assert!(!read_until(&mut socket, "[DONE]").await.contains("[DONE]"));
    live.server.idle().await;
}

#[tokio::test]
async fn a_signal_lets_running_requests_finish() {
    let live = start(slow(10)).await;
    let mut socket =
        live.request(json!({"stream": true, "max_tokens": 30, "ignore_eos": true})).await;
    live.until("running", |server| server.model.engine.stats().running.get() == 1).await;
    live.stop.send(()).await.unwrap();
    live.until("draining", |server| !server.app.is_ready()).await;
    let text = read_until(&mut socket, "[DONE]").await;
    assert!(text.contains("\"finish_reason\":\"length\"") && text.contains("[DONE]"), "{text}");
    assert_eq!(live.ended.await.unwrap(), Outcome::Drained);
    assert!(TcpStream::connect(live.address).await.is_err());
}

#[tokio::test]
async fn requests_are_served_during_the_grace() {
    let mut setup = Setup::default();
    setup.config.drain_grace = Duration::from_millis(500);
    let live = start(setup).await;
    live.stop.send(()).await.unwrap();
    live.until("not ready", |server| !server.app.is_ready()).await;
    let mut socket = live.request(json!({"max_tokens": 3})).await;
    let text = read_until(&mut socket, "}}").await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert_eq!(live.ended.await.unwrap(), Outcome::Drained);
}

#[tokio::test]
async fn the_drain_timeout_ends_requests_with_an_error() {
    let mut setup = slow(20);
    setup.config.drain_timeout = Duration::from_millis(100);
    let live = start(setup).await;
    let mut streamed =
        live.request(json!({"stream": true, "max_tokens": 450, "ignore_eos": true})).await;
    let mut whole = live.request(json!({"max_tokens": 450, "ignore_eos": true})).await;
    live.until("running", |server| server.model.engine.stats().running.get() == 2).await;
    live.stop.send(()).await.unwrap();
    let text = read_until(&mut streamed, "[DONE]").await;
    let last = text.rsplit("data: ").nth(1).unwrap();
    assert!(
        last.contains("\"error\"") && last.contains("503") && text.contains("[DONE]"),
        "{text}"
    );
    assert!(read_until(&mut whole, "}}").await.starts_with("HTTP/1.1 503"));
    assert_eq!(live.ended.await.unwrap(), Outcome::TimedOut);
}

#[tokio::test]
async fn header_lines_are_counted() {
    let mut setup = Setup::default();
    setup.config.max_headers = 8;
    let live = start(setup).await;
    for (lines, want) in [(7, "HTTP/1.1 200"), (8, "HTTP/1.1 431")] {
        let mut socket = live.connect().await;
        let more: String = (0..lines).map(|line| format!("x-{line}: y\r\n")).collect();
        let request = format!("GET /version HTTP/1.1\r\nhost: x\r\n{more}\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let text = read_until(&mut socket, "\r\n\r\n").await;
        assert!(text.starts_with(want), "{lines}: {text}");
    }
}

#[tokio::test]
async fn a_second_signal_does_not_wait() {
    let live = start(slow(20)).await;
    let _socket = live.request(json!({"max_tokens": 450, "ignore_eos": true})).await;
    live.until("running", |server| server.model.engine.stats().running.get() == 1).await;
    live.stop.send(()).await.unwrap();
    live.stop.send(()).await.unwrap();
    assert_eq!(live.ended.await.unwrap(), Outcome::Forced);
}

#[tokio::test]
async fn a_dead_engine_ends_the_server() {
    let mut setup = Setup::default();
    setup.sim.fault = tokenmill_engine::sim::Fault::PanicAtStep(3);
    let live = start(setup).await;
    let mut socket =
        live.request(json!({"stream": true, "max_tokens": 20, "ignore_eos": true})).await;
    let text = read_until(&mut socket, "[DONE]").await;
    assert!(text.contains("InternalServerError"), "{text}");
    drop(socket);
    assert_eq!(live.ended.await.unwrap(), Outcome::EngineLost);
}
