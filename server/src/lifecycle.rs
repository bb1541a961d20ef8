//! From an open port to a clean end: accept, signals, drain. SIGHUP reads keys and certificates again.
//!
//! The first signal turns readiness off, closes the port and lets running requests finish; at the drain
//! timeout they end with an error. A second signal ends the wait at once.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::app::{App, router};
use crate::kserve;
use crate::tls::{Inside, Tls};

/// Smallest buffer hyper accepts for the head of a request.
const MIN_HEADER_BYTES: usize = 8192;
/// How long connections may take to send the last event after the drain timeout.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How often TLS files are looked at where that was asked for.
const REFRESH: Duration = Duration::from_secs(10);
/// How often the engines are looked at.
const WATCH: Duration = Duration::from_millis(500);

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// After a signal, every request was answered: exit code 0.
    Drained,
    /// After a signal, the timeout ended requests early: exit code 0.
    TimedOut,
    /// A second signal came: exit at once.
    Forced,
    /// An engine died: exit code not 0.
    EngineLost,
}

/// Opens the port of the settings.
///
/// # Errors
/// When the address is taken or malformed; the message names it.
pub async fn bind(app: &App) -> io::Result<TcpListener> {
    let (host, port) = (app.config().host.as_str(), app.config().port);
    TcpListener::bind((host, port)).await.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {host}:{port}: {error}"))
    })
}

/// SIGTERM and SIGINT, one message each.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn signals() -> io::Result<mpsc::Receiver<()>> {
    let (sender, receiver) = mpsc::channel(4);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                got = terminate.recv() => if got.is_none() { return },
                got = interrupt.recv() => if got.is_none() { return },
            }
            if sender.send(()).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

/// Serves HTTP, and gRPC where there is a listener for it, until the first message of `stop` (or until an engine dies), then drains.
pub async fn serve(
    app: Arc<App>,
    listener: TcpListener,
    grpc: Option<TcpListener>,
    mut stop: mpsc::Receiver<()>,
) -> Outcome {
    let tracker = TaskTracker::new();
    let closing = CancellationToken::new();
    // Before gRPC's health service asks for the first time.
    app.set_ready();
    if let Some(grpc) = grpc {
        tracker.spawn(kserve::grpc::serve(Arc::clone(&app), grpc, closing.clone()));
    }
    let routes = router(Arc::clone(&app));
    let _reloads = reload_on_hangup(&app);
    let lost = tokio::select! {
        () = accept(&app, &listener, &routes, &tracker, &closing) => false,
        _ = stop.recv() => false,
        () = engine_death(&app) => true,
    };
    // Not ready, but still serving: until load balancers notice, their requests are answered.
    app.clear_ready();
    let grace = app.config().drain_grace;
    if !lost && !grace.is_zero() {
        tokio::select! {
            () = accept(&app, &listener, &routes, &tracker, &closing) => {}
            () = sleep(grace) => {}
            _ = stop.recv() => return Outcome::Forced,
        }
    }
    app.start_draining();
    tracing::info!(in_flight = app.in_flight(), "draining");
    drop(listener);
    closing.cancel();
    tracker.close();
    let outcome = tokio::select! {
        outcome = drain(&app, &tracker) => outcome,
        Some(()) = stop.recv() => Outcome::Forced,
    };
    for (_, model) in app.registry().generatives() {
        model.engine.drain();
    }
    if lost { Outcome::EngineLost } else { outcome }
}

/// Reads keys and certificates again on SIGHUP, and certificates that changed where that was asked for; until
/// the handle is dropped.
fn reload_on_hangup(app: &Arc<App>) -> AbortOnDropHandle<()> {
    let hangup = signal(SignalKind::hangup());
    let app = Arc::clone(app);
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut hangup = match hangup {
            Ok(hangup) => hangup,
            Err(error) => return tracing::warn!(%error, "SIGHUP is not handled"),
        };
        loop {
            tokio::select! {
                got = hangup.recv() => if got.is_none() { return },
                () = sleep(REFRESH) => {
                    if !app.config().tls.as_ref().is_some_and(Tls::is_stale) {
                        continue;
                    }
                }
            }
            app.reload();
        }
    }))
}

async fn drain(app: &App, tracker: &TaskTracker) -> Outcome {
    if timeout(app.config().drain_timeout, tracker.wait()).await.is_ok() {
        return Outcome::Drained;
    }
    tracing::warn!(in_flight = app.in_flight(), "drain timeout: ending the remaining requests");
    app.abort_requests();
    if timeout(LAST_WORDS, tracker.wait()).await.is_err() {
        tracing::warn!("connections that do not read are dropped");
    }
    Outcome::TimedOut
}

async fn engine_death(app: &App) {
    while app.registry().is_alive() {
        sleep(WATCH).await;
    }
    tracing::error!("an engine died, the server stops");
}

async fn accept(
    app: &Arc<App>,
    listener: &TcpListener,
    routes: &Router,
    tracker: &TaskTracker,
    closing: &CancellationToken,
) {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                let connection =
                    connection(Arc::clone(app), socket, routes.clone(), closing.clone());
                tracker.spawn(connection);
            }
            Err(error) => {
                // Out of descriptors, or a connection that was gone already: both pass.
                tracing::warn!(%error, "accept failed");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(app: Arc<App>, socket: TcpStream, routes: Router, closing: CancellationToken) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "cannot turn Nagle's algorithm off");
    }
    let socket = TimedStream::new(socket, app.config().write_timeout);
    let Some(tls) = &app.config().tls else {
        return exchange(&app, socket, routes, closing).await;
    };
    let secured = tokio::select! {
        secured = tls.accept(Inside::Http, socket) => secured,
        () = closing.cancelled() => return,
    };
    match secured {
        Ok(socket) => exchange(&app, socket, routes, closing).await,
        Err(error) => tracing::debug!(%error, "no TLS connection"),
    }
}

/// Answers the requests of one connection.
async fn exchange<S>(app: &App, socket: S, routes: Router, closing: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let config = app.config();
    let io = TokioIo::new(socket);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.keep_alive_timeout)
        .max_headers(config.max_headers)
        .max_buf_size(config.max_header_bytes.max(MIN_HEADER_BYTES))
        .serve_connection(io, TowerToHyperService::new(routes));
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
    }
}

/// A socket whose writes fail when the peer reads nothing for a while.
struct TimedStream {
    socket: TcpStream,
    limit: Duration,
    /// Armed while a write waits.
    stalled: Pin<Box<Sleep>>,
    waiting: bool,
}

impl TimedStream {
    fn new(socket: TcpStream, limit: Duration) -> Self {
        Self { socket, limit, stalled: Box::pin(sleep(limit)), waiting: false }
    }

    fn timed<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = false;
            return written;
        }
        if !self.waiting {
            self.waiting = true;
            self.stalled.as_mut().reset(Instant::now() + self.limit);
        }
        ready!(self.stalled.as_mut().poll(context));
        let message = format!("the client read nothing for {:?}", self.limit);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, message)))
    }
}

impl AsyncRead for TimedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl AsyncWrite for TimedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.timed(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(context, slices);
        self.timed(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
