//! Key-value metadata of a GGUF file (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>).

use std::collections::BTreeMap;

use super::reader::Reader;
use crate::load::LoadError;

/// Arrays may hold arrays; real files nest at most once.
const MAX_DEPTH: usize = 4;
/// The specification's limit on keys.
const MAX_KEY_BYTES: usize = 65_535;
/// Key length, one byte of key, type, one byte of value.
const MIN_ENTRY_BYTES: usize = 8 + 1 + 4 + 1;

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Unsigned, of any width.
    Unsigned(u64),
    /// Signed, of any width.
    Signed(i64),
    /// 32 or 64 bits.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// UTF-8 text.
    String(String),
    /// Several values of one type.
    Array(Array),
}

/// Values of one type, without a tag on each, so that a hostile count cannot multiply memory.
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    /// Bytes.
    U8(Vec<u8>),
    /// Signed bytes.
    I8(Vec<i8>),
    /// Truth values.
    Bool(Vec<bool>),
    /// 16 bits.
    U16(Vec<u16>),
    /// 16 bits.
    I16(Vec<i16>),
    /// 32 bits.
    U32(Vec<u32>),
    /// 32 bits.
    I32(Vec<i32>),
    /// 64 bits.
    U64(Vec<u64>),
    /// 64 bits.
    I64(Vec<i64>),
    /// 32 bits.
    F32(Vec<f32>),
    /// 64 bits.
    F64(Vec<f64>),
    /// UTF-8 texts.
    String(Vec<String>),
    /// Arrays.
    Array(Vec<Array>),
}

/// All entries of a file, by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    entries: BTreeMap<String, Value>,
}

impl Metadata {
    pub(super) fn read(reader: &mut Reader<'_>, count: usize) -> Result<Self, String> {
        let mut entries = BTreeMap::new();
        for _ in 0..count {
            let key = reader.string("a metadata key")?;
            if key.is_empty() || key.len() > MAX_KEY_BYTES {
                return Err(format!(
                    "a metadata key of {} bytes, 1 to {MAX_KEY_BYTES} allowed",
                    key.len()
                ));
            }
            let kind = reader.u32()?;
            let value = read_value(reader, kind).map_err(|why| format!("metadata {key}: {why}"))?;
            if entries.insert(key.to_owned(), value).is_some() {
                return Err(format!("metadata {key} occurs twice"));
            }
        }
        Ok(Self { entries })
    }

    /// The smallest number of bytes an entry takes in a file.
    pub(super) const fn min_entry_bytes() -> usize {
        MIN_ENTRY_BYTES
    }

    /// A value as it is.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key)
    }

    /// Every key and value, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, LoadError> {
        let Some(value) = self.entries.get(key) else { return Ok(None) };
        convert(value)
            .map(Some)
            .ok_or_else(|| LoadError::config(key, format!("{value} is not {expected}")))
    }

    /// Text.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn string(&self, key: &str) -> Result<Option<&str>, LoadError> {
        self.typed(key, "a string", |value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// A truth value.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, LoadError> {
        self.typed(key, "true or false", |value| match value {
            Value::Bool(value) => Some(*value),
            _ => None,
        })
    }

    /// A number without sign of any stored width.
    ///
    /// # Errors
    /// When the value is something else or negative.
    pub fn u64(&self, key: &str) -> Result<Option<u64>, LoadError> {
        self.typed(key, "a whole number", Value::as_u64)
    }

    /// A number of at most 32 bits.
    ///
    /// # Errors
    /// When the value is something else, negative or larger.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, LoadError> {
        self.typed(key, "a whole number of 32 bits", |value| {
            value.as_u64().and_then(|value| u32::try_from(value).ok())
        })
    }

    /// A number.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn f64(&self, key: &str) -> Result<Option<f64>, LoadError> {
        self.typed(key, "a number", |value| match value {
            Value::Float(value) => Some(*value),
            Value::Unsigned(value) => Some(*value as f64),
            Value::Signed(value) => Some(*value as f64),
            _ => None,
        })
    }

    /// An array of texts.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn strings(&self, key: &str) -> Result<Option<&[String]>, LoadError> {
        self.typed(key, "an array of strings", |value| match value {
            Value::Array(Array::String(texts)) => Some(texts.as_slice()),
            _ => None,
        })
    }

    /// An array of 32-bit floats.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn floats(&self, key: &str) -> Result<Option<Vec<f32>>, LoadError> {
        self.typed(key, "an array of 32-bit floats", |value| match value {
            Value::Array(Array::F32(values)) => Some(values.clone()),
            _ => None,
        })
    }

    /// An array of whole numbers of 32 bits, with or without sign.
    ///
    /// # Errors
    /// When the value is something else or does not fit.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i32>>, LoadError> {
        self.typed(key, "an array of 32-bit numbers", |value| match value {
            Value::Array(Array::I32(values)) => Some(values.clone()),
            Value::Array(Array::U32(values)) => {
                values.iter().map(|&value| i32::try_from(value).ok()).collect()
            }
            _ => None,
        })
    }

    /// A size that newer converters write per layer: the number, or an array of equal numbers.
    ///
    /// # Errors
    /// When the value is something else or differs between layers.
    pub fn uniform(&self, key: &str) -> Result<Option<u64>, LoadError> {
        self.typed(key, "a whole number that is the same for every layer", |value| match value {
            Value::Array(Array::I32(values)) => {
                same(values).and_then(|value| u64::try_from(value).ok())
            }
            Value::Array(Array::U32(values)) => same(values).map(u64::from),
            Value::Array(Array::U64(values)) => same(values),
            _ => value.as_u64(),
        })
    }
}

/// The one value of a non-empty array of equal values.
fn same<T: Copy + PartialEq>(values: &[T]) -> Option<T> {
    let first = *values.first()?;
    values.iter().all(|&value| value == first).then_some(first)
}

impl Value {
    fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Unsigned(value) => Some(*value),
            Self::Signed(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }
}

/// Short, for errors and listings: long texts and arrays are cut.
impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unsigned(value) => write!(f, "{value}"),
            Self::Signed(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::String(text) if text.chars().count() > 60 => {
                write!(f, "{:?}...", text.chars().take(60).collect::<String>())
            }
            Self::String(text) => write!(f, "{text:?}"),
            Self::Array(array) => write!(f, "[{} {}]", array.len(), array.type_name()),
        }
    }
}

impl Array {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(values) => values.len(),
            Self::I8(values) => values.len(),
            Self::Bool(values) => values.len(),
            Self::U16(values) => values.len(),
            Self::I16(values) => values.len(),
            Self::U32(values) => values.len(),
            Self::I32(values) => values.len(),
            Self::U64(values) => values.len(),
            Self::I64(values) => values.len(),
            Self::F32(values) => values.len(),
            Self::F64(values) => values.len(),
            Self::String(values) => values.len(),
            Self::Array(values) => values.len(),
        }
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn type_name(&self) -> &'static str {
        match self {
            Self::U8(_) => "u8",
            Self::I8(_) => "i8",
            Self::Bool(_) => "bool",
            Self::U16(_) => "u16",
            Self::I16(_) => "i16",
            Self::U32(_) => "u32",
            Self::I32(_) => "i32",
            Self::U64(_) => "u64",
            Self::I64(_) => "i64",
            Self::F32(_) => "f32",
            Self::F64(_) => "f64",
            Self::String(_) => "string",
            Self::Array(_) => "array",
        }
    }
}

fn read_value(reader: &mut Reader<'_>, kind: u32) -> Result<Value, String> {
    Ok(match kind {
        0 => Value::Unsigned(u8::from_le_bytes(reader.array()?).into()),
        1 => Value::Signed(i8::from_le_bytes(reader.array()?).into()),
        2 => Value::Unsigned(u16::from_le_bytes(reader.array()?).into()),
        3 => Value::Signed(i16::from_le_bytes(reader.array()?).into()),
        4 => Value::Unsigned(reader.u32()?.into()),
        5 => Value::Signed(i32::from_le_bytes(reader.array()?).into()),
        6 => Value::Float(f32::from_le_bytes(reader.array()?).into()),
        7 => Value::Bool(truth(reader.array::<1>()?[0])?),
        8 => Value::String(reader.string("a string")?.to_owned()),
        9 => Value::Array(read_array(reader, 1)?),
        10 => Value::Unsigned(reader.u64()?),
        11 => Value::Signed(i64::from_le_bytes(reader.array()?)),
        12 => Value::Float(f64::from_le_bytes(reader.array()?)),
        other => return Err(format!("value type {other} is unknown, 0 to 12 are defined")),
    })
}

fn read_array(reader: &mut Reader<'_>, depth: usize) -> Result<Array, String> {
    if depth > MAX_DEPTH {
        return Err(format!("arrays are nested deeper than {MAX_DEPTH}"));
    }
    let kind = reader.u32()?;
    Ok(match kind {
        0 => Array::U8(fixed(reader, u8::from_le_bytes)?),
        1 => Array::I8(fixed(reader, i8::from_le_bytes)?),
        2 => Array::U16(fixed(reader, u16::from_le_bytes)?),
        3 => Array::I16(fixed(reader, i16::from_le_bytes)?),
        4 => Array::U32(fixed(reader, u32::from_le_bytes)?),
        5 => Array::I32(fixed(reader, i32::from_le_bytes)?),
        6 => Array::F32(fixed(reader, f32::from_le_bytes)?),
        7 => {
            let count = reader.count("values", 1)?;
            let bytes = reader.take(count)?;
            Array::Bool(bytes.iter().map(|&byte| truth(byte)).collect::<Result<_, _>>()?)
        }
        8 => {
            let count = reader.count("strings", 8)?;
            let texts = (0..count).map(|_| reader.string("a string").map(str::to_owned));
            Array::String(texts.collect::<Result<_, _>>()?)
        }
        9 => {
            let count = reader.count("arrays", 4 + 8)?;
            let arrays = (0..count).map(|_| read_array(reader, depth + 1));
            Array::Array(arrays.collect::<Result<_, _>>()?)
        }
        10 => Array::U64(fixed(reader, u64::from_le_bytes)?),
        11 => Array::I64(fixed(reader, i64::from_le_bytes)?),
        12 => Array::F64(fixed(reader, f64::from_le_bytes)?),
        other => return Err(format!("array of type {other} is unknown, 0 to 12 are defined")),
    })
}

/// Values of `N` bytes each.
fn fixed<T, const N: usize>(
    reader: &mut Reader<'_>,
    decode: fn([u8; N]) -> T,
) -> Result<Vec<T>, String> {
    let count = reader.count("values", N)?;
    let (values, _) = reader.take(count * N)?.as_chunks::<N>();
    Ok(values.iter().map(|&bytes| decode(bytes)).collect())
}

fn truth(byte: u8) -> Result<bool, String> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(format!("{other} is not a truth value, 0 or 1 are")),
    }
}
