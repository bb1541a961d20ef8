//! From logits to tokens.
//!
//! The order is fixed: allowed tokens, bad words, stop tokens below `min_tokens` and logit bias,
//! penalties ([`processors`]); then temperature, min-p, top-k, top-p ([`distribution`]); then one
//! random number ([`random`]). Log-probabilities ([`logprobs`]) are those of the raw logits. Every
//! row is a function of its own sequence and logits only, so a token never depends on what else is
//! in the batch or on how many threads sample.
//!
//! This is the host's sampler: it knows rows of `f32` and sequences, not where the logits came from.

pub mod distribution;
pub mod logprobs;
mod params;
pub mod processors;
pub mod random;
mod sampler;

pub use logprobs::prompt_logprobs_row;
pub use params::{SamplingError, SamplingParams};
pub use sampler::{Sampled, Sampler, SamplerScratch, SequenceSampler};
