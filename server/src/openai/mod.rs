//! The OpenAI dialect, with the extensions of vLLM: one file per endpoint, what they share beside.

pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod models;
pub(crate) mod tokenize;

mod chat_answer;
pub(crate) mod choice;
mod chunks;
mod completions_answer;
pub(crate) mod generation;
mod logprobs;
mod messages;
pub(crate) mod params;
pub(crate) mod prompt;
