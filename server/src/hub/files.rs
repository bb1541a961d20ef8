//! Which files of a repository are needed to serve its model.

use super::{HubError, HubId};
use crate::config::values;

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RemoteFile {
    /// Path in the repository.
    pub(super) path: String,
    /// Bytes, when the hub says.
    pub(super) size: Option<u64>,
    /// Name of its content in the cache.
    pub(super) etag: Option<String>,
    /// SHA-256 of its content, for large files.
    pub(super) sha256: Option<String>,
}

/// Endings of classic models. Those of the second list are too common to be looked for without a name.
const CLASSIC: &[&str] = &[".joblib", ".pkl", ".pickle", ".sav", ".bst", ".ubj", ".xgb", ".lgb"];
const NAMED: &[&str] = &[".json", ".txt", ".model"];
/// Classic models by name, where no ending tells.
const CLASSIC_NAMES: &[&str] = &["model.json", "model.txt", "model.model"];

/// Whether a name is that of a file that can be a model by itself.
pub(crate) fn is_model_file(path: &str) -> bool {
    path.ends_with(".gguf") || CLASSIC.iter().chain(NAMED).any(|end| path.ends_with(end))
}

/// The one `.gguf` file, weights and everything small that describes them, or a classic model.
pub(super) fn choose(id: &HubId, files: Vec<RemoteFile>) -> Result<Vec<RemoteFile>, HubError> {
    let repository = id.repository();
    if let Some(wanted) = &id.file {
        let end = &wanted[wanted.rfind('.').unwrap_or(0)..];
        let names = with_suffix(&files, &[end]);
        let chosen = files.into_iter().find(|file| &file.path == wanted);
        let missing = || HubError::NotFound {
            what: format!("{wanted} in {repository} (its {end} files: {names})"),
        };
        return chosen.map(|file| vec![file]).ok_or_else(missing);
    }
    let top = |file: &RemoteFile| !file.path.contains('/');
    let weights = |file: &RemoteFile| top(file) && file.path.ends_with(".safetensors");
    if files.iter().any(weights) {
        // Some repositories carry their weights a second time under the original authors' names.
        let twice = files.iter().any(|file| weights(file) && file.path.starts_with("model"));
        let wanted = |file: &RemoteFile| {
            let original = twice && file.path.starts_with("consolidated");
            top(file) && !original && (weights(file) || describes(&file.path))
        };
        return Ok(files.into_iter().filter(wanted).collect());
    }
    let gguf: Vec<&RemoteFile> = files.iter().filter(|file| file.path.ends_with(".gguf")).collect();
    match gguf.as_slice() {
        [only] => Ok(vec![(*only).clone()]),
        [] => {
            let others: Vec<&str> = files
                .iter()
                .map(|file| file.path.as_str())
                .filter(|path| {
                    [".bin", ".pt", ".pth", ".onnx", ".h5"].iter().any(|end| path.ends_with(end))
                })
                .take(5)
                .collect();
            let classic = if others.is_empty() { classic(&repository, &files)? } else { None };
            if let Some(classic) = classic {
                return Ok(classic);
            }
            let instead = if others.is_empty() {
                "it has no weights at all".to_owned()
            } else {
                format!("it has {}, which must be converted first", others.join(", "))
            };
            Err(HubError::NoWeights { repository, instead })
        }
        _ => Err(HubError::Ambiguous { repository, files: with_suffix(&files, &[".gguf"]) }),
    }
}

/// The files of a classic model: a directory of MLflow, or the one file of a known ending or name.
fn classic(repository: &str, files: &[RemoteFile]) -> Result<Option<Vec<RemoteFile>>, HubError> {
    if files.iter().any(|file| file.path == "MLmodel") {
        let visible = files.iter().filter(|file| !file.path.starts_with('.'));
        return Ok(Some(visible.cloned().collect()));
    }
    let known = |file: &&RemoteFile| CLASSIC.iter().any(|end| file.path.ends_with(end));
    let mut found: Vec<&RemoteFile> = files.iter().filter(known).collect();
    if found.is_empty() {
        let named = |file: &&RemoteFile| CLASSIC_NAMES.contains(&file.path.as_str());
        found = files.iter().filter(named).collect();
    }
    match found.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some(vec![(*only).clone()])),
        [one, other] if is_pair(&one.path, &other.path) || is_pair(&other.path, &one.path) => {
            Ok(Some(vec![(*one).clone(), (*other).clone()]))
        }
        _ => {
            let files = with_suffix(files, &[CLASSIC, CLASSIC_NAMES].concat());
            Err(HubError::Ambiguous { repository: repository.to_owned(), files })
        }
    }
}

/// A vectoriser and the model behind it, which are served as one.
fn is_pair(first: &str, second: &str) -> bool {
    let stem = |path: &str| path.rsplit_once('.').map(|(stem, _)| stem.to_ascii_lowercase());
    stem(first).as_deref() == Some("vectorizer") && stem(second).as_deref() == Some("model")
}

/// Configuration, tokenizer and templates.
fn describes(path: &str) -> bool {
    let known = [".json", ".jinja", ".model", "merges.txt", "vocab.txt"];
    known.iter().any(|end| path.ends_with(end))
}

fn with_suffix(files: &[RemoteFile], suffixes: &[&str]) -> String {
    let shown = |file: &RemoteFile| match file.size {
        Some(size) => format!("{} ({})", file.path, values::bytes(size)),
        None => file.path.clone(),
    };
    let ends = |file: &&RemoteFile| suffixes.iter().any(|end| file.path.ends_with(end));
    let names: Vec<String> = files.iter().filter(ends).map(shown).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(id: &str, paths: &[&str]) -> Result<Vec<String>, String> {
        let file = |path: &&str| RemoteFile {
            path: (*path).to_owned(),
            size: Some(2048),
            etag: None,
            sha256: None,
        };
        let files = choose(&HubId::parse(id).unwrap(), paths.iter().map(file).collect());
        files
            .map(|files| files.into_iter().map(|file| file.path).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn weights_and_what_describes_them() {
        let files = [
            "README.md",
            "config.json",
            "consolidated.00.safetensors",
            "merges.txt",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "onnx/model.onnx",
            "original/x.safetensors",
            "pytorch_model.bin",
            "tokenizer.json",
        ];
        let want = [
            "config.json",
            "merges.txt",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "tokenizer.json",
        ];
        assert_eq!(chosen("a/b", &files).unwrap(), want);
    }

    #[test]
    fn one_gguf_is_taken_and_several_are_asked_about() {
        assert_eq!(chosen("a/b", &["x.gguf", "config.json"]).unwrap(), ["x.gguf"]);
        assert_eq!(chosen("a/b:y.gguf", &["x.gguf", "y.gguf"]).unwrap(), ["y.gguf"]);
        let several = chosen("a/b", &["x.gguf", "y.gguf"]).unwrap_err();
        assert!(several.contains("a/b:FILE") && several.contains("y.gguf (2.0 KiB)"), "{several}");
        let other = chosen("a/b:z.gguf", &["x.gguf"]).unwrap_err();
        assert!(other.contains("z.gguf") && other.contains("x.gguf"), "{other}");
        let none = chosen("a/b", &["pytorch_model.bin"]).unwrap_err();
        assert!(none.contains("pytorch_model.bin"), "{none}");
    }

    #[test]
    fn a_classic_model_is_one_file_or_a_directory_of_mlflow() {
        let model = ["README.md", "config.json", "model.joblib", "requirements.txt"];
        assert_eq!(chosen("a/b", &model).unwrap(), ["model.joblib"]);
        assert_eq!(chosen("a/b", &["model.json", "notes.txt"]).unwrap(), ["model.json"]);
        let logged = [".gitattributes", "MLmodel", "data/model.pkl", "model.pkl"];
        assert_eq!(chosen("a/b", &logged).unwrap(), logged[1..]);
        let pair = ["model.joblib", "vectorizer.joblib"];
        assert_eq!(chosen("a/b", &pair).unwrap(), pair);
        let several = chosen("a/b", &["x.pkl", "y.bst"]).unwrap_err();
        assert!(several.contains("a/b:FILE") && several.contains("x.pkl"), "{several}");
        assert_eq!(chosen("a/b:y.bst", &["x.pkl", "y.bst"]).unwrap(), ["y.bst"]);
        let torch = chosen("a/b", &["pytorch_model.bin", "training.pkl"]).unwrap_err();
        assert!(torch.contains("pytorch_model.bin"), "{torch}");
    }
}
