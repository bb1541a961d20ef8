//! Images of registries: the `models/` directory of a modelcar, streamed out of its layers.
//!
//! Nothing but `models/` touches the disk, no layer is kept; every byte is checked against the digest that names it.
//! Credential helpers are programs, and are not run; layers compressed with zstd are refused.

mod credentials;
mod layer;
mod reference;
mod registry;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ring::digest::Context;
use serde::Deserialize;
use tokio::sync::mpsc::{Sender, channel};
use tokio::sync::{Mutex, OnceCell};

use self::layer::{Found, Received};
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
/// Tries of a layer that bring no new byte.
const TRIES: u32 = 5;
/// The first wait between two tries; nothing in tests.
const SECOND: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 1 });
/// Chunks of a layer that wait for the one that unpacks them.
const WAITING: usize = 16;

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
            found.add(self.layer(registry, layer, directory, &advance).await?);
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
                self.check(digest, Context::new(digest.algorithm), &body)?;
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

    /// Downloads a layer and unpacks it on the way.
    async fn layer(
        &self,
        registry: &Registry,
        layer: &Layer,
        directory: &Path,
        advance: &(dyn Fn(u64) + Sync),
    ) -> Result<Found, StorageError> {
        let (sender, receiver) = channel(WAITING);
        let (described, directory) = (layer.clone(), directory.to_owned());
        let unpacking = tokio::task::spawn_blocking(move || {
            layer::unpack(Received::new(receiver), &described, &directory)
        });
        let fed = self.feed(registry, layer, sender, advance).await;
        let unpacked = unpacking.await.map_err(|panic| {
            let source = std::io::Error::other(panic);
            StorageError::Io { path: layer.digest.text.clone().into(), source }
        })?;
        // A layer that is cut or wrong is no archive either: the first error says why.
        if fed? { unpacked } else { unpacked.and(Err(self.asked.malformed("a layer ended early"))) }
    }

    /// Sends a layer's bytes on, resuming where a connection was cut; whether all were taken.
    async fn feed(
        &self,
        registry: &Registry,
        layer: &Layer,
        sender: Sender<Bytes>,
        advance: &(dyn Fn(u64) + Sync),
    ) -> Result<bool, StorageError> {
        let mut context = Context::new(layer.digest.algorithm);
        let mut here = 0u64;
        let mut tried = 0;
        loop {
            let before = here;
            let error =
                match self.pour(registry, layer, &sender, &mut context, &mut here, advance).await {
                    Ok(false) => return Ok(false),
                    Ok(true) => return self.check(&layer.digest, context, b"").map(|()| true),
                    Err(error) => error,
                };
            tried = if here > before { 1 } else { tried + 1 };
            if !error.is_transient() || tried >= TRIES {
                return Err(error);
            }
            let wait = SECOND * (1 << (tried - 1));
            tracing::warn!(%error, seconds = wait.as_secs(), "trying again");
            tokio::time::sleep(wait).await;
        }
    }

    /// One request for the rest of a layer.
    async fn pour(
        &self,
        registry: &Registry,
        layer: &Layer,
        sender: &Sender<Bytes>,
        context: &mut Context,
        here: &mut u64,
        advance: &(dyn Fn(u64) + Sync),
    ) -> Result<bool, StorageError> {
        if *here == layer.size {
            return Ok(true);
        }
        let mut blob = registry.blob(&layer.digest, *here).await?;
        while let Some(bytes) = blob.next().await? {
            *here += bytes.len() as u64;
            if *here > layer.size {
                let (digest, size) = (&layer.digest.text, layer.size);
                return Err(self
                    .asked
                    .malformed(format!("{digest} is longer than its {size} bytes")));
            }
            context.update(&bytes);
            advance(*here);
            if sender.send(bytes).await.is_err() {
                return Ok(false);
            }
        }
        if *here < layer.size {
            let reason = format!("got {here} of {} bytes of {}", layer.size, layer.digest.text);
            return Err(StorageError::cut(Protocol::Oci, &self.asked.uri, reason));
        }
        Ok(true)
    }

    /// Whether what was received (and `rest`) is what its name promises.
    fn check(
        &self,
        digest: &Digest,
        mut context: Context,
        rest: &[u8],
    ) -> Result<(), StorageError> {
        context.update(rest);
        let found = hexadecimal(&context.finish());
        if found == digest.digits() {
            return Ok(());
        }
        Err(self.asked.malformed(format!("the bytes of {} have the digest {found}", digest.text)))
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
