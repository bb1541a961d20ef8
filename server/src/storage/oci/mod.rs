//! Images of registries: the `models/` directory of a modelcar, streamed out of its layers.
//!
//! Nothing but `models/` touches the disk, no layer is kept; every byte is checked against the digest that names it.
//! Credential helpers are programs, and are not run; layers compressed with zstd are refused.

mod credentials;
mod feed;
mod layer;
mod reference;
mod registry;
#[cfg(test)]
mod tests;

use std::path::Path;

use futures_util::future::BoxFuture;
use ring::digest::Context;
use serde::Deserialize;
use tokio::sync::{Mutex, OnceCell};

use self::feed::Feed;
use self::layer::Found;
use self::reference::{Digest, Reference, Version, hexadecimal};
use self::registry::Registry;
use super::answer::Asked;
use super::{Progress, Protocol, Remote, StorageError, StorageUri, Tree, client};
use crate::config::StorageConfig;
use crate::config::storage::OciSettings;

/// Kinds of manifests that are understood.
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json";
/// Layers that are tar archives, and whether gzip compresses them.
const LAYERS: &[(&str, bool)] = &[
    ("application/vnd.oci.image.layer.v1.tar+gzip", true),
    ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", true),
    ("application/vnd.docker.image.rootfs.diff.tar.gzip", true),
    ("application/vnd.oci.image.layer.v1.tar", false),
    ("application/vnd.oci.image.layer.nondistributable.v1.tar", false),
    ("application/vnd.docker.image.rootfs.diff.tar", false),
];
/// An image.
pub(super) struct Image {
    asked: Asked,
    http: reqwest::Client,
    reference: Reference,
    settings: OciSettings,
    resolved: OnceCell<Resolved>,
}

/// What its registry says of an image.
struct Resolved {
    registry: Registry,
    /// The digits of the manifest's digest.
    version: String,
    layers: Vec<Layer>,
}

/// A layer that may hold files.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Layer {
    digest: Digest,
    size: u64,
    gzip: bool,
}

/// A manifest, or an index of them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    #[serde(default)]
    manifests: Vec<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

/// The image of `oci://` and what follows it.
pub(super) fn open(
    uri: &StorageUri,
    reference: &str,
    config: &StorageConfig,
) -> Result<Remote, StorageError> {
    let mut http = client::plain();
    if let Some(bundle) = config.oci.ca_bundle.as_ref().filter(|bundle| bundle.exists()) {
        http = client::with_authorities(http, "CA_BUNDLE_VOLUME_MOUNT_POINT", bundle)?;
    }
    Ok(Remote::Tree(Box::new(Image::new(&uri.to_string(), reference, &config.oci, http)?)))
}

impl Tree for Image {
    /// The digits of the digest of the image's manifest for this machine.
    fn version(&self) -> BoxFuture<'_, Result<String, StorageError>> {
        Box::pin(async { Ok(self.resolved().await?.version.clone()) })
    }

    /// Writes `models/`; the progress counts bytes of layers.
    fn write<'a>(
        &'a self,
        _version: &'a str,
        directory: &'a Path,
        progress: Progress<'a>,
    ) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(self.pull(directory, progress))
    }
}

impl Image {
    fn new(
        uri: &str,
        reference: &str,
        settings: &OciSettings,
        http: reqwest::ClientBuilder,
    ) -> Result<Self, StorageError> {
        let unsupported = |reason| StorageError::Unsupported { uri: uri.to_owned(), reason };
        let reference = Reference::parse(reference).map_err(unsupported)?;
        let http = http.tls_danger_accept_invalid_certs(settings.insecure);
        Ok(Self {
            http: client::build(http, Protocol::Oci, uri)?,
            asked: Asked { protocol: Protocol::Oci, uri: uri.to_owned(), explain },
            reference,
            settings: settings.clone(),
            resolved: OnceCell::new(),
        })
    }

    async fn pull(&self, directory: &Path, progress: Progress<'_>) -> Result<(), StorageError> {
        // What is resolved was resolved for the version that was asked for: an image is asked once.
        let Resolved { registry, layers, .. } = self.resolved().await?;
        let total = layers.iter().fold(0u64, |total, layer| total.saturating_add(layer.size));
        let mut found = Found::default();
        let mut before = 0u64;
        for layer in layers {
            let advance = |here: u64| progress(before.saturating_add(here), total);
            found.add(Feed { registry, layer, advance: &advance }.unpack(directory).await?);
            before = before.saturating_add(layer.size);
        }
        if found.any {
            return Ok(());
        }
        let top: Vec<_> = found.top.into_iter().collect();
        Err(self.unsupported(format!(
            "the image has no /models/ directory; a modelcar has one. Its layers hold: {}",
            top.join(", ")
        )))
    }

    async fn resolved(&self) -> Result<&Resolved, StorageError> {
        self.resolved.get_or_try_init(|| self.resolve()).await
    }

    async fn resolve(&self) -> Result<Resolved, StorageError> {
        let insecure = self.settings.insecure;
        let registry = Registry {
            asked: self.asked.clone(),
            http: self.http.clone(),
            server: Registry::server(&self.reference, &self.http, insecure).await,
            repository: self.reference.repository.clone(),
            credentials: credentials::read(&self.settings.docker_config, &self.reference)?,
            insecure,
            authorization: Mutex::new(None),
        };
        let (manifest, version) = self.manifest(&registry, &self.reference.version).await?;
        if manifest.manifests.is_empty() {
            let layers = self.layers(manifest.layers)?;
            return Ok(Resolved { registry, version, layers });
        }
        let entry = self.pick(&manifest.manifests)?;
        let (manifest, version) = self.manifest(&registry, &Version::Digest(entry)).await?;
        if !manifest.manifests.is_empty() {
            return Err(self.unsupported("its index leads to another index".to_owned()));
        }
        let layers = self.layers(manifest.layers)?;
        Ok(Resolved { registry, version, layers })
    }

    /// A manifest and the digits of its digest.
    async fn manifest(
        &self,
        registry: &Registry,
        version: &Version,
    ) -> Result<(Manifest, String), StorageError> {
        let body = registry.manifest(version.text(), MANIFESTS).await?;
        let digits = match version {
            Version::Digest(digest) => {
                let mut context = Context::new(digest.algorithm);
                context.update(&body);
                digest.check(context).map_err(|why| self.asked.malformed(why))?;
                digest.digits().to_owned()
            }
            Version::Tag(_) => hexadecimal(&ring::digest::digest(&ring::digest::SHA256, &body)),
        };
        let manifest: Manifest = serde_json::from_slice(&body)
            .map_err(|error| self.asked.malformed(format!("its manifest: {error}")))?;
        if manifest.schema_version != 2 {
            let schema = manifest.schema_version;
            return Err(self.unsupported(format!(
                "its manifest is of schema {schema}, only 2 is read; push the image again with a current tool"
            )));
        }
        Ok((manifest, digits))
    }

    /// The entry of an index that is made for Linux on this machine.
    fn pick(&self, manifests: &[Descriptor]) -> Result<Digest, StorageError> {
        let architecture = architecture();
        let platform = |entry: &&Descriptor| {
            let platform = entry.platform.as_ref();
            platform.is_some_and(|has| has.os == "linux" && has.architecture == architecture)
        };
        let entry = manifests.iter().find(platform).ok_or_else(|| {
            self.unsupported(format!("OCI image index has no manifest for linux/{architecture}"))
        })?;
        Digest::parse(&entry.digest).map_err(|why| self.asked.malformed(why))
    }

    /// The layers that are archives; others (signatures, attestations) hold no files.
    fn layers(&self, descriptors: Vec<Descriptor>) -> Result<Vec<Layer>, StorageError> {
        let mut layers = Vec::with_capacity(descriptors.len());
        for Descriptor { media_type, digest, size, .. } in descriptors {
            if media_type.ends_with("zstd") {
                return Err(self.unsupported(format!(
                    "OCI layer mediaType {media_type:?} is zstd-compressed, which is not decompressed here. \
                     Rebuild the model image with gzip-compressed layers (configure your image build tool to \
                     emit gzip rather than zstd) and retry."
                )));
            }
            let known = LAYERS.iter().find(|(known, _)| *known == media_type);
            let Some((_, gzip)) = known else { continue };
            let digest = Digest::parse(&digest).map_err(|why| self.asked.malformed(why))?;
            layers.push(Layer { digest, size, gzip: *gzip });
        }
        Ok(layers)
    }

    fn unsupported(&self, reason: String) -> StorageError {
        StorageError::Unsupported { uri: self.asked.uri.clone(), reason }
    }
}

/// This machine, as images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `{"errors":[{"code":"...","message":"..."}]}`
fn explain(body: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Refusal {
        errors: Vec<Reason>,
    }
    #[derive(Deserialize)]
    struct Reason {
        code: String,
        #[serde(default)]
        message: String,
    }
    let refusal: Refusal = serde_json::from_str(body).ok()?;
    let reason = refusal.errors.into_iter().next()?;
    Some(format!("{}: {}", reason.code, reason.message))
}
