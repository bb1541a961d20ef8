//! Weight files, memory-mapped: the one place of this crate with unsafe code.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::load::LoadError;

/// A whole file, mapped read-only and private, or bytes in memory in its place.
#[derive(Debug)]
pub struct WeightFile {
    path: PathBuf,
    contents: Contents,
}

#[derive(Debug)]
enum Contents {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl WeightFile {
    /// Maps a regular file. Nothing is read.
    ///
    /// # Errors
    /// When it cannot be opened or is not a regular file.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let failed = |source| LoadError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(LoadError::format(path, "not a regular file"));
        }
        #[expect(
            unsafe_code,
            reason = "mapping a file is unsafe; this module is the one exception"
        )]
        // SAFETY: the file is opened for reading and the mapping is private and read-only, so this
        // process never writes through it. That no other process changes or truncates the file
        // while it is served is the operator's part, as with every server that maps its weights;
        // downloads are written under another name and renamed.
        let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
        Ok(Self { path: path.to_owned(), contents: Contents::Mapped(map) })
    }

    /// Bytes that are not in a file; `name` stands for its path in errors.
    pub fn in_memory(name: &str, bytes: Vec<u8>) -> Self {
        Self { path: PathBuf::from(name), contents: Contents::Owned(bytes) }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its contents.
    pub fn bytes(&self) -> &[u8] {
        match &self.contents {
            Contents::Mapped(map) => map,
            Contents::Owned(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_and_absent_files_are_errors() {
        let directory = std::env::temp_dir();
        let error = WeightFile::open(&directory).unwrap_err().to_string();
        assert!(error.ends_with("not a regular file"), "{error}");
        let absent = directory.join("tokenmill-no-such-file");
        assert!(matches!(WeightFile::open(&absent), Err(LoadError::Io { .. })));
    }
}
