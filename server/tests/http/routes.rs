//! Everything around the completions: models, tokens, probes, keys, browsers.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tokenmill_engine::handle::GenerateRequest;
use tokenmill_engine::sampling::SamplingParams;
use tokenmill_scheduler::SequenceSpec;

use crate::support::{BOS, Server, Setup, chat_body};

#[tokio::test]
async fn models_are_listed_and_found_by_names_with_slashes() {
    let server = Server::new(Setup::default());
    let list = server.get("/v1/models").await.json();
    assert_eq!((&list["object"], list["data"].as_array().unwrap().len()), (&json!("list"), 2));
    assert_eq!(list["data"][0]["max_model_len"], 512);
    for path in ["/v1/models/org/tiny", "/v1/models/org%2Ftiny", "/openai/v1/models/org%2Ftiny"] {
        let reply = server.get(path).await;
        assert_eq!((reply.status, &reply.json()), (StatusCode::OK, &list["data"][1]), "{path}");
    }
    assert_eq!(server.get("/v1/models/org").await.status, StatusCode::NOT_FOUND);
    for name in ["", "dummy", "tgi", "http://localhost:8000"] {
        assert_eq!(server.chat(chat_body(json!({"model": name}))).await["model"], "tiny", "{name}");
    }
    assert_eq!(server.chat(chat_body(json!({"model": "org/tiny"}))).await["model"], "org/tiny");
}

#[tokio::test]
async fn text_becomes_tokens_and_back() {
    let server = Server::new(Setup::default());
    let ask = |path: &'static str, body: Value| {
        let server = &server;
        async move { server.ask(path, body).await.json() }
    };
    let answer = ask("/tokenize", json!({"prompt": "hé", "return_token_strs": true})).await;
    assert_eq!(answer["tokens"], json!([BOS, b'h', 0xc3, 0xa9]));
    assert_eq!((&answer["count"], &answer["max_model_len"]), (&json!(4), &json!(512)));
    assert_eq!(answer["token_strs"][1], "h");
    // As lm-eval asks: without a model.
    let bare = ask("/tokenize", json!({"prompt": "h", "add_special_tokens": false})).await;
    assert_eq!((&bare["tokens"], &bare["token_strs"]), (&json!([b'h']), &Value::Null));
    let messages = json!([{"role": "user", "content": "x"}]);
    let chat = ask("/tokenize", json!({"messages": messages})).await;
    let text = ask("/detokenize", json!({"tokens": chat["tokens"]})).await;
    assert_eq!(text, json!({"prompt": "<|turn|>user\nx<|end|><|turn|>assistant\n"}));
    assert_eq!(ask("/tokenize", json!({"prompt": ""})).await["tokens"], json!([BOS]));
    assert_eq!(server.get("/tokenizer_info").await.status, StatusCode::NOT_FOUND);
    let mut setup = Setup::default();
    setup.config.tokenizer_info = true;
    let info = Server::new(setup).get("/tokenizer_info").await.json();
    assert_eq!((&info["eos_token"], info["chat_template"].is_string()), (&json!("</s>"), true));
}

#[tokio::test]
async fn probes_tell_the_state() {
    let server = Server::new(Setup::default());
    for path in ["/health", "/ping"] {
        let reply = server.get(path).await;
        assert_eq!((reply.status, reply.body.len()), (StatusCode::OK, 0), "{path}");
    }
    assert_eq!(server.method(Method::POST, "/ping").await.status, StatusCode::OK);
    assert_eq!(server.get("/health/live").await.json(), json!({"live": true}));
    assert_eq!(server.get("/health/ready").await.json(), json!({"ready": true}));
    assert_eq!(server.get("/version").await.json(), json!({"version": env!("CARGO_PKG_VERSION")}));
    assert_eq!(server.get("/load").await.json(), json!({"server_load": 0}));
    server.app.start_draining();
    assert_eq!(server.get("/health/ready").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(server.get("/health").await.status, StatusCode::OK);
    let reply = server.post("/v1/chat/completions", chat_body(json!({})).to_string()).await;
    assert_eq!((reply.status, reply.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"));
}

#[tokio::test]
async fn a_dead_engine_is_reported() {
    let mut setup = Setup::default();
    setup.sim.fault = tokenmill_engine::sim::Fault::FailAtStep(1);
    let server = Server::new(setup);
    let reply = server.post("/v1/chat/completions", chat_body(json!({})).to_string()).await;
    assert_eq!(reply.status, StatusCode::INTERNAL_SERVER_ERROR);
    for _ in 0..1000 {
        if !server.model.engine.is_alive() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    for path in ["/health", "/ping", "/health/live", "/health/ready"] {
        assert_eq!(server.get(path).await.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
    }
}

#[tokio::test]
async fn an_admin_key_alone_changes_which_models_are_served() {
    // What is not there is "not ready": the key was good.
    let load = "/v2/repository/models/none/load";
    for (api, admin, key, path, want) in [
        (&["key"][..], &["admin"][..], "key", load, StatusCode::UNAUTHORIZED),
        (
            &["key"],
            &["admin"],
            "key",
            "/v2/repository/models/none/unload/",
            StatusCode::UNAUTHORIZED,
        ),
        (&["key"], &["admin"], "admin", load, StatusCode::SERVICE_UNAVAILABLE),
        (&["key"], &["admin"], "key", "/tokenize", StatusCode::BAD_REQUEST),
        (&["key"], &["admin"], "admin", "/tokenize", StatusCode::BAD_REQUEST),
        (&["key"], &["admin"], "other", "/tokenize", StatusCode::UNAUTHORIZED),
        (&["key"], &[], "key", load, StatusCode::SERVICE_UNAVAILABLE),
        (&[], &["admin"], "other", load, StatusCode::UNAUTHORIZED),
        (&[], &["admin"], "other", "/tokenize", StatusCode::BAD_REQUEST),
        (&[], &[], "other", load, StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let mut setup = Setup::default();
        setup.config.api_keys = api.iter().map(|&key| key.to_owned()).collect();
        setup.config.admin_keys = admin.iter().map(|&key| key.to_owned()).collect();
        let reply = Server::new(setup).post_with(path, "{}", &[("x-api-key", key)]).await;
        assert_eq!(reply.status, want, "{api:?} {admin:?} {key} {path}: {}", reply.text());
    }
}

#[tokio::test]
async fn keys_open_every_route_but_the_probes() {
    let mut setup = Setup::default();
    setup.config.api_keys = vec!["first-key".into(), "second-key".into()];
    let server = Server::new(setup);
    let status = |path: &'static str, header: Option<(&'static str, &'static str)>| {
        let server = &server;
        async move {
            let mut request = Request::get(path);
            if let Some((name, value)) = header {
                request = request.header(name, value);
            }
            server.send(request.body(Body::empty()).unwrap()).await
        }
    };
    for path in ["/health", "/health/live", "/health/ready", "/ping", "/metrics"] {
        assert_eq!(status(path, None).await.status, StatusCode::OK, "{path}");
    }
    for path in [
        "/v1/models",
        "/openai/v1/models",
        "/version",
        "/load",
        "/docs",
        "/openapi.json",
        "/nowhere",
    ] {
        let reply = status(path, None).await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(reply.header("www-authenticate"), "Bearer");
        assert_eq!(reply.json()["error"]["type"], "AuthenticationError");
    }
    for (header, want) in [
        (("authorization", "Bearer second-key"), StatusCode::OK),
        (("authorization", "bearer first-key"), StatusCode::OK),
        (("x-api-key", "first-key"), StatusCode::OK),
        (("authorization", "Bearer first-ke"), StatusCode::UNAUTHORIZED),
        (("authorization", "Bearer first-key1"), StatusCode::UNAUTHORIZED),
        (("authorization", "first-key"), StatusCode::UNAUTHORIZED),
        (("x-api-key", ""), StatusCode::UNAUTHORIZED),
    ] {
        assert_eq!(status("/v1/models", Some(header)).await.status, want, "{header:?}");
    }
}

#[tokio::test]
async fn request_ids_go_in_and_out() {
    let server = Server::new(Setup::default());
    let body = chat_body(json!({"request_id": "from-body"})).to_string();
    let path = "/v1/chat/completions";
    let given = server.post_with(path, body.clone(), &[("x-request-id", "abc-123")]).await;
    assert_eq!(
        (given.header("x-request-id"), &given.json()["id"]),
        ("abc-123", &json!("chatcmpl-abc-123"))
    );
    let named = server.post(path, body).await;
    assert_eq!(
        (named.header("x-request-id"), &named.json()["id"]),
        ("from-body", &json!("chatcmpl-from-body"))
    );
    let random = server.post(path, chat_body(json!({})).to_string()).await;
    assert_eq!(random.json()["id"], format!("chatcmpl-{}", random.header("x-request-id")));
    let refused = server.post_with(path, "{", &[("x-request-id", "abc")]).await;
    assert_eq!(refused.header("x-request-id"), "abc");
}

#[tokio::test]
async fn browsers_are_answered_when_their_origin_is_allowed() {
    let preflight = |origin: &str| {
        let request = Request::builder().method(Method::OPTIONS).uri("/v1/chat/completions");
        let request =
            request.header("origin", origin).header("access-control-request-method", "POST");
        request
            .header("access-control-request-headers", "authorization")
            .body(Body::empty())
            .unwrap()
    };
    let closed = Server::new(Setup::default()).send(preflight("https://a.example")).await;
    assert_eq!(closed.header("access-control-allow-origin"), "");
    let mut setup = Setup::default();
    setup.config.api_keys = vec!["key".into()];
    setup.config.cors.origins = vec!["https://a.example".into()];
    let server = Server::new(setup);
    let open = server.send(preflight("https://a.example")).await;
    assert_eq!(
        (open.status, open.header("access-control-allow-origin")),
        (StatusCode::OK, "https://a.example")
    );
    assert_eq!(open.header("access-control-allow-headers"), "authorization");
    assert_eq!(
        server.send(preflight("https://b.example")).await.header("access-control-allow-origin"),
        ""
    );
    // A refusal is readable too.
    let request = Request::get("/v1/models").header("origin", "https://a.example");
    let refused = server.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert_eq!(refused.header("access-control-allow-origin"), "https://a.example");
}

#[tokio::test]
async fn queue_limits_refuse_before_any_work() {
    let mut setup = Setup::default();
    setup.config.max_queued_requests = Some(2);
    setup.config.max_queued_tokens = Some(100);
    setup.engine.max_waiting = 1;
    setup.sim.limits.max_sequences = 1;
    let server = Server::new(setup);
    for (more, part) in [
        (json!({"n": 3}), "sequences are in flight"),
        (json!({"messages": [{"role": "user", "content": "x".repeat(200)}]}), "prompt tokens wait"),
    ] {
        let reply = server.post("/v1/chat/completions", chat_body(more.clone()).to_string()).await;
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{more}");
        assert!(reply.text().contains(part), "{}", reply.text());
    }
    assert_eq!(server.app.sequences_in_flight(), 0);
    let mut setup = Setup::default();
    setup.engine.max_waiting = 1;
    setup.sim.limits.max_sequences = 1;
    let server = Server::new(setup);
    // Two sequences are taken in, and one of them is somebody else's.
    let spec = SequenceSpec { prompt: vec![1], max_tokens: 1, ..SequenceSpec::default() };
    let request = GenerateRequest { spec, sampling: SamplingParams::default() };
    let other = server.model.engine.submit(request).expect("an idle engine");
    let reply = server.post("/v1/chat/completions", chat_body(json!({"n": 2})).to_string()).await;
    assert_eq!((reply.status, reply.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, "1"));
    assert_eq!(reply.json()["error"]["type"], "RateLimitError");
    let text = server.get("/metrics").await.text().to_owned();
    assert!(text.contains("by=\"client\"} 0\n"), "a refused request was cancelled by no client");
    drop(other);
    server.idle().await;
    // What an idle engine could not take is the client's mistake, and fills no queue.
    let reply = server.post("/v1/chat/completions", chat_body(json!({"n": 3})).to_string()).await;
    let blamed = reply.json()["error"]["param"].clone();
    assert_eq!((reply.status, blamed), (StatusCode::BAD_REQUEST, json!("n")));
}

#[tokio::test]
async fn strict_servers_refuse_unknown_parameters() {
    let mut setup = Setup::default();
    setup.config.strict_params = true;
    let server = Server::new(setup);
    let reply =
        server.post("/v1/chat/completions", chat_body(json!({"surprise": 1})).to_string()).await;
    assert_eq!(
        (reply.status, &reply.json()["error"]["param"]),
        (StatusCode::BAD_REQUEST, &json!("surprise"))
    );
}

#[tokio::test]
async fn the_document_lists_only_fields_that_are_read() {
    let server = Server::new(Setup::default());
    let document = server.get("/openapi.json").await.json();
    let page = server.get("/docs").await;
    assert!(
        page.text().contains("openapi.json") && !page.text().contains("http"),
        "nothing from elsewhere"
    );
    for path in ["/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"] {
        let schema = &document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
            ["schema"];
        let fields = schema["properties"].as_object().expect("fields");
        // A value of no type at all: read fields are refused, unread ones are ignored.
        let body: serde_json::Map<String, Value> =
            fields.keys().map(|name| (name.clone(), json!({"no": "such type"}))).collect();
        let mut strict = Setup::default();
        strict.config.strict_params = true;
        let server = Server::new(strict);
        for name in body.keys() {
            let mut one = match path {
                "/v1/chat/completions" => chat_body(json!({})),
                "/v1/completions" => json!({"prompt": "x"}),
                "/tokenize" => json!({"prompt": "x"}),
                _ => json!({"tokens": [1]}),
            };
            one[name.as_str()] = Value::from(vec![json!([])]);
            let reply = server.post(path, one.to_string()).await;
            assert!(
                !reply.text().contains("unknown parameters"),
                "{path} {name}: {}",
                reply.text()
            );
        }
    }
}
