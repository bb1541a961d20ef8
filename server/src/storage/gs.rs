//! `gs://bucket/prefix`: with a key file, as the instance or pod we run in, or as nobody.

use std::time::Duration;

use object_store::ClientOptions;
use object_store::gcp::GoogleCloudStorageBuilder;

use super::object::{Connector, Objects, error_of, no_retries};
use super::uri::Bucket;
use super::{Limits, Protocol, Remote, StorageError, StorageUri, client};
use crate::config::StorageConfig;

/// Who knows what we run on, inside of Google's cloud.
const METADATA: &str = "metadata.google.internal";
/// How long it may take to say so.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) async fn open(
    uri: &StorageUri,
    bucket: &Bucket,
    config: &StorageConfig,
) -> Result<Remote, StorageError> {
    let settings = &config.gs;
    let text = uri.to_string();
    let http = client::build(client::builder(config)?, Protocol::Gcs, &text)?;
    let connector = Connector::new(http, Protocol::Gcs, &text)?;
    let metadata = connector.metadata.clone();
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_http_connector(connector)
        .with_client_options(ClientOptions::new())
        .with_retry(no_retries())
        .with_bucket_name(&bucket.name);
    if let Some(emulator) = &settings.emulator {
        builder = builder.with_base_url(emulator.trim_end_matches('/'));
    }
    builder = match &settings.credentials {
        Some(file) => builder.with_application_credentials(file.to_string_lossy()),
        None => {
            let host = settings.metadata_host.as_deref().unwrap_or(METADATA);
            let known = settings.emulator.is_none() && is_on_google(&metadata, host).await;
            if !known {
                tracing::info!("no credentials of Google: asking anonymously");
            }
            builder.with_skip_signature(!known)
        }
    };
    let store = builder.build().map_err(|error| match &settings.credentials {
        // The file is read here; nothing was asked yet.
        Some(file) => StorageError::setting(
            "GOOGLE_APPLICATION_CREDENTIALS",
            format!("{}: {error}", file.display()),
        ),
        None => error_of(Protocol::Gcs, &text, &error),
    })?;
    Ok(Remote::Files(Box::new(Objects {
        store: Box::new(store),
        protocol: Protocol::Gcs,
        uri: text.into(),
        prefix: bucket.prefix.trim_end_matches('/').to_owned(),
        skip_empty: false,
        limits: Limits::default(),
    })))
}

/// Whether the metadata server of Google's cloud answers.
pub(super) async fn is_on_google(http: &reqwest::Client, host: &str) -> bool {
    let asked = http
        .get(format!("http://{host}/"))
        .header("Metadata-Flavor", "Google")
        .timeout(PATIENCE)
        .send()
        .await;
    asked.is_ok_and(|answer| {
        answer.headers().get("metadata-flavor").is_some_and(|flavor| flavor == "Google")
    })
}
