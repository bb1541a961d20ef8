//! A name node and a data node, and what they may say wrong.

use std::collections::BTreeMap;
use std::path::PathBuf;

use axum::response::{IntoResponse, Response};
use futures_util::TryStreamExt;
use serde_json::json;

use super::*;
use crate::config::storage::{HdfsSettings, Secret as Value};
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
            let statuses: Vec<_> = children.map(|key| status(&key[prefix.len()..], key)).collect();
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
        ("/user/me/model/config.json", "/elsewhere", "config.json={}"),
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
    for (path, part) in
        [("user/nobody", "FileNotFoundException: why"), ("user/me/model/empty/#LATEST", "empty")]
    {
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
    type Answer = fn() -> Response;
    let answers: &[(Answer, &str)] = &[
        (|| exception(401, "AuthenticationException"), "HDFS authentication failed"),
        (|| exception(403, "AccessControlException"), "AccessControlException: why"),
        (|| loopback::status(500), "500"),
        (|| "<html>".into_response(), "something unexpected"),
        (|| json!({"FileStatus": {"type": "SYMLINK"}}).to_string().into_response(), "unexpected"),
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
        (vec![url, ("KERBEROS_PRINCIPAL", "me@X")], "KERBEROS_PRINCIPAL: Kerberos is not spoken"),
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
    let secret_dir = std::env::temp_dir().join(format!("tokenmill-hdfs-{}", std::process::id()));
    let settings = HdfsSettings { secret_dir: secret_dir.clone(), given: None };
    let new = || WebHdfs::new("hdfs://x", "m", &Secret { settings: &settings });
    let error = new().err().expect("there is no secret").to_string();
    assert!(error.contains("HDFS_SECRET_DIR"), "{error}");
    std::fs::create_dir_all(&secret_dir).unwrap();
    std::fs::write(secret_dir.join("HDFS_NAMENODE"), "http://n;\n").unwrap();
    assert_eq!(new().unwrap().namenodes, ["http://n"]);
}

#[tokio::test]
async fn certificates_are_those_of_the_secret() {
    use base64::Engine;
    let file = |name| base64::engine::general_purpose::STANDARD.encode(loopback::pem(name));
    let (authority, certificate, key) =
        (file("authority.pem"), file("client.pem"), file("client.key"));
    let stranger = file("stranger.pem");
    for (clients, given, works) in [
        (false, vec![("TLS_CA", authority.as_str())], true),
        (false, vec![("TLS_CA", stranger.as_str())], false),
        (false, vec![], false),
        (false, vec![("TLS_SKIP_VERIFY", "TRUE")], true),
        (true, vec![("TLS_CA", authority.as_str())], false),
        (true, vec![("TLS_CA", &authority), ("TLS_CERT", &certificate), ("TLS_KEY", &key)], true),
    ] {
        let server = Loopback::start_tls(clients, |asked| namenode(asked, "")).await;
        let url = format!("https://{}", server.host);
        let given: Vec<_> = given.into_iter().chain([("HDFS_NAMENODE", url.as_str())]).collect();
        let files = source("user/me/model", &given).unwrap().list().await;
        assert_eq!(files.is_ok(), works, "{clients} {:?}", files.err());
    }
}
