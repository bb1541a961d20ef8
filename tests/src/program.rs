//! Runs the binary to its end, with a bound on how long that may take.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a process is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// The repository's root.
pub fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(PathBuf::from).unwrap_or(here)
}

/// The binary under test: that of `TOKENMILL_BINARY`, else the release build.
pub fn binary() -> PathBuf {
    match std::env::var_os("TOKENMILL_BINARY") {
        Some(path) => PathBuf::from(path),
        None => root().join("target/release/tokenmill"),
    }
}

/// The binary, without the environment variables that it reads: only arguments count.
pub(crate) fn command() -> Command {
    let mut command = Command::new(binary());
    command.env_clear().stdin(Stdio::null());
    for name in ["PATH", "HOME", "TMPDIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs the binary with `arguments`.
///
/// # Errors
/// When it cannot be started or still runs after `limit`; it is killed then.
pub fn run(arguments: &[&str], limit: Duration) -> Result<Ended> {
    let mut child = command()
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", binary().display()))?;
    let stdout = child.stdout.take().map(|pipe| thread::spawn(|| read(pipe)));
    let stderr = child.stderr.take().map(|pipe| thread::spawn(|| read(pipe)));
    let status = wait(&mut child, limit);
    if status.is_err() {
        child.kill().context("cannot end the process")?;
        child.wait()?;
    }
    let text = |reader: Option<thread::JoinHandle<String>>| {
        reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
    };
    let (stdout, stderr) = (text(stdout), text(stderr));
    match status {
        Ok(status) => Ok(Ended { code: status.code(), stdout, stderr }),
        Err(error) => bail!("{arguments:?}: {error:#}; it wrote:\n{stdout}{stderr}"),
    }
}

fn read(mut pipe: impl Read) -> String {
    let mut bytes = Vec::new();
    // What was written before the pipe broke is still worth showing.
    let _ = pipe.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits for the end of `child`.
///
/// # Errors
/// When it still runs after `limit`.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() > limit {
            bail!("it still runs after {limit:?}");
        }
        thread::sleep(LOOK);
    }
}
