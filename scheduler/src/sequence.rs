//! What a caller submits.

use crate::ids::{Tick, TokenId};

/// What the executor must produce when a sequence's known tokens are all computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputKind {
    /// Sample the next token.
    #[default]
    Sample,
    /// Return a pooled vector and end (embeddings, scores).
    Pool,
}

/// One prompt and how far its completion may go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SequenceSpec {
    /// Prompt tokens, at least one.
    pub prompt: Vec<TokenId>,
    /// Completion tokens at most; at least one for `Sample`.
    pub max_tokens: u32,
    /// A sampled token of this list ends the sequence (`FinishReason::Stop`); the token is still reported.
    pub stop_tokens: Vec<TokenId>,
    /// Smaller runs earlier under `Policy::Priority`.
    pub priority: i64,
    /// Mixed into the hash of the first block: sequences of different salts share no blocks.
    pub cache_salt: u64,
    /// Compute every prompt position even if its blocks are cached (prompt log-probabilities).
    pub skip_prefix_cache: bool,
    /// The sequence ends with `FinishReason::Deadline` at the first `schedule` at or after this time.
    pub deadline: Option<Tick>,
    /// Generation or pooling.
    pub output: OutputKind,
}

/// Why a sequence was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The prompt has no token.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// The prompt leaves no room for a token.
    #[error("the prompt has {prompt_tokens} tokens, the model length is {max_model_len}")]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// The model length.
        max_model_len: u32,
    },
    /// `max_tokens` is zero for a sequence that samples.
    #[error("max_tokens is 0, it must be at least 1")]
    ZeroMaxTokens,
    /// A token id outside the vocabulary.
    #[error("token id {token} is outside the vocabulary of {vocab_size}")]
    TokenOutOfVocabulary {
        /// The id.
        token: TokenId,
        /// Vocabulary size.
        vocab_size: u32,
    },
    /// The waiting queue is full.
    #[error("{waiting} sequences are waiting, the limit is {limit}")]
    Overloaded {
        /// Waiting now.
        waiting: u32,
        /// The limit.
        limit: u32,
    },
}
