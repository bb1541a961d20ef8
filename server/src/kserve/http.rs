//! Routes of V1 and V2 on the HTTP port.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Extension, Path, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Json, Router};
use bytes::Bytes;
use serde_json::{Value, json};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};
use tower_http::decompression::RequestDecompressionLayer;

use super::cloudevents::Event;
use super::failure::{Failure, FailureKind};
use super::infer::{self, Plan};
use super::statistics::Watch;
use super::{Predictive, Unserved, generate, metadata, repository, strict, v1, v2};
use crate::admission::RequestContext;
use crate::app::App;
use crate::body;
use crate::error::{ApiError, Rejection};
use crate::openai;
use crate::registry::Served;

/// Answers that are smaller are not compressed.
const COMPRESSED_ABOVE: u64 = 1024;

/// Every route, with compressed bodies in and, where the client asks, out.
pub(crate) fn routes() -> Router<Arc<App>> {
    let compression = CompressionLayer::new()
        .quality(CompressionLevel::Fastest)
        .compress_when(SizeAbove::new(COMPRESSED_ABOVE).and(NotForContentType::SSE));
    Router::new()
        .route("/", any(root))
        .route("/v1/models/{*rest}", any(v1_models))
        .route("/v2", any(v2_root))
        .route("/v2/", any(v2_root))
        .route("/v2/{*rest}", any(v2_rest))
        .layer((RequestDecompressionLayer::new(), compression))
}

/// What every handler needs; boxed, because it is handed through several futures and each keeps a place for it.
pub(super) struct Call {
    pub(super) app: Arc<App>,
    pub(super) context: RequestContext,
    method: Method,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Call {
    /// Runs a request to its answer; failures become KServe's bodies. The whole body is read first: a connection whose
    /// request was refused half-read could not be used again, and its client would see it cut.
    async fn answer(
        app: Arc<App>,
        context: RequestContext,
        request: Request,
        dispatch: impl AsyncFnOnce(Box<Self>) -> Outcome,
    ) -> Response {
        let strict = app.config.kserve.strict;
        let (parts, body) = request.into_parts();
        let (method, uri, headers) = (parts.method, parts.uri, parts.headers);
        let body = match body::read(body, &headers, app.config.body_limit).await {
            Ok(body) => body,
            Err(error) => return failed(&error.into(), strict),
        };
        if let Some(shorter) = uri.path().strip_suffix('/').filter(|shorter| !shorter.is_empty()) {
            return moved(shorter, uri.query());
        }
        let call = Box::new(Self { app, context, method, headers, body });
        match dispatch(call).await {
            Ok(response) => response,
            Err(failure) => failed(&failure, strict),
        }
    }

    /// Only `allowed` is answered.
    pub(super) fn only(&self, allowed: &Method) -> Result<(), Failure> {
        if self.method == *allowed {
            return Ok(());
        }
        let mut failure =
            Failure::detail(StatusCode::METHOD_NOT_ALLOWED, json!("Method Not Allowed"));
        failure.text = allowed.to_string();
        Err(failure)
    }
}

pub(super) type Outcome = Result<Response, Failure>;

/// The answer to a failed request.
pub(super) fn failed(failure: &Failure, strict: bool) -> Response {
    let status = failure.status(strict);
    let body = match &failure.detail {
        Some(detail) => json!({ "detail": detail }),
        None => json!({ "error": failure.text }),
    };
    if status.is_server_error() {
        tracing::warn!(status = status.as_u16(), text = %failure.text, "request failed");
    }
    let mut response = (status, Json(body)).into_response();
    response.extensions_mut().insert(Rejection(failure.cause()));
    if status == StatusCode::METHOD_NOT_ALLOWED
        && let Ok(allowed) = failure.text.parse()
    {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    if matches!(failure.kind, FailureKind::Overloaded | FailureKind::NotReady) {
        response.headers_mut().insert(header::RETRY_AFTER, 1.into());
    }
    response
}

pub(super) fn not_found() -> Failure {
    Failure::detail(StatusCode::NOT_FOUND, json!("Not Found"))
}

/// 307 to the path without its slash.
fn moved(path: &str, query: Option<&str>) -> Response {
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let target = format!("/{}{query}", path.trim_start_matches('/'));
    (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, target)]).into_response()
}

/// The deadline of the head of a request, or the server's.
pub(super) fn deadline(app: &App, context: &RequestContext) -> Result<Option<Instant>, Failure> {
    let timeout = context.timeout(None, app.config.request_timeout)?;
    Ok(timeout.and_then(|timeout| context.arrival.checked_add(timeout)))
}

pub(super) fn json(value: &Value) -> Outcome {
    Ok(body::json(value))
}

/// The answer to an unknown path: KServe's where no language model is served, else `None`.
pub(crate) fn fallback(app: &App, path: &str) -> Option<Response> {
    if !app.registry.generatives().is_empty() {
        return None;
    }
    Some(match path.strip_suffix('/').filter(|shorter| !shorter.is_empty()) {
        Some(shorter) => moved(shorter, None),
        None => failed(&not_found(), false),
    })
}

async fn root(
    State(app): State<Arc<App>>,
    Extension(context): Extension<RequestContext>,
    request: Request,
) -> Response {
    let dispatch = async |call: Box<Call>| {
        call.only(&Method::GET)?;
        json(&json!({"status": "alive"}))
    };
    Call::answer(app, context, request, dispatch).await
}

async fn v2_root(
    State(app): State<Arc<App>>,
    Extension(context): Extension<RequestContext>,
    request: Request,
) -> Response {
    let dispatch = async |call: Box<Call>| {
        call.only(&Method::GET)?;
        json(&metadata::server(call.app.config.kserve.strict))
    };
    Call::answer(app, context, request, dispatch).await
}

/// `/v1/models/M` and `/v1/models/M:predict`; M may hold slashes.
async fn v1_models(
    State(app): State<Arc<App>>,
    Extension(context): Extension<RequestContext>,
    Path(rest): Path<String>,
    request: Request,
) -> Response {
    let generative = !app.registry.generatives().is_empty();
    let predictive = app.registry.repository().knows(&rest);
    let verb = rest.rsplit_once(':').filter(|(_, verb)| matches!(*verb, "predict" | "explain"));
    if request.method() == Method::GET && generative && !predictive {
        return openai::models::retrieve(State(app), Path(rest)).await.into_response();
    }
    if generative && !predictive && verb.is_none() {
        let (method, path) = (request.method().as_str(), request.uri().path());
        return ApiError::method_not_allowed(method, path).into_response();
    }
    Call::answer(app, context, request, async |call| v1_dispatch(call, &rest).await).await
}

async fn v1_dispatch(call: Box<Call>, rest: &str) -> Outcome {
    if call.method == Method::GET {
        let name = rest;
        ready(&call.app.registry.find(name)?, name)?;
        return json(&json!({"name": name, "ready": true}));
    }
    match rest.rsplit_once(':') {
        Some((name, "predict")) if call.method == Method::POST => predict(call, name).await,
        Some((name, "explain")) if call.method == Method::POST => {
            call.app.registry.predictive(name, None)?;
            let text = "Could not find explainer_host.";
            Err(Failure::new(FailureKind::Unimplemented, text))
        }
        Some((_, "predict" | "explain")) => {
            Err(call.only(&Method::POST).err().unwrap_or_else(not_found))
        }
        _ => Err(call.only(&Method::GET).err().unwrap_or_else(not_found)),
    }
}

/// Whether a served model can answer.
fn ready(served: &Served, name: &str) -> Result<(), Failure> {
    let alive = match served {
        Served::Generative(model) => model.engine.is_alive(),
        Served::Predictive(_) => true,
    };
    if alive { Ok(()) } else { Err(Unserved::NotReady(name.to_owned()).into()) }
}

/// `POST /v1/models/M:predict`.
async fn predict(call: Box<Call>, name: &str) -> Outcome {
    let Call { app, context, headers, body, .. } = *call;
    let model = app.registry.predictive(name, None)?;
    let mut watch = Watch::start(&model.statistics);
    let (event, body) = Event::read(&headers, body)?;
    let loaded = Arc::clone(model.handle.model());
    let strict = app.config.kserve.strict;
    if strict && event.is_none() {
        strict::check_media(&headers)?;
    }
    let mut plan = Plan::from(v1::parse(loaded.as_ref(), &body, strict)?);
    if strict {
        strict::check_columns(loaded.as_ref(), &mut plan.request)?;
    }
    let deadline = deadline(&app, &context)?;
    let outputs = infer::run(&model, plan, deadline, &mut watch).await?;
    let body = v1::encode(loaded.as_ref(), &outputs);
    watch.finish();
    Ok(match event {
        Some(event) => event.answer(&app.config.kserve.cloud_events, name, body),
        None => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
    })
}

async fn v2_rest(
    State(app): State<Arc<App>>,
    Extension(context): Extension<RequestContext>,
    Path(rest): Path<String>,
    request: Request,
) -> Response {
    Call::answer(app, context, request, async |call| v2_dispatch(call, &rest).await).await
}

async fn v2_dispatch(call: Box<Call>, rest: &str) -> Outcome {
    let strict = call.app.config.kserve.strict;
    if let Some(rest) = rest.strip_prefix("repository/") {
        return match strict && rest == "index" {
            true => Err(not_found()),
            false => repository::dispatch(call, rest).await,
        };
    }
    if let Some(model) = rest.strip_prefix("models/") {
        let path = ModelPath::parse(model);
        let answered = matches!(path.verb, Verb::Metadata | Verb::Ready | Verb::Infer);
        return match strict && !answered {
            true => Err(not_found()),
            false => v2_model(call, path).await,
        };
    }
    let app = &call.app;
    let health = |name: &str, good: bool| {
        let mut response = body::json(&json!({ name: good }));
        if !good {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        Ok(response)
    };
    match rest {
        "health/live" | "health/ready" | "models" | "models/stats" => call.only(&Method::GET)?,
        _ => return Err(not_found()),
    }
    match rest {
        "health/live" => health("live", app.registry.is_alive()),
        "health/ready" => health("ready", app.is_ready()),
        _ => json(&json!({"models": metadata::names(app)})),
    }
}

/// What is asked of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Metadata,
    Ready,
    Infer,
    Stats,
    Config,
    Generate,
    GenerateStream,
}

/// `M[/versions/V][/verb]`; M may hold slashes.
#[derive(Debug, PartialEq, Eq)]
struct ModelPath<'a> {
    name: &'a str,
    version: Option<&'a str>,
    verb: Verb,
}

impl<'a> ModelPath<'a> {
    fn parse(path: &'a str) -> Self {
        let verbs = [
            ("/ready", Verb::Ready),
            ("/infer", Verb::Infer),
            ("/stats", Verb::Stats),
            ("/config", Verb::Config),
            ("/generate", Verb::Generate),
            ("/generate_stream", Verb::GenerateStream),
        ];
        let found = verbs.iter().find_map(|(end, verb)| Some((path.strip_suffix(end)?, *verb)));
        let (path, verb) = found.unwrap_or((path, Verb::Metadata));
        match path.rsplit_once("/versions/").filter(|(_, version)| !version.contains('/')) {
            Some((name, version)) => Self { name, version: Some(version), verb },
            None => Self { name: path, version: None, verb },
        }
    }
}

async fn v2_model(call: Box<Call>, path: ModelPath<'_>) -> Outcome {
    let asks = matches!(path.verb, Verb::Infer | Verb::Generate | Verb::GenerateStream);
    call.only(if asks { &Method::POST } else { &Method::GET })?;
    if matches!(path.verb, Verb::Generate | Verb::GenerateStream) {
        let streamed = path.verb == Verb::GenerateStream;
        let answer = generate::generate(call, path.name, path.version, streamed);
        // Its future is large, and those of classic models should not be.
        return Box::pin(answer).await;
    }
    let app = Arc::clone(&call.app);
    let all = path.name == "stats" && path.verb == Verb::Metadata;
    if all && !app.config.kserve.strict && app.registry.find("stats").is_err() {
        return json(&statistics(&app.registry.repository().ready()));
    }
    let served = app.registry.find(path.name)?;
    let model = match &served {
        Served::Generative(_) if matches!(path.verb, Verb::Metadata | Verb::Ready) => None,
        _ => Some(versioned(&app, &path)?),
    };
    match (path.verb, model) {
        (Verb::Infer, Some(model)) => infer(call, &model).await,
        (Verb::Stats, Some(model)) => json(&statistics(&[model])),
        (Verb::Config, Some(model)) => json(&metadata::config(&model)),
        (Verb::Metadata, model) => json(&metadata::model(&app, path.name, model.as_deref())),
        (_, _) => {
            ready(&served, path.name)?;
            json(&json!({"name": path.name, "ready": true}))
        }
    }
}

/// The model of a path; a version of a model without versions is KServe's 501.
fn versioned(app: &App, path: &ModelPath<'_>) -> Result<Arc<Predictive>, Failure> {
    let model = app.registry.predictive(path.name, None)?;
    match path.version {
        None => Ok(model),
        Some(_) if model.version.is_none() => {
            let text = "Model versioning not supported yet.";
            Err(Failure::new(FailureKind::Unimplemented, text))
        }
        version => Ok(app.registry.predictive(path.name, version)?),
    }
}

fn statistics(models: &[Arc<Predictive>]) -> Value {
    let one = |model: &Arc<Predictive>| {
        model.statistics.json(&model.name, model.version.as_deref(), model.bytes)
    };
    json!({"model_stats": models.iter().map(one).collect::<Vec<_>>()})
}

async fn infer(call: Box<Call>, model: &Arc<Predictive>) -> Outcome {
    let Call { app, context, headers, body, .. } = *call;
    v2::infer(&app, model, &context, &headers, body).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_models_are_taken_apart() {
        let path = |name, version, verb| ModelPath { name, version, verb };
        for (text, want) in [
            ("m", path("m", None, Verb::Metadata)),
            ("m/infer", path("m", None, Verb::Infer)),
            ("a/b/versions/3/ready", path("a/b", Some("3"), Verb::Ready)),
            ("m/versions/1", path("m", Some("1"), Verb::Metadata)),
            ("versions/1/config", path("versions/1", None, Verb::Config)),
            ("m/generate", path("m", None, Verb::Generate)),
            ("a/b/versions/1/generate_stream", path("a/b", Some("1"), Verb::GenerateStream)),
        ] {
            assert_eq!(ModelPath::parse(text), want, "{text}");
        }
    }
}
