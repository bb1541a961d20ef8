//! Snapshots of ModelScope: the listing of a revision, its files, their checksums.
//!
//! The requests are those of `modelscope_hub`: one site is asked where `MODELSCOPE_ENDPOINT` names one, else the model is
//! looked for on modelscope.cn and then on modelscope.ai (the other way round with `MODELSCOPE_PREFER_AI_SITE`).

use futures_util::future::BoxFuture;
use reqwest::{RequestBuilder, StatusCode, header};
use serde::Deserialize;
use tokio::sync::OnceCell;

use super::answer::{Asked, escaped};
use super::uri::Snapshot;
use super::{Body, Protocol, Remote, RemoteFile, Source, StorageError, StorageUri, client};
use super::{DEEPEST, MOST_FILES};
use crate::config::StorageConfig;
use crate::config::storage::ModelScopeSettings;

/// The revision of addresses without one.
const MAIN: &str = "master";
/// A listing of as many entries is cut off by the server, which does not say so.
const CUT: usize = 3000;

/// A revision of a model.
struct Model {
    asked: Asked,
    http: reqwest::Client,
    settings: ModelScopeSettings,
    /// `owner/name`
    id: String,
    revision: String,
    /// The site that has the model.
    site: OnceCell<String>,
    /// Entries at which a listing counts as cut off.
    cut: usize,
}

/// An answer of the programming interface.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    code: Option<u64>,
    success: Option<bool>,
    message: Option<String>,
    data: Option<Data>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    #[serde(default)]
    files: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    path: String,
    r#type: Option<String>,
    size: Option<u64>,
    sha256: Option<String>,
    revision: Option<String>,
}

/// The files of `modelscope://`.
pub(super) fn open(
    uri: &StorageUri,
    snapshot: &Snapshot,
    config: &StorageConfig,
) -> Result<Remote, StorageError> {
    let text = uri.to_string();
    let http = client::build(client::builder(config)?, Protocol::ModelScope, &text)?;
    Ok(Remote::Files(Box::new(Model::new(text, snapshot, &config.modelscope, http))))
}

impl Model {
    fn new(
        uri: String,
        snapshot: &Snapshot,
        settings: &ModelScopeSettings,
        http: reqwest::Client,
    ) -> Self {
        Self {
            asked: Asked { protocol: Protocol::ModelScope, uri, explain },
            http,
            settings: settings.clone(),
            id: format!("{}/{}", snapshot.owner, snapshot.name),
            revision: snapshot.revision.clone().unwrap_or_else(|| MAIN.to_owned()),
            site: OnceCell::new(),
            cut: CUT,
        }
    }

    /// The site that has the model; the last is not asked whether it does.
    async fn site(&self) -> Result<&str, StorageError> {
        let find = || async {
            let (last, others) = self.settings.endpoints.split_last().expect("there is a site");
            for site in others {
                let answer = self.get(format!("{site}/api/v1/models/{}", self.id));
                match self.asked.send(answer).await {
                    Ok(_) => return Ok(site.clone()),
                    Err(StorageError::NotFound { .. } | StorageError::Network { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(last.clone())
        };
        self.site.get_or_try_init(find).await.map(String::as_str)
    }

    /// Shows the token in both ways that the site knows.
    fn get(&self, url: String) -> RequestBuilder {
        let request = self.http.get(url);
        match &self.settings.token {
            None => request,
            Some(token) => request
                .bearer_auth(&token.0)
                .header(header::COOKIE, format!("m_session_id={}", token.0)),
        }
    }

    /// Entries below a directory, or all of them.
    async fn entries(&self, directory: &str, recursive: bool) -> Result<Vec<Entry>, StorageError> {
        let (site, id, revision) = (self.site().await?, &self.id, escaped(&self.revision));
        let recursive = if recursive { "True" } else { "False" };
        let mut url = format!(
            "{site}/api/v1/models/{id}/repo/files?Revision={revision}&Recursive={recursive}"
        );
        if !directory.is_empty() {
            url.push_str(&format!("&Root={}", escaped(directory)));
        }
        let answer: Answer = self.asked.json(self.asked.send(self.get(url)).await?).await?;
        let message = answer.message.unwrap_or_default();
        if answer.success == Some(false) {
            let status = answer.code.and_then(|code| u16::try_from(code).ok()).unwrap_or(400);
            let (protocol, uri) = (Protocol::ModelScope, &self.asked.uri);
            return Err(StorageError::of_status(protocol, uri, status, &message));
        }
        let files = answer.data.and_then(|data| data.files);
        files.ok_or_else(|| self.asked.malformed(format!("a listing without files ({message})")))
    }

    /// Every file; directories whose listing is cut off are listed one by one.
    async fn walk(&self) -> Result<Vec<RemoteFile>, StorageError> {
        let mut files = Vec::new();
        let mut left = vec![(String::new(), 0)];
        while let Some((directory, depth)) = left.pop() {
            let all = self.entries(&directory, true).await?;
            if all.len() < self.cut {
                files.extend(all.into_iter().filter_map(file));
            } else {
                let here = self.entries(&directory, false).await?;
                if here.len() >= self.cut || depth == DEEPEST {
                    let reason = format!(
                        "its directory {directory:?} holds more than the {} files that can be listed",
                        self.cut
                    );
                    return Err(StorageError::Unsupported { uri: self.asked.uri.clone(), reason });
                }
                let below = here.iter().filter(|entry| is_directory(entry));
                left.extend(below.map(|entry| (entry.path.clone(), depth + 1)));
                files.extend(here.into_iter().filter_map(file));
            }
            if files.len() + left.len() > MOST_FILES {
                return Err(self.asked.malformed(format!("more than {MOST_FILES} files")));
            }
        }
        Ok(files)
    }
}

impl Source for Model {
    fn list(&self) -> BoxFuture<'_, Result<Vec<RemoteFile>, StorageError>> {
        Box::pin(self.walk())
    }

    fn open<'a>(
        &'a self,
        file: &'a RemoteFile,
        start: u64,
    ) -> BoxFuture<'a, Result<Body, StorageError>> {
        Box::pin(async move {
            let (site, id) = (self.site().await?, &self.id);
            let (revision, path) = (escaped(&self.revision), escaped(&file.path));
            let url = format!("{site}/api/v1/models/{id}/repo?Revision={revision}&FilePath={path}");
            let mut request = self.get(url);
            if start > 0 {
                request = request.header(header::RANGE, format!("bytes={start}-"));
            }
            let answer = self.asked.send(request).await?;
            let partial = answer.status() == StatusCode::PARTIAL_CONTENT;
            let start = if partial { start } else { 0 };
            Ok(Body { start, bytes: self.asked.stream(answer) })
        })
    }

    fn checksum<'a>(&self, file: &'a RemoteFile) -> Option<&'a str> {
        Some(file.key.as_str()).filter(|key| !key.is_empty())
    }
}

fn is_directory(entry: &Entry) -> bool {
    entry.r#type.as_deref() == Some("tree")
}

/// A file of a listing: its key is the checksum, when there is one.
fn file(entry: Entry) -> Option<RemoteFile> {
    if is_directory(&entry) {
        return None;
    }
    let checksum = entry.sha256.filter(|text| is_checksum(text));
    Some(RemoteFile {
        path: entry.path,
        size: entry.size,
        tag: checksum.clone().or(entry.revision),
        key: checksum.unwrap_or_default(),
    })
}

fn is_checksum(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// `{"Code": 10010205001, "Message": "..."}`
fn explain(body: &str) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Refusal {
        message: String,
    }
    Some(serde_json::from_str::<Refusal>(body).ok()?.message)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    use axum::http::StatusCode as Code;
    use axum::response::{IntoResponse, Response};
    use serde_json::json;

    use super::*;
    use crate::config::storage::Secret;
    use crate::storage::download::Download;
    use crate::storage::loopback::{self, Loopback, cut, ranged};

    const WEIGHTS: &[u8] = &[7; 300_000];

    fn sha256(content: &[u8]) -> String {
        crate::hub::sha256(&mut &content[..]).unwrap()
    }

    /// A site with one model.
    fn site(asked: &loopback::Asked) -> Response {
        let file = |path: &str, content: &[u8]| json!({"Path": path, "Name": "x", "Type": "blob", "Size": content.len(), "Sha256": sha256(content), "Revision": "c"});
        let found = match (asked.path.as_str(), asked.query.as_str()) {
            ("/api/v1/models/org/name", _) => {
                return json!({"Code": 200, "Data": {}}).to_string().into_response();
            }
            ("/api/v1/models/org/name/repo/files", "Revision=v1%2Fx&Recursive=True") => vec![
                json!({"Path": "a b", "Type": "tree"}),
                file("config.json", b"{}"),
                file("a b/weights", WEIGHTS),
            ],
            ("/api/v1/models/org/name/repo", "Revision=v1%2Fx&FilePath=config.json") => {
                return ranged(asked, b"{}");
            }
            ("/api/v1/models/org/name/repo", "Revision=v1%2Fx&FilePath=a%20b%2Fweights") => {
                return ranged(asked, WEIGHTS);
            }
            _ => {
                let body = json!({"Code": 10010205001u64, "Message": "record not found", "Success": false});
                return (Code::NOT_FOUND, body.to_string()).into_response();
            }
        };
        json!({"Code": 200, "Success": true, "Message": "success", "Data": {"Files": found}})
            .to_string()
            .into_response()
    }

    fn model(endpoints: &[&str], revision: &str) -> Model {
        let snapshot = Snapshot {
            owner: "org".to_owned(),
            name: "name".to_owned(),
            revision: Some(revision.to_owned()),
        };
        let settings = ModelScopeSettings {
            token: Some(Secret("secret".to_owned())),
            endpoints: endpoints.iter().map(|host| format!("http://{host}")).collect(),
        };
        let http = client::plain().build().unwrap();
        Model::new("modelscope://org/name".to_owned(), &snapshot, &settings, http)
    }

    async fn fetch(model: Model) -> Result<PathBuf, StorageError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let cache = std::env::temp_dir()
            .join(format!("tokenmill-modelscope-{}-{number}", std::process::id()));
        let config = StorageConfig { cache, ..StorageConfig::default() };
        let uri = StorageUri::parse("modelscope://org/name:v1/x").unwrap();
        Download::new(&config, &uri).run(&Remote::Files(Box::new(model)), &|_, _| {}).await
    }

    fn check_model(path: &std::path::Path) {
        assert_eq!(fs::read(path.join("config.json")).unwrap(), b"{}");
        assert!(fs::read(path.join("a b/weights")).unwrap() == WEIGHTS);
    }

    #[tokio::test]
    async fn a_model_comes_from_the_site_that_has_it() {
        let empty = Loopback::start(|_| loopback::status(404)).await;
        let server = Loopback::start(site).await;
        check_model(
            &fetch(model(&["127.0.0.1:1", &empty.host, &server.host], "v1/x")).await.unwrap(),
        );
        for asked in server.seen("") {
            assert_eq!(asked.header("authorization"), Some("Bearer secret"));
            assert_eq!(asked.header("cookie"), Some("m_session_id=secret"));
        }
        assert_eq!(server.seen("/org/name/repo").len(), 3);
    }

    #[tokio::test]
    async fn cut_and_wrong_files_are_found() {
        let tries = AtomicU32::new(0);
        let server = Loopback::start(move |asked| {
            let first =
                asked.query.contains("weights") && tries.fetch_add(1, Ordering::Relaxed) == 0;
            if first { cut(WEIGHTS, 100_000) } else { site(asked) }
        })
        .await;
        check_model(&fetch(model(&[&server.host], "v1/x")).await.unwrap());
        assert_eq!(
            server.seen("").iter().filter(|asked| asked.header("range").is_some()).count(),
            1
        );

        let server = Loopback::start(|asked| {
            if asked.query.contains("weights") {
                vec![8; WEIGHTS.len()].into_response()
            } else {
                site(asked)
            }
        })
        .await;
        let error = fetch(model(&[&server.host], "v1/x")).await.unwrap_err().to_string();
        assert!(error.contains("have the checksum") && error.contains(&sha256(WEIGHTS)), "{error}");
    }

    #[tokio::test]
    async fn listings_that_are_cut_off_are_completed() {
        let entry = |path: &str, kind: &str| json!({"Path": path, "Type": kind, "Size": 1});
        let server = Loopback::start(move |asked| {
            let (root, recursive) = (asked.query.contains("Root=d"), asked.query.contains("=True"));
            let files = match (root, recursive) {
                (false, true) => vec![entry("a", "blob"), entry("d", "tree"), entry("d/x", "blob")],
                (false, false) => vec![entry("a", "blob"), entry("d", "tree")],
                (true, _) => vec![entry("d/x", "blob"), entry("d/y", "blob")],
            };
            json!({"Data": {"Files": files}}).to_string().into_response()
        })
        .await;
        let listed = async |cut| {
            let model = Model { cut, ..model(&[&server.host], "master") };
            let files = model.list().await.map_err(|error| error.to_string())?;
            let mut paths: Vec<_> = files.into_iter().map(|file| file.path).collect();
            paths.sort();
            Ok::<_, String>(paths.join(" "))
        };
        assert_eq!(listed(3).await.unwrap(), "a d/x d/y");
        assert_eq!(listed(4).await.unwrap(), "a d/x");
        let error = listed(2).await.unwrap_err();
        assert!(error.contains("more than the 2 files"), "{error}");
    }

    #[tokio::test]
    async fn refusals_say_what_to_do() {
        type Answer = fn() -> Response;
        let answers: &[(Answer, &[&str])] = &[
            (
                || loopback::status(401),
                &["ModelScope authentication failed", "MODELSCOPE_API_TOKEN"],
            ),
            (
                || {
                    (
                        Code::NOT_FOUND,
                        json!({"Code": 10010205001u64, "Message": "record not found"}).to_string(),
                    )
                        .into_response()
                },
                &["record not found", "check the spelling"],
            ),
            (
                || {
                    json!({"Code": 500, "Success": false, "Message": "oops"})
                        .to_string()
                        .into_response()
                },
                &["500", "oops"],
            ),
            (|| json!({"Code": 200, "Data": {}}).to_string().into_response(), &["without files"]),
            (|| "<html>".into_response(), &["unexpected"]),
        ];
        for (answer, parts) in answers {
            let server = Loopback::start(move |_| answer()).await;
            let error = model(&[&server.host], "master").list().await.unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
