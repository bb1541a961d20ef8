//! Every way to be wrong: one table, one check. The answer is always a 4xx with the one error body.

use crate::support::{Server, Setup, chat_body, completion_body};
use axum::http::StatusCode;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

/// Posts and compares status, `param` and a part of the message.
async fn check(server: &Server, path: &str, body: &[u8], status: u16, param: Value, part: &str) {
    let reply = server.post(path, body).await;
    let shown = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
    assert_eq!(reply.status.as_u16(), status, "{shown}: {}", reply.text());
    assert_eq!(reply.header("content-type"), "application/json", "{shown}");
    let error = &reply.json()["error"];
    assert_eq!(error["code"], status, "{shown}");
    assert_eq!(error["param"], param, "{shown}: {error}");
    let message = error["message"].as_str().expect("a message");
    assert!(message.contains(part), "{shown}: {part:?} not in {message:?}");
    assert!(error["type"].is_string(), "{shown}");
}

#[tokio::test]
async fn values_out_of_range_are_refused_by_name() {
    let server = Server::new(Setup::default());
    let cases: Vec<(Value, &str, &str)> = vec![
        (json!({"temperature": 3}), "temperature", "outside [0, 2]"),
        (json!({"temperature": -0.1}), "temperature", "outside"),
        (json!({"temperature": "hot"}), "temperature", "expected a number, got a string"),
        (json!({"temperature": true}), "temperature", "expected a number"),
        (json!({"temperature": 1e308}), "temperature", "outside"),
        (json!({"top_p": 0}), "top_p", "outside (0, 1]"),
        (json!({"top_p": 1.5}), "top_p", "outside"),
        (json!({"top_k": -2}), "top_k", "outside"),
        (json!({"top_k": 2.5}), "top_k", "not a 64-bit integer"),
        (json!({"min_p": 2}), "min_p", "outside [0, 1]"),
        (json!({"repetition_penalty": 0}), "repetition_penalty", "outside"),
        (json!({"repetition_penalty": 1e-60}), "repetition_penalty", "above 0"),
        (json!({"presence_penalty": 3}), "presence_penalty", "outside"),
        (json!({"frequency_penalty": -2.5}), "frequency_penalty", "outside"),
        (json!({"n": 0}), "n", "outside 1..=16384"),
        (json!({"n": 99999}), "n", "outside"),
        (json!({"n": 2, "temperature": 0}), "n", "greedy"),
        (json!({"n": "two"}), "n", "expected an integer"),
        (json!({"min_tokens": 9}), "min_tokens", "above max_tokens"),
        (json!({"min_tokens": -1}), "min_tokens", "outside"),
        (json!({"max_tokens": -1}), "max_tokens", "-1"),
        (json!({"max_tokens": 0}), "max_tokens", "at least 1"),
        (
            json!({"max_tokens": 513}),
            "max_tokens",
            "This model's maximum context length is 512 tokens. However, you requested 513",
        ),
        (json!({"stop": ["a", "b", "c", "d", "e"]}), "stop", "at most 4"),
        (json!({"stop": [""]}), "stop.0", "empty"),
        (json!({"stop": [1]}), "stop.0", "expected a string"),
        (json!({"stop": {}}), "stop", "expected an array of strings"),
        (json!({"stop_token_ids": [260]}), "stop_token_ids.0", "outside the vocabulary of 260"),
        (json!({"stop_token_ids": [-1]}), "stop_token_ids.0", "outside"),
        (json!({"stop_token_ids": ["a"]}), "stop_token_ids.0", "expected an integer"),
        (json!({"logit_bias": {"x": 1}}), "logit_bias.x", "token id"),
        (json!({"logit_bias": {"260": 1}}), "logit_bias.260", "outside the vocabulary"),
        (json!({"logit_bias": {"1": "a"}}), "logit_bias.1", "expected a number"),
        (json!({"allowed_token_ids": []}), "allowed_token_ids", "empty"),
        (json!({"allowed_token_ids": [999]}), "allowed_token_ids.0", "outside"),
        (json!({"bad_words": [""]}), "bad_words.0", "empty"),
        (json!({"bad_words": "word"}), "bad_words", "expected an array"),
        (json!({"seed": 1.5}), "seed", "integer"),
        (json!({"seed": 1e30}), "seed", "integer"),
        (json!({"stream": "yes"}), "stream", "expected a boolean"),
        (json!({"stream_options": {"include_usage": true}}), "stream_options", "stream: true"),
        (
            json!({"stream": true, "stream_options": {"include_usage": 1}}),
            "stream_options.include_usage",
            "boolean",
        ),
        (json!({"prompt_logprobs": 21}), "prompt_logprobs", "above the server's limit of 20"),
        (json!({"prompt_logprobs": -1}), "prompt_logprobs", "whole vocabulary"),
        (json!({"prompt_logprobs": 1, "stream": true}), "prompt_logprobs", "stream"),
        (
            json!({"truncate_prompt_tokens": 513}),
            "truncate_prompt_tokens",
            "above the model length",
        ),
        (json!({"truncate_prompt_tokens": -2}), "truncate_prompt_tokens", "-2"),
        (json!({"truncation_side": "middle"}), "truncation_side", "left"),
        (json!({"priority": 1}), "priority", "priority policy"),
        (json!({"cache_salt": ""}), "cache_salt", "1 to 128"),
        (json!({"cache_salt": "a/b"}), "cache_salt", "must not contain"),
        (json!({"request_id": "a b"}), "request_id", "visible ASCII"),
        (json!({"timeout": 0}), "timeout", "outside"),
        (json!({"model": 3}), "model", "expected a string"),
    ];
    check_both(&server, cases).await;
}

/// Every case on both routes.
async fn check_both(server: &Server, cases: Vec<(Value, &str, &str)>) {
    for (more, param, part) in cases {
        for (path, body) in
            [(CHAT, chat_body(more.clone())), (COMPLETIONS, completion_body(more.clone()))]
        {
            check(server, path, body.to_string().as_bytes(), 400, param.into(), part).await;
        }
    }
}

#[tokio::test]
async fn what_is_not_built_is_refused_by_name() {
    let server = Server::new(Setup::default());
    let cases: Vec<(Value, &str, &str)> = vec![
        (json!({"response_format": {"type": "json_object"}}), "response_format", "not supported"),
        (json!({"structured_outputs": {"regex": "a"}}), "structured_outputs", "not supported"),
        (json!({"guided_choice": ["a"]}), "guided_choice", "not supported"),
        (json!({"guided_json": {}}), "guided_json", "not supported"),
        (json!({"use_beam_search": true}), "use_beam_search", "not supported"),
        (json!({"thinking_token_budget": 5}), "thinking_token_budget", "not supported"),
        (json!({"vllm_xargs": {"a": 1}}), "vllm_xargs", "not supported"),
    ];
    check_both(&server, cases).await;
}

#[tokio::test]
async fn chat_only_fields_are_checked() {
    let server = Server::new(Setup::default());
    let user = json!({"role": "user", "content": "x"});
    for (more, param, part) in [
        (json!({"messages": []}), "messages", "empty"),
        (json!({"messages": null}), "messages", "required"),
        (json!({"messages": "hi"}), "messages", "array"),
        (json!({"messages": [1]}), "messages.0", "expected an object"),
        (json!({"messages": [{"content": "x"}]}), "messages.0.role", "expected a role"),
        (json!({"messages": [user, {"role": "user"}]}), "messages.1.content", "expected a string"),
        (
            json!({"messages": [{"role": "user", "content": 5}]}),
            "messages.0.content",
            "expected a string",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}),
            "messages.0.content.0.type",
            "text only",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "text"}]}]}),
            "messages.0.content.0.text",
            "string",
        ),
        (
            json!({"messages": [{"role": "assistant", "content": null, "tool_calls":
            [{"function": {"name": "f", "arguments": "[1]"}}]}]}),
            "messages.0.tool_calls.0.function.arguments",
            "JSON object",
        ),
        (json!({"top_logprobs": 30, "logprobs": true}), "top_logprobs", "limit of 20"),
        (json!({"top_logprobs": 3}), "top_logprobs", "needs logprobs"),
        (json!({"logprobs": 3}), "logprobs", "boolean"),
        (json!({"max_completion_tokens": 0}), "max_completion_tokens", "0"),
        (json!({"tools": []}), "tools", "empty"),
        (
            json!({"tools": [{"type": "function", "function": {"name": "f"}}]}),
            "tool_choice",
            "tool parser",
        ),
        (json!({"tool_choice": "auto"}), "tool_choice", "needs tools"),
        (
            json!({"continue_final_message": true, "add_generation_prompt": true}),
            "continue_final_message",
            "excludes",
        ),
        (json!({"chat_template": "x"}), "chat_template", "does not accept"),
        (
            json!({"chat_template_kwargs": {"chat_template": "x"}}),
            "chat_template_kwargs",
            "not an argument",
        ),
        (json!({"chat_template_kwargs": {"messages": []}}), "messages", "messages"),
        (json!({"documents": [1]}), "documents.0", "expected an object"),
        (json!({"reasoning_effort": "huge"}), "reasoning_effort", "none of"),
        (json!({"audio": {"voice": "x"}}), "audio", "text only"),
        (json!({"modalities": ["text", "audio"]}), "modalities", "text only"),
    ] {
        check(&server, CHAT, chat_body(more).to_string().as_bytes(), 400, param.into(), part).await;
    }
}

#[tokio::test]
async fn completion_only_fields_are_checked() {
    let server = Server::new(Setup::default());
    for (more, param, part) in [
        (json!({"prompt": null}), "prompt", "required"),
        (json!({"prompt": ""}), "prompt", "empty"),
        (json!({"prompt": []}), "prompt", "0 prompts"),
        (json!({"prompt": 5}), "prompt", "expected"),
        (json!({"prompt": [1, "a"]}), "prompt.1", "token id below 260"),
        (json!({"prompt": [1, 260]}), "prompt.1", "token id below 260"),
        (json!({"prompt": [[1], []]}), "prompt.1", "empty"),
        (json!({"prompt": [[1], [-1]]}), "prompt.1.0", "token id"),
        (json!({"prompt": ["a", ""]}), "prompt.1", "empty"),
        (json!({"prompt": vec!["a"; 1025]}), "prompt", "1 to 1024"),
        (json!({"logprobs": 21}), "logprobs", "limit of 20"),
        (json!({"logprobs": true}), "logprobs", "integer"),
        (json!({"suffix": "x"}), "suffix", "not supported"),
        (json!({"best_of": 3}), "best_of", "must equal n"),
        (json!({"prompt_embeds": "abc"}), "prompt_embeds", "not supported"),
    ] {
        let body = completion_body(more).to_string();
        check(&server, COMPLETIONS, body.as_bytes(), 400, param.into(), part).await;
    }
    let long = completion_body(json!({"prompt": "x".repeat(600)})).to_string();
    let part = "This model's maximum context length is 512 tokens. However, your prompt contains 601 input tokens";
    check(&server, COMPLETIONS, long.as_bytes(), 400, "input_tokens".into(), part).await;
    // The model length is no room for a token either.
    let full = completion_body(json!({"prompt": vec![65; 512]})).to_string();
    check(
        &server,
        COMPLETIONS,
        full.as_bytes(),
        400,
        "input_tokens".into(),
        "maximum context length is 512",
    )
    .await;
}

#[tokio::test]
async fn malformed_bodies_are_400_and_never_more() {
    let server = Server::new(Setup::default());
    let deep = |open: &str, close: &str| {
        format!("{{\"messages\": {}{}}}", open.repeat(100_000), close.repeat(100_000)).into_bytes()
    };
    for (body, part) in [
        (b"".to_vec(), "malformed JSON"),
        (b"{".to_vec(), "malformed JSON at line 1"),
        (b"{\"temperature\": NaN}".to_vec(), "malformed JSON"),
        (b"{\"temperature\": 1e999}".to_vec(), "malformed JSON"),
        (b"{\"prompt\": \"\xff\"}".to_vec(), "invalid UTF-8"),
        (b"[]".to_vec(), "expected an object, got an array"),
        (b"null".to_vec(), "expected an object"),
        (deep("[", "]"), "recursion limit"),
        (deep("{\"a\":", "}"), "recursion limit"),
    ] {
        for path in [CHAT, COMPLETIONS, "/tokenize", "/detokenize"] {
            check(&server, path, &body, 400, Value::Null, part).await;
        }
    }
    let many = chat_body(json!({"temperature": 9, "top_p": 9, "n": 0})).to_string();
    check(&server, CHAT, many.as_bytes(), 400, "temperature".into(), "; top_p: ").await;
}

#[tokio::test]
async fn other_statuses_use_the_same_body() {
    let mut setup = Setup::default();
    setup.config.body_limit = 1000;
    let server = Server::new(setup);
    check(
        &server,
        CHAT,
        chat_body(json!({"model": "nope"})).to_string().as_bytes(),
        404,
        "model".into(),
        "`nope` does not exist",
    )
    .await;
    check(&server, CHAT, &vec![b' '; 1001], 413, Value::Null, "1000 bytes").await;
    check(&server, "/v1/nowhere", b"{}", 404, Value::Null, "no route /v1/nowhere").await;
    check(&server, "/v1/models", b"{}", 405, Value::Null, "does not answer POST").await;
    check(&server, "/v1/models/nope", b"{}", 405, Value::Null, "POST").await;
    let reply = server.get("/v1/models/nope").await;
    assert_eq!(
        (reply.status, &reply.json()["error"]["param"]),
        (StatusCode::NOT_FOUND, &json!("model"))
    );
    let reply = server.post_with(CHAT, "{}", &[("content-type", "text/plain")]).await;
    // Two headers: the first one counts, and it is right.
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    for (path, body, param) in [
        ("/tokenize", json!({}), "prompt"),
        ("/tokenize", json!({"prompt": 3}), "prompt"),
        ("/tokenize", json!({"messages": []}), "messages"),
        ("/detokenize", json!({}), "tokens"),
        ("/detokenize", json!({"tokens": [260]}), "tokens.0"),
        ("/detokenize", json!({"tokens": [-1]}), "tokens.0"),
    ] {
        check(&server, path, body.to_string().as_bytes(), 400, param.into(), "").await;
    }
}

#[tokio::test]
async fn nulls_mean_absent_everywhere() {
    let server = Server::new(Setup::default());
    let names = [
        "model",
        "stream",
        "stream_options",
        "n",
        "min_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "logit_bias",
        "allowed_token_ids",
        "bad_words",
        "stop",
        "stop_token_ids",
        "ignore_eos",
        "skip_special_tokens",
        "echo",
        "prompt_logprobs",
        "logprobs",
        "suffix",
        "best_of",
        "user",
        "truncate_prompt_tokens",
        "cache_salt",
        "priority",
        "response_format",
        "tools",
        "tool_choice",
        "top_logprobs",
        "chat_template",
        "documents",
        "structured_outputs",
        "guided_json",
        "something_new",
    ];
    let nulls: serde_json::Map<String, Value> =
        names.iter().map(|name| ((*name).into(), Value::Null)).collect();
    for (path, body) in [
        (CHAT, chat_body(Value::Object(nulls.clone()))),
        (COMPLETIONS, completion_body(Value::Object(nulls.clone()))),
    ] {
        let reply = server.ask(path, body).await;
        assert_eq!(reply.header("x-ignored-params"), "");
    }
}

#[tokio::test]
async fn below_the_prefix_a_body_that_fails_validation_is_422_with_the_error_object() {
    let server = Server::new(Setup::default());
    let huge = "18446744073709551616";
    for (field, status, param, kind) in [
        (r#""stream_options": {"include_usage": true}"#.to_owned(), 422, "stream_options", "Unp"),
        (r#""tool_choice": "required""#.to_owned(), 422, "tool_choice", "Unp"),
        (r#""prompt_logprobs": -5"#.to_owned(), 422, "prompt_logprobs", "Unp"),
        (format!(r#""seed": {huge}"#), 422, "seed", "Unp"),
        (r#""temperature": "hot""#.to_owned(), 422, "temperature", "Unp"),
        (r#""temperature": -1, "seed": "a""#.to_owned(), 422, "temperature", "Unp"),
        // What takes the model to be refused.
        (r#""temperature": -1"#.to_owned(), 400, "temperature", "BadRequestError"),
        (r#""max_tokens": 513"#.to_owned(), 400, "max_tokens", "BadRequestError"),
        (r#""model": "no""#.to_owned(), 404, "model", "NotFoundError"),
    ] {
        let body = format!(r#"{{"messages": [{{"role": "user", "content": "a"}}], {field}}}"#);
        for (path, status, code) in [
            (CHAT, if status == 422 { 400 } else { status }, None),
            ("/openai/v1/chat/completions", status, Some(status.to_string())),
        ] {
            let reply = server.post(path, body.as_bytes()).await;
            assert_eq!(reply.status.as_u16(), status, "{path} {field}: {}", reply.text());
            let error = &reply.json()["error"];
            assert_eq!(error["param"], param, "{path} {field}: {error}");
            match code {
                Some(code) => {
                    assert_eq!(error["code"], code, "{field}");
                    assert!(error["type"].as_str().expect("a text").starts_with(kind), "{error}");
                }
                None => assert_eq!(error["code"], status, "{field}"),
            }
        }
    }
    for cut in ["{", "[]", r#"{"messages": []}"#] {
        let reply = server.post("/openai/v1/chat/completions", cut).await;
        assert_eq!(reply.status.as_u16(), 422, "{cut}: {}", reply.text());
        assert!(reply.json()["error"]["param"].is_string(), "{cut}");
    }
}
