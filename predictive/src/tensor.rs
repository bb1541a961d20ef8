//! Tensors as the Open Inference Protocol knows them: a datatype, a shape, little-endian bytes.

use std::sync::Arc;

use bytes::Bytes;

/// Element type, under the protocol's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataType {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned 8 bits.
    Uint8,
    /// Unsigned 16 bits.
    Uint16,
    /// Unsigned 32 bits.
    Uint32,
    /// Unsigned 64 bits.
    Uint64,
    /// Signed 8 bits.
    Int8,
    /// Signed 16 bits.
    Int16,
    /// Signed 32 bits.
    Int32,
    /// Signed 64 bits.
    Int64,
    /// IEEE half.
    Fp16,
    /// bfloat16.
    Bf16,
    /// IEEE single.
    Fp32,
    /// IEEE double.
    Fp64,
    /// Byte strings: each a 4-byte little-endian length and its bytes.
    Bytes,
}

impl DataType {
    /// Every type.
    pub const ALL: [DataType; 14] = [
        DataType::Bool,
        DataType::Uint8,
        DataType::Uint16,
        DataType::Uint32,
        DataType::Uint64,
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::Fp16,
        DataType::Bf16,
        DataType::Fp32,
        DataType::Fp64,
        DataType::Bytes,
    ];

    /// The protocol's name.
    pub fn name(self) -> &'static str {
        match self {
            DataType::Bool => "BOOL",
            DataType::Uint8 => "UINT8",
            DataType::Uint16 => "UINT16",
            DataType::Uint32 => "UINT32",
            DataType::Uint64 => "UINT64",
            DataType::Int8 => "INT8",
            DataType::Int16 => "INT16",
            DataType::Int32 => "INT32",
            DataType::Int64 => "INT64",
            DataType::Fp16 => "FP16",
            DataType::Bf16 => "BF16",
            DataType::Fp32 => "FP32",
            DataType::Fp64 => "FP64",
            DataType::Bytes => "BYTES",
        }
    }

    /// The type of a name, in any letter case.
    pub fn from_name(name: &str) -> Option<DataType> {
        Self::ALL.into_iter().find(|dtype| dtype.name().eq_ignore_ascii_case(name))
    }

    /// Bytes of one element; `None` for byte strings, whose elements differ.
    pub fn element_bytes(self) -> Option<usize> {
        match self {
            DataType::Bool | DataType::Uint8 | DataType::Int8 => Some(1),
            DataType::Uint16 | DataType::Int16 | DataType::Fp16 | DataType::Bf16 => Some(2),
            DataType::Uint32 | DataType::Int32 | DataType::Fp32 => Some(4),
            DataType::Uint64 | DataType::Int64 | DataType::Fp64 => Some(8),
            DataType::Bytes => None,
        }
    }
}

/// Why bytes are not the tensor they are said to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// The product of the shape is past the address space.
    #[error("shape {shape:?} has more elements than can be addressed")]
    TooLarge {
        /// The shape.
        shape: Vec<usize>,
    },
    /// Another number of bytes than shape and datatype say.
    #[error("{dtype} of shape {shape:?} needs {expected} bytes, got {found}")]
    Length {
        /// Name of the datatype.
        dtype: &'static str,
        /// The shape.
        shape: Vec<usize>,
        /// Bytes it needs.
        expected: usize,
        /// Bytes it got.
        found: usize,
    },
    /// The length prefixes of byte strings do not add up to the shape.
    #[error("BYTES of shape {shape:?} needs {expected} length-prefixed elements, found {found}")]
    Elements {
        /// The shape.
        shape: Vec<usize>,
        /// Elements it needs.
        expected: usize,
        /// Whole elements found.
        found: usize,
    },
}

/// A dense row-major tensor over shared bytes: a slice of a request body is not copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    dtype: DataType,
    shape: Vec<usize>,
    data: Bytes,
    nulls: Option<Arc<[bool]>>,
}

impl Tensor {
    /// Checks `data` against datatype and shape.
    ///
    /// # Errors
    /// When lengths do not agree.
    pub fn new(dtype: DataType, shape: Vec<usize>, data: Bytes) -> Result<Self, TensorError> {
        let product = shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
        let Some(elements) = product else { return Err(TensorError::TooLarge { shape }) };
        match dtype.element_bytes() {
            Some(size) => {
                let Some(expected) = elements.checked_mul(size) else {
                    return Err(TensorError::TooLarge { shape });
                };
                if data.len() != expected {
                    let (dtype, found) = (dtype.name(), data.len());
                    return Err(TensorError::Length { dtype, shape, expected, found });
                }
            }
            None => {
                let (found, whole) = count_strings(&data);
                if found != elements || !whole {
                    return Err(TensorError::Elements { shape, expected: elements, found });
                }
            }
        }
        Ok(Self { dtype, shape, data, nulls: None })
    }

    /// A tensor of `T`, whose number of values is the product of the shape.
    ///
    /// # Panics
    /// When it is not.
    pub fn from_values<T: Element>(shape: Vec<usize>, values: &[T]) -> Self {
        let mut data = Vec::with_capacity(size_of_val(values));
        values.iter().for_each(|value| value.write(&mut data));
        Self::new(T::DTYPE, shape, data.into()).expect("as many values as the shape says")
    }

    /// A tensor of texts or byte strings.
    ///
    /// # Panics
    /// When their number is not the product of the shape, or one has 4 GiB.
    pub fn from_texts<T: AsRef<[u8]>>(shape: Vec<usize>, texts: &[T]) -> Self {
        let mut data = Vec::new();
        for text in texts {
            let text = text.as_ref();
            let length = u32::try_from(text.len()).expect("texts are below 4 GiB");
            data.extend_from_slice(&length.to_le_bytes());
            data.extend_from_slice(text);
        }
        Self::new(DataType::Bytes, shape, data.into()).expect("as many texts as the shape says")
    }

    /// The same tensor with absent elements marked (JSON's `null` among texts): one flag an element.
    ///
    /// # Panics
    /// When the numbers differ.
    pub fn with_nulls(mut self, nulls: Vec<bool>) -> Self {
        assert_eq!(nulls.len(), self.elements(), "one flag an element");
        self.nulls = nulls.contains(&true).then(|| nulls.into());
        self
    }

    /// Which elements are absent; `None` when all are there. Absent numbers are NaN instead.
    pub fn nulls(&self) -> Option<&[bool]> {
        self.nulls.as_deref()
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The elements as `f64`, row major; `None` for byte strings. 64-bit integers above 2^53 are rounded.
    pub fn to_f64(&self) -> Option<Vec<f64>> {
        let bytes = &self.data;
        Some(match self.dtype {
            DataType::Bool | DataType::Uint8 => bytes.iter().map(|&byte| f64::from(byte)).collect(),
            DataType::Int8 => bytes.iter().map(|&byte| f64::from(byte as i8)).collect(),
            DataType::Uint16 => widen(bytes, |raw| u16::from_le_bytes(raw).into()),
            DataType::Uint32 => widen(bytes, |raw| u32::from_le_bytes(raw).into()),
            DataType::Uint64 => widen(bytes, |raw| u64::from_le_bytes(raw) as f64),
            DataType::Int16 => widen(bytes, |raw| i16::from_le_bytes(raw).into()),
            DataType::Int32 => widen(bytes, |raw| i32::from_le_bytes(raw).into()),
            DataType::Int64 => widen(bytes, |raw| i64::from_le_bytes(raw) as f64),
            DataType::Fp16 => widen(bytes, |raw| half::f16::from_le_bytes(raw).into()),
            DataType::Bf16 => widen(bytes, |raw| half::bf16::from_le_bytes(raw).into()),
            DataType::Fp32 => widen(bytes, |raw| f32::from_le_bytes(raw).into()),
            DataType::Fp64 => widen(bytes, f64::from_le_bytes),
            DataType::Bytes => return None,
        })
    }

    /// The elements of an FP32 tensor.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        let read = |raw: &[u8; 4]| f32::from_le_bytes(*raw);
        (self.dtype == DataType::Fp32)
            .then(|| self.data.as_chunks::<4>().0.iter().map(read).collect())
    }

    /// The byte strings of a BYTES tensor, slices of its data; `None` for numbers.
    pub fn byte_strings(&self) -> Option<Vec<&[u8]>> {
        if self.dtype != DataType::Bytes {
            return None;
        }
        let mut rest: &[u8] = &self.data;
        let mut texts = Vec::with_capacity(self.elements());
        while let Some((prefix, after)) = rest.split_first_chunk::<4>() {
            let (text, next) = after.split_at_checked(u32::from_le_bytes(*prefix) as usize)?;
            texts.push(text);
            rest = next;
        }
        Some(texts)
    }

    /// Element type.
    pub fn dtype(&self) -> DataType {
        self.dtype
    }

    /// Sizes, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The bytes, little-endian.
    pub fn data(&self) -> &Bytes {
        &self.data
    }
}

/// Every group of `N` bytes, read as a number.
fn widen<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    bytes.as_chunks::<N>().0.iter().map(|raw| read(*raw)).collect()
}

/// A number that tensors hold.
pub trait Element: Copy {
    /// Its datatype.
    const DTYPE: DataType;
    /// Appends its little-endian bytes.
    fn write(self, out: &mut Vec<u8>);
}

macro_rules! elements {
    ($($number:ty => $dtype:ident),*) => {$(
        impl Element for $number {
            const DTYPE: DataType = DataType::$dtype;
            fn write(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}

elements!(u8 => Uint8, u16 => Uint16, u32 => Uint32, u64 => Uint64, i8 => Int8, i16 => Int16,
    i32 => Int32, i64 => Int64, f32 => Fp32, f64 => Fp64);

impl Element for bool {
    const DTYPE: DataType = DataType::Bool;
    fn write(self, out: &mut Vec<u8>) {
        out.push(u8::from(self));
    }
}

/// Whole length-prefixed elements, and whether nothing is left after them.
fn count_strings(mut data: &[u8]) -> (usize, bool) {
    let mut count = 0;
    while let Some((prefix, rest)) = data.split_first_chunk::<4>() {
        let Some(after) = rest.get(u32::from_le_bytes(*prefix) as usize..) else { break };
        data = after;
        count += 1;
    }
    (count, data.is_empty())
}

/// Named tensors, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TensorMap {
    entries: Vec<(String, Tensor)>,
}

impl TensorMap {
    /// Adds or replaces.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) {
        let name = name.into();
        match self.entries.iter_mut().find(|(known, _)| *known == name) {
            Some((_, value)) => *value = tensor,
            None => self.entries.push((name, tensor)),
        }
    }

    /// By name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.entries.iter().find(|(known, _)| known == name).map(|(_, tensor)| tensor)
    }

    /// In insertion order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.entries.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True without tensors.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_checked() {
        let ok = Tensor::new(DataType::Fp32, vec![2, 2], Bytes::from(vec![0; 16]));
        assert_eq!(ok.map(|tensor| tensor.shape().to_vec()), Ok(vec![2, 2]));
        let short = Tensor::new(DataType::Fp32, vec![2, 2], Bytes::from(vec![0; 15])).unwrap_err();
        assert_eq!(short.to_string(), "FP32 of shape [2, 2] needs 16 bytes, got 15");
        let huge = Tensor::new(DataType::Fp64, vec![usize::MAX, 2], Bytes::new()).unwrap_err();
        assert!(matches!(huge, TensorError::TooLarge { .. }));
    }

    #[test]
    fn byte_strings_are_counted() {
        let two = Bytes::from_static(b"\x01\0\0\0a\x02\0\0\0bc");
        assert!(Tensor::new(DataType::Bytes, vec![2], two.clone()).is_ok());
        assert!(Tensor::new(DataType::Bytes, vec![3], two.clone()).is_err());
        assert!(Tensor::new(DataType::Bytes, vec![2], two.slice(..10)).is_err());
    }

    #[test]
    fn names_are_the_protocols_in_any_case() {
        for dtype in DataType::ALL {
            assert_eq!(DataType::from_name(&dtype.name().to_lowercase()), Some(dtype));
        }
        assert_eq!(DataType::from_name("FLOAT"), None);
    }

    #[test]
    fn a_map_keeps_order_and_replaces() {
        let tensor = |n| Tensor::new(DataType::Uint8, vec![n], Bytes::from(vec![0; n])).unwrap();
        let mut map = TensorMap::default();
        map.insert("b", tensor(1));
        map.insert("a", tensor(2));
        map.insert("b", tensor(3));
        let seen: Vec<_> = map.iter().map(|(name, tensor)| (name, tensor.shape()[0])).collect();
        assert_eq!(seen, [("b", 3), ("a", 2)]);
    }
}
