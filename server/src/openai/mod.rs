//! The OpenAI dialect, with the extensions of vLLM: one file per endpoint, what they share beside.

pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod models;
pub(crate) mod tokenize;

mod chat_answer;
mod choice;
mod chunks;
mod completions_answer;
mod generation;
mod logprobs;
mod messages;
mod params;
mod prompt;
