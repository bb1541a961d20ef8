//! What can go wrong between an address and its files.

use std::path::{Path, PathBuf};

/// Who keeps the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Amazon S3 and what speaks as it does.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Blobs and file shares of Azure.
    Azure,
    /// WebHDFS.
    Hdfs,
    /// ModelScope.
    ModelScope,
    /// A web server.
    Http,
    /// A repository of Git.
    Git,
    /// A registry of container images.
    Oci,
}

impl Protocol {
    /// As messages name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::S3 => "S3",
            Self::Gcs => "GCS",
            Self::Azure => "Azure",
            Self::Hdfs => "HDFS",
            Self::ModelScope => "ModelScope",
            Self::Http => "HTTP",
            Self::Git => "Git",
            Self::Oci => "OCI",
        }
    }

    /// What to do when it does not know us.
    pub fn advice(self) -> &'static str {
        match self {
            Self::S3 => {
                "Set AWS_ACCESS_KEY_ID/AWS_SECRET_ACCESS_KEY or use awsAnonymousCredential=true."
            }
            Self::Gcs => "Verify GOOGLE_APPLICATION_CREDENTIALS or use anonymous access.",
            Self::Azure => {
                "Verify AZURE_CLIENT_ID/AZURE_CLIENT_SECRET or AZURE_STORAGE_ACCESS_KEY."
            }
            Self::Hdfs => "Verify USER_PROXY, HEADERS and TLS_CERT of the mounted secret.",
            Self::ModelScope => "Set MODELSCOPE_API_TOKEN to a token that may read it.",
            Self::Http => "Set the variable <host>-headers to a JSON object of request headers.",
            Self::Git => "Set GIT_USERNAME/GIT_PASSWORD or use a public repository.",
            Self::Oci => "Point KSERVE_OCI_DOCKER_CONFIG to a docker config.json that knows it.",
        }
    }
}

/// Why a model is not here. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Nothing is there, or the patterns leave nothing of it.
    #[error("Failed to fetch model. No model found in {uri}.{detail}")]
    Empty {
        /// The address.
        uri: String,
        /// Empty, or what was left out; begins with a space.
        detail: String,
    },
    /// 401, or credentials that cannot be used.
    #[error("{} authentication failed for {uri}: {detail}. {}", protocol.name(), protocol.advice())]
    Unauthorized {
        /// Who refuses.
        protocol: Protocol,
        /// The address.
        uri: String,
        /// What it said.
        detail: String,
    },
    /// 403.
    #[error(
        "Access denied to {} resource '{uri}'. Verify permissions ({detail}). {}",
        protocol.name(),
        protocol.advice()
    )]
    Denied {
        /// Who refuses.
        protocol: Protocol,
        /// The address.
        uri: String,
        /// What it said.
        detail: String,
    },
    /// 404.
    #[error("{} resource '{uri}' not found ({detail}); check the spelling", protocol.name())]
    NotFound {
        /// Who does not have it.
        protocol: Protocol,
        /// The address.
        uri: String,
        /// What it said.
        detail: String,
    },
    /// Another status.
    #[error("{} request to '{uri}' failed with status code {status} ({detail})", protocol.name())]
    Status {
        /// Who answered.
        protocol: Protocol,
        /// The address.
        uri: String,
        /// Its status.
        status: u16,
        /// What it said.
        detail: String,
    },
    /// No answer, or half of one.
    #[error("{} transfer of '{uri}' failed: {reason}; check the network{hint}", protocol.name())]
    Network {
        /// Who was asked.
        protocol: Protocol,
        /// The address.
        uri: String,
        /// Every cause, outermost first.
        reason: String,
        /// Empty, or the setting that leads elsewhere; begins with a comma.
        hint: &'static str,
    },
    /// An answer that is not what its protocol says.
    #[error("{} answered something unexpected for '{uri}': {reason}", protocol.name())]
    Malformed {
        /// Who answered.
        protocol: Protocol,
        /// The address.
        uri: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A variable that cannot be meant.
    #[error("{variable}: {reason}")]
    Setting {
        /// Its name.
        variable: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// Known, but not done here.
    #[error("{uri}: {reason}")]
    Unsupported {
        /// The address.
        uri: String,
        /// What is missing, and what to do instead.
        reason: String,
    },
    /// An archive that is none, or not to be trusted.
    #[error("Failed to unpack archive file {file}: {reason}")]
    Archive {
        /// The archive.
        file: String,
        /// What is wrong with it.
        reason: String,
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

impl StorageError {
    /// An error of the file system.
    pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    /// A status that is no success. `uri` is the public text of what was asked, `detail` what the answer said.
    pub(super) fn of_status(protocol: Protocol, uri: &str, status: u16, detail: &str) -> Self {
        let uri = uri.to_owned();
        let detail = crate::error::clip(detail.trim());
        let detail = if detail.is_empty() { status.to_string() } else { detail };
        match status {
            401 => Self::Unauthorized { protocol, uri, detail },
            403 => Self::Denied { protocol, uri, detail },
            404 => Self::NotFound { protocol, uri, detail },
            _ => Self::Status { protocol, uri, status, detail },
        }
    }

    /// A request that got no answer, or half of one.
    pub(super) fn network(protocol: Protocol, uri: &str, error: &reqwest::Error) -> Self {
        Self::cut(protocol, uri, crate::outgoing::causes(error))
    }

    /// The same with a text.
    pub(super) fn cut(protocol: Protocol, uri: &str, reason: String) -> Self {
        let hint = match protocol {
            Protocol::S3 => ", and AWS_ENDPOINT_URL for a server of your own",
            Protocol::Hdfs => ", and HDFS_NAMENODE of the mounted secret",
            _ => "",
        };
        Self::Network { protocol, uri: uri.to_owned(), reason, hint }
    }

    /// An answer that is not what its protocol says.
    pub(super) fn malformed(protocol: Protocol, uri: &str, reason: impl Into<String>) -> Self {
        Self::Malformed { protocol, uri: uri.to_owned(), reason: reason.into() }
    }

    /// A variable that cannot be meant.
    pub(super) fn setting(variable: &str, reason: impl Into<String>) -> Self {
        Self::Setting { variable: variable.to_owned(), reason: reason.into() }
    }

    /// Whether another try may help.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Network { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 429) || *status >= 500,
            _ => false,
        }
    }
}
