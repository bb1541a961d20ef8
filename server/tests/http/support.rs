//! A server over the simulated executor and a tokenizer of bytes, called in process.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use serde_json::{Map, Value, json};
use tokenmill::app::{App, ServerConfig, router};
use tokenmill::registry::{Generative, GenerativeParts, Registry, SamplingDefaults, Served};
use tokenmill_engine::handle::{EngineConfig, EngineHandle};
use tokenmill_engine::sim::{SimConfig, SimExecutor};
use tokenmill_engine::text::{ChatTemplate, TextPool, TextPoolOptions, Tokenizer};
use tokenmill_scheduler::Policy;
use tower::ServiceExt;

/// Vocabulary: 256 bytes, then these.
pub(crate) const SPECIAL: [&str; 4] = ["<s>", "</s>", "<|turn|>", "<|end|>"];
/// Id of `<s>`.
pub(crate) const BOS: u32 = 256;
/// Id of `</s>`.
pub(crate) const EOS: u32 = 257;
/// Vocabulary size.
pub(crate) const VOCAB: u32 = 260;

const TEMPLATE: &str = "{% for message in messages %}<|turn|>{{ message.role }}\n\
    {{ message.content }}<|end|>{% endfor %}\
    {% if add_generation_prompt %}<|turn|>assistant\n{% endif %}\
    {% if shout %}{{ shout }}{% endif %}";

/// GPT-2's printable stand-in for a byte.
fn stand_in(byte: u8) -> char {
    let printable =
        |b: u32| (33..=126).contains(&b) || (161..=172).contains(&b) || (174..=255).contains(&b);
    let code = u32::from(byte);
    if printable(code) {
        return char::from(byte);
    }
    let before = (0..code).filter(|&other| !printable(other)).count() as u32;
    char::from_u32(256 + before).expect("below the surrogates")
}

/// A byte-level tokenizer whose token ids are the bytes.
pub(crate) fn tokenizer() -> Tokenizer {
    let vocab: Map<String, Value> =
        (0..=255u8).map(|byte| (stand_in(byte).to_string(), json!(byte))).collect();
    let added: Vec<Value> = SPECIAL
        .iter()
        .zip(256..)
        .map(|(content, id)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "pre_tokenizer": byte_level, "decoder": byte_level,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [BOS], "tokens": ["<s>"]}},
        },
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                  "vocab": vocab, "merges": []},
    });
    Tokenizer::from_json_bytes(&serde_json::to_vec(&file).expect("JSON"))
        .expect("a valid tokenizer")
}

/// What a test wants to differ.
pub(crate) struct Setup {
    pub(crate) config: ServerConfig,
    pub(crate) sim: SimConfig,
    pub(crate) engine: EngineConfig,
    pub(crate) names: Vec<&'static str>,
    pub(crate) defaults: SamplingDefaults,
}

impl Default for Setup {
    fn default() -> Self {
        let mut sim = SimConfig::default();
        sim.limits.vocab_size = VOCAB;
        sim.limits.max_model_len = 512;
        Self {
            config: ServerConfig { host: "127.0.0.1".into(), port: 0, ..ServerConfig::default() },
            sim,
            engine: EngineConfig {
                max_waiting: 64,
                max_chunk_tokens: 512,
                prefix_cache: true,
                policy: Policy::FirstCome,
                hash_key: [1, 2],
            },
            names: vec!["tiny", "org/tiny"],
            defaults: SamplingDefaults::default(),
        }
    }
}

/// A server without a socket.
pub(crate) struct Server {
    pub(crate) app: Arc<App>,
    pub(crate) router: Router,
    pub(crate) model: Arc<Generative>,
}

/// An answer, read to its end.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
    }

    /// The data of every event, `[DONE]` checked and left out.
    pub(crate) fn events(&self) -> Vec<Value> {
        assert_eq!(
            self.header("content-type"),
            "text/event-stream; charset=utf-8",
            "{}",
            self.text()
        );
        let mut events = Vec::new();
        let blocks =
            self.text().strip_suffix("\n\n").expect("ends with an empty line").split("\n\n");
        let mut blocks: Vec<&str> = blocks.filter(|block| !block.starts_with(':')).collect();
        assert_eq!(blocks.pop(), Some("data: [DONE]"));
        for block in blocks {
            let data = block.strip_prefix("data: ").unwrap_or_else(|| panic!("{block}"));
            events.push(serde_json::from_str(data).expect("JSON"));
        }
        events
    }
}

impl Server {
    pub(crate) fn new(setup: Setup) -> Self {
        let (engine, _thread) =
            EngineHandle::spawn(Box::new(SimExecutor::new(setup.sim)), setup.engine.clone())
                .expect("spawns");
        let options = TextPoolOptions { threads: 1, queue: 64 };
        let text = TextPool::new(tokenizer(), options).expect("threads");
        let model = Arc::new(Generative::new(GenerativeParts {
            engine,
            text,
            template: Some(ChatTemplate::compile(TEMPLATE, "<s>", "</s>").expect("compiles")),
            eos_tokens: vec![EOS],
            defaults: setup.defaults,
            root: "org/tiny".into(),
            prefix_cache: setup.engine.prefix_cache,
            priorities: setup.engine.policy == Policy::Priority,
            kv_dtype: "f16".into(),
        }));
        let mut registry = Registry::default();
        for name in setup.names {
            registry.insert(name, Served::Generative(Arc::clone(&model))).expect("distinct names");
        }
        let app = App::new(setup.config, registry);
        app.set_ready();
        Self { router: router(Arc::clone(&app)), app, model }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("a body").to_vec();
        Reply { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Request::get(path).body(Body::empty()).expect("a request")).await
    }

    pub(crate) async fn method(&self, method: Method, path: &str) -> Reply {
        self.send(
            Request::builder().method(method).uri(path).body(Body::empty()).expect("a request"),
        )
        .await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Vec<u8>>) -> Reply {
        self.post_with(path, body, &[]).await
    }

    pub(crate) async fn post_with(
        &self,
        path: &str,
        body: impl Into<Vec<u8>>,
        headers: &[(&str, &str)],
    ) -> Reply {
        let mut request = Request::post(path).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::from(body.into())).expect("a request")).await
    }

    /// Posts JSON and wants 200.
    pub(crate) async fn ask(&self, path: &str, body: Value) -> Reply {
        let reply = self.post(path, body.to_string()).await;
        assert_eq!(reply.status, StatusCode::OK, "{body}: {}", reply.text());
        reply
    }

    pub(crate) async fn complete(&self, body: Value) -> Value {
        self.ask("/v1/completions", body).await.json()
    }

    pub(crate) async fn chat(&self, body: Value) -> Value {
        self.ask("/v1/chat/completions", body).await.json()
    }

    /// Waits until the engine holds nothing.
    pub(crate) async fn idle(&self) {
        let stats = self.model.engine.stats();
        for _ in 0..2000 {
            let free = stats.blocks_free.get() == stats.blocks_total.get();
            if stats.running.get() == 0 && stats.waiting.get() == 0 && free {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        panic!(
            "{} running, {} waiting, {} of {} blocks free",
            stats.running.get(),
            stats.waiting.get(),
            stats.blocks_free.get(),
            stats.blocks_total.get()
        );
    }
}

/// A chat request of one user message, with more fields.
pub(crate) fn chat_body(more: Value) -> Value {
    let mut body = json!({"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8});
    merge(&mut body, more);
    body
}

/// A completion request, with more fields.
pub(crate) fn completion_body(more: Value) -> Value {
    let mut body = json!({"model": "tiny", "prompt": "hello", "max_tokens": 8});
    merge(&mut body, more);
    body
}

fn merge(body: &mut Value, more: Value) {
    let Value::Object(more) = more else { panic!("an object") };
    body.as_object_mut().expect("an object").extend(more);
}
