//! Asking the hub: what a revision is, which files it has, and getting them.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::{Response, StatusCode, header};
use serde::Deserialize;

use super::cache::{RepositoryCache, is_name};
use super::files::{RemoteFile, choose, is_model_file};
use super::id::is_relative;
use super::{HubError, HubId};
use crate::config::HubConfig;
use crate::storage::patterns;

/// Tries of one request that makes no progress.
pub(super) const TRIES: u32 = 5;
/// Longest wait that a `Retry-After` can ask for, in seconds.
const LONGEST_WAIT: u32 = 60;
/// Files downloaded at the same time.
const PARALLEL: usize = 4;
/// Silence after which a connection counts as cut.
const SILENCE: Duration = Duration::from_secs(30);

/// Told about bytes: those that are here, and all of them.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// A client of one hub.
#[derive(Clone, Debug)]
pub struct HubClient {
    pub(super) http: reqwest::Client,
    pub(super) config: HubConfig,
    /// One second; nothing in tests.
    pub(super) second: Duration,
}

/// What the hub tells about a revision.
#[derive(Deserialize)]
struct Revision {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

impl HubClient {
    /// A client with these settings.
    ///
    /// # Errors
    /// When TLS cannot be set up (no certificates of authorities on this machine).
    pub fn new(config: HubConfig) -> Result<Self, HubError> {
        crate::outgoing::use_ring();
        let http = reqwest::Client::builder()
            .user_agent(concat!("tokenmill/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(SILENCE)
            .build()
            .map_err(|error| HubError::network(&config.endpoint, &error))?;
        Ok(Self { http, config, second: Duration::from_secs(1) })
    }

    /// The local path of a model: a directory, or its one file. Downloads what is not here;
    /// when the hub cannot be reached and the model is here, what is here is used.
    ///
    /// # Errors
    /// [`HubError`] says what to do.
    pub async fn fetch(&self, id: &HubId, progress: Progress<'_>) -> Result<PathBuf, HubError> {
        let revision = id.revision.as_deref().or(self.config.revision.as_deref()).unwrap_or("main");
        let cache = RepositoryCache::new(&self.config.cache, id, revision);
        if self.config.offline {
            let missing = || HubError::Offline {
                what: format!("{id} (revision {revision})"),
                cache: self.config.cache.clone(),
            };
            return cached(id, &cache).unwrap_or_else(|| Err(missing()));
        }
        // With the model here, a hub that is down is not waited for.
        let cached = cached(id, &cache).and_then(Result::ok);
        let tries = if cached.is_some() { 1 } else { TRIES };
        let (commit, files) = match (self.revision(id, revision, tries).await, cached) {
            (Ok(found), _) => found,
            (Err(error), Some(path)) if error.is_transient() => {
                tracing::warn!(%error, path = %path.display(), "using the cached model");
                return Ok(path);
            }
            (Err(error), _) => return Err(error),
        };
        let found = files.len();
        let HubConfig { allow, ignore, .. } = &self.config;
        let wanted = files.into_iter().filter(|file| patterns::wants(allow, ignore, &file.path));
        let files: Vec<RemoteFile> = wanted.collect();
        if files.is_empty() && found > 0 {
            let patterns = "STORAGE_ALLOW_PATTERNS and STORAGE_IGNORE_PATTERNS leave none of its";
            let instead = format!("{patterns} {found} files");
            return Err(HubError::NoWeights { repository: id.repository(), instead });
        }
        let files = choose(id, files)?;
        self.download(id, &cache, &commit, &files, progress).await?;
        cache.remember(&commit)?;
        Ok(local(&cache, &commit, &files))
    }

    /// The commit of a revision and its files.
    async fn revision(
        &self,
        id: &HubId,
        revision: &str,
        tries: u32,
    ) -> Result<(String, Vec<RemoteFile>), HubError> {
        let endpoint = &self.config.endpoint;
        let escaped = revision.replace('/', "%2F");
        let url =
            format!("{endpoint}/api/models/{}/revision/{escaped}?blobs=true", id.repository());
        let what = || format!("{} (revision {revision})", id.repository());
        let answer = self.with_tries(tries, || self.get(&url, None, id, what())).await?;
        let body = answer.bytes().await.map_err(|error| HubError::network(&url, &error))?;
        let malformed = |reason: String| HubError::Malformed { url: url.clone(), reason };
        let parsed: Revision =
            serde_json::from_slice(&body).map_err(|error| malformed(error.to_string()))?;
        if !is_name(&parsed.sha) {
            return Err(malformed(format!("{:?} is not a commit", parsed.sha)));
        }
        let mut files = Vec::with_capacity(parsed.siblings.len());
        for sibling in parsed.siblings {
            if !is_relative(&sibling.rfilename) {
                return Err(malformed(format!("{:?} is not a path below it", sibling.rfilename)));
            }
            let sha256 = sibling.lfs.as_ref().and_then(|lfs| lfs.sha256.clone());
            files.push(RemoteFile {
                path: sibling.rfilename,
                size: sibling.lfs.and_then(|lfs| lfs.size).or(sibling.size),
                etag: sha256.clone().or(sibling.blob_id).filter(|etag| is_name(etag)),
                sha256,
            });
        }
        Ok((parsed.sha, files))
    }

    /// Brings every file into the cache, a few at a time.
    async fn download(
        &self,
        id: &HubId,
        cache: &RepositoryCache,
        commit: &str,
        files: &[RemoteFile],
        progress: Progress<'_>,
    ) -> Result<(), HubError> {
        let total: u64 = files.iter().filter_map(|file| file.size).sum();
        let done = AtomicU64::new(0);
        let advance = |bytes: u64| {
            progress(done.fetch_add(bytes, Ordering::Relaxed).wrapping_add(bytes), total);
        };
        let one = |file| self.file(id, cache, commit, file, &advance);
        stream::iter(files.iter().map(one)).buffer_unordered(PARALLEL).try_collect::<()>().await
    }

    /// One try of a GET; statuses that are no success become errors.
    pub(super) async fn get(
        &self,
        url: &str,
        range_start: Option<u64>,
        id: &HubId,
        what: String,
    ) -> Result<Response, HubError> {
        let mut request = self.http.get(url);
        // reqwest drops the token when a redirect leaves the host.
        if let Some(token) = &self.config.token {
            request = request.bearer_auth(token);
        }
        if let Some(start) = range_start {
            request = request.header(header::RANGE, format!("bytes={start}-"));
        }
        let answer = request.send().await.map_err(|error| HubError::network(url, &error))?;
        let status = answer.status();
        if status.is_success()
            || (status == StatusCode::RANGE_NOT_SATISFIABLE && range_start.is_some())
        {
            return Ok(answer);
        }
        Err(self.refused(url, &answer, id, what))
    }

    fn refused(&self, url: &str, answer: &Response, id: &HubId, what: String) -> HubError {
        let said = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let status = answer.status();
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => HubError::Unauthorized {
                repository: id.repository(),
                detail: said("x-error-message").unwrap_or(status.as_str()).to_owned(),
                advice: match self.config.token {
                    None => "if it exists, set HF_TOKEN to a token that may read it",
                    Some(_) => {
                        "the token in HF_TOKEN may not read it: accept its terms, or use another"
                    }
                },
            },
            StatusCode::NOT_FOUND => HubError::NotFound {
                what: match said("x-error-code") {
                    Some("RepoNotFound") => id.repository(),
                    _ => what,
                },
            },
            StatusCode::TOO_MANY_REQUESTS => HubError::RateLimited { url: url.to_owned() },
            _ => HubError::Status { url: url.to_owned(), status: status.as_u16() },
        }
    }

    /// Tries again, later and later, what another try may help.
    pub(super) async fn with_tries<T, F, R>(
        &self,
        tries: u32,
        mut attempt: F,
    ) -> Result<T, HubError>
    where
        F: FnMut() -> R,
        R: Future<Output = Result<T, HubError>>,
    {
        for tried in 1..tries {
            match attempt().await {
                Err(error) if error.is_transient() => self.wait(tried, &error).await,
                other => return other,
            }
        }
        attempt().await
    }

    /// Waits before try number `tried + 1`: 1, 2, 4, ... seconds, longer when the hub limits us.
    pub(super) async fn wait(&self, tried: u32, error: &HubError) {
        let factor = match error {
            HubError::RateLimited { .. } => 5,
            _ => 1,
        };
        let seconds = (factor << (tried - 1).min(8)).min(LONGEST_WAIT);
        tracing::warn!(%error, seconds, "trying again");
        tokio::time::sleep(self.second * seconds).await;
    }
}

/// What the cache has of its revision; absent when it knows nothing of it.
fn cached(id: &HubId, cache: &RepositoryCache) -> Option<Result<PathBuf, HubError>> {
    let commit = cache.commit()?;
    let files = choose(id, cache.files(&commit));
    Some(files.map(|files| local(cache, &commit, &files)))
}

/// The directory of a commit, or the one file in it that is the model.
fn local(cache: &RepositoryCache, commit: &str, files: &[RemoteFile]) -> PathBuf {
    let snapshot = cache.snapshot(commit);
    match files {
        [file] if is_model_file(&file.path) => snapshot.join(&file.path),
        _ => snapshot,
    }
}
