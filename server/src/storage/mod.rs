//! Models by address: `s3://`, `gs://`, Azure, HDFS, ModelScope, container images, Git and plain web servers, under the
//! variables and rules of KServe's storage initialiser.
//!
//! A scheme is one file with a `Source` (a list of files and their bytes) or a `Tree` (a directory that is written in one
//! go), and one line in `open`. What they share is here and in `download.rs`: patterns, retries, one directory per address
//! in which versions are whole or absent, archives.

mod answer;
mod archive;
mod azure_blob;
mod azure_files;
mod client;
mod confined;
mod download;
mod error;
mod git;
mod gs;
mod http;
#[cfg(test)]
mod loopback;
mod modelscope;
mod object;
mod oci;
pub(crate) mod patterns;
mod s3;
mod tar;
#[cfg(test)]
mod tests;
mod uri;
mod versions;
mod webhdfs;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use crate::config::StorageConfig;
pub use error::{Protocol, StorageError};
use uri::Place;
pub use uri::StorageUri;

/// What an address can be, behind an error.
const KNOWN: &str = "; known: a path, file://, hf:// or a hub id (org/name), gs://, s3://, hdfs://, webhdfs://, \
                     https:// of Azure blobs and file shares, modelscope://, oci://, https://host/path.git, http(s)://";

/// Most files that a listing may have, and how deep directories may lie in it.
const MOST_FILES: usize = 100_000;
const DEEPEST: usize = 32;

/// Told about bytes: those that are here, and all of them.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// A file below an address.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RemoteFile {
    /// Where it goes, relative to the model's directory.
    path: String,
    /// What its source calls it.
    key: String,
    /// Bytes, when the source says.
    size: Option<u64>,
    /// Changes when its content does: a checksum, an ETag, a time. Absent when nothing tells.
    tag: Option<String>,
}

/// The bytes of a file.
struct Body {
    /// Where they begin: what was asked for, or 0 when the source cannot go on in the middle.
    start: u64,
    /// What comes.
    bytes: BoxStream<'static, Result<Bytes, StorageError>>,
}

/// How much is asked of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limits {
    /// Files at the same time.
    files: usize,
    /// Tries of a request that makes no progress.
    attempts: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { files: 4, attempts: 3 }
    }
}

/// Files below an address. Errors that another try may help are tried again by the caller.
trait Source: Send + Sync {
    /// Every file below the address; directories and markers of them left out.
    fn list(&self) -> BoxFuture<'_, Result<Vec<RemoteFile>, StorageError>>;

    /// The bytes of one of them from `start` on, as they come.
    fn open<'a>(
        &'a self,
        file: &'a RemoteFile,
        start: u64,
    ) -> BoxFuture<'a, Result<Body, StorageError>>;

    /// The SHA-256 of a file in hexadecimal digits, when the source tells it.
    fn checksum<'a>(&self, _file: &'a RemoteFile) -> Option<&'a str> {
        None
    }

    /// How much may be asked of it.
    fn limits(&self) -> Limits {
        Limits::default()
    }
}

/// A directory that is written in one go.
trait Tree: Send + Sync {
    /// Names its content: a digest, a commit. Letters, digits and hyphens.
    fn version(&self) -> BoxFuture<'_, Result<String, StorageError>>;

    /// Writes this version into an empty directory.
    fn write<'a>(
        &'a self,
        version: &'a str,
        directory: &'a Path,
        progress: Progress<'a>,
    ) -> BoxFuture<'a, Result<(), StorageError>>;
}

/// What an address leads to.
enum Remote {
    Files(Box<dyn Source>),
    Tree(Box<dyn Tree>),
}

/// Who answers for an address. One line a scheme.
async fn open(uri: &StorageUri, config: &StorageConfig) -> Result<Remote, StorageError> {
    match &uri.place {
        Place::S3(bucket) => s3::open(uri, bucket, config).await,
        Place::Gs(bucket) => gs::open(uri, bucket, config).await,
        Place::AzureBlob(azure) => azure_blob::open(uri, azure, config),
        Place::AzureFile(azure) => azure_files::open(uri, azure, config),
        Place::Hdfs(path) => webhdfs::open(uri, path, config),
        Place::ModelScope(snapshot) => modelscope::open(uri, snapshot, config),
        Place::Oci(reference) => oci::open(uri, reference, config),
        Place::Git => git::open(uri, config),
        Place::Http => http::open(uri, config),
    }
}

/// The local path of a model: a directory, or its one file. Downloads what is not here; when the storage cannot be reached and
/// a version of the model is here, that is used.
///
/// # Errors
/// [`StorageError`] says what to do.
pub async fn fetch(
    config: &StorageConfig,
    uri: &StorageUri,
    progress: Progress<'_>,
) -> Result<PathBuf, StorageError> {
    if config.confidential {
        let reason = "encrypted models are not decrypted by this server; unset it, or let an init container do it";
        return Err(StorageError::setting("CONFIDENTIAL_ENABLED", reason));
    }
    if let Some(kind) = &config.unused_type {
        tracing::warn!(kind, "STORAGE_CONFIG is of a type that nothing is taken from");
    }
    let remote = open(uri, config).await?;
    let patterns = !config.allow.is_empty() || !config.ignore.is_empty();
    if patterns && matches!(remote, Remote::Tree(_)) {
        tracing::warn!(
            "STORAGE_ALLOW_PATTERNS and STORAGE_IGNORE_PATTERNS have no effect on images and repositories of Git"
        );
    }
    download::Download::new(config, uri).run(&remote, progress).await
}
