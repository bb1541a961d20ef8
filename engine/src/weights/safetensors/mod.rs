//! Safetensors checkpoints: one file, or several with `model.safetensors.index.json`.

mod header;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use self::header::TensorInfo;
use super::{Container, RowOrder, TensorSource, TensorView, WeightFile};
use crate::config::read_object;
use crate::load::LoadError;

/// The name of a checkpoint in one file.
const SINGLE: &str = "model.safetensors";
/// The index of a checkpoint in several files.
const INDEX: &str = "model.safetensors.index.json";
/// No checkpoint has as many files; each is a mapping.
const MAX_SHARDS: usize = 4096;

/// Mapped safetensors files.
#[derive(Debug)]
pub struct Safetensors {
    files: Vec<WeightFile>,
    tensors: BTreeMap<String, (usize, TensorInfo)>,
}

impl Safetensors {
    /// The checkpoint in a directory: by its index, else `model.safetensors`, else the only
    /// `.safetensors` file.
    ///
    /// # Errors
    /// When there is none, or a file is malformed or missing.
    pub fn open(directory: &Path) -> Result<Self, LoadError> {
        let index = directory.join(INDEX);
        if index.is_file() {
            return Self::open_shards(directory, &index);
        }
        let single = directory.join(SINGLE);
        if single.is_file() {
            return Self::open_files(&[single]);
        }
        let others = super::files_with_extension(directory, "safetensors")?;
        match others.as_slice() {
            [only] => Self::open_files(std::slice::from_ref(only)),
            [] => Err(LoadError::NotAModel {
                path: directory.to_owned(),
                reason: format!(
                    "no {SINGLE} or {INDEX} in the directory (weights in other formats, such as \
                     pytorch_model.bin, have to be converted to safetensors)"
                ),
            }),
            several => Err(LoadError::NotAModel {
                path: directory.to_owned(),
                reason: format!(
                    "{} .safetensors files, none of them named {SINGLE}, and no {INDEX} to say \
                     which belong together",
                    several.len()
                ),
            }),
        }
    }

    /// Maps files; a tensor may be in one of them only.
    ///
    /// # Errors
    /// When a file cannot be read or is malformed, or a tensor is in two.
    pub fn open_files(paths: &[PathBuf]) -> Result<Self, LoadError> {
        Self::from_files(paths.iter().map(|path| WeightFile::open(path)))
    }

    /// Reads the headers of files; a tensor may be in one of them only.
    ///
    /// # Errors
    /// As [`Self::open_files`].
    pub fn from_files(
        sources: impl IntoIterator<Item = Result<WeightFile, LoadError>>,
    ) -> Result<Self, LoadError> {
        let mut files: Vec<WeightFile> = Vec::new();
        let mut tensors: BTreeMap<String, (usize, TensorInfo)> = BTreeMap::new();
        for file in sources {
            let file = file?;
            let path = file.path();
            let found =
                header::parse(file.bytes()).map_err(|reason| LoadError::format(path, reason))?;
            for (name, info) in found {
                if let Some((other, _)) = tensors.get(&name) {
                    let other = files[*other].path().display();
                    return Err(LoadError::format(
                        path,
                        format!("tensor {name} is also in {other}"),
                    ));
                }
                tensors.insert(name, (files.len(), info));
            }
            files.push(file);
        }
        Ok(Self { files, tensors })
    }

    fn open_shards(directory: &Path, index: &Path) -> Result<Self, LoadError> {
        let map = read_index(index)?;
        let mut names: Vec<&str> = map.values().map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        if names.len() > MAX_SHARDS {
            let reason = format!("{} files, at most {MAX_SHARDS} allowed", names.len());
            return Err(LoadError::config("weight_map", reason).in_file(index));
        }
        let paths: Vec<PathBuf> = names.iter().map(|name| directory.join(name)).collect();
        let opened = Self::open_files(&paths)?;
        for (tensor, shard) in &map {
            let found = opened.tensors.get(tensor).map(|(file, _)| names[*file]);
            if found != Some(shard.as_str()) {
                let reason = format!("tensor {tensor} is not in {shard}");
                return Err(LoadError::config("weight_map", reason).in_file(index));
            }
        }
        Ok(opened)
    }
}

/// `weight_map`: tensor to the plain name of a file in the same directory.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>, LoadError> {
    let field = "weight_map";
    let mut index = read_object(path)?;
    let Some(Value::Object(map)) = index.remove(field) else {
        let error = LoadError::config(field, "a map from tensors to files is needed");
        return Err(error.in_file(path));
    };
    map.into_iter()
        .map(|(tensor, shard)| match shard {
            Value::String(shard) if is_plain_name(&shard) => Ok((tensor, shard)),
            other => {
                let reason = format!(
                    "{other} of tensor {tensor} is not the plain name of a .safetensors file"
                );
                Err(LoadError::config(field, reason).in_file(path))
            }
        })
        .collect()
}

/// Whether a name stays in its directory: no separators, no `..`, nothing hidden.
fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let single = matches!(components.next(), Some(Component::Normal(_)));
    let plain = single && components.next().is_none() && !name.contains(['/', '\\', '\0', ':']);
    plain && name.ends_with(".safetensors") && !name.starts_with('.')
}

impl TensorSource for Safetensors {
    fn names(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }

    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let (name, (file, info)) = self.tensors.get_key_value(name)?;
        let file = &self.files[*file];
        Some(TensorView {
            name,
            stored_name: name,
            path: file.path(),
            dtype: info.dtype,
            shape: info.shape.clone(),
            bytes: &file.bytes()[info.start..info.end],
            row_order: RowOrder::AsStored,
        })
    }

    fn container(&self) -> Container {
        Container::Safetensors
    }
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::{Dtype, TensorView as Stored};

    use super::*;
    use crate::weights::testing::TempDir;

    fn write(directory: &Path, file: &str, tensors: &[(&str, f32)]) {
        let bytes: Vec<[u8; 4]> = tensors.iter().map(|(_, value)| value.to_le_bytes()).collect();
        let views = tensors
            .iter()
            .zip(&bytes)
            .map(|((name, _), bytes)| (*name, Stored::new(Dtype::F32, vec![1], bytes).unwrap()));
        std::fs::write(directory.join(file), safetensors::serialize(views, None).unwrap()).unwrap();
    }

    fn write_index(directory: &Path, map: &[(&str, &str)]) {
        let map: serde_json::Map<String, Value> =
            map.iter().map(|(tensor, file)| ((*tensor).to_owned(), Value::from(*file))).collect();
        let index = serde_json::json!({ "metadata": {}, "weight_map": map });
        std::fs::write(directory.join(INDEX), index.to_string()).unwrap();
    }

    fn fails(directory: &Path, want: &str) {
        let error = Safetensors::open(directory).unwrap_err().to_string();
        assert!(error.contains(want), "{error:?} does not contain {want:?}");
    }

    #[test]
    fn shards_are_one_checkpoint() {
        let at = TempDir::new();
        write(&at, "one.safetensors", &[("a", 1.0), ("b", 2.0)]);
        write(&at, "two.safetensors", &[("c", 3.0)]);
        write_index(&at, &[("a", "one.safetensors"), ("c", "two.safetensors")]);
        let source = Safetensors::open(&at).unwrap();
        assert_eq!(source.names(), ["a", "b", "c"]);
        let view = source.tensor("c").unwrap();
        assert_eq!(view.bytes, 3.0_f32.to_le_bytes());
        assert!(view.path.ends_with("two.safetensors"));
    }

    #[test]
    fn wrong_indexes_are_refused() {
        let at = TempDir::new();
        write(&at, "one.safetensors", &[("a", 1.0)]);
        write(&at, "two.safetensors", &[("a", 1.0)]);
        write_index(&at, &[("a", "one.safetensors"), ("b", "two.safetensors")]);
        fails(&at, "tensor a is also in");
        write_index(&at, &[("a", "one.safetensors"), ("b", "one.safetensors")]);
        fails(&at, "weight_map: tensor b is not in one.safetensors");
        write_index(&at, &[("a", "none.safetensors")]);
        fails(&at, "none.safetensors");
        for name in ["../x.safetensors", "/x.safetensors", "a/x.safetensors", "..", "x.bin", ""] {
            write_index(&at, &[("a", name)]);
            fails(&at, "is not the plain name of a .safetensors file");
        }
        std::fs::write(at.join(INDEX), "{}").unwrap();
        fails(&at, "weight_map: a map from tensors to files is needed");
    }

    #[test]
    fn a_directory_needs_one_checkpoint() {
        let at = TempDir::new();
        fails(&at, "no model.safetensors");
        write(&at, "one.safetensors", &[("a", 1.0)]);
        assert_eq!(Safetensors::open(&at).unwrap().names(), ["a"]);
        write(&at, "two.safetensors", &[("b", 1.0)]);
        fails(&at, "2 .safetensors files");
        write(&at, SINGLE, &[("c", 1.0)]);
        assert_eq!(Safetensors::open(&at).unwrap().names(), ["c"]);
    }
}
