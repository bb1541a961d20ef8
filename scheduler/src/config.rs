//! What the scheduler is told once.

use crate::ids::TokenId;
use crate::policy::Policy;
use crate::sequence::{OutputKind, SequenceSpec, SubmitError};

/// Cache groups at most. Models have one per kind of attention, so two are common.
pub const MAX_CACHE_GROUPS: usize = 8;

/// Every count stays below this, so that sums and products with small factors fit their types.
const MAX_COUNT: u32 = 1 << 30;

/// Layers that share one block table: same window, own pool of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheGroup {
    /// Physical blocks of this group.
    pub num_blocks: u32,
    /// Sliding window in tokens (a query sees itself and `window - 1` tokens before it); `None` sees everything.
    pub window: Option<u32>,
}

/// Limits and policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// Tokens per block.
    pub block_size: u32,
    /// At least one; the prefix cache needs a hit in every group.
    pub groups: Vec<CacheGroup>,
    /// Sequences running at once.
    pub max_sequences: u32,
    /// Sequences waiting at once; `submit` refuses more.
    pub max_waiting: u32,
    /// Query tokens of one step, over all sequences.
    pub max_step_tokens: u32,
    /// Query tokens one sequence may take from a step (`max_step_tokens` when equal or larger).
    pub max_chunk_tokens: u32,
    /// Prompt plus completion of one sequence.
    pub max_model_len: u32,
    /// Vocabulary size; token ids at or above it are refused.
    pub vocab_size: TokenId,
    /// Whether finished blocks stay findable by their content.
    pub prefix_cache: bool,
    /// Key of the block hash; random per process in production, fixed in tests.
    pub hash_key: [u64; 2],
    /// Order and victims.
    pub policy: Policy,
}

/// Why a configuration cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A count that must be positive is zero.
    #[error("{field} is 0, it must be at least 1")]
    Zero {
        /// Name of the field.
        field: &'static str,
    },
    /// A count is beyond what the scheduler's arithmetic is made for.
    #[error("{field} is {value}, it must be at most {limit}")]
    TooLarge {
        /// Name of the field.
        field: &'static str,
        /// The configured value.
        value: u64,
        /// The largest possible value.
        limit: u32,
    },
    /// One sequence of the model length does not fit the cache.
    #[error(
        "a sequence of {max_model_len} tokens needs {needed} blocks, group {group} has {available}: \
         lower the model length or give the cache more memory"
    )]
    TooFewBlocks {
        /// Index of the group.
        group: usize,
        /// The configured model length.
        max_model_len: u32,
        /// Blocks that one sequence needs.
        needed: u32,
        /// Blocks of the group.
        available: u32,
    },
}

impl SchedulerConfig {
    /// Whether a scheduler can work with these limits, one sequence of the model length included.
    ///
    /// # Errors
    /// The first field that is out of range, or the first group that is too small.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let counts = [
            ("block_size", self.block_size),
            ("max_sequences", self.max_sequences),
            ("max_waiting", self.max_waiting),
            ("max_step_tokens", self.max_step_tokens),
            ("max_chunk_tokens", self.max_chunk_tokens),
            ("max_model_len", self.max_model_len),
            ("vocab_size", self.vocab_size),
            ("groups", self.groups.len().min(u32::MAX as usize) as u32),
        ];
        for (field, value) in counts {
            check_count(field, value)?;
        }
        if self.groups.len() > MAX_CACHE_GROUPS {
            let (value, limit) = (self.groups.len() as u64, MAX_CACHE_GROUPS as u32);
            return Err(ConfigError::TooLarge { field: "groups", value, limit });
        }
        self.groups.iter().enumerate().try_for_each(|(index, group)| self.check_group(index, group))
    }

    /// Whether [`crate::Scheduler::submit`] would accept a sequence, if the queue had room. Stop
    /// tokens outside the vocabulary are accepted: they are never sampled.
    ///
    /// # Errors
    /// What is wrong with the sequence.
    pub fn check(&self, spec: &SequenceSpec) -> Result<(), SubmitError> {
        if spec.prompt.is_empty() {
            return Err(SubmitError::EmptyPrompt);
        }
        let longest = match spec.output {
            OutputKind::Sample => self.max_model_len as usize - 1,
            OutputKind::Pool => self.max_model_len as usize,
        };
        if spec.prompt.len() > longest {
            let prompt_tokens = spec.prompt.len();
            return Err(SubmitError::PromptTooLong {
                prompt_tokens,
                max_model_len: self.max_model_len,
            });
        }
        if spec.output == OutputKind::Sample && spec.max_tokens == 0 {
            return Err(SubmitError::ZeroMaxTokens);
        }
        match spec.prompt.iter().find(|&&token| token >= self.vocab_size) {
            Some(&token) => {
                Err(SubmitError::TokenOutOfVocabulary { token, vocab_size: self.vocab_size })
            }
            None => Ok(()),
        }
    }

    /// Blocks of `group` that a sequence of `tokens` tokens holds at most at once: all of them, or
    /// what a window and a chunk of queries can touch.
    pub fn peak_blocks(&self, group: &CacheGroup, tokens: u32) -> u32 {
        let all = tokens.div_ceil(self.block_size);
        let Some(window) = group.window else { return all };
        // The first query of a chunk sees `window - 1` older tokens; the span may begin anywhere in
        // a block.
        let span = u64::from(window - 1) + u64::from(self.chunk_tokens());
        let touched = (span - 1).div_ceil(u64::from(self.block_size)) + 1;
        touched.min(u64::from(all)) as u32
    }

    /// Query tokens that one sequence may take from a step.
    pub(crate) fn chunk_tokens(&self) -> u32 {
        self.max_chunk_tokens.min(self.max_step_tokens)
    }

    fn check_group(&self, index: usize, group: &CacheGroup) -> Result<(), ConfigError> {
        check_count("groups.num_blocks", group.num_blocks)?;
        if group.window == Some(0) {
            return Err(ConfigError::Zero { field: "groups.window" });
        }
        let needed = self.peak_blocks(group, self.max_model_len);
        if needed > group.num_blocks {
            return Err(ConfigError::TooFewBlocks {
                group: index,
                max_model_len: self.max_model_len,
                needed,
                available: group.num_blocks,
            });
        }
        Ok(())
    }
}

fn check_count(field: &'static str, value: u32) -> Result<(), ConfigError> {
    match value {
        0 => Err(ConfigError::Zero { field }),
        1..=MAX_COUNT => Ok(()),
        _ => Err(ConfigError::TooLarge { field, value: value.into(), limit: MAX_COUNT }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> SchedulerConfig {
        SchedulerConfig {
            block_size: 4,
            groups: vec![CacheGroup { num_blocks: 8, window: None }],
            max_sequences: 2,
            max_waiting: 2,
            max_step_tokens: 16,
            max_chunk_tokens: 8,
            max_model_len: 32,
            vocab_size: 100,
            prefix_cache: true,
            hash_key: [0, 0],
            policy: Policy::FirstCome,
        }
    }

    #[test]
    fn zero_and_huge_counts_are_refused_by_name() {
        type Edit = fn(&mut SchedulerConfig, u32);
        let edits: [(&str, Edit); 8] = [
            ("block_size", |config, value| config.block_size = value),
            ("max_sequences", |config, value| config.max_sequences = value),
            ("max_waiting", |config, value| config.max_waiting = value),
            ("max_step_tokens", |config, value| config.max_step_tokens = value),
            ("max_chunk_tokens", |config, value| config.max_chunk_tokens = value),
            ("max_model_len", |config, value| config.max_model_len = value),
            ("vocab_size", |config, value| config.vocab_size = value),
            ("groups.num_blocks", |config, value| config.groups[0].num_blocks = value),
        ];
        for (name, edit) in edits {
            let mut zero = config();
            edit(&mut zero, 0);
            assert_eq!(zero.validate(), Err(ConfigError::Zero { field: name }));
            let mut huge = config();
            edit(&mut huge, u32::MAX);
            assert!(
                matches!(huge.validate(), Err(ConfigError::TooLarge { field, .. }) if field == name),
                "{name}"
            );
        }
        let none = SchedulerConfig { groups: Vec::new(), ..config() };
        assert_eq!(none.validate(), Err(ConfigError::Zero { field: "groups" }));
        let blind = vec![CacheGroup { num_blocks: 8, window: Some(0) }];
        let blind = SchedulerConfig { groups: blind, ..config() };
        assert_eq!(blind.validate(), Err(ConfigError::Zero { field: "groups.window" }));
        let many = vec![CacheGroup { num_blocks: 8, window: None }; MAX_CACHE_GROUPS + 1];
        let many = SchedulerConfig { groups: many, ..config() };
        assert!(matches!(many.validate(), Err(ConfigError::TooLarge { field: "groups", .. })));
    }

    #[test]
    fn a_sequence_of_the_model_length_must_fit() {
        assert_eq!(config().validate(), Ok(()));
        let longer = SchedulerConfig { max_model_len: 33, ..config() };
        let error = longer.validate().unwrap_err();
        let (group, max_model_len, needed, available) = (0, 33, 9, 8);
        let want = ConfigError::TooFewBlocks { group, max_model_len, needed, available };
        assert_eq!(error, want);
        assert!(error.to_string().contains("needs 9 blocks, group 0 has 8"), "{error}");
    }

    #[test]
    fn a_window_bounds_the_blocks_of_a_sequence() {
        // Chunks of 8 queries, blocks of 4: a span of `window + 7` tokens.
        for (window, tokens, want) in [(1, 1000, 3), (2, 1000, 3), (3, 1000, 4), (1000, 40, 10)] {
            let group = CacheGroup { num_blocks: 8, window: Some(window) };
            assert_eq!(config().peak_blocks(&group, tokens), want, "window {window}");
        }
    }

    #[test]
    fn sequences_are_checked_before_they_are_accepted() {
        let spec =
            |prompt: Vec<TokenId>| SequenceSpec { prompt, max_tokens: 1, ..Default::default() };
        let pool =
            |len| SequenceSpec { output: OutputKind::Pool, max_tokens: 0, ..spec(vec![1; len]) };
        let too_long =
            |prompt_tokens| Err(SubmitError::PromptTooLong { prompt_tokens, max_model_len: 32 });
        let zero = SequenceSpec { max_tokens: 0, ..spec(vec![1]) };
        let foreign = SubmitError::TokenOutOfVocabulary { token: 100, vocab_size: 100 };
        let cases = [
            (spec(vec![]), Err(SubmitError::EmptyPrompt)),
            (spec(vec![1; 31]), Ok(())),
            (spec(vec![1; 32]), too_long(32)),
            (pool(32), Ok(())),
            (pool(33), too_long(33)),
            (zero, Err(SubmitError::ZeroMaxTokens)),
            (spec(vec![1, 100]), Err(foreign)),
        ];
        for (spec, want) in cases {
            assert_eq!(config().check(&spec), want, "{} tokens", spec.prompt.len());
        }
    }
}
