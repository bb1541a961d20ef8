//! Reads a stream in pieces and knows where it is.

use std::io::Read;

use crate::error::Fault;
use crate::pickle::RATIO;
use crate::pickle::containers::{Container, PLAIN};

/// Bytes that are read at a time.
const PIECE: usize = 64 << 10;

/// The unpacked bytes of a file.
pub(super) struct Input<'a> {
    container: Container<'a>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    total: usize,
    limit: usize,
}

impl<'a> Input<'a> {
    /// Reads at most `limit` bytes of a container.
    pub(super) fn new(container: Container<'a>, limit: usize) -> Self {
        Self { container, buffer: vec![0; PIECE], start: 0, end: 0, total: 0, limit }
    }

    /// Bytes consumed.
    pub(super) fn offset(&self) -> usize {
        self.total - (self.end - self.start)
    }

    /// Bytes of output that the decoder holds to refer back to.
    pub(super) fn window(&self) -> usize {
        self.total.min(self.container.window)
    }

    /// Makes at least one byte available.
    fn refill(&mut self) -> Result<(), Fault> {
        if self.start < self.end || self.fill()? {
            return Ok(());
        }
        Err(Fault::corrupt(format!("byte {}", self.total), "the file ends before the pickle does"))
    }

    /// Replaces the buffer by the bytes after it; false at the end.
    fn fill(&mut self) -> Result<bool, Fault> {
        let read = loop {
            match self.container.source.read(&mut self.buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let reason = format!("the {} is broken: {error}", self.container.name);
                    return Err(Fault::corrupt(format!("byte {}", self.total), reason));
                }
                Ok(read) => break read,
            }
        };
        self.total += read;
        if self.total > self.limit {
            return Err(Fault::unsupported(format!(
                "unpacks to more than {} bytes, {RATIO} times the file; if it is a model, save it with less \
                 compression",
                self.limit
            )));
        }
        (self.start, self.end) = (0, read);
        Ok(read > 0)
    }

    /// Reads a compressed stream to its end, so that its checksum is checked.
    pub(super) fn finish(&mut self) -> Result<(), Fault> {
        if self.container.name == PLAIN {
            return Ok(());
        }
        while self.fill()? {}
        Ok(())
    }

    /// Reads to the end and gives the number of bytes.
    pub(super) fn length(mut self) -> Result<usize, Fault> {
        while self.fill()? {}
        Ok(self.total)
    }

    /// The next byte.
    pub(super) fn byte(&mut self) -> Result<u8, Fault> {
        self.refill()?;
        let byte = self.buffer[self.start];
        self.start += 1;
        Ok(byte)
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut array = [0; N];
        for byte in &mut array {
            *byte = self.byte()?;
        }
        Ok(array)
    }

    /// The next `length` bytes; memory grows with what is there, not with what is said.
    pub(super) fn bytes(&mut self, length: usize) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::with_capacity(length.min(PIECE));
        while bytes.len() < length {
            self.refill()?;
            let piece = (length - bytes.len()).min(self.end - self.start);
            if bytes.capacity() - bytes.len() < piece {
                bytes.reserve_exact(bytes.len().max(piece).min(length - bytes.len()));
            }
            bytes.extend_from_slice(&self.buffer[self.start..self.start + piece]);
            self.start += piece;
        }
        Ok(bytes)
    }

    /// The bytes up to a line feed, which is consumed and not returned; at most `limit` of them.
    pub(super) fn line(&mut self, limit: usize) -> Result<Vec<u8>, Fault> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return Ok(line),
                _ if line.len() == limit => {
                    let at = format!("byte {}", self.offset());
                    return Err(Fault::corrupt(at, format!("a line has more than {limit} bytes")));
                }
                byte => line.push(byte),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pickle::containers;

    #[test]
    fn streams_end_at_the_limit() {
        let read = |limit| {
            let mut input = Input::new(containers::open(&[b'N'; 100], 0).expect("plain"), limit);
            input.bytes(100).map(|bytes| bytes.len())
        };
        assert_eq!(read(100), Ok(100));
        assert!(matches!(read(99), Err(Fault::Unsupported(what)) if what.contains("99 bytes")));
    }
}
