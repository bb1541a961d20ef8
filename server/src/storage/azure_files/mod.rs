//! File shares of Azure: listings from directory to directory, files by path.
//!
//! A shared access signature in the address, or in the place of the key, wins over the key; without either the share is asked
//! anonymously. Requests are signed as `SharedKey` says:
//! <https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key>.

#[cfg(test)]
mod tests;

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use reqwest::{Method, Response, header};
use serde::Deserialize;

use super::answer::{Asked, escaped, escaped_path};
use super::uri::Azure;
use super::{Body, Limits, Protocol, Remote, RemoteFile, Source, StorageError, StorageUri, client};
use super::{DEEPEST, MOST_FILES};
use crate::config::StorageConfig;
use crate::config::storage::AzureSettings;

/// The version of the protocol that is spoken.
const VERSION: &str = "2022-11-02";
/// The variable of the key.
const KEY: &str = "AZURE_STORAGE_ACCESS_KEY";

/// A path of a share.
struct Share {
    asked: Asked,
    http: reqwest::Client,
    /// `https://host`
    server: String,
    account: String,
    /// Of the share, with a slash at its beginning.
    root: String,
    /// Without slashes at its ends; may be empty.
    prefix: String,
    identity: Identity,
    files: usize,
}

/// Who we are.
enum Identity {
    Key(Vec<u8>),
    /// A query without `?`.
    Signature(String),
    Anonymous,
}

/// An answer to a listing.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listing {
    #[serde(default)]
    entries: Entries,
    #[serde(default)]
    next_marker: Option<String>,
}

#[derive(Default, Deserialize)]
struct Entries {
    #[serde(default, rename = "$value")]
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
enum Entry {
    File(Item),
    Directory(Item),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    name: Name,
    #[serde(default)]
    properties: Properties,
}

#[derive(Deserialize)]
struct Name {
    /// Characters that XML cannot have are escaped as in addresses.
    #[serde(default, rename = "@Encoded")]
    encoded: bool,
    #[serde(default, rename = "$text")]
    text: String,
}

#[derive(Default, Deserialize)]
struct Properties {
    #[serde(rename = "Content-Length")]
    content_length: Option<u64>,
    #[serde(rename = "Etag")]
    etag: Option<String>,
    #[serde(rename = "Last-Modified")]
    last_modified: Option<String>,
}

/// The files of an address of a share.
pub(super) fn open(
    uri: &StorageUri,
    azure: &Azure,
    config: &StorageConfig,
) -> Result<Remote, StorageError> {
    let text = uri.to_string();
    let http = client::build(client::builder(config)?, Protocol::Azure, &text)?;
    let server = format!("https://{}", azure.host);
    Ok(Remote::Files(Box::new(Share::new(text, server, azure, &config.azure, http)?)))
}

impl Share {
    fn new(
        uri: String,
        server: String,
        azure: &Azure,
        settings: &AzureSettings,
        http: reqwest::Client,
    ) -> Result<Self, StorageError> {
        let decode = |text: &str| {
            let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
            decoded.map(|text| text.into_owned()).map_err(|_| StorageError::Unsupported {
                uri: uri.clone(),
                reason: "its path is not UTF-8".to_owned(),
            })
        };
        Ok(Self {
            http,
            server,
            account: azure.account.clone(),
            root: format!("/{}", decode(&azure.container)?),
            prefix: decode(&azure.prefix)?,
            identity: identity(azure, settings)?,
            files: settings.max_files.max(1),
            asked: Asked { protocol: Protocol::Azure, uri, explain },
        })
    }

    /// Asks for a path of the share, from byte `start` on.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        start: u64,
    ) -> Result<Response, StorageError> {
        let slash = if path.is_empty() { "" } else { "/" };
        let path = escaped_path(&format!("{}{slash}{path}", self.root));
        let pair = |(name, value): &(&str, &str)| format!("{name}={}", escaped(value));
        let mut pairs: Vec<String> = query.iter().map(pair).collect();
        if let Identity::Signature(signature) = &self.identity {
            pairs.push(signature.clone());
        }
        let mark = if pairs.is_empty() { "" } else { "?" };
        let url = format!("{}{path}{mark}{}", self.server, pairs.join("&"));
        let date = httpdate::fmt_http_date(SystemTime::now());
        let mut request = self
            .http
            .request(method.clone(), url)
            .header("x-ms-version", VERSION)
            .header("x-ms-date", &date);
        let range = (start > 0).then(|| format!("bytes={start}-"));
        if let Some(range) = &range {
            request = request.header("x-ms-range", range);
        }
        if let Identity::Key(key) = &self.identity {
            let mut headers = format!("x-ms-date:{date}\n");
            if let Some(range) = range {
                headers.push_str(&format!("x-ms-range:{range}\n"));
            }
            headers.push_str(&format!("x-ms-version:{VERSION}\n"));
            let path = format!("/{}{path}", self.account);
            let signature = sign(key, &text_to_sign(method.as_str(), &headers, &path, query));
            request = request
                .header(header::AUTHORIZATION, format!("SharedKey {}:{signature}", self.account));
        }
        self.asked.send(request).await
    }

    /// One directory, page after page.
    async fn entries(&self, directory: &str) -> Result<Vec<Entry>, StorageError> {
        let mut entries = Vec::new();
        let mut marker = String::new();
        loop {
            let mut query = vec![("comp", "list"), ("include", "Timestamps,Etag")];
            if !marker.is_empty() {
                query.push(("marker", &marker));
            }
            query.push(("restype", "directory"));
            let answer = self.ask(Method::GET, directory, &query, 0).await?;
            let body = self.asked.bytes(answer).await?;
            let page: Listing = quick_xml::de::from_reader(body.as_slice())
                .map_err(|error| self.asked.malformed(error.to_string()))?;
            entries.extend(page.entries.entries);
            if entries.len() > MOST_FILES {
                return Err(self.asked.malformed(format!("more than {MOST_FILES} files")));
            }
            match page.next_marker.filter(|next| !next.is_empty() && *next != marker) {
                Some(next) => marker = next,
                None => return Ok(entries),
            }
        }
    }

    /// Every file below the prefix.
    async fn walk(&self) -> Result<Vec<RemoteFile>, StorageError> {
        let mut files = Vec::new();
        let mut left = vec![(String::new(), 0)];
        while let Some((directory, depth)) = left.pop() {
            for entry in self.entries(&below(&self.prefix, &directory)).await? {
                let (Entry::File(item) | Entry::Directory(item)) = &entry;
                let path = below(&directory, &self.name(&item.name)?);
                match entry {
                    Entry::File(item) => {
                        let key = below(&self.prefix, &path);
                        let Properties { content_length, etag, last_modified } = item.properties;
                        let tag = etag.or(last_modified);
                        files.push(RemoteFile { path, key, size: content_length, tag });
                    }
                    Entry::Directory(_) if depth < DEEPEST => left.push((path, depth + 1)),
                    Entry::Directory(_) => {
                        return Err(self.asked.malformed(format!("{path} is nested too deeply")));
                    }
                }
            }
            if files.len() + left.len() > MOST_FILES {
                return Err(self.asked.malformed(format!("more than {MOST_FILES} files")));
            }
        }
        Ok(files)
    }

    fn name(&self, name: &Name) -> Result<String, StorageError> {
        let decoded = match name.encoded {
            true => {
                percent_encoding::percent_decode_str(&name.text).decode_utf8_lossy().into_owned()
            }
            false => name.text.clone(),
        };
        if decoded.is_empty() || decoded.contains('/') {
            return Err(self.asked.malformed(format!("{decoded:?} is no name of a file")));
        }
        Ok(decoded)
    }

    /// The address itself as a file.
    async fn file(&self) -> Result<RemoteFile, StorageError> {
        let answer = self.ask(Method::HEAD, &self.prefix, &[], 0).await?;
        let header = |name| answer.headers().get(name)?.to_str().ok().map(str::to_owned);
        Ok(RemoteFile {
            path: self.prefix.rsplit('/').next().unwrap_or_default().to_owned(),
            key: self.prefix.clone(),
            size: header(header::CONTENT_LENGTH).and_then(|text| text.parse().ok()),
            tag: header(header::ETAG).or_else(|| header(header::LAST_MODIFIED)),
        })
    }
}

impl Source for Share {
    fn list(&self) -> BoxFuture<'_, Result<Vec<RemoteFile>, StorageError>> {
        Box::pin(async {
            match self.walk().await {
                Err(StorageError::NotFound { .. }) if !self.prefix.is_empty() => {
                    Ok(vec![self.file().await?])
                }
                other => other,
            }
        })
    }

    fn open<'a>(
        &'a self,
        file: &'a RemoteFile,
        start: u64,
    ) -> BoxFuture<'a, Result<Body, StorageError>> {
        Box::pin(async move {
            let answer = self.ask(Method::GET, &file.key, &[], start).await?;
            let partial = answer.status() == reqwest::StatusCode::PARTIAL_CONTENT;
            let start = if partial { start } else { 0 };
            Ok(Body { start, bytes: self.asked.stream(answer) })
        })
    }

    fn limits(&self) -> Limits {
        Limits { files: self.files, ..Limits::default() }
    }
}

fn identity(azure: &Azure, settings: &AzureSettings) -> Result<Identity, StorageError> {
    if let Some(query) = &azure.query {
        return Ok(Identity::Signature(query.clone()));
    }
    let Some(key) = &settings.access_key else {
        tracing::warn!("{KEY} is not set, the share is asked anonymously");
        return Ok(Identity::Anonymous);
    };
    // Azure's own libraries take a signature in the place of a key as well.
    if key.0.contains("sig=") {
        return Ok(Identity::Signature(key.0.trim_start_matches('?').to_owned()));
    }
    let wrong = |_| {
        StorageError::setting(
            KEY,
            "expected the account's key (base64), or a signature (?sv=...&sig=...)",
        )
    };
    Ok(Identity::Key(STANDARD.decode(&key.0).map_err(wrong)?))
}

/// What a request is signed by: its method, its `x-ms-` headers, account and path, query.
fn text_to_sign(method: &str, headers: &str, path: &str, query: &[(&str, &str)]) -> String {
    // Encoding, language, length, MD5, type, date, four conditions, range: none is sent.
    let mut text = format!("{method}\n{}{headers}{path}", "\n".repeat(11));
    let mut query = query.to_vec();
    query.sort_unstable();
    for (name, value) in query {
        text.push_str(&format!("\n{name}:{value}"));
    }
    text
}

fn sign(key: &[u8], text: &str) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
    STANDARD.encode(ring::hmac::sign(&key, text.as_bytes()))
}

/// A path below another, either may be empty.
fn below(directory: &str, name: &str) -> String {
    match (directory, name) {
        ("", name) => name.to_owned(),
        (directory, "") => directory.to_owned(),
        (directory, name) => format!("{directory}/{name}"),
    }
}

/// `<Error><Code>...</Code><Message>...</Message></Error>`
fn explain(body: &str) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Refusal {
        code: String,
        #[serde(default)]
        message: String,
    }
    let refusal: Refusal = quick_xml::de::from_str(body.trim_start_matches('\u{feff}')).ok()?;
    // What follows the first line numbers the request.
    let message = refusal.message.lines().next().unwrap_or_default();
    Some(format!("{}: {message}", refusal.code))
}
