//! Repository tasks: `cargo xtask demo | test | check | fixtures | bench`.

mod bench;
mod check;
mod demo;
mod fixtures;
mod model;
mod shell;
mod test;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

const USAGE: &str = "\
usage: cargo xtask TASK

  demo      get the demo model, build the release binary and serve it (options go to `tokenmill serve`)
  test      everything CI runs that needs no special hardware
  check     format, clippy, licences and advisories, documentation, repository rules
  fixtures  make the committed fixtures again (needs torch and transformers in the Python that PYTHON names)
  bench     timings against the machine's bandwidth and against peers (see docs/performance.md)
  model     get the models that tests use and print the path of the demo model
";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let root = root();
    match arguments.split_first().map(|(task, rest)| (task.as_str(), rest)) {
        Some(("demo", rest)) => demo::run(&root, rest),
        Some(("test", rest)) => test::run(&root, rest),
        Some(("check", _)) => check::run(&root),
        Some(("fixtures", _)) => fixtures::run(&root),
        Some(("bench", rest)) => bench::run(&root, rest),
        Some(("model", _)) => {
            model::ensure_classic(&root)?;
            println!("{}", model::ensure_present(&root)?.display());
            Ok(())
        }
        Some(("help" | "--help" | "-h", _)) => {
            print!("{USAGE}");
            Ok(())
        }
        Some((task, _)) => bail!("no task {task:?}\n\n{USAGE}"),
        None => bail!("no task given\n\n{USAGE}"),
    }
}

/// The repository's root: the parent of this crate.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("xtask lies in the repository's root").to_owned()
}
