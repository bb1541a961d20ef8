//! Classic models by name: loaded, replaced and taken away while requests run.
//!
//! A request takes its model once and keeps it to its end, so a load or unload never drops one: the new version is loaded
//! beside the old, one store makes it the model of the name, and the old goes with its last request.

mod layout;
mod pbtxt;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokenmill_predictive::{
    HandleOptions, LoadError, LoadOptions, Model, ModelFiles, PredictHandle, PredictPool,
};

use crate::config::StorageConfig;
use crate::kserve::failure::{Failure, FailureKind};
use crate::kserve::{Predictive, Unserved};
use crate::storage::{self, StorageUri};
use layout::Layout;

/// Where models come from and how they run.
#[derive(Clone)]
pub struct RepositoryConfig {
    /// The directory whose sub-directories are models; `None` when only named files are served.
    pub root: Option<PathBuf>,
    /// Where a load call gets the files from; `None` when they are read where they lie.
    pub remote: Option<RemoteModels>,
    /// What loads ask for.
    pub options: LoadOptions,
    /// How requests are run; a model's own configuration wins.
    pub handle: HandleOptions,
    /// The threads.
    pub pool: PredictPool,
}

/// Models of an address of storage.
#[derive(Clone, Debug)]
pub struct RemoteModels {
    /// The address of the one model, or of the directory of all.
    pub uri: StorageUri,
    /// Whether models lie below it, each under its name.
    pub below: bool,
    /// How it is asked.
    pub storage: StorageConfig,
}

impl RemoteModels {
    /// The files of a model, as they are now.
    async fn fetch(&self, name: &str) -> Result<PathBuf, String> {
        let uri = if self.below { self.uri.join(name)? } else { self.uri.clone() };
        storage::fetch(&self.storage, &uri, &|_, _| {}).await.map_err(|error| error.to_string())
    }
}

/// State of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Ready,
    Loading,
    Unavailable(String),
}

/// A name.
struct Slot {
    /// Where its files are.
    path: PathBuf,
    /// The versions that answer, in ascending order; the last is the one of requests that name none.
    versions: Vec<Arc<Predictive>>,
    state: State,
    /// Held while it is loaded or taken away, so that both happen one after the other.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Slot {
    fn new(path: &Path) -> Self {
        let (versions, state) = (Vec::new(), State::Loading);
        Self { path: path.to_owned(), versions, state, turn: Arc::default() }
    }
}

/// One line of the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The model's name.
    pub name: String,
    /// Its version; empty where there are none.
    pub version: String,
    /// `READY`, `LOADING` or `UNAVAILABLE`.
    pub state: &'static str,
    /// Why it is unavailable.
    pub reason: String,
}

/// The models. Without a configuration it holds what was put in and loads nothing.
#[derive(Default)]
pub struct Repository {
    config: Option<RepositoryConfig>,
    slots: Arc<Slots>,
    ready_when_empty: bool,
}

/// Names and what is known of them.
#[derive(Default)]
struct Slots(RwLock<BTreeMap<String, Slot>>);

impl Slots {
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, Slot>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Slot>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how a load ended. A name that was unloaded in between comes back: the load is the later call.
    fn loaded(
        &self,
        name: &str,
        path: &Path,
        loaded: Result<Vec<Arc<Predictive>>, String>,
    ) -> Result<(), Failure> {
        let mut slots = self.write();
        let slot = slots.entry(name.to_owned()).or_insert_with(|| Slot::new(path));
        match loaded {
            Ok(versions) => {
                slot.versions = versions;
                slot.state = State::Ready;
                Ok(())
            }
            Err(reason) => {
                if slot.versions.is_empty() {
                    slot.state = State::Unavailable(reason.clone());
                }
                Err(not_ready(name, Some(&reason)))
            }
        }
    }
}

impl Repository {
    /// A repository without models yet.
    pub fn new(config: RepositoryConfig) -> Self {
        Self { config: Some(config), ..Self::default() }
    }

    /// Counts as ready without a model: calls will load them.
    pub fn ready_when_empty(self) -> Self {
        Self { ready_when_empty: true, ..self }
    }

    /// The directory whose sub-directories are models.
    pub fn root(&self) -> Option<&Path> {
        self.config.as_ref()?.root.as_deref()
    }

    /// Adds a model that is loaded already.
    pub fn put(&self, name: &str, model: Arc<Predictive>) {
        let mut slot = Slot::new(Path::new(""));
        slot.versions.push(model);
        slot.state = State::Ready;
        self.slots.write().insert(name.to_owned(), slot);
    }

    /// Names of the directories below the root that could be models, sorted.
    ///
    /// # Errors
    /// When the root cannot be listed.
    pub fn candidates(&self) -> std::io::Result<Vec<String>> {
        let Some(root) = self.root() else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(root)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') && entry.path().is_dir() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Loads (or loads again) the model of a directory below the root. A failed load leaves what was there.
    ///
    /// # Errors
    /// The name is none below the root, or the files are refused; KServe's text, with the reason behind it.
    pub async fn load(&self, name: &str, config: Option<&str>) -> Result<(), Failure> {
        let known = self.slots.read().get(name).map(|slot| slot.path.clone());
        let remote = self.config.as_ref().and_then(|config| config.remote.as_ref());
        let path = match (remote, known, self.root()) {
            (Some(remote), known, _) if is_plain(name) && (remote.below || known.is_some()) => {
                remote.fetch(name).await.map_err(|reason| not_ready(name, Some(&reason)))?
            }
            (None, Some(path), _) => path,
            (None, None, Some(root)) if is_plain(name) && root.join(name).is_dir() => {
                root.join(name)
            }
            _ => return Err(not_ready(name, None)),
        };
        self.load_from(name, &path, config).await
    }

    /// Loads the model of a file or directory under a name.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub async fn load_from(
        &self,
        name: &str,
        path: &Path,
        config: Option<&str>,
    ) -> Result<(), Failure> {
        let settings = self.config.clone().ok_or_else(|| not_ready(name, None))?;
        let turn = {
            let mut slots = self.slots.write();
            let slot = slots.entry(name.to_owned()).or_insert_with(|| Slot::new(path));
            Arc::clone(&slot.turn)
        };
        let turn = turn.lock_owned().await;
        let slots = Arc::clone(&self.slots);
        let (owned, path) = (name.to_owned(), path.to_owned());
        let config = config.map(str::to_owned);
        // All of it on the other thread: a client that goes away does not leave the name half loaded.
        let work = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let read = || versions(&owned, &path, config.as_deref(), &settings);
            let loaded = catch_unwind(AssertUnwindSafe(read));
            let loaded = loaded.unwrap_or_else(|_| Err("the loader failed".to_owned()));
            slots.loaded(&owned, &path, loaded)
        });
        work.await.unwrap_or_else(|_| Err(not_ready(name, None)))
    }

    /// Takes a name away; requests that have its model finish. Works without its files.
    ///
    /// # Errors
    /// When there is no such name.
    pub async fn unload(&self, name: &str) -> Result<(), Failure> {
        let turn = self.slots.read().get(name).map(|slot| Arc::clone(&slot.turn));
        let unknown = || Failure::from(Unserved::Unknown(name.to_owned()));
        let _turn = turn.ok_or_else(unknown)?.lock_owned().await;
        self.slots.write().remove(name).map(drop).ok_or_else(unknown)
    }

    /// The model of a name; without a version the newest.
    ///
    /// # Errors
    /// When there is none, or it cannot answer.
    pub fn get(&self, name: &str, version: Option<&str>) -> Result<Arc<Predictive>, Unserved> {
        let slots = self.slots.read();
        let unknown = || Unserved::Unknown(name.to_owned());
        let slot = slots.get(name).ok_or_else(unknown)?;
        let Some(last) = slot.versions.last() else {
            return Err(Unserved::NotReady(name.to_owned()));
        };
        match version {
            None => Ok(Arc::clone(last)),
            Some(version) => {
                let fits = |model: &&Arc<Predictive>| model.version.as_deref() == Some(version);
                slot.versions.iter().find(fits).map(Arc::clone).ok_or_else(unknown)
            }
        }
    }

    /// The versions of a name that answer, in ascending order; none for a model without versions.
    pub fn versions(&self, name: &str) -> Vec<String> {
        let slots = self.slots.read();
        let models = slots.get(name).into_iter().flat_map(|slot| &slot.versions);
        models.filter_map(|model| model.version.clone()).collect()
    }

    /// Whether a name is known, ready or not.
    pub fn knows(&self, name: &str) -> bool {
        self.slots.read().contains_key(name)
    }

    /// Whether any model answers, or none has to.
    pub fn has_ready(&self) -> bool {
        self.ready_when_empty || self.slots.read().values().any(|slot| !slot.versions.is_empty())
    }

    /// Every model that answers, the versions of a name one after the other.
    pub fn ready(&self) -> Vec<Arc<Predictive>> {
        self.slots.read().values().flat_map(|slot| slot.versions.iter().map(Arc::clone)).collect()
    }

    /// The names that are known, ready or not.
    pub fn names(&self) -> Vec<String> {
        self.slots.read().keys().cloned().collect()
    }

    /// Triton's repository index; `ready` leaves out what cannot answer. Directories that were never loaded are named as
    /// unavailable.
    pub fn index(&self, ready: bool) -> Vec<IndexEntry> {
        let mut entries = Vec::new();
        let slots = self.slots.read();
        for (name, slot) in slots.iter() {
            let (state, reason) = match &slot.state {
                State::Ready => ("READY", String::new()),
                State::Loading if slot.versions.is_empty() => ("LOADING", String::new()),
                State::Loading => ("READY", String::new()),
                State::Unavailable(reason) => ("UNAVAILABLE", reason.clone()),
            };
            let entry = |version: &str| IndexEntry {
                name: name.clone(),
                version: version.to_owned(),
                state,
                reason: reason.clone(),
            };
            match slot.versions.as_slice() {
                [] => entries.push(entry("")),
                versions => entries.extend(
                    versions.iter().map(|model| entry(model.version.as_deref().unwrap_or(""))),
                ),
            }
        }
        for name in self.candidates().unwrap_or_default() {
            if !slots.contains_key(&name) {
                let (version, reason) = (String::new(), "unloaded".to_owned());
                entries.push(IndexEntry { name, version, state: "UNAVAILABLE", reason });
            }
        }
        entries.retain(|entry| !ready || entry.state == "READY");
        entries
    }
}

/// A visible name that is one part of a path and nothing else.
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    !name.starts_with('.')
        && matches!((parts.next(), parts.next()), (Some(std::path::Component::Normal(part)), None) if part == name)
}

fn not_ready(name: &str, reason: Option<&str>) -> Failure {
    let name = crate::error::clip(name);
    let text = match reason {
        None => format!("Model with name {name} is not ready."),
        Some(reason) => {
            format!(
                "Model with name {name} is not ready. Error type: LoadError error msg: {reason}"
            )
        }
    };
    Failure::new(FailureKind::NotReady, text)
}

/// Reads every version that the layout serves. Blocks.
fn versions(
    name: &str,
    path: &Path,
    config: Option<&str>,
    settings: &RepositoryConfig,
) -> Result<Vec<Arc<Predictive>>, String> {
    let layout = Layout::of(path, config)?;
    let handle = layout.handle_options(&settings.handle);
    let mut versions = Vec::new();
    for (version, files) in layout.versions {
        let model = load(&files, &settings.options).map_err(|error| error.to_string())?;
        let handle = PredictHandle::new(model, settings.pool.clone(), handle.clone());
        let bytes = bytes_of(&files);
        versions.push(Arc::new(Predictive { bytes, ..Predictive::new(name, version, handle) }));
    }
    Ok(versions)
}

/// Bytes of a model's files; those that cannot be seen count nothing.
fn bytes_of(path: &Path) -> u64 {
    let Ok(files) = ModelFiles::open(path) else { return 0 };
    let size = |name: &String| std::fs::metadata(files.file(name)).map_or(0, |file| file.len());
    files.names.iter().map(size).sum()
}

fn load(path: &Path, options: &LoadOptions) -> Result<Arc<dyn Model>, LoadError> {
    let started = std::time::Instant::now();
    let model: Arc<dyn Model> = tokenmill_predictive::load(path, options)?.into();
    let (kind, seconds) = (&model.description().kind, started.elapsed().as_secs_f64());
    tracing::info!(path = %path.display(), kind, seconds, "loaded");
    Ok(model)
}
