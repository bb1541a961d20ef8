//! A server of this machine that answers as a test says.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::task::TaskTracker;

/// What was asked for.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Asked {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A running server; it ends with the test's runtime.
pub(super) struct Loopback {
    /// `127.0.0.1:port`
    pub(super) host: String,
    seen: Arc<Mutex<Vec<Asked>>>,
}

impl Loopback {
    pub(super) async fn start(answer: impl Fn(&Asked) -> Response + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        Self::serve(listener, host, answer)
    }

    /// The same over TLS, with the certificate of the tests' authority; `clients` have to show one too.
    pub(super) async fn start_tls(
        clients: bool,
        answer: impl Fn(&Asked) -> Response + Send + Sync + 'static,
    ) -> Self {
        crate::outgoing::use_ring();
        let certificates =
            |name| CertificateDer::pem_slice_iter(&pem(name)).map(Result::unwrap).collect();
        let config = rustls::ServerConfig::builder();
        let config = if clients {
            let authorities: Vec<_> = certificates("authority.pem");
            let mut roots = rustls::RootCertStore::empty();
            roots.add_parsable_certificates(authorities);
            let verifier = WebPkiClientVerifier::builder(roots.into()).build().unwrap();
            config.with_client_cert_verifier(verifier)
        } else {
            config.with_no_client_auth()
        };
        let key = PrivateKeyDer::from_pem_slice(&pem("server.key")).unwrap();
        let config = config.with_single_cert(certificates("server.pem"), key).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = tcp.local_addr().unwrap().to_string();
        Self::serve(Tls { tcp, acceptor: TlsAcceptor::from(Arc::new(config)) }, host, answer)
    }

    fn serve<L>(
        listener: L,
        host: String,
        answer: impl Fn(&Asked) -> Response + Send + Sync + 'static,
    ) -> Self
    where
        L: Listener,
        L::Addr: std::fmt::Debug,
    {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&seen), Arc::new(answer));
        let app = axum::Router::new().fallback(move |request: Request| {
            let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
            async move {
                let (parts, body) = request.into_parts();
                let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
                let asked = Asked {
                    method: parts.method,
                    path: parts.uri.path().to_owned(),
                    query: parts.uri.query().unwrap_or_default().to_owned(),
                    headers: parts.headers,
                    body,
                };
                log.lock().unwrap().push(asked.clone());
                answer(&asked)
            }
        });
        TaskTracker::new().spawn(async move { axum::serve(listener, app).await });
        Self { host, seen }
    }

    /// Requests whose path contains a text.
    pub(super) fn seen(&self, part: &str) -> Vec<Asked> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|asked| asked.path.contains(part)).cloned().collect()
    }
}

/// A certificate or a key of the tests.
pub(super) fn pem(name: &str) -> Vec<u8> {
    std::fs::read(pem_path(name)).unwrap()
}

/// Where it is.
pub(super) fn pem_path(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls")).join(name)
}

/// Connections of clients that trust our authority.
struct Tls {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            if let Ok((tcp, address)) = self.tcp.accept().await
                && let Ok(stream) = self.acceptor.accept(tcp).await
            {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

pub(super) fn status(code: u16) -> Response {
    StatusCode::from_u16(code).unwrap().into_response()
}

/// The content, or the rest of it that was asked for.
pub(super) fn ranged(asked: &Asked, content: &[u8]) -> Response {
    let Some(range) = asked.header("range") else { return content.to_vec().into_response() };
    let start: usize = range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
    if start >= content.len() {
        return status(416);
    }
    let range = format!("bytes {start}-{}/{}", content.len() - 1, content.len());
    (StatusCode::PARTIAL_CONTENT, [("content-range", range)], content[start..].to_vec())
        .into_response()
}

/// Announces the content and sends its first bytes only.
pub(super) fn cut(content: &[u8], length: usize) -> Response {
    let sent = Bytes::copy_from_slice(&content[..length]);
    let rest = async {
        // What was sent leaves while nothing follows.
        tokio::task::yield_now().await;
        Err(std::io::Error::other("cut"))
    };
    let parts = stream::iter([Ok(sent)]).chain(stream::once(rest));
    let announced = [("content-length", content.len().to_string())];
    (announced, Body::from_stream(parts)).into_response()
}
