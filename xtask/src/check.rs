//! `cargo xtask check`: everything that reads the tree and runs none of it.

use std::path::Path;

use anyhow::{Result, bail};

use crate::shell;

/// Format, clippy, documentation, dependency rules. The repository's own rules (`tidy`) are tests
/// of this crate and run here too.
pub(crate) fn run(root: &Path) -> Result<()> {
    let cargo = |arguments: &[&str]| shell::command(root, "cargo", arguments);
    shell::run(&mut cargo(&["fmt", "--all", "--check"]))?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    shell::run(&mut cargo(&clippy))?;
    let doc = ["doc", "--workspace", "--no-deps", "--locked"];
    shell::run(cargo(&doc).env("RUSTDOCFLAGS", "-D warnings"))?;
    if shell::has("cargo", &["deny", "--version"]) {
        // Advisories need the advisory database, which a machine without a network cannot get.
        shell::run(&mut cargo(&["deny", "--offline", "check", "bans", "licenses", "sources"]))?;
    } else if std::env::var_os("CI").is_some() {
        bail!("cargo-deny is not installed: cargo install --locked cargo-deny");
    } else {
        eprintln!("cargo deny is skipped: cargo install --locked cargo-deny");
    }
    shell::run(&mut cargo(&["test", "--quiet", "--package", "xtask"]))
}
