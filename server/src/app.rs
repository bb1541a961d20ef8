//! The state behind every route, the settings, and the routes themselves.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Release,
};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer};

use crate::admission::Queue;
use crate::error::ApiError;
use crate::keys::{KeyFile, Keys};
use crate::kserve::KserveConfig;
use crate::metrics::ServerMetrics;
use crate::registry::Registry;
use crate::tls::Tls;
use crate::{kserve, openai, openapi, probes, track};

/// Which browsers' pages may call the server. Closed when `origins` is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CorsConfig {
    /// Origins; `*` allows all.
    pub origins: Vec<String>,
    /// Methods; empty or `*` allows all.
    pub methods: Vec<String>,
    /// Request headers; empty or `*` allows all.
    pub headers: Vec<String>,
    /// Whether cookies and the like may be sent.
    pub credentials: bool,
}

/// Settings of the HTTP server; the command line fills them.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Address to listen on.
    pub host: String,
    /// Port; 0 lets the system choose.
    pub port: u16,
    /// Keys that open the routes; none, and no file, leaves them open.
    pub api_keys: Vec<String>,
    /// A file with more of them.
    pub api_key_file: Option<KeyFile>,
    /// Keys that open every route, and alone those that load and unload models; none leaves these as the others.
    pub admin_keys: Vec<String>,
    /// Certificates of the listeners; clear text without.
    pub tls: Option<Tls>,
    /// Whether `/metrics` needs a key too.
    pub metrics_need_key: bool,
    /// Browsers.
    pub cors: CorsConfig,
    /// Largest body in bytes.
    pub body_limit: usize,
    /// Largest head of a request in bytes (at least 8192).
    pub max_header_bytes: usize,
    /// Most header lines of a request.
    pub max_headers: usize,
    /// Prefixes under which the OpenAI routes are mounted besides `/v1` (`/openai` gives `/openai/v1`).
    pub prefixes: Vec<String>,
    /// Path under which a proxy publishes the server, for `/openapi.json`.
    pub root_path: String,
    /// Comments are sent on an idle stream after this time.
    pub sse_keep_alive: Duration,
    /// Idle connections are closed after this time; also the time a request's head may take.
    pub keep_alive_timeout: Duration,
    /// A connection whose client reads nothing for this time is closed.
    pub write_timeout: Duration,
    /// Deadline of requests that name none.
    pub request_timeout: Option<Duration>,
    /// Sequences in flight; more are answered with 503.
    pub max_queued_requests: Option<u64>,
    /// Prompt tokens waiting for prefill; more are answered with 503.
    pub max_queued_tokens: Option<u64>,
    /// After a signal, requests are still accepted for this time while readiness is already off.
    pub drain_grace: Duration,
    /// After it, running requests are ended.
    pub drain_timeout: Duration,
    /// Log-probabilities print tokens as `token_id:N` unless the request says otherwise.
    pub return_tokens_as_token_ids: bool,
    /// Largest number of log-probabilities per token; `None` allows the whole vocabulary.
    pub max_logprobs: Option<u32>,
    /// Role of chat answers.
    pub response_role: String,
    /// Variables for chat templates; a request's own win.
    pub chat_template_kwargs: Map<String, Value>,
    /// Whether requests may bring their own chat template.
    pub trust_request_chat_template: bool,
    /// Caps completions whose request names no length.
    pub default_max_tokens: Option<u32>,
    /// Streams always carry usage.
    pub force_include_usage: bool,
    /// Unknown parameters are refused instead of named in a header.
    pub strict_params: bool,
    /// Answers carry `X-Request-Id`.
    pub request_id_headers: bool,
    /// `/docs` and `/openapi.json` are served.
    pub docs: bool,
    /// `/tokenizer_info` is served (it shows the chat template).
    pub tokenizer_info: bool,
    /// Requests are logged.
    pub access_log: bool,
    /// Paths whose requests are not logged.
    pub unlogged: Vec<String>,
    /// The protocols of classic models.
    pub kserve: KserveConfig,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            host: "0.0.0.0".into(),
            port: 8000,
            api_keys: Vec::new(),
            api_key_file: None,
            admin_keys: Vec::new(),
            tls: None,
            metrics_need_key: false,
            cors: CorsConfig::default(),
            body_limit: 64 << 20,
            max_header_bytes: 64 << 10,
            max_headers: 256,
            prefixes: vec!["/openai".into()],
            root_path: String::new(),
            sse_keep_alive: Duration::from_secs(15),
            keep_alive_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(60),
            request_timeout: None,
            max_queued_requests: None,
            max_queued_tokens: None,
            drain_grace: Duration::ZERO,
            drain_timeout: Duration::from_secs(30),
            return_tokens_as_token_ids: false,
            max_logprobs: Some(20),
            response_role: "assistant".into(),
            chat_template_kwargs: Map::new(),
            trust_request_chat_template: false,
            default_max_tokens: None,
            force_include_usage: false,
            strict_params: false,
            request_id_headers: true,
            docs: true,
            tokenizer_info: false,
            access_log: true,
            unlogged: Vec::new(),
            kserve: KserveConfig::default(),
        }
    }
}

/// The state behind every route.
pub struct App {
    pub(crate) config: ServerConfig,
    pub(crate) registry: Registry,
    pub(crate) metrics: ServerMetrics,
    pub(crate) queue: Queue,
    pub(crate) keys: Keys,
    /// Ends every request at once.
    pub(crate) abort: CancellationToken,
    in_flight: AtomicU64,
    draining: AtomicBool,
    ready: AtomicBool,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("config", &self.config).finish_non_exhaustive()
    }
}

impl App {
    /// A server over `registry`, not ready yet.
    pub fn new(config: ServerConfig, registry: Registry) -> Arc<Self> {
        Arc::new(Self {
            keys: Keys::new(&config),
            config,
            registry,
            metrics: ServerMetrics::default(),
            queue: Queue::default(),
            abort: CancellationToken::new(),
            in_flight: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            ready: AtomicBool::new(false),
        })
    }

    /// The settings.
    pub fn config(&self) -> &ServerConfig {
        &self.config
    }

    /// The models.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Says that the models can answer.
    pub fn set_ready(&self) {
        self.ready.store(true, Release);
    }

    /// Tells load balancers to send nothing more; requests that come are still served.
    pub fn clear_ready(&self) {
        self.ready.store(false, Release);
    }

    /// Whether new requests are welcome and a model is there to answer them (KServe's servers are ready without one).
    pub fn is_ready(&self) -> bool {
        self.ready.load(Acquire)
            && !self.is_draining()
            && self.registry.is_alive()
            && (self.config.kserve.strict || self.registry.has_ready())
    }

    /// Refuses new requests from now on; running ones go on.
    pub fn start_draining(&self) {
        self.draining.store(true, Release);
    }

    /// Whether new requests are refused.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Acquire)
    }

    /// Ends running requests with an error.
    pub fn abort_requests(&self) {
        self.abort.cancel();
    }

    /// Reads the files of keys and certificates again; what cannot be used is said, and changes nothing.
    pub fn reload(&self) {
        match self.keys.reload() {
            Some(Ok(keys)) => tracing::info!(keys, "the file of API keys was read again"),
            Some(Err(error)) => tracing::error!(%error, "the file of API keys stays as it was"),
            None => {}
        }
        match self.config.tls.as_ref().map(Tls::reload) {
            Some(Ok(())) => tracing::info!("the TLS files were read again"),
            Some(Err(error)) => tracing::error!(%error, "the TLS files stay as they were"),
            None => {}
        }
    }

    /// Requests being served, probes not counted.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Acquire)
    }

    /// Sequences of generation requests being served.
    pub fn sequences_in_flight(&self) -> u64 {
        self.queue.sequences()
    }

    pub(crate) fn enter(&self) {
        self.in_flight.fetch_add(1, AcqRel);
    }

    pub(crate) fn leave(&self) {
        self.in_flight.fetch_sub(1, AcqRel);
    }
}

fn openai_routes() -> Router<Arc<App>> {
    Router::new()
        .route("/chat/completions", post(openai::chat::chat_completions))
        .route("/completions", post(openai::completions::completions))
        .route("/models", get(openai::models::list))
}

/// Every route over `app`.
pub fn router(app: Arc<App>) -> Router {
    let config = &app.config;
    let mut router = Router::new()
        .nest("/v1", openai_routes())
        .merge(kserve::routes())
        .route("/tokenize", post(openai::tokenize::tokenize))
        .route("/detokenize", post(openai::tokenize::detokenize))
        .route("/health", get(probes::health))
        .route("/health/live", get(probes::live))
        .route("/health/ready", get(probes::ready))
        .route("/ping", get(probes::health).post(probes::health))
        .route("/version", get(probes::version))
        .route("/load", get(probes::load))
        .route("/metrics", get(probes::metrics));
    for prefix in &config.prefixes {
        let prefix = prefix.trim_matches('/');
        if !prefix.is_empty() {
            let models = get(openai::models::retrieve);
            let routes = openai_routes().route("/models/{*id}", models);
            let routes = match config.kserve.strict {
                true => routes.layer(map_response(kserve::openai::strict_failures)),
                false => routes.layer(map_response(kserve::openai::failures)),
            };
            router = router.nest(&format!("/{prefix}/v1"), routes);
        }
    }
    if config.tokenizer_info {
        router = router.route("/tokenizer_info", get(openai::tokenize::tokenizer_info));
    }
    if config.docs {
        router = router
            .route("/openapi.json", get(openapi::document))
            .route("/docs", get(openapi::page));
    }
    let router = router.method_not_allowed_fallback(method_not_allowed).fallback(path_not_found);
    // One call of `layer` for both: each boxes every route again, and a request pays for every box.
    let track = from_fn_with_state(Arc::clone(&app), track::track);
    let router = match cors(&config.cors) {
        Some(cors) => router.layer((cors, track)),
        None => router.layer(track),
    };
    router.with_state(app)
}

async fn path_not_found(State(app): State<Arc<App>>, request: Request) -> Response {
    let path = request.uri().path();
    kserve::fallback(&app, path).unwrap_or_else(|| ApiError::path_not_found(path).into_response())
}

async fn method_not_allowed(request: Request) -> ApiError {
    ApiError::method_not_allowed(request.method().as_str(), request.uri().path())
}

/// The layer for browsers. Values that are no origin, method or header name are left out with a warning;
/// credentials forbid wildcards, so "all" mirrors the request then.
fn cors(config: &CorsConfig) -> Option<CorsLayer> {
    if config.origins.is_empty() {
        return None;
    }
    let all = |values: &[String]| values.is_empty() || values.iter().any(|value| value == "*");
    let origins = if !all(&config.origins) {
        AllowOrigin::list(parsed::<HeaderValue>(&config.origins, "origin"))
    } else if config.credentials {
        AllowOrigin::mirror_request()
    } else {
        AllowOrigin::any()
    };
    let methods = if !all(&config.methods) {
        AllowMethods::list(parsed::<Method>(&config.methods, "method"))
    } else {
        AllowMethods::mirror_request()
    };
    let headers = if !all(&config.headers) {
        AllowHeaders::list(parsed::<HeaderName>(&config.headers, "header"))
    } else {
        AllowHeaders::mirror_request()
    };
    Some(
        CorsLayer::new()
            .allow_origin(origins)
            .allow_methods(methods)
            .allow_headers(headers)
            .allow_credentials(config.credentials),
    )
}

fn parsed<T: std::str::FromStr>(values: &[String], what: &str) -> Vec<T> {
    let parse = |value: &String| {
        let parsed = value.parse().ok();
        if parsed.is_none() {
            tracing::warn!(value, "not a CORS {what}, left out");
        }
        parsed
    };
    values.iter().filter_map(parse).collect()
}
