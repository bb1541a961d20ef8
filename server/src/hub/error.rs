//! What can go wrong between a hub id and its files.

use std::path::{Path, PathBuf};

/// Why a model of the hub is not here. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// 401 or 403.
    #[error(
        "{repository}: the hub refuses access ({detail}): it does not exist, or it is private or gated; {advice}"
    )]
    Unauthorized {
        /// `org/name`.
        repository: String,
        /// What the hub said.
        detail: String,
        /// What to do about the token.
        advice: &'static str,
    },
    /// 404.
    #[error("{what} was not found on the hub; check the spelling")]
    NotFound {
        /// The repository, the revision or the file.
        what: String,
    },
    /// 429 until our patience ended.
    #[error(
        "{url}: the hub limits our requests (429); try again later, or set HF_TOKEN for a higher limit"
    )]
    RateLimited {
        /// What was asked.
        url: String,
    },
    /// Another status.
    #[error("{url}: the hub answered {status}")]
    Status {
        /// What was asked.
        url: String,
        /// Its status.
        status: u16,
    },
    /// No answer, or half of one.
    #[error("{url}: {reason}; check the network, or HF_ENDPOINT for a mirror")]
    Network {
        /// What was asked.
        url: String,
        /// Every cause, outermost first.
        reason: String,
    },
    /// An answer that is not what the hub sends.
    #[error("{url}: unexpected answer: {reason}")]
    Malformed {
        /// What was asked.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The hub may not be asked, and the cache does not have it.
    #[error("{what} is not in the cache {}, and HF_HUB_OFFLINE forbids to download it", cache.display())]
    Offline {
        /// Model and revision.
        what: String,
        /// The cache.
        cache: PathBuf,
    },
    /// Nothing in the repository can be served.
    #[error(
        "{repository} holds no model that is read (safetensors, .gguf, pickles, XGBoost, LightGBM, MLflow); {instead}"
    )]
    NoWeights {
        /// `org/name`.
        repository: String,
        /// What it holds instead.
        instead: String,
    },
    /// Several files that are models, none chosen.
    #[error("{repository} holds several models, choose one as {repository}:FILE among: {files}")]
    Ambiguous {
        /// `org/name`.
        repository: String,
        /// Their names and sizes.
        files: String,
    },
    /// A file does not have the content its name promises.
    #[error(
        "{file}: downloaded bytes differ from the hub's checksum ({found} instead of {expected}); removed, try again"
    )]
    Corrupt {
        /// The file.
        file: String,
        /// Checksum of what came.
        found: String,
        /// Checksum of what should have come.
        expected: String,
    },
    /// The cache cannot be used.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl HubError {
    /// An error of the file system.
    pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    /// A request that got no answer.
    pub(super) fn network(url: &str, error: &reqwest::Error) -> Self {
        let reason = crate::outgoing::causes(error);
        Self::Network { url: url.to_owned(), reason }
    }

    /// Whether another try may help.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Network { .. } | Self::RateLimited { .. } => true,
            Self::Status { status, .. } => *status == 408 || *status >= 500,
            _ => false,
        }
    }
}
