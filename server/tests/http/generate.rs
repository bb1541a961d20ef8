//! Triton's routes of text generation.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Reply, Server, Setup, completion_body};

const GENERATE: &str = "/v2/models/org/tiny/generate";
const STREAM: &str = "/v2/models/org/tiny/versions/1/generate_stream";

/// The data of every event of a stream without an end mark.
fn events(reply: &Reply) -> Vec<Value> {
    assert_eq!(reply.header("content-type"), "text/event-stream; charset=utf-8");
    let blocks = reply.text().split_terminator("\n\n").filter(|block| !block.starts_with(':'));
    let data = blocks.map(|block| block.strip_prefix("data: ").expect("an event"));
    data.map(|data| serde_json::from_str(data).expect("JSON")).collect()
}

#[tokio::test]
async fn the_text_is_that_of_completions() {
    let server = Server::new(Setup::default());
    let want =
        server.complete(completion_body(json!({"temperature": 0, "ignore_eos": true}))).await;
    let text = &want["choices"][0]["text"];
    let parameters = json!({"temperature": 0, "max_tokens": 8, "ignore_eos": true});
    let mut beside = parameters.clone();
    beside["text_input"] = "hello".into();
    beside["stop_words"] = "".into();
    for body in [json!({"id": "7", "text_input": "hello", "parameters": parameters}), beside] {
        let answer = server.ask(GENERATE, body.clone()).await.json();
        let want = json!({"model_name": "org/tiny", "model_version": "1", "text_output": text});
        assert_eq!(answer, want, "{body}");
        let events = events(&server.ask(STREAM, body).await);
        let streamed: String =
            events.iter().map(|event| event["text_output"].as_str().unwrap()).collect();
        assert_eq!(&json!(streamed), text);
    }
}

#[tokio::test]
async fn details_say_why_it_ended_and_how_likely_tokens_were() {
    let server = Server::new(Setup::default());
    let ask = async |more: Value| {
        let mut parameters = json!({"temperature": 0, "details": true, "ignore_eos": true});
        parameters.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.ask(GENERATE, json!({"text_input": "hello", "parameters": parameters})).await.json()
    };
    let answer = ask(json!({})).await;
    let details = &answer["details"];
    assert_eq!(details["finish_reason"], "length");
    let tokens = details["logprobs"].as_array().unwrap();
    assert_eq!(tokens.len(), 20, "the protocol's default");
    let text = answer["text_output"].as_str().unwrap();
    let first = &tokens[0];
    assert!(first["id"].is_u64() && first["logprob"].as_f64().unwrap() <= 0.0, "{first}");
    assert_eq!(first["special"], first["id"].as_u64().unwrap() > 255);
    let stop: String = text.chars().skip(2).take(1).collect();
    let stopped = ask(json!({ "stop": stop })).await;
    assert_eq!(stopped["details"]["finish_reason"], "stop_sequence");
    let whole =
        json!({"text_input": "hello", "stream": false, "temperature": 0, "ignore_eos": true});
    let events = events(&server.ask(STREAM, whole).await);
    assert_eq!((events.len(), &events[0]["text_output"]), (1, &answer["text_output"]));
}

#[tokio::test]
async fn what_cannot_be_answered_is_named() {
    let server = Server::new(Setup::default());
    let check = async |path: &str, body: Value, status: StatusCode, wanted: &str| {
        let reply = server.post(path, body.to_string()).await;
        let text = reply.json()["error"].as_str().unwrap_or_default().to_owned();
        assert!(reply.status == status && text.contains(wanted), "{body}: {}", reply.text());
    };
    let bad = StatusCode::BAD_REQUEST;
    check(GENERATE, json!({}), bad, "text_input").await;
    check(GENERATE, json!({"text_input": "a", "parameters": 3}), bad, "parameters").await;
    check(GENERATE, json!({"text_input": "a", "n": 2}), bad, "n: not supported").await;
    check(GENERATE, json!({"text_input": "a", "stream": true}), bad, "generate_stream").await;
    check(GENERATE, json!({"text_input": "a", "temperature": -1}), bad, "temperature").await;
    let twice = json!({"text_input": "a", "top_k": 1, "parameters": {"top_k": 2}});
    check(GENERATE, twice, bad, "top_k stands in parameters and beside it").await;
    let body = json!({"text_input": "a"});
    let (unknown, version) = ("/v2/models/none/generate", "/v2/models/tiny/versions/2/generate");
    check(unknown, body.clone(), StatusCode::NOT_FOUND, "none").await;
    check(version, body, StatusCode::NOT_FOUND, "version 1").await;
    assert_eq!(server.get(GENERATE).await.status, StatusCode::METHOD_NOT_ALLOWED);
}
