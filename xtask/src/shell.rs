//! Running commands and saying which one failed.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A command that runs in `root`.
pub(crate) fn command(root: &Path, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root).args(arguments);
    command
}

/// Runs a command, its output going where ours goes.
///
/// # Errors
/// When it cannot be started or fails; the message holds the whole command line.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = format!("{command:?}").replace('"', "");
    eprintln!("$ {line}");
    let status = command.status().with_context(|| format!("start {line}"))?;
    ensure!(status.success(), "{line}: {status}");
    Ok(())
}

/// Whether a program answers `--version`.
pub(crate) fn has(program: &str, arguments: &[&str]) -> bool {
    let output = Command::new(program).args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}
