//! TLS of the listeners: certificate and key from PEM files, client certificates where they are asked for, and
//! all of it read again on request. A file that cannot be used leaves what was there before.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a client may take to agree on keys.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What becomes of a client's certificate: the numbers of Python's `ssl.CERT_NONE`, `CERT_OPTIONAL` and
/// `CERT_REQUIRED` are those of `--ssl-cert-reqs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// None is asked for.
    #[default]
    Ignored,
    /// One that is sent has to be signed by the authorities.
    Optional,
    /// There is no connection without one.
    Required,
}

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate and those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key; may be the same file.
    pub key: PathBuf,
    /// Authorities that sign clients' certificates.
    pub authorities: Option<PathBuf>,
    /// Whether clients need one.
    pub clients: ClientCertificates,
    /// Whether the files are looked at now and then, and read when they changed.
    pub refresh: bool,
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct TlsError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

impl TlsError {
    fn of(path: &Path) -> impl Fn(String) -> Self {
        let path = path.to_owned();
        move |reason| Self { path: path.clone(), reason }
    }
}

/// What is spoken inside: the name that both sides agree on (ALPN).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inside {
    Http,
    Grpc,
}

/// Certificate, key and authorities as they are at present. A clone shares them.
#[derive(Clone)]
pub struct Tls(Arc<Shared>);

struct Shared {
    files: TlsFiles,
    current: RwLock<Current>,
}

#[derive(Clone)]
struct Current {
    http: Arc<ServerConfig>,
    grpc: Arc<ServerConfig>,
    /// When the files were written, before they were read.
    written: Vec<Option<SystemTime>>,
}

/// The key stays out of logs.
impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.files.fmt(f)
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// The file that cannot be used.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let current = RwLock::new(files.read()?);
        Ok(Self(Arc::new(Shared { files, current })))
    }

    /// Reads them again; connections that are open stay as they are.
    ///
    /// # Errors
    /// The file that cannot be used; what was read before stays in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        let fresh = self.0.files.read()?;
        *self.0.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// Whether the files are to be looked at, and were written since they were read.
    pub(crate) fn is_stale(&self) -> bool {
        self.0.files.refresh && self.0.files.written() != self.current().written
    }

    fn current(&self) -> Current {
        self.0.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Agrees on keys with the client at the other end of `socket`.
    pub(crate) async fn accept<S>(&self, inside: Inside, socket: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Current { http, grpc, .. } = self.current();
        let config = match inside {
            Inside::Http => http,
            Inside::Grpc => grpc,
        };
        match timeout(HANDSHAKE, TlsAcceptor::from(config).accept(socket)).await {
            Ok(stream) => stream,
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the TLS handshake took longer than {HANDSHAKE:?}"),
            )),
        }
    }
}

impl TlsFiles {
    fn written(&self) -> Vec<Option<SystemTime>> {
        let paths = [Some(&self.certificate), Some(&self.key), self.authorities.as_ref()];
        let written =
            |path: &PathBuf| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
        paths.into_iter().flatten().map(written).collect()
    }

    fn read(&self) -> Result<Current, TlsError> {
        let written = self.written();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let wrong = TlsError::of(&self.certificate);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(error.to_string()))?;
        let builder = match (self.clients, &self.authorities) {
            (ClientCertificates::Ignored, _) => builder.with_no_client_auth(),
            (clients, Some(path)) => {
                let authorities = TlsError::of(path);
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(|error| authorities(error.to_string()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
                let verifier = match clients {
                    ClientCertificates::Optional => verifier.allow_unauthenticated(),
                    _ => verifier,
                };
                let verifier = verifier.build().map_err(|error| authorities(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
            (_, None) => {
                return Err(wrong("client certificates are asked for without authorities".into()));
            }
        };
        let key = PrivateKeyDer::from_pem_slice(&bytes(&self.key)?)
            .map_err(|error| TlsError::of(&self.key)(format!("no private key: {error}")))?;
        let config = builder
            .with_single_cert(certificates(&self.certificate)?, key)
            .map_err(|error| wrong(error.to_string()))?;
        let speaks = |name: &str| {
            let mut config = config.clone();
            config.alpn_protocols = vec![name.as_bytes().to_vec()];
            Arc::new(config)
        };
        Ok(Current { http: speaks("http/1.1"), grpc: speaks("h2"), written })
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| TlsError::of(path)(error.to_string()))
}

/// The certificates of a PEM file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = TlsError::of(path);
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes(path)?).collect();
    match read {
        Ok(certificates) if certificates.is_empty() => Err(wrong("no certificate".into())),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(wrong(format!("not PEM: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> PathBuf {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls")).join(name)
    }

    fn files(certificate: &str, key: &str, authorities: &str) -> TlsFiles {
        TlsFiles {
            certificate: file(certificate),
            key: file(key),
            authorities: Some(file(authorities)),
            clients: ClientCertificates::Required,
            refresh: false,
        }
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        for (certificate, key, authorities, at_fault, why) in [
            ("none.pem", "server.key", "authority.pem", "none.pem", "No such file"),
            ("server.key", "server.key", "authority.pem", "server.key", "no certificate"),
            ("server.pem", "server.pem", "authority.pem", "server.pem", "no private key"),
            ("server.pem", "client.key", "authority.pem", "server.pem", "mismatch"),
            ("server.pem", "server.key", "make.sh", "make.sh", "no certificate"),
        ] {
            let error = Tls::load(files(certificate, key, authorities)).expect_err(why);
            assert_eq!(error.path, file(at_fault), "{error}");
            assert!(error.reason.to_lowercase().contains(&why.to_lowercase()), "{error}");
        }
        let mut asks = files("both.pem", "both.pem", "authority.pem");
        Tls::load(asks.clone()).expect("one file may hold both");
        asks.authorities = None;
        let error = Tls::load(asks).expect_err("nobody could be believed").to_string();
        assert!(error.contains("without authorities"), "{error}");
    }
}
