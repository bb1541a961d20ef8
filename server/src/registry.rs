//! Names and what they serve.
//!
//! [`Served`] is the seam for other kinds of models: a kind is one variant here and the routes that ask
//! for it. Language models are there before the port opens and stay; classic models come and go in the
//! [`Repository`].

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokenmill_engine::handle::EngineHandle;
use tokenmill_engine::text::{ChatTemplate, TextPool, Tokenizer};

use crate::error::ApiError;
use crate::kserve::{Predictive, Unserved};
use crate::metrics::ModelMetrics;
use crate::repository::Repository;

/// Sampling values of the model's generation configuration; a request's own values win.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SamplingDefaults {
    /// Temperature.
    pub temperature: Option<f32>,
    /// Nucleus.
    pub top_p: Option<f32>,
    /// Most likely tokens kept; 0 keeps all.
    pub top_k: Option<u32>,
    /// Relative threshold.
    pub min_p: Option<f32>,
    /// Repetition penalty.
    pub repetition_penalty: Option<f32>,
    /// Upper bound of completion tokens when the request names none.
    pub max_new_tokens: Option<u32>,
}

/// What describes a generative model besides the engine: filled by whoever loaded it.
pub struct GenerativeParts {
    /// The engine that runs it.
    pub engine: EngineHandle,
    /// Threads for encoding and templates, with the model's tokenizer.
    pub text: TextPool,
    /// Its chat template.
    pub template: Option<ChatTemplate>,
    /// Tokens that end a completion by themselves.
    pub eos_tokens: Vec<u32>,
    /// Defaults of sampling.
    pub defaults: SamplingDefaults,
    /// What `GET /v1/models` prints as `root`: a repository id or the served name, not a path.
    pub root: String,
    /// Whether finished blocks are shared (an engine setting).
    pub prefix_cache: bool,
    /// Whether `priority` orders the queue (an engine setting).
    pub priorities: bool,
    /// Stored type of cached keys and values, for `vllm:cache_config_info`.
    pub kv_dtype: String,
}

/// A language model behind an engine. What describes it is read as its own: `model.engine`.
pub struct Generative {
    parts: GenerativeParts,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Seconds since the epoch at which it was registered.
    pub created: u64,
    /// `system_fingerprint` of its answers.
    pub fingerprint: String,
    /// Its counters and histograms.
    pub metrics: ModelMetrics,
}

impl Deref for Generative {
    type Target = GenerativeParts;

    fn deref(&self) -> &GenerativeParts {
        &self.parts
    }
}

impl Generative {
    /// Completes the parts.
    pub fn new(parts: GenerativeParts) -> Self {
        let limits = parts.engine.limits();
        let mut hasher = DefaultHasher::new();
        (&parts.root, &parts.kv_dtype, limits.vocab_size, limits.max_model_len).hash(&mut hasher);
        let build = hasher.finish() as u32;
        Self {
            metrics: ModelMetrics::new(limits.max_model_len),
            tokenizer: parts.text.tokenizer().clone(),
            created: unix_seconds(),
            fingerprint: format!("tokenmill-{}-{build:08x}", env!("CARGO_PKG_VERSION")),
            parts,
        }
    }

    /// Prompt plus completion.
    pub fn max_model_len(&self) -> u32 {
        self.engine.limits().max_model_len
    }

    /// Token ids are below it.
    pub fn vocab_size(&self) -> u32 {
        self.engine.limits().vocab_size
    }
}

/// Seconds since the epoch, for `created` fields.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

/// What a name stands for.
#[derive(Clone)]
pub enum Served {
    /// A language model.
    Generative(Arc<Generative>),
    /// A classic model.
    Predictive(Arc<Predictive>),
}

/// Names in the order of their registration; the first is the default.
#[derive(Default)]
pub struct Registry {
    entries: Vec<(String, Arc<Generative>)>,
    repository: Repository,
}

/// A name is taken.
#[derive(Debug, thiserror::Error)]
#[error("the model name {0:?} is given twice")]
pub struct NameTaken(pub String);

impl Registry {
    /// A registry over a repository of classic models.
    pub fn new(repository: Repository) -> Self {
        Self { entries: Vec::new(), repository }
    }

    /// Adds a name.
    ///
    /// # Errors
    /// When the name is there already.
    pub fn insert(&mut self, name: impl Into<String>, served: Served) -> Result<(), NameTaken> {
        let name = name.into();
        if self.find(&name).is_ok() {
            return Err(NameTaken(name));
        }
        match served {
            Served::Generative(model) => self.entries.push((name, model)),
            Served::Predictive(model) => self.repository.put(&name, model),
        }
        Ok(())
    }

    /// The classic models.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// All names: language models in the order of their registration, then classic models.
    pub fn names(&self) -> Vec<String> {
        let language = self.entries.iter().map(|(name, _)| name.clone());
        language.chain(self.repository.names()).collect()
    }

    /// What a name stands for.
    ///
    /// # Errors
    /// When there is no such name, or its classic model cannot answer.
    pub fn find(&self, name: &str) -> Result<Served, Unserved> {
        match self.language_model(name) {
            Some(model) => Ok(Served::Generative(Arc::clone(model))),
            None => self.repository.get(name, None).map(Served::Predictive),
        }
    }

    /// The language model of exactly this name.
    pub fn language_model(&self, name: &str) -> Option<&Arc<Generative>> {
        self.entries.iter().find(|(known, _)| known == name).map(|(_, model)| model)
    }

    /// The names of language models with what they stand for.
    pub fn language_models(&self) -> &[(String, Arc<Generative>)] {
        &self.entries
    }

    /// Whether a name can answer.
    ///
    /// # Errors
    /// When there is no such name or version.
    pub fn readiness(&self, name: &str, version: Option<&str>) -> Result<bool, Unserved> {
        match self.language_model(name) {
            Some(model) => Ok(model.engine.is_alive()),
            None => match self.repository.get(name, version) {
                Ok(_) => Ok(true),
                Err(Unserved::NotReady(_)) => Ok(false),
                Err(unknown) => Err(unknown),
            },
        }
    }

    /// The language model of a request and the name to print. Absent and empty mean the first one, and
    /// so do the names that clients of TGI and huggingface_hub send for any server: `tgi`, `dummy` and
    /// the server's own address.
    ///
    /// # Errors
    /// 404 for an unknown name.
    pub fn generative(&self, name: Option<&str>) -> Result<(&str, &Arc<Generative>), ApiError> {
        let name = name.unwrap_or_default();
        let found = self.entries.iter().find(|(known, _)| known == name);
        let anonymous = matches!(name, "" | "tgi" | "dummy")
            || name.starts_with("http://")
            || name.starts_with("https://");
        let first = || if anonymous { self.entries.first() } else { None };
        match found.or_else(first) {
            Some((known, model)) => Ok((known, model)),
            None => Err(ApiError::model_not_found(name)),
        }
    }

    /// The classic model of a request.
    ///
    /// # Errors
    /// When there is none of that name (and version) that can answer.
    pub fn predictive(
        &self,
        name: &str,
        version: Option<&str>,
    ) -> Result<Arc<Predictive>, Unserved> {
        match self.language_model(name) {
            Some(_) => Err(Unserved::Generative(name.to_owned())),
            None => self.repository.get(name, version),
        }
    }

    /// Every language model once, with its first name.
    pub fn generatives(&self) -> Vec<(&str, &Arc<Generative>)> {
        let mut models: Vec<(&str, &Arc<Generative>)> = Vec::new();
        for (name, model) in &self.entries {
            if !models.iter().any(|(_, known)| Arc::ptr_eq(known, model)) {
                models.push((name, model));
            }
        }
        models
    }

    /// Whether there is a model that can answer.
    pub fn has_ready(&self) -> bool {
        !self.entries.is_empty() || self.repository.has_ready()
    }

    /// Whether every engine is alive.
    pub fn is_alive(&self) -> bool {
        self.generatives().iter().all(|(_, model)| model.engine.is_alive())
    }
}
