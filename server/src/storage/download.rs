//! From an address to a directory: the list, the files that are wanted, a few at a time, each whole or absent.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};

use super::versions::{INCOMPLETE, Versions, digest, is_version};
use super::{
    Body, Limits, Progress, Remote, RemoteFile, Source, StorageError, StorageUri, Tree, archive,
    patterns,
};
use crate::config::StorageConfig;
use crate::hub::{is_model_file, sha256};

/// The first wait between two tries; nothing in tests.
const SECOND: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 1 });
/// Longest wait between two tries, in seconds.
const LONGEST_WAIT: u32 = 60;

/// One address on its way to a directory.
pub(super) struct Download<'a> {
    config: &'a StorageConfig,
    uri: &'a StorageUri,
    versions: Versions,
}

impl<'a> Download<'a> {
    pub(super) fn new(config: &'a StorageConfig, uri: &'a StorageUri) -> Self {
        let versions = Versions::new(&config.cache, uri);
        Self { config, uri, versions }
    }

    /// Brings the model here.
    pub(super) async fn run(
        &self,
        remote: &Remote,
        progress: Progress<'_>,
    ) -> Result<PathBuf, StorageError> {
        let _lock = self.versions.lock().await?;
        let current = self.versions.current();
        let limits = match remote {
            Remote::Files(source) => source.limits(),
            Remote::Tree(_) => Limits::default(),
        };
        // With a version here, a storage that is down is not waited for.
        let attempts = if current.is_some() { 1 } else { limits.attempts };
        let done = match remote {
            Remote::Files(source) => match self.retry(attempts, || source.list()).await {
                Ok(files) => Ok(self.files(source.as_ref(), files, limits, progress).await?),
                Err(error) => Err(error),
            },
            Remote::Tree(tree) => match self.retry(attempts, || tree.version()).await {
                Ok(version) => Ok(self.tree(tree.as_ref(), &version, progress).await?),
                Err(error) => Err(error),
            },
        };
        match (done, current) {
            (Ok(path), _) => Ok(only_file(path)),
            (Err(error), Some(version)) if error.is_transient() => {
                let path = self.versions.path(&version);
                tracing::warn!(%error, path = %path.display(), "using the model that is here");
                Ok(only_file(path))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// The directory of the version that these files are.
    async fn files(
        &self,
        source: &dyn Source,
        files: Vec<RemoteFile>,
        limits: Limits,
        progress: Progress<'_>,
    ) -> Result<PathBuf, StorageError> {
        let files = self.wanted(files)?;
        let version = version(&files);
        if self.versions.path(&version).is_dir() {
            return self.versions.finish(&version);
        }
        let directory = self.versions.incomplete(&version);
        fs::create_dir_all(&directory).map_err(StorageError::io(&directory))?;
        let total: u64 = files.iter().filter_map(|file| file.size).sum();
        let done = AtomicU64::new(0);
        let advance = |bytes: u64| {
            progress(done.fetch_add(bytes, Ordering::Relaxed).wrapping_add(bytes), total);
        };
        let mut transfers: Vec<BoxFuture<'_, Result<(), StorageError>>> = Vec::new();
        for file in &files {
            transfers.push(self.file(source, file, &directory, limits, &advance).boxed());
        }
        stream::iter(transfers).buffer_unordered(limits.files.max(1)).try_collect::<()>().await?;
        if let [only] = files.as_slice() {
            let (file, away) = (directory.join(&only.path), self.versions.archive(&version));
            let unpack = move || archive::unpack(&file, &away, &directory);
            let unpacked = tokio::task::spawn_blocking(unpack).await;
            unpacked.expect("the readers of archives do not panic")?;
        }
        self.versions.note(&version, &files)?;
        self.versions.finish(&version)
    }

    /// The directory of a version of a tree.
    async fn tree(
        &self,
        tree: &dyn Tree,
        version: &str,
        progress: Progress<'_>,
    ) -> Result<PathBuf, StorageError> {
        assert!(is_version(version), "a tree names its version with letters, digits and hyphens");
        if !self.versions.path(version).is_dir() {
            let directory = self.versions.incomplete(version);
            let empty = || match fs::remove_dir_all(&directory) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => fs::create_dir_all(&directory),
            };
            let write = || async {
                empty().map_err(StorageError::io(&directory))?;
                tree.write(version, &directory, progress).await
            };
            self.retry(Limits::default().attempts, write).await?;
        }
        self.versions.finish(version)
    }

    /// The files that the patterns leave, checked.
    fn wanted(&self, files: Vec<RemoteFile>) -> Result<Vec<RemoteFile>, StorageError> {
        let found = files.len();
        let (allow, ignore) = (&self.config.allow, &self.config.ignore);
        let mut wanted: Vec<RemoteFile> =
            files.into_iter().filter(|file| patterns::wants(allow, ignore, &file.path)).collect();
        wanted.sort_by(|a, b| a.path.cmp(&b.path));
        if wanted.is_empty() {
            let left_out = " STORAGE_ALLOW_PATTERNS and STORAGE_IGNORE_PATTERNS leave none of its";
            let detail = match found {
                0 => String::new(),
                _ => format!("{left_out} {found} files."),
            };
            return Err(StorageError::Empty { uri: self.uri.to_string(), detail });
        }
        let mut seen = BTreeSet::new();
        for file in &wanted {
            let what = crate::error::clip(&file.path);
            let unusable = |why: &str| StorageError::Unsupported {
                uri: self.uri.to_string(),
                reason: format!("the file {what:?} {why}; STORAGE_IGNORE_PATTERNS leaves it out"),
            };
            if !is_relative(&file.path) {
                return Err(unusable("does not lie below it"));
            }
            if !seen.insert(file.path.as_str()) {
                return Err(unusable("is there twice"));
            }
            // `a` and `a/b` cannot both be files of a directory.
            let mut above = file.path.as_str();
            while let Some((parent, _)) = above.rsplit_once('/') {
                if seen.contains(parent) {
                    return Err(unusable("lies below a file"));
                }
                above = parent;
            }
        }
        Ok(wanted)
    }

    /// One file: linked from the version before, or downloaded.
    async fn file(
        &self,
        source: &dyn Source,
        file: &RemoteFile,
        directory: &Path,
        limits: Limits,
        advance: &(dyn Fn(u64) + Sync),
    ) -> Result<(), StorageError> {
        let path = directory.join(&file.path);
        // Complete from an attempt that ended early: the version's name tells that it is the same content.
        if path.is_file() && file.tag.is_some() {
            advance(file.size.unwrap_or(0));
            return Ok(());
        }
        let parent = path.parent().unwrap_or(directory);
        fs::create_dir_all(parent).map_err(StorageError::io(parent))?;
        if let Some(known) = self.versions.same(file)
            && fs::hard_link(&known, &path).is_ok()
        {
            advance(file.size.unwrap_or(0));
            return Ok(());
        }
        let mut part = Part::open(&path, file)?;
        advance(part.length);
        let mut tried = 0;
        loop {
            let before = part.length;
            let error = match part.append(self.uri, source, file, advance).await {
                Ok(()) => return part.finish(self.uri, &path, source.checksum(file)).await,
                Err(error) => error,
            };
            tried = if part.length > before { 1 } else { tried + 1 };
            if !error.is_transient() || tried >= limits.attempts {
                return Err(error);
            }
            self.wait(tried, &error).await;
        }
    }

    /// Tries again, later and later, what another try may help.
    async fn retry<T, F, R>(&self, attempts: u32, mut attempt: F) -> Result<T, StorageError>
    where
        F: FnMut() -> R,
        R: Future<Output = Result<T, StorageError>>,
    {
        for tried in 1..attempts {
            match attempt().await {
                Err(error) if error.is_transient() => self.wait(tried, &error).await,
                other => return other,
            }
        }
        attempt().await
    }

    /// Waits before try number `tried + 1`: 1, 2, 4, ... seconds.
    async fn wait(&self, tried: u32, error: &StorageError) {
        let seconds = (1 << (tried - 1).min(8)).min(LONGEST_WAIT);
        tracing::warn!(%error, seconds, "trying again");
        tokio::time::sleep(SECOND * seconds).await;
    }
}

/// A file that is not complete yet.
struct Part {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Part {
    /// What there is of a file; nothing when its content may have changed since.
    fn open(path: &Path, file: &RemoteFile) -> Result<Self, StorageError> {
        let mut name = path.as_os_str().to_owned();
        name.push(INCOMPLETE);
        let path = PathBuf::from(name);
        let io = StorageError::io(&path);
        let open = || {
            let mut options = OpenOptions::new();
            options.create(true).truncate(file.tag.is_none()).write(true);
            let mut opened = options.open(&path)?;
            let length = opened.seek(SeekFrom::End(0))?;
            Ok((opened, length))
        };
        let (opened, length) = open().map_err(io)?;
        let mut part = Self { path, file: opened, length };
        if file.size.is_some_and(|size| part.length > size) {
            part.restart()?;
        }
        Ok(part)
    }

    fn restart(&mut self) -> Result<(), StorageError> {
        self.length = 0;
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map(drop).map_err(StorageError::io(&self.path))
    }

    /// One request for the rest of a file.
    async fn append(
        &mut self,
        uri: &StorageUri,
        source: &dyn Source,
        file: &RemoteFile,
        advance: &(dyn Fn(u64) + Sync),
    ) -> Result<(), StorageError> {
        if self.length > 0 && file.size == Some(self.length) {
            return Ok(());
        }
        let Body { start, mut bytes } = source.open(file, self.length).await?;
        if start != self.length {
            // The source starts over.
            advance(0u64.wrapping_sub(self.length));
            self.restart()?;
        }
        while let Some(chunk) = bytes.next().await {
            let chunk = chunk?;
            self.length = self.length.saturating_add(chunk.len() as u64);
            if file.size.is_some_and(|size| self.length > size) {
                break;
            }
            self.file.write_all(&chunk).map_err(StorageError::io(&self.path))?;
            advance(chunk.len() as u64);
        }
        match file.size {
            Some(size) if size != self.length => {
                let reason = format!("got {} of {size} bytes of {}", self.length, file.path);
                if self.length > size {
                    self.restart()?;
                }
                Err(StorageError::cut(uri.protocol(), &uri.to_string(), reason))
            }
            _ => Ok(()),
        }
    }

    /// Moves a complete file into place, when it is what its checksum says.
    async fn finish(
        mut self,
        uri: &StorageUri,
        path: &Path,
        checksum: Option<&str>,
    ) -> Result<(), StorageError> {
        self.file
            .flush()
            .and_then(|()| self.file.sync_all())
            .map_err(StorageError::io(&self.path))?;
        if let Some(expected) = checksum {
            let part = self.path.clone();
            let hashed = tokio::task::spawn_blocking(move || sha256(&mut File::open(part)?)).await;
            let found = hashed.unwrap_or_else(|panic| Err(std::io::Error::other(panic)));
            let found = found.map_err(StorageError::io(&self.path))?;
            if !found.eq_ignore_ascii_case(expected) {
                fs::remove_file(&self.path).map_err(StorageError::io(&self.path))?;
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let reason = format!(
                    "the bytes of {name} have the checksum {found} instead of {expected}; removed, try again"
                );
                return Err(StorageError::malformed(uri.protocol(), &uri.to_string(), reason));
            }
        }
        fs::rename(&self.path, path).map_err(StorageError::io(path))
    }
}

/// Names what the files are: the same files, the same version. A file that nothing is known of makes it a new one each time.
fn version(files: &[RemoteFile]) -> String {
    let mut texts = Vec::with_capacity(files.len() * 3);
    for file in files {
        texts.push(file.path.clone());
        texts.push(file.size.map_or_else(String::new, |size| size.to_string()));
        texts.push(file.tag.clone().unwrap_or_else(crate::random::id));
    }
    digest(texts.iter().map(String::as_str))[..32].to_owned()
}

/// A path that stays below the directory it is joined to.
fn is_relative(path: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', '\0'])
    };
    path.split('/').all(part)
}

/// The one file of a directory when it can be a model by itself, else the directory.
fn only_file(directory: PathBuf) -> PathBuf {
    let Ok(entries) = fs::read_dir(&directory) else { return directory };
    let mut paths = entries.flatten().map(|entry| entry.path());
    match (paths.next(), paths.next()) {
        (Some(path), None) if path.is_file() && is_model_file(&path.to_string_lossy()) => path,
        _ => directory,
    }
}
