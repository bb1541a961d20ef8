//! `cargo xtask fixtures`: makes the committed fixtures again, byte for byte with the same versions.

use std::path::Path;

use anyhow::Result;

use crate::model;
use crate::shell;

/// Runs every fixture script with the Python that `PYTHON` names (default `python3`).
pub(crate) fn run(root: &Path) -> Result<()> {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let model = model::ensure_present(root)?;
    let model = model.to_string_lossy().into_owned();
    let scripts: &[&[&str]] = &[
        &["xtask/fixtures/tiny_models.py", "engine/tests/fixtures/models"],
        &["xtask/fixtures/real_model.py", &model, "engine/tests/fixtures/real"],
        &["xtask/fixtures/tokens.py", &model, "engine/tests/fixtures/text"],
        &["xtask/fixtures/templates.py", "engine/tests/fixtures/text"],
    ];
    for script in scripts {
        shell::run(&mut shell::command(root, &python, script))?;
    }
    Ok(())
}
