//! A place in the bytes of a file: what the readers of UBJSON and of the binary layout have in common.

use crate::error::Fault;

/// A reader of bytes.
pub(super) struct Bytes<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Bytes<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// A fault at this place.
    pub(super) fn wrong(&self, reason: impl Into<String>) -> Fault {
        Fault::corrupt(format!("byte {}", self.at), reason)
    }

    /// The next `length` bytes.
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let rest = &self.bytes[self.at..];
        let Some(taken) = rest.get(..length) else {
            let left = rest.len();
            return Err(self.wrong(format!("needs {length} bytes, the file has {left} more")));
        };
        self.at += length;
        Ok(taken)
    }

    /// `count` elements of `size` bytes.
    pub(super) fn elements(&mut self, count: usize, size: usize) -> Result<&'a [u8], Fault> {
        let length = count.checked_mul(size);
        self.take(length.ok_or_else(|| self.wrong(format!("an array of {count} elements")))?)
    }

    /// Checks that zeros follow, or nothing.
    pub(super) fn padding(&mut self) -> Result<(), Fault> {
        match self.bytes[self.at..].iter().position(|&byte| byte != 0) {
            None => Ok(()),
            Some(offset) => {
                self.at += offset;
                Err(self.wrong("bytes that are not zero follow the model"))
            }
        }
    }
}
