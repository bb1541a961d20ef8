//! LightGBM: text models of every version and the JSON dump, and the models inside its pickles.
//!
//! A file lowers to a `Source`, that to a [`Booster`]. Raw scores are equal to the library's bit by bit: double
//! precision, trees in the order of the file.

mod booster;
mod columns;
mod dump;
mod objective;
mod pickled;
mod source;
mod text;

use crate::error::{Fault, LoadError};
use crate::format::{Format, LoadOptions, ModelFiles, Probe};
use crate::model::{Description, Model};
use crate::steps::Tabular;

pub use booster::Booster;
pub(crate) use pickled::ESTIMATORS;

/// The format `lightgbm`.
pub(crate) struct LightGbm;

/// What files of it are called; KServe's is the first.
const EXTENSIONS: &[&str] = &[".bst", ".txt", ".model", ".lgb", ".json"];

/// The model of a text model or a JSON dump.
///
/// # Errors
/// Names the field, and what would be right.
pub fn booster_from_text(text: &str) -> Result<Booster, Fault> {
    Booster::new(parse(text)?)
}

fn parse(text: &str) -> Result<source::Source, Fault> {
    if text.trim_start().starts_with('{') { dump::parse(text) } else { text::parse(text) }
}

/// Whether a file of this head is a model of either form.
fn recognised(head: &[u8]) -> bool {
    if head.starts_with(b"tree\n") || head.starts_with(b"tree\r\n") {
        return true;
    }
    let text = String::from_utf8_lossy(head);
    let dense: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    dense.starts_with("{\"name\":\"tree\",") && dense.contains("\"num_tree_per_iteration\":")
}

impl LightGbm {
    /// The files of a directory that are models by their content.
    fn found(files: &ModelFiles) -> Vec<&str> {
        let names = match files.is_directory {
            true => files.with_extension(EXTENSIONS),
            false => files.names.iter().map(String::as_str).collect(),
        };
        names.into_iter().filter(|name| recognised(&files.head(name))).collect()
    }
}

impl Format for LightGbm {
    fn name(&self) -> &'static str {
        "lightgbm"
    }

    fn probe(&self, files: &ModelFiles) -> Probe {
        if Self::found(files).is_empty() { Probe::No } else { Probe::Yes }
    }

    fn load(&self, files: &ModelFiles, options: &LoadOptions) -> Result<Box<dyn Model>, LoadError> {
        let found = Self::found(files);
        let name = match found.as_slice() {
            [name] => name,
            [] => files.single(EXTENSIONS)?,
            several => {
                let (path, several) = (files.path.clone(), several.join(", "));
                let reason =
                    format!("More than one model file is detected in directory: {several}");
                return Err(LoadError::NotFound { path, reason });
            }
        };
        let path = files.file(name);
        let bytes = std::fs::read(&path).map_err(|source| LoadError::Io { path, source })?;
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            let at = format!("byte {}", error.valid_up_to());
            Fault::corrupt(at, "expected a text model or JSON dump, found bytes that are no UTF-8")
                .of(name)
        })?;
        let booster = booster_from_text(text).map_err(|fault| fault.of(name))?;
        let description = describe(&booster, self.name());
        let model = Tabular::new(Box::new(booster), description, options.method);
        let model = model.map_err(|error| Fault::unsupported(error.to_string()).of(name))?;
        Ok(Box::new(model))
    }
}

fn describe(booster: &Booster, format: &'static str) -> Description {
    use crate::steps::Estimator;
    let about = booster.about();
    let trees = if about.is_linear { "linear trees" } else { "trees" };
    let library = format!("LightGBM, model format {}", about.version);
    let features = booster.input().columns.unwrap_or_default();
    Description {
        format,
        library: Some(library),
        kind: format!("{trees} {}", about.objective),
        facts: vec![
            ("trees", booster.trees().to_string()),
            ("leaves", about.leaves.to_string()),
            ("features", features.to_string()),
            ("outputs", booster.outputs().to_string()),
        ],
    }
}
