//! The loop of a streamed answer: wait for the sequences, write what came.

use super::generation::Generation;
use crate::error::ApiError;
use crate::sse::{Events, Frames};

/// How an endpoint writes its chunks.
pub(super) trait Chunks: Send + 'static {
    /// What runs.
    fn generation(&mut self) -> &mut Generation;
    /// Writes what came since the last time; the end too once the generation ended.
    fn write(&mut self, frames: &mut Frames);
    /// Whether the end was written.
    fn is_over(&self) -> bool;
}

impl<C: Chunks> Events for C {
    async fn next(&mut self, frames: &mut Frames) -> Result<bool, ApiError> {
        while !self.is_over() {
            self.generation().advance().await?;
            self.write(frames);
            if !frames.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn cancel_for_drain(&mut self) {
        self.generation().cancel_for_drain();
    }
}
