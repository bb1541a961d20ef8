//! Everything that can be wrong with a model before it serves: files, fields, tensors.

use std::path::{Path, PathBuf};

/// Why a model cannot be loaded. The text names the file, the field or the tensor, and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The operating system refused to read a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The path holds no model that can be read.
    #[error("{}: {reason}", path.display())]
    NotAModel {
        /// The path that was given.
        path: PathBuf,
        /// What was looked for.
        reason: String,
    },
    /// A file does not follow its format.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
    },
    /// An error found in one file.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error.
        source: Box<LoadError>,
    },
    /// A field of the configuration is missing or has a value that cannot be used.
    #[error("{field}: {reason}")]
    Config {
        /// Its name in the file.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No model file for this architecture.
    #[error("architecture {name} is not supported; supported: {known}")]
    UnknownArchitecture {
        /// As the checkpoint names it.
        name: String,
        /// The supported ones.
        known: String,
    },
    /// The model needs a tensor that the checkpoint does not have.
    #[error("tensor {tensor} is missing")]
    MissingTensor {
        /// Its name.
        tensor: String,
    },
    /// A tensor has another shape than the configuration says.
    #[error("tensor {tensor} in {} has shape {found:?}, expected {expected:?}", path.display())]
    Shape {
        /// Its name in the file.
        tensor: String,
        /// The file.
        path: PathBuf,
        /// Shape in the file, outputs first.
        found: Vec<usize>,
        /// Shape that the configuration asks for.
        expected: Vec<usize>,
    },
    /// A tensor is stored in a type that cannot be computed with.
    #[error("tensor {tensor} is {dtype}, which is not supported; supported: {supported}")]
    UnsupportedType {
        /// Its name in the file.
        tensor: String,
        /// Its type.
        dtype: String,
        /// The supported ones.
        supported: String,
    },
    /// A tensor cannot be used for another reason.
    #[error("tensor {tensor}: {reason}")]
    Tensor {
        /// Its name.
        tensor: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl LoadError {
    /// A configuration error.
    pub fn config(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Config { field: field.into(), reason: reason.into() }
    }

    /// A malformed file.
    pub fn format(path: &Path, reason: impl Into<String>) -> Self {
        Self::Format { path: path.to_owned(), reason: reason.into() }
    }

    /// The same error, with the file it was found in.
    #[must_use]
    pub fn in_file(self, path: &Path) -> Self {
        Self::File { path: path.to_owned(), source: Box::new(self) }
    }
}
