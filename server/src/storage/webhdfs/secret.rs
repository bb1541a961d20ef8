//! Who we are to a cluster: the files of a mounted secret, or `STORAGE_CONFIG` in their place.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, ClientBuilder, Identity};

use crate::config::storage::HdfsSettings;
use crate::storage::{StorageError, client};

/// Settings that are files, in base64 where the secret is given as JSON.
const FILES: &[&str] = &["KERBEROS_KEYTAB", "TLS_CERT", "TLS_KEY", "TLS_CA"];
/// A mounted secret, or what `STORAGE_CONFIG` has in its place.
pub(super) struct Secret<'a> {
    pub(super) settings: &'a HdfsSettings,
}

impl Secret<'_> {
    /// A setting that is not empty.
    pub(super) fn bytes(&self, name: &str) -> Result<Option<Vec<u8>>, StorageError> {
        let bytes = match &self.settings.given {
            Some(given) => match given.get(name) {
                Some(value) if FILES.contains(&name) => {
                    let decoded = STANDARD.decode(value.0.trim());
                    decoded.map_err(|_| {
                        StorageError::setting(name, "expected the file in base64 (STORAGE_CONFIG)")
                    })?
                }
                Some(value) => value.0.clone().into_bytes(),
                None => return Ok(None),
            },
            None => {
                let path = self.settings.secret_dir.join(name);
                match std::fs::read(&path) {
                    Ok(bytes) => bytes,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(StorageError::io(&path)(error)),
                }
            }
        };
        Ok(Some(bytes).filter(|bytes| !bytes.trim_ascii().is_empty()))
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<String>, StorageError> {
        let Some(bytes) = self.bytes(name)? else { return Ok(None) };
        let text = String::from_utf8(bytes);
        let text = text.map_err(|_| StorageError::setting(name, "expected text (UTF-8)"))?;
        Ok(Some(text.trim().to_owned()))
    }

    /// Where a setting was looked for.
    pub(super) fn missing(&self) -> String {
        match &self.settings.given {
            Some(_) => "missing in STORAGE_CONFIG".to_owned(),
            None => format!(
                "no such file in {}; mount the secret there, set HDFS_SECRET_DIR to where it is, or STORAGE_CONFIG \
                 to its JSON with \"type\": \"hdfs\"",
                self.settings.secret_dir.display()
            ),
        }
    }

    /// A client with the certificates and headers of the secret.
    pub(super) fn client(&self) -> Result<ClientBuilder, StorageError> {
        let mut http = client::plain();
        let wrong = |name: &str| {
            let name = name.to_owned();
            move |error: reqwest::Error| StorageError::setting(&name, error.to_string())
        };
        if let Some(mut pem) = self.bytes("TLS_CERT")? {
            pem.push(b'\n');
            pem.extend(self.bytes("TLS_KEY")?.unwrap_or_default());
            http = http.identity(Identity::from_pem(&pem).map_err(wrong("TLS_CERT, TLS_KEY"))?);
        } else if self.bytes("TLS_KEY")?.is_some() {
            return Err(StorageError::setting("TLS_KEY", "a key without TLS_CERT is of no use"));
        }
        if let Some(pem) = self.bytes("TLS_CA")? {
            let authorities = Certificate::from_pem_bundle(&pem).map_err(wrong("TLS_CA"))?;
            if authorities.is_empty() {
                return Err(StorageError::setting("TLS_CA", "there is no certificate in PEM form"));
            }
            http = http.tls_certs_only(authorities);
        }
        let skip = self.text("TLS_SKIP_VERIFY")?.unwrap_or_default();
        http = http.tls_danger_accept_invalid_certs(skip.eq_ignore_ascii_case("true"));
        if let Some(text) = self.text("HEADERS")? {
            let headers = headers(&text).ok_or_else(|| {
                StorageError::setting(
                    "HEADERS",
                    "expected a JSON object of request headers, each a string",
                )
            })?;
            http = http.default_headers(headers);
        }
        Ok(http)
    }
}

fn headers(text: &str) -> Option<HeaderMap> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    let mut headers = HeaderMap::new();
    for (name, value) in &object {
        let mut value = HeaderValue::try_from(value.as_str()?).ok()?;
        value.set_sensitive(true);
        headers.insert(HeaderName::try_from(name.as_str()).ok()?, value);
    }
    Some(headers)
}
