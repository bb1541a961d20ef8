//! Addresses against servers of this machine that answer as the real ones do.

mod clouds;
mod files;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};

use super::loopback::{Asked, Loopback, ranged, status};
use super::*;
use crate::config::storage::{S3Settings, Secret};

/// A directory of its own for a test.
pub(super) fn directory(name: &str) -> PathBuf {
    let directory =
        std::env::temp_dir().join(format!("tokenmill-storage-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}

pub(super) async fn get(config: &StorageConfig, uri: &str) -> Result<PathBuf, String> {
    let uri = StorageUri::parse(uri)?;
    fetch(config, &uri, &|_, _| {}).await.map_err(|error| error.to_string())
}

/// The files below a directory with their contents.
pub(super) fn tree(directory: &Path) -> BTreeMap<String, String> {
    fn walk(directory: &Path, prefix: &str, files: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
            if entry.path().is_dir() {
                walk(&entry.path(), &format!("{name}/"), files);
            } else {
                let content = fs::read(entry.path()).unwrap();
                files.insert(name, String::from_utf8_lossy(&content).into_owned());
            }
        }
    }
    let mut files = BTreeMap::new();
    walk(directory, "", &mut files);
    files
}

fn files(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

/// Objects of a bucket; a test may change them.
type Bucket = std::sync::Arc<Mutex<BTreeMap<String, String>>>;

/// Keys a page of a list.
const PAGE: usize = 2;

/// Answers as S3 and the XML interface of Google do, for `/bucket` and what is below it.
fn bucket(objects: &Bucket, asked: &Asked) -> Response {
    let objects = objects.lock().unwrap();
    let path =
        percent_encoding::percent_decode_str(&asked.path).decode_utf8().unwrap().into_owned();
    let Some(key) = path.strip_prefix("/bucket") else { return missing("NoSuchBucket") };
    let key = key.trim_start_matches('/');
    if key.is_empty() {
        return list(&objects, &asked.query);
    }
    let Some(text) = objects.get(key) else { return missing("NoSuchKey") };
    let tag = tag(text);
    if asked.header("if-match").is_some_and(|wanted| wanted != tag) {
        return status(412);
    }
    let mut answer = if asked.method == Method::HEAD {
        [("content-length", text.len().to_string())].into_response()
    } else {
        ranged(asked, text.as_bytes())
    };
    answer.headers_mut().insert("etag", tag.parse().unwrap());
    answer.headers_mut().insert("last-modified", "Wed, 21 Oct 2015 07:28:00 GMT".parse().unwrap());
    answer
}

fn tag(text: &str) -> String {
    let first = text.as_bytes().first().copied().unwrap_or_default();
    format!("\"{:x}{first:x}\"", text.len())
}

/// Announces the content, sends its first bytes and hangs up.
fn cut(content: &[u8], length: usize) -> Response {
    let sent = bytes::Bytes::copy_from_slice(&content[..length]);
    let hang_up = async {
        // What was sent has to leave before.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        Err(std::io::Error::other("cut"))
    };
    let parts = futures_util::stream::iter([Ok(sent)]);
    let parts = futures_util::StreamExt::chain(parts, futures_util::stream::once(hang_up));
    let announced = [("content-length", content.len().to_string())];
    (announced, axum::body::Body::from_stream(parts)).into_response()
}

fn missing(code: &str) -> Response {
    let body = format!("<Error><Code>{code}</Code><Message>It is not here.</Message></Error>");
    (StatusCode::NOT_FOUND, body).into_response()
}

fn list(objects: &BTreeMap<String, String>, query: &str) -> Response {
    let of = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let value = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next();
        value.map(|value| {
            percent_encoding::percent_decode_str(value).decode_utf8().unwrap().into_owned()
        })
    };
    assert_eq!(of("list-type").as_deref(), Some("2"), "{query}");
    let prefix = of("prefix").unwrap_or_default();
    let after = of("continuation-token").unwrap_or_default();
    let keys: Vec<&String> =
        objects.keys().filter(|key| key.starts_with(&prefix) && **key > after).collect();
    let mut xml = "<?xml version=\"1.0\"?><ListBucketResult><Name>bucket</Name>".to_owned();
    for key in keys.iter().take(PAGE) {
        let text = &objects[*key];
        let tag = tag(text);
        xml += &format!(
            "<Contents><Key>{key}</Key><LastModified>2015-10-21T07:28:00.000Z</LastModified>\
             <ETag>{tag}</ETag><Size>{}</Size></Contents>",
            text.len()
        );
    }
    if keys.len() > PAGE {
        xml += &format!("<NextContinuationToken>{}</NextContinuationToken>", keys[PAGE - 1]);
    }
    xml += &format!("<IsTruncated>{}</IsTruncated></ListBucketResult>", keys.len() > PAGE);
    xml.into_response()
}

fn objects(pairs: &[(&str, &str)]) -> Bucket {
    std::sync::Arc::new(Mutex::new(files(pairs)))
}

fn s3(server: &Loopback, cache: &Path) -> StorageConfig {
    let settings = S3Settings {
        access_key_id: Some(Secret("AKID".to_owned())),
        secret_access_key: Some(Secret("hidden".to_owned())),
        session_token: Some(Secret("session".to_owned())),
        endpoint: Some(format!("http://{}", server.host)),
        ..S3Settings::default()
    };
    StorageConfig { cache: cache.to_owned(), s3: settings, ..StorageConfig::default() }
}

#[tokio::test]
async fn a_prefix_of_s3_becomes_a_directory_and_only_what_changed_comes_again() {
    let bucket_of = objects(&[
        ("models/iris", ""),
        ("models/iris/", ""),
        ("models/iris/a.json", "{}"),
        ("models/iris/deep/er/b b+.bin", "bytes"),
        ("models/iris/deep/empty", ""),
        ("models/iris/weights.bin", "many bytes"),
        ("models/iris2/c", "another model"),
    ]);
    let served = bucket_of.clone();
    let server = Loopback::start(move |asked| bucket(&served, asked)).await;
    let config = s3(&server, &directory("s3"));
    let path = get(&config, "s3://bucket/models/iris").await.unwrap();
    let want = [("a.json", "{}"), ("deep/er/b b+.bin", "bytes"), ("weights.bin", "many bytes")];
    assert_eq!(tree(&path), files(&want));
    let signed = server.seen("weights.bin")[0].clone();
    let authorization = signed.header("authorization").unwrap();
    assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKID/"), "{authorization}");
    assert!(authorization.contains("/us-east-1/s3/aws4_request"), "{authorization}");
    assert_eq!(signed.header("x-amz-security-token"), Some("session"));
    assert_eq!(signed.method, Method::GET);

    // Nothing changed: the list says so.
    assert_eq!(get(&config, "s3://bucket/models/iris").await.unwrap(), path);
    assert_eq!(server.seen("weights.bin").len(), 1);

    // One file changed: the other is not asked for, and the directory of before stays what it was.
    bucket_of.lock().unwrap().insert("models/iris/a.json".to_owned(), "{\"new\": 1}".to_owned());
    let newer = get(&config, "s3://bucket/models/iris").await.unwrap();
    assert_ne!(newer, path);
    assert_eq!(tree(&newer)["a.json"], "{\"new\": 1}");
    assert_eq!(tree(&newer)["weights.bin"], "many bytes");
    assert_eq!(server.seen("weights.bin").len(), 1);
    assert_eq!(tree(&path), files(&want));

    // A third version takes the first one away.
    bucket_of.lock().unwrap().remove("models/iris/a.json");
    let third = get(&config, "s3://bucket/models/iris").await.unwrap();
    assert!(!path.exists() && newer.exists() && !third.join("a.json").exists());
}

#[tokio::test]
async fn one_key_of_s3_is_a_file_and_nobody_signs_nothing() {
    let bucket_of = objects(&[("m/model.json", "{}"), ("m/model.json.bak", "old"), ("m/x", "x")]);
    let server = Loopback::start(move |asked| bucket(&bucket_of, asked)).await;
    let mut config = s3(&server, &directory("key"));
    config.s3.anonymous = true;
    let path = get(&config, "s3://bucket/m/model.json").await.unwrap();
    assert!(path.is_file() && path.ends_with("model.json"), "{}", path.display());
    assert!(server.seen("").iter().all(|asked| asked.header("authorization").is_none()));
    // A file that is no model by its name stays in its directory.
    let path = get(&config, "s3://bucket/m/x").await.unwrap();
    assert_eq!(tree(&path), files(&[("x", "x")]));
}

#[tokio::test]
async fn patterns_choose_files() {
    let bucket_of = objects(&[("m/a.bin", "1"), ("m/b.json", "2"), ("m/d/c.json", "3")]);
    let server = Loopback::start(move |asked| bucket(&bucket_of, asked)).await;
    let mut config = s3(&server, &directory("patterns"));
    config.allow = vec!["*.json".to_owned()];
    config.ignore = vec!["d/*".to_owned()];
    let path = get(&config, "s3://bucket/m").await.unwrap();
    assert!(path.ends_with("b.json"), "{}", path.display());
    config.allow = vec!["*.gguf".to_owned()];
    let error = get(&config, "s3://bucket/m").await.unwrap_err();
    assert!(
        error.starts_with("Failed to fetch model. No model found in s3://bucket/m."),
        "{error}"
    );
    assert!(error.contains("STORAGE_ALLOW_PATTERNS") && error.contains("3 files"), "{error}");
}

#[tokio::test]
async fn a_cut_transfer_goes_on_where_it_was_cut() {
    let text = "0123456789".repeat(1000);
    let bucket_of = objects(&[("m/weights.bin", &text)]);
    let server = Loopback::start(move |asked| {
        let whole = asked.path.ends_with("weights.bin") && asked.header("range").is_none();
        if whole && asked.method == Method::GET {
            let text = bucket_of.lock().unwrap()["m/weights.bin"].clone();
            let mut answer = cut(text.as_bytes(), 4000);
            let headers = answer.headers_mut();
            headers.insert("etag", tag(&text).parse().unwrap());
            headers.insert("last-modified", "Wed, 21 Oct 2015 07:28:00 GMT".parse().unwrap());
            return answer;
        }
        bucket(&bucket_of, asked)
    })
    .await;
    let config = s3(&server, &directory("cut"));
    let path = get(&config, "s3://bucket/m").await.unwrap();
    assert_eq!(tree(&path), files(&[("weights.bin", &text)]));
    let asked = server.seen("weights.bin");
    assert_eq!(asked.len(), 2);
    let range = asked[1].header("range").unwrap();
    assert!(range.starts_with("bytes=") && range != "bytes=0-", "{range}");
    assert!(asked[1].header("if-match").is_some());
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let refuse = |code: u16, body: &'static str| {
        move |_: &Asked| (StatusCode::from_u16(code).unwrap(), body).into_response()
    };
    let wrong_key = "<Error><Code>SignatureDoesNotMatch</Code><Message>No.</Message></Error>";
    for (code, body, parts, requests) in [
        (
            403,
            wrong_key,
            &["Access denied to S3", "SignatureDoesNotMatch: No.", "AWS_ACCESS_KEY_ID"][..],
            1,
        ),
        (
            404,
            "<Error><Code>NoSuchBucket</Code></Error>",
            &["not found", "NoSuchBucket", "s3://bucket/m"],
            1,
        ),
        (503, "busy", &["503", "busy"], 3),
        (400, "", &["400"], 1),
    ] {
        let server = Loopback::start(refuse(code, body)).await;
        let error = get(&s3(&server, &directory("refusals")), "s3://bucket/m").await.unwrap_err();
        for part in parts {
            assert!(error.contains(part), "{code}: {error}");
        }
        assert!(!error.contains("hidden"), "{error}");
        assert_eq!(server.seen("").len(), requests, "{code}");
    }
    let server = Loopback::start(move |asked| bucket(&objects(&[]), asked)).await;
    let error = get(&s3(&server, &directory("none")), "s3://bucket/m").await.unwrap_err();
    assert_eq!(error, "Failed to fetch model. No model found in s3://bucket/m.");
    let mut config = s3(&server, &directory("none"));
    config.s3.secret_access_key = None;
    let error = get(&config, "s3://bucket/m").await.unwrap_err();
    assert!(error.contains("AWS_SECRET_ACCESS_KEY"), "{error}");
    config.confidential = true;
    let error = get(&config, "s3://bucket/m").await.unwrap_err();
    assert!(error.starts_with("CONFIDENTIAL_ENABLED: "), "{error}");
}

#[tokio::test]
async fn what_is_here_is_used_while_the_storage_is_down() {
    let bucket_of = objects(&[("m/a", "1"), ("m/b", "2")]);
    let down = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let switch = std::sync::Arc::clone(&down);
    let server = Loopback::start(move |asked| {
        if switch.load(std::sync::atomic::Ordering::Relaxed) {
            return status(503);
        }
        bucket(&bucket_of, asked)
    })
    .await;
    let config = s3(&server, &directory("down"));
    let path = get(&config, "s3://bucket/m").await.unwrap();
    down.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(get(&config, "s3://bucket/m").await.unwrap(), path);
    let error = get(&config, "s3://bucket/other").await.unwrap_err();
    assert!(error.contains("503"), "{error}");
}
