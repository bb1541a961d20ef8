//! The cache of the hub's Python client: contents by checksum in `blobs/`, names as links in
//! `snapshots/<commit>/`, branches as files in `refs/`. `hf-hub` knows where these lie; writing links and
//! listing what is here are added.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hf_hub::{Cache, CacheRepo, Repo, RepoType};

use super::files::RemoteFile;
use super::{HubError, HubId};

/// One revision of a repository in the cache.
#[derive(Debug)]
pub(super) struct RepositoryCache {
    layout: CacheRepo,
    /// Directory of the repository.
    root: PathBuf,
    revision: String,
}

impl RepositoryCache {
    pub(super) fn new(cache: &Path, id: &HubId, revision: &str) -> Self {
        let revision = revision.to_owned();
        let repo = Repo::with_revision(id.repository(), RepoType::Model, revision.clone());
        let root = cache.join(repo.folder_name());
        Self { layout: Cache::new(cache.to_owned()).repo(repo), root, revision }
    }

    /// Where the content with this checksum lies.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(etag)
    }

    /// Where the files of a commit lie.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.layout.pointer_path(commit)
    }

    /// The commit that the revision was when it was last asked for.
    pub(super) fn commit(&self) -> Option<String> {
        // The snapshot that the revision's file names, or that the revision itself names.
        let named = self.layout.get("");
        let named = named.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
        let commit = named.unwrap_or(&self.revision);
        (is_name(commit) && self.snapshot(commit).is_dir()).then(|| commit.to_owned())
    }

    /// Remembers the commit of the revision.
    pub(super) fn remember(&self, commit: &str) -> Result<(), HubError> {
        if self.commit().as_deref() == Some(commit) {
            return Ok(());
        }
        self.layout.create_ref(commit).map_err(HubError::io(&self.root.join("refs")))
    }

    /// Makes a file of a commit point at its content.
    pub(super) fn link(&self, commit: &str, path: &str, etag: &str) -> Result<(), HubError> {
        let link = self.snapshot(commit).join(path);
        make_parent(&link)?;
        let up = "../".repeat(path.matches('/').count() + 2);
        let target = PathBuf::from(format!("{up}blobs/{etag}"));
        if fs::read_link(&link).is_ok_and(|known| known == target) {
            return Ok(());
        }
        match std::os::unix::fs::symlink(&target, &link) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_file(&link).map_err(HubError::io(&link))?;
                std::os::unix::fs::symlink(&target, &link).map_err(HubError::io(&link))
            }
            other => other.map_err(HubError::io(&link)),
        }
    }

    /// The files of a commit that are here.
    pub(super) fn files(&self, commit: &str) -> Vec<RemoteFile> {
        let mut files = Vec::new();
        walk(&self.snapshot(commit), "", &mut files);
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files
    }
}

/// Whether a text can be the name of one file.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

pub(super) fn make_parent(path: &Path) -> Result<(), HubError> {
    match path.parent() {
        Some(parent) => fs::create_dir_all(parent).map_err(HubError::io(parent)),
        None => Ok(()),
    }
}

fn walk(directory: &Path, prefix: &str, files: &mut Vec<RemoteFile>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        // Follows links: a link without its content is no file.
        match fs::metadata(entry.path()) {
            Ok(meta) if meta.is_dir() => walk(&entry.path(), &format!("{path}/"), files),
            Ok(meta) => {
                files.push(RemoteFile { path, size: Some(meta.len()), etag: None, sha256: None });
            }
            Err(_) => {}
        }
    }
}
