//! Server-sent events: framing into a reused buffer, keep-alive comments, the end of a stream.
//!
//! A stream of the OpenAI dialect ends with `data: [DONE]`, also after an error event. A client that reads slowly is not
//! waited for: the next chunk is made when the socket has room, from everything that came meanwhile.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde_json::Value;

use crate::app::App;
use crate::body::write_json;
use crate::error::ApiError;

/// What makes the events of one answer.
pub(crate) trait Events: Send + 'static {
    /// The stream ends with `[DONE]`.
    const DONE: bool = true;

    /// The last event of a request that fails.
    fn failure(error: &ApiError) -> Value {
        error.body()
    }

    /// Writes at least one event, or returns `false` at the end. May be dropped at any wait and called
    /// again.
    ///
    /// # Errors
    /// When the request fails; the error becomes the last event.
    fn next(&mut self, frames: &mut Frames) -> impl Future<Output = Result<bool, ApiError>> + Send;

    /// The server stops now.
    fn cancel_for_drain(&mut self);
}

/// Events that are not yet handed to the socket.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    buffer: BytesMut,
}

impl Frames {
    /// One event.
    pub(crate) fn event(&mut self, value: &impl Serialize) {
        self.buffer.extend_from_slice(b"data: ");
        write_json(&mut self.buffer, value);
        self.buffer.extend_from_slice(b"\n\n");
    }

    /// Whether there is nothing to send.
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    fn done(&mut self) {
        self.buffer.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn keep_alive(&mut self) {
        self.buffer.extend_from_slice(b": keep-alive\n\n");
    }

    /// Takes the bytes out; the allocation is used again once the socket has let go of them.
    fn take(&mut self) -> Bytes {
        self.buffer.split().freeze()
    }
}

struct Stream<E> {
    app: Arc<App>,
    events: E,
    frames: Frames,
    ended: bool,
}

impl<E: Events> Stream<E> {
    async fn step(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        if self.ended {
            return None;
        }
        let keep_alive = self.app.config.sse_keep_alive;
        tokio::select! {
            biased;
            () = self.app.abort.cancelled() => {
                self.events.cancel_for_drain();
                self.fail(&ApiError::draining());
            }
            result = self.events.next(&mut self.frames) => match result {
                Ok(true) => {}
                Ok(false) => self.end(),
                Err(error) => {
                    error.log();
                    self.app.metrics.reject(error.cause(), error.status().as_u16());
                    self.fail(&error);
                }
            },
            () = tokio::time::sleep(keep_alive) => self.frames.keep_alive(),
        }
        Some((Ok(self.frames.take()), self))
    }

    fn fail(&mut self, error: &ApiError) {
        self.frames.event(&E::failure(error));
        self.end();
    }

    fn end(&mut self) {
        if E::DONE {
            self.frames.done();
        }
        self.ended = true;
    }
}

/// The answer that carries `events`.
pub(crate) fn respond(app: Arc<App>, events: impl Events) -> Response {
    let stream = Stream { app, events, frames: Frames::default(), ended: false };
    let body = Body::from_stream(futures_util::stream::unfold(stream, Stream::step));
    let headers = [
        (header::CONTENT_TYPE.as_str(), "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL.as_str(), "no-cache"),
        ("x-accel-buffering", "no"),
    ];
    (headers, body).into_response()
}
