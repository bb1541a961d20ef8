//! The tensor directory of a GGUF file: shapes, types and places, checked against the file's size.

use super::reader::Reader;
use super::types::{self, GgmlType};

/// ggml has at most four dimensions.
const MAX_DIMENSIONS: u32 = 4;
/// ggml allows 63 bytes; a little more does no harm.
const MAX_NAME_BYTES: usize = 255;
/// Name length, one byte of name, number of dimensions, type, offset.
pub(super) const MIN_INFO_BYTES: usize = 8 + 1 + 4 + 4 + 8;

/// One entry.
#[derive(Clone, Debug)]
pub(super) struct TensorInfo {
    pub(super) name: String,
    pub(super) kind: GgmlType,
    /// Outputs first: ggml's order reversed.
    pub(super) shape: Vec<usize>,
    /// From the start of the data section; from the start of the file after [`place`].
    pub(super) offset: usize,
    pub(super) len: usize,
}

/// Reads one entry.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<TensorInfo, String> {
    let name = reader.string("a tensor name")?;
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return Err(format!(
            "a tensor name of {} bytes, 1 to {MAX_NAME_BYTES} allowed",
            name.len()
        ));
    }
    read_rest(reader, name).map_err(|reason| format!("tensor {name} {reason}"))
}

fn read_rest(reader: &mut Reader<'_>, name: &str) -> Result<TensorInfo, String> {
    let dimensions = reader.u32().map_err(|why| format!("is truncated: {why}"))?;
    if dimensions == 0 || dimensions > MAX_DIMENSIONS {
        return Err(format!("has {dimensions} dimensions, 1 to {MAX_DIMENSIONS} allowed"));
    }
    let mut shape = Vec::new();
    for _ in 0..dimensions {
        let size = reader.u64().map_err(|why| format!("is truncated: {why}"))?;
        let size = usize::try_from(size).ok().filter(|&size| size > 0);
        shape.push(size.ok_or("has a dimension of zero or one beyond this machine")?);
    }
    let kind = types::find(reader.u32().map_err(|why| format!("is truncated: {why}"))?)?;
    if !shape[0].is_multiple_of(kind.block) {
        return Err(format!(
            "has rows of {} values, not a multiple of the {} of a {} block",
            shape[0],
            kind.block,
            kind.dtype.name()
        ));
    }
    let values = shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
    let len = values.and_then(|values| (values / kind.block).checked_mul(kind.block_bytes));
    let len = len.ok_or_else(|| format!("has shape {shape:?}, which overflows"))?;
    let offset = reader.u64().map_err(|why| format!("is truncated: {why}"))?;
    let offset = usize::try_from(offset).map_err(|_| format!("has offset {offset}"))?;
    shape.reverse();
    Ok(TensorInfo { name: name.to_owned(), kind, shape, offset, len })
}

/// Turns offsets into places in the file, and checks alignment, ends and overlaps.
pub(super) fn place(
    tensors: &mut [TensorInfo],
    data: usize,
    alignment: usize,
    file_len: usize,
) -> Result<(), String> {
    for tensor in tensors.iter_mut() {
        if !tensor.offset.is_multiple_of(alignment) {
            return Err(format!(
                "tensor {} has offset {}, not a multiple of the alignment {alignment}",
                tensor.name, tensor.offset
            ));
        }
        let start = data.checked_add(tensor.offset);
        let end = start.and_then(|start| start.checked_add(tensor.len));
        match (start, end) {
            (Some(start), Some(end)) if end <= file_len => tensor.offset = start,
            _ => {
                return Err(format!(
                    "tensor {} needs {} bytes at offset {} of the data section, which starts at \
                     {data}, but the file ends at {file_len}: it is truncated",
                    tensor.name, tensor.len, tensor.offset
                ));
            }
        }
    }
    let mut by_place: Vec<&TensorInfo> = tensors.iter().collect();
    by_place.sort_by_key(|tensor| tensor.offset);
    for pair in by_place.windows(2) {
        if pair[0].offset + pair[0].len > pair[1].offset {
            return Err(format!("tensors {} and {} overlap", pair[0].name, pair[1].name));
        }
    }
    Ok(())
}
