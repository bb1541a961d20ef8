//! scikit-learn: estimators in pickle and joblib files, and the wrappers of XGBoost and LightGBM in the same files.

use crate::error::{Fault, LoadError};
use crate::format::{Format, HEAD, LoadOptions, ModelFiles, Probe};
use crate::model::{Description, Model};
use crate::pickle::{self, Object, Pickle};
use crate::steps::nmf::JOINT;
use crate::steps::{Builder, Estimator, Tabular, pipeline};

/// Files that scikit-learn's users save.
pub const EXTENSIONS: &[&str] = &[".joblib", ".pkl", ".pickle", ".sav"];

/// Pickles and joblib files.
pub struct Sklearn;

impl Format for Sklearn {
    fn name(&self) -> &'static str {
        "sklearn"
    }

    fn probe(&self, files: &ModelFiles) -> Probe {
        let named = files.with_extension(EXTENSIONS);
        match named.first() {
            Some(name) if pickle::is_pickle(&files.head(name)) => Probe::Yes,
            Some(_) => Probe::Maybe,
            None => match files.names.as_slice() {
                [name] if holds_sklearn(&files.head(name)) => Probe::Yes,
                _ => Probe::No,
            },
        }
    }

    fn load(&self, files: &ModelFiles, options: &LoadOptions) -> Result<Box<dyn Model>, LoadError> {
        let (before, name) = match pair(files) {
            Some((vectoriser, model)) => (Some(vectoriser), model),
            None => (None, files.single(EXTENSIONS)?),
        };
        let Opened { mut estimator, mut description, mut joint } = open(files, name)?;
        if let Some(before) = before {
            let first = open(files, before)?;
            let chained = pipeline::chain(first.estimator, estimator);
            estimator = chained.map_err(|fault| fault.of(before))?;
            description.kind = estimator.name();
            joint |= first.joint;
        }
        let model = Tabular::new(estimator, description, options.method)
            .map_err(|error| Fault::unsupported(error.to_string()).of(name))?;
        let model = if joint { model.joint() } else { model };
        Ok(Box::new(model))
    }
}

/// The vectoriser and the model of a folder that holds just these two, `vectorizer.joblib` and `model.joblib`: text
/// classifiers are published so, and one is of no use without the other.
fn pair(files: &ModelFiles) -> Option<(&str, &str)> {
    let named = files.with_extension(EXTENSIONS);
    let [one, other] = named.as_slice() else { return None };
    let is = |name: &str, stem: &str| {
        name.rsplit_once('.').is_some_and(|(own, _)| own.eq_ignore_ascii_case(stem))
    };
    let both = |first, second| is(first, "vectorizer") && is(second, "model");
    match (both(one, other), both(other, one)) {
        (true, _) => Some((one, other)),
        (_, true) => Some((other, one)),
        _ => None,
    }
}

/// Whether a file of any name starts like a pickle of scikit-learn.
fn holds_sklearn(head: &[u8]) -> bool {
    pickle::is_pickle(head) && head.windows(7).any(|window| window == b"sklearn")
}

/// What a file holds.
struct Opened {
    estimator: Box<dyn Estimator>,
    description: Description,
    /// Rows are answered together, so requests are not merged.
    joint: bool,
}

fn open(files: &ModelFiles, name: &str) -> Result<Opened, LoadError> {
    let path = files.file(name);
    let bytes = std::fs::read(&path).map_err(|source| LoadError::Io { path, source })?;
    let read = || {
        let pickle = pickle::read(&bytes).map_err(|fault| text(&bytes).unwrap_or(fault))?;
        let object = root(&pickle)?;
        let estimator = Builder::default().build(object)?;
        let description = describe(object, estimator.as_ref());
        Ok(Opened { estimator, description, joint: pickle.holds(JOINT) })
    };
    read().map_err(|fault: Fault| fault.of(name))
}

/// The fault of a text file, whose letters would be read as opcodes; `None` for what may be a pickle of protocol 0.
fn text(bytes: &[u8]) -> Option<Fault> {
    let head = &bytes[..bytes.len().min(HEAD)];
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(cut) => std::str::from_utf8(&head[..cut.valid_up_to()])
            .ok()
            .filter(|_| cut.error_len().is_none())?,
    };
    let control = |letter: char| letter.is_control() && !matches!(letter, '\n' | '\r' | '\t');
    let line = text.lines().next().unwrap_or_default();
    let of_module = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '.');
    // What objects begin with: a mark, or the module of a class on the first line.
    let pickled = line.starts_with('(') || (line.starts_with('c') && line.chars().all(of_module));
    if text.is_empty() || text.contains(control) || pickled {
        return None;
    }
    let line: String = line.chars().take(40).collect();
    let reason = format!(
        "the file is text that begins with {line:?}, not a pickle; save the estimator with joblib.dump, and give models of \
         XGBoost and LightGBM the extensions of their formats"
    );
    Some(Fault::corrupt("byte 0", reason))
}

/// The estimator that a pickle holds.
fn root(pickle: &Pickle) -> Result<Object<'_>, Fault> {
    let root = pickle.root();
    root.as_object().ok_or_else(|| {
        let found = root.describe();
        Fault::unsupported(format!("holds {found}, not an estimator; save the estimator itself"))
    })
}

fn describe(object: Object<'_>, estimator: &dyn Estimator) -> Description {
    let mut facts = Vec::new();
    let input = estimator.input();
    if let Some(columns) = input.columns {
        facts.push(("features", columns.to_string()));
    }
    let classes: Vec<String> =
        estimator.classes().iter().map(|classes| classes.len().to_string()).collect();
    if !classes.is_empty() {
        facts.push(("classes", classes.join(", ")));
    }
    let version = object.get("_sklearn_version").and_then(|version| version.as_str());
    let library = match (object.module.split('.').next(), version) {
        (Some("sklearn"), Some(version)) => Some(format!("scikit-learn {version}")),
        (Some(package @ ("xgboost" | "lightgbm")), _) => Some(package.to_owned()),
        _ => None,
    };
    Description { format: "sklearn", library, kind: estimator.name(), facts }
}
