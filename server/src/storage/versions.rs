//! The directory of one address in the cache: versions of the model beside each other, each whole or `.incomplete`.
//!
//! `current` names the version that was fetched last; the one before it is kept for those who still read it.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{RemoteFile, StorageError, StorageUri};

/// Ending of what is not complete.
pub(super) const INCOMPLETE: &str = ".incomplete";
/// Ending of the list of a version's files.
const LIST: &str = ".files.json";

/// Versions of the model of one address.
#[derive(Debug)]
pub(super) struct Versions {
    root: PathBuf,
}

/// A file as the list of a version names it.
#[derive(Serialize, Deserialize)]
struct Listed {
    path: String,
    size: Option<u64>,
    tag: Option<String>,
}

impl Versions {
    pub(super) fn new(cache: &Path, uri: &StorageUri) -> Self {
        let scheme = uri.secret_text().split("://").next().unwrap_or_default();
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
        let name: String = uri.name().chars().map(plain).take(64).collect();
        let digest = digest([uri.secret_text()]);
        Self { root: cache.join(format!("{scheme}--{name}--{}", &digest[..16])) }
    }

    /// Waits until no other process fetches this address; the lock is held until the file is dropped.
    pub(super) async fn lock(&self) -> Result<File, StorageError> {
        fs::create_dir_all(&self.root).map_err(StorageError::io(&self.root))?;
        let path = self.root.join("lock");
        let opened = path.clone();
        let lock = move || {
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&opened)?;
            file.lock()?;
            Ok(file)
        };
        let locked = tokio::task::spawn_blocking(lock).await;
        let locked = locked.unwrap_or_else(|panic| Err(std::io::Error::other(panic)));
        locked.map_err(StorageError::io(&path))
    }

    /// The version that was fetched last, when it is here.
    pub(super) fn current(&self) -> Option<String> {
        let version = fs::read_to_string(self.root.join("current")).ok()?;
        (is_version(&version) && self.path(&version).is_dir()).then_some(version)
    }

    /// Where a version is, or will be.
    pub(super) fn path(&self, version: &str) -> PathBuf {
        self.root.join(version)
    }

    /// Where a version is made.
    pub(super) fn incomplete(&self, version: &str) -> PathBuf {
        self.root.join(format!("{version}{INCOMPLETE}"))
    }

    /// Where the archive of a version is while it is unpacked.
    pub(super) fn archive(&self, version: &str) -> PathBuf {
        self.root.join(format!("{version}.archive"))
    }

    /// A file of the current version with this path, size and tag.
    pub(super) fn same(&self, file: &RemoteFile) -> Option<PathBuf> {
        file.tag.as_ref()?;
        let current = self.current()?;
        let list = fs::read(self.root.join(format!("{current}{LIST}"))).ok()?;
        let list: Vec<Listed> = serde_json::from_slice(&list).ok()?;
        let same = |known: &Listed| {
            known.path == file.path && known.size == file.size && known.tag == file.tag
        };
        let path = self.path(&current).join(&file.path);
        (list.iter().any(same) && path.is_file()).then_some(path)
    }

    /// Notes what a version that is being made consists of.
    pub(super) fn note(&self, version: &str, files: &[RemoteFile]) -> Result<(), StorageError> {
        let listed = |file: &RemoteFile| {
            let RemoteFile { path, size, tag, .. } = file.clone();
            Listed { path, size, tag }
        };
        let list: Vec<Listed> = files.iter().map(listed).collect();
        let text = serde_json::to_vec(&list).expect("texts and numbers can be written");
        self.replace(&format!("{version}{LIST}"), &text)
    }

    /// Makes a complete version the current one and takes away those before the last.
    pub(super) fn finish(&self, version: &str) -> Result<PathBuf, StorageError> {
        let path = self.path(version);
        if !path.is_dir() {
            fs::rename(self.incomplete(version), &path).map_err(StorageError::io(&path))?;
        }
        let before = self.current();
        if before.as_deref() != Some(version) {
            self.replace("current", version.as_bytes())?;
            self.clean(&[Some(version), before.as_deref()]);
        }
        Ok(path)
    }

    fn replace(&self, name: &str, content: &[u8]) -> Result<(), StorageError> {
        let path = self.root.join(name);
        let part = self.root.join(format!("{name}{INCOMPLETE}"));
        fs::write(&part, content).map_err(StorageError::io(&part))?;
        fs::rename(&part, &path).map_err(StorageError::io(&path))
    }

    /// Takes away every version that is not kept; what cannot be is left.
    fn clean(&self, kept: &[Option<&str>]) {
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let version = name.split('.').next().unwrap_or_default();
            if name == "lock" || name == "current" || kept.contains(&Some(version)) {
                continue;
            }
            let path = entry.path();
            let removed =
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            if let Err(error) = removed {
                tracing::warn!(path = %path.display(), %error, "an old version cannot be removed");
            }
        }
    }
}

/// Whether a text can be the name of a version.
pub(super) fn is_version(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=128).contains(&text.len())
        && text.bytes().all(known)
        && !matches!(text, "lock" | "current")
}

/// SHA-256 of some texts in hexadecimal digits; where one ends and the next begins counts.
pub(super) fn digest<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for text in texts {
        context.update(&(text.len() as u64).to_le_bytes());
        context.update(text.as_bytes());
    }
    context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
