//! The model files among the fixtures, and reading one of any format from its bytes alone.

use std::path::{Path, PathBuf};

use tokenmill_predictive::formats::{lightgbm, mlflow, xgboost};
use tokenmill_predictive::steps::Builder;
use tokenmill_predictive::{Fault, ModelFiles, pickle, recognise};

/// Who reads a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Reader {
    Pickle,
    XgBoost,
    LightGbm,
    Mlflow,
}

/// A file of a group of fixtures.
pub(crate) struct File {
    /// Group and name.
    pub(crate) name: String,
    pub(crate) reader: Reader,
    pub(crate) bytes: Vec<u8>,
}

impl Reader {
    /// The reader of a file; `None` for what is no model.
    fn of(path: &Path) -> Option<Self> {
        if path.ends_with("MLmodel") {
            return Some(Reader::Mlflow);
        }
        let files = ModelFiles::open(path).expect("the fixture can be listed");
        match recognise(&files)?.name() {
            "sklearn" => Some(Reader::Pickle),
            "xgboost" => Some(Reader::XgBoost),
            "lightgbm" => Some(Reader::LightGbm),
            _ => None,
        }
    }

    /// Reads a file as far as a server does when it loads it; a pickle may hold what is no estimator.
    pub(crate) fn read(self, bytes: &[u8]) -> Result<(), Fault> {
        match self {
            Reader::Pickle => {
                let pickle = pickle::read(bytes)?;
                let object = pickle.root().as_object();
                object.map_or(Ok(()), |object| Builder::default().build(object).map(drop))
            }
            Reader::XgBoost => xgboost::booster_from_bytes(bytes).map(drop),
            Reader::LightGbm => {
                let text = std::str::from_utf8(bytes).unwrap_or("not UTF-8");
                lightgbm::booster_from_text(text).map(drop)
            }
            Reader::Mlflow => mlflow::named_file(bytes).map(drop),
        }
    }
}

impl File {
    /// Whether nothing that a model needs is missing from the file's first `length` bytes.
    pub(crate) fn is_whole(&self, length: usize) -> bool {
        let ends = |after: usize| length + after >= self.bytes.len();
        match self.reader {
            // The decoders of lz4 and lzma do not miss the mark at the end, after the pickle.
            Reader::Pickle => (self.name.contains("lz4") || self.name.contains("lzma")) && ends(10),
            Reader::XgBoost => ends(0),
            // What follows the trees is for people; the last word of the mark may be cut.
            Reader::LightGbm => {
                let end = self.bytes.windows(12).position(|window| window == b"end of trees");
                end.is_some_and(|end| length + 4 >= end) || ends(1)
            }
            // Any part of a description may be one.
            Reader::Mlflow => true,
        }
    }
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the fixtures are there") {
        let path = entry.expect("the folder can be listed").path();
        let name = path.to_string_lossy();
        match path.is_dir() {
            true => walk(&path, found),
            // What the libraries answered, and files that are hostile as they are.
            false if name.ends_with(".case.json") || name.ends_with("pickle/zoo.json") => {}
            false if folder.ends_with("fixtures/hostile") => {}
            false => found.push(path),
        }
    }
}

/// The folder of fixtures.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Every model file, small ones first.
pub(crate) fn all() -> Vec<File> {
    let (root, mut paths) = (folder(), Vec::new());
    walk(&root, &mut paths);
    let file = |path: PathBuf| {
        let reader = Reader::of(&path)?;
        let name = path.strip_prefix(&root).unwrap_or(&path).to_string_lossy().into_owned();
        Some(File { name, reader, bytes: std::fs::read(&path).expect("a fixture can be read") })
    };
    let mut files: Vec<File> = paths.into_iter().filter_map(file).collect();
    files.sort_by_key(|file| (file.bytes.len(), file.name.clone()));
    files
}
