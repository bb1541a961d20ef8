//! Continuous batching over a paged KV cache.
//!
//! Pure and deterministic: no tensor, clock, thread, channel, log or random source. Sequences and
//! time go in ([`Scheduler::submit`], [`Scheduler::schedule`]); a flat [`StepPlan`] comes out; the
//! sampled tokens come back through [`Scheduler::commit`].
//!
//! ```
//! use tokenmill_scheduler::{
//!     CacheGroup, Event, FinishReason, Policy, Scheduler, SchedulerConfig, SequenceSpec, StepPlan, Tick,
//! };
//!
//! let mut scheduler = Scheduler::new(SchedulerConfig {
//!     block_size: 16,
//!     groups: vec![CacheGroup { num_blocks: 64, window: None }],
//!     max_sequences: 4,
//!     max_waiting: 8,
//!     max_step_tokens: 128,
//!     max_chunk_tokens: 64,
//!     max_model_len: 512,
//!     vocab_size: 1000,
//!     prefix_cache: true,
//!     hash_key: [1, 2],
//!     policy: Policy::FirstCome,
//! })?;
//! let spec = SequenceSpec { prompt: vec![5, 6, 7], max_tokens: 2, ..SequenceSpec::default() };
//! let key = scheduler.submit(spec, Tick(0))?;
//! let (mut plan, mut events) = (StepPlan::default(), Vec::new());
//! while scheduler.schedule(Tick(0), &mut plan, &mut events) {
//!     let sampled = vec![42; plan.num_sampled()];          // An executor runs the plan here.
//!     scheduler.commit(&plan, &sampled, &mut events);
//! }
//! assert_eq!(events.last(), Some(&Event::Finished(key, FinishReason::Length)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod admission;
mod block_pool;
pub mod config;
mod group;
#[cfg(test)]
mod harness;
mod hash;
pub mod ids;
mod invariants;
pub mod load;
pub mod plan;
pub mod policy;
pub mod scheduler;
pub mod sequence;
mod slot_heap;
mod step;

pub use config::{CacheGroup, ConfigError, MAX_CACHE_GROUPS, SchedulerConfig};
pub use ids::{BlockId, SeqKey, Tick, TokenId};
pub use load::{GroupLoad, Load};
pub use plan::{Event, FAILED_TOKEN, FinishReason, PlannedSequence, StepPlan};
pub use policy::Policy;
pub use scheduler::Scheduler;
pub use sequence::{OutputKind, SequenceSpec, SubmitError};
