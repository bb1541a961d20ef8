//! API keys: those that were given, and those of a file that is read again on request.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use crate::app::ServerConfig;

/// A file with one key per line, as it was when it was read.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyFile {
    path: PathBuf,
    keys: Vec<String>,
}

/// Keys stay out of logs.
impl std::fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} keys of {}", self.keys.len(), self.path.display())
    }
}

impl KeyFile {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read or holds no key: an empty file would open the server.
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = std::fs::read_to_string(path)?;
        let lines = text.lines().map(str::trim).filter(|key| !key.is_empty());
        let keys: Vec<String> = lines.map(str::to_owned).collect();
        if keys.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file holds no key"));
        }
        Ok(Self { path: path.to_owned(), keys })
    }
}

/// The keys that open the routes at present.
pub(crate) struct Keys {
    given: Vec<String>,
    file: Option<PathBuf>,
    current: RwLock<Arc<[String]>>,
}

impl Keys {
    pub(crate) fn new(config: &ServerConfig) -> Self {
        let given = config.api_keys.clone();
        let file = config.api_key_file.as_ref();
        let current = together(&given, file);
        Self { given, file: file.map(|file| file.path.clone()), current: RwLock::new(current) }
    }

    /// The keys; none leaves the routes open.
    pub(crate) fn current(&self) -> Arc<[String]> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the file again; `None` without one. An error leaves the keys as they are.
    pub(crate) fn reload(&self) -> Option<io::Result<usize>> {
        let path = self.file.as_ref()?;
        Some(KeyFile::read(path).map(|file| {
            let fresh = together(&self.given, Some(&file));
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
            file.keys.len()
        }))
    }
}

fn together(given: &[String], file: Option<&KeyFile>) -> Arc<[String]> {
    given.iter().chain(file.map_or(&[][..], |file| &file.keys)).cloned().collect()
}
