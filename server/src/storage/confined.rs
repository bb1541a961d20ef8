//! A directory that strangers' archives are unpacked into: nothing is written outside of it, and no link leads out.
//!
//! Why no chain of links can: a link may only climb (`../`) from the directory it lies in, which is a real one below
//! the root, no higher than the root, and then descend; what it descends through is again such a link or real.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use super::StorageError;

/// Most entries of one archive.
const MOST_ENTRIES: usize = 1_000_000;

/// A directory that is being filled.
pub(super) struct Confined {
    root: PathBuf,
    /// What the errors call the archive.
    archive: String,
    /// What this archive wrote, and the directories above it, below the root.
    written: HashSet<PathBuf>,
}

impl Confined {
    /// Fills the directory `root` from an archive of this name.
    pub(super) fn new(root: &Path, archive: &str) -> Self {
        Self { root: root.to_owned(), archive: archive.to_owned(), written: HashSet::new() }
    }

    /// Makes a directory, unless it is there.
    pub(super) fn directory(&mut self, name: &Path) -> Result<(), StorageError> {
        let path = self.place(name)?;
        if !is_directory(&path) {
            remove(&path)?;
            fs::create_dir(&path).map_err(StorageError::io(&path))?;
        }
        Ok(())
    }

    /// Writes a file in place of what is there.
    pub(super) fn file(
        &mut self,
        name: &Path,
        content: &mut impl Read,
    ) -> Result<(), StorageError> {
        let path = self.place(name)?;
        remove(&path)?;
        let mut file = File::create_new(&path).map_err(StorageError::io(&path))?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            match content.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => {
                    file.write_all(&buffer[..length]).map_err(StorageError::io(&path))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.wrong(name, &error.to_string())),
            }
        }
    }

    /// Makes a link to `target`, which counts from the directory of the link.
    pub(super) fn symlink(&mut self, name: &Path, target: &Path) -> Result<(), StorageError> {
        let mut height = self.parts(name)?.len() - 1;
        let mut descends = false;
        for part in target.components() {
            match part {
                Component::CurDir => {}
                Component::Normal(_) => descends = true,
                Component::ParentDir if height > 0 && !descends => height -= 1,
                _ => {
                    let target = target.display();
                    return Err(
                        self.wrong(name, &format!("it is a link that leads out ({target})"))
                    );
                }
            }
        }
        let path = self.place(name)?;
        remove(&path)?;
        std::os::unix::fs::symlink(target, &path).map_err(StorageError::io(&path))
    }

    /// Gives a file that is here another name.
    pub(super) fn hard_link(&mut self, name: &Path, target: &Path) -> Result<(), StorageError> {
        let source = self.parts(target)?.iter().collect::<PathBuf>();
        let source = self.root.join(source);
        let real = source.parent().and_then(|parent| parent.canonicalize().ok());
        let root = self.root.canonicalize().map_err(StorageError::io(&self.root))?;
        let inside = real.is_some_and(|real| real.starts_with(root));
        if !inside || !fs::symlink_metadata(&source).is_ok_and(|meta| meta.is_file()) {
            let target = target.display();
            return Err(
                self.wrong(name, &format!("it is a link to a file that is not here ({target})"))
            );
        }
        let path = self.place(name)?;
        if path == source {
            return Ok(());
        }
        remove(&path)?;
        fs::hard_link(&source, &path).map_err(StorageError::io(&path))
    }

    /// Takes away what archives before this one wrote at a path (the root, when it is empty) or below it.
    pub(super) fn hide(&self, name: &Path) -> Result<(), StorageError> {
        let parts = if name.as_os_str().is_empty() { Vec::new() } else { self.parts(name)? };
        let mut path = self.root.clone();
        for part in &parts {
            // What lies behind a link is not below this path.
            if !is_directory(&path) {
                return Ok(());
            }
            path.push(part);
        }
        let mut hidden = vec![parts.iter().collect::<PathBuf>()];
        while let Some(name) = hidden.pop() {
            let path = self.root.join(&name);
            if !name.as_os_str().is_empty() && !self.written.contains(&name) {
                remove(&path)?;
            } else if is_directory(&path) {
                for entry in fs::read_dir(&path).map_err(StorageError::io(&path))? {
                    hidden.push(name.join(entry.map_err(StorageError::io(&path))?.file_name()));
                }
            }
        }
        Ok(())
    }

    /// An entry that cannot be.
    pub(super) fn wrong(&self, name: &Path, why: &str) -> StorageError {
        let reason = format!("{}: {why}", name.display());
        StorageError::Archive { file: self.archive.clone(), reason }
    }

    /// Where an entry goes; the directories above it are made, and are no links.
    fn place(&mut self, name: &Path) -> Result<PathBuf, StorageError> {
        let parts: Vec<PathBuf> = self.parts(name)?.iter().map(PathBuf::from).collect();
        let mut path = self.root.clone();
        let mut below = PathBuf::new();
        for (index, part) in parts.iter().enumerate() {
            if index > 0 && !is_directory(&path) {
                match fs::create_dir(&path) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        return Err(self.wrong(name, "it lies below a file or a link"));
                    }
                    Err(source) => return Err(StorageError::Io { path, source }),
                }
            }
            path.push(part);
            below.push(part);
            self.written.insert(below.clone());
        }
        if self.written.len() > MOST_ENTRIES {
            return Err(
                self.wrong(name, &format!("more than {MOST_ENTRIES} entries are not unpacked"))
            );
        }
        Ok(path)
    }

    /// The parts of a path that stays below the root.
    fn parts<'a>(&self, name: &'a Path) -> Result<Vec<&'a std::ffi::OsStr>, StorageError> {
        let mut parts = Vec::new();
        for part in name.components() {
            match part {
                Component::CurDir => {}
                Component::Normal(part) => parts.push(part),
                Component::ParentDir => return Err(self.wrong(name, "it leads out with ..")),
                Component::RootDir | Component::Prefix(_) => {
                    return Err(self.wrong(name, "it is an absolute path"));
                }
            }
        }
        if parts.is_empty() { Err(self.wrong(name, "it has no name")) } else { Ok(parts) }
    }
}

/// Whether a directory, no link to one, is there.
fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())
}

/// Removes what is at a path, if anything is.
fn remove(path: &Path) -> Result<(), StorageError> {
    let removed = if is_directory(path) { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(StorageError::io(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(name: &str) -> PathBuf {
        let root =
            std::env::temp_dir().join(format!("tokenmill-tree-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("tree")).unwrap();
        root.join("tree")
    }

    fn write(tree: &mut Confined, name: &str) -> Result<(), StorageError> {
        tree.file(Path::new(name), &mut name.as_bytes())
    }

    #[test]
    fn nothing_leaves_the_directory() {
        let root = root("hostile");
        let mut tree = Confined::new(&root, "x.tar");
        write(&mut tree, "a/b/file").unwrap();
        for name in ["../x", "a/../../x", "/x", "", "a/b/file/below", "."] {
            let error = write(&mut tree, name).unwrap_err().to_string();
            assert!(error.starts_with("Failed to unpack archive file x.tar: "), "{name}: {error}");
        }
        for (name, target) in [
            ("l", "/etc"),
            ("l", ".."),
            ("a/l", "../.."),
            ("l", "a/../.."),
            // Lexically inside, but not through a link at `a`.
            ("l", "a/.."),
        ] {
            let error = tree.symlink(Path::new(name), Path::new(target)).unwrap_err().to_string();
            assert!(error.contains("leads out"), "{name} -> {target}: {error}");
        }
        tree.symlink(Path::new("a/up"), Path::new("..")).unwrap();
        tree.symlink(Path::new("dir"), Path::new("./a/b")).unwrap();
        let error = write(&mut tree, "dir/x").unwrap_err().to_string();
        assert!(error.contains("below a file or a link"), "{error}");
        assert!(tree.symlink(Path::new("a/up/l"), Path::new("..")).is_err());
        for target in ["missing", "../x", "/etc/passwd", "a/up", "a"] {
            assert!(tree.hard_link(Path::new("h"), Path::new(target)).is_err(), "{target}");
        }
        assert!(!root.with_file_name("x").exists());
    }

    #[test]
    fn later_entries_replace_earlier_ones() {
        let root = root("replace");
        let mut tree = Confined::new(&root, "x.tar");
        write(&mut tree, "file").unwrap();
        tree.symlink(Path::new("link"), Path::new("file")).unwrap();
        tree.hard_link(Path::new("hard"), Path::new("file")).unwrap();
        tree.hard_link(Path::new("file"), Path::new("file")).unwrap();
        write(&mut tree, "link").unwrap();
        assert_eq!(fs::read_to_string(root.join("file")).unwrap(), "file", "not through the link");
        assert_eq!(fs::read_to_string(root.join("hard")).unwrap(), "file");
        tree.directory(Path::new("file")).unwrap();
        write(&mut tree, "file/below").unwrap();
        tree.directory(Path::new("file")).unwrap();
        assert!(root.join("file/below").exists());
        write(&mut tree, "file").unwrap();
        assert!(root.join("file").is_file());
    }

    #[test]
    fn only_what_came_before_is_hidden() {
        let root = root("hide");
        let mut below = Confined::new(&root, "1");
        for name in ["d/old", "d/e/old", "other", "gone/x"] {
            write(&mut below, name).unwrap();
        }
        let mut above = Confined::new(&root, "2");
        write(&mut above, "d/e/new").unwrap();
        above.hide(Path::new("d")).unwrap();
        above.hide(Path::new("gone")).unwrap();
        above.hide(Path::new("never/was")).unwrap();
        assert!(above.hide(Path::new("../tree/other")).is_err());
        let exists = |name: &str| root.join(name).exists();
        assert!(exists("d/e/new") && exists("other"));
        assert!(!exists("d/old") && !exists("d/e/old") && !exists("gone"));
        above.hide(Path::new("")).unwrap();
        assert!(exists("d/e/new") && !exists("other"));
    }
}
