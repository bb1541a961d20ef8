//! `https://account.blob.core.windows.net/container/prefix`: blobs of Azure.

use object_store::azure::MicrosoftAzureBuilder;

use super::object::{Connector, Objects, error_of, no_retries};
use super::uri::Azure;
use super::{Limits, Protocol, Remote, StorageError, StorageUri, client};
use crate::config::StorageConfig;
use crate::config::storage::AzureSettings;

pub(super) fn open(
    uri: &StorageUri,
    azure: &Azure,
    config: &StorageConfig,
) -> Result<Remote, StorageError> {
    at(&format!("https://{}", azure.host), uri, azure, config)
}

/// The same with the address of the account.
pub(super) fn at(
    endpoint: &str,
    uri: &StorageUri,
    azure: &Azure,
    config: &StorageConfig,
) -> Result<Remote, StorageError> {
    let text = uri.to_string();
    let http = client::build(client::builder(config)?, Protocol::Azure, &text)?;
    let builder = MicrosoftAzureBuilder::new()
        .with_http_connector(Connector::new(http, Protocol::Azure, &text)?)
        .with_retry(no_retries())
        .with_account(&azure.account)
        .with_endpoint(endpoint.to_owned())
        .with_container_name(&azure.container);
    let builder = credentials(builder, &config.azure, azure.query.as_deref());
    let store = builder.build().map_err(|error| match &config.azure.access_key {
        Some(_) if config.azure.client_id.is_none() => StorageError::setting(
            "AZURE_STORAGE_ACCESS_KEY",
            "this is no key of a storage account: base64 is expected",
        ),
        _ => error_of(Protocol::Azure, &text, &error),
    })?;
    Ok(Remote::Files(Box::new(Objects {
        store: Box::new(store),
        protocol: Protocol::Azure,
        uri: text.into(),
        prefix: azure.prefix.clone(),
        skip_empty: true,
        limits: Limits { files: config.azure.max_files, ..Limits::default() },
    })))
}

/// Who we are: an application or a managed identity when a client is named, else the account's key, else the signature of the
/// address, else nobody.
fn credentials(
    mut builder: MicrosoftAzureBuilder,
    settings: &AzureSettings,
    signature: Option<&str>,
) -> MicrosoftAzureBuilder {
    if let Some(client) = &settings.client_id {
        builder = builder.with_client_id(client);
        if let Some(tenant) = &settings.tenant_id {
            builder = builder.with_tenant_id(tenant);
        }
        if let Some(authority) = &settings.authority_host {
            builder = builder.with_authority_host(authority);
        }
        return match (&settings.client_secret, &settings.federated_token_file) {
            (Some(secret), _) => builder.with_client_secret(&secret.0),
            (None, Some(file)) => builder.with_federated_token_file(file.to_string_lossy()),
            (None, None) => match &settings.identity_endpoint {
                Some(endpoint) => builder.with_msi_endpoint(endpoint),
                None => builder,
            },
        };
    }
    if let Some(key) = &settings.access_key {
        return builder.with_access_key(&key.0);
    }
    match signature {
        Some(query) => {
            let decode = |text: &str| {
                percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
            };
            let pair = |pair: &str| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decode(name), decode(value))
            };
            builder.with_sas_authorization(query.split('&').map(pair).collect::<Vec<_>>())
        }
        None => builder.with_skip_signature(true),
    }
}
