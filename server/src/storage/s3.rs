//! `s3://bucket/prefix`: Amazon's service, or a server of one's own (`AWS_ENDPOINT_URL`).

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};

use super::object::{Connector, Objects, error_of, no_retries};
use super::uri::Bucket;
use super::{Limits, Protocol, Remote, StorageError, StorageUri, client};
use crate::config::StorageConfig;
use crate::config::storage::S3Settings;

/// The endpoint of the first region, which knew no others.
const LEGACY: &str = "https://s3.amazonaws.com";
/// The region of requests that name none.
const REGION: &str = "us-east-1";

pub(super) async fn open(
    uri: &StorageUri,
    bucket: &Bucket,
    config: &StorageConfig,
) -> Result<Remote, StorageError> {
    let settings = &config.s3;
    let text = uri.to_string();
    let keys = [&settings.access_key_id, &settings.secret_access_key];
    if let [Some(_), None] | [None, Some(_)] = keys {
        let name = if keys[0].is_none() { "AWS_ACCESS_KEY_ID" } else { "AWS_SECRET_ACCESS_KEY" };
        return Err(StorageError::setting(name, "it is not set, but the other half of the key is"));
    }
    let http = client::build(http(config)?, Protocol::S3, &text)?;
    let region = match (&settings.region, own_endpoint(settings)) {
        (Some(region), _) => region.clone(),
        (None, Some(_)) => REGION.to_owned(),
        (None, None) => find_region(&http, &bucket.name).await,
    };
    let (endpoint, virtual_host) = endpoint(settings, &bucket.name, &region)?;
    let mut builder = AmazonS3Builder::new()
        .with_http_connector(Connector::new(http, Protocol::S3, &text)?)
        .with_retry(no_retries())
        .with_bucket_name(&bucket.name)
        .with_region(region)
        .with_endpoint(endpoint)
        .with_virtual_hosted_style_request(virtual_host)
        .with_imdsv1_fallback()
        .with_skip_signature(settings.anonymous);
    for (key, value) in credentials(settings) {
        builder = builder.with_config(key, value);
    }
    let store = builder.build().map_err(|error| error_of(Protocol::S3, &text, &error))?;
    Ok(Remote::Files(Box::new(Objects {
        store: Box::new(store),
        protocol: Protocol::S3,
        uri: text.into(),
        prefix: bucket.prefix.trim_end_matches('/').to_owned(),
        skip_empty: true,
        limits: Limits { files: settings.max_files, attempts: settings.max_attempts },
    })))
}

/// The client: timeouts, and whom it trusts.
fn http(config: &StorageConfig) -> Result<reqwest::ClientBuilder, StorageError> {
    let settings = &config.s3;
    let builder = match &settings.ca_bundle {
        _ if !settings.verify_ssl => client::plain().tls_danger_accept_invalid_certs(true),
        Some(bundle) => client::with_authorities(client::plain(), "AWS_CA_BUNDLE", bundle)?,
        None => client::builder(config)?,
    };
    Ok(builder.connect_timeout(settings.connect_timeout).read_timeout(settings.read_timeout))
}

/// `AWS_ENDPOINT_URL`, unless it is only another name of Amazon's.
fn own_endpoint(settings: &S3Settings) -> Option<&str> {
    let endpoint = settings.endpoint.as_deref()?.trim_end_matches('/');
    (endpoint != LEGACY).then_some(endpoint)
}

/// The address of a bucket's requests, and whether the bucket is in its host.
fn endpoint(
    settings: &S3Settings,
    bucket: &str,
    region: &str,
) -> Result<(String, bool), StorageError> {
    if let Some(endpoint) = own_endpoint(settings) {
        let wrong =
            |why: &str| StorageError::setting("AWS_ENDPOINT_URL", format!("{endpoint}: {why}"));
        if settings.accelerate {
            return Err(wrong("S3_USE_ACCELERATE needs Amazon's own endpoint; unset one of them"));
        }
        let (scheme, host) = endpoint
            .split_once("://")
            .filter(|(scheme, host)| matches!(*scheme, "http" | "https") && !host.is_empty())
            .ok_or_else(|| wrong("expected http://host:port or https://host"))?;
        return Ok(match settings.virtual_bucket {
            true => (format!("{scheme}://{bucket}.{host}"), true),
            false => (endpoint.to_owned(), false),
        });
    }
    let china = if region.starts_with("cn-") { ".cn" } else { "" };
    if settings.accelerate {
        return Ok((format!("https://{bucket}.s3-accelerate.amazonaws.com{china}"), true));
    }
    // A certificate for `*.s3...` does not cover buckets with dots.
    if bucket.contains('.') && !settings.virtual_bucket {
        return Ok((format!("https://s3.{region}.amazonaws.com{china}"), false));
    }
    Ok((format!("https://{bucket}.s3.{region}.amazonaws.com{china}"), true))
}

/// Where a bucket of Amazon's is; any answer of the service says it, also one that refuses.
async fn find_region(http: &reqwest::Client, bucket: &str) -> String {
    let found = http.head(format!("{LEGACY}/{bucket}")).send().await;
    let header = |answer: &reqwest::Response| {
        answer.headers().get("x-amz-bucket-region")?.to_str().ok().map(str::to_owned)
    };
    found.ok().as_ref().and_then(header).unwrap_or_else(|| REGION.to_owned())
}

/// Who we are, as `object_store` calls it. Keys win over what containers and instances are told.
fn credentials(settings: &S3Settings) -> Vec<(AmazonS3ConfigKey, String)> {
    let secret = |key, value: &Option<crate::config::storage::Secret>| {
        value.as_ref().map(|value| (key, value.0.clone()))
    };
    let keys = [
        secret(AmazonS3ConfigKey::AccessKeyId, &settings.access_key_id),
        secret(AmazonS3ConfigKey::SecretAccessKey, &settings.secret_access_key),
        secret(AmazonS3ConfigKey::Token, &settings.session_token),
    ];
    let named = settings.identity.iter().filter_map(|(name, value)| {
        let key = name.to_ascii_lowercase().parse().ok()?;
        Some((key, value.clone()))
    });
    keys.into_iter().flatten().chain(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        let check = |settings: &S3Settings, bucket: &str, region: &str, want: (&str, bool)| {
            let got = endpoint(settings, bucket, region).unwrap();
            assert_eq!((got.0.as_str(), got.1), want);
        };
        let plain = S3Settings::default();
        check(&plain, "b", "eu-west-1", ("https://b.s3.eu-west-1.amazonaws.com", true));
        check(&plain, "b.c", "eu-west-1", ("https://s3.eu-west-1.amazonaws.com", false));
        check(&plain, "b", "cn-north-1", ("https://b.s3.cn-north-1.amazonaws.com.cn", true));
        let accelerate = S3Settings { accelerate: true, ..plain.clone() };
        check(&accelerate, "b", "eu-west-1", ("https://b.s3-accelerate.amazonaws.com", true));
        let given =
            |endpoint: &str| S3Settings { endpoint: Some(endpoint.to_owned()), ..plain.clone() };
        check(&given(LEGACY), "b", "eu-west-1", ("https://b.s3.eu-west-1.amazonaws.com", true));
        let own = given("http://minio:9000/");
        check(&own, "b", REGION, ("http://minio:9000", false));
        let hosted = S3Settings { virtual_bucket: true, ..own.clone() };
        check(&hosted, "b", REGION, ("http://b.minio:9000", true));
        for wrong in
            [S3Settings { accelerate: true, ..own }, given("minio:9000"), given("ftp://minio")]
        {
            let error = endpoint(&wrong, "b", REGION).unwrap_err().to_string();
            assert!(error.starts_with("AWS_ENDPOINT_URL: "), "{error}");
        }
    }

    #[test]
    fn every_name_of_an_identity_is_known_to_the_client() {
        for name in crate::config::storage::AWS_IDENTITY {
            let key: Result<AmazonS3ConfigKey, _> = name.to_ascii_lowercase().parse();
            assert!(key.is_ok(), "{name}");
        }
    }
}
