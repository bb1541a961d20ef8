//! Repositories of Git, cloned by the `git` program: the last commit of the default branch, without its history.
//!
//! The program is told nothing but the address: no prompts, no hooks, no other protocols, no configuration of the repository.
//! Passwords go through its environment and are shown to the address's own host only. Proxies and certificate authorities
//! are those of its own settings (`https_proxy`, `GIT_SSL_CAINFO`).

#[cfg(test)]
mod tests;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::Url;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::versions::is_version;
use super::{DEEPEST, MOST_FILES, Progress, Protocol, Remote, StorageError, StorageUri, Tree};
use crate::config::StorageConfig;
use crate::config::storage::GitSettings;

/// The program.
const PROGRAM: &str = "git";
/// Longest that the program may take to tell the last commit.
const LONGEST_LOOK: Duration = Duration::from_secs(60);
/// Most bytes of what the program says that are kept.
const MOST_SAID: usize = 64 << 10;
/// Variables that would lead the program to another repository or other settings.
const LEFT_OUT: &[&str] = &[
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_NAMESPACE",
    "GIT_TEMPLATE_DIR",
    "GIT_TRACE",
    "GIT_TRACE_CURL",
    "GIT_CURL_VERBOSE",
];
/// Says who we are, out of the environment: a credential helper of the program.
const HELPER: &str = "!f() { test \"$1\" = get || exit 0; printf 'username=%s\\npassword=%s\\n' \
                      \"$GIT_USERNAME\" \"$GIT_PASSWORD\"; }; f";
/// How a file begins whose content Git LFS keeps elsewhere, and the most bytes it has.
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1\n";
const LONGEST_POINTER: u64 = 1024;

/// A repository.
struct Repository {
    /// The address for messages.
    uri: String,
    /// Without user and password.
    url: Url,
    /// `scheme://host:port`, to which passwords are shown.
    origin: String,
    username: Option<String>,
    settings: GitSettings,
}

/// The repository at an address that ends in `.git`.
pub(super) fn open(uri: &StorageUri, config: &StorageConfig) -> Result<Remote, StorageError> {
    let repository = Repository::new(&uri.to_string(), uri.secret_text(), &config.git)?;
    Ok(Remote::Tree(Box::new(repository)))
}

impl Repository {
    fn new(uri: &str, address: &str, settings: &GitSettings) -> Result<Self, StorageError> {
        let no_address = |reason: String| StorageError::Unsupported { uri: uri.to_owned(), reason };
        let mut url = Url::parse(address)
            .map_err(|error| no_address(format!("this is no address: {error}")))?;
        if url.password().is_some() {
            tracing::warn!("{uri}: the password in the address is not used; set GIT_PASSWORD");
        }
        let of_address = percent_encoding::percent_decode_str(url.username()).decode_utf8_lossy();
        let of_address = Some(of_address.into_owned()).filter(|name| !name.is_empty());
        let cannot = |()| no_address("this is no address of a host".to_owned());
        url.set_username("").map_err(cannot)?;
        url.set_password(None).map_err(cannot)?;
        let username = of_address.or_else(|| settings.username.clone());
        for (name, value) in [
            ("GIT_USERNAME", username.as_deref()),
            ("GIT_PASSWORD", settings.password.as_ref().map(|password| password.0.as_str())),
        ] {
            if value.is_some_and(|value| value.contains(['\n', '\r', '\0'])) {
                return Err(StorageError::setting(name, "expected one line"));
            }
        }
        let origin = url.origin().ascii_serialization();
        Ok(Self { uri: uri.to_owned(), url, origin, username, settings: settings.clone() })
    }

    /// The program with what it is never to do.
    fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        let config = [
            "core.askPass=",
            "core.hooksPath=/dev/null",
            "core.fsmonitor=false",
            "protocol.allow=never",
            "protocol.http.allow=always",
            "protocol.https.allow=always",
            "http.lowSpeedLimit=1",
            "http.lowSpeedTime=60",
            "advice.detachedHead=false",
        ];
        for setting in config {
            command.args(["-c", setting]);
        }
        if self.username.is_some() || self.settings.password.is_some() {
            // The empty one takes those of other settings away.
            command.args(["-c", "credential.helper="]);
            command.args(["-c", &format!("credential.{}.helper={HELPER}", self.origin)]);
        }
        let password = self.settings.password.as_ref().map(|password| password.0.as_str());
        command
            .env("GIT_USERNAME", self.username.as_deref().unwrap_or_default())
            .env("GIT_PASSWORD", password.unwrap_or_default())
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "")
            .env("SSH_ASKPASS", "")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        for name in LEFT_OUT {
            command.env_remove(name);
        }
        command
    }

    /// What the program writes, when it succeeds.
    async fn run(&self, mut command: Command) -> Result<String, StorageError> {
        let mut child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => StorageError::Unsupported {
                uri: self.uri.clone(),
                reason: format!(
                    "the {PROGRAM} program is not here (PATH), which clones repositories; install it, or let an \
                     init container clone the model"
                ),
            },
            _ => StorageError::io(Path::new(PROGRAM))(error),
        })?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (stdout, stderr) = (stdout.expect("it is piped"), stderr.expect("it is piped"));
        let (out, said) = tokio::join!(kept(stdout), kept(stderr));
        let status = child.wait().await.map_err(StorageError::io(Path::new(PROGRAM)))?;
        if status.success() { Ok(out) } else { Err(self.failure(&said)) }
    }

    /// What the program's last words mean.
    fn failure(&self, said: &str) -> StorageError {
        let fatal = said.lines().rev().find(|line| {
            line.starts_with("fatal: ")
                || line.starts_with("error: ")
                || line.starts_with("remote: ")
        });
        let detail = fatal.or(said.lines().last()).unwrap_or("it failed and said nothing").trim();
        let contains = |words: &[&str]| words.iter().any(|word| said.contains(word));
        let status =
            if contains(&["Authentication failed", "could not read Username", "error: 401"]) {
                401
            } else if contains(&["error: 403"]) {
                403
            } else if contains(&[
                "not found",
                "error: 404",
                "does not appear to be a git repository",
            ]) {
                404
            } else {
                return StorageError::cut(Protocol::Git, &self.uri, detail.to_owned());
            };
        StorageError::of_status(Protocol::Git, &self.uri, status, detail)
    }

    /// The last commit of the default branch.
    async fn look(&self) -> Result<String, StorageError> {
        let mut command = self.command();
        command.args(["ls-remote", "--exit-code", "--", self.url.as_str(), "HEAD"]);
        let looked = tokio::time::timeout(LONGEST_LOOK, self.run(command)).await;
        let slow = || {
            let reason = format!("no answer within {} seconds", LONGEST_LOOK.as_secs());
            StorageError::cut(Protocol::Git, &self.uri, reason)
        };
        let out = looked.map_err(|_| slow())??;
        let commit = out.split_whitespace().next().unwrap_or_default();
        if !is_version(commit) {
            let reason = format!("{commit:?} is no commit");
            return Err(StorageError::malformed(Protocol::Git, &self.uri, reason));
        }
        Ok(commit.to_owned())
    }

    async fn clone(&self, directory: &Path) -> Result<(), StorageError> {
        let mut command = self.command();
        command
            .args(["clone", "--depth=1", "--no-tags", "--single-branch", "--no-recurse-submodules"])
            .args(["--template=", "--quiet", "--", self.url.as_str()])
            .arg(directory);
        self.run(command).await?;
        let history = directory.join(".git");
        fs::remove_dir_all(&history).map_err(StorageError::io(&history))?;
        let (uri, directory) = (self.uri.clone(), directory.to_owned());
        let checked = tokio::task::spawn_blocking(move || check(&uri, &directory)).await;
        checked.unwrap_or_else(|panic| {
            Err(StorageError::io(Path::new(PROGRAM))(std::io::Error::other(panic)))
        })
    }
}

impl Tree for Repository {
    fn version(&self) -> BoxFuture<'_, Result<String, StorageError>> {
        Box::pin(self.look())
    }

    /// Writes the last commit, which may be a later one than the version.
    fn write<'a>(
        &'a self,
        _version: &'a str,
        directory: &'a Path,
        _progress: Progress<'a>,
    ) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(self.clone(directory))
    }
}

/// The beginning of what a program writes; all of it is read.
async fn kept(mut output: impl tokio::io::AsyncRead + Unpin) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = output.read(&mut buffer).await {
        let room = MOST_SAID - text.len();
        text.extend_from_slice(&buffer[..length.min(room)]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Refuses links that lead out of a clone, and files whose contents were left elsewhere.
fn check(uri: &str, directory: &Path) -> Result<(), StorageError> {
    let unusable = |path: &Path, why: &str| {
        let path = path.strip_prefix(directory).unwrap_or(path).display();
        StorageError::Unsupported { uri: uri.to_owned(), reason: format!("{path} {why}") }
    };
    let root = directory.canonicalize().map_err(StorageError::io(directory))?;
    let mut left: Vec<(PathBuf, usize)> = vec![(directory.to_owned(), 0)];
    let mut seen = 0;
    while let Some((directory, depth)) = left.pop() {
        for entry in fs::read_dir(&directory).map_err(StorageError::io(&directory))? {
            let path = entry.map_err(StorageError::io(&directory))?.path();
            let meta = fs::symlink_metadata(&path).map_err(StorageError::io(&path))?;
            seen += 1;
            if seen > MOST_FILES {
                return Err(unusable(
                    &path,
                    &format!("and others are more than {MOST_FILES} files"),
                ));
            }
            if meta.is_symlink() {
                if !path.canonicalize().is_ok_and(|target| target.starts_with(&root)) {
                    return Err(unusable(
                        &path,
                        "is a link that leads out of the repository, or nowhere",
                    ));
                }
            } else if meta.is_dir() && depth < DEEPEST {
                left.push((path, depth + 1));
            } else if meta.is_dir() {
                return Err(unusable(&path, "is nested too deeply"));
            } else if is_pointer(&path, meta.len()) {
                let why = "is a pointer of Git LFS, its content was not fetched; install git-lfs, or name an \
                           address that has the file itself (hf:// for a model of the hub)";
                return Err(unusable(&path, why));
            }
        }
    }
    Ok(())
}

fn is_pointer(path: &Path, size: u64) -> bool {
    let mut start = Vec::new();
    size <= LONGEST_POINTER
        && fs::File::open(path)
            .and_then(|file| file.take(POINTER.len() as u64).read_to_end(&mut start))
            .is_ok()
        && start == POINTER
}
