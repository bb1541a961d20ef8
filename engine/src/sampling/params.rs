//! How a sequence's tokens are chosen, already validated.

use tokenmill_scheduler::TokenId;

/// Sampling parameters of one sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// 0 is greedy (ties to the lowest id); otherwise logits are divided by it.
    pub temperature: f32,
    /// Keep the `k` most likely; 0 keeps all.
    pub top_k: u32,
    /// Keep the smallest set whose probability reaches `p`; in (0, 1].
    pub top_p: f32,
    /// Drop tokens below `min_p` times the most likely one; in [0, 1].
    pub min_p: f32,
    /// Over prompt and completion; positive logits are divided, negative multiplied. 1 is off.
    pub repetition_penalty: f32,
    /// Times the count of the token in the completion, subtracted. 0 is off.
    pub frequency_penalty: f32,
    /// Subtracted once for every token in the completion. 0 is off.
    pub presence_penalty: f32,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(TokenId, f32)>,
    /// Only these may be sampled.
    pub allowed_tokens: Option<Vec<TokenId>>,
    /// Token sequences that must not be completed; each non-empty.
    pub bad_words: Vec<Vec<TokenId>>,
    /// Stop tokens are masked until so many tokens were sampled.
    pub min_tokens: u32,
    /// The k-th random number depends on (seed, k) alone.
    pub seed: u64,
    /// Report the sampled token's log-probability and this many of the most likely (`u32::MAX`: all).
    pub logprobs: Option<u32>,
    /// The same for prompt tokens.
    pub prompt_logprobs: Option<u32>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
            allowed_tokens: None,
            bad_words: Vec::new(),
            min_tokens: 0,
            seed: 0,
            logprobs: None,
            prompt_logprobs: None,
        }
    }
}
