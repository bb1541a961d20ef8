//! A registry with a token server, an index, layers that are honest and layers that are not.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::*;
use crate::storage::loopback::{Asked, Loopback, cut, pem_path, ranged, status};
use crate::storage::tar::build::{archive, entry, file};

const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";

/// Contents of a repository by what they are called in its addresses.
#[derive(Clone, Default)]
struct Contents(BTreeMap<String, Vec<u8>>);

impl Contents {
    fn blob(&mut self, kind: &str, content: Vec<u8>) -> serde_json::Value {
        let digest = digest(&content);
        let size = content.len();
        self.0.insert(format!("/v2/org/model/blobs/{digest}"), content);
        json!({"mediaType": kind, "digest": digest, "size": size})
    }

    fn manifest(&mut self, layers: &[serde_json::Value]) -> serde_json::Value {
        self.document(&json!({"schemaVersion": 2, "layers": layers}))
    }

    fn document(&mut self, document: &serde_json::Value) -> serde_json::Value {
        let text = document.to_string().into_bytes();
        let (digest, size) = (digest(&text), text.len());
        self.0.insert(format!("/v2/org/model/manifests/{digest}"), text.clone());
        self.0.insert("/v2/org/model/manifests/v1".to_owned(), text);
        json!({"mediaType": "x", "digest": digest, "size": size})
    }

    /// An image of these layers, each a kind and a content.
    fn image(layers: &[(&str, Vec<u8>)]) -> Self {
        let mut contents = Self::default();
        let layers: Vec<_> =
            layers.iter().map(|(kind, content)| contents.blob(kind, content.clone())).collect();
        contents.manifest(&layers);
        contents
    }

    fn answer(&self, asked: &Asked) -> Response {
        match self.0.get(&asked.path) {
            Some(content) => ranged(asked, content),
            None => {
                let refusal =
                    json!({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "no such tag"}]});
                (axum::http::StatusCode::NOT_FOUND, refusal.to_string()).into_response()
            }
        }
    }
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hexadecimal(&ring::digest::digest(&ring::digest::SHA256, content)))
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn weights() -> Vec<u8> {
    let mut state = 1u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..300_000).map(next).collect()
}

/// A modelcar: a base, a model, and changes to it.
fn modelcar() -> Vec<(&'static str, Vec<u8>)> {
    let base = archive(&[
        file("etc/passwd", b"root"),
        file("/models/absolute", b"x"),
        file("../up", b"x"),
    ]);
    let model = archive(&[
        entry(b'5', "models/", "", b""),
        file("models/config.json", b"{}"),
        file("models/weights", &weights()),
        file("models/old/a", b"a"),
        file("models/gone", b"x"),
        entry(b'2', "models/link", "old/a", b""),
        entry(b'1', "models/hard", "models/config.json", b""),
    ]);
    let changes = archive(&[
        file("models/.wh.gone", b""),
        file("models/old/new", b"new"),
        file("models/old/.wh..wh..opq", b""),
        file("./models/config.json", b"{\"v\":2}"),
    ]);
    vec![
        (GZIP, gzip(&base)),
        (GZIP, gzip(&model)),
        ("x/attestation", b"x".to_vec()),
        (PLAIN, changes),
    ]
}

fn directory() -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("tokenmill-oci-{}-{number}", std::process::id());
    let path = std::env::temp_dir().join(name).join("tree");
    fs::create_dir_all(&path).unwrap();
    path
}

fn image(reference: &str, settings: OciSettings) -> Image {
    Image::new("oci://x/y", reference, &settings, client::plain()).unwrap()
}

/// An image of a registry that needs no TLS and no credentials.
fn open(server: &Loopback) -> Image {
    let docker_config = "/nonexistent/config.json".into();
    image(
        &format!("{}/org/model:v1", server.host),
        OciSettings { docker_config, insecure: true, ca_bundle: None },
    )
}

async fn pull(image: &Image) -> Result<PathBuf, StorageError> {
    let directory = directory();
    let version = image.version().await?;
    image.write(&version, &directory, &|_, _| {}).await?;
    Ok(directory)
}

fn check_modelcar(tree: &Path) {
    let read = |name: &str| fs::read_to_string(tree.join(name)).unwrap();
    assert_eq!(read("config.json"), "{\"v\":2}");
    assert_eq!(read("hard"), "{}");
    assert_eq!(read("old/new"), "new");
    assert!(fs::read(tree.join("weights")).unwrap() == weights());
    assert_eq!(fs::read_link(tree.join("link")).unwrap(), Path::new("old/a"));
    let mut names: Vec<_> =
        fs::read_dir(tree).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["config.json", "hard", "link", "old", "weights"]);
    assert!(!tree.join("old/a").exists() && !tree.with_file_name("up").exists());
}

#[tokio::test]
async fn layers_lie_over_each_other() {
    let contents = Contents::image(&modelcar());
    let server = Loopback::start(move |asked| contents.answer(asked)).await;
    let image = open(&server);
    let (here, all) = (AtomicU64::new(0), AtomicU64::new(0));
    let tree = directory();
    let progress = |now, total| {
        here.fetch_max(now, Ordering::Relaxed);
        all.store(total, Ordering::Relaxed);
    };
    let version = image.version().await.unwrap();
    image.write(&version, &tree, &progress).await.unwrap();
    check_modelcar(&tree);
    assert_eq!(here.into_inner(), all.into_inner());
    assert_eq!(version.len(), 64);
}

#[tokio::test]
async fn an_index_leads_to_this_machine() {
    let mut contents = Contents::image(&[(PLAIN, archive(&[file("models/x", b"right")]))]);
    let right = contents.0["/v2/org/model/manifests/v1"].clone();
    let other = contents.blob(PLAIN, archive(&[file("models/x", b"wrong")]));
    let wrong = contents.manifest(&[other]);
    let entry = |digest: &serde_json::Value, os: &str, architecture: &str| json!({"digest": digest, "size": 1, "platform": {"os": os, "architecture": architecture}});
    let right = json!(digest(&right));
    let mut entries = vec![
        entry(&wrong["digest"], "unknown", "unknown"),
        entry(&wrong["digest"], "linux", "other"),
        entry(&wrong["digest"], "windows", architecture()),
        json!({"digest": wrong["digest"], "size": 1}),
        entry(&right, "linux", architecture()),
    ];
    contents.document(&json!({"schemaVersion": 2, "manifests": entries}));
    let answers = contents.clone();
    let server = Loopback::start(move |asked| answers.answer(asked)).await;
    let tree = pull(&open(&server)).await.unwrap();
    assert_eq!(fs::read_to_string(tree.join("x")).unwrap(), "right");

    entries.pop();
    contents.document(&json!({"schemaVersion": 2, "manifests": entries}));
    let server = Loopback::start(move |asked| contents.answer(asked)).await;
    let error = pull(&open(&server)).await.unwrap_err().to_string();
    assert!(error.contains(&format!("no manifest for linux/{}", architecture())), "{error}");
}

/// A registry whose tokens are given for a password.
fn guarded(contents: Contents) -> impl Fn(&Asked) -> Response + Send + Sync + 'static {
    move |asked| {
        if asked.path == "/token" {
            let password = format!("Basic {}", STANDARD.encode("me:secret"));
            let form = String::from_utf8_lossy(&asked.body);
            let refresh = form.contains("grant_type=refresh_token")
                && form.contains("refresh_token=long%2Flived")
                && form.contains("scope=repository%3Aorg%2Fmodel%3Apull");
            let scope = asked.query == "service=reg&scope=repository%3Aorg%2Fmodel%3Apull";
            return match asked.header("authorization") {
                Some(shown) if shown == password && scope => "{\"token\":\"good\"}".into_response(),
                None if refresh => "{\"access_token\":\"good\"}".into_response(),
                _ => status(401),
            };
        }
        if asked.header("authorization") == Some("Bearer good") {
            return contents.answer(asked);
        }
        let realm = format!("http://{}/token", asked.header("host").unwrap());
        let challenge =
            format!("Bearer realm=\"{realm}\",service=\"reg\",scope=\"repository:org/model:pull\"");
        (axum::http::StatusCode::UNAUTHORIZED, [("www-authenticate", challenge)]).into_response()
    }
}

#[tokio::test]
async fn tokens_are_given_for_credentials() {
    let server = Loopback::start(guarded(Contents::image(&modelcar()))).await;
    let docker_config = directory().join("config.json");
    let auth = STANDARD.encode("me:secret");
    for (entry, works) in [
        (json!({"auth": auth}), true),
        (json!({"identitytoken": "long/lived"}), true),
        (json!({"username": "me", "password": "wrong"}), false),
    ] {
        let auths = json!({"auths": {&server.host: entry}});
        fs::write(&docker_config, auths.to_string()).unwrap();
        let settings =
            OciSettings { docker_config: docker_config.clone(), insecure: true, ca_bundle: None };
        let pulled = pull(&image(&format!("{}/org/model:v1", server.host), settings)).await;
        match pulled {
            Ok(tree) if works => check_modelcar(&tree),
            Err(error @ StorageError::Unauthorized { .. }) if !works => {
                let error = error.to_string();
                assert!(error.contains("KSERVE_OCI_DOCKER_CONFIG"), "{error}");
                assert!(!error.contains("wrong"), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
    // One token serves every request after the first.
    assert!(server.seen("/token").len() <= 3);
    let error = pull(&open(&server)).await.unwrap_err();
    assert!(matches!(error, StorageError::Unauthorized { .. }), "{error}");
}

#[tokio::test]
async fn a_registry_can_want_the_password_itself_but_not_in_the_clear() {
    let contents = Contents::image(&modelcar());
    let server = Loopback::start(move |asked| match asked.header("authorization") {
        Some(shown) if shown == format!("Basic {}", STANDARD.encode("me:secret")) => {
            contents.answer(asked)
        }
        _ => {
            let challenge = [("www-authenticate", "Basic realm=\"r\"")];
            (axum::http::StatusCode::UNAUTHORIZED, challenge).into_response()
        }
    })
    .await;
    let docker_config = directory().join("config.json");
    let auths = json!({"auths": {&server.host: {"username": "me", "password": "secret"}}});
    fs::write(&docker_config, auths.to_string()).unwrap();
    let settings = OciSettings { docker_config, insecure: true, ca_bundle: None };
    let image = image(&format!("{}/org/model:v1", server.host), settings);
    check_modelcar(&pull(&image).await.unwrap());
    let registry = Registry {
        insecure: false,
        server: "http://r".to_owned(),
        asked: image.asked.clone(),
        http: image.http.clone(),
        repository: "n".to_owned(),
        credentials: image.resolved().await.unwrap().registry.credentials.clone(),
        authorization: Mutex::new(None),
    };
    let error = registry.authorize(credentials::Challenge::Basic).await.unwrap_err().to_string();
    assert!(error.contains("KSERVE_OCI_INSECURE_REGISTRY"), "{error}");
}

#[tokio::test]
async fn without_leave_a_registry_is_asked_over_tls_alone() {
    let contents = Contents::image(&modelcar());
    let server = Loopback::start(move |asked| contents.answer(asked)).await;
    let settings = OciSettings { docker_config: "/nonexistent".into(), ..OciSettings::default() };
    let image = image(&format!("{}/org/model:v1", server.host), settings);
    assert!(matches!(pull(&image).await, Err(StorageError::Network { .. })));
    assert!(server.seen("").is_empty());
}

#[tokio::test]
async fn a_layer_that_is_cut_goes_on_where_it_was_cut() {
    for ranges in [true, false] {
        let contents = Contents::image(&modelcar());
        let tries = AtomicU32::new(0);
        let server = Loopback::start(move |asked| {
            let blob = contents.0.get(&asked.path).filter(|blob| blob.len() > 100_000);
            let Some(blob) = blob else { return contents.answer(asked) };
            match tries.fetch_add(1, Ordering::Relaxed) {
                0 => cut(blob, 100_000),
                _ if ranges => ranged(asked, blob),
                _ => blob.clone().into_response(),
            }
        })
        .await;
        check_modelcar(&pull(&open(&server)).await.unwrap());
        let resumed =
            server.seen("/blobs/").iter().filter(|asked| asked.header("range").is_some()).count();
        assert_eq!(resumed, 1);
    }
}

#[tokio::test]
async fn what_is_not_what_its_name_says_is_refused() {
    let whole = Contents::image(&modelcar());
    let big = whole.0.iter().find(|(_, content)| content.len() > 100_000).unwrap().0.clone();
    let change = |change: fn(&mut Vec<u8>)| {
        let mut contents = whole.clone();
        change(contents.0.get_mut(&big).unwrap());
        contents
    };
    let mut flipped = Contents::image(&[(PLAIN, archive(&[file("models/weights", &weights())]))]);
    let layer = flipped.0.values_mut().find(|content| content.len() > 100_000).unwrap();
    layer[200_000] ^= 1;
    let longer = change(|content| content.push(0));
    let shorter = change(|content| content.truncate(1000));
    let mut manifest = whole.clone();
    let text = manifest.0["/v2/org/model/manifests/v1"].clone();
    let by_digest = digest(&text);
    *manifest.0.get_mut(&format!("/v2/org/model/manifests/{by_digest}")).unwrap() = b"{}".to_vec();
    for (contents, version, parts) in [
        (flipped, "v1".to_owned(), ["sha256:", "have the digest"]),
        (longer, "v1".to_owned(), ["sha256:", "longer than"]),
        (shorter, "v1".to_owned(), ["status code 416", "OCI"]),
        (manifest, by_digest.clone(), ["sha256:", "have the digest"]),
        (Contents::default(), "v1".to_owned(), ["MANIFEST_UNKNOWN: no such tag", "not found"]),
    ] {
        let server = Loopback::start(move |asked| contents.answer(asked)).await;
        let mut image = open(&server);
        if version.starts_with("sha256:") {
            image.reference.version = Version::Digest(Digest::parse(&version).unwrap());
        }
        let error = pull(&image).await.unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}

#[tokio::test]
async fn hostile_and_useless_layers_are_refused() {
    let zstd = "application/vnd.oci.image.layer.v1.tar+zstd";
    let one = |bytes: Vec<u8>| vec![(PLAIN, archive(&[bytes]))];
    for (layers, part) in [
        (one(file("models/../../x", b"x")), "leads out with .."),
        (one(entry(b'2', "models/l", "/etc", b"")), "leads out"),
        (one(entry(b'2', "models/a/l", "../../..", b"")), "leads out"),
        (one(entry(b'1', "models/h", "etc/passwd", b"")), "outside of models/"),
        (one(entry(b'1', "models/h", "models/../etc/passwd", b"")), "leads out"),
        (one(entry(b'3', "models/device", "", b"")), "no file, directory or link"),
        (one(file("models/.wh...", b"")), "leads out"),
        (
            one(file("app/x", b"x")),
            "no /models/ directory; a modelcar has one. Its layers hold: app",
        ),
        (vec![(zstd, Vec::new())], "Rebuild the model image with gzip-compressed layers"),
        (vec![(GZIP, b"no gzip".to_vec())], "its entries"),
        (vec![(PLAIN, vec![1; 1024])], "no tar archive"),
        (vec![], "no /models/ directory"),
    ] {
        let contents = Contents::image(&layers);
        let server = Loopback::start(move |asked| contents.answer(asked)).await;
        let error = pull(&open(&server)).await.expect_err(part).to_string();
        assert!(error.contains(part), "{part}: {error}");
        assert!(error.contains("oci://x/y") || error.contains("sha256:"), "{error}");
    }
    for (document, part) in [
        (json!({"schemaVersion": 1, "fsLayers": []}), "schema 1"),
        (json!([]), "its manifest"),
        (
            json!({"schemaVersion": 2, "layers": [{"mediaType": PLAIN, "digest": "md5:1", "size": 1}]}),
            "no digest",
        ),
    ] {
        let mut contents = Contents::default();
        contents.document(&document);
        let server = Loopback::start(move |asked| contents.answer(asked)).await;
        let error = pull(&open(&server)).await.expect_err(part).to_string();
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[tokio::test]
async fn registries_over_tls_are_trusted_with_leave_or_with_their_authority() {
    let contents = Contents::image(&modelcar());
    let server = Loopback::start_tls(false, move |asked| contents.answer(asked)).await;
    check_modelcar(&pull(&open(&server)).await.unwrap());
    let authorities = directory();
    fs::copy(pem_path("authority.pem"), authorities.join("cabundle.crt")).unwrap();
    for (bundle, works) in [(Some(authorities.join("cabundle.crt")), true), (None, false)] {
        let mut config = StorageConfig::default();
        config.oci.ca_bundle = bundle;
        let reference = format!("{}/org/model:v1", server.host);
        let uri = StorageUri::parse(&format!("oci://{reference}")).unwrap();
        let Remote::Tree(tree) = super::open(&uri, &reference, &config).unwrap() else {
            panic!("an image is a tree");
        };
        assert_eq!(tree.version().await.is_ok(), works);
    }
}
