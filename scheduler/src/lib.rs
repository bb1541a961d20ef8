//! Continuous batching over a paged KV cache.
//!
//! Pure and deterministic: no tensor, clock, thread, channel, log or random source. Sequences and
//! time go in ([`Scheduler::submit`], [`Scheduler::schedule`]); a flat [`StepPlan`] comes out; the
//! sampled tokens come back through [`Scheduler::commit`].

pub mod config;
pub mod ids;
pub mod plan;
pub mod sequence;

pub use config::{CacheGroup, ConfigError, Policy, SchedulerConfig};
pub use ids::{BlockId, SeqKey, Tick, TokenId};
pub use plan::{Event, FAILED_TOKEN, FinishReason, PlannedSequence, StepPlan};
pub use sequence::{OutputKind, SequenceSpec, SubmitError};
