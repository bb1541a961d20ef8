//! One file of a web server.
//!
//! The reference checks the ending against the content type before it unpacks; here the bytes themselves say whether they are
//! an archive.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt};
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{RequestBuilder, Response, Url, redirect};

use super::{Body, Protocol, Remote, RemoteFile, Source, StorageError, StorageUri, client};
use crate::config::StorageConfig;
use crate::outgoing::continues;

/// Redirects that are followed.
const REDIRECTS: usize = 10;

/// A file of a web server.
struct WebFile {
    http: reqwest::Client,
    /// Where a redirect leads away from the host: without its headers.
    elsewhere: reqwest::Client,
    url: Url,
    /// Of the variable `<host>-headers`.
    headers: HeaderMap,
    /// The address for messages.
    text: Arc<str>,
}

pub(super) fn open(uri: &StorageUri, config: &StorageConfig) -> Result<Remote, StorageError> {
    let text = uri.to_string();
    let url = Url::parse(uri.secret_text()).map_err(|error| StorageError::Unsupported {
        uri: text.clone(),
        reason: format!("this is no address of a file: {error}"),
    })?;
    let headers = headers(&url, config)?;
    // Headers are for this host alone; reqwest takes only the standard ones away when a redirect leaves it.
    let from = url.clone();
    let stays = redirect::Policy::custom(move |attempt| {
        let to = attempt.url();
        let upgraded = from.scheme() == "http" && to.scheme() == "https";
        let own = to.origin() == from.origin() || (upgraded && to.host() == from.host());
        if own && attempt.previous().len() <= REDIRECTS { attempt.follow() } else { attempt.stop() }
    });
    let elsewhere = client::build(client::builder(config)?, Protocol::Http, &text)?;
    let http = match headers.is_empty() {
        true => elsewhere.clone(),
        false => client::build(client::builder(config)?.redirect(stays), Protocol::Http, &text)?,
    };
    let text = text.into();
    Ok(Remote::Files(Box::new(WebFile { http, elsewhere, url, headers, text })))
}

/// Request headers for the host of an address.
fn headers(url: &Url, config: &StorageConfig) -> Result<HeaderMap, StorageError> {
    let host = url.host_str().unwrap_or_default();
    let Some(given) = config.headers.get(host) else { return Ok(HeaderMap::new()) };
    let wrong = || {
        let reason = "expected a JSON object of request headers, each a string";
        StorageError::setting(&format!("{host}-headers"), reason)
    };
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&given.0).map_err(|_| wrong())?;
    let mut headers = HeaderMap::new();
    for (name, value) in &object {
        let name = HeaderName::try_from(name.as_str()).map_err(|_| wrong())?;
        let mut value =
            value.as_str().and_then(|value| HeaderValue::try_from(value).ok()).ok_or_else(wrong)?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

impl WebFile {
    async fn get(&self, file: Option<&RemoteFile>, start: u64) -> Result<Response, StorageError> {
        let network = |error| StorageError::network(Protocol::Http, &self.text, &error);
        let ranged = |mut request: RequestBuilder| {
            if let (Some(tag), true) = (file.and_then(|file| file.tag.as_deref()), start > 0) {
                // Only the rest of the same content, else all of it.
                request = request.header(header::RANGE, format!("bytes={start}-"));
                request = request.header(header::IF_RANGE, tag);
            }
            request.send()
        };
        let request = self.http.get(self.url.clone()).headers(self.headers.clone());
        let mut answer = ranged(request).await.map_err(network)?;
        if answer.status().is_redirection()
            && let Some(target) = target(&answer)
        {
            answer = ranged(self.elsewhere.get(target)).await.map_err(network)?;
        }
        client::checked(Protocol::Http, &self.text, answer).await
    }

    /// The name of the file, from the last part of the path.
    fn name(&self) -> String {
        let last = self.url.path().rsplit('/').next().unwrap_or_default();
        percent_encoding::percent_decode_str(last)
            .decode_utf8_lossy()
            .replace(['/', '\\', '\0'], "_")
    }
}

impl Source for WebFile {
    fn list(&self) -> BoxFuture<'_, Result<Vec<RemoteFile>, StorageError>> {
        Box::pin(async {
            // A server may know no HEAD: a GET whose body is not read tells the same.
            let answer = self.get(None, 0).await?;
            let header = |name| answer.headers().get(name)?.to_str().ok().map(str::to_owned);
            let strong = |tag: &String| !tag.starts_with("W/");
            let tag = header(header::ETAG).filter(strong).or_else(|| header(header::LAST_MODIFIED));
            let plain = header(header::CONTENT_ENCODING).is_none();
            let size = answer.content_length().filter(|_| plain);
            Ok(vec![RemoteFile { path: self.name(), key: String::new(), size, tag }])
        })
    }

    fn open<'a>(
        &'a self,
        file: &'a RemoteFile,
        start: u64,
    ) -> BoxFuture<'a, Result<Body, StorageError>> {
        Box::pin(async move {
            let answer = self.get(Some(file), start).await?;
            let start = if continues(&answer, start) { start } else { 0 };
            let text = Arc::clone(&self.text);
            let bytes = answer
                .bytes_stream()
                .map_err(move |error| StorageError::network(Protocol::Http, &text, &error))
                .boxed();
            Ok(Body { start, bytes })
        })
    }
}

/// Where a redirect that was not followed leads.
fn target(answer: &Response) -> Option<Url> {
    let location = answer.headers().get(header::LOCATION)?.to_str().ok()?;
    let target = answer.url().join(location).ok()?;
    matches!(target.scheme(), "http" | "https").then_some(target)
}
