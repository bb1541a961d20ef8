//! From start to end: the port opens when the model answers, and closes without losing an answer.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tokenmill_tests::http;
use tokenmill_tests::server::{MODEL, Starting, free_port};
use tokenmill_tests::{EventStream, Server};

const CHAT: &str = "/v1/chat/completions";
const STREAMS: usize = 8;
const END: Duration = Duration::from_secs(60);

fn story(index: usize, max_tokens: u32) -> Value {
    let text = format!("Tell a story about {index} birds.");
    let messages = json!([{"role": "user", "content": text}]);
    json!({
        "model": MODEL,
        "messages": messages,
        "max_tokens": max_tokens,
        "ignore_eos": true,
        "stream": true,
    })
}

#[test]
fn the_port_opens_only_when_the_model_answers() {
    let port = free_port().expect("a port");
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let starting = Starting::new(port, &[]).expect("started");
    let mut refused = 0;
    loop {
        match TcpStream::connect(address) {
            Ok(_) => break,
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}"),
        }
        refused += 1;
        assert!(refused < 60_000, "the port never opens");
        thread::sleep(Duration::from_millis(2));
    }
    assert!(refused > 0, "the port is open before the model can be loaded");
    // The first thing that is asked of an open port is answered.
    let body = json!({"model": MODEL, "prompt": "One, two,", "max_tokens": 2, "temperature": 0});
    let body = body.to_string();
    let request = http::request("POST", "/v1/completions", &[http::JSON], body.as_bytes());
    let answer = http::exchange(address, &request).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let server = starting.finish().expect("ready");
    assert_eq!(server.address(), address);
    assert_eq!(server.get("/health/ready").expect("an answer").status, 200);
}

#[test]
fn a_taken_port_is_named_before_the_model_is_read() {
    let holder = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = holder.local_addr().expect("bound").port();
    let starting = Starting::new(port, &[]).expect("started");
    let error = format!("{:#}", starting.finish().expect_err("the port is taken"));
    assert!(error.contains(&format!("127.0.0.1:{port}")), "{error}");
}

/// Runs streams, and sends the signal when each has begun. What each client read after that.
fn drain(server: &Server, max_tokens: u32) -> Vec<Vec<Value>> {
    let begun = Barrier::new(STREAMS + 1);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..STREAMS)
            .map(|index| {
                let begun = &begun;
                scope.spawn(move || {
                    let mut stream = first_event(server, &story(index, max_tokens));
                    begun.wait();
                    stream.rest().expect("an orderly end")
                })
            })
            .collect();
        begun.wait();
        server.terminate().expect("a signal");
        clients.into_iter().map(|client| client.join().expect("a client")).collect()
    })
}

fn first_event(server: &Server, body: &Value) -> EventStream {
    let mut stream = server.stream(CHAT, body).expect("a stream");
    let event = stream.next_event().expect("an event").expect("a first event");
    assert_eq!(event["choices"][0]["delta"]["role"], "assistant", "{event}");
    stream
}

#[test]
fn running_streams_finish_after_sigterm() {
    let mut server = Server::start(&[]).expect("a server");
    for events in drain(&server, 150) {
        assert_eq!(http::finish_reason(&events), Some("length"), "{events:?}");
    }
    let status = server.wait(END).expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert!(TcpStream::connect(server.address()).is_err(), "the port is still open");
}

#[test]
fn streams_end_with_an_error_event_at_the_shutdown_timeout() {
    let mut server = Server::start(&["--shutdown-timeout", "1"]).expect("a server");
    for events in drain(&server, 8000) {
        let last = events.last().expect("a last event");
        assert_eq!(last["error"]["code"], 503, "{last}");
        assert!(last["error"]["message"].is_string(), "{last}");
    }
    let status = server.wait(END).expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", server.log());
}

#[test]
fn an_idle_server_ends_at_once() {
    let mut server = Server::start(&[]).expect("a server");
    server.terminate().expect("a signal");
    let status = server.wait(Duration::from_secs(10)).expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", server.log());
}
