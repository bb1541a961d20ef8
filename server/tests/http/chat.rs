//! Chat completions, whole and streamed.

use serde_json::{Value, json};
use tokenmill_engine::sampling::SamplingParams;
use tokenmill_engine::sim::{SimConfig, SimModel};

use crate::support::{EOS, Server, Setup, VOCAB, chat_body, tokenizer};

const CHAT: &str = "/v1/chat/completions";

/// What the simulated model says to the default conversation.
fn expected(max_tokens: u32) -> Vec<u32> {
    let mut config = SimConfig::default();
    config.limits.vocab_size = VOCAB;
    let prompt =
        tokenizer().encode("<|turn|>user\nhello<|end|><|turn|>assistant\n", false).expect("bytes");
    let greedy = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
    SimModel::new(&config).generate(&prompt, &[EOS], &greedy, max_tokens)
}

/// The text of all deltas of one choice.
fn content(events: &[Value], index: usize) -> String {
    let choices = events.iter().flat_map(|event| event["choices"].as_array().expect("choices"));
    choices
        .filter(|choice| choice["index"] == index)
        .filter_map(|choice| choice["delta"]["content"].as_str())
        .collect()
}

#[tokio::test]
async fn a_whole_answer_has_every_key_and_the_models_tokens() {
    let server = Server::new(Setup::default());
    let body = chat_body(json!({"temperature": 0, "return_token_ids": true, "surprise": 1}));
    let reply = server.ask(CHAT, body).await;
    assert_eq!(reply.header("x-ignored-params"), "surprise");
    let answer = reply.json();
    let want = expected(8);
    let choice = &answer["choices"][0];
    assert_eq!(choice["token_ids"], json!(want));
    assert_eq!(choice["message"]["content"], tokenizer().decode(&want, true));
    assert_eq!(choice["message"]["role"], "assistant");
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["model"], "tiny");
    let prompt_tokens = answer["prompt_token_ids"].as_array().unwrap().len();
    let usage = json!({"prompt_tokens": prompt_tokens, "completion_tokens": want.len(),
        "total_tokens": prompt_tokens + want.len(), "prompt_tokens_details": {"cached_tokens": 0}});
    assert_eq!(answer["usage"], usage);
    let id = answer["id"].as_str().unwrap();
    assert_eq!((id.len(), &id[..9]), (9 + 32, "chatcmpl-"));
    for key in ["refusal", "annotations", "audio", "function_call", "reasoning"] {
        assert!(choice["message"].as_object().unwrap().contains_key(key), "{key}");
    }
    assert!(choice["message"].get("tool_calls").is_none());
    assert!(answer["system_fingerprint"].as_str().unwrap().starts_with("tokenmill-"));
    server.idle().await;
}

#[tokio::test]
async fn a_stream_is_roles_deltas_finish_usage_done() {
    let server = Server::new(Setup::default());
    let more = json!({"temperature": 0, "stream": true, "stream_options": {"include_usage": true}});
    let events = server.ask(CHAT, chat_body(more)).await.events();
    let whole = server.chat(chat_body(json!({"temperature": 0}))).await;
    assert_eq!(events[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    assert_eq!(content(&events, 0), whole["choices"][0]["message"]["content"].as_str().unwrap());
    let (last, before) = events.split_last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["total_tokens"], whole["usage"]["total_tokens"]);
    assert!(last["system_fingerprint"].is_string());
    let finish = before.last().unwrap();
    assert_eq!(finish["choices"][0]["finish_reason"], "length");
    assert_eq!(finish["choices"][0]["stop_reason"], Value::Null);
    for event in before {
        assert_eq!(event["usage"], Value::Null);
        assert_eq!(event["object"], "chat.completion.chunk");
        assert!(event.get("system_fingerprint").is_none());
        for key in ["id", "created", "model"] {
            assert_eq!(event[key], last[key], "{key}");
        }
    }
    let finishes = before.iter().filter(|event| event["choices"][0]["finish_reason"].is_string());
    assert_eq!(finishes.count(), 1);
}

#[tokio::test]
async fn usage_appears_as_asked() {
    let server = Server::new(Setup::default());
    let without = server.ask(CHAT, chat_body(json!({"stream": true}))).await.events();
    assert!(without.iter().all(|event| event.get("usage").is_none()));
    assert!(without.last().unwrap()["system_fingerprint"].is_string());
    let options = json!({"include_usage": true, "continuous_usage_stats": true});
    let body = chat_body(json!({"stream": true, "stream_options": options, "ignore_eos": true}));
    let events = server.ask(CHAT, body).await.events();
    let counts: Vec<u64> =
        events.iter().map(|event| event["usage"]["completion_tokens"].as_u64().unwrap()).collect();
    assert_eq!((counts[0], *counts.last().unwrap()), (0, 8));
    assert!(counts.is_sorted(), "{counts:?}");
    let mut setup = Setup::default();
    setup.config.force_include_usage = true;
    let forced = Server::new(setup).ask(CHAT, chat_body(json!({"stream": true}))).await.events();
    assert_eq!(forced.last().unwrap()["choices"], json!([]));
    assert_eq!(forced[0]["usage"]["completion_tokens"], 0);
}

#[tokio::test]
async fn choices_differ_and_repeat_with_their_seed() {
    let server = Server::new(Setup::default());
    let body = |n: u32, stream: bool| {
        chat_body(
            json!({"n": n, "seed": 7, "temperature": 1.5, "stream": stream, "ignore_eos": true,
                         "messages": [{"role": "user", "content": "a long enough question to fill blocks"}]}),
        )
    };
    let texts = |answer: &Value| -> Vec<String> {
        let choices = answer["choices"].as_array().unwrap();
        choices.iter().map(|choice| choice["message"]["content"].as_str().unwrap().into()).collect()
    };
    let (one, three) = (server.chat(body(1, false)).await, server.chat(body(3, false)).await);
    let (one, again) = (texts(&one), texts(&three));
    assert_eq!(one[0], again[0]);
    assert!(again[0] != again[1] && again[1] != again[2] && again[0] != again[2]);
    assert_eq!(three["usage"]["completion_tokens"], 24);
    let events = server.ask(CHAT, body(3, true)).await.events();
    for (index, want) in again.iter().enumerate() {
        assert_eq!(&content(&events, index), want, "choice {index}");
    }
    // The first choice computed the prompt, the others found its blocks.
    let stats = server.model.engine.stats();
    assert!(stats.cached_tokens.get() >= 2 * 32, "{}", stats.cached_tokens.get());
    let random = |answer: Value| answer["choices"][0]["message"]["content"].clone();
    let body = chat_body(json!({"temperature": 1.5, "ignore_eos": true}));
    assert_ne!(random(server.chat(body.clone()).await), random(server.chat(body).await));
}

#[tokio::test]
async fn stop_strings_cut_the_text_and_are_named() {
    let server = Server::new(Setup::default());
    // Only these letters can come; which one is up to the model.
    let letters = json!({"allowed_token_ids": [b'a', b'b'], "temperature": 0, "max_tokens": 40});
    let with = |more: Value| {
        let mut body = chat_body(letters.clone());
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let free = server.chat(with(json!({}))).await;
    let free = free["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    let stop = &free[10..14];
    let cut = free.find(stop).unwrap();
    for stream in [false, true] {
        for (include, end) in [(false, cut), (true, cut + stop.len())] {
            let more =
                json!({"stop": stop, "include_stop_str_in_output": include, "stream": stream});
            let reply = server.ask(CHAT, with(more)).await;
            let (text, choice) = if stream {
                let events = reply.events();
                (content(&events, 0), events.last().unwrap()["choices"][0].clone())
            } else {
                let choice = reply.json()["choices"][0].clone();
                (choice["message"]["content"].as_str().unwrap().to_owned(), choice)
            };
            assert_eq!(text, free[..end], "stream {stream}, include {include}");
            assert_eq!(choice["finish_reason"], "stop");
            assert_eq!(choice["stop_reason"], stop);
        }
    }
    let used = server.chat(with(json!({"stop": stop}))).await;
    assert_eq!(used["usage"]["completion_tokens"], cut + stop.len());
    let late = server.chat(with(json!({"stop": stop, "min_tokens": 30}))).await;
    assert!(late["choices"][0]["message"]["content"].as_str().unwrap().len() >= 30);
    // The answer ended early: the engine lets go of the sequence.
    server.idle().await;
}

#[tokio::test]
async fn stop_tokens_end_a_choice_and_their_text_is_left_out() {
    let server = Server::new(Setup::default());
    let first = u64::from(expected(1)[0]);
    for (more, tokens, finish, reason) in [
        (json!({"stop_token_ids": [first]}), 1, "stop", json!(first)),
        (
            json!({"stop_token_ids": [first], "min_tokens": 3, "max_tokens": 3}),
            3,
            "length",
            Value::Null,
        ),
        (json!({"allowed_token_ids": [EOS]}), 1, "stop", Value::Null),
        (json!({"allowed_token_ids": [EOS], "ignore_eos": true}), 8, "length", Value::Null),
    ] {
        let mut body = chat_body(json!({"temperature": 0}));
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = server.chat(body).await;
        let choice = &answer["choices"][0];
        assert_eq!(answer["usage"]["completion_tokens"], tokens, "{more}");
        assert_eq!(
            (&choice["finish_reason"], &choice["stop_reason"]),
            (&json!(finish), &reason),
            "{more}"
        );
        if finish == "stop" {
            assert_eq!(choice["message"]["content"], "", "{more}");
        }
    }
}

#[tokio::test]
async fn logprobs_cover_exactly_the_tokens() {
    let server = Server::new(Setup::default());
    let more = json!({"temperature": 0, "logprobs": true, "top_logprobs": 3, "ignore_eos": true});
    let whole = server.chat(chat_body(more.clone())).await;
    let entries = whole["choices"][0]["logprobs"]["content"].as_array().unwrap().clone();
    assert_eq!(entries.len(), 8);
    for entry in &entries {
        let top = entry["top_logprobs"].as_array().unwrap();
        assert_eq!((top.len(), &top[0]["logprob"]), (3, &entry["logprob"]));
        assert_eq!(entry["bytes"].as_array().unwrap().len(), 1);
        let values: Vec<f64> = top.iter().map(|top| top["logprob"].as_f64().unwrap()).collect();
        assert!(values.is_sorted_by(|a, b| a >= b) && values[0] < 0.0, "{values:?}");
    }
    let mut body = chat_body(more);
    body["stream"] = true.into();
    let events = server.ask(CHAT, body).await.events();
    let streamed: Vec<Value> = events
        .iter()
        .filter_map(|event| event["choices"][0]["logprobs"]["content"].as_array().cloned())
        .flatten()
        .collect();
    assert_eq!(streamed, entries);
    let ids =
        chat_body(json!({"logprobs": true, "return_tokens_as_token_ids": true, "temperature": 0}));
    let answer = server.chat(ids).await;
    let token =
        answer["choices"][0]["logprobs"]["content"][0]["token"].as_str().unwrap().to_owned();
    assert_eq!(token, format!("token_id:{}", expected(1)[0]));
    assert_eq!(answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"], json!([]));
}

#[tokio::test]
async fn the_template_sees_what_the_request_says() {
    let mut setup = Setup::default();
    setup.config.chat_template_kwargs.insert("shout".into(), "HEY".into());
    let server = Server::new(setup);
    let text = |body: Value| {
        let server = &server;
        async move {
            let mut body = body;
            body["return_token_ids"] = true.into();
            let answer = server.chat(body).await;
            let ids: Vec<u32> = serde_json::from_value(answer["prompt_token_ids"].clone()).unwrap();
            tokenizer().decode(&ids, false)
        }
    };
    let parts = json!([{"role": "user", "content": [{"type": "text", "text": "a"}, "b"]}]);
    for (more, want) in [
        (json!({}), "<|turn|>user\nhello<|end|><|turn|>assistant\nHEY"),
        (
            json!({"chat_template_kwargs": {"shout": "yo"}}),
            "<|turn|>user\nhello<|end|><|turn|>assistant\nyo",
        ),
        (json!({"add_generation_prompt": false}), "<|turn|>user\nhello<|end|>HEY"),
        (
            json!({"add_special_tokens": true}),
            "<s><|turn|>user\nhello<|end|><|turn|>assistant\nHEY",
        ),
        (json!({"messages": parts}), "<|turn|>user\na\nb<|end|><|turn|>assistant\nHEY"),
        (json!({"truncate_prompt_tokens": 4}), "\nHEY"),
        (json!({"truncate_prompt_tokens": 2, "truncation_side": "right"}), "<|turn|>u"),
    ] {
        assert_eq!(text(chat_body(more.clone())).await, want, "{more}");
    }
    let last = json!({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "Once"}],
        "continue_final_message": true, "chat_template_kwargs": {"shout": ""}});
    assert_eq!(
        text(chat_body(last.clone())).await,
        "<|turn|>user\nx<|end|><|turn|>assistant\nOnce"
    );
    let mut echoed = chat_body(last);
    echoed["echo"] = true.into();
    let whole = server.chat(echoed.clone()).await;
    assert!(whole["choices"][0]["message"]["content"].as_str().unwrap().starts_with("Once"));
    echoed["stream"] = true.into();
    let events = server.ask(CHAT, echoed).await.events();
    assert_eq!(events[1]["choices"][0]["delta"], json!({"content": "Once"}));
}

#[tokio::test]
async fn lengths_come_from_the_request_the_model_or_what_fits() {
    let mut setup = Setup::default();
    setup.defaults.max_new_tokens = Some(5);
    setup.defaults.temperature = Some(0.0);
    let server = Server::new(setup);
    let tokens = |more: Value| {
        let mut body = chat_body(json!({"ignore_eos": true, "max_tokens": null}));
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let server = &server;
        async move { server.chat(body).await["usage"]["completion_tokens"].as_u64().unwrap() }
    };
    assert_eq!(tokens(json!({})).await, 5);
    assert_eq!(tokens(json!({"max_tokens": 7})).await, 7);
    assert_eq!(tokens(json!({"max_tokens": 7, "max_completion_tokens": 3})).await, 3);
    let long =
        json!({"messages": [{"role": "user", "content": "x".repeat(470)}], "max_tokens": 500});
    assert_eq!(tokens(long).await, 512 - 470 - 18);
}

#[tokio::test]
async fn a_deadline_ends_a_request() {
    let mut setup = Setup::default();
    setup.sim.cost.step = std::time::Duration::from_millis(20);
    let server = Server::new(setup);
    let body = chat_body(json!({"max_tokens": 400, "ignore_eos": true}));
    let headers = [("x-request-timeout-ms", "200")];
    let reply = server.post_with(CHAT, body.to_string(), &headers).await;
    assert_eq!(reply.status, 200);
    let answer = reply.json();
    assert_eq!(answer["choices"][0]["finish_reason"], "abort");
    assert!(answer["usage"]["completion_tokens"].as_u64().unwrap() < 100);
    let body = chat_body(json!({"timeout": 0.000001}));
    let reply = server.post(CHAT, body.to_string()).await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("retry-after")),
        (503, "1"),
        "{}",
        reply.text()
    );
    let reply = server
        .post_with(CHAT, chat_body(json!({})).to_string(), &[("x-request-timeout-ms", "soon")])
        .await;
    assert_eq!(reply.status, 400);
}

#[tokio::test]
async fn one_bad_sequence_fails_alone() {
    let mut setup = Setup::default();
    setup.sim.poison = Some(u32::from(b'Z'));
    let server = Server::new(setup);
    let bad = chat_body(json!({"messages": [{"role": "user", "content": "Z"}]}));
    let reply = server.post(CHAT, bad.to_string()).await;
    assert_eq!(reply.status, 500);
    assert_eq!(reply.json()["error"]["type"], "InternalServerError");
    let mut streamed = bad.clone();
    streamed["stream"] = true.into();
    let events = server.ask(CHAT, streamed).await.events();
    assert_eq!(events.last().unwrap()["error"]["code"], 500);
    server.chat(chat_body(json!({}))).await;
}
