//! Nested JSON lists of scalars, read straight into one flat buffer.

use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tokenmill_predictive::{DataType, Tensor};

/// One element.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scalar<'a> {
    Int(i64),
    Uint(u64),
    Float(f64),
    Bool(bool),
    Text(&'a str),
    Null,
}

impl fmt::Display for Scalar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scalar::Int(value) => value.fmt(f),
            Scalar::Uint(value) => value.fmt(f),
            Scalar::Float(value) => write!(f, "{value:?}"),
            Scalar::Bool(true) => f.write_str("True"),
            Scalar::Bool(false) => f.write_str("False"),
            Scalar::Text(value) => f.write_str(&crate::error::clip(value)),
            Scalar::Null => f.write_str("null"),
        }
    }
}

impl Scalar<'_> {
    /// As a float: texts are parsed, null is NaN, as numpy does it.
    fn float(self) -> Result<f64, String> {
        match self {
            Scalar::Int(value) => Ok(value as f64),
            Scalar::Uint(value) => Ok(value as f64),
            Scalar::Float(value) => Ok(value),
            Scalar::Bool(value) => Ok(f64::from(u8::from(value))),
            Scalar::Null => Ok(f64::NAN),
            Scalar::Text(text) => text.trim().parse().map_err(|_| {
                let text = crate::error::clip(text);
                format!("could not convert string to float: '{text}'")
            }),
        }
    }

    /// As a whole number: fractions are cut off, as numpy does it.
    fn whole(self, dtype: DataType) -> Result<i128, String> {
        let shown = dtype.name().to_ascii_lowercase();
        match self {
            Scalar::Int(value) => Ok(value.into()),
            Scalar::Uint(value) => Ok(value.into()),
            Scalar::Bool(value) => Ok(value.into()),
            Scalar::Float(value) if value.is_finite() => Ok(value.trunc() as i128),
            Scalar::Text(text) => text.trim().parse().map_err(|_| {
                let text = crate::error::clip(text);
                format!("invalid literal for {shown}: '{text}'")
            }),
            Scalar::Float(_) | Scalar::Null => Err(format!("{self} is no {shown}")),
        }
    }
}

/// Sizes of nested lists, as far as they agree.
#[derive(Debug, Default)]
pub(super) struct Shape {
    sizes: Vec<Option<usize>>,
    /// How deep the scalars are.
    leaves: Option<usize>,
    ragged: Option<String>,
}

impl Shape {
    fn close(&mut self, depth: usize, size: usize) {
        if self.sizes.len() <= depth {
            self.sizes.resize(depth + 1, None);
        }
        match self.sizes[depth] {
            None => self.sizes[depth] = Some(size),
            Some(known) if known == size || self.ragged.is_some() => {}
            Some(known) => {
                self.ragged = Some(format!("one list has {known} elements, another one {size}"));
            }
        }
    }

    fn leaf(&mut self, depth: usize) {
        match self.leaves {
            None => self.leaves = Some(depth),
            Some(known) if known == depth || self.ragged.is_some() => {}
            Some(_) => self.ragged = Some("numbers and lists are mixed".to_owned()),
        }
    }

    /// The sizes.
    pub(super) fn finish(self) -> Result<Vec<usize>, String> {
        let depth = self.sizes.len();
        let mixed = self.leaves.is_some_and(|leaves| leaves != depth);
        let ragged = self.ragged.or(mixed.then(|| "numbers and lists are mixed".to_owned()));
        match ragged {
            None => Ok(self.sizes.into_iter().map(Option::unwrap_or_default).collect()),
            Some(why) => Err(format!(
                "setting an array element with a sequence. The requested array has an \
                 inhomogeneous shape: {why}"
            )),
        }
    }
}

/// Little-endian elements of one datatype.
#[derive(Debug)]
pub(super) struct Elements {
    dtype: DataType,
    data: Vec<u8>,
    nulls: Vec<bool>,
    count: usize,
}

impl Elements {
    fn new(dtype: DataType, capacity: usize) -> Self {
        Self { dtype, data: Vec::with_capacity(capacity), nulls: Vec::new(), count: 0 }
    }

    fn push(&mut self, value: Scalar<'_>) -> Result<(), String> {
        self.count += 1;
        match self.dtype {
            DataType::Fp32 => self.data.extend((value.float()? as f32).to_le_bytes()),
            DataType::Fp64 => self.data.extend(value.float()?.to_le_bytes()),
            DataType::Bool => self.data.push(u8::from(value.float()? != 0.0)),
            DataType::Bytes => self.push_text(value)?,
            DataType::Int8 => self.data.extend(self.int::<i8>(value)?.to_le_bytes()),
            DataType::Int16 => self.data.extend(self.int::<i16>(value)?.to_le_bytes()),
            DataType::Int32 => self.data.extend(self.int::<i32>(value)?.to_le_bytes()),
            DataType::Int64 => self.data.extend(self.int::<i64>(value)?.to_le_bytes()),
            DataType::Uint8 => self.data.extend(self.int::<u8>(value)?.to_le_bytes()),
            DataType::Uint16 => self.data.extend(self.int::<u16>(value)?.to_le_bytes()),
            DataType::Uint32 => self.data.extend(self.int::<u32>(value)?.to_le_bytes()),
            DataType::Uint64 => self.data.extend(self.int::<u64>(value)?.to_le_bytes()),
            DataType::Fp16 | DataType::Bf16 => {
                return Err(format!("{} has no form in JSON", self.dtype.name()));
            }
        }
        Ok(())
    }

    fn int<T: TryFrom<i128>>(&self, value: Scalar<'_>) -> Result<T, String> {
        let whole = value.whole(self.dtype)?;
        T::try_from(whole).map_err(|_| {
            let dtype = self.dtype.name().to_ascii_lowercase();
            format!("Python integer {whole} out of bounds for {dtype}")
        })
    }

    fn push_text(&mut self, value: Scalar<'_>) -> Result<(), String> {
        let shown;
        let text = match value {
            Scalar::Text(text) => text,
            Scalar::Null => {
                self.nulls.resize(self.count, false);
                self.nulls[self.count - 1] = true;
                ""
            }
            number => {
                shown = number.to_string();
                &shown
            }
        };
        let length = u32::try_from(text.len()).map_err(|_| "a text of 4 GiB".to_owned())?;
        self.data.extend(length.to_le_bytes());
        self.data.extend_from_slice(text.as_bytes());
        Ok(())
    }

    /// Number of elements.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The tensor of a shape with as many elements.
    pub(super) fn tensor(mut self, shape: Vec<usize>) -> Result<Tensor, String> {
        let tensor = Tensor::new(self.dtype, shape, Bytes::from(self.data));
        let tensor = tensor.map_err(|error| error.to_string())?;
        if self.nulls.is_empty() {
            return Ok(tensor);
        }
        self.nulls.resize(self.count, false);
        Ok(tensor.with_nulls(self.nulls))
    }
}

/// Reads nested lists of `dtype`, the value of `field`.
///
/// # Errors
/// When an element has no such value: names it, as `inputs[0].data[3]`.
pub(super) fn read(
    field: &str,
    raw: &RawValue,
    dtype: DataType,
) -> Result<(Elements, Shape), String> {
    // A number and its comma take two bytes at least; what is reserved is bounded by the text.
    let capacity = raw.get().len() / 2 * dtype.element_bytes().unwrap_or(1).min(4);
    let mut elements = Elements::new(dtype, capacity.min(1 << 20));
    let mut shape = Shape::default();
    let mut path = Vec::new();
    let list = List { elements: &mut elements, shape: &mut shape, path: &mut path };
    let mut reader = serde_json::Deserializer::from_str(raw.get());
    list.deserialize(&mut reader).map_err(|error| {
        let place: String = path.iter().map(|index| format!("[{index}]")).collect();
        format!("{field}{place}: {}", plain(&error))
    })?;
    Ok((elements, shape))
}

/// The message of an error of ours, without the place that the parser puts behind it.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

struct List<'a> {
    elements: &'a mut Elements,
    shape: &'a mut Shape,
    /// Where it is: an index for each list around it.
    path: &'a mut Vec<usize>,
}

impl List<'_> {
    fn scalar<E: Error>(self, value: Scalar<'_>) -> Result<(), E> {
        self.shape.leaf(self.path.len());
        self.elements.push(value).map_err(E::custom)
    }
}

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, a text, a boolean, null or a list of them")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut size = 0;
        let Self { elements, shape, path } = self;
        loop {
            path.push(size);
            if list.next_element_seed(List { elements, shape, path })?.is_none() {
                break;
            }
            path.pop();
            size += 1;
        }
        path.pop();
        shape.close(path.len(), size);
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.scalar(Scalar::Int(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.scalar(Scalar::Uint(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.scalar(Scalar::Float(value))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.scalar(Scalar::Bool(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.scalar(Scalar::Text(value))
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.scalar(Scalar::Null)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(text: &str, dtype: DataType) -> Result<Tensor, String> {
        let raw: &RawValue = serde_json::from_str(text).unwrap();
        let (elements, shape) = read("data", raw, dtype)?;
        elements.tensor(shape.finish()?)
    }

    #[test]
    fn numbers_take_their_type() {
        let floats = tensor("[[1, \"2.5\"], [null, true]]", DataType::Fp32).unwrap();
        assert_eq!(floats.shape(), [2, 2]);
        let values = floats.to_f32().unwrap();
        assert_eq!((&values[..2], values[2].is_nan(), values[3]), (&[1.0, 2.5][..], true, 1.0));
        let bytes = tensor("[255, 1.9, \"7\"]", DataType::Uint8).unwrap();
        assert_eq!(&bytes.data()[..], [255, 1, 7]);
        let big = tensor("[18446744073709551615]", DataType::Uint64).unwrap();
        assert_eq!(&big.data()[..], [255; 8]);
        let texts = tensor("[\"a\", null, 1.0, 2]", DataType::Bytes).unwrap();
        assert_eq!(texts.byte_strings().unwrap(), [&b"a"[..], b"", b"1.0", b"2"]);
        assert_eq!(texts.nulls().unwrap(), [false, true, false, false]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let wrong = |text, dtype| tensor(text, dtype).unwrap_err();
        let large = "data[0]: Python integer 600 out of bounds for int8";
        assert_eq!(wrong("[600]", DataType::Int8), large);
        for (text, place) in [
            ("[\"x\"]", "data[0]"),
            ("[1, 2, \"x\"]", "data[2]"),
            ("[[1, 2], [3, \"x\"]]", "data[1][1]"),
            ("[[[1]], [[2]], [[\"x\"]]]", "data[2][0][0]"),
        ] {
            let wanted = format!("{place}: could not convert string to float: 'x'");
            assert_eq!(wrong(text, DataType::Fp32), wanted);
        }
        assert!(wrong("[null]", DataType::Int32).contains("null is no int32"));
        assert!(wrong("[{}]", DataType::Fp32).contains("invalid type: map"));
        for ragged in ["[[1,2],[3]]", "[1,[2]]", "[[1],2]", "[[],[1]]"] {
            assert!(wrong(ragged, DataType::Fp64).contains("inhomogeneous"), "{ragged}");
        }
        assert_eq!(tensor("[[],[]]", DataType::Fp64).unwrap().shape(), [2, 0]);
    }

    #[test]
    fn deep_nesting_is_refused() {
        let text = "[".repeat(100_000);
        assert!(serde_json::from_str::<&RawValue>(&text).is_err());
    }
}
