//! Tests against a hub on the loopback interface: listings, redirects, ranges, refusals, cut connections.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{HubClient, HubError, HubId};
use crate::config::HubConfig;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// One request as the server saw it.
#[derive(Clone, Debug)]
struct Seen {
    path: String,
    headers: BTreeMap<String, String>,
}

/// What the server answers.
#[derive(Clone, Debug, Default)]
struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// The connection is cut after this many bytes of the body.
    cut: Option<usize>,
}

type Script = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

/// A hub on the loopback interface, with a cache of its own.
struct Hub {
    endpoint: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    cache: PathBuf,
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.cache);
    }
}

impl Hub {
    fn start(script: Script) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (script, log) = (Arc::clone(&script), Arc::clone(&log));
                std::thread::spawn(move || answer(socket, &script, &log));
            }
        });
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let cache =
            std::env::temp_dir().join(format!("tokenmill-hub-{}-{number}", std::process::id()));
        Self { endpoint, seen, cache }
    }

    fn client(&self) -> HubClient {
        self.client_with(|_| {})
    }

    fn client_with(&self, change: impl FnOnce(&mut HubConfig)) -> HubClient {
        let mut config = HubConfig {
            endpoint: self.endpoint.clone(),
            token: None,
            cache: self.cache.clone(),
            offline: false,
            revision: None,
            allow: Vec::new(),
            ignore: Vec::new(),
        };
        change(&mut config);
        let mut client = HubClient::new(config).unwrap();
        client.second = Duration::ZERO;
        client
    }

    fn seen(&self, part: &str) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|request| request.path.contains(part)).cloned().collect()
    }
}

fn answer(mut socket: TcpStream, script: &Script, log: &Mutex<Vec<Seen>>) {
    let mut lines = BufReader::new(socket.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let header = |line: String| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    let headers = lines.take_while(|line| !line.is_empty()).filter_map(header).collect();
    let request = Seen { path, headers };
    log.lock().unwrap().push(request.clone());
    let reply = script(&request);
    let mut head = format!(
        "HTTP/1.1 {} X\r\ncontent-length: {}\r\nconnection: close\r\n",
        reply.status,
        reply.body.len()
    );
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let sent = &reply.body[..reply.cut.unwrap_or(reply.body.len())];
    let _ = socket.write_all(head.as_bytes()).and_then(|()| socket.write_all(sent));
}

fn ok(body: impl Into<Vec<u8>>) -> Reply {
    Reply { status: 200, body: body.into(), ..Reply::default() }
}

fn status(status: u16) -> Reply {
    Reply { status, ..Reply::default() }
}

/// The rest of a content that was asked for.
fn ranged(request: &Seen, content: &[u8]) -> Reply {
    let Some(range) = request.headers.get("range") else { return ok(content) };
    let start: usize = range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
    if start >= content.len() {
        return status(416);
    }
    let range = format!("bytes {start}-{}/{}", content.len() - 1, content.len());
    Reply {
        status: 206,
        headers: vec![("content-range".to_owned(), range)],
        body: content[start..].to_vec(),
        cut: None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(content: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, content).as_ref())
}

fn weights() -> Vec<u8> {
    (0..300_000u32).map(|i| (i % 251) as u8).collect()
}

fn listing() -> Reply {
    let weights = weights();
    ok(serde_json::json!({
        "sha": COMMIT,
        "siblings": [
            {"rfilename": ".gitattributes", "size": 10, "blobId": "aa"},
            {"rfilename": "config.json", "size": 2, "blobId": "bb"},
            {"rfilename": "model.safetensors", "size": 134, "blobId": "cc",
             "lfs": {"sha256": sha256(&weights), "size": weights.len()}},
        ]
    })
    .to_string())
}

/// A well-behaved hub whose large files lie in a storage behind a redirect.
fn good(request: &Seen) -> Reply {
    let path = request.path.as_str();
    if path.starts_with("/api/models/org/name/revision/main") {
        return listing();
    }
    if path == format!("/org/name/resolve/{COMMIT}/config.json") {
        return ok("{}");
    }
    if path == format!("/org/name/resolve/{COMMIT}/model.safetensors") {
        let to = format!(
            "http://{}/storage/1",
            request.headers["host"].replace("127.0.0.1", "localhost")
        );
        return Reply {
            status: 302,
            headers: vec![("location".to_owned(), to)],
            ..Reply::default()
        };
    }
    if path == "/storage/1" {
        return ranged(request, &weights());
    }
    status(404)
}

fn id() -> HubId {
    HubId::parse("org/name").unwrap()
}

async fn fetch(client: &HubClient) -> Result<PathBuf, HubError> {
    client.fetch(&id(), &|_, _| {}).await
}

fn check_snapshot(path: &Path) {
    assert!(path.ends_with(format!("models--org--name/snapshots/{COMMIT}")), "{}", path.display());
    assert_eq!(fs::read_to_string(path.join("config.json")).unwrap(), "{}");
    assert!(fs::read(path.join("model.safetensors")).unwrap() == weights());
    assert!(!path.join(".gitattributes").exists());
}

#[tokio::test]
async fn a_model_comes_once_and_through_redirects_without_the_token() {
    let hub = Hub::start(Arc::new(good));
    let client = hub.client_with(|config| config.token = Some("secret".to_owned()));
    let (done, total) = (AtomicU64::new(0), AtomicU64::new(0));
    let progress = |now, all| {
        done.fetch_max(now, Ordering::Relaxed);
        total.store(all, Ordering::Relaxed);
    };
    let path = client.fetch(&id(), &progress).await.unwrap();
    check_snapshot(&path);
    assert_eq!((done.into_inner(), total.into_inner()), (300_002, 300_002));
    for request in hub.seen("/org/name") {
        assert_eq!(request.headers["authorization"], "Bearer secret");
    }
    assert!(
        hub.seen("/storage").iter().all(|request| !request.headers.contains_key("authorization"))
    );

    let named = hub.cache.join("models--org--name/refs/main");
    assert_eq!(fs::read_to_string(&named).unwrap(), COMMIT);

    let before = hub.seen("/resolve/").len();
    check_snapshot(&fetch(&client).await.unwrap());
    assert_eq!(hub.seen("/resolve/").len(), before, "everything was here already");
    // What was downloaded is enough without a network, and when the hub is gone.
    let offline = hub.client_with(|config| config.offline = true);
    check_snapshot(&fetch(&offline).await.unwrap());
    let gone = hub.client_with(|config| config.endpoint = "http://127.0.0.1:1".to_owned());
    check_snapshot(&fetch(&gone).await.unwrap());
}

#[tokio::test]
async fn a_reference_that_leads_elsewhere_is_not_followed() {
    for named in ["../../elsewhere", "/elsewhere", "..", "", "sub/0123"] {
        let hub = Hub::start(Arc::new(good));
        let references = hub.cache.join("models--org--name/refs");
        fs::create_dir_all(&references).unwrap();
        fs::create_dir_all(hub.cache.join("elsewhere")).unwrap();
        fs::create_dir_all(hub.cache.join("models--org--name/snapshots/sub/0123")).unwrap();
        fs::write(references.join("main"), named).unwrap();
        let offline = hub.client_with(|config| config.offline = true);
        let error = fetch(&offline).await.expect_err(named);
        assert!(matches!(error, HubError::Offline { .. }), "{named:?}: {error}");
        check_snapshot(&fetch(&hub.client()).await.unwrap());
        assert_eq!(fs::read_to_string(references.join("main")).unwrap(), COMMIT);
    }
}

#[tokio::test]
async fn a_cut_connection_is_resumed_where_it_was_cut() {
    let tries = AtomicU32::new(0);
    let hub = Hub::start(Arc::new(move |request: &Seen| {
        let mut reply = good(request);
        if request.path == "/storage/1" && tries.fetch_add(1, Ordering::Relaxed) < 2 {
            reply.cut = Some(100_000);
        }
        reply
    }));
    check_snapshot(&fetch(&hub.client()).await.unwrap());
    let ranges: Vec<_> =
        hub.seen("/storage").iter().map(|request| request.headers.get("range").cloned()).collect();
    assert_eq!(ranges.len(), 3);
    assert_eq!(ranges[0], None);
    // How much of a cut answer arrives depends on the sockets; that it is not asked for again does not.
    assert!(ranges[1..].iter().all(Option::is_some), "{ranges:?}");
}

#[tokio::test]
async fn what_an_earlier_process_left_is_resumed_also_when_it_is_wrong() {
    for (left, ranges_work) in
        [(&weights()[..1000], true), (&weights()[..1000], false), (&vec![7; 400_000], true)]
    {
        let hub = Hub::start(Arc::new(move |request: &Seen| {
            let mut request = request.clone();
            if !ranges_work {
                request.headers.remove("range");
            }
            good(&request)
        }));
        let blobs = hub.cache.join("models--org--name/blobs");
        fs::create_dir_all(&blobs).unwrap();
        let part = blobs.join(format!("{}.incomplete", sha256(&weights())));
        fs::write(&part, left).unwrap();
        check_snapshot(&fetch(&hub.client()).await.unwrap());
        assert!(!part.exists());
    }
}

#[tokio::test]
async fn wrong_bytes_are_found_and_removed() {
    let hub = Hub::start(Arc::new(|request: &Seen| {
        let mut reply = good(request);
        if request.path == "/storage/1" {
            reply.body[5] ^= 1;
        }
        reply
    }));
    let error = fetch(&hub.client()).await.unwrap_err();
    assert!(matches!(error, HubError::Corrupt { .. }), "{error}");
    let left = fs::read_dir(hub.cache.join("models--org--name/blobs")).unwrap();
    assert!(left.flatten().all(|entry| entry.file_name() == "bb"), "nothing wrong is kept");
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let code = |code: &str| vec![("x-error-code".to_owned(), code.to_owned())];
    for (reply, token, parts) in [
        (status(401), None, ["org/name", "set HF_TOKEN"]),
        (status(403), Some("t"), ["org/name", "the token in HF_TOKEN may not"]),
        (
            Reply { headers: code("RepoNotFound"), ..status(404) },
            None,
            ["org/name was", "spelling"],
        ),
        (
            Reply { headers: code("RevisionNotFound"), ..status(404) },
            None,
            ["org/name (revision main)", "not found"],
        ),
        (status(429), None, ["429", "HF_TOKEN"]),
        (status(503), None, ["503", "/api/models/org/name"]),
        (ok("<html>"), None, ["unexpected answer", "/api/models/org/name"]),
        (ok(r#"{"sha":"../up","siblings":[]}"#), None, ["not a commit", ""]),
        (
            ok(r#"{"sha":"ab","siblings":[{"rfilename":"../../x"}]}"#),
            None,
            ["not a path below", ""],
        ),
        (ok(r#"{"sha":"ab","siblings":[]}"#), None, ["no weights", "org/name"]),
    ] {
        let shown = format!("{reply:?}");
        let hub = Hub::start(Arc::new(move |_: &Seen| reply.clone()));
        let client = hub.client_with(|config| config.token = token.map(str::to_owned));
        let error = fetch(&client).await.expect_err(&shown).to_string();
        for part in parts {
            assert!(error.contains(part), "{error}");
        }
    }
}

#[tokio::test]
async fn limits_and_hiccups_pass() {
    let tries = AtomicU32::new(0);
    let hub =
        Hub::start(Arc::new(move |request: &Seen| match tries.fetch_add(1, Ordering::Relaxed) {
            0 => status(429),
            1 => status(502),
            _ => good(request),
        }));
    check_snapshot(&fetch(&hub.client()).await.unwrap());
}

#[tokio::test]
async fn without_network_or_cache_the_message_says_so() {
    let hub = Hub::start(Arc::new(good));
    let offline = hub.client_with(|config| config.offline = true);
    let error = fetch(&offline).await.unwrap_err().to_string();
    assert!(
        error.contains("org/name (revision main)") && error.contains("HF_HUB_OFFLINE"),
        "{error}"
    );
    let gone = hub.client_with(|config| config.endpoint = "http://127.0.0.1:1".to_owned());
    let error = fetch(&gone).await.unwrap_err().to_string();
    assert!(error.contains("HF_ENDPOINT") && error.contains("efused"), "{error}");
    assert_eq!(hub.seen("").len(), 0);
}

#[tokio::test]
async fn one_gguf_file_is_the_model() {
    let hub = Hub::start(Arc::new(|request: &Seen| {
        if request.path.starts_with("/api/models/org/name/revision/v1%2Fa") {
            let files =
                r#"{"sha":"ab","siblings":[{"rfilename":"q 4.gguf"},{"rfilename":"q8.gguf"}]}"#;
            return ok(files);
        }
        assert_eq!(request.path, "/org/name/resolve/ab/q%204.gguf");
        let mut reply = ranged(request, b"GGUF");
        reply.headers.push(("etag".to_owned(), "\"e1\"".to_owned()));
        reply
    }));
    let id = HubId::parse("org/name@v1/a:q 4.gguf").unwrap();
    let path = hub.client().fetch(&id, &|_, _| {}).await.unwrap();
    assert!(path.ends_with("snapshots/ab/q 4.gguf"), "{}", path.display());
    assert_eq!(fs::read(path).unwrap(), b"GGUF");
    let two = HubId::parse("org/name@v1/a").unwrap();
    let error = hub.client().fetch(&two, &|_, _| {}).await.unwrap_err();
    assert!(matches!(error, HubError::Ambiguous { .. }), "{error}");
    let filtered = hub.client_with(|config| config.ignore = vec!["q8*".to_owned()]);
    let path = filtered.fetch(&two, &|_, _| {}).await.unwrap();
    assert!(path.ends_with("q 4.gguf"), "{}", path.display());
    let nothing = hub.client_with(|config| config.allow = vec!["*.bin".to_owned()]);
    let error = nothing.fetch(&two, &|_, _| {}).await.unwrap_err().to_string();
    assert!(error.contains("STORAGE_ALLOW_PATTERNS") && error.contains("2 files"), "{error}");
}
