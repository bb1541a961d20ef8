//! What a caller submits, and what becomes of it.

use crate::config::SchedulerConfig;
use crate::group::Table;
use crate::hash::{BlockHash, Parent, hash_block};
use crate::ids::{SeqKey, Tick, TokenId};
use crate::policy::Rank;

/// Completion tokens whose room is reserved at submission; longer completions grow their buffers by
/// doubling.
const RESERVED_COMPLETION: u32 = 1024;

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
    /// Compute every prompt position even if its blocks are cached (prompt log-probabilities, pooling
    /// over all positions). A preempted sequence then computes them again, from position 0.
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

/// A live sequence: tokens, how many of them are computed, and in which blocks.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) key: SeqKey,
    /// Place in the order of service.
    pub(crate) rank: Rank,
    pub(crate) submitted: Tick,
    /// Prompt and completion.
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) prompt_len: u32,
    /// Table entries reserved in every group.
    pub(crate) table_room: usize,
    /// `tokens` never grows past this.
    pub(crate) max_len: u32,
    /// Leading tokens whose keys and values are in the blocks of `tables`.
    pub(crate) computed: u32,
    /// Query tokens of the step that is on the device.
    pub(crate) in_flight: u32,
    /// Tokens that steps on the device will produce and later plans already count on. Zero while
    /// `schedule` waits for `commit`.
    pub(crate) placeholders: u32,
    /// Tokens computed before the last preemption.
    pub(crate) lost: u32,
    /// Leading blocks offered to the prefix index.
    pub(crate) published: u32,
    /// Hashes of leading whole blocks; empty when nothing is cached.
    pub(crate) hashes: Vec<BlockHash>,
    /// One per cache group, all of one length.
    pub(crate) tables: Box<[Table]>,
    pub(crate) stop_tokens: Vec<TokenId>,
    pub(crate) cache_salt: u64,
    pub(crate) skip_prefix_cache: bool,
    pub(crate) output: OutputKind,
    /// Its `Event::Admitted` was emitted.
    pub(crate) was_admitted: bool,
    /// In the running list rather than waiting.
    pub(crate) is_running: bool,
    /// Cancelled while in flight: it ends at `commit`.
    pub(crate) is_cancelled: bool,
}

impl Sequence {
    /// A checked specification becomes a sequence. Allocates what its first steps need.
    pub(crate) fn new(
        spec: SequenceSpec,
        identity: (SeqKey, Rank, Tick),
        config: &SchedulerConfig,
    ) -> Self {
        let (key, rank, submitted) = identity;
        let prompt_len = spec.prompt.len() as u32;
        let max_tokens = match spec.output {
            OutputKind::Sample => spec.max_tokens,
            OutputKind::Pool => 0,
        };
        let max_len = prompt_len.saturating_add(max_tokens).min(config.max_model_len);
        let expected_len = max_len.min(prompt_len + RESERVED_COMPLETION);
        let table_room = expected_len.div_ceil(config.block_size) as usize;
        let mut tokens = spec.prompt;
        tokens.reserve_exact((expected_len - prompt_len) as usize);
        let table = || Table { blocks: Vec::with_capacity(table_room), ..Table::default() };
        let mut sequence = Sequence {
            key,
            rank,
            submitted,
            tokens,
            prompt_len,
            table_room,
            max_len,
            computed: 0,
            in_flight: 0,
            placeholders: 0,
            lost: 0,
            published: 0,
            hashes: Vec::new(),
            tables: config.groups.iter().map(|_| table()).collect(),
            stop_tokens: spec.stop_tokens,
            cache_salt: spec.cache_salt,
            skip_prefix_cache: spec.skip_prefix_cache,
            output: spec.output,
            was_admitted: false,
            is_running: false,
            is_cancelled: false,
        };
        if config.prefix_cache {
            sequence.hashes.reserve_exact(table_room);
            sequence.hash_blocks(prompt_len / config.block_size, config);
        }
        sequence
    }

    /// Tokens that a step may compute: prompt, completion, and what is promised.
    pub(crate) fn known(&self) -> u32 {
        self.tokens.len() as u32 + self.placeholders
    }

    /// Extends the hash chain to the first `num_blocks` blocks.
    pub(crate) fn hash_blocks(&mut self, num_blocks: u32, config: &SchedulerConfig) {
        let block_size = config.block_size as usize;
        while self.hashes.len() < num_blocks as usize {
            let parent = self
                .hashes
                .last()
                .map_or(Parent::Salt(self.cache_salt), |hash| Parent::Block(*hash));
            let start = self.hashes.len() * block_size;
            let tokens = &self.tokens[start..start + block_size];
            self.hashes.push(hash_block(config.hash_key, parent, tokens));
        }
    }
}
