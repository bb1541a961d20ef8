//! Addresses against servers of this machine that answer as the real ones do.

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

#[tokio::test]
async fn google_is_asked_with_its_own_rules() {
    let bucket_of =
        objects(&[("m/d/__init__.py", ""), ("m/d/a", "1"), ("m/d", ""), ("one.bin", "x")]);
    let server = Loopback::start(move |asked| bucket(&bucket_of, asked)).await;
    let mut config = StorageConfig { cache: directory("gs"), ..StorageConfig::default() };
    config.gs.emulator = Some(format!("http://{}", server.host));
    let path = get(&config, "gs://bucket/m/").await.unwrap();
    assert_eq!(tree(&path), files(&[("d/__init__.py", ""), ("d/a", "1")]));
    let path = get(&config, "gs://bucket/one.bin").await.unwrap();
    assert_eq!(tree(&path), files(&[("one.bin", "x")]));
    config.gs.credentials = Some(config.cache.join("key.json"));
    fs::write(config.cache.join("key.json"), "{\"type\": \"external_account\"}").unwrap();
    let error = get(&config, "gs://bucket/m").await.unwrap_err();
    assert!(error.starts_with("GOOGLE_APPLICATION_CREDENTIALS: "), "{error}");
    assert!(error.contains("key.json"), "{error}");
}

/// Answers as blobs of Azure do, for `/container` and what is below it.
fn container(asked: &Asked) -> Response {
    let blobs = [("m/a.json", "{}"), ("m/d", ""), ("m/d/b.bin", "bytes"), ("m2/c", "other")];
    let path = percent_encoding::percent_decode_str(&asked.path).decode_utf8().unwrap().into_owned();
    let Some(key) = path.strip_prefix("/container") else { return missing("ContainerNotFound") };
    let key = key.trim_start_matches('/');
    if key.is_empty() {
        assert!(asked.query.contains("comp=list"), "{}", asked.query);
        let prefix = asked.query.split('&').find_map(|pair| pair.strip_prefix("prefix="));
        let prefix = prefix.unwrap_or_default().replace("%2F", "/");
        let mut xml = "<?xml version=\"1.0\"?><EnumerationResults><Blobs>".to_owned();
        for (name, text) in blobs.iter().filter(|(name, _)| name.starts_with(&prefix)) {
            xml += &format!(
                "<Blob><Name>{name}</Name><Properties><Last-Modified>Wed, 21 Oct 2015 07:28:00 GMT\
                 </Last-Modified><Etag>0x{:x}</Etag><Content-Length>{}</Content-Length>\
                 <Content-Type>application/octet-stream</Content-Type><BlobType>BlockBlob</BlobType>\
                 </Properties></Blob>",
                name.len(),
                text.len()
            );
        }
        return (xml + "</Blobs><NextMarker/></EnumerationResults>").into_response();
    }
    let Some((name, text)) = blobs.iter().find(|(name, _)| *name == key) else {
        return missing("BlobNotFound");
    };
    let mut answer = ranged(asked, text.as_bytes());
    let headers = answer.headers_mut();
    headers.insert("etag", format!("0x{:x}", name.len()).parse().unwrap());
    headers.insert("last-modified", "Wed, 21 Oct 2015 07:28:00 GMT".parse().unwrap());
    answer
}

async fn blobs(server: &Loopback, config: &StorageConfig, query: &str) -> Result<PathBuf, String> {
    let uri = format!("https://account.blob.core.windows.net/container/m{query}");
    let uri = StorageUri::parse(&uri).unwrap();
    let Place::AzureBlob(azure) = &uri.place else { panic!("{uri}") };
    let remote = azure_blob::at(&format!("http://{}", server.host), &uri, azure, config);
    let remote = remote.map_err(|error| error.to_string())?;
    let download = download::Download::new(config, &uri);
    download.run(&remote, &|_, _| {}).await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn blobs_are_asked_with_a_key_a_signature_a_token_or_as_nobody() {
    let server = Loopback::start(|asked| match asked.path.as_str() {
        "/tenant/oauth2/v2.0/token" => {
            assert!(asked.body.contains("client_secret=secret"), "{}", asked.body);
            axum::Json(serde_json::json!({"access_token": "TOKEN", "expires_in": 3600})).into_response()
        }
        _ => container(asked),
    })
    .await;
    let want = files(&[("a.json", "{}"), ("d/b.bin", "bytes")]);
    let config = || StorageConfig {
        cache: directory(&crate::random::id()),
        azure: crate::config::storage::AzureSettings { max_files: 2, ..Default::default() },
        ..StorageConfig::default()
    };
    let last = |server: &Loopback| server.seen("/container/m/d/b.bin").pop().unwrap();

    let nobody = config();
    assert_eq!(tree(&blobs(&server, &nobody, "").await.unwrap()), want);
    assert_eq!(last(&server).header("authorization"), None);

    assert_eq!(tree(&blobs(&server, &config(), "?sv=1&sig=a%2Bb").await.unwrap()), want);
    assert_eq!(last(&server).query, "sv=1&sig=a%2Bb");

    let mut keyed = config();
    keyed.azure.access_key = Some(Secret("a2V5".to_owned()));
    assert_eq!(tree(&blobs(&server, &keyed, "").await.unwrap()), want);
    let authorization = last(&server).header("authorization").unwrap().to_owned();
    assert!(authorization.starts_with("SharedKey account:"), "{authorization}");
    keyed.azure.access_key = Some(Secret("no base64!".to_owned()));
    let error = blobs(&server, &keyed, "").await.unwrap_err();
    assert!(error.starts_with("AZURE_STORAGE_ACCESS_KEY: ") && !error.contains("no base64!"), "{error}");

    let mut application = config();
    application.azure.client_id = Some("client".to_owned());
    application.azure.tenant_id = Some("tenant".to_owned());
    application.azure.client_secret = Some(Secret("secret".to_owned()));
    application.azure.authority_host = Some(format!("http://{}", server.host));
    assert_eq!(tree(&blobs(&server, &application, "").await.unwrap()), want);
    assert_eq!(last(&server).header("authorization"), Some("Bearer TOKEN"));
}

#[tokio::test]
async fn a_file_of_the_web_keeps_its_name_and_only_its_host_sees_the_headers() {
    let elsewhere = Loopback::start(|asked| ranged(asked, b"from elsewhere")).await;
    let there = format!("http://localhost:{}/x", elsewhere.host.rsplit(':').next().unwrap());
    let target = there.clone();
    let server = Loopback::start(move |asked| match asked.path.as_str() {
        "/away.bin" => (StatusCode::FOUND, [("location", target.clone())]).into_response(),
        "/old.bin" => (StatusCode::FOUND, [("location", "/a%20model.bst")]).into_response(),
        "/a%20model.bst" | "/old" if asked.header("x-token") == Some("t") => {
            ([("etag", "\"1\"")], "text").into_response()
        }
        "/gone" => status(404),
        _ => status(401),
    })
    .await;
    let mut config = StorageConfig { cache: directory("web"), ..StorageConfig::default() };
    let url = format!("http://{}", server.host);
    let error = get(&config, &format!("{url}/a%20model.bst?key=hidden")).await.unwrap_err();
    assert!(error.contains("HTTP authentication failed") && error.contains("-headers"), "{error}");
    assert!(!error.contains("hidden"), "{error}");
    let error = get(&config, &format!("{url}/gone")).await.unwrap_err();
    assert!(error.starts_with(&format!("HTTP resource '{url}/gone' not found")), "{error}");

    config.headers.insert("127.0.0.1".to_owned(), Secret("{\"X-Token\": \"t\"}".to_owned()));
    let path = get(&config, &format!("{url}/a%20model.bst")).await.unwrap();
    assert!(path.ends_with("a model.bst"), "{}", path.display());
    let asked = server.seen("/a%20model.bst").len();
    assert_eq!(get(&config, &format!("{url}/a%20model.bst")).await.unwrap(), path);
    assert_eq!(server.seen("/a%20model.bst").len(), asked + 1, "the ETag says it is the same");
    get(&config, &format!("{url}/old.bin")).await.unwrap();

    let error = get(&config, &format!("{url}/away.bin")).await.unwrap_err();
    assert!(error.contains("302"), "{error}");
    assert!(elsewhere.seen("").is_empty(), "another host sees no request with our headers");
    config.headers.insert("127.0.0.1".to_owned(), Secret("{\"X-Token\": 1}".to_owned()));
    let error = get(&config, &format!("{url}/a%20model.bst")).await.unwrap_err();
    assert!(error.starts_with("127.0.0.1-headers: "), "{error}");
    config.headers.clear();
    let path = get(&config, &format!("{url}/away.bin")).await.unwrap();
    assert_eq!(tree(&path), files(&[("away.bin", "from elsewhere")]));
}

/// A source that lists what it is told to.
struct Listed(Vec<RemoteFile>);

impl Source for Listed {
    fn list(&self) -> BoxFuture<'_, Result<Vec<RemoteFile>, StorageError>> {
        Box::pin(async { Ok(self.0.clone()) })
    }

    fn open<'a>(
        &'a self,
        file: &'a RemoteFile,
        _start: u64,
    ) -> BoxFuture<'a, Result<Body, StorageError>> {
        let text = bytes::Bytes::from(file.key.clone());
        Box::pin(async { Ok(Body { start: 0, bytes: Box::pin(futures_util::stream::iter([Ok(text)])) }) })
    }
}

/// Downloads files of these paths, contents and announced sizes.
async fn listed(cache: &Path, files: &[(&str, &str, Option<u64>)]) -> Result<PathBuf, String> {
    let file = |(path, text, size): &(&str, &str, Option<u64>)| RemoteFile {
        path: (*path).to_owned(),
        key: (*text).to_owned(),
        size: *size,
        tag: None,
    };
    let config = StorageConfig { cache: cache.to_owned(), ..StorageConfig::default() };
    let uri = StorageUri::parse("s3://bucket/m").unwrap();
    let remote = Remote::Files(Box::new(Listed(files.iter().map(file).collect())));
    let download = download::Download::new(&config, &uri);
    download.run(&remote, &|_, _| {}).await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_list_that_leads_out_or_contradicts_itself_is_refused() {
    let cache = directory("hostile");
    for (paths, part) in [
        (&["../x"][..], "does not lie below it"),
        (&["/etc/x"], "does not lie below it"),
        (&["a//b"], "does not lie below it"),
        (&["a", "a"], "is there twice"),
        (&["a", "a/b"], "lies below a file"),
        (&["a", "a-b", "a/b/c"], "lies below a file"),
    ] {
        let files: Vec<_> = paths.iter().map(|path| (*path, "x", Some(1))).collect();
        let error = listed(&cache, &files).await.unwrap_err();
        assert!(error.contains(part), "{paths:?}: {error}");
        assert!(error.contains("STORAGE_IGNORE_PATTERNS"), "{error}");
    }
    for (text, size) in [("too long", 3), ("short", 30)] {
        let error = listed(&cache, &[("a", text, Some(size))]).await.unwrap_err();
        assert!(error.contains(&format!("of {size} bytes of a")), "{error}");
    }
    // Nothing is known of the content: each time it is new.
    let first = listed(&cache, &[("a", "one", None), ("b", "b", None)]).await.unwrap();
    let second = listed(&cache, &[("a", "two", None), ("b", "b", None)]).await.unwrap();
    assert_ne!(first, second);
    assert_eq!(tree(&second), files(&[("a", "two"), ("b", "b")]));
}

#[tokio::test]
async fn a_bundle_of_authorities_is_trusted_or_named() {
    let cache = directory("authorities");
    let server = Loopback::start(|asked| ranged(asked, b"text")).await;
    let url = format!("http://{}/x", server.host);
    let authority = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/authority.pem");
    let bundle = |path: PathBuf| StorageConfig {
        cache: cache.clone(),
        ca_bundle: Some(path),
        ..StorageConfig::default()
    };
    // There; not mounted, which is a warning; no certificate.
    assert!(get(&bundle(authority.into()), &url).await.is_ok());
    assert!(get(&bundle(cache.join("missing")), &url).await.is_ok());
    fs::write(cache.join("empty.crt"), "nothing").unwrap();
    let error = get(&bundle(cache.join("empty.crt")), &url).await.unwrap_err();
    assert!(error.starts_with("CA_BUNDLE_CONFIGMAP_NAME: "), "{error}");
    let mut config = s3(&server, &cache);
    config.s3.ca_bundle = Some(cache.join("missing"));
    let error = get(&config, "s3://bucket/m").await.unwrap_err();
    assert!(error.starts_with("AWS_CA_BUNDLE: "), "{error}");
}
