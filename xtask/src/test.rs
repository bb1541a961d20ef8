//! `cargo xtask test`: unit, integration and black-box tests, the official clients among them.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::{model, shell};

/// Runs everything; `--fast` leaves out what needs the release binary.
pub(crate) fn run(root: &Path, options: &[String]) -> Result<()> {
    model::ensure_present(root)?;
    model::ensure_classic(root)?;
    let cargo = |arguments: &[&str]| shell::command(root, "cargo", arguments);
    if shell::has("cargo", &["nextest", "--version"]) {
        let arguments =
            ["nextest", "run", "--workspace", "--exclude", "tokenmill-tests", "--locked"];
        shell::run(&mut cargo(&arguments))?;
    } else {
        let arguments = [
            "test",
            "--workspace",
            "--exclude",
            "tokenmill-tests",
            "--locked",
            "--lib",
            "--bins",
            "--tests",
        ];
        shell::run(&mut cargo(&arguments))?;
    }
    if options.iter().any(|option| option == "--fast") {
        return Ok(());
    }
    shell::run(&mut cargo(&["build", "--release", "--package", "tokenmill", "--locked"]))?;
    shell::run(&mut cargo(&["test", "--package", "tokenmill-tests", "--locked"]))?;
    let python = client_environment(root)?.to_string_lossy().into_owned();
    for file in client_tests(root)? {
        let discover = [
            "-m",
            "unittest",
            "discover",
            "--verbose",
            "--start-directory",
            "tests/clients",
            "--pattern",
            &file,
        ];
        shell::run(&mut shell::command(root, &python, &discover))?;
    }
    Ok(())
}

/// The files of the clients' tests. Each runs in its own process: `kserve` and `tritonclient` both register the messages of
/// `inference` with protobuf, which refuses the second.
fn client_tests(root: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(root.join("tests/clients"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with("test_") && name.ends_with(".py") {
            files.push(name);
        }
    }
    files.sort();
    ensure!(!files.is_empty(), "tests/clients has no test_*.py");
    Ok(files)
}

/// A Python environment with the official clients, made once and made again when the list changes.
fn client_environment(root: &Path) -> Result<PathBuf> {
    let folder = root.join("target/client-tests");
    let python = folder.join("bin/python");
    let wanted = std::fs::read_to_string(root.join("tests/clients/requirements.txt"))?;
    let stamp = folder.join("requirements.txt");
    if python.exists() && std::fs::read_to_string(&stamp).is_ok_and(|had| had == wanted) {
        return Ok(python);
    }
    shell::run(&mut shell::command(root, "python3", &["-m", "venv", "target/client-tests"]))?;
    let install = ["-m", "pip", "install", "--quiet", "-r", "tests/clients/requirements.txt"];
    shell::run(&mut shell::command(root, &python.to_string_lossy(), &install))?;
    std::fs::write(stamp, wanted)?;
    Ok(python)
}
