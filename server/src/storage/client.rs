//! The HTTP client of every scheme: our TLS, the proxies of the environment, more certificate authorities.

use std::path::Path;
use std::time::Duration;

use reqwest::{Certificate, ClientBuilder, Response};

use super::{Protocol, StorageError};
use crate::config::StorageConfig;

/// Silence after which a connection counts as cut.
const SILENCE: Duration = Duration::from_secs(30);
/// Longest answer that is read for an error's text.
const ERROR_BYTES: usize = 4096;

/// A client that trusts the system's authorities and those of the mounted bundle, if there is one.
///
/// # Errors
/// When a certificate cannot be read.
pub(super) fn builder(config: &StorageConfig) -> Result<ClientBuilder, StorageError> {
    let builder = plain();
    let Some(bundle) = &config.ca_bundle else { return Ok(builder) };
    if !bundle.exists() {
        tracing::warn!(file = %bundle.display(), "CA_BUNDLE_CONFIGMAP_NAME: no such file; the system's authorities are trusted");
        return Ok(builder);
    }
    with_authorities(builder, "CA_BUNDLE_CONFIGMAP_NAME", bundle)
}

/// A client that trusts the system's authorities.
pub(super) fn plain() -> ClientBuilder {
    crate::outgoing::use_ring();
    reqwest::Client::builder()
        .user_agent(concat!("tokenmill/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(15))
        .read_timeout(SILENCE)
}

/// Adds the authorities of a file in PEM form. `variable` is the one that named it.
///
/// # Errors
/// When the file cannot be read, or holds no certificate.
pub(super) fn with_authorities(
    builder: ClientBuilder,
    variable: &str,
    file: &Path,
) -> Result<ClientBuilder, StorageError> {
    let wrong = |why: String| StorageError::setting(variable, format!("{}: {why}", file.display()));
    let pem = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
    let certificates =
        Certificate::from_pem_bundle(&pem).map_err(|error| wrong(error.to_string()))?;
    if certificates.is_empty() {
        return Err(wrong("there is no certificate in PEM form".to_owned()));
    }
    Ok(builder.tls_certs_merge(certificates))
}

/// Builds it. `uri` is the address for messages.
///
/// # Errors
/// When TLS cannot be set up.
pub(super) fn build(
    builder: ClientBuilder,
    protocol: Protocol,
    uri: &str,
) -> Result<reqwest::Client, StorageError> {
    builder.build().map_err(|error| StorageError::network(protocol, uri, &error))
}

/// The answer when its status is a success, else an error with the beginning of what it says.
///
/// # Errors
/// As its status says.
pub(super) async fn checked(
    protocol: Protocol,
    uri: &str,
    mut answer: Response,
) -> Result<Response, StorageError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let mut said = Vec::new();
    while let Ok(Some(bytes)) = answer.chunk().await {
        said.extend_from_slice(&bytes[..bytes.len().min(ERROR_BYTES - said.len())]);
        if said.len() == ERROR_BYTES {
            break;
        }
    }
    let said = String::from_utf8_lossy(&said);
    Err(StorageError::of_status(protocol, uri, status.as_u16(), &said))
}
