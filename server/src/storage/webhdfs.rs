//! Files of HDFS over WebHDFS (or HttpFS): `LISTSTATUS` from directory to directory, `OPEN` where a data node has the bytes.
//!
//! Who we are is in a mounted secret, one file a setting. Kerberos is not spoken: a cluster that wants it is reached through
//! a gateway (HttpFS, Knox) that takes headers or certificates.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use reqwest::Response;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, ClientBuilder, Identity};
use serde::Deserialize;
use tokio::sync::OnceCell;

use super::answer::{Asked, escaped, escaped_path};
use super::{Body, Limits, Protocol, Remote, RemoteFile, Source, StorageError, StorageUri, client};
use super::{DEEPEST, MOST_FILES};
use crate::config::StorageConfig;
use crate::config::storage::HdfsSettings;

/// The setting that names the cluster.
const NAMENODE: &str = "HDFS_NAMENODE";
/// Settings that are files, in base64 where the secret is given as JSON.
const FILES: &[&str] = &["KERBEROS_KEYTAB", "TLS_CERT", "TLS_KEY", "TLS_CA"];
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
    /// As the address has it.
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
    let source = WebHdfs::new(&uri.to_string(), path, &Secret { settings: &config.hdfs })?;
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
            None => String::new(),
            Some(root) if root.starts_with('/') => root.clone(),
            Some(root) => {
                let answer = self.ask("/", "GETHOMEDIRECTORY", 0).await?;
                let home: HomeAnswer = self.asked.json(answer).await?;
                format!("{}/{root}", home.path)
            }
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

/// A mounted secret, or what `STORAGE_CONFIG` has in its place.
struct Secret<'a> {
    settings: &'a HdfsSettings,
}

impl Secret<'_> {
    /// A setting that is not empty.
    fn bytes(&self, name: &str) -> Result<Option<Vec<u8>>, StorageError> {
        let bytes = match &self.settings.given {
            Some(given) => match given.get(name) {
                Some(value) if FILES.contains(&name) => {
                    use base64::Engine;
                    let decoded = base64::engine::general_purpose::STANDARD.decode(value.0.trim());
                    decoded.map_err(|_| {
                        StorageError::setting(name, "expected the file in base64 (STORAGE_CONFIG)")
                    })?
                }
                Some(value) => value.0.clone().into_bytes(),
                None => return Ok(None),
            },
            None => {
                let path = self.settings.secret_dir.join(name);
                match std::fs::read(&path) {
                    Ok(bytes) => bytes,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(StorageError::io(&path)(error)),
                }
            }
        };
        Ok(Some(bytes).filter(|bytes| !bytes.trim_ascii().is_empty()))
    }

    fn text(&self, name: &str) -> Result<Option<String>, StorageError> {
        let Some(bytes) = self.bytes(name)? else { return Ok(None) };
        let text = String::from_utf8(bytes);
        let text = text.map_err(|_| StorageError::setting(name, "expected text (UTF-8)"))?;
        Ok(Some(text.trim().to_owned()))
    }

    /// Where a setting was looked for.
    fn missing(&self) -> String {
        match &self.settings.given {
            Some(_) => "missing in STORAGE_CONFIG".to_owned(),
            None => format!(
                "no such file in {}; mount the secret there, set HDFS_SECRET_DIR to where it is, or STORAGE_CONFIG \
                 to its JSON with \"type\": \"hdfs\"",
                self.settings.secret_dir.display()
            ),
        }
    }

    /// A client with the certificates and headers of the secret.
    fn client(&self) -> Result<ClientBuilder, StorageError> {
        let mut http = client::plain();
        let wrong = |name: &str| {
            let name = name.to_owned();
            move |error: reqwest::Error| StorageError::setting(&name, error.to_string())
        };
        if let Some(mut pem) = self.bytes("TLS_CERT")? {
            pem.push(b'\n');
            pem.extend(self.bytes("TLS_KEY")?.unwrap_or_default());
            http = http.identity(Identity::from_pem(&pem).map_err(wrong("TLS_CERT, TLS_KEY"))?);
        } else if self.bytes("TLS_KEY")?.is_some() {
            return Err(StorageError::setting("TLS_KEY", "a key without TLS_CERT is of no use"));
        }
        if let Some(pem) = self.bytes("TLS_CA")? {
            let authorities = Certificate::from_pem_bundle(&pem).map_err(wrong("TLS_CA"))?;
            if authorities.is_empty() {
                return Err(StorageError::setting("TLS_CA", "there is no certificate in PEM form"));
            }
            http = http.tls_certs_only(authorities);
        }
        let skip = self.text("TLS_SKIP_VERIFY")?.unwrap_or_default();
        http = http.tls_danger_accept_invalid_certs(skip.eq_ignore_ascii_case("true"));
        if let Some(text) = self.text("HEADERS")? {
            let headers = headers(&text).ok_or_else(|| {
                StorageError::setting(
                    "HEADERS",
                    "expected a JSON object of request headers, each a string",
                )
            })?;
            http = http.default_headers(headers);
        }
        Ok(http)
    }
}

fn headers(text: &str) -> Option<HeaderMap> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    let mut headers = HeaderMap::new();
    for (name, value) in &object {
        let mut value = HeaderValue::try_from(value.as_str()?).ok()?;
        value.set_sensitive(true);
        headers.insert(HeaderName::try_from(name.as_str()).ok()?, value);
    }
    Some(headers)
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use axum::response::{IntoResponse, Response};
    use futures_util::TryStreamExt;
    use serde_json::json;

    use super::*;
    use crate::config::storage::Secret as Value;
    use crate::storage::loopback::{self, Loopback};

    fn settings(given: &[(&str, &str)]) -> HdfsSettings {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), Value((*value).to_owned()));
        HdfsSettings {
            secret_dir: PathBuf::from("/nonexistent"),
            given: Some(given.iter().map(pair).collect::<BTreeMap<_, _>>()),
        }
    }

    fn source(path: &str, given: &[(&str, &str)]) -> Result<WebHdfs, String> {
        let settings = settings(given);
        let secret = Secret { settings: &settings };
        WebHdfs::new("hdfs://x", path, &secret).map_err(|error| error.to_string())
    }

    /// Directories and files by absolute path.
    fn cluster() -> BTreeMap<&'static str, Option<&'static str>> {
        BTreeMap::from([
            ("/", None),
            ("/user", None),
            ("/user/me", None),
            ("/user/me/model", None),
            ("/user/me/model/config.json", Some("{}")),
            ("/user/me/model/a b", None),
            ("/user/me/model/a b/w%.bin", Some("weights")),
            ("/user/me/model/empty", None),
            ("/user/me/versions", None),
            ("/user/me/versions/1", None),
            ("/user/me/versions/2", None),
            ("/user/me/versions/2/x", Some("two")),
        ])
    }

    fn exception(code: u16, name: &str) -> Response {
        let body = json!({"RemoteException": {"exception": name, "javaClassName": "x", "message": "why\n\tat y"}});
        let code = axum::http::StatusCode::from_u16(code).unwrap();
        (code, body.to_string()).into_response()
    }

    /// A name node; the bytes are at a data node.
    fn namenode(asked: &loopback::Asked, datanode: &str) -> Response {
        let path = asked.path.strip_prefix("/webhdfs/v1").unwrap();
        let path = percent_encoding::percent_decode_str(path).decode_utf8().unwrap();
        let files = cluster();
        let path = if path == "/" { "/" } else { path.trim_end_matches('/') };
        let status = |name: &str, path: &str| {
            let time = path.len() + path.matches('2').count();
            match files[path] {
                Some(content) => {
                    json!({"pathSuffix": name, "type": "FILE", "length": content.len(), "modificationTime": time})
                }
                None => {
                    json!({"pathSuffix": name, "type": "DIRECTORY", "length": 0, "modificationTime": time})
                }
            }
        };
        let operation = asked.query.split('&').next().unwrap();
        if operation == "op=GETHOMEDIRECTORY" {
            return json!({"Path": "/user/me"}).to_string().into_response();
        }
        let Some(found) = files.get(path) else { return exception(404, "FileNotFoundException") };
        match (operation, found) {
            ("op=GETFILESTATUS", _) => {
                json!({"FileStatus": status("", path)}).to_string().into_response()
            }
            ("op=LISTSTATUS", _) => {
                let prefix = format!("{}/", path.trim_end_matches('/'));
                let children = files.keys().filter(|key| {
                    key.strip_prefix(&prefix)
                        .is_some_and(|name| !name.is_empty() && !name.contains('/'))
                });
                let statuses: Vec<_> =
                    children.map(|key| status(&key[prefix.len()..], key)).collect();
                json!({"FileStatuses": {"FileStatus": statuses}}).to_string().into_response()
            }
            ("op=OPEN", Some(_)) => {
                let to =
                    format!("http://{datanode}{}?{}&namenoderpcaddress=x", asked.path, asked.query);
                (axum::http::StatusCode::TEMPORARY_REDIRECT, [("location", to)]).into_response()
            }
            _ => exception(400, "IllegalArgumentException"),
        }
    }

    fn datanode(asked: &loopback::Asked) -> Response {
        let path = asked.path.strip_prefix("/webhdfs/v1").unwrap();
        let path = percent_encoding::percent_decode_str(path).decode_utf8().unwrap();
        let content = cluster()[&*path].unwrap();
        let offset = asked.query.split('&').find_map(|pair| pair.strip_prefix("offset="));
        content[offset.map_or(0, |text| text.parse().unwrap())..].into_response()
    }

    async fn start() -> (Loopback, Loopback) {
        let data = Loopback::start(datanode).await;
        let host = data.host.clone();
        (Loopback::start(move |asked| namenode(asked, &host)).await, data)
    }

    async fn contents(source: &WebHdfs) -> Result<BTreeMap<String, String>, StorageError> {
        let mut contents = BTreeMap::new();
        for file in source.list().await? {
            let body = source.open(&file, 0).await?;
            assert_eq!(body.start, 0);
            let bytes = body.bytes.try_collect::<Vec<_>>().await?.concat();
            assert_eq!(file.size, Some(bytes.len() as u64));
            contents.insert(file.path, String::from_utf8(bytes).unwrap());
        }
        Ok(contents)
    }

    fn model() -> BTreeMap<String, String> {
        let pairs = [("a b/w%.bin", "weights"), ("config.json", "{}")];
        pairs.map(|(path, content)| (path.to_owned(), content.to_owned())).into()
    }

    #[tokio::test]
    async fn files_come_from_data_nodes() {
        let (name, data) = start().await;
        let url = format!("http://{}/", name.host);
        let given = [
            ("HDFS_NAMENODE", url.as_str()),
            ("USER_PROXY", "a&b"),
            ("HEADERS", r#"{"X-Key":"k","Authorization":"secret"}"#),
        ];
        let source = source("user/me/model", &given).unwrap();
        assert_eq!(contents(&source).await.unwrap(), model());
        assert_eq!(source.limits().files, 2);
        for asked in name.seen("") {
            assert!(asked.query.ends_with("&doas=a%26b"), "{asked:?}");
            assert_eq!(
                (asked.header("x-key"), asked.header("authorization")),
                (Some("k"), Some("secret"))
            );
        }
        let file = &source.list().await.unwrap()[0];
        let body = source.open(file, 1).await.unwrap();
        assert_eq!(
            (body.start, body.bytes.try_collect::<Vec<_>>().await.unwrap().concat()),
            (1, b"}".to_vec())
        );
        assert!(data.seen("config.json").iter().any(|asked| asked.query.contains("offset=1")));
    }

    #[tokio::test]
    async fn paths_are_absolute_or_below_the_root() {
        let (name, _data) = start().await;
        let url = format!("http://{}", name.host);
        for (path, root, want) in [
            ("user/me/model/config.json", "", "config.json={}"),
            ("model/config.json", "/user/me", "config.json={}"),
            ("config.json", "model", "config.json={}"),
            ("user/./x/../me//model/a b/w%.bin", "", "w%.bin=weights"),
            ("versions/#LATEST", "/user/me", "x=two"),
            ("user/me/versions/#LATEST{2}", "", "x=two"),
        ] {
            let given = [("HDFS_NAMENODE", url.as_str()), ("HDFS_ROOTPATH", root)];
            let got = contents(&source(path, &given).unwrap()).await.unwrap();
            let got: Vec<_> =
                got.into_iter().map(|(path, content)| format!("{path}={content}")).collect();
            assert_eq!(got, [want], "{path}");
        }
        for (path, part) in [
            ("user/nobody", "FileNotFoundException: why"),
            ("user/me/model/empty/#LATEST", "empty"),
        ] {
            let source = source(path, &[("HDFS_NAMENODE", &url)]).unwrap();
            let error = contents(&source).await.unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains('\t'), "{error}");
        }
    }

    #[tokio::test]
    async fn the_active_name_node_is_found() {
        let (name, _data) = start().await;
        let standby = Loopback::start(|_| exception(403, "StandbyException")).await;
        let urls = format!("http://127.0.0.1:1;http://{};http://{}", standby.host, name.host);
        let source = source("user/me/model", &[("HDFS_NAMENODE", &urls)]).unwrap();
        assert_eq!(contents(&source).await.unwrap(), model());
        assert_eq!(standby.seen("").len(), 1, "the one that answered is asked again");
    }

    #[tokio::test]
    async fn refusals_and_nonsense_are_told() {
        let answers: &[(fn() -> Response, &str)] = &[
            (|| exception(401, "AuthenticationException"), "HDFS authentication failed"),
            (|| exception(403, "AccessControlException"), "AccessControlException: why"),
            (|| loopback::status(500), "500"),
            (|| "<html>".into_response(), "something unexpected"),
            (
                || json!({"FileStatus": {"type": "SYMLINK"}}).to_string().into_response(),
                "unexpected",
            ),
        ];
        for (answer, part) in answers {
            let server = Loopback::start(move |_| answer()).await;
            let url = format!("http://{}", server.host);
            let source = source("m", &[("HDFS_NAMENODE", &url)]).unwrap();
            let error = source.list().await.unwrap_err().to_string();
            assert!(error.contains(part), "{part}: {error}");
        }
        // A name that leads elsewhere, a link, a directory in itself.
        for (entry, part) in [
            (json!({"pathSuffix": "../x", "type": "FILE"}), "no name of a file"),
            (json!({"pathSuffix": "l", "type": "SYMLINK"}), "is a SYMLINK"),
            (json!({"pathSuffix": "d", "type": "DIRECTORY"}), "nested too deeply"),
        ] {
            let server = Loopback::start(move |asked| {
                let body = match asked.query.as_str() {
                    "op=GETFILESTATUS" => json!({"FileStatus": {"type": "DIRECTORY"}}),
                    _ => json!({"FileStatuses": {"FileStatus": [entry]}}),
                };
                body.to_string().into_response()
            })
            .await;
            let url = format!("http://{}", server.host);
            let error = source("m", &[("HDFS_NAMENODE", &url)]).unwrap().list().await.unwrap_err();
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn settings_are_honoured_or_refused_by_name() {
        let url = ("HDFS_NAMENODE", "http://n");
        for (given, part) in [
            (vec![], "HDFS_NAMENODE: missing in STORAGE_CONFIG"),
            (vec![("HDFS_NAMENODE", "n:9870")], "HDFS_NAMENODE: expected http(s)://"),
            (
                vec![url, ("KERBEROS_PRINCIPAL", "me@X")],
                "KERBEROS_PRINCIPAL: Kerberos is not spoken",
            ),
            (vec![url, ("KERBEROS_KEYTAB", "eA==")], "KERBEROS_KEYTAB: Kerberos is not spoken"),
            (vec![url, ("N_THREADS", "0")], "N_THREADS"),
            (vec![url, ("HEADERS", "[]")], "HEADERS: expected a JSON object"),
            (vec![url, ("TLS_CA", "!")], "TLS_CA: expected the file in base64"),
            (vec![url, ("TLS_CA", "eA==")], "TLS_CA: there is no certificate"),
            (vec![url, ("TLS_CERT", "eA==")], "TLS_CERT, TLS_KEY: "),
            (vec![url, ("TLS_KEY", "eA==")], "TLS_KEY: a key without"),
        ] {
            let error = source("m", &given).err().expect(part);
            assert!(error.starts_with(part), "{part}: {error}");
        }
        assert!(source("m", &[url, ("TLS_SKIP_VERIFY", "True"), ("N_THREADS", "7\n")]).is_ok());
        // A mounted secret: no directory, then one.
        let secret_dir =
            std::env::temp_dir().join(format!("tokenmill-hdfs-{}", std::process::id()));
        let settings = HdfsSettings { secret_dir: secret_dir.clone(), given: None };
        let new = || WebHdfs::new("hdfs://x", "m", &Secret { settings: &settings });
        let error = new().err().expect("there is no secret").to_string();
        assert!(error.contains("HDFS_SECRET_DIR"), "{error}");
        std::fs::create_dir_all(&secret_dir).unwrap();
        std::fs::write(secret_dir.join("HDFS_NAMENODE"), "http://n;\n").unwrap();
        assert_eq!(new().unwrap().namenodes, ["http://n"]);
    }
}
