//! xz streams whose dictionaries stay within a limit.
//!
//! `lzma_rust2::XzReader` allocates the dictionary that a block asks for, up to 4 GiB. Here the frame is read by hand and
//! the dictionary capped; checksums are skipped. Delete this file when the crate takes a limit.

use std::io::{Error, ErrorKind, Read};

use lzma_rust2::Lzma2Reader;

const MAGIC: &[u8] = b"\xfd7zXZ\0";
/// Identifier of the LZMA2 filter.
const LZMA2: u8 = 0x21;

/// Reads the streams of a file, one after the other.
pub(super) struct Xz<'a> {
    state: State<'a>,
    /// Bytes of the check after each block of this stream.
    check: usize,
    limit: usize,
}

enum State<'a> {
    /// Before a stream.
    Start(&'a [u8]),
    /// Before a block or the index.
    Between(&'a [u8]),
    /// In a block that began with so many bytes to go.
    Block(Box<Lzma2Reader<&'a [u8]>>, usize),
    /// After an error or the end.
    End,
}

fn wrong(reason: &str) -> Error {
    Error::new(ErrorKind::InvalidData, reason)
}

fn skip(bytes: &[u8], count: usize) -> Result<&[u8], Error> {
    bytes.get(count..).ok_or_else(|| wrong("the file ends within an xz stream"))
}

impl<'a> Xz<'a> {
    /// Reads `bytes` with dictionaries of at most `limit` bytes.
    pub(super) fn new(bytes: &'a [u8], limit: usize) -> Self {
        Self { state: State::Start(bytes), check: 0, limit }
    }

    /// The header of a stream: 12 bytes, the eighth names the check.
    fn start(&mut self, bytes: &'a [u8]) -> Result<State<'a>, Error> {
        let padding = bytes.iter().take_while(|&&byte| byte == 0).count();
        let bytes = &bytes[padding..];
        if bytes.is_empty() {
            return Ok(State::End);
        }
        if !bytes.starts_with(MAGIC) {
            return Err(wrong("bytes after an xz stream"));
        }
        let rest = skip(bytes, 12)?;
        self.check = match bytes[7] {
            0 => 0,
            1..=3 => 4,
            4..=6 => 8,
            7..=9 => 16,
            10..=12 => 32,
            13..=15 => 64,
            _ => return Err(wrong("an unknown check")),
        };
        Ok(State::Between(rest))
    }

    /// The header of a block, or the index and footer that end a stream.
    fn between(&self, bytes: &'a [u8]) -> Result<State<'a>, Error> {
        let &size = bytes.first().ok_or_else(|| wrong("the file ends within an xz stream"))?;
        if size == 0 {
            return index(bytes).map(State::Start);
        }
        let rest = skip(bytes, 4 * (usize::from(size) + 1))?;
        let mut fields = &bytes[1..];
        let (flags, after) = (fields[0], &fields[1..]);
        fields = after;
        if flags & 0x3f != 0 {
            return Err(wrong("a block with filters beside LZMA2"));
        }
        for bit in [0x40, 0x80] {
            if flags & bit != 0 {
                number(&mut fields)?;
            }
        }
        let &[LZMA2, 1, bits, ..] = fields else {
            return Err(wrong("a block with another filter than LZMA2"));
        };
        let declared = match bits {
            0..=39 => (2 | u64::from(bits & 1)) << (bits / 2 + 11),
            40 => u64::from(u32::MAX),
            _ => return Err(wrong("a dictionary of more than 4 GiB")),
        };
        let wanted = u32::try_from(self.limit).unwrap_or(u32::MAX);
        let dictionary = u32::try_from(declared).unwrap_or(u32::MAX).min(wanted);
        Ok(State::Block(Box::new(Lzma2Reader::new(rest, dictionary, None)), rest.len()))
    }
}

/// A number of seven bits a byte, lowest first.
fn number(bytes: &mut &[u8]) -> Result<u64, Error> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (&byte, rest) =
            bytes.split_first().ok_or_else(|| wrong("the file ends in a number"))?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(wrong("a number of more than 9 bytes"))
}

/// Skips the index of a stream and its footer.
fn index(bytes: &[u8]) -> Result<&[u8], Error> {
    let mut rest = skip(bytes, 1)?;
    let records = number(&mut rest)?;
    for _ in 0..records {
        number(&mut rest)?;
        number(&mut rest)?;
    }
    let padding = (bytes.len() - rest.len()).next_multiple_of(4) - (bytes.len() - rest.len());
    // The checksum of the index, and the footer.
    skip(rest, padding + 4 + 12)
}

impl Read for Xz<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        loop {
            self.state = match std::mem::replace(&mut self.state, State::End) {
                State::End => return Ok(0),
                State::Start(bytes) => self.start(bytes)?,
                State::Between(bytes) => self.between(bytes)?,
                State::Block(mut reader, length) => {
                    let read = reader.read(buffer)?;
                    if read > 0 || buffer.is_empty() {
                        self.state = State::Block(reader, length);
                        return Ok(read);
                    }
                    let rest = reader.into_inner();
                    let packed = length - rest.len();
                    let padding = packed.next_multiple_of(4) - packed;
                    State::Between(skip(rest, padding + self.check)?)
                }
            };
        }
    }
}
