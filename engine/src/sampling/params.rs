//! How a sequence's tokens are chosen, already validated.

use tokenmill_scheduler::TokenId;

/// Why parameters cannot work; `field` is a field of [`SamplingParams`].
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SamplingError {
    /// A number outside its range, or not a number.
    #[error("{field} is {value}, it must be {expected}")]
    OutOfRange {
        /// Name of the field.
        field: &'static str,
        /// What was asked.
        value: f32,
        /// What is allowed.
        expected: &'static str,
    },
    /// A list, or a member of a list, that must not be empty.
    #[error("{field} is empty or has an empty entry")]
    Empty {
        /// Name of the field.
        field: &'static str,
    },
    /// A token id outside the vocabulary.
    #[error("{field} has token id {token}, the vocabulary has {vocab_size} tokens")]
    TokenOutOfVocabulary {
        /// Name of the field.
        field: &'static str,
        /// The id.
        token: TokenId,
        /// Vocabulary size.
        vocab_size: u32,
    },
}

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

impl SamplingParams {
    /// Checks ranges and token ids.
    ///
    /// # Errors
    /// The first field that cannot work.
    pub fn validate(&self, vocab_size: u32) -> Result<(), SamplingError> {
        let ranges = [
            ("temperature", self.temperature, self.temperature >= 0.0, "at least 0"),
            ("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "in (0, 1]"),
            ("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "in [0, 1]"),
            (
                "repetition_penalty",
                self.repetition_penalty,
                self.repetition_penalty > 0.0,
                "above 0",
            ),
            ("frequency_penalty", self.frequency_penalty, true, "finite"),
            ("presence_penalty", self.presence_penalty, true, "finite"),
        ];
        for (field, value, inside, expected) in ranges {
            if !inside || !value.is_finite() {
                return Err(SamplingError::OutOfRange { field, value, expected });
            }
        }
        self.validate_tokens(vocab_size)
    }

    fn validate_tokens(&self, vocab_size: u32) -> Result<(), SamplingError> {
        if let Some(&(_, value)) = self.logit_bias.iter().find(|(_, bias)| !bias.is_finite()) {
            let (field, expected) = ("logit_bias", "finite");
            return Err(SamplingError::OutOfRange { field, value, expected });
        }
        if self.allowed_tokens.as_ref().is_some_and(Vec::is_empty) {
            return Err(SamplingError::Empty { field: "allowed_tokens" });
        }
        if self.bad_words.iter().any(Vec::is_empty) {
            return Err(SamplingError::Empty { field: "bad_words" });
        }
        let bias = self.logit_bias.iter().map(|&(token, _)| ("logit_bias", token));
        let allowed = self.allowed_tokens.iter().flatten().map(|&token| ("allowed_tokens", token));
        let bad = self.bad_words.iter().flatten().map(|&token| ("bad_words", token));
        match bias.chain(allowed).chain(bad).find(|&(_, token)| token >= vocab_size) {
            Some((field, token)) => {
                Err(SamplingError::TokenOutOfVocabulary { field, token, vocab_size })
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_errors_name_the_field() {
        let base = SamplingParams::default;
        assert_eq!(base().validate(10), Ok(()));
        for (params, want) in [
            (SamplingParams { temperature: -0.5, ..base() }, "temperature is -0.5, it must be"),
            (SamplingParams { temperature: f32::NAN, ..base() }, "temperature is NaN"),
            (SamplingParams { temperature: f32::INFINITY, ..base() }, "temperature is inf"),
            (SamplingParams { top_p: 0.0, ..base() }, "top_p is 0, it must be in (0, 1]"),
            (SamplingParams { top_p: 1.5, ..base() }, "top_p is 1.5"),
            (SamplingParams { min_p: -1.0, ..base() }, "min_p is -1"),
            (SamplingParams { repetition_penalty: 0.0, ..base() }, "repetition_penalty is 0"),
            (SamplingParams { presence_penalty: f32::NAN, ..base() }, "presence_penalty is NaN"),
            (SamplingParams { logit_bias: vec![(1, f32::NAN)], ..base() }, "logit_bias is NaN"),
            (
                SamplingParams { logit_bias: vec![(10, 0.0)], ..base() },
                "logit_bias has token id 10",
            ),
            (SamplingParams { allowed_tokens: Some(vec![]), ..base() }, "allowed_tokens is empty"),
            (SamplingParams { bad_words: vec![vec![]], ..base() }, "bad_words is empty"),
            (
                SamplingParams { bad_words: vec![vec![1, 11]], ..base() },
                "bad_words has token id 11",
            ),
        ] {
            let got = params.validate(10).unwrap_err().to_string();
            assert!(got.starts_with(want), "{got}, want {want}");
        }
    }
}
