//! Weight files: one view of named tensors over safetensors and GGUF, and the handle through which
//! model files read them.
//!
//! Files are memory-mapped; nothing of the weights is read until a tensor is asked for. Names and
//! shapes are those of the Hugging Face checkpoints in both containers.

mod dequantize;
mod dtype;
pub mod gguf;
mod mmap;
pub mod safetensors;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use dequantize::dequantize;
pub use dtype::StoredType;
pub use mmap::WeightFile;

use crate::load::LoadError;

/// The files directly in a directory whose name ends in `.extension`, sorted.
pub(crate) fn files_with_extension(
    directory: &Path,
    extension: &str,
) -> Result<Vec<PathBuf>, LoadError> {
    let failed = |source| LoadError::Io { path: directory.to_owned(), source };
    let mut files = Vec::new();
    for entry in directory.read_dir().map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|found| found == extension) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Kind of weight file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// `.safetensors`, one file or several with an index.
    Safetensors,
    /// `.gguf`. Its converter changes some weights: Gemma's norms have one added, GPT-2's Conv1D
    /// weights are transposed.
    Gguf,
}

/// Order of a tensor's rows in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowOrder {
    /// Row `r` is the `r`-th.
    #[default]
    AsStored,
    /// In each head of `head_dim` rows, the two halves are interleaved: GGUF's `llama` stores query
    /// and key projections so, for a rotary embedding of neighbouring pairs. [`TensorView::row`]
    /// gives the rows in half-split order again.
    Interleaved {
        /// Rows of a head, even; the number of rows is a multiple of it.
        head_dim: usize,
    },
}

impl RowOrder {
    /// Place in the file of row `row`.
    pub fn stored(self, row: usize) -> usize {
        match self {
            Self::AsStored => row,
            Self::Interleaved { head_dim } => {
                let (head, within) = (row / head_dim, row % head_dim);
                let half = head_dim / 2;
                head * head_dim + 2 * (within % half) + within / half
            }
        }
    }
}

/// A tensor in a mapped file.
#[derive(Clone, Debug)]
pub struct TensorView<'a> {
    /// Hugging Face name.
    pub name: &'a str,
    /// Name in the file (differs from `name` in GGUF).
    pub stored_name: &'a str,
    /// The file.
    pub path: &'a Path,
    /// Type of the values.
    pub dtype: StoredType,
    /// Row-major shape, outputs first: `[rows, columns]` of a matrix.
    pub shape: Vec<usize>,
    /// Row-major values, little endian; blocks along the last dimension for quantised types.
    pub bytes: &'a [u8],
    /// Order of the rows (entries of a vector) in `bytes`.
    pub row_order: RowOrder,
}

impl<'a> TensorView<'a> {
    /// Rows: the first dimension.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Bytes of row `row` (of one value, in a vector), whatever the order in the file.
    ///
    /// # Panics
    /// When `row` is not below the first dimension.
    pub fn row(&self, row: usize) -> &'a [u8] {
        let len = self.bytes.len() / self.rows();
        let at = self.row_order.stored(row) * len;
        &self.bytes[at..at + len]
    }
}

/// Named tensors of one checkpoint.
pub trait TensorSource: Send + Sync {
    /// Names, sorted.
    fn names(&self) -> Vec<&str>;
    /// A tensor, without reading its contents.
    fn tensor(&self, name: &str) -> Option<TensorView<'_>>;
    /// Kind of file.
    fn container(&self) -> Container;
}

/// What loading a model used of its checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Tensors that nothing read and that no model file calls ignorable.
    pub unread: Vec<String>,
    /// Tensors that were asked for and are not there.
    pub missing: Vec<String>,
    /// What reading the weights took.
    pub weights: Duration,
    /// What allocating the cache took.
    pub cache: Duration,
}

/// Reads tensors for a model file, checks them and remembers what was read.
pub struct Weights<'a> {
    source: &'a dyn TensorSource,
    read: BTreeSet<String>,
    missing: BTreeSet<String>,
    ignored: Vec<String>,
}

impl<'a> Weights<'a> {
    /// Nothing is read yet.
    pub fn new(source: &'a dyn TensorSource) -> Self {
        Self { source, read: BTreeSet::new(), missing: BTreeSet::new(), ignored: Vec::new() }
    }

    /// Kind of file.
    pub fn container(&self) -> Container {
        self.source.container()
    }

    /// Whether the checkpoint is a GGUF file.
    pub fn is_gguf(&self) -> bool {
        self.container() == Container::Gguf
    }

    /// Whether a tensor exists.
    pub fn has(&self, name: &str) -> bool {
        self.source.tensor(name).is_some()
    }

    /// Tensors that carry nothing the model needs, by whole components at the end of their names:
    /// `attn.bias` means `h.0.attn.bias` but not `h.0.c_attn.bias`.
    pub fn ignore(&mut self, suffixes: &[&str]) {
        self.ignored.extend(suffixes.iter().map(|suffix| (*suffix).to_owned()));
    }

    /// A vector of `len` values as `f32`; exact for every supported type.
    ///
    /// # Errors
    /// When it is absent, has another shape, or a type that has no exact `f32` values.
    pub fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, LoadError> {
        let view = self.shaped(name, &[len])?;
        let mut values = Vec::new();
        dequantize(view.dtype, view.bytes, &mut values).ok_or_else(|| unsupported(&view))?;
        if view.row_order == RowOrder::AsStored {
            return Ok(values);
        }
        Ok((0..len).map(|index| values[view.row_order.stored(index)]).collect())
    }

    /// A matrix `[rows, cols]`, still in the file.
    ///
    /// # Errors
    /// When it is absent, has another shape, or a type that cannot be computed with.
    pub fn matrix(
        &mut self,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> Result<TensorView<'a>, LoadError> {
        self.shaped(name, &[rows, cols])
    }

    fn shaped(&mut self, name: &str, expected: &[usize]) -> Result<TensorView<'a>, LoadError> {
        let Some(view) = self.source.tensor(name) else {
            self.missing.insert(name.to_owned());
            return Err(LoadError::MissingTensor { tensor: name.to_owned() });
        };
        if view.shape != expected {
            return Err(LoadError::Shape {
                tensor: view.stored_name.to_owned(),
                path: view.path.to_owned(),
                found: view.shape,
                expected: expected.to_vec(),
            });
        }
        if !view.dtype.is_computable() {
            return Err(unsupported(&view));
        }
        self.read.insert(name.to_owned());
        Ok(view)
    }

    /// What was not read and what was not there.
    pub fn report(&self) -> LoadReport {
        let unread = self.source.names().into_iter().filter(|name| {
            let ignored = self.ignored.iter().any(|suffix| ends_with_components(name, suffix));
            !ignored && !self.read.contains(*name)
        });
        LoadReport {
            unread: unread.map(str::to_owned).collect(),
            missing: self.missing.iter().cloned().collect(),
            weights: Duration::ZERO,
            cache: Duration::ZERO,
        }
    }
}

impl std::fmt::Debug for Weights<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Weights").field("read", &self.read.len()).finish_non_exhaustive()
    }
}

fn ends_with_components(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn unsupported(view: &TensorView<'_>) -> LoadError {
    LoadError::UnsupportedType {
        tensor: view.stored_name.to_owned(),
        dtype: view.dtype.name().to_owned(),
        supported: StoredType::computable_names(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Tensor = (&'static str, StoredType, Vec<usize>, Vec<u8>, RowOrder);

    struct Fake(Vec<Tensor>);

    impl TensorSource for Fake {
        fn names(&self) -> Vec<&str> {
            self.0.iter().map(|tensor| tensor.0).collect()
        }

        fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
            let (name, dtype, shape, bytes, row_order) =
                self.0.iter().find(|tensor| tensor.0 == name)?;
            Some(TensorView {
                name,
                stored_name: name,
                path: Path::new("fake"),
                dtype: *dtype,
                shape: shape.clone(),
                bytes,
                row_order: *row_order,
            })
        }

        fn container(&self) -> Container {
            Container::Safetensors
        }
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn interleaved_rows_are_read_half_split() {
        // Two heads of four rows: the file has (head, i, part), rows are (head, part, i).
        let order = RowOrder::Interleaved { head_dim: 4 };
        let places: Vec<usize> = (0..8).map(|row| order.stored(row)).collect();
        assert_eq!(places, [0, 2, 1, 3, 4, 6, 5, 7]);
        let source = Fake(vec![
            ("m", StoredType::F32, vec![4, 1], floats(&[0.0, 1.0, 2.0, 3.0]), order),
            ("v", StoredType::F32, vec![4], floats(&[0.0, 1.0, 2.0, 3.0]), order),
        ]);
        let mut weights = Weights::new(&source);
        let view = weights.matrix("m", 4, 1).unwrap();
        assert_eq!(view.row(1), 2.0_f32.to_le_bytes());
        assert_eq!(weights.vector("v", 4).unwrap(), [0.0, 2.0, 1.0, 3.0]);
    }

    #[test]
    fn the_report_names_unread_and_missing_tensors() {
        let source = Fake(vec![
            ("h.0.attn.bias", StoredType::U8, vec![1], vec![0], RowOrder::AsStored),
            ("h.0.c_attn.bias", StoredType::F32, vec![1], floats(&[1.0]), RowOrder::AsStored),
            ("read", StoredType::F32, vec![1], floats(&[1.0]), RowOrder::AsStored),
        ]);
        let mut weights = Weights::new(&source);
        assert_eq!(weights.vector("read", 1).unwrap(), [1.0]);
        assert!(matches!(weights.vector("absent", 1), Err(LoadError::MissingTensor { .. })));
        weights.ignore(&["attn.bias"]);
        let report = weights.report();
        assert_eq!(report.unread, ["h.0.c_attn.bias"]);
        assert_eq!(report.missing, ["absent"]);
    }

    #[test]
    fn wrong_shapes_and_types_are_named() {
        let source = Fake(vec![
            ("w", StoredType::F32, vec![1, 2], floats(&[1.0, 2.0]), RowOrder::AsStored),
            ("q", StoredType::Other("Q6_K"), vec![1, 256], vec![0; 210], RowOrder::AsStored),
        ]);
        let mut weights = Weights::new(&source);
        let error = weights.matrix("w", 2, 1).unwrap_err().to_string();
        assert_eq!(error, "tensor w in fake has shape [1, 2], expected [2, 1]");
        let error = weights.matrix("q", 1, 256).unwrap_err().to_string();
        assert_eq!(
            error,
            "tensor q is Q6_K, which is not supported; supported: F32, F16, BF16, Q8_0, Q4_0, Q4_1"
        );
        assert_eq!(weights.report().unread, ["w", "q"]);
    }
}
