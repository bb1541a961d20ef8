//! Settings of the model hub: the variables of its Python client mean the same here.

use std::path::PathBuf;

use super::storage::patterns;
use super::{Arguments, Environment, directory};

/// The public hub.
const ENDPOINT: &str = "https://huggingface.co";

/// Where the hub is, who we are to it, and where its files are kept.
#[derive(Clone, PartialEq, Eq)]
pub struct HubConfig {
    /// Address without a slash at its end.
    pub endpoint: String,
    /// Bearer token.
    pub token: Option<String>,
    /// Directory in the layout of the Python client (`models--org--name/...`).
    pub cache: PathBuf,
    /// Nothing is asked of the network.
    pub offline: bool,
    /// Branch, tag or commit when the model's name carries none.
    pub revision: Option<String>,
    /// Only files that match one of these shell patterns; all when empty.
    pub allow: Vec<String>,
    /// No file that matches one of these.
    pub ignore: Vec<String>,
}

/// The token stays out of logs.
impl std::fmt::Debug for HubConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubConfig")
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|token| format!("{} characters", token.len())))
            .field("cache", &self.cache)
            .field("offline", &self.offline)
            .field("revision", &self.revision)
            .field("allow", &self.allow)
            .field("ignore", &self.ignore)
            .finish()
    }
}

pub(super) fn hub(arguments: &Arguments, environment: &Environment) -> HubConfig {
    let home = home(environment);
    let cache = arguments
        .text("download-dir")
        .map(PathBuf::from)
        .or_else(|| directory(environment, "HF_HUB_CACHE"))
        .or_else(|| directory(environment, "HUGGINGFACE_HUB_CACHE"))
        .unwrap_or_else(|| home.join("hub"));
    let token_file = directory(environment, "HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
    let from_file = || std::fs::read_to_string(token_file).ok();
    let token = arguments
        .text("hf-token")
        .or_else(|| {
            environment.first(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]).map(|(_, token)| token)
        })
        .map(str::to_owned)
        .or_else(from_file)
        .map(|token| token.trim().to_owned())
        .filter(|token| !token.is_empty());
    HubConfig {
        endpoint: environment
            .get("HF_ENDPOINT")
            .unwrap_or(ENDPOINT)
            .trim_end_matches('/')
            .to_owned(),
        token,
        cache,
        offline: environment.is_true("HF_HUB_OFFLINE")
            || environment.is_true("TRANSFORMERS_OFFLINE"),
        revision: arguments.text("revision").map(str::to_owned),
        allow: patterns(environment, "STORAGE_ALLOW_PATTERNS"),
        ignore: patterns(environment, "STORAGE_IGNORE_PATTERNS"),
    }
}

/// `HF_HOME`, or the cache directory of the user, or of nobody: containers run under users without a home.
pub(super) fn home(environment: &Environment) -> PathBuf {
    directory(environment, "HF_HOME")
        .or_else(|| Some(directory(environment, "XDG_CACHE_HOME")?.join("huggingface")))
        .or_else(|| Some(directory(environment, "HOME")?.join(".cache/huggingface")))
        .unwrap_or_else(|| std::env::temp_dir().join("huggingface"))
}
