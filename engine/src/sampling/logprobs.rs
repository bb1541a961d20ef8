//! Log-probabilities of a row, from the raw logits.

use tokenmill_scheduler::TokenId;

use super::distribution::{Cut, by_rank, log_sum_exp, maximum, select_top};
use crate::executor::PositionLogprobs;

/// The log-probability of `token`, its rank, and the `k` most likely tokens (`u32::MAX`: all).
///
/// `best` is a reused buffer. A row that holds no numbers (see [`maximum`]) gives `-inf`, the last
/// rank and no top tokens, so that what is reported stays free of not-a-number.
pub fn position_logprobs(
    row: &[f32],
    token: TokenId,
    k: u32,
    best: &mut Vec<(f32, TokenId)>,
) -> PositionLogprobs {
    let Some(max) = maximum(row) else {
        let rank = row.len() as u32;
        return PositionLogprobs { token, logprob: f32::NEG_INFINITY, rank, top: Vec::new() };
    };
    let norm = log_sum_exp(row, max);
    let logprob = |logit: f32| (f64::from(logit) - norm) as f32;
    let logit = row[token as usize];
    select_top(row, (k as usize).min(row.len()), Cut::NONE, best);
    best.sort_unstable_by(by_rank);
    let top = best.iter().map(|&(logit, id)| (id, logprob(logit))).collect();
    PositionLogprobs { token, logprob: logprob(logit), rank: rank(row, token, logit), top }
}

/// The log-probabilities of prompt token `token` given the row at the position before it.
pub fn prompt_logprobs_row(
    row: &[f32],
    token: TokenId,
    k: u32,
    best: &mut Vec<(f32, TokenId)>,
) -> PositionLogprobs {
    position_logprobs(row, token, k, best)
}

/// 1 for the most likely; ties go to the lower id.
fn rank(row: &[f32], token: TokenId, logit: f32) -> u32 {
    let above: u32 = row.iter().map(|&other| u32::from(other > logit)).sum();
    let equal: u32 = row[..token as usize].iter().map(|&other| u32::from(other == logit)).sum();
    1 + above + equal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_ranks_and_order_are_those_of_the_definition() {
        let row = [0.0f32, 2.0, 1.0, 2.0, f32::NEG_INFINITY];
        let norm = row.iter().map(|&l| f64::from(l).exp()).sum::<f64>().ln();
        let mut best = Vec::new();
        let got = position_logprobs(&row, 3, 3, &mut best);
        assert_eq!((got.token, got.rank), (3, 2));
        assert!((f64::from(got.logprob) - (2.0 - norm)).abs() < 1e-6);
        assert_eq!(got.top.iter().map(|t| t.0).collect::<Vec<_>>(), [1, 3, 2]);
        let all = position_logprobs(&row, 4, u32::MAX, &mut best);
        assert_eq!((all.logprob, all.rank, all.top.len()), (f32::NEG_INFINITY, 5, 5));
        let mass: f64 = all.top.iter().map(|t| f64::from(t.1).exp()).sum();
        assert!((mass - 1.0).abs() < 1e-6);
        assert!(position_logprobs(&row, 0, 0, &mut best).top.is_empty());
    }

    #[test]
    fn rows_without_numbers_report_no_number() {
        let got = position_logprobs(&[0.0, f32::NAN], 0, 2, &mut Vec::new());
        assert_eq!((got.logprob, got.rank), (f32::NEG_INFINITY, 2));
        assert!(got.top.is_empty());
    }
}
