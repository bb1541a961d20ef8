//! Asking a registry: the distribution protocol, with the tokens it wants.

use bytes::Bytes;
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url, header};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::credentials::{Challenge, Credentials};
use super::reference::{Digest, Reference};
use crate::storage::StorageError;
use crate::storage::answer::{Asked, escaped};

/// A repository of a registry.
pub(super) struct Registry {
    pub(super) asked: Asked,
    pub(super) http: Client,
    /// `https://host`
    pub(super) server: String,
    pub(super) repository: String,
    pub(super) credentials: Option<Credentials>,
    /// Plain HTTP is trusted with credentials.
    pub(super) insecure: bool,
    /// The authorization that the registry took last.
    pub(super) authorization: Mutex<Option<String>>,
}

/// What a token server answers.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Registry {
    /// Where a registry without verified certificates answers: over TLS, or else in the clear.
    pub(super) async fn server(reference: &Reference, http: &Client, insecure: bool) -> String {
        let host = reference.host();
        let server = format!("https://{host}");
        if insecure && http.get(format!("{server}/v2/")).send().await.is_err() {
            return format!("http://{host}");
        }
        server
    }

    /// A manifest by tag or digest, of one of the kinds in `accept`.
    pub(super) async fn manifest(
        &self,
        version: &str,
        accept: &str,
    ) -> Result<Vec<u8>, StorageError> {
        let url = self.url("manifests", version);
        let answer = self.get(|| self.http.get(&url).header(header::ACCEPT, accept)).await?;
        self.asked.bytes(answer).await
    }

    /// The bytes of a blob from `start` on.
    pub(super) async fn blob(&self, digest: &Digest, start: u64) -> Result<Blob, StorageError> {
        let url = self.url("blobs", &digest.text);
        let request = || {
            let request = self.http.get(&url);
            match start {
                0 => request,
                _ => request.header(header::RANGE, format!("bytes={start}-")),
            }
        };
        let answer = self.get(request).await?;
        // Who does not know ranges starts over.
        let skip = if answer.status() == StatusCode::PARTIAL_CONTENT { 0 } else { start };
        Ok(Blob { answer, skip, asked: self.asked.clone() })
    }

    fn url(&self, kind: &str, version: &str) -> String {
        format!("{}/v2/{}/{kind}/{version}", self.server, self.repository)
    }

    /// Asks, and asks again with the token that the registry wants.
    async fn get(&self, request: impl Fn() -> RequestBuilder) -> Result<Response, StorageError> {
        let mut authorization = self.authorization.lock().await.clone();
        let mut asked_before = false;
        loop {
            let mut asking = request();
            if let Some(value) = &authorization {
                asking = asking.header(header::AUTHORIZATION, value);
            }
            let answer = asking.send().await.map_err(|error| self.asked.network(&error))?;
            if answer.status().is_success() {
                *self.authorization.lock().await = authorization;
                return Ok(answer);
            }
            let challenge = (answer.status() == StatusCode::UNAUTHORIZED && !asked_before)
                .then(|| challenge(&answer))
                .flatten();
            let Some(challenge) = challenge else { return Err(self.asked.refusal(answer).await) };
            authorization = self.authorize(challenge).await?;
            asked_before = true;
            if authorization.is_none() {
                return Err(self.asked.refusal(answer).await);
            }
        }
    }

    /// The authorization that answers a challenge.
    pub(super) async fn authorize(
        &self,
        challenge: Challenge,
    ) -> Result<Option<String>, StorageError> {
        let (realm, service, scope) = match (challenge, &self.credentials) {
            (Challenge::Basic, Some(Credentials::Password { user, password })) => {
                self.trusts(&self.server)?;
                return Ok(Some(basic(user, password)));
            }
            (Challenge::Basic, _) => return Ok(None),
            (Challenge::Bearer { realm, service, scope }, _) => (realm, service, scope),
        };
        let mut url = Url::parse(&realm).map_err(|_| {
            self.asked.malformed(format!("its token server {realm:?} is no address"))
        })?;
        let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.repository));
        let fields = [("service", service.unwrap_or_default()), ("scope", scope)];
        let request = match &self.credentials {
            Some(Credentials::Refresh(token)) => {
                self.trusts(&realm)?;
                let fields = [
                    ("grant_type", "refresh_token"),
                    ("client_id", "tokenmill"),
                    ("refresh_token", token),
                    (fields[0].0, &fields[0].1),
                    (fields[1].0, &fields[1].1),
                ];
                let pairs = fields.map(|(key, value)| format!("{key}={}", escaped(value)));
                let form = "application/x-www-form-urlencoded";
                self.http.post(url).header(header::CONTENT_TYPE, form).body(pairs.join("&"))
            }
            other => {
                for (key, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
                    url.query_pairs_mut().append_pair(key, value);
                }
                let request = self.http.get(url);
                match other {
                    Some(Credentials::Password { user, password }) => {
                        self.trusts(&realm)?;
                        request.header(header::AUTHORIZATION, basic(user, password))
                    }
                    _ => request,
                }
            }
        };
        let token: Token = self.asked.json(self.asked.send(request).await?).await?;
        let token = token.token.or(token.access_token).filter(|token| !token.is_empty());
        let missing = || self.asked.malformed("its token server gave no token");
        Ok(Some(format!("Bearer {}", token.ok_or_else(missing)?)))
    }

    /// Credentials do not travel in the clear, unless the registry may.
    fn trusts(&self, address: &str) -> Result<(), StorageError> {
        if self.insecure || address.starts_with("https://") {
            return Ok(());
        }
        Err(StorageError::setting(
            "KSERVE_OCI_INSECURE_REGISTRY",
            format!("credentials are not sent to {address} in the clear; set it to true to do so"),
        ))
    }
}

/// A blob on its way.
pub(super) struct Blob {
    answer: Response,
    /// Bytes at its beginning that are here already.
    skip: u64,
    asked: Asked,
}

impl Blob {
    /// The next bytes that were not skipped.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        loop {
            let Some(mut bytes) =
                self.answer.chunk().await.map_err(|error| self.asked.network(&error))?
            else {
                return Ok(None);
            };
            let skipped = self.skip.min(bytes.len() as u64);
            self.skip -= skipped;
            let _ = bytes.split_to(usize::try_from(skipped).expect("no more than a chunk has"));
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
    }
}

fn basic(user: &str, password: &str) -> String {
    use base64::Engine;
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Basic {pair}")
}

/// The challenge that a refusal carries: the one for a token, if several.
fn challenge(answer: &Response) -> Option<Challenge> {
    let headers = answer.headers().get_all(header::WWW_AUTHENTICATE);
    let challenges = headers.iter().filter_map(|value| Challenge::parse(value.to_str().ok()?));
    let (bearer, basic): (Vec<_>, Vec<_>) =
        challenges.partition(|challenge| matches!(challenge, Challenge::Bearer { .. }));
    bearer.into_iter().chain(basic).next()
}
