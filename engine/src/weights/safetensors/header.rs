//! The header of a safetensors file (<https://github.com/huggingface/safetensors#format>).
//!
//! Read here and not with the `safetensors` crate, so that errors name the tensor, names that occur
//! twice are errors, and offsets near the end of the address space cannot overflow a sum.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::weights::StoredType;

/// The limit of the reference implementation.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// The file starts with the header's length in this many bytes.
const LEN_BYTES: usize = 8;
/// No real tensor comes near; bounds the work per tensor.
const MAX_DIMENSIONS: usize = 16;

/// One tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TensorInfo {
    pub(super) dtype: StoredType,
    pub(super) shape: Vec<usize>,
    /// Place in the file.
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Type name, [`StoredType`], bits of a value.
static TYPES: &[(&str, StoredType, usize)] = &[
    ("F32", StoredType::F32, 32),
    ("F16", StoredType::F16, 16),
    ("BF16", StoredType::Bf16, 16),
    ("F64", StoredType::F64, 64),
    ("U8", StoredType::U8, 8),
    ("I8", StoredType::I8, 8),
    ("I16", StoredType::I16, 16),
    ("I32", StoredType::I32, 32),
    ("I64", StoredType::I64, 64),
    ("BOOL", StoredType::Bool, 8),
    ("U16", StoredType::Other("U16"), 16),
    ("U32", StoredType::Other("U32"), 32),
    ("U64", StoredType::Other("U64"), 64),
    ("C64", StoredType::Other("C64"), 64),
    ("F8_E4M3", StoredType::Other("F8_E4M3"), 8),
    ("F8_E5M2", StoredType::Other("F8_E5M2"), 8),
    ("F8_E8M0", StoredType::Other("F8_E8M0"), 8),
    ("F6_E2M3", StoredType::Other("F6_E2M3"), 6),
    ("F6_E3M2", StoredType::Other("F6_E3M2"), 6),
    ("F4", StoredType::Other("F4"), 4),
];

/// Reads and checks the header of a file's bytes: tensors by name.
pub(super) fn parse(bytes: &[u8]) -> Result<BTreeMap<String, TensorInfo>, String> {
    let (prefix, rest) = bytes.split_first_chunk::<LEN_BYTES>().ok_or_else(|| {
        format!("{} bytes are too short for a safetensors file: it is truncated", bytes.len())
    })?;
    let len = u64::from_le_bytes(*prefix);
    if len > MAX_HEADER_BYTES {
        return Err(format!(
            "a header of {len} bytes, at most {MAX_HEADER_BYTES} are allowed; not a safetensors file"
        ));
    }
    let header = usize::try_from(len).ok().and_then(|len| rest.get(..len));
    let header = header.ok_or_else(|| {
        format!("the header has {len} bytes, the file {} after its length", rest.len())
    })?;
    if !header.starts_with(b"{") {
        return Err("the header does not start with {: not a safetensors file".to_owned());
    }
    let Entries(entries) =
        serde_json::from_slice(header).map_err(|error| format!("in the header: {error}"))?;
    let data = LEN_BYTES + header.len();
    let mut tensors = BTreeMap::new();
    for (name, entry) in entries {
        let info =
            entry.place(data, bytes.len()).map_err(|reason| format!("tensor {name} {reason}"))?;
        if tensors.insert(name.clone(), info).is_some() {
            return Err(format!("tensor {name} occurs twice"));
        }
    }
    check_coverage(&tensors, data, bytes.len())?;
    Ok(tensors)
}

/// Tensors follow each other to the end of the file: the format allows no overlaps and no holes.
fn check_coverage(
    tensors: &BTreeMap<String, TensorInfo>,
    data: usize,
    file_len: usize,
) -> Result<(), String> {
    let mut by_place: Vec<(&str, &TensorInfo)> =
        tensors.iter().map(|(name, info)| (name.as_str(), info)).collect();
    by_place.sort_by_key(|(_, info)| (info.start, info.end));
    let (mut before, mut end) = ("the header", data);
    for (name, info) in by_place {
        if info.start < end {
            return Err(format!("tensors {before} and {name} overlap"));
        }
        if info.start > end {
            return Err(format!("{} bytes before tensor {name} are no tensor's", info.start - end));
        }
        (before, end) = (name, info.end);
    }
    match file_len - end {
        0 => Ok(()),
        rest => Err(format!("{rest} bytes at the end are no tensor's")),
    }
}

/// A tensor as the header writes it.
#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl Entry {
    fn place(self, data: usize, file_len: usize) -> Result<TensorInfo, String> {
        let Some((_, dtype, bits)) = TYPES.iter().find(|row| row.0 == self.dtype) else {
            let mut dtype = self.dtype;
            dtype.truncate(dtype.floor_char_boundary(40));
            return Err(format!("has type {dtype:?}, which is unknown"));
        };
        if self.shape.len() > MAX_DIMENSIONS {
            let dimensions = self.shape.len();
            return Err(format!("has {dimensions} dimensions, at most {MAX_DIMENSIONS} allowed"));
        }
        let overflow = || format!("has shape {:?}, which overflows", self.shape);
        let shape = self.shape.iter().map(|&size| usize::try_from(size).ok());
        let shape = shape.collect::<Option<Vec<usize>>>().ok_or_else(overflow)?;
        let values = shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
        let bits = values.and_then(|values| values.checked_mul(*bits)).ok_or_else(overflow)?;
        let (start, end) = self.data_offsets;
        let place = |offset: u64| {
            let offset = usize::try_from(offset).ok()?.checked_add(data)?;
            (offset <= file_len).then_some(offset)
        };
        let (Some(start), Some(end)) = (place(start), place(end)) else {
            return Err(format!(
                "is at {start}..{end} of the data, which has {} bytes: the file is truncated",
                file_len - data
            ));
        };
        if bits % 8 != 0 || end.checked_sub(start) != Some(bits / 8) {
            return Err(format!(
                "of shape {shape:?} and type {} takes {} bytes, its offsets {start}..{end} do not",
                dtype.name(),
                bits.div_ceil(8)
            ));
        }
        Ok(TensorInfo { dtype: *dtype, shape, start, end })
    }
}

/// The entries in file order, with repeated names kept; `__metadata__` is skipped.
struct Entries(Vec<(String, Entry)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        entries.push((name, map.next_value()?));
                    }
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use safetensors::tensor::{Dtype, TensorView};

    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut out = (header.len() as u64).to_le_bytes().to_vec();
        out.extend(header.as_bytes());
        out.resize(out.len() + data, 0);
        out
    }

    fn valid() -> Vec<u8> {
        let bytes: Vec<u8> = (0..24).collect();
        let tensors = [
            ("a", TensorView::new(Dtype::F32, vec![2, 1], &bytes[..8]).unwrap()),
            ("b", TensorView::new(Dtype::BF16, vec![3], &bytes[8..14]).unwrap()),
            ("empty", TensorView::new(Dtype::I64, vec![0, 4], &[]).unwrap()),
        ];
        safetensors::serialize(tensors, None).unwrap()
    }

    #[test]
    fn tensors_equal_the_reference_crates() {
        let bytes = valid();
        let ours = parse(&bytes).unwrap();
        let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(ours.len(), theirs.len());
        for (name, view) in theirs.iter() {
            let info = &ours[name];
            assert_eq!(info.shape, view.shape());
            assert_eq!(&bytes[info.start..info.end], view.data());
            assert_eq!(info.dtype.name(), format!("{:?}", view.dtype()));
        }
    }

    #[test]
    fn malformed_headers_name_the_tensor() {
        let check = |header: &str, data: usize, want: &str| {
            let error = parse(&file(header, data)).unwrap_err();
            assert!(error.contains(want), "{error:?} does not contain {want:?}");
        };
        let a = r#""a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
        check(&format!("{{{a},{a}}}"), 8, "tensor a occurs twice");
        check(&format!("{{{a},{}}}", a.replace("\"a\"", "\"b\"")), 8, "tensors a and b overlap");
        check(&format!("{{{a}}}"), 7, "tensor a is at 0..8 of the data, which has 7 bytes");
        check(&format!("{{{}}}", a.replace("[2]", "[3]")), 8, "takes 12 bytes");
        check(&format!("{{{}}}", a.replace("F32", "Q9")), 8, "tensor a has type \"Q9\"");
        check(&format!("{{{}}}", a.replace("[0,8]", "[8,0]")), 8, "do not");
        let huge = u64::MAX;
        check(&format!("{{{}}}", a.replace("[2]", &format!("[{huge},2]"))), 8, "overflows");
        check(&format!("{{{}}}", a.replace("[0,8]", &format!("[0,{huge}]"))), 8, "truncated");
        check(&format!("{{{}}}", a.replace("[2]", "[-1]")), 8, "in the header");
        check(&format!("{{{a}}}"), 9, "1 bytes at the end are no tensor's");
        let later = a.replace("[0,8]", "[4,12]");
        check(&format!("{{{later}}}"), 12, "4 bytes before tensor a are no tensor's");
        check("[]", 0, "does not start with {");
        check("{\"a\":", 0, "in the header");
        assert!(parse(&file(&"[".repeat(100_000), 0)).is_err());
        let error = parse(&u64::MAX.to_le_bytes()).unwrap_err();
        assert!(error.contains("at most 100000000 are allowed"), "{error}");
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = valid();
        assert!((0..bytes.len()).all(|len| parse(&bytes[..len]).is_err()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn damaged_files_never_panic(
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let mut bytes = valid();
            for (index, byte) in damage {
                let at = index.index(bytes.len());
                bytes[at] = byte;
            }
            if let Ok(tensors) = parse(&bytes) {
                prop_assert!(safetensors::SafeTensors::deserialize(&bytes).is_ok());
                for info in tensors.values() {
                    prop_assert!(info.start <= info.end && info.end <= bytes.len());
                }
            }
        }
    }
}
