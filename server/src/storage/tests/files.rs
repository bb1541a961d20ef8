//! Files of the web, certificates, and lists that are not to be trusted.

use super::*;

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

    let path = get(&config, &format!("{url}/away.bin")).await.unwrap();
    assert_eq!(tree(&path), files(&[("away.bin", "from elsewhere")]));
    assert!(elsewhere.seen("/x").iter().all(|asked| asked.header("x-token").is_none()));
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
        Box::pin(async {
            Ok(Body { start: 0, bytes: Box::pin(futures_util::stream::iter([Ok(text)])) })
        })
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
