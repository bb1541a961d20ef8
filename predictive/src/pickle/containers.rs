//! What a pickle may be compressed with: the streams that joblib writes, told apart by their first bytes in its order.

use std::io::Read;

use crate::error::Fault;
use crate::pickle::xz::Xz;

/// Bytes of an open container.
pub(super) struct Container<'a> {
    /// The unpacked bytes.
    pub(super) source: Box<dyn Read + 'a>,
    /// What it is, for messages.
    pub(super) name: &'static str,
    /// Bytes of unpacked output that the decoder keeps to refer back to.
    pub(super) window: usize,
}

/// Name of a file without a container.
pub(super) const PLAIN: &str = "pickle";

/// A kind of stream, by its first bytes.
struct Kind {
    prefix: &'static [u8],
    name: &'static str,
}

const ZLIB: Kind = Kind { prefix: b"\x78", name: "zlib stream" };
const GZIP: Kind = Kind { prefix: b"\x1f\x8b", name: "gzip stream" };
const BZIP2: Kind = Kind { prefix: b"BZ", name: "bzip2 stream" };
const XZ: Kind = Kind { prefix: b"\xfd7zXZ\0", name: "xz stream" };
const LZMA: Kind = Kind { prefix: b"\x5d\0", name: "lzma stream" };
const LZ4: Kind = Kind { prefix: b"\x04\x22\x4d\x18", name: "lz4 stream" };

/// Whether the first bytes of a file are those of a compressed stream.
pub(crate) fn is_compressed(head: &[u8]) -> bool {
    [ZLIB, GZIP, BZIP2, XZ, LZMA, LZ4].iter().any(|kind| head.starts_with(kind.prefix))
}

/// Opens the container of a file; bytes of none are the pickle itself. A decoder refers back `window` bytes at most.
pub(super) fn open(bytes: &[u8], window: usize) -> Result<Container<'_>, Fault> {
    let is = |kind: Kind| bytes.starts_with(kind.prefix).then_some(kind.name);
    if bytes.starts_with(b"ZF") {
        let what =
            "a file of joblib 0.9 or older; load it there and save it with joblib 0.10 or newer";
        return Err(Fault::unsupported(what));
    }
    if let Some(name) = is(ZLIB) {
        return Ok(plain(flate2::bufread::ZlibDecoder::new(bytes), name));
    }
    if let Some(name) = is(GZIP) {
        return Ok(plain(flate2::bufread::MultiGzDecoder::new(bytes), name));
    }
    if let Some(name) = is(BZIP2) {
        return Ok(plain(bzip2::bufread::MultiBzDecoder::new(bytes), name));
    }
    if let Some(name) = is(XZ) {
        return Ok(Container {
            source: Box::new(Xz::new(bytes, window)),
            name,
            window: usize::MAX,
        });
    }
    if let Some(name) = is(LZMA) {
        return lzma(bytes, name, window);
    }
    if let Some(name) = is(LZ4) {
        return Ok(plain(lz4_flex::frame::FrameDecoder::new(bytes), name));
    }
    Ok(plain(bytes, PLAIN))
}

/// A container whose decoder keeps little.
fn plain<'a>(source: impl Read + 'a, name: &'static str) -> Container<'a> {
    Container { source: Box::new(source), name, window: 0 }
}

/// An "lzma alone" stream: properties, size of the dictionary, size of the output (all ones when not known).
fn lzma<'a>(bytes: &'a [u8], name: &'static str, window: usize) -> Result<Container<'a>, Fault> {
    let wrong = |reason: String| Fault::corrupt(name, reason);
    let Some((header, data)) = bytes.split_first_chunk::<13>() else {
        return Err(wrong("the file ends in its header".into()));
    };
    let [properties, d0, d1, d2, d3, size @ ..] = *header;
    let (declared, size) = (u32::from_le_bytes([d0, d1, d2, d3]), u64::from_le_bytes(size));
    let dictionary = declared.min(u32::try_from(window).unwrap_or(u32::MAX));
    let reader = lzma_rust2::LzmaReader::new_with_props(data, size, properties, dictionary, None);
    let reader = reader.map_err(|error| wrong(error.to_string()))?;
    Ok(Container { source: Box::new(reader), name, window: dictionary as usize })
}
