//! The formats, how a directory is recognised, and loading.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::LoadError;
use crate::formats::FORMATS;
use crate::model::{Method, Model};

/// How sure a format is that files are its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Probe {
    /// Not this format.
    No,
    /// The name fits, the content says nothing against it.
    Maybe,
    /// The content says so.
    Yes,
}

/// What a caller asks of a load.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Name of the format (`--framework`, `modelFormat`); absent lets the content decide.
    pub format: Option<String>,
    /// Method of requests that name none (`PREDICT_PROBA`); absent means the format's own.
    pub method: Option<Method>,
}

/// A model's files: one file, or the visible files at the top of a directory. Symbolic links are followed.
#[derive(Clone, Debug)]
pub struct ModelFiles {
    /// The file or directory that was named.
    pub path: PathBuf,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// The files: sorted names in the directory without hidden ones, or the one file's name.
    pub names: Vec<String>,
}

/// Bytes of a file's head that probes look at.
pub const HEAD: usize = 512;

impl ModelFiles {
    /// Lists `path`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let io = |source| LoadError::Io { path: path.to_owned(), source };
        let is_directory = std::fs::metadata(path).map_err(io)?.is_dir();
        let mut names = Vec::new();
        if is_directory {
            for entry in std::fs::read_dir(path).map_err(io)? {
                let entry = entry.map_err(io)?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if !name.starts_with('.') && entry.path().is_file() {
                    names.push(name);
                }
            }
            names.sort();
        } else {
            names.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
        Ok(Self { path: path.to_owned(), is_directory, names })
    }

    /// The path of one of [`names`](Self::names).
    pub fn file(&self, name: &str) -> PathBuf {
        if self.is_directory { self.path.join(name) } else { self.path.clone() }
    }

    /// The first [`HEAD`] bytes of a file; fewer when it is shorter or cannot be read.
    pub fn head(&self, name: &str) -> Vec<u8> {
        let mut head = Vec::with_capacity(HEAD);
        if let Ok(file) = File::open(self.file(name)) {
            let _ = file.take(HEAD as u64).read_to_end(&mut head);
        }
        head
    }

    /// The names that end in one of `extensions` (lower case, with the dot), in any letter case.
    pub fn with_extension(&self, extensions: &[&str]) -> Vec<&str> {
        let fits = |name: &&str| {
            let name = name.to_ascii_lowercase();
            extensions.iter().any(|extension| name.ends_with(extension))
        };
        self.names.iter().map(String::as_str).filter(fits).collect()
    }

    /// The one file of a model that is a single file.
    ///
    /// # Errors
    /// When none or several fit.
    pub fn single(&self, extensions: &[&str]) -> Result<&str, LoadError> {
        if let (false, [name]) = (self.is_directory, self.names.as_slice()) {
            return Ok(name);
        }
        let found = self.with_extension(extensions);
        let path = self.path.clone();
        match found.as_slice() {
            [name] => Ok(name),
            [] => {
                let (looked, seen) = (extensions.join(", "), self.names.join(", "));
                let reason = format!("no model file ({looked}); the directory holds: {seen}");
                Err(LoadError::NotFound { path, reason })
            }
            several => {
                let reason = format!(
                    "More than one model file is detected in directory: {}",
                    several.join(", ")
                );
                Err(LoadError::NotFound { path, reason })
            }
        }
    }
}

/// A file format: one row of [`FORMATS`].
pub trait Format: Sync {
    /// KServe's `modelFormat.name`.
    fn name(&self) -> &'static str;
    /// Whether the files are of this format.
    fn probe(&self, files: &ModelFiles) -> Probe;
    /// Reads and checks everything, so that `predict` cannot fail on the model's account.
    ///
    /// # Errors
    /// Names the file, the place in it, and what would be right.
    fn load(&self, files: &ModelFiles, options: &LoadOptions) -> Result<Box<dyn Model>, LoadError>;
}

/// The format that `files` are of, if any.
pub fn recognise(files: &ModelFiles) -> Option<&'static dyn Format> {
    let rank = |format: &&&'static dyn Format| format.probe(files);
    let best = FORMATS.iter().rev().max_by_key(rank)?;
    (best.probe(files) > Probe::No).then_some(*best)
}

/// Loads a file or directory.
///
/// # Errors
/// When no format fits, or the one that does refuses.
pub fn load(path: &Path, options: &LoadOptions) -> Result<Box<dyn Model>, LoadError> {
    let files = ModelFiles::open(path)?;
    let known = || FORMATS.iter().map(|format| format.name()).collect::<Vec<_>>().join(", ");
    let format = match &options.format {
        Some(name) => FORMATS.iter().find(|format| format.name() == name).copied(),
        None => recognise(&files),
    };
    let Some(format) = format else {
        let reason = match &options.format {
            Some(name) => format!("the format {name:?} is not known; known are {}", known()),
            None => {
                format!("no file of a known format ({}); seen: {}", known(), files.names.join(", "))
            }
        };
        return Err(LoadError::NotFound { path: path.to_owned(), reason });
    };
    format.load(&files, options)
}
