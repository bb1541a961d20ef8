//! Models by address: a bucket of S3 and an archive of a web server, both on this machine.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use tokenmill_tests::bucket::Bucket;
use tokenmill_tests::files::Folder;
use tokenmill_tests::{Server, program};

/// Two models of the same columns with different answers.
const FIRST: &str = "xgboost/x176_binary_logistic";
const SECOND: &str = "xgboost/x176_dart_logistic";

fn model(stem: &str) -> Vec<u8> {
    let file = program::root().join(format!("predictive/tests/fixtures/{stem}.json"));
    std::fs::read(file).expect("a model")
}

/// A server of the model at an address, which keeps its files in a folder.
fn serve(uri: &str, cache: &Folder, environment: &[(&str, &str)], options: &[&str]) -> Server {
    let directory = cache.path().to_str().expect("a plain path");
    let options = [options, &["--download-dir", directory]].concat();
    Server::with(Path::new(uri), Some("m"), environment, &options).expect("a server")
}

fn predict(server: &Server, name: &str) -> Value {
    let body = json!({"instances": [[0.5, -1.0, 2.0, 0.25]]});
    let answer = server.post(&format!("/v1/models/{name}:predict"), &body).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json().expect("JSON")["predictions"].clone()
}

/// What the model answers from a file of this machine.
fn expected(stem: &str) -> Value {
    let file = program::root().join(format!("predictive/tests/fixtures/{stem}.json"));
    predict(&Server::of(&file, Some("m"), &[]).expect("a server"), "m")
}

fn load(server: &Server, name: &str) -> u16 {
    let path = format!("/v2/repository/models/{name}/load");
    server.post(&path, &json!({})).expect("an answer").status
}

#[test]
fn a_model_of_a_bucket_is_served_and_loaded_again_when_it_changed() {
    let bucket = Bucket::start().expect("a bucket");
    bucket.put("/models/iris/model.json", &model(FIRST));
    bucket.put("/models/iris/.keep", b"");
    let url = bucket.url();
    let environment = [
        ("AWS_ENDPOINT_URL", url.as_str()),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ];
    let cache = Folder::new().expect("a folder");
    let server = serve("s3://models/iris", &cache, &environment, &[]);
    let first = expected(FIRST);
    assert_eq!(predict(&server, "m"), first);
    let seen = bucket.seen("/models/iris/model.json");
    assert_eq!(seen.len(), 1);
    assert!(seen[0].1, "signed: {}", seen[0].0);
    assert!(!server.log().contains("secret"), "{}", server.log());

    bucket.put("/models/iris/model.json", &model(SECOND));
    assert_eq!(load(&server, "m"), 200);
    assert_eq!(predict(&server, "m"), expected(SECOND));
    drop(server);

    // A second start downloads nothing, and says where it looks when it is asked what the model is.
    let server = serve("s3://models/iris", &cache, &environment, &[]);
    assert_ne!(predict(&server, "m"), first);
    assert_eq!(bucket.seen("/models/iris/model.json").len(), 2);
}

#[test]
fn an_archive_of_a_web_server_is_unpacked() {
    let bucket = Bucket::start().expect("a server");
    bucket.put("/files/iris.tar.gz", &tar_gz("model.json", &model(FIRST)));
    let cache = Folder::new().expect("a folder");
    let server = serve(&format!("{}/files/iris.tar.gz?x=1", bucket.url()), &cache, &[], &[]);
    assert_eq!(predict(&server, "m"), expected(FIRST));
}

#[test]
fn load_calls_fetch_models_below_an_address() {
    let bucket = Bucket::start().expect("a bucket");
    bucket.put("/models/all/a/model.json", &model(FIRST));
    let url = bucket.url();
    let environment = [
        ("AWS_ENDPOINT_URL", url.as_str()),
        ("awsAnonymousCredential", "true"),
        ("MULTI_MODEL_SERVER", "true"),
    ];
    let cache = Folder::new().expect("a folder");
    let server = serve("s3://models/all", &cache, &environment, &[]);
    assert_eq!(load(&server, "a"), 200);
    assert_eq!(predict(&server, "a"), expected(FIRST));
    let path = "/v2/repository/models/b/load";
    let missing = server.post(path, &json!({})).expect("an answer");
    assert_eq!(missing.status, 503);
    assert!(missing.text().contains("No model found in s3://models/all/b"), "{}", missing.text());
    assert!(bucket.seen("/models/all").iter().all(|(_, signed)| !signed));
}

#[test]
fn a_start_that_cannot_fetch_says_why() {
    let bucket = Bucket::start().expect("a bucket");
    let missing = format!("{}/none.bst", bucket.url());
    for (uri, part) in [
        (missing.as_str(), "HTTP resource"),
        ("ftp://host/model", "Cannot recognize storage type for ftp://host/model"),
        ("pvc://claim/model", "mounts"),
    ] {
        let limit = std::time::Duration::from_secs(60);
        let ended = program::run(&["serve", uri, "--port", "0"], limit).expect("an end");
        assert_ne!(ended.code, Some(0));
        assert!(ended.stderr.contains(part), "{uri}: {}", ended.stderr);
    }
}

/// An archive of one file.
fn tar_gz(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0000644");
    header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut tar = [&header[..], content].concat();
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&tar).expect("memory");
    encoder.finish().expect("memory")
}
