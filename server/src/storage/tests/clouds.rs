//! Google's and Azure's storage, and who pods and instances are.

use super::*;

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
    let path =
        percent_encoding::percent_decode_str(&asked.path).decode_utf8().unwrap().into_owned();
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
            let body = String::from_utf8_lossy(&asked.body);
            assert!(body.contains("client_secret=secret"), "{body}");
            axum::Json(serde_json::json!({"access_token": "TOKEN", "expires_in": 3600}))
                .into_response()
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
    assert!(
        error.starts_with("AZURE_STORAGE_ACCESS_KEY: ") && !error.contains("no base64!"),
        "{error}"
    );

    let mut application = config();
    application.azure.client_id = Some("client".to_owned());
    application.azure.tenant_id = Some("tenant".to_owned());
    application.azure.client_secret = Some(Secret("secret".to_owned()));
    application.azure.authority_host = Some(format!("http://{}", server.host));
    assert_eq!(tree(&blobs(&server, &application, "").await.unwrap()), want);
    assert_eq!(last(&server).header("authorization"), Some("Bearer TOKEN"));
}

#[tokio::test]
async fn pods_and_instances_are_told_who_they_are() {
    let keys = |name: &str| {
        serde_json::json!({
            "AccessKeyId": name, "SecretAccessKey": "x", "Token": "y",
            "Expiration": "2099-01-01T00:00:00Z", "Code": "Success", "LastUpdated": "2015-01-01T00:00:00Z",
            "Type": "AWS-HMAC",
        })
    };
    let bucket_of = objects(&[("m/a", "1"), ("m/b", "2")]);
    let roles = "/latest/meta-data/iam/security-credentials/";
    let server = Loopback::start(move |asked| match asked.path.as_str() {
        "/pod" if asked.header("authorization") == Some("pod's token") => {
            axum::Json(keys("POD")).into_response()
        }
        "/latest/api/token" => "session".into_response(),
        path if path == roles => "role".into_response(),
        path if path == format!("{roles}role") => axum::Json(keys("INSTANCE")).into_response(),
        "/sts" => {
            let said = format!("{}{}", asked.query, String::from_utf8_lossy(&asked.body));
            assert!(said.contains("pod%27s+token") || said.contains("pod%27s%20token"), "{said}");
            let keys = "<AccessKeyId>ROLE</AccessKeyId><SecretAccessKey>x</SecretAccessKey>\
                        <SessionToken>y</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>";
            format!(
                "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>{keys}\
                 </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
            )
            .into_response()
        }
        _ => bucket(&bucket_of, asked),
    })
    .await;
    let url = format!("http://{}", server.host);
    let cache = directory("identity");
    let token = cache.join("token");
    fs::write(&token, "pod's token").unwrap();
    let token = token.to_str().unwrap();
    for (variables, want) in [
        (
            &[
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{url}/pod")),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.to_owned()),
            ][..],
            "POD",
        ),
        (
            &[
                ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_owned()),
                ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r".to_owned()),
                ("AWS_ENDPOINT_URL_STS", format!("{url}/sts")),
            ],
            "ROLE",
        ),
        (&[("AWS_METADATA_ENDPOINT", url.clone())], "INSTANCE"),
    ] {
        let mut config = s3(&server, &directory(want));
        config.s3 = S3Settings {
            endpoint: Some(url.clone()),
            identity: variables.iter().cloned().collect(),
            ..S3Settings::default()
        };
        let path = get(&config, "s3://bucket/m").await.expect(want);
        assert_eq!(tree(&path).len(), 2, "{want}");
        let signed = server.seen("/bucket/m/a").pop().unwrap();
        let authorization = signed.header("authorization").unwrap();
        assert!(authorization.contains(&format!("Credential={want}/")), "{authorization}");
    }
    let mut config = s3(&server, &directory("nobody"));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    config.s3 = S3Settings {
        endpoint: Some(url),
        identity: [("AWS_METADATA_ENDPOINT", format!("http://{closed}"))].into(),
        ..S3Settings::default()
    };
    let error = get(&config, "s3://bucket/m").await.unwrap_err();
    assert!(
        error.contains("S3 authentication failed") && error.contains("AWS_ACCESS_KEY_ID"),
        "{error}"
    );
}

#[tokio::test]
async fn what_runs_on_google_is_told_by_its_metadata_server() {
    let server = Loopback::start(|asked| {
        assert_eq!(asked.header("metadata-flavor"), Some("Google"));
        [("metadata-flavor", "Google")].into_response()
    })
    .await;
    let other = Loopback::start(|_| status(200)).await;
    let http = client::plain().build().unwrap();
    assert!(gs::is_on_google(&http, &server.host).await);
    assert!(!gs::is_on_google(&http, &other.host).await);
}
