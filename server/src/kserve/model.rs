//! A classic model as the routes see it.

use std::sync::Arc;

use tokenmill_predictive::PredictHandle;

use super::statistics::Statistics;

/// A loaded version of a classic model.
pub struct Predictive {
    /// Name in the URL.
    pub name: String,
    /// Its version in a repository of versions; `None` where there are none.
    pub version: Option<String>,
    /// Where requests go.
    pub handle: PredictHandle,
    /// Its counters.
    pub statistics: Arc<Statistics>,
    /// Size of the files that it was read from, which is near what it takes in memory; 0 where it was read from none.
    pub bytes: u64,
}

impl Predictive {
    /// A model under a name.
    pub fn new(name: impl Into<String>, version: Option<String>, handle: PredictHandle) -> Self {
        Self { name: name.into(), version, handle, statistics: Arc::default(), bytes: 0 }
    }
}

/// Why a name cannot answer a predict call; the texts are KServe's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unserved {
    /// 404.
    #[error("Model with name {0} does not exist.")]
    Unknown(String),
    /// 503: known, but loading, unloading or failed.
    #[error("Model with name {0} is not ready.")]
    NotReady(String),
    /// 501: a language model; its routes are OpenAI's.
    #[error("Model {0} is a language model: use the OpenAI routes, /v1/chat/completions")]
    Generative(String),
}
