//! Edits of the logits before the draw, in the order they are applied.
//!
//! The history of a sequence is kept only as far as its parameters need it: counts for penalties,
//! the last few tokens for bad words. A new processor is a function here and a line in
//! [`LogitsProcessors::apply`].

use std::sync::Arc;

use tokenmill_scheduler::TokenId;

use super::SamplingParams;

/// A token that appeared in the prompt or the completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    token: TokenId,
    /// Times in the completion.
    count: u32,
}

/// The edits of one sequence and the history they need.
#[derive(Debug)]
pub struct LogitsProcessors {
    params: Arc<SamplingParams>,
    /// Sorted; `None` allows all.
    allowed: Option<Vec<TokenId>>,
    stop_tokens: Vec<TokenId>,
    sampled: u32,
    /// Sorted by token; empty unless a penalty is on.
    seen: Vec<Seen>,
    /// The last tokens of prompt and completion, one fewer than the longest bad word has.
    recent: Vec<TokenId>,
    recent_len: usize,
}

impl LogitsProcessors {
    /// State of a sequence that has sampled nothing.
    pub fn new(params: Arc<SamplingParams>, prompt: &[TokenId], stop_tokens: &[TokenId]) -> Self {
        let recent_len = params.bad_words.iter().map(|word| word.len()).max().unwrap_or(1) - 1;
        let mut recent = Vec::with_capacity(recent_len + 1);
        recent.extend_from_slice(&prompt[prompt.len() - recent_len.min(prompt.len())..]);
        let mut seen = Vec::new();
        if has_penalties(&params) {
            let mut tokens = prompt.to_vec();
            tokens.sort_unstable();
            tokens.dedup();
            seen.extend(tokens.into_iter().map(|token| Seen { token, count: 0 }));
        }
        let mut allowed = params.allowed_tokens.clone();
        allowed.iter_mut().for_each(|tokens| tokens.sort_unstable());
        let stop_tokens = if params.min_tokens > 0 { stop_tokens.to_vec() } else { Vec::new() };
        Self { params, allowed, stop_tokens, sampled: 0, seen, recent, recent_len }
    }

    /// Tokens sampled so far: the index of the next random number.
    pub fn sampled(&self) -> u32 {
        self.sampled
    }

    /// Whether [`apply`](Self::apply) would change anything now.
    pub fn is_identity(&self) -> bool {
        let params = &self.params;
        params.allowed_tokens.is_none()
            && params.bad_words.is_empty()
            && params.logit_bias.is_empty()
            && self.sampled >= params.min_tokens
            && !has_penalties(params)
    }

    /// Edits a row of logits.
    pub fn apply(&self, row: &mut [f32]) {
        let params = &self.params;
        if let Some(allowed) = &self.allowed {
            keep_only(row, allowed);
        }
        mask_bad_words(row, &params.bad_words, &self.recent);
        if self.sampled < params.min_tokens {
            self.stop_tokens.iter().for_each(|&token| mask(row, token));
        }
        for &(token, bias) in &params.logit_bias {
            if let Some(logit) = row.get_mut(token as usize) {
                *logit += bias;
            }
        }
        self.penalise(row);
    }

    fn penalise(&self, row: &mut [f32]) {
        let params = &self.params;
        for seen in &self.seen {
            let Some(logit) = row.get_mut(seen.token as usize) else { continue };
            if *logit > 0.0 {
                *logit /= params.repetition_penalty;
            } else {
                *logit *= params.repetition_penalty;
            }
            if seen.count > 0 {
                *logit -= params.frequency_penalty * seen.count as f32 + params.presence_penalty;
            }
        }
    }

    /// Records a sampled token.
    pub fn push(&mut self, token: TokenId) {
        self.sampled += 1;
        if has_penalties(&self.params) {
            match self.seen.binary_search_by_key(&token, |seen| seen.token) {
                Ok(index) => self.seen[index].count += 1,
                Err(index) => self.seen.insert(index, Seen { token, count: 1 }),
            }
        }
        if self.recent_len > 0 {
            if self.recent.len() == self.recent_len {
                self.recent.remove(0);
            }
            self.recent.push(token);
        }
    }
}

fn has_penalties(params: &SamplingParams) -> bool {
    params.repetition_penalty != 1.0
        || params.frequency_penalty != 0.0
        || params.presence_penalty != 0.0
}

fn mask(row: &mut [f32], token: TokenId) {
    if let Some(logit) = row.get_mut(token as usize) {
        *logit = f32::NEG_INFINITY;
    }
}

/// Masks everything but `allowed`, which is sorted and may repeat tokens.
fn keep_only(row: &mut [f32], allowed: &[TokenId]) {
    let mut next = 0;
    for &token in allowed {
        let token = (token as usize).min(row.len());
        if token >= next {
            row[next..token].fill(f32::NEG_INFINITY);
            next = (token + 1).min(row.len());
        }
    }
    row[next..].fill(f32::NEG_INFINITY);
}

/// Masks the last token of every bad word whose other tokens are the most recent ones.
fn mask_bad_words(row: &mut [f32], words: &[Vec<TokenId>], recent: &[TokenId]) {
    for word in words {
        if let Some((&last, before)) = word.split_last()
            && recent.ends_with(before)
        {
            mask(row, last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASKED: f32 = f32::NEG_INFINITY;

    fn check(params: SamplingParams, prompt: &[TokenId], sampled: &[TokenId], want: [f32; 5]) {
        let mut processors = LogitsProcessors::new(Arc::new(params.clone()), prompt, &[4]);
        sampled.iter().for_each(|&token| processors.push(token));
        let mut row = [2.0, -1.0, 0.5, 4.0, 1.0];
        let before = row;
        processors.apply(&mut row);
        assert_eq!(row, want, "{params:?}");
        if processors.is_identity() {
            assert_eq!(row, before, "{params:?} claims to change nothing");
        }
    }

    #[test]
    fn each_processor_edits_as_defined() {
        let base = SamplingParams::default;
        check(base(), &[0], &[1], [2.0, -1.0, 0.5, 4.0, 1.0]);
        let allowed_tokens = Some(vec![3, 1, 3]);
        check(
            SamplingParams { allowed_tokens, ..base() },
            &[0],
            &[],
            [MASKED, -1.0, MASKED, 4.0, MASKED],
        );
        let params = SamplingParams { logit_bias: vec![(1, 3.0), (3, -1.5)], ..base() };
        check(params, &[0], &[], [2.0, 2.0, 0.5, 2.5, 1.0]);
        let min = SamplingParams { min_tokens: 2, ..base() };
        check(min.clone(), &[0], &[1], [2.0, -1.0, 0.5, 4.0, MASKED]);
        check(min, &[0], &[1, 1], [2.0, -1.0, 0.5, 4.0, 1.0]);
        // Prompt {0}, completion {1, 1}: both are divided or multiplied.
        let params = SamplingParams { repetition_penalty: 2.0, ..base() };
        check(params, &[0], &[1, 1], [1.0, -2.0, 0.5, 4.0, 1.0]);
        // The completion only.
        let params = SamplingParams { frequency_penalty: 0.25, presence_penalty: 0.5, ..base() };
        check(params, &[0], &[1, 1], [2.0, -2.0, 0.5, 4.0, 1.0]);
    }

    #[test]
    fn bad_words_are_masked_when_their_beginning_was_just_seen() {
        let words = vec![vec![2], vec![0, 1, 3], vec![1, 4]];
        let params = SamplingParams { bad_words: words, ..SamplingParams::default() };
        check(params.clone(), &[1, 0], &[], [2.0, -1.0, MASKED, 4.0, 1.0]);
        check(params.clone(), &[3, 0], &[1], [2.0, -1.0, MASKED, MASKED, MASKED]);
        check(params.clone(), &[3], &[0, 1], [2.0, -1.0, MASKED, MASKED, MASKED]);
        check(params, &[0, 1], &[2], [2.0, -1.0, MASKED, 4.0, 1.0]);
    }

    #[test]
    fn masks_survive_bias_and_penalties() {
        let params = SamplingParams {
            bad_words: vec![vec![3]],
            logit_bias: vec![(3, 100.0), (0, 1.0)],
            repetition_penalty: 2.0,
            ..SamplingParams::default()
        };
        check(params, &[3, 0], &[], [1.5, -1.0, 0.5, MASKED, 1.0]);
    }
}
