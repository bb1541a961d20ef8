//! Around every request: its id, its key, its place among the requests in flight, its record.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use crate::admission::{RequestContext, authorize};
use crate::app::App;
use crate::error::Rejection;
use crate::metrics::Exchange;

/// Status recorded when the client left before an answer.
const CLIENT_CLOSED: u16 = 499;

/// Paths that are neither counted nor logged.
fn is_probe(path: &str) -> bool {
    path.starts_with("/health")
        || path.starts_with("/v2/health/")
        || matches!(path, "/metrics" | "/load" | "/ping" | "/version")
}

/// The middleware.
pub(crate) async fn track(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    let context = RequestContext::new(request.headers());
    let mut record = Record::new(&app, &request, &context);
    let id = context.id.clone();
    request.extensions_mut().insert(context);
    let allowed = authorize(&app, request.method(), request.uri().path(), request.headers());
    let mut response = match allowed {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    if app.config.request_id_headers
        && !response.headers().contains_key("x-request-id")
        && let Ok(value) = HeaderValue::from_str(&id)
    {
        response.headers_mut().insert("x-request-id", value);
    }
    record.status = response.status().as_u16();
    if let Some(Rejection(cause)) = response.extensions().get() {
        app.metrics.reject(*cause, record.status);
    }
    response.map(|body| Body::new(Tracked { body, record }))
}

/// One request from its head to the end of its answer; recorded on drop.
struct Record {
    app: Arc<App>,
    /// `None` where no route matched.
    handler: Option<MatchedPath>,
    method: Method,
    uri: Uri,
    id: String,
    started: std::time::Instant,
    status: u16,
    request_bytes: u64,
    response_bytes: u64,
    probe: bool,
}

impl Record {
    fn new(app: &Arc<App>, request: &Request, context: &RequestContext) -> Self {
        let path = request.uri().path();
        let probe = is_probe(path);
        if !probe {
            app.enter();
        }
        let length = request.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
        Self {
            app: Arc::clone(app),
            handler: request.extensions().get().cloned(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            id: context.id.clone(),
            started: context.arrival,
            status: CLIENT_CLOSED,
            request_bytes: length.unwrap_or(0),
            response_bytes: 0,
            probe,
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.probe {
            return;
        }
        self.app.leave();
        let duration = self.started.elapsed();
        self.app.metrics.http.record(Exchange {
            handler: self.handler.as_ref().map_or("none", MatchedPath::as_str),
            method: self.method.as_str(),
            status: self.status,
            duration,
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
        });
        let config = &self.app.config;
        if config.access_log && !config.unlogged.iter().any(|path| path == self.uri.path()) {
            let Self { method, uri, status, id, response_bytes, .. } = self;
            let path = uri.path();
            let ms = duration.as_secs_f64() * 1e3;
            tracing::info!(target: "access", %method, %path, status, %id, response_bytes, ms, "request");
        }
    }
}

/// A body that records the request when it ends or is dropped.
struct Tracked {
    body: Body,
    record: Record,
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.record.response_bytes += data.len() as u64;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}
