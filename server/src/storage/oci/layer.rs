//! One layer of an image: what of it lies in `models/` is written, what it takes away of lower layers is taken away.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use bytes::{Buf, Bytes};
use flate2::bufread::MultiGzDecoder;
use tokio::sync::mpsc::Receiver;

use super::Layer;
use crate::storage::StorageError;
use crate::storage::confined::Confined;
use crate::storage::tar::{Kind, Tar};

/// The directory of an image that holds the model.
const MODELS: &str = "models";
/// What marks a name that lower layers have and the image has not.
const WHITEOUT: &[u8] = b".wh.";
/// The name that marks a directory of whose contents in lower layers nothing is left.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Weights do not shrink to less than a part in this many; what does is made to fill disks.
const RATIO: u64 = 100;
/// What an unpacked layer may have beyond that.
const ALLOWANCE: u64 = 1 << 30;
/// Most names that an error lists.
const MOST_NAMES: usize = 10;

/// What was found.
#[derive(Default)]
pub(super) struct Found {
    /// Something lay in `models/`.
    pub(super) any: bool,
    /// First parts of all names.
    pub(super) top: BTreeSet<String>,
}

impl Found {
    pub(super) fn add(&mut self, other: Self) {
        self.any |= other.any;
        self.top.extend(other.top);
        while self.top.len() > MOST_NAMES {
            self.top.pop_last();
        }
    }
}

/// Bytes that another task receives.
pub(super) struct Received {
    receiver: Receiver<Bytes>,
    bytes: Bytes,
}

impl Received {
    pub(super) fn new(receiver: Receiver<Bytes>) -> Self {
        Self { receiver, bytes: Bytes::new() }
    }
}

impl Read for Received {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.bytes.is_empty() {
            match self.receiver.blocking_recv() {
                Some(bytes) => self.bytes = bytes,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.bytes.len());
        self.bytes.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// A reader that fails where more comes than may.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        let left = self.left.checked_sub(length as u64);
        let why = "it unpacks to more than 100 times its size and 1 GiB";
        self.left = left.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, why))?;
        Ok(length)
    }
}

/// Writes a layer into a directory that holds the layers below it, and reads it to its end.
pub(super) fn unpack(
    content: impl Read,
    layer: &Layer,
    directory: &Path,
) -> Result<Found, StorageError> {
    let mut content = BufReader::with_capacity(1 << 16, content);
    let mut tree = Confined::new(directory, &layer.digest.text);
    let found = if layer.gzip {
        let left = layer.size.saturating_mul(RATIO).saturating_add(ALLOWANCE);
        entries(Bounded { inner: MultiGzDecoder::new(&mut content), left }, &mut tree)?
    } else {
        entries(&mut content, &mut tree)?
    };
    let drained = io::copy(&mut content, &mut io::sink());
    drained.map_err(|error| tree.wrong(Path::new("its end"), &error.to_string()))?;
    Ok(found)
}

fn entries(content: impl Read, tree: &mut Confined) -> Result<Found, StorageError> {
    let mut tar = Tar::new(content);
    let mut found = Found::default();
    loop {
        let next = tar.entry();
        let next =
            next.map_err(|error| tree.wrong(Path::new("its entries"), &error.to_string()))?;
        let Some(entry) = next else { break };
        if let Some(part) = entry.name.components().find_map(normal)
            && found.top.len() < MOST_NAMES
        {
            found.top.insert(part.to_string_lossy().into_owned());
        }
        if whiteout(&entry.name, tree)? {
            continue;
        }
        let Some(name) = below_models(&entry.name) else { continue };
        found.any = true;
        match entry.kind {
            Kind::File(_) => tree.file(&name, &mut tar)?,
            Kind::Directory => tree.directory(&name)?,
            Kind::Symlink(target) => tree.symlink(&name, &target)?,
            Kind::HardLink(target) => {
                let outside = || tree.wrong(&name, "it is a link to a file outside of models/");
                let target = below_models(&target).ok_or_else(outside)?;
                tree.hard_link(&name, &target)?;
            }
            Kind::Other(letter) => {
                let why = format!("it is no file, directory or link (kind {letter:?})");
                return Err(tree.wrong(&name, &why));
            }
        }
    }
    // The zeros at an archive's end are read, so that what compresses them is checked to its end.
    let drained = io::copy(&mut tar.into_inner(), &mut io::sink());
    drained.map_err(|error| tree.wrong(Path::new("its end"), &error.to_string()))?;
    Ok(found)
}

fn normal(part: Component<'_>) -> Option<&OsStr> {
    match part {
        Component::Normal(part) => Some(part),
        _ => None,
    }
}

/// A name below `models/`; `None` for others, for `models` itself, and for absolute paths.
fn below_models(name: &Path) -> Option<PathBuf> {
    let name = name.strip_prefix(".").unwrap_or(name);
    let below = name.strip_prefix(MODELS).ok()?;
    (!below.as_os_str().is_empty()).then(|| below.to_owned())
}

/// Takes away what a whiteout marks, if the name is one.
fn whiteout(name: &Path, tree: &Confined) -> Result<bool, StorageError> {
    let Some(file) = name.file_name().map(OsStr::as_bytes) else { return Ok(false) };
    let Some(hidden) = file.strip_prefix(WHITEOUT) else { return Ok(false) };
    let parent = name.parent().unwrap_or(Path::new(""));
    let hidden = match file {
        OPAQUE => parent.to_owned(),
        _ => parent.join(OsStr::from_bytes(hidden)),
    };
    let hidden = hidden.strip_prefix(".").unwrap_or(&hidden);
    if hidden.as_os_str().is_empty() || hidden == Path::new(MODELS) {
        tree.hide(Path::new(""))?;
    } else if let Some(below) = below_models(hidden) {
        tree.hide(&below)?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_unpacks_to_too_much_is_refused() {
        let read = |left| {
            let mut bounded = Bounded { inner: [7u8; 100].as_slice(), left };
            io::copy(&mut bounded, &mut io::sink()).map_err(|error| error.to_string())
        };
        assert_eq!(read(100), Ok(100));
        assert!(read(99).unwrap_err().contains("100 times its size"));
    }
}
