//! Text completions.

use serde_json::{Value, json};

use crate::support::{BOS, Server, Setup, completion_body, tokenizer};

const COMPLETIONS: &str = "/v1/completions";

fn texts(answer: &Value) -> Vec<String> {
    let choices = answer["choices"].as_array().expect("choices");
    choices.iter().map(|choice| choice["text"].as_str().expect("text").to_owned()).collect()
}

#[tokio::test]
async fn prompts_come_in_four_shapes() {
    let server = Server::new(Setup::default());
    let ids: Vec<u32> = [BOS].into_iter().chain(b"hello".iter().map(|&byte| byte.into())).collect();
    let mut all = Vec::new();
    for prompt in [json!("hello"), json!(["hello"]), json!(ids), json!([ids])] {
        let answer =
            server.complete(completion_body(json!({"prompt": prompt, "temperature": 0}))).await;
        assert_eq!(answer["usage"]["prompt_tokens"], 6, "{prompt}");
        assert_eq!(answer["object"], "text_completion");
        assert!(answer["id"].as_str().unwrap().starts_with("cmpl-"));
        all.push(texts(&answer));
    }
    assert!(all.iter().all(|texts| texts == &all[0]), "{all:?}");
    let bare = server.complete(completion_body(json!({"add_special_tokens": false}))).await;
    assert_eq!(bare["usage"]["prompt_tokens"], 5);
    let default = json!({"model": "tiny", "prompt": "x", "ignore_eos": true});
    assert_eq!(server.complete(default).await["usage"]["completion_tokens"], 16);
}

#[tokio::test]
async fn choices_are_ordered_by_prompt_then_number() {
    let server = Server::new(Setup::default());
    let body = |prompt: Value, stream: bool| {
        completion_body(
            json!({"prompt": prompt, "n": 2, "seed": 3, "ignore_eos": true, "stream": stream}),
        )
    };
    let both = server.complete(body(json!(["first", "second"]), false)).await;
    let (a, b) = (
        server.complete(body(json!("first"), false)).await,
        server.complete(body(json!("second"), false)).await,
    );
    let want: Vec<String> = texts(&a).into_iter().chain(texts(&b)).collect();
    assert_eq!(texts(&both), want);
    assert_eq!(both["usage"]["prompt_tokens"], 6 + 7);
    assert_eq!(both["usage"]["completion_tokens"], 32);
    for (index, choice) in both["choices"].as_array().unwrap().iter().enumerate() {
        assert_eq!(choice["index"], index);
    }
    let events = server.ask(COMPLETIONS, body(json!(["first", "second"]), true)).await.events();
    let mut streamed = vec![String::new(); 4];
    let mut finishes = 0;
    for choice in events.iter().map(|event| &event["choices"][0]) {
        streamed[choice["index"].as_u64().unwrap() as usize] += choice["text"].as_str().unwrap();
        finishes += u32::from(choice["finish_reason"] == "length");
    }
    assert_eq!((streamed, finishes), (want, 4));
}

#[tokio::test]
async fn echo_with_logprobs_scores_the_prompt() {
    let server = Server::new(Setup::default());
    // As lm-eval asks.
    let ids: Vec<u32> = b"score me".iter().map(|&byte| byte.into()).collect();
    let body = json!({"model": "tiny", "prompt": [ids], "echo": true, "logprobs": 1, "max_tokens": 1,
                      "temperature": 0, "seed": 1234});
    let answer = server.complete(body.clone()).await;
    let choice = &answer["choices"][0];
    let logprobs = &choice["logprobs"];
    for key in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(logprobs[key].as_array().unwrap().len(), ids.len() + 1, "{key}");
    }
    assert_eq!(logprobs["token_logprobs"][0], Value::Null);
    assert_eq!(logprobs["top_logprobs"][0], Value::Null);
    assert!(choice["text"].as_str().unwrap().starts_with("score me"));
    assert_eq!(logprobs["text_offset"], json!((0..=ids.len()).collect::<Vec<_>>()));
    assert_eq!(logprobs["tokens"][0], "s");
    for at in 1..ids.len() {
        let value = &logprobs["token_logprobs"][at];
        let top = logprobs["top_logprobs"][at].as_object().unwrap();
        let best = top.values().map(|value| value.as_f64().unwrap()).fold(f64::MIN, f64::max);
        assert!(value.as_f64().unwrap() <= best && top.len() <= 2, "{at}");
    }
    // The sampled token is the greedy one: the very same number.
    let last = logprobs["token_logprobs"][ids.len()].as_f64().unwrap();
    let top = logprobs["top_logprobs"][ids.len()].as_object().unwrap();
    assert!(top.values().any(|value| value.as_f64() == Some(last)));
    assert_eq!(answer["usage"]["completion_tokens"], 1);
    let mut streamed = body;
    streamed["stream"] = true.into();
    let events = server.ask(COMPLETIONS, streamed).await.events();
    assert_eq!(events[0]["choices"][0]["logprobs"], *logprobs);
}

#[tokio::test]
async fn echo_alone_generates_nothing() {
    let server = Server::new(Setup::default());
    for logprobs in [Value::Null, json!(2)] {
        let body = completion_body(json!({"echo": true, "max_tokens": 0, "logprobs": logprobs}));
        let answer = server.complete(body).await;
        let choice = &answer["choices"][0];
        assert_eq!(
            (&choice["text"], &choice["finish_reason"]),
            (&json!("hello"), &json!("length"))
        );
        assert_eq!(answer["usage"]["completion_tokens"], 0);
        if !logprobs.is_null() {
            let values = choice["logprobs"]["token_logprobs"].as_array().unwrap();
            assert_eq!((values.len(), values[1].is_number()), (6, true));
            assert_eq!(choice["logprobs"]["text_offset"], json!([0, 0, 1, 2, 3, 4]));
        }
    }
}

#[tokio::test]
async fn prompt_logprobs_and_token_ids_sit_in_the_choice() {
    let server = Server::new(Setup::default());
    let body =
        completion_body(json!({"prompt_logprobs": 2, "return_token_ids": true, "n": 2, "seed": 1}));
    let answer = server.complete(body).await;
    let choices = answer["choices"].as_array().unwrap();
    let rows = choices[0]["prompt_logprobs"].as_array().unwrap();
    assert_eq!((rows.len(), &rows[0]), (6, &Value::Null));
    let row = rows[1].as_object().unwrap();
    let own = &row[&u32::from(b'h').to_string()];
    assert_eq!(own["decoded_token"], "h");
    assert!(own["rank"].as_u64().unwrap() >= 1 && own["logprob"].as_f64().unwrap() < 0.0);
    assert!(row.values().any(|value| value["rank"] == 1), "{row:?}");
    assert_eq!(choices[1]["prompt_logprobs"], choices[0]["prompt_logprobs"]);
    assert_eq!(choices[0]["prompt_token_ids"][0], BOS);
    let ids: Vec<u32> = serde_json::from_value(choices[0]["token_ids"].clone()).unwrap();
    assert_eq!(choices[0]["text"], tokenizer().decode(&ids, true));
}

#[tokio::test]
async fn bad_words_and_biases_reach_the_sampler() {
    let server = Server::new(Setup::default());
    let text = |more: Value| {
        let mut body =
            completion_body(json!({"temperature": 0, "max_tokens": 12, "ignore_eos": true}));
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let server = &server;
        async move { texts(&server.complete(body).await).remove(0) }
    };
    let only = json!([b'a', b'b']);
    let free = text(json!({"allowed_token_ids": only})).await;
    assert!(free.contains('a') && free.bytes().all(|byte| byte == b'a' || byte == b'b'), "{free}");
    let without = text(json!({"allowed_token_ids": only, "bad_words": ["a"]})).await;
    assert_eq!(without, "b".repeat(12));
    let biased = text(json!({"logit_bias": {b'q'.to_string(): 100}})).await;
    assert_eq!(biased, "q".repeat(12));
}

#[tokio::test]
async fn salts_separate_the_prefix_cache() {
    let server = Server::new(Setup::default());
    let cached = |salt: Value| {
        let body = completion_body(json!({"prompt": "y".repeat(100), "cache_salt": salt}));
        let server = &server;
        async move {
            let answer = server.complete(body).await;
            answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
        }
    };
    assert_eq!(cached(json!("one")).await, 0);
    assert_eq!(cached(json!("one")).await, 96);
    assert_eq!(cached(json!("two")).await, 0);
    assert_eq!(cached(Value::Null).await, 0);
}
