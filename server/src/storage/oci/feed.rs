//! The bytes of one layer: downloaded, resumed where a connection was cut, checked, sent on to who unpacks them.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use ring::digest::Context;
use tokio::sync::mpsc::{Sender, channel};

use super::Layer;
use super::layer::{self, Found, Received};
use super::registry::Registry;
use crate::storage::{Protocol, StorageError};

/// Tries of a layer that bring no new byte.
const TRIES: u32 = 5;
/// The first wait between two tries; nothing in tests.
const SECOND: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 1 });
/// Chunks of a layer that wait for the one that unpacks them.
const WAITING: usize = 16;

/// A layer on its way.
pub(super) struct Feed<'a> {
    pub(super) registry: &'a Registry,
    pub(super) layer: &'a Layer,
    /// Told how many bytes came.
    pub(super) advance: &'a (dyn Fn(u64) + Sync),
}

/// What came so far.
struct Here {
    bytes: u64,
    context: Context,
    sender: Sender<Bytes>,
}

impl Feed<'_> {
    /// Downloads the layer and unpacks it into a directory on the way.
    pub(super) async fn unpack(&self, directory: &Path) -> Result<Found, StorageError> {
        let (sender, receiver) = channel(WAITING);
        let (layer, directory) = (self.layer.clone(), directory.to_owned());
        let unpacking = tokio::task::spawn_blocking(move || {
            layer::unpack(Received::new(receiver), &layer, &directory)
        });
        let context = Context::new(self.layer.digest.algorithm);
        let fed = self.feed(Here { bytes: 0, context, sender }).await;
        let unpacked = unpacking.await.expect("the readers of layers do not panic");
        // A layer that is cut or wrong is no archive either: the first error says why. One that is wanted no more was
        // no archive.
        fed.and(unpacked)
    }

    /// Sends the layer's bytes on, until there are no more or nobody wants them.
    async fn feed(&self, mut here: Here) -> Result<(), StorageError> {
        let mut tried = 0;
        loop {
            let before = here.bytes;
            let error = match self.pour(&mut here).await {
                Ok(()) if here.sender.is_closed() => return Ok(()),
                Ok(()) => {
                    let digest = &self.layer.digest;
                    let checked = digest.check(here.context);
                    return checked.map_err(|why| self.registry.asked.malformed(why));
                }
                Err(error) => error,
            };
            tried = if here.bytes > before { 1 } else { tried + 1 };
            if !error.is_transient() || tried >= TRIES {
                return Err(error);
            }
            let wait = SECOND * (1 << (tried - 1));
            tracing::warn!(%error, seconds = wait.as_secs(), "trying again");
            tokio::time::sleep(wait).await;
        }
    }

    /// One request for the rest of the layer.
    async fn pour(&self, here: &mut Here) -> Result<(), StorageError> {
        let (asked, size, digest) = (&self.registry.asked, self.layer.size, &self.layer.digest);
        if here.bytes == size {
            return Ok(());
        }
        let mut blob = self.registry.blob(digest, here.bytes).await?;
        while let Some(bytes) = blob.next().await? {
            here.bytes += bytes.len() as u64;
            if here.bytes > size {
                return Err(
                    asked.malformed(format!("{} is longer than its {size} bytes", digest.text))
                );
            }
            here.context.update(&bytes);
            (self.advance)(here.bytes);
            if here.sender.send(bytes).await.is_err() {
                return Ok(());
            }
        }
        if here.bytes < size {
            let reason = format!("got {} of {size} bytes of {}", here.bytes, digest.text);
            return Err(StorageError::cut(Protocol::Oci, &asked.uri, reason));
        }
        Ok(())
    }
}
