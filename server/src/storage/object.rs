//! Files of a bucket or container, through `object_store`: listing, signing and requests are its, retries and errors ours.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt};
use object_store::client::{
    ClientOptions, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpService,
};
use object_store::path::Path;
use object_store::{
    ClientConfigKey, Error, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt,
    RetryConfig,
};

use super::{Body, Limits, Protocol, RemoteFile, Source, StorageError};

/// Longest answer that is read for an error's text.
const ERROR_BYTES: usize = 4096;

/// Files below a prefix.
pub(super) struct Objects {
    pub(super) store: Box<dyn ObjectStore>,
    pub(super) protocol: Protocol,
    /// The address for messages.
    pub(super) uri: Arc<str>,
    /// Without a slash at its end; may be empty.
    pub(super) prefix: String,
    /// Objects without a byte are markers of directories, not files.
    pub(super) skip_empty: bool,
    pub(super) limits: Limits,
}

/// An answer that is no success.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{status}: {said}")]
struct Refused {
    status: u16,
    /// Code and message of its body.
    said: String,
}

/// Our client in the place of theirs; an answer that is no success becomes an error with its text.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    /// For storage and tokens.
    pub(super) http: reqwest::Client,
    /// For the metadata servers of clouds: no proxy, and nothing is waited for.
    pub(super) metadata: reqwest::Client,
}

/// We try again ourselves: there is one count of tries, and one line in the log.
pub(super) fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

impl Connector {
    /// A connector over a client.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub(super) fn new(
        http: reqwest::Client,
        protocol: Protocol,
        uri: &str,
    ) -> Result<Self, StorageError> {
        let second = std::time::Duration::from_secs(1);
        let metadata = super::client::plain().no_proxy().connect_timeout(second);
        let metadata = super::client::build(metadata, protocol, uri)?;
        Ok(Self { http, metadata })
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        // Their own options allow plain HTTP to metadata servers only; our client goes by the address.
        let key = ClientConfigKey::AllowHttp;
        let metadata = options.get_config_value(&key).is_some_and(|allowed| allowed == "true");
        Ok(if metadata {
            HttpClient::new(Metadata(self.metadata.clone()))
        } else {
            HttpClient::new(Checked(self.http.clone()))
        })
    }
}

/// What the trait of their service is without their macro.
type Answer<'a> =
    std::pin::Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'a>>;

/// No metadata server answers: we are nobody here.
#[derive(Debug, thiserror::Error)]
#[error("no credentials are set, and no metadata server of a cloud answers: {0}")]
struct Nobody(String);

/// Asks metadata servers; what they answer is for `object_store`, whose fall-backs look at statuses.
#[derive(Debug)]
struct Metadata(reqwest::Client);

impl HttpService for Metadata {
    fn call<'a, 'b>(&'a self, request: HttpRequest) -> Answer<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let answer = self.0.call(request).await;
            answer
                .map_err(|error| HttpError::new(HttpErrorKind::Unknown, Nobody(error.to_string())))
        })
    }
}

/// Makes answers that are no success errors.
#[derive(Debug)]
struct Checked(reqwest::Client);

impl HttpService for Checked {
    fn call<'a, 'b>(&'a self, request: HttpRequest) -> Answer<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let answer = self.0.call(request).await?;
            let status = answer.status();
            if status.is_success() {
                return Ok(answer);
            }
            let region = answer.headers().get("x-amz-bucket-region");
            let region = region.and_then(|region| region.to_str().ok()).map(str::to_owned);
            let mut body = answer.into_body().bytes_stream();
            let mut bytes = Vec::new();
            while let Some(Ok(chunk)) = body.next().await {
                bytes.extend_from_slice(&chunk[..chunk.len().min(ERROR_BYTES - bytes.len())]);
                if bytes.len() == ERROR_BYTES {
                    break;
                }
            }
            let mut said = said(&String::from_utf8_lossy(&bytes));
            if let (true, Some(region)) = (status.is_redirection(), region) {
                said = format!("{said} the bucket is in {region}: set AWS_DEFAULT_REGION");
            }
            Err(HttpError::new(HttpErrorKind::Unknown, Refused { status: status.as_u16(), said }))
        })
    }
}

/// Code and message of an error in XML, else the text.
fn said(body: &str) -> String {
    let element = |name: &str| {
        let (_, rest) = body.split_once(&format!("<{name}>"))?;
        Some(rest.split_once("</")?.0.trim().to_owned())
    };
    match (element("Code"), element("Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code,
        _ => body.trim().to_owned(),
    }
}

impl Objects {
    fn error(&self, error: &Error) -> StorageError {
        error_of(self.protocol, &self.uri, error)
    }

    /// The file that an object is, when it is one.
    fn file(&self, meta: &ObjectMeta) -> Option<RemoteFile> {
        let key = meta.location.as_ref();
        let path = match key.strip_prefix(self.prefix.as_str()) {
            // The address is exactly this key.
            Some("") => key.rsplit('/').next().unwrap_or(key),
            Some(rest) => rest.trim_start_matches('/'),
            None => return None,
        };
        let tag = meta.e_tag.clone().unwrap_or_else(|| meta.last_modified.to_rfc3339());
        (!self.skip_empty || meta.size > 0).then(|| RemoteFile {
            path: path.to_owned(),
            key: key.to_owned(),
            size: Some(meta.size),
            tag: Some(tag),
        })
    }

    async fn below(&self) -> Result<Vec<RemoteFile>, StorageError> {
        let prefix = Path::parse(&self.prefix).map_err(|error| self.error(&error.into()))?;
        let objects: Vec<ObjectMeta> = self
            .store
            .list(Some(&prefix))
            .try_collect()
            .await
            .map_err(|error| self.error(&error))?;
        let mut files: Vec<RemoteFile> =
            objects.iter().filter_map(|meta| self.file(meta)).collect();
        if files.is_empty() && objects.is_empty() && !self.prefix.is_empty() {
            // Nothing below it: it may be a key itself.
            match self.store.head(&prefix).await {
                Ok(meta) => files.extend(self.file(&meta)),
                Err(error) => match self.error(&error) {
                    StorageError::NotFound { .. } => {}
                    error => return Err(error),
                },
            }
        }
        drop_markers(&mut files);
        Ok(files)
    }
}

/// Takes out empty objects that other files lie below: they stand for directories.
fn drop_markers(files: &mut Vec<RemoteFile>) {
    let mut directories = std::collections::HashSet::new();
    for file in files.iter() {
        let mut path = file.path.as_str();
        while let Some((parent, _)) = path.rsplit_once('/') {
            if !directories.insert(parent.to_owned()) {
                break;
            }
            path = parent;
        }
    }
    files.retain(|file| file.size != Some(0) || !directories.contains(&file.path));
}

impl Source for Objects {
    fn list(&self) -> BoxFuture<'_, Result<Vec<RemoteFile>, StorageError>> {
        Box::pin(self.below())
    }

    fn open<'a>(
        &'a self,
        file: &'a RemoteFile,
        start: u64,
    ) -> BoxFuture<'a, Result<Body, StorageError>> {
        Box::pin(async move {
            let path = Path::parse(&file.key).map_err(|error| self.error(&error.into()))?;
            let options = GetOptions {
                range: (start > 0).then_some(GetRange::Offset(start)),
                // The content that was listed, or an error.
                if_match: file.tag.clone().filter(|tag| tag.starts_with('"')),
                ..GetOptions::default()
            };
            let got = self.store.get_opts(&path, options).await;
            let got = got.map_err(|error| self.error(&error))?;
            let (protocol, uri) = (self.protocol, Arc::clone(&self.uri));
            let bytes =
                got.into_stream().map_err(move |error| error_of(protocol, &uri, &error)).boxed();
            Ok(Body { start, bytes })
        })
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}

/// Ours from theirs: the answer, or the lack of one, is somewhere among the causes.
pub(super) fn error_of(protocol: Protocol, uri: &str, error: &Error) -> StorageError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(this) = cause {
        if let Some(refused) = this.downcast_ref::<Refused>() {
            return StorageError::of_status(protocol, uri, refused.status, &refused.said);
        }
        if let Some(nobody) = this.downcast_ref::<Nobody>() {
            let (uri, detail) = (uri.to_owned(), nobody.to_string());
            return StorageError::Unauthorized { protocol, uri, detail };
        }
        if let Some(failed) = this.downcast_ref::<reqwest::Error>() {
            return StorageError::network(protocol, uri, failed);
        }
        cause = this.source();
    }
    let reason = error.to_string();
    match error {
        Error::NotFound { .. } => StorageError::of_status(protocol, uri, 404, &reason),
        _ => StorageError::malformed(protocol, uri, reason),
    }
}
