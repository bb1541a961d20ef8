//! The cache's layout, as the hub's Python client has it: contents by checksum in `blobs/`, names as
//! links in `snapshots/<commit>/`, branches as files in `refs/`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::files::RemoteFile;
use super::{HubError, HubId};

/// The files of one repository in the cache.
#[derive(Clone, Debug)]
pub(super) struct RepositoryCache {
    root: PathBuf,
}

impl RepositoryCache {
    pub(super) fn new(cache: &Path, id: &HubId) -> Self {
        Self { root: cache.join(format!("models--{}--{}", id.owner, id.name)) }
    }

    /// Where the content with this checksum lies.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(etag)
    }

    /// Where the files of a commit lie.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    /// The commit that a revision was when it was last asked for.
    pub(super) fn commit(&self, revision: &str) -> Option<String> {
        let named = fs::read_to_string(self.root.join("refs").join(revision)).ok();
        let commit = named.map_or_else(|| revision.to_owned(), |text| text.trim().to_owned());
        (is_name(&commit) && self.snapshot(&commit).is_dir()).then_some(commit)
    }

    /// Remembers the commit of a revision.
    pub(super) fn remember(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        let path = self.root.join("refs").join(revision);
        if revision == commit || fs::read_to_string(&path).is_ok_and(|known| known.trim() == commit)
        {
            return Ok(());
        }
        make_parent(&path)?;
        fs::write(&path, commit).map_err(HubError::io(&path))
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
