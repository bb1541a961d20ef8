//! A model that is one archive: unpacked in its place.
//!
//! The bytes decide: a tar archive, plain or compressed, is one under any name. Zip is also the shape of some model files, so
//! a zip archive has to be called `.zip`, or nothing at all. What is called an archive and is none is an error.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::StorageError;
use super::confined::Confined;
use super::tar::{Kind, Tar};

/// What unpacked files may take beyond [`RATIO`] times the archive.
const ALLOWANCE: u64 = 1 << 30;
/// Compressed weights do not shrink like this; what does is made to fill disks.
const RATIO: u64 = 100;
/// A tar archive tells what it is in its first block.
const BLOCK: usize = 512;
/// Longest target of a link in a zip archive.
const LONGEST_LINK: u64 = 4096;

/// How a tar archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packed {
    Not,
    Gzip,
    Bzip2,
}

/// Unpacks `file` into `directory` when it is an archive; it is at `away` meanwhile, and gone afterwards.
pub(super) fn unpack(file: &Path, away: &Path, directory: &Path) -> Result<(), StorageError> {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut opened = File::open(file).map_err(StorageError::io(file))?;
    let kind = kind(&mut opened, &name).map_err(StorageError::io(file))?;
    let Some(kind) = kind else {
        return match is_called_archive(&name) {
            false => Ok(()),
            true => Err(StorageError::Archive {
                file: name,
                reason:
                    "the file format is not valid: it is neither tar (plain, gzip, bzip2) nor zip"
                        .to_owned(),
            }),
        };
    };
    let size = opened.metadata().map_err(StorageError::io(file))?.len();
    fs::rename(file, away).map_err(StorageError::io(away))?;
    let mut target = Target {
        inside: Confined::new(directory, &name),
        left: size.saturating_mul(RATIO).saturating_add(ALLOWANCE),
        files: 0,
    };
    tracing::info!(file = name, "unpacking");
    let unpacked = match kind {
        Kindred::Tar(packed) => target.tar(decoder(opened, packed)),
        Kindred::Zip => target.zip(opened, &name),
    };
    if unpacked.is_ok() && target.files == 0 {
        let reason = "there are no files in it".to_owned();
        return Err(StorageError::Archive { file: name, reason });
    }
    unpacked?;
    fs::remove_file(away).map_err(StorageError::io(away))
}

/// What an archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kindred {
    Tar(Packed),
    Zip,
}

/// What a file is by its first bytes; it is read from its beginning again afterwards.
fn kind(file: &mut File, name: &str) -> io::Result<Option<Kindred>> {
    let mut block = [0; BLOCK];
    let length = fill(file, &mut block)?;
    let start = &block[..length];
    let packed = match start {
        [0x1f, 0x8b, ..] => Packed::Gzip,
        [b'B', b'Z', b'h', ..] => Packed::Bzip2,
        _ => Packed::Not,
    };
    file.seek(SeekFrom::Start(0))?;
    let called_zip = name.to_ascii_lowercase().ends_with(".zip") || !name.contains('.');
    let found = if start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06") {
        called_zip.then_some(Kindred::Zip)
    } else {
        // What cannot be decompressed is no archive; the name says whether that is an error.
        let mut unpacked = decoder(file.try_clone()?, packed);
        let tar = matches!(fill(&mut unpacked, &mut block), Ok(BLOCK)) && starts_a_tar(&block);
        tar.then_some(Kindred::Tar(packed))
    };
    file.seek(SeekFrom::Start(0))?;
    Ok(found)
}

/// Reads until the block is full or nothing comes.
fn fill(reader: &mut impl Read, block: &mut [u8; BLOCK]) -> io::Result<usize> {
    let mut length = 0;
    while length < BLOCK {
        match reader.read(&mut block[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// Whether a block is the header of an entry: its checksum is right, and it is not all zeros.
fn starts_a_tar(block: &[u8; BLOCK]) -> bool {
    matches!(Tar::new(block.as_slice()).entry(), Ok(Some(_)))
}

fn is_called_archive(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip"].iter().any(|end| name.ends_with(end))
}

fn decoder(file: File, packed: Packed) -> Box<dyn Read> {
    let reader = BufReader::with_capacity(1 << 16, file);
    match packed {
        Packed::Not => Box::new(reader),
        Packed::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        Packed::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(reader)),
    }
}

/// A directory that is filled up to a limit.
struct Target {
    inside: Confined,
    /// Bytes that may still come.
    left: u64,
    /// Files that came.
    files: u64,
}

impl Target {
    fn tar(&mut self, reader: Box<dyn Read>) -> Result<(), StorageError> {
        let mut tar = Tar::new(reader);
        loop {
            let broken =
                |error: io::Error| self.inside.wrong(Path::new("archive"), &error.to_string());
            let Some(entry) = tar.entry().map_err(broken)? else { return Ok(()) };
            let name = entry.name.as_path();
            match entry.kind {
                // `.` is the directory itself.
                Kind::Directory if name.components().all(is_current) => {}
                Kind::Directory => self.inside.directory(name)?,
                Kind::File(size) => {
                    self.take(name, size)?;
                    self.inside.file(name, &mut tar)?;
                }
                Kind::Symlink(target) => self.inside.symlink(name, &target)?,
                Kind::HardLink(target) => self.inside.hard_link(name, &target)?,
                Kind::Other(letter) => {
                    let why =
                        format!("entries of the kind {letter:?} (devices, pipes) are not unpacked");
                    return Err(self.inside.wrong(name, &why));
                }
            }
        }
    }

    fn zip(&mut self, file: File, archive: &str) -> Result<(), StorageError> {
        let broken = |error: zip::result::ZipError| StorageError::Archive {
            file: archive.to_owned(),
            reason: format!("the file format is not valid: {error}"),
        };
        let mut zip = zip::ZipArchive::new(BufReader::new(file)).map_err(broken)?;
        for index in 0..zip.len() {
            let mut entry = zip.by_index(index).map_err(broken)?;
            let name = PathBuf::from(entry.name().map_err(broken)?.replace('\\', "/"));
            if entry.is_dir() {
                self.inside.directory(&name)?;
                continue;
            }
            let size = entry.size();
            self.take(&name, size)?;
            if entry.is_symlink() {
                let mut target = String::new();
                let read = (&mut entry).take(LONGEST_LINK).read_to_string(&mut target);
                read.map_err(|error| self.inside.wrong(&name, &error.to_string()))?;
                self.inside.symlink(&name, Path::new(&target))?;
                continue;
            }
            // The announced size is counted; not a byte more is written.
            let mut content = (&mut entry).take(size.saturating_add(1));
            self.inside.file(&name, &mut content)?;
            if content.limit() == 0 {
                return Err(self.inside.wrong(&name, "it is longer than it says"));
            }
        }
        Ok(())
    }

    /// Counts a file.
    fn take(&mut self, name: &Path, size: u64) -> Result<(), StorageError> {
        self.files += 1;
        self.left = self.left.checked_sub(size).ok_or_else(|| {
            let why = format!("more than {RATIO} times the archive and 1 GiB are not unpacked");
            self.inside.wrong(name, &why)
        })?;
        Ok(())
    }
}

fn is_current(part: std::path::Component<'_>) -> bool {
    part == std::path::Component::CurDir
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::tar::build;
    use super::super::tests::{directory, tree};
    use super::*;

    /// Unpacks bytes under a name; the files that are there afterwards.
    fn unpacked(name: &str, bytes: &[u8]) -> Result<Vec<String>, String> {
        let root = directory(&crate::random::id());
        let inside = root.join("model");
        fs::create_dir(&inside).unwrap();
        fs::write(inside.join(name), bytes).unwrap();
        unpack(&inside.join(name), &root.join("away"), &inside)
            .map_err(|error| error.to_string())?;
        assert!(!root.join("away").exists());
        Ok(tree(&inside).into_keys().collect())
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn bzip2(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zip(names: &[&str]) -> Vec<u8> {
        let mut zip = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        let deflated = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Deflated);
        for name in names {
            if name.ends_with('/') {
                zip.add_directory(*name, deflated).unwrap();
            } else {
                zip.start_file(*name, deflated).unwrap();
                zip.write_all(name.as_bytes()).unwrap();
            }
        }
        zip.finish().unwrap().into_inner()
    }

    fn tar(names: &[&str]) -> Vec<u8> {
        let entries: Vec<Vec<u8>> =
            names.iter().map(|name| build::file(name, name.as_bytes())).collect();
        build::archive(&entries)
    }

    #[test]
    fn archives_are_known_by_their_bytes() {
        let names = ["./model.bst", "deep/er/x"];
        let want = ["deep/er/x", "model.bst"].map(str::to_owned).to_vec();
        for (name, bytes) in [
            ("m.tar", tar(&names)),
            ("m.tgz", gzip(&tar(&names))),
            ("m.tar.gz", tar(&names)),
            ("m.tar.bz2", bzip2(&tar(&names))),
            ("download", gzip(&tar(&names))),
            ("m.zip", zip(&["model.bst", "deep/", "deep/er/x"])),
            ("download", zip(&["model.bst", "deep/er/x"])),
            // An entry may be called as the archive.
        ] {
            assert_eq!(unpacked(name, &bytes).unwrap(), want, "{name}");
        }
        assert_eq!(unpacked("m.tar", &tar(&["m.tar"])).unwrap(), ["m.tar"]);
    }

    #[test]
    fn models_in_the_clothes_of_an_archive_stay_as_they_are() {
        for (name, bytes) in [
            ("model.joblib", gzip(b"a pickle")),
            ("model.pkl", bzip2(b"a pickle")),
            ("model.skops", zip(&["schema.json"])),
            ("model.bst", Vec::new()),
            ("model.bst", vec![0; 2048]),
        ] {
            assert_eq!(unpacked(name, &bytes).unwrap(), [name]);
        }
    }

    #[test]
    fn what_is_no_archive_or_a_hostile_one_is_refused() {
        let mut bomb = build::file("zeros", b"");
        // A file of 2^40 bytes.
        bomb[124..135].copy_from_slice(b"20000000000");
        bomb[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
        build::sign(&mut bomb);
        let cut = &gzip(&tar(&["model.bst"]))[..60];
        for (name, bytes, part) in [
            ("m.tar.gz", b"nothing".to_vec(), "format is not valid"),
            ("m.zip", b"PK\x03\x04nothing".to_vec(), "format is not valid"),
            ("m.tgz", gzip(b"no tar in here"), "format is not valid"),
            ("m.tgz", cut.to_vec(), "format is not valid"),
            ("m.tar", tar(&["../x"]), "leads out"),
            ("m.tar", tar(&["/x"]), "absolute"),
            ("m.zip", zip(&["../x"]), "leads out"),
            ("m.zip", zip(&["..\\x"]), "leads out"),
            ("m.tar", build::archive(&[build::entry(b'2', "l", "/etc", b"")]), "leads out"),
            ("m.tar", build::archive(&[build::entry(b'3', "dev", "", b"")]), "devices"),
            ("m.tar", build::archive(&[bomb]), "100 times"),
            ("m.tar", build::archive(&[build::entry(b'5', "d/", "", b"")]), "no files"),
            ("m.zip", zip(&["d/"]), "no files"),
        ] {
            let error = unpacked(name, &bytes).unwrap_err();
            assert!(error.starts_with("Failed to unpack archive file "), "{name}: {error}");
            assert!(error.contains(part), "{name}: {error}");
        }
    }
}
