//! Arrays as `numpy.save` writes them: format 1.0 to 3.0, little-endian, in C or Fortran order.

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use tokenmill_predictive::{DataType, Tensor};

use crate::error::clip;

/// Longest header that is read; numpy's own limit is 10,000.
const MAX_HEADER: usize = 64 << 10;

/// What the elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Number(DataType),
    /// So many code points of UTF-32 each.
    Text(usize),
}

#[derive(Debug, PartialEq, Eq)]
struct Header {
    kind: Kind,
    fortran: bool,
    shape: Vec<usize>,
}

/// The array in the bytes of a file.
pub(super) fn read(file: Vec<u8>) -> anyhow::Result<Tensor> {
    let (text, begin) = split(&file)?;
    let Header { kind, fortran, shape } = header(text).context("header")?;
    let size = match kind {
        Kind::Number(dtype) => dtype.element_bytes().unwrap_or(1),
        Kind::Text(points) => points * 4,
    };
    let elements = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    let needed = elements.and_then(|elements| elements.checked_mul(size));
    let found = file.len() - begin;
    ensure!(
        needed == Some(found),
        "shape {shape:?} of {size} bytes each does not fit the {found} bytes behind the header"
    );
    let mut data = Bytes::from(file).slice(begin..);
    if fortran && shape.len() > 1 {
        data = transposed(&data, &shape, size).into();
    }
    Ok(match kind {
        Kind::Number(dtype) => Tensor::new(dtype, shape, data)?,
        Kind::Text(points) => Tensor::new(DataType::Bytes, shape, texts(&data, points)?.into())?,
    })
}

/// The header's text, and where the data begins.
fn split(file: &[u8]) -> anyhow::Result<(&str, usize)> {
    let Some(([major, _minor], rest)) =
        file.strip_prefix(b"\x93NUMPY").and_then(|rest| rest.split_first_chunk::<2>())
    else {
        bail!("not a NumPy file: it does not begin with \\x93NUMPY and a version");
    };
    let prefix = match major {
        1 => rest.first_chunk::<2>().map(|raw| (usize::from(u16::from_le_bytes(*raw)), 2)),
        2 | 3 => rest.first_chunk::<4>().map(|raw| (u32::from_le_bytes(*raw) as usize, 4)),
        _ => bail!("version {major} of the format is not known; known are 1 to 3"),
    };
    let (length, width) = prefix.context("the file ends in its header")?;
    ensure!(length <= MAX_HEADER, "a header of {length} bytes; at most {MAX_HEADER} are read");
    let begin = 8 + width + length;
    let text = file.get(8 + width..begin).context("the file ends in its header")?;
    Ok((std::str::from_utf8(text).context("the header is not UTF-8")?, begin))
}

/// Reads `{'descr': '<f8', 'fortran_order': False, 'shape': (3, 4), }`.
fn header(text: &str) -> anyhow::Result<Header> {
    let descr = field(text, "descr")?;
    ensure!(!descr.starts_with('['), "'descr': records are not read; save one array of one type");
    let descr = descr.strip_prefix('\'').and_then(|rest| rest.split('\'').next());
    let fortran = field(text, "fortran_order")?;
    let fortran = match (fortran.starts_with("True"), fortran.starts_with("False")) {
        (false, false) => bail!("'fortran_order': expected True or False"),
        (fortran, _) => fortran,
    };
    let shape = field(text, "shape")?.strip_prefix('(').and_then(|rest| rest.split_once(')'));
    let (sizes, _) = shape.context("'shape': expected a tuple")?;
    let sizes = sizes.split(',').map(str::trim).filter(|size| !size.is_empty());
    let shape = sizes.map(|size| {
        size.parse::<usize>().with_context(|| format!("'shape': {:?} is no size", clip(size)))
    });
    Ok(Header {
        kind: kind(descr.context("'descr': expected a text")?)?,
        fortran,
        shape: shape.collect::<anyhow::Result<_>>()?,
    })
}

/// What follows the key `name`.
fn field<'a>(text: &'a str, name: &str) -> anyhow::Result<&'a str> {
    let (_, rest) =
        text.split_once(&format!("'{name}'")).with_context(|| format!("no '{name}'"))?;
    let rest = rest.trim_start().strip_prefix(':');
    Ok(rest.with_context(|| format!("'{name}' has no value"))?.trim_start())
}

fn kind(descr: &str) -> anyhow::Result<Kind> {
    let little = descr.strip_prefix(['<', '|', '=']).unwrap_or(descr);
    if let Some(points) = little.strip_prefix('U') {
        let points = points.parse::<usize>().ok().filter(|points| (1..=1 << 28).contains(points));
        return Ok(Kind::Text(points.with_context(|| format!("'descr': {:?}", clip(descr)))?));
    }
    Ok(Kind::Number(match little {
        "b1" => DataType::Bool,
        "u1" => DataType::Uint8,
        "u2" => DataType::Uint16,
        "u4" => DataType::Uint32,
        "u8" => DataType::Uint64,
        "i1" => DataType::Int8,
        "i2" => DataType::Int16,
        "i4" => DataType::Int32,
        "i8" => DataType::Int64,
        "f2" => DataType::Fp16,
        "f4" => DataType::Fp32,
        "f8" => DataType::Fp64,
        _ => bail!(
            "'descr': {:?} is not read; read are little-endian <f2 to <f8, <i1 to <i8, <u1 to <u8, |b1 \
             and <U texts: convert the array with astype",
            clip(descr)
        ),
    }))
}

/// Elements of `size` bytes in Fortran order, as rows.
fn transposed(data: &[u8], shape: &[usize], size: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len());
    // Where the element of `index` lies: the first axis moves fastest.
    let mut index = vec![0; shape.len()];
    for _ in 0..data.len() / size {
        let at = index.iter().zip(shape).rev().fold(0, |at, (index, size)| at * size + index);
        out.extend_from_slice(&data[at * size..][..size]);
        for (index, &size) in index.iter_mut().zip(shape).rev() {
            *index += 1;
            if *index < size {
                break;
            }
            *index = 0;
        }
    }
    out
}

/// UTF-32 texts padded with zeros, as length-prefixed UTF-8.
fn texts(data: &[u8], points: usize) -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(data.len() / 2);
    let mut text = String::new();
    for (index, raw) in data.chunks_exact(points * 4).enumerate() {
        text.clear();
        let points: Vec<u32> =
            raw.as_chunks::<4>().0.iter().map(|raw| u32::from_le_bytes(*raw)).collect();
        let length = points.iter().rposition(|&point| point != 0).map_or(0, |last| last + 1);
        for &point in &points[..length] {
            let found = char::from_u32(point);
            text.push(
                found.with_context(|| format!("element {index}: {point:#x} is no character"))?,
            );
        }
        let length = u32::try_from(text.len()).context("a text has 4 GiB")?;
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with this header and data.
    fn file(version: u8, header: &str, data: &[u8]) -> Vec<u8> {
        let mut file = b"\x93NUMPY".to_vec();
        file.extend([version, 0]);
        match version {
            1 => file.extend((header.len() as u16).to_le_bytes()),
            _ => file.extend((header.len() as u32).to_le_bytes()),
        }
        file.extend_from_slice(header.as_bytes());
        file.extend_from_slice(data);
        file
    }

    fn described(descr: &str, fortran: &str, shape: &str, data: &[u8]) -> anyhow::Result<Tensor> {
        let header =
            format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}  \n");
        let read = [1, 2, 3].map(|version| read(file(version, &header, data)));
        let [first, second, third] = read;
        if let (Ok(first), Ok(second), Ok(third)) = (&first, &second, &third) {
            assert!(first == second && second == third);
        }
        first
    }

    #[test]
    fn numbers_of_every_type() {
        let f64s: Vec<u8> = [1.5f64, -2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        let tensor = described("<f8", "False", "(2, 1)", &f64s).unwrap();
        assert_eq!((tensor.shape(), tensor.to_f64().unwrap()), (&[2, 1][..], vec![1.5, -2.0]));
        let f32s: Vec<u8> = [0.5f32, 4.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        let tensor = described("<f4", "False", "(1, 2)", &f32s).unwrap();
        assert_eq!(tensor.to_f32().unwrap(), [0.5, 4.0]);
        let tensor = described("|b1", "False", "(2,)", &[1, 0]).unwrap();
        assert_eq!((tensor.dtype(), tensor.to_f64().unwrap()), (DataType::Bool, vec![1.0, 0.0]));
        let tensor = described("<i4", "False", "()", &(-7i32).to_le_bytes()).unwrap();
        assert_eq!(tensor.to_f64().unwrap(), [-7.0]);
        assert_eq!(described("<i8", "False", "(0, 3)", &[]).unwrap().shape(), [0, 3]);
    }

    #[test]
    fn fortran_order_becomes_rows() {
        let tensor = described("|u1", "True", "(2, 3)", &[1, 4, 2, 5, 3, 6]).unwrap();
        assert_eq!(tensor.data().as_ref(), [1, 2, 3, 4, 5, 6]);
        // numpy.arange(8).reshape(2, 2, 2) in Fortran order.
        let tensor = described("|u1", "True", "(2, 2, 2)", &[0, 4, 2, 6, 1, 5, 3, 7]).unwrap();
        assert_eq!(tensor.data().as_ref(), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn texts_lose_their_padding() {
        let utf32 = |text: &str| {
            let mut points: Vec<u32> = text.chars().map(u32::from).collect();
            points.resize(3, 0);
            points.into_iter().flat_map(u32::to_le_bytes).collect::<Vec<u8>>()
        };
        let data = [utf32("é€x"), utf32(""), utf32("b")].concat();
        let tensor = described("<U3", "False", "(3,)", &data).unwrap();
        assert_eq!(tensor.byte_strings().unwrap(), ["é€x".as_bytes(), b"", b"b"]);
        let error = described("<U1", "False", "(1,)", &0xd800u32.to_le_bytes()).unwrap_err();
        assert!(error.to_string().contains("element 0: 0xd800"), "{error}");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let huge = format!("({}, 2)", usize::MAX);
        for (descr, fortran, shape, want) in [
            (">f8", "False", "(1,)", "'descr': \">f8\" is not read"),
            ("|O", "False", "(1,)", "'descr': \"|O\" is not read"),
            ("<U0", "False", "(1,)", "'descr': \"<U0\""),
            ("<U99999999999999999999", "False", "(1,)", "'descr'"),
            ("<f8", "Maybe", "(1,)", "'fortran_order'"),
            ("<f8", "False", "(x,)", "'shape': \"x\" is no size"),
            ("<f8", "False", "3", "'shape': expected a tuple"),
            ("<f8", "False", "(2,)", "the 8 bytes behind the header"),
            ("<f8", "False", &huge, "the 8 bytes behind the header"),
        ] {
            let error = described(descr, fortran, shape, &[0; 8]).unwrap_err();
            let error = format!("{error:#}");
            assert!(error.contains(want), "{descr} {fortran} {shape}: {error}");
        }
        let whole = file(1, "{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }", &[0; 8]);
        for length in 0..whole.len() {
            assert!(read(whole[..length].to_vec()).is_err(), "{length} bytes");
        }
        assert!(read(file(9, "", &[])).unwrap_err().to_string().contains("version 9"));
    }
}
