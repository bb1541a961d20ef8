//! Files of HDFS over WebHDFS (or HttpFS): `LISTSTATUS` from directory to directory, `OPEN` where a data node has the bytes.
//!
//! Who we are is in a mounted secret, one file a setting. Kerberos is not spoken: a cluster that wants it is reached through
//! a gateway (HttpFS, Knox) that takes headers or certificates.

mod secret;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use reqwest::Response;
use serde::Deserialize;
use tokio::sync::OnceCell;

use self::secret::Secret;
use super::answer::{Asked, escaped, escaped_path};
use super::{Body, Limits, Protocol, Remote, RemoteFile, Source, StorageError, StorageUri, client};
use super::{DEEPEST, MOST_FILES};
use crate::config::StorageConfig;

/// The setting that names the cluster.
const NAMENODE: &str = "HDFS_NAMENODE";
/// The part of a path that stands for what was modified last.
const LATEST: &str = "#LATEST";

/// A path of a cluster.
struct WebHdfs {
    asked: Asked,
    http: reqwest::Client,
    /// Addresses of name nodes; one of them is active.
    namenodes: Vec<String>,
    /// The one that answered last.
    active: AtomicUsize,
    /// The user we act for.
    proxy_user: Option<String>,
    /// What paths are relative to: absolute, or from the user's home.
    root: Option<String>,
    /// As the address has it: below the root, unless it begins with a slash.
    path: String,
    threads: usize,
    top: OnceCell<Top>,
}

/// What the address leads to.
struct Top {
    /// Absolute, with a slash before each part and none at its end.
    path: String,
    status: FileStatus,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileStatus {
    #[serde(default)]
    path_suffix: String,
    r#type: String,
    #[serde(default)]
    length: u64,
    #[serde(default)]
    modification_time: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StatusAnswer {
    file_status: FileStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListAnswer {
    file_statuses: Statuses,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Statuses {
    file_status: Vec<FileStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HomeAnswer {
    path: String,
}

/// The files of `hdfs://` and the path that follows.
pub(super) fn open(
    uri: &StorageUri,
    path: &str,
    config: &StorageConfig,
) -> Result<Remote, StorageError> {
    // With a third slash the path is absolute.
    let slash = if uri.secret_text().contains(":///") { "/" } else { "" };
    let path = format!("{slash}{path}");
    let source = WebHdfs::new(&uri.to_string(), &path, &Secret { settings: &config.hdfs })?;
    Ok(Remote::Files(Box::new(source)))
}

impl WebHdfs {
    fn new(uri: &str, path: &str, secret: &Secret<'_>) -> Result<Self, StorageError> {
        for name in ["KERBEROS_PRINCIPAL", "KERBEROS_KEYTAB"] {
            if secret.bytes(name)?.is_some() {
                let reason = "Kerberos is not spoken by this server; reach the cluster through a gateway \
                              that takes HEADERS or TLS_CERT, or let an init container download the model";
                return Err(StorageError::setting(name, reason));
            }
        }
        let missing = || StorageError::setting(NAMENODE, secret.missing());
        let namenodes = secret.text(NAMENODE)?.ok_or_else(missing)?;
        let namenodes: Vec<String> = namenodes
            .split(';')
            .map(|url| url.trim().trim_end_matches('/').to_owned())
            .filter(|url| !url.is_empty())
            .collect();
        let is_web = |url: &String| url.starts_with("http://") || url.starts_with("https://");
        if namenodes.is_empty() || !namenodes.iter().all(is_web) {
            let reason = "expected http(s)://host:port of a name node, several between semicolons";
            return Err(StorageError::setting(NAMENODE, reason));
        }
        let threads = match secret.text("N_THREADS")? {
            None => 2,
            Some(text) => text.parse().ok().filter(|&threads| threads > 0).ok_or_else(|| {
                StorageError::setting(
                    "N_THREADS",
                    format!("{text:?} is not a whole number above 0"),
                )
            })?,
        };
        let http = secret.client()?;
        Ok(Self {
            http: client::build(http, Protocol::Hdfs, uri)?,
            asked: Asked { protocol: Protocol::Hdfs, uri: uri.to_owned(), explain },
            namenodes,
            active: AtomicUsize::new(0),
            proxy_user: secret.text("USER_PROXY")?,
            root: secret.text("HDFS_ROOTPATH")?,
            path: path.to_owned(),
            threads,
            top: OnceCell::new(),
        })
    }

    async fn top(&self) -> Result<&Top, StorageError> {
        self.top.get_or_try_init(|| self.resolve()).await
    }

    /// The absolute path of the address, its markers replaced.
    async fn resolve(&self) -> Result<Top, StorageError> {
        let root = match &self.root {
            Some(root) if root.starts_with('/') && !self.path.starts_with('/') => root.clone(),
            Some(root) if !self.path.starts_with('/') => {
                let answer = self.ask("/", "GETHOMEDIRECTORY", 0).await?;
                let home: HomeAnswer = self.asked.json(answer).await?;
                format!("{}/{root}", home.path)
            }
            _ => String::new(),
        };
        let mut path = String::new();
        for part in parts(&format!("{root}/{}", self.path)) {
            let latest = part.strip_prefix(LATEST).and_then(levels);
            for _ in 0..latest.unwrap_or(0) {
                let name = self.latest(&path).await?;
                path = format!("{path}/{name}");
            }
            if latest.is_none() {
                path = format!("{path}/{part}");
            }
        }
        let answer = self.ask(&path, "GETFILESTATUS", 0).await?;
        let status = self.asked.json::<StatusAnswer>(answer).await?.file_status;
        Ok(Top { path, status })
    }

    /// What was modified last in a directory.
    async fn latest(&self, directory: &str) -> Result<String, StorageError> {
        let newest = |status: &FileStatus| {
            (status.modification_time, std::cmp::Reverse(status.path_suffix.clone()))
        };
        let entries = self.entries(directory).await?;
        let found = entries.into_iter().max_by_key(newest).map(|status| status.path_suffix);
        found.filter(|name| !name.is_empty()).ok_or_else(|| StorageError::NotFound {
            protocol: Protocol::Hdfs,
            uri: self.asked.uri.clone(),
            detail: format!("{LATEST}: {directory:?} is a file, or empty"),
        })
    }

    async fn entries(&self, directory: &str) -> Result<Vec<FileStatus>, StorageError> {
        let answer = self.ask(directory, "LISTSTATUS", 0).await?;
        Ok(self.asked.json::<ListAnswer>(answer).await?.file_statuses.file_status)
    }

    /// Every file below a directory.
    async fn walk(&self, top: &str) -> Result<Vec<RemoteFile>, StorageError> {
        let mut files = Vec::new();
        let mut left = vec![(String::new(), 0)];
        while let Some((below, depth)) = left.pop() {
            for status in self.entries(&format!("{top}{below}")).await? {
                let name = &status.path_suffix;
                if name.is_empty() || name.contains('/') {
                    return Err(self.asked.malformed(format!("{name:?} is no name of a file")));
                }
                let path = format!("{below}/{name}");
                match status.r#type.as_str() {
                    "FILE" => files.push(file(&path[1..], format!("{top}{path}"), &status)),
                    "DIRECTORY" if depth < DEEPEST => left.push((path, depth + 1)),
                    "DIRECTORY" => {
                        return Err(self.asked.malformed(format!("{path} is nested too deeply")));
                    }
                    other => {
                        let reason =
                            format!("{path} is a {other}, only files and directories are read");
                        return Err(StorageError::Unsupported {
                            uri: self.asked.uri.clone(),
                            reason,
                        });
                    }
                }
            }
            if files.len() + left.len() > MOST_FILES {
                return Err(self.asked.malformed(format!("more than {MOST_FILES} files")));
            }
        }
        Ok(files)
    }

    /// The answer of the first name node that is there and active.
    async fn ask(
        &self,
        path: &str,
        operation: &str,
        offset: u64,
    ) -> Result<Response, StorageError> {
        let active = self.active.load(Ordering::Relaxed);
        let mut last = None;
        for index in (0..self.namenodes.len()).map(|tried| (active + tried) % self.namenodes.len())
        {
            let mut url = format!(
                "{}/webhdfs/v1{}?op={operation}",
                self.namenodes[index],
                escaped_path(path)
            );
            if let Some(user) = &self.proxy_user {
                url.push_str(&format!("&doas={}", escaped(user)));
            }
            if offset > 0 {
                url.push_str(&format!("&offset={offset}"));
            }
            match self.asked.send(self.http.get(url)).await {
                Ok(answer) => {
                    self.active.store(index, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(error) if is_elsewhere(&error) => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.expect("there is a name node"))
    }
}

impl Source for WebHdfs {
    fn list(&self) -> BoxFuture<'_, Result<Vec<RemoteFile>, StorageError>> {
        Box::pin(async {
            let Top { path, status } = self.top().await?;
            match status.r#type.as_str() {
                "FILE" => {
                    let name = path.rsplit('/').next().unwrap_or_default();
                    Ok(vec![file(name, path.clone(), status)])
                }
                _ => self.walk(path).await,
            }
        })
    }

    fn open<'a>(
        &'a self,
        file: &'a RemoteFile,
        start: u64,
    ) -> BoxFuture<'a, Result<Body, StorageError>> {
        Box::pin(async move {
            // The client follows the redirect to the data node.
            let answer = self.ask(&file.key, "OPEN", start).await?;
            Ok(Body { start, bytes: self.asked.stream(answer) })
        })
    }

    fn limits(&self) -> Limits {
        Limits { files: self.threads, ..Limits::default() }
    }
}

fn file(path: &str, key: String, status: &FileStatus) -> RemoteFile {
    RemoteFile {
        path: path.to_owned(),
        key,
        size: Some(status.length),
        tag: Some(status.modification_time.to_string()),
    }
}

/// The parts of a path; `..` leads no higher than the top.
fn parts(path: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts
}

/// How many levels `#LATEST{n}` stands for, from what follows `#LATEST`.
fn levels(after: &str) -> Option<usize> {
    if after.is_empty() {
        return Some(1);
    }
    let number: usize = after.strip_prefix('{')?.strip_suffix('}')?.parse().ok()?;
    (1..=DEEPEST).contains(&number).then_some(number)
}

/// Whether another name node may know more: this one is away, or stands by.
fn is_elsewhere(error: &StorageError) -> bool {
    let standby = |detail: &str| {
        detail.starts_with("StandbyException") || detail.starts_with("RetriableException")
    };
    match error {
        StorageError::Network { .. } => true,
        StorageError::Denied { detail, .. } | StorageError::Status { detail, .. } => {
            standby(detail)
        }
        _ => false,
    }
}

/// `{"RemoteException":{"exception":"...","message":"..."}}`
fn explain(body: &str) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Refusal {
        remote_exception: Exception,
    }
    #[derive(Deserialize)]
    struct Exception {
        exception: String,
        #[serde(default)]
        message: String,
    }
    let exception = serde_json::from_str::<Refusal>(body).ok()?.remote_exception;
    // What follows the first line is a stack trace.
    let message = exception.message.lines().next().unwrap_or_default();
    Some(format!("{}: {message}", exception.exception))
}
