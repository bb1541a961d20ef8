//! Why a model file cannot be loaded.

use std::path::PathBuf;

/// A failed load; every message names the file and says what would be right.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The bytes are not what their format says: a position or field, and what is wrong there.
    #[error("{file}: {at}: {reason}")]
    Corrupt {
        /// The file's name.
        file: String,
        /// Byte offset, line, or path of the field (`learner.gradient_booster.model.trees[3].left_children`).
        at: String,
        /// What is wrong.
        reason: String,
    },
    /// A well-formed file of something that is not supported: names it and what to do.
    #[error("{file}: {what}")]
    Unsupported {
        /// The file's name.
        file: String,
        /// What, and what would be right.
        what: String,
    },
    /// No model file, or more than one.
    #[error("{}: {reason}", path.display())]
    NotFound {
        /// The directory.
        path: PathBuf,
        /// Which files were seen and what is looked for.
        reason: String,
    },
}

/// A [`LoadError`] without its file: what parsers of bytes return, completed by [`Fault::of`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Wrong bytes at a position or field.
    #[error("{at}: {reason}")]
    Corrupt {
        /// Where.
        at: String,
        /// What is wrong.
        reason: String,
    },
    /// Not supported: names it and what would be right.
    #[error("{0}")]
    Unsupported(String),
}

impl Fault {
    /// Wrong bytes.
    pub fn corrupt(at: impl Into<String>, reason: impl Into<String>) -> Self {
        Fault::Corrupt { at: at.into(), reason: reason.into() }
    }

    /// A feature that is not supported.
    pub fn unsupported(what: impl Into<String>) -> Self {
        Fault::Unsupported(what.into())
    }

    /// The fault in a file.
    pub fn of(self, file: &str) -> LoadError {
        let file = file.to_owned();
        match self {
            Fault::Corrupt { at, reason } => LoadError::Corrupt { file, at, reason },
            Fault::Unsupported(what) => LoadError::Unsupported { file, what },
        }
    }
}
