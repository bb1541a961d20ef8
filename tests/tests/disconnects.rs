//! Clients that leave: what was reserved for them comes back.

use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tokenmill_tests::server::MODEL;
use tokenmill_tests::{Server, http};

const CHAT: &str = "/v1/chat/completions";
/// Clients that leave at the same time, and how often each comes back.
const CLIENTS: usize = 20;
const VISITS: usize = 10;
/// Looks at the metrics, this far apart, before the server counts as stuck.
const LOOKS: u32 = 200;
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

fn long_story(client: usize, visit: usize, stream: bool) -> Value {
    let text =
        format!("Client {client}, visit {visit}: tell a long story about the number {visit}.");
    let messages = json!([{"role": "user", "content": text}]);
    json!({
        "model": MODEL,
        "messages": messages,
        "max_tokens": 2000,
        "ignore_eos": true,
        "stream": stream,
    })
}

/// Comes and leaves, each time at another moment of the exchange.
fn leave(server: &Server, client: usize, visit: usize) {
    let stream = visit % 5 != 4;
    let body = long_story(client, visit, stream).to_string();
    let request = http::request("POST", CHAT, &[http::JSON], body.as_bytes());
    let mut socket = http::connect(server.address()).expect("a connection");
    match visit % 5 {
        // In the middle of the body.
        0 => socket.write_all(&request[..request.len() - 10]).expect("sent"),
        // Before the answer begins, of a stream and of a whole answer.
        1 | 4 => socket.write_all(&request).expect("sent"),
        // With the head or the first events.
        _ => {
            socket.write_all(&request).expect("sent");
            let mut bytes = vec![0; if visit % 5 == 2 { 16 } else { 600 }];
            socket.read_exact(&mut bytes).expect("the beginning of a stream");
        }
    }
}

#[test]
fn streams_whose_clients_leave_give_everything_back() {
    let server = Server::start(&[]).expect("a server");
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let server = &server;
            scope.spawn(move || (0..VISITS).for_each(|visit| leave(server, client, visit)));
        }
    });
    let names =
        ["vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"];
    let look = || names.map(|name| server.metric(name).expect("a metric"));
    let mut last = look();
    for _ in 0..LOOKS {
        if last == [0.0; 3] {
            break;
        }
        thread::sleep(BETWEEN_LOOKS);
        last = look();
    }
    assert_eq!(last, [0.0; 3], "{names:?}\n{}", server.log());
    // Two of five visits leave after the answer has begun.
    let cancelled = server.metric("tokenmill_requests_cancelled_total").expect("a metric");
    assert!(cancelled >= (CLIENTS * VISITS * 2 / 5) as f64, "{cancelled} were cancelled");

    let body = json!({"model": MODEL, "prompt": "One, two,", "max_tokens": 4, "temperature": 0});
    let answer = server.post("/v1/completions", &body).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(!server.log().contains("panicked"), "{}", server.log());
}
