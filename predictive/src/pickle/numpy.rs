//! Element types of numpy and the decoding of arrays.

use std::rc::Rc;
use std::sync::Arc;

use crate::array::Values;
use crate::pickle::{Node, Records, text};
use crate::tensor::DataType;

/// Most dimensions of an array: numpy's own limit.
pub(super) const MAX_DIMENSIONS: usize = 64;
/// Most fields of a record: trees have 13.
pub(super) const MAX_FIELDS: usize = 256;

/// An element type.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Dtype {
    /// The letter of numpy's code: `f`, `i`, `u`, `b`, `U`, `S`, `O`, `V`, ...
    kind: u8,
    /// Bytes of an element.
    size: usize,
    big_endian: bool,
    /// Fields of a record: name, offset, type.
    fields: Vec<(Arc<str>, usize, Rc<Dtype>)>,
    /// A subarray, which is not decoded.
    opaque: bool,
}

/// An array.
pub(super) enum Decoded {
    /// Numbers, truth values or texts in row-major order.
    Values(DataType, Values),
    /// Records.
    Records(Records),
    /// Elements that no model computes with (times, complex numbers, long doubles), by their code.
    Opaque(String),
}

impl Dtype {
    /// The type of a code: `f8`, `<i4`, `U12`, `O`.
    pub(super) fn parse(code: &str) -> Result<Dtype, String> {
        let wrong = || format!("{code:?} is no element type of numpy");
        let big_endian = code.starts_with('>');
        let plain = code.trim_start_matches(['<', '>', '|', '=']);
        let kind = *plain.as_bytes().first().ok_or_else(wrong)?;
        let digits = plain.get(1..).ok_or_else(wrong)?;
        let units = match digits {
            "" => 8,
            digits => digits.parse::<u32>().map_err(|_| wrong())? as usize,
        };
        let size = match kind {
            b'U' => units.checked_mul(4).ok_or_else(wrong)?,
            b'O' => 8,
            b'b' | b'i' | b'u' | b'f' | b'c' | b'S' | b'V' | b'M' | b'm' | b'a' => units,
            _ => return Err(wrong()),
        };
        let kind = if kind == b'a' { b'S' } else { kind };
        Ok(Dtype { kind, size, big_endian, fields: Vec::new(), opaque: false })
    }

    /// Bytes of an element.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// numpy's code, for messages and records.
    pub(super) fn code(&self) -> String {
        let units = if self.kind == b'U' { self.size / 4 } else { self.size };
        format!("{}{units}", char::from(self.kind))
    }

    /// Whether elements are references to objects.
    pub(super) fn is_object(&self) -> bool {
        self.kind == b'O'
    }

    /// Whether elements are or hold references to objects: joblib then writes a pickle instead of bytes.
    pub(super) fn has_objects(&self) -> bool {
        self.is_object() || self.fields.iter().any(|(.., dtype)| dtype.is_object())
    }

    /// Sets the byte order: `<`, `>`, or one that means the machine's, which is little-endian wherever models come from.
    pub(super) fn set_order(&mut self, order: Option<u8>) {
        self.big_endian = order == Some(b'>');
    }

    /// Marks a subarray.
    pub(super) fn set_opaque(&mut self) {
        self.opaque = true;
    }

    /// Makes it a record.
    pub(super) fn set_fields(
        &mut self,
        size: usize,
        fields: Vec<(Arc<str>, usize, Rc<Dtype>)>,
    ) -> Result<(), String> {
        for (name, offset, dtype) in &fields {
            let inside = offset.checked_add(dtype.size).is_some_and(|end| end <= size);
            if !inside {
                return Err(format!("the field {name} lies outside its record of {size} bytes"));
            }
            if !dtype.fields.is_empty() {
                self.opaque = true;
            }
        }
        (self.size, self.fields) = (size, fields);
        Ok(())
    }

    /// Bytes that `count` decoded elements take.
    pub(super) fn decoded_size(&self, count: usize) -> usize {
        let element = match self.kind {
            b'U' | b'S' => self.size.saturating_add(48),
            b'f' if self.size == 4 => 4,
            b'V' => self.size,
            _ => 8,
        };
        count.saturating_mul(element)
    }

    /// Decodes an array of as many bytes as shape and size say.
    pub(super) fn decode(
        &self,
        shape: &[usize],
        fortran: bool,
        raw: &[u8],
    ) -> Result<Decoded, String> {
        if self.opaque {
            return Ok(Decoded::Opaque(self.code()));
        }
        if !self.fields.is_empty() {
            return self.records(shape, fortran, raw);
        }
        let Some((dtype, values)) = self.values(raw)? else {
            return Ok(Decoded::Opaque(self.code()));
        };
        let values = match values {
            values if !fortran || shape.len() < 2 => values,
            Values::F32(values) => Values::F32(row_major(shape, &values)),
            Values::F64(values) => Values::F64(row_major(shape, &values)),
            Values::Int(values) => Values::Int(row_major(shape, &values)),
            Values::Text(values) => Values::Text(row_major(shape, &values)),
        };
        Ok(Decoded::Values(dtype, values))
    }

    /// Numbers or texts one after the other; `None` for types that are not decoded.
    fn values(&self, raw: &[u8]) -> Result<Option<(DataType, Values)>, String> {
        let big = self.big_endian;
        let widen = |value: Vec<i64>| Values::Int(value);
        Ok(Some(match (self.kind, self.size) {
            (b'b', 1) => {
                (DataType::Bool, widen(raw.iter().map(|&byte| i64::from(byte != 0)).collect()))
            }
            (b'u', 1) => (DataType::Uint8, widen(raw.iter().map(|&byte| byte.into()).collect())),
            (b'i', 1) => {
                (DataType::Int8, widen(raw.iter().map(|&byte| i64::from(byte as i8)).collect()))
            }
            (b'i', 2) => {
                (DataType::Int16, widen(each(raw, big, |raw| i16::from_le_bytes(raw).into())))
            }
            (b'u', 2) => {
                (DataType::Uint16, widen(each(raw, big, |raw| u16::from_le_bytes(raw).into())))
            }
            (b'i', 4) => {
                (DataType::Int32, widen(each(raw, big, |raw| i32::from_le_bytes(raw).into())))
            }
            (b'u', 4) => {
                (DataType::Uint32, widen(each(raw, big, |raw| u32::from_le_bytes(raw).into())))
            }
            (b'i', 8) => (DataType::Int64, widen(each(raw, big, i64::from_le_bytes))),
            (b'u', 8) => {
                let values = each(raw, big, i64::from_le_bytes);
                if values.iter().any(|&value| value < 0) {
                    return Err("an integer of an array is 2^63 or more".into());
                }
                (DataType::Uint64, widen(values))
            }
            (b'f', 2) => {
                let values = each(raw, big, |raw| half::f16::from_le_bytes(raw).into());
                (DataType::Fp64, Values::F64(values))
            }
            (b'f', 4) => (DataType::Fp32, Values::F32(each(raw, big, f32::from_le_bytes))),
            (b'f', 8) => (DataType::Fp64, Values::F64(each(raw, big, f64::from_le_bytes))),
            (b'U' | b'S', size) if size > 0 => {
                let texts = raw.chunks_exact(size).map(|raw| self.text(raw));
                (DataType::Bytes, Values::Text(texts.collect()))
            }
            _ => return Ok(None),
        }))
    }

    /// A text of fixed length, without the zeros that fill it.
    fn text(&self, raw: &[u8]) -> Arc<str> {
        if self.kind == b'S' {
            let end = raw.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            let raw = &raw[..end];
            return match std::str::from_utf8(raw) {
                Ok(text) => text.into(),
                Err(_) => text::latin1(raw).into(),
            };
        }
        let codes = each(raw, self.big_endian, u32::from_le_bytes);
        let end = codes.iter().rposition(|&code| code != 0).map_or(0, |last| last + 1);
        let character = |&code: &u32| char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        codes[..end].iter().map(character).collect::<String>().into()
    }

    /// Records with little-endian fields.
    fn records(&self, shape: &[usize], fortran: bool, raw: &[u8]) -> Result<Decoded, String> {
        if self.size == 0 || (fortran && shape.len() > 1) {
            return Ok(Decoded::Opaque(self.code()));
        }
        let mut data = raw.to_vec();
        for (_, offset, dtype) in self.fields.iter().filter(|(.., dtype)| dtype.big_endian) {
            if dtype.kind == b'U' {
                return Ok(Decoded::Opaque(self.code()));
            }
            for record in data.chunks_exact_mut(self.size) {
                record[*offset..*offset + dtype.size].reverse();
            }
        }
        let field = |(name, offset, dtype): &(Arc<str>, usize, Rc<Dtype>)| {
            (Arc::clone(name), *offset, dtype.code().into())
        };
        Ok(Decoded::Records(Records {
            count: raw.len() / self.size,
            size: self.size,
            fields: self.fields.iter().map(field).collect(),
            data,
        }))
    }
}

/// Elements of `N` bytes each.
fn each<const N: usize, T>(raw: &[u8], big_endian: bool, read: impl Fn([u8; N]) -> T) -> Vec<T> {
    let ordered = |raw: &[u8; N]| {
        let mut raw = *raw;
        if big_endian {
            raw.reverse();
        }
        read(raw)
    };
    raw.as_chunks::<N>().0.iter().map(ordered).collect()
}

/// Elements in column-major order of an array of `shape`, in row-major order.
fn row_major<T: Clone>(shape: &[usize], values: &[T]) -> Vec<T> {
    let mut strides = Vec::with_capacity(shape.len());
    let mut stride = 1;
    for &size in shape {
        strides.push(stride);
        stride *= size;
    }
    let mut index = vec![0; shape.len()];
    let mut from = 0;
    let mut ordered = Vec::with_capacity(values.len());
    for _ in 0..values.len() {
        ordered.push(values[from].clone());
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            from += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            from -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    ordered
}

/// The first element as a plain value.
pub(super) fn first(dtype: DataType, values: &Values) -> Option<Node> {
    Some(match values {
        Values::Int(values) if dtype == DataType::Bool => Node::Bool(*values.first()? != 0),
        Values::Int(values) => Node::Int(*values.first()?),
        Values::F32(values) => Node::Float(f64::from(*values.first()?)),
        Values::F64(values) => Node::Float(*values.first()?),
        Values::Text(values) => Node::Text(Arc::clone(values.first()?)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn column_major_becomes_row_major() {
        // a[i, j, k] = 100 i + 10 j + k
        let shape = [2, 3, 2];
        let mut columns = Vec::new();
        for k in 0..2 {
            for j in 0..3 {
                (0..2).for_each(|i| columns.push(100 * i + 10 * j + k));
            }
        }
        let rows = row_major(&shape, &columns);
        assert_eq!(rows, [0, 1, 10, 11, 20, 21, 100, 101, 110, 111, 120, 121]);
    }

    #[test]
    fn codes() {
        for (code, size) in [("f8", 8), ("<i4", 4), (">U3", 12), ("|S5", 5), ("O", 8), ("V64", 64)]
        {
            assert_eq!(Dtype::parse(code).map(|dtype| dtype.size()), Ok(size), "{code}");
        }
        for code in ["", "<", "x8", "f-1", "é4", "U4294967296"] {
            assert!(Dtype::parse(code).is_err(), "{code}");
        }
    }
}
