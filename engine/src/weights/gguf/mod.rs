//! GGUF, versions 2 and 3, little endian
//! (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>).
//!
//! An own bounded parser: counts and lengths are compared with what remains of the file before
//! anything is allocated, so a file from a stranger can cost memory in proportion to its size only.
//! Names, shapes and row order are given as Hugging Face checkpoints have them.

mod metadata;
mod names;
mod reader;
mod tensors;
#[cfg(test)]
pub(crate) mod testing;
mod tokenizer;
mod types;

use std::collections::BTreeMap;
use std::path::Path;

pub use metadata::{Array, Metadata, Value};
pub use tokenizer::{GgufTokenizer, token_type};

use self::names::Naming;
use self::reader::Reader;
use self::tensors::TensorInfo;
use super::{Container, RowOrder, StoredType, TensorSource, TensorView, WeightFile, dequantize};
use crate::load::LoadError;

const MAGIC: [u8; 4] = *b"GGUF";
/// `general.alignment` when absent.
const DEFAULT_ALIGNMENT: u32 = 32;
/// Larger alignments have no use and would let a small file claim a huge one.
const MAX_ALIGNMENT: u32 = 1 << 16;
/// Frequency factors of the rotary embedding: configuration, not a weight of any layer.
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// What the header of a file says.
#[derive(Debug)]
struct Header {
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
}

/// A mapped GGUF file.
#[derive(Debug)]
pub struct GgufFile {
    file: WeightFile,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    /// Hugging Face name to index into `tensors`.
    by_name: BTreeMap<String, usize>,
    naming: &'static Naming,
    head_dim: usize,
}

impl GgufFile {
    /// Maps a file and reads its header.
    ///
    /// # Errors
    /// When it is not GGUF, is malformed or truncated, or is of an unknown architecture.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        Self::from_file(WeightFile::open(path)?)
    }

    /// Reads the header of a file.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn from_file(file: WeightFile) -> Result<Self, LoadError> {
        let path = file.path();
        let Header { metadata, tensors } =
            parse(file.bytes()).map_err(|reason| LoadError::format(path, reason))?;
        refuse_split(&metadata).map_err(|error| error.in_file(path))?;
        let naming = naming(&metadata).map_err(|error| error.in_file(path))?;
        let head_dim = head_dim(&metadata, naming).map_err(|error| error.in_file(path))?;
        let mut by_name = BTreeMap::new();
        for (index, tensor) in tensors.iter().enumerate() {
            if tensor.name == ROPE_FACTORS {
                continue;
            }
            check_interleaved(tensor, naming, head_dim)
                .map_err(|reason| LoadError::format(path, reason))?;
            let name = naming.translate(&tensor.name).unwrap_or_else(|| tensor.name.clone());
            if by_name.insert(name, index).is_some() {
                let reason = format!("tensor {} occurs twice", tensor.name);
                return Err(LoadError::format(path, reason));
            }
        }
        Ok(Self { file, metadata, tensors, by_name, naming, head_dim })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Its metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// `general.architecture`.
    pub fn gguf_architecture(&self) -> &'static str {
        self.naming.gguf
    }

    /// Class that `architectures` of config.json would name.
    pub fn architecture(&self) -> &'static str {
        self.naming.architecture
    }

    /// Type that most of the weights' bytes are stored in.
    pub fn main_dtype(&self) -> Option<StoredType> {
        let mut bytes: BTreeMap<&str, (u128, StoredType)> = BTreeMap::new();
        for tensor in &self.tensors {
            let dtype = tensor.kind.dtype;
            bytes.entry(dtype.name()).or_insert((0, dtype)).0 += tensor.len as u128;
        }
        bytes.into_values().max_by_key(|(bytes, _)| *bytes).map(|(_, dtype)| dtype)
    }

    /// Frequency factors of the rotary embedding (`rope_freqs.weight`), when the file has them.
    ///
    /// # Errors
    /// When they are not plain positive numbers.
    pub fn rope_factors(&self) -> Result<Option<Vec<f32>>, LoadError> {
        let Some(tensor) = self.tensors.iter().find(|tensor| tensor.name == ROPE_FACTORS) else {
            return Ok(None);
        };
        let mut factors = Vec::new();
        let converted = dequantize(tensor.kind.dtype, self.bytes_of(tensor), &mut factors);
        if converted.is_none() || factors.iter().any(|&f| !f.is_finite() || f <= 0.0) {
            return Err(LoadError::Tensor {
                tensor: ROPE_FACTORS.to_owned(),
                reason: "frequency factors must be positive numbers".to_owned(),
            });
        }
        Ok(Some(factors))
    }

    fn bytes_of(&self, tensor: &TensorInfo) -> &[u8] {
        &self.file.bytes()[tensor.offset..tensor.offset + tensor.len]
    }
}

impl TensorSource for GgufFile {
    fn names(&self) -> Vec<&str> {
        self.by_name.keys().map(String::as_str).collect()
    }

    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let (name, &index) = self.by_name.get_key_value(name)?;
        let tensor = &self.tensors[index];
        let rotated = self.naming.interleaved && names::is_rotated_projection(&tensor.name);
        Some(TensorView {
            name,
            stored_name: &tensor.name,
            path: self.file.path(),
            dtype: tensor.kind.dtype,
            shape: tensor.shape.clone(),
            bytes: self.bytes_of(tensor),
            row_order: match rotated {
                true => RowOrder::Interleaved { head_dim: self.head_dim },
                false => RowOrder::AsStored,
            },
        })
    }

    fn container(&self) -> Container {
        Container::Gguf
    }
}

/// Reads and checks the whole header of a file's bytes.
fn parse(bytes: &[u8]) -> Result<Header, String> {
    let mut reader = Reader::new(bytes);
    if reader.array::<4>().ok() != Some(MAGIC) {
        return Err("not a GGUF file: it does not start with GGUF".to_owned());
    }
    match reader.u32()? {
        2 | 3 => {}
        version @ (0x0200_0000 | 0x0300_0000) => {
            let version = version.swap_bytes();
            return Err(format!("GGUF version {version} in big-endian order; convert it again"));
        }
        version => return Err(format!("GGUF version {version}, versions 2 and 3 are supported")),
    }
    let num_tensors = reader.count("tensors", tensors::MIN_INFO_BYTES)?;
    let num_entries = reader.count("metadata entries", Metadata::min_entry_bytes())?;
    let metadata = Metadata::read(&mut reader, num_entries)?;
    let mut tensors = Vec::new();
    for _ in 0..num_tensors {
        tensors.push(tensors::read(&mut reader)?);
    }
    let alignment = alignment(&metadata)?;
    let data = reader.position().next_multiple_of(alignment);
    tensors::place(&mut tensors, data, alignment, bytes.len())?;
    Ok(Header { metadata, tensors })
}

fn alignment(metadata: &Metadata) -> Result<usize, String> {
    let key = "general.alignment";
    let alignment = metadata.u32(key).map_err(|error| error.to_string())?;
    let alignment = alignment.unwrap_or(DEFAULT_ALIGNMENT);
    if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT {
        return Err(format!("{key} is {alignment}, not a power of two up to {MAX_ALIGNMENT}"));
    }
    Ok(alignment as usize)
}

/// A file split by `gguf-split` holds some of the tensors only.
fn refuse_split(metadata: &Metadata) -> Result<(), LoadError> {
    let key = "split.count";
    match metadata.u64(key)? {
        Some(count) if count > 1 => {
            let reason =
                format!("one of {count} files; merge them with `llama-gguf-split --merge`");
            Err(LoadError::config(key, reason))
        }
        _ => Ok(()),
    }
}

fn naming(metadata: &Metadata) -> Result<&'static Naming, LoadError> {
    let key = "general.architecture";
    let name = metadata.string(key)?;
    let name = name.ok_or_else(|| LoadError::config(key, "the key is missing"))?;
    Naming::find(name).ok_or_else(|| LoadError::UnknownArchitecture {
        name: name.to_owned(),
        known: names::NAMINGS.iter().map(|naming| naming.gguf).collect::<Vec<_>>().join(", "),
    })
}

/// Width of a head, for the row order of interleaved projections; 0 where there are none.
fn head_dim(metadata: &Metadata, naming: &Naming) -> Result<usize, LoadError> {
    if !naming.interleaved {
        return Ok(0);
    }
    let key = |name: &str| format!("{}.{name}", naming.gguf);
    let head_dim = match metadata.u32(&key("attention.key_length"))? {
        Some(width) => width,
        None => {
            let width = metadata.u32(&key("embedding_length"))?;
            let heads_key = key("attention.head_count");
            let heads = metadata.uniform(&heads_key)?.and_then(|heads| u32::try_from(heads).ok());
            match (width, heads) {
                (Some(width), Some(heads)) if heads > 0 => width / heads,
                _ => return Err(LoadError::config(heads_key, "the key is missing or zero")),
            }
        }
    };
    if head_dim == 0 || !head_dim.is_multiple_of(2) {
        let reason =
            format!("heads of {head_dim} values cannot be rotated: the width must be even");
        return Err(LoadError::config(key("attention.key_length"), reason));
    }
    Ok(head_dim as usize)
}

/// Interleaved projections must be whole heads, so that every row has a place.
fn check_interleaved(tensor: &TensorInfo, naming: &Naming, head_dim: usize) -> Result<(), String> {
    if !naming.interleaved || !names::is_rotated_projection(&tensor.name) {
        return Ok(());
    }
    let rows = tensor.shape[0];
    if !rows.is_multiple_of(head_dim) {
        let name = &tensor.name;
        return Err(format!("tensor {name} has {rows} rows, not whole heads of {head_dim}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
