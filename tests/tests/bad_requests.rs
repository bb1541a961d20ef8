//! Requests that make no sense: each is refused with its parameter's name, and the next client is
//! served as if nothing had happened.

use std::io::{Read, Write};
use std::net::Shutdown;

use serde_json::{Value, json};
use tokenmill_tests::server::MODEL;
use tokenmill_tests::{Answer, Server, http};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

/// A good request, with one field changed.
fn with(mut body: Value, name: &str, value: Value) -> Value {
    body[name] = value;
    body
}

fn chat() -> Value {
    let messages = json!([{"role": "user", "content": "Say hello."}]);
    json!({"model": MODEL, "messages": messages, "max_tokens": 4, "temperature": 0})
}

fn completion() -> Value {
    json!({"model": MODEL, "prompt": "Once upon a time", "max_tokens": 4, "temperature": 0})
}

/// The answer is an error of `status` that says something and blames `param`.
fn check_error(what: &str, answer: &Answer, status: u16, param: Option<&str>) {
    let text = answer.text();
    assert_eq!(answer.status, status, "{what}: {text}");
    let body = answer.json().unwrap_or_else(|error| panic!("{what}: {error:#}"));
    let error = &body["error"];
    assert!(error["message"].as_str().is_some_and(|message| message.len() > 10), "{what}: {text}");
    assert!(error["type"].is_string() && error["code"] == status, "{what}: {text}");
    assert!(error.get("param").is_some(), "{what}: {text}");
    assert_eq!(error["param"].as_str(), param, "{what}: {text}");
}

fn check_serves(server: &Server) {
    let answer = server.post(CHAT, &chat()).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json().expect("JSON");
    assert_eq!(answer["usage"]["completion_tokens"], 4, "{answer}");
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[test]
fn chat_parameters_are_refused_by_name() {
    let server = Server::shared().expect("a server");
    let part =
        json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]);
    for (name, value, param) in [
        ("max_tokens", json!(0), "max_tokens"),
        ("max_tokens", json!(-1), "max_tokens"),
        ("max_tokens", json!(1.5), "max_tokens"),
        ("max_tokens", json!("many"), "max_tokens"),
        ("max_tokens", json!(1_000_000_000), "max_tokens"),
        ("max_tokens", json!(i64::MAX), "max_tokens"),
        ("max_tokens", json!(u64::MAX), "max_tokens"),
        ("max_tokens", json!(1e300), "max_tokens"),
        ("max_completion_tokens", json!(-5), "max_completion_tokens"),
        ("min_tokens", json!(100), "min_tokens"),
        ("temperature", json!(-0.1), "temperature"),
        ("temperature", json!(3), "temperature"),
        ("temperature", json!(1e300), "temperature"),
        ("temperature", json!("hot"), "temperature"),
        ("temperature", json!([1]), "temperature"),
        ("temperature", json!("NaN"), "temperature"),
        ("top_p", json!(0), "top_p"),
        ("top_p", json!(-0.5), "top_p"),
        ("top_p", json!(1.01), "top_p"),
        ("top_k", json!(-2), "top_k"),
        ("top_k", json!(0.5), "top_k"),
        ("min_p", json!(2), "min_p"),
        ("n", json!(0), "n"),
        ("n", json!(-1), "n"),
        ("n", json!(1_000_000_000), "n"),
        ("n", json!(2), "n"),
        ("presence_penalty", json!(-3), "presence_penalty"),
        ("frequency_penalty", json!(2.5), "frequency_penalty"),
        ("repetition_penalty", json!(0), "repetition_penalty"),
        ("repetition_penalty", json!(-1), "repetition_penalty"),
        ("seed", json!("lucky"), "seed"),
        ("seed", json!(0.5), "seed"),
        ("logit_bias", json!({"x": 1}), "logit_bias.x"),
        ("logit_bias", json!({"999999999": 1}), "logit_bias.999999999"),
        ("logit_bias", json!({"-1": 1}), "logit_bias.-1"),
        ("logit_bias", json!({"1": "big"}), "logit_bias.1"),
        ("logit_bias", json!([1]), "logit_bias"),
        ("stop", json!(["a", "b", "c", "d", "e"]), "stop"),
        ("stop", json!([""]), "stop.0"),
        ("stop", json!(7), "stop"),
        ("stop", json!(["a", 7]), "stop.1"),
        ("stop_token_ids", json!([-1]), "stop_token_ids.0"),
        ("allowed_token_ids", json!([]), "allowed_token_ids"),
        ("logprobs", json!("yes"), "logprobs"),
        ("top_logprobs", json!(5), "top_logprobs"),
        ("top_logprobs", json!(10_000), "top_logprobs"),
        ("stream", json!("yes"), "stream"),
        ("stream_options", json!({"include_usage": true}), "stream_options"),
        ("response_format", json!({"type": "json_object"}), "response_format"),
        ("priority", json!(5), "priority"),
        ("timeout", json!(-1), "timeout"),
        ("cache_salt", json!(""), "cache_salt"),
        ("request_id", json!("a\nb"), "request_id"),
        ("chat_template", json!("{{ messages }}"), "chat_template"),
        ("messages", json!(null), "messages"),
        ("messages", json!([]), "messages"),
        ("messages", json!("hello"), "messages"),
        ("messages", json!([7]), "messages.0"),
        ("messages", json!([{"content": "no role"}]), "messages.0.role"),
        ("messages", json!([{"role": "user"}]), "messages.0.content"),
        ("messages", json!([{"role": "user", "content": 7}]), "messages.0.content"),
        ("messages", part, "messages.0.content.0.type"),
        ("model", json!(7), "model"),
    ] {
        let what = format!("{name}: {value}");
        let answer = server.post(CHAT, &with(chat(), name, value)).expect("an answer");
        check_error(&what, &answer, 400, Some(param));
    }
    let answer = server.post(CHAT, &with(chat(), "model", json!("gpt-9"))).expect("an answer");
    check_error("an unknown model", &answer, 404, Some("model"));
    check_serves(&server);
}

#[test]
fn completion_parameters_are_refused_by_name() {
    let server = Server::shared().expect("a server");
    for (name, value, param) in [
        ("prompt", json!(null), "prompt"),
        ("prompt", json!(""), "prompt"),
        ("prompt", json!([]), "prompt"),
        ("prompt", json!([[]]), "prompt"),
        ("prompt", json!({"text": "x"}), "prompt"),
        ("prompt", json!([-1]), "prompt.0"),
        ("prompt", json!([1, 999_999_999]), "prompt.1"),
        ("prompt", json!([1, 1.5]), "prompt.1"),
        ("prompt", json!([[1], ["x"]]), "prompt.1.0"),
        ("prompt", json!(["a", 7]), "prompt.1"),
        ("best_of", json!(3), "best_of"),
        ("suffix", json!("the end"), "suffix"),
        ("echo", json!("yes"), "echo"),
        ("logprobs", json!(1000), "logprobs"),
        ("logprobs", json!(true), "logprobs"),
        ("max_tokens", json!(0), "max_tokens"),
        ("max_tokens", json!(-1), "max_tokens"),
        ("prompt", json!(vec![1; 9000]), "input_tokens"),
        ("prompt", json!("word ".repeat(20_000)), "input_tokens"),
    ] {
        let mut what = format!("{name}: {value}");
        what.truncate(80);
        let answer = server.post(COMPLETIONS, &with(completion(), name, value)).expect("an answer");
        check_error(&what, &answer, 400, Some(param));
    }
    check_serves(&server);
}

#[test]
fn bodies_that_are_no_requests() {
    let server = Server::shared().expect("a server");
    let deep = |open: &str, close: &str| open.repeat(100_000) + &close.repeat(100_000);
    let nested = format!("{{\"messages\":{}}}", deep("[", "]"));
    for (what, body, param) in [
        ("nothing", b"".to_vec(), None),
        ("text", b"hello".to_vec(), None),
        ("half", b"{\"model\":".to_vec(), None),
        ("two values", b"{} {}".to_vec(), None),
        ("an array", b"[]".to_vec(), None),
        ("a number", b"7".to_vec(), None),
        ("null", b"null".to_vec(), None),
        ("NaN", b"{\"temperature\": NaN}".to_vec(), None),
        ("infinity", b"{\"temperature\": -Infinity}".to_vec(), None),
        ("a number beyond floats", b"{\"temperature\": 1e999}".to_vec(), None),
        ("invalid UTF-8", b"{\"model\": \"\xff\xfe\"}".to_vec(), None),
        ("half a surrogate pair", b"{\"model\": \"\\ud800\"}".to_vec(), None),
        ("100000 arrays", deep("[", "]").into_bytes(), None),
        ("100000 objects", deep("{\"a\":", "}").into_bytes(), None),
        ("100000 arrays in messages", nested.into_bytes(), None),
        ("only a model", format!("{{\"model\": \"{MODEL}\"}}").into_bytes(), Some("messages")),
    ] {
        let answer = server.post_bytes(CHAT, &body).expect("an answer");
        check_error(what, &answer, 400, param);
    }
    let plain = http::request("POST", CHAT, &[("content-type", "text/plain")], b"{}");
    let answer = http::exchange(server.address(), &plain).expect("an answer");
    check_error("another content type", &answer, 400, None);
    check_serves(&server);
}

#[test]
fn bodies_beyond_the_limit() {
    let server = Server::shared().expect("a server");
    let size = 65 << 20;
    let body = vec![b' '; size];
    let answer = server.post_bytes(CHAT, &body).expect("an answer to a long body");
    check_error("65 MiB", &answer, 413, None);

    // Without a length in front, the limit is met on the way.
    let mut chunked = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: tests\r\nconnection: close\r\ncontent-type: \
         application/json\r\ntransfer-encoding: chunked\r\n\r\n{size:x}\r\n"
    )
    .into_bytes();
    chunked.extend_from_slice(&body);
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    let answer = http::exchange(server.address(), &chunked).expect("an answer to a chunked body");
    check_error("65 MiB in chunks", &answer, 413, None);
    check_serves(&server);
}

#[test]
fn more_sequences_than_can_ever_be_accepted_disturb_nobody() {
    let server = Server::shared().expect("a server");
    let body = with(with(chat(), "n", json!(16_384)), "temperature", json!(1));
    let answer = server.post(CHAT, &body).expect("an answer");
    check_error("16384 choices", &answer, 400, Some("n"));
    let body = with(with(completion(), "n", json!(1000)), "temperature", json!(1));
    let body = with(body, "prompt", json!(["One, two,", "Three, four,"]));
    let answer = server.post(COMPLETIONS, &body).expect("an answer");
    check_error("1000 choices of 2 prompts", &answer, 400, Some("n"));
    check_serves(&server);
}

#[test]
fn routes_and_methods_that_do_not_exist() {
    let server = Server::shared().expect("a server");
    for (method, path, status, param) in [
        ("GET", "/v1/nothing", 404, None),
        ("GET", "/v1/models/nothing", 404, Some("model")),
        ("GET", "/../../etc/passwd", 404, None),
        ("GET", CHAT, 405, None),
        ("DELETE", "/v1/models", 405, None),
    ] {
        let request = http::request(method, path, &[], b"");
        let answer = http::exchange(server.address(), &request).expect("an answer");
        check_error(&format!("{method} {path}"), &answer, status, param);
    }
}

#[test]
fn headers_with_bad_values() {
    let server = Server::shared().expect("a server");
    let body = chat().to_string();
    for (name, value) in [
        ("x-request-timeout-ms", "soon"),
        ("x-request-timeout-ms", "-1"),
        ("x-request-timeout-ms", "0"),
        ("x-vllm-priority", "high"),
    ] {
        let request = http::request("POST", CHAT, &[http::JSON, (name, value)], body.as_bytes());
        let answer = http::exchange(server.address(), &request).expect("an answer");
        check_error(&format!("{name}: {value}"), &answer, 400, None);
    }
    check_serves(&server);
}

/// Sends bytes, then nothing more; what the server answers before it closes.
fn answer_to(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut socket = http::connect(server.address()).expect("a connection");
    // The server may close before it has read everything.
    let _ = socket.write_all(bytes);
    let _ = socket.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    answer
}

#[test]
fn garbage_instead_of_http() {
    let server = Server::shared().expect("a server");
    let long = format!("GET /health HTTP/1.1\r\nx-long: {}\r\n\r\n", "a".repeat(1 << 20));
    let many: String = (0..10_000).map(|index| format!("x-{index}: 1\r\n")).collect();
    let many = format!("GET /health HTTP/1.1\r\n{many}\r\n");
    let post = |headers: &str| format!("POST {CHAT} HTTP/1.1\r\nhost: t\r\n{headers}\r\n\r\n");
    for (what, bytes) in [
        ("zeros", vec![0; 4096]),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("no version", b"GET /health\r\n\r\n".to_vec()),
        ("HTTP/9.9", b"GET /health HTTP/9.9\r\n\r\n".to_vec()),
        ("a header without a colon", b"GET /health HTTP/1.1\r\nnonsense\r\n\r\n".to_vec()),
        ("a space in a name", b"GET /health HTTP/1.1\r\na b: c\r\n\r\n".to_vec()),
        ("a control character", b"GET /health HTTP/1.1\r\na: \x01\x00\r\n\r\n".to_vec()),
        ("a header of 1 MiB", long.into_bytes()),
        ("10000 headers", many.into_bytes()),
        ("a negative length", post("content-length: -1").into_bytes()),
        ("a length of 2^64", post("content-length: 18446744073709551616").into_bytes()),
        ("two lengths", post("content-length: 1\r\ncontent-length: 2").into_bytes()),
        (
            "a bad chunk",
            (post("transfer-encoding: chunked\r\ncontent-type: application/json") + "zz\r\n")
                .into_bytes(),
        ),
        (
            "half a body",
            (post("content-type: application/json\r\ncontent-length: 100") + "{").into_bytes(),
        ),
    ] {
        let answer = answer_to(&server, &bytes);
        let refused = answer.is_empty() || answer.starts_with(b"HTTP/1.1 4");
        assert!(refused, "{what}: {}", String::from_utf8_lossy(&answer));
        assert_eq!(server.get("/health").expect(what).status, 200, "{what}");
    }
    check_serves(&server);
}
