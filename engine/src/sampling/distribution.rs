//! The distribution of a row and how it is cut: softmax weights, top-k, top-p, min-p, and a draw.
//!
//! Nothing here sorts the vocabulary. Which tokens stay is expressed as a [`Cut`], the least likely
//! token kept in the order "larger logit first, then lower id"; top-k finds it with a bounded buffer,
//! top-p with a histogram and a sort of one bin. Sums are taken in a fixed order.

use std::cmp::Ordering;

use tokenmill_scheduler::TokenId;

/// Tokens whose weights are added before looking for the drawn one.
const BLOCK: usize = 256;
/// Histogram of top-p: bins per unit of (scaled) logit below the maximum, and their number. Beyond
/// the last bin a token weighs less than `exp(-32)` of the most likely one.
const BINS_PER_UNIT: f32 = 64.0;
const BINS: usize = 2048;

/// The largest logit of a row, or `None` when the row cannot be sampled: not-a-number or `+inf`
/// among the logits, nothing but `-inf`, or no logits.
pub fn maximum(row: &[f32]) -> Option<f32> {
    const LANES: usize = 8;
    let (mut max, mut nan) = ([f32::NEG_INFINITY; LANES], [false; LANES]);
    let chunks = row.chunks_exact(LANES);
    let tail = chunks.remainder();
    for chunk in chunks {
        for lane in 0..LANES {
            let value = chunk[lane];
            max[lane] = if value > max[lane] { value } else { max[lane] };
            nan[lane] |= value.is_nan();
        }
    }
    for (lane, &value) in tail.iter().enumerate() {
        max[lane] = if value > max[lane] { value } else { max[lane] };
        nan[lane] |= value.is_nan();
    }
    let largest = max.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    (!nan.contains(&true) && largest.is_finite()).then_some(largest)
}

/// The lowest id whose logit equals `value`, which is in the row.
pub fn first_equal(row: &[f32], value: f32) -> TokenId {
    row.iter().position(|&logit| logit == value).expect("the value was taken from the row")
        as TokenId
}

/// `exp(x)` for `x <= 0`, within 2e-7 of the value; 0 below -87. Straight-line, so that loops over
/// rows vectorise; the polynomial and the split of ln 2 are those of Cephes' `expf`.
#[inline(always)]
pub fn exp_nonpositive(x: f32) -> f32 {
    const SMALLEST: f32 = -87.0;
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer in the low bits.
    let clamped = if x > SMALLEST { x } else { SMALLEST };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits());
    let n = shifted - ROUND;
    let r = clamped - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let value = (p * r * r + r + 1.0) * f32::from_bits(exponent.wrapping_add(127) << 23);
    if x > SMALLEST { value } else { 0.0 }
}

/// Sum in a fixed order: eight interleaved partial sums, then those.
fn block_sum(values: &[f32]) -> f64 {
    let mut lanes = [0f32; 8];
    for chunk in values.chunks(8) {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane += value;
        }
    }
    lanes.iter().map(|&lane| f64::from(lane)).sum()
}

/// `ln(sum(exp(row)))` of a row whose [`maximum`] is `max`.
pub fn log_sum_exp(row: &[f32], max: f32) -> f64 {
    let mut block = [0f32; BLOCK];
    let mut sum = 0f64;
    for chunk in row.chunks(BLOCK) {
        for (weight, &logit) in block.iter_mut().zip(chunk) {
            *weight = exp_nonpositive(logit - max);
        }
        sum += block_sum(&block[..chunk.len()]);
    }
    f64::from(max) + sum.ln()
}

/// More likely first: larger logit, then lower id. Rows hold no not-a-number here.
pub fn by_rank(a: &(f32, TokenId), b: &(f32, TokenId)) -> Ordering {
    // Not `total_cmp`: both zeros are one logit, as they are for `Cut`.
    b.0.partial_cmp(&a.0).unwrap_or(Ordering::Equal).then(a.1.cmp(&b.1))
}

/// Fills `best` with the `k` most likely tokens of those inside `cut`, in no particular order, and
/// fewer if there are fewer. O(vocabulary) with a buffer of `2 k`.
pub fn select_top(row: &[f32], k: usize, cut: Cut, best: &mut Vec<(f32, TokenId)>) {
    best.clear();
    if k == 0 {
        return;
    }
    let room = k.saturating_mul(2).max(64);
    // Ids ascend, so a later token equal to the k-th so far ranks behind it.
    let mut threshold = None;
    for (id, &logit) in row.iter().enumerate() {
        if threshold.is_some_and(|threshold| logit <= threshold) || !cut.keeps(logit, id as TokenId)
        {
            continue;
        }
        best.push((logit, id as TokenId));
        if best.len() == room {
            best.select_nth_unstable_by(k - 1, by_rank);
            best.truncate(k);
            threshold = Some(best[k - 1].0);
        }
    }
    if best.len() > k {
        best.select_nth_unstable_by(k - 1, by_rank);
        best.truncate(k);
    }
}

/// The least likely token that may be drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cut {
    /// Logits above it stay.
    pub logit: f32,
    /// Of those equal to it, ids up to this one stay.
    pub id: TokenId,
}

impl Cut {
    /// Keeps every token.
    pub const NONE: Cut = Cut { logit: f32::NEG_INFINITY, id: TokenId::MAX };

    /// Whether a token stays.
    #[inline(always)]
    pub fn keeps(self, logit: f32, id: TokenId) -> bool {
        (logit > self.logit) | ((logit == self.logit) & (id <= self.id))
    }
}

/// How a distribution is narrowed before the draw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Narrowing {
    /// Logits are divided by it; positive.
    pub temperature: f32,
    /// Drop tokens below this times the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Keep so many; 0 keeps all.
    pub top_k: u32,
    /// Keep the smallest set of at least this probability; 1 keeps all.
    pub top_p: f32,
}

/// Buffers of one draw, grown to the vocabulary once.
#[derive(Debug, Default)]
pub struct DistributionScratch {
    weights: Vec<f32>,
    sums: Vec<f64>,
    masses: Vec<f64>,
    candidates: Vec<(f32, TokenId)>,
}

/// Draws a token from `row`, whose [`maximum`] is `max`, with the uniform number `random`.
pub fn draw(
    row: &[f32],
    max: f32,
    narrowing: Narrowing,
    random: f64,
    scratch: &mut DistributionScratch,
) -> TokenId {
    let scale = 1.0 / narrowing.temperature;
    let mut cut = Cut::NONE;
    if narrowing.min_p > 0.0 {
        cut.logit = (max + narrowing.temperature * narrowing.min_p.ln()).min(max);
    }
    let top_p = f64::from(narrowing.top_p);
    let k = narrowing.top_k as usize;
    if k > 0 && k < row.len() {
        select_top(row, k, cut, &mut scratch.candidates);
        return draw_candidates(max, scale, top_p, random, scratch);
    }
    let mut total = weigh(row, max, scale, cut, scratch);
    if top_p < 1.0 {
        cut = top_p_cut(row, max, scale, (top_p, total), cut, scratch);
        total = keep_weights(row, cut, scratch);
    }
    find(&scratch.weights, &scratch.sums, random * total)
}

/// Draws from the candidates alone, most likely first.
fn draw_candidates(
    max: f32,
    scale: f32,
    top_p: f64,
    random: f64,
    scratch: &mut DistributionScratch,
) -> TokenId {
    let DistributionScratch { weights, candidates, .. } = scratch;
    candidates.sort_unstable_by(by_rank);
    weights.clear();
    weights.extend(candidates.iter().map(|&(logit, _)| exp_nonpositive((logit - max) * scale)));
    let mut total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
    if top_p < 1.0 {
        let (target, mut mass) = (top_p * total, 0.0);
        let needed = weights.iter().position(|&weight| {
            mass += f64::from(weight);
            mass >= target
        });
        if let Some(last) = needed {
            weights.truncate(last + 1);
            total = mass;
        }
    }
    candidates[find_in_block(weights, 0.0, random * total) as usize].1
}

/// Unnormalised probabilities of the tokens inside `cut`, zero for others; returns their sum.
fn weigh(row: &[f32], max: f32, scale: f32, cut: Cut, scratch: &mut DistributionScratch) -> f64 {
    scratch.weights.clear();
    scratch.weights.extend(row.iter().enumerate().map(|(id, &logit)| {
        let weight = exp_nonpositive((logit - max) * scale);
        if cut.keeps(logit, id as TokenId) { weight } else { 0.0 }
    }));
    sum_blocks(scratch)
}

fn keep_weights(row: &[f32], cut: Cut, scratch: &mut DistributionScratch) -> f64 {
    for (id, (weight, &logit)) in scratch.weights.iter_mut().zip(row).enumerate() {
        *weight = if cut.keeps(logit, id as TokenId) { *weight } else { 0.0 };
    }
    sum_blocks(scratch)
}

fn sum_blocks(scratch: &mut DistributionScratch) -> f64 {
    scratch.sums.clear();
    scratch.sums.extend(scratch.weights.chunks(BLOCK).map(block_sum));
    scratch.sums.iter().sum()
}

fn bin(logit: f32, max: f32, scale: f32) -> usize {
    (((max - logit) * scale * BINS_PER_UNIT) as usize).min(BINS - 1)
}

/// The cut that leaves the smallest set of at least `top_p` of the `total` weight.
fn top_p_cut(
    row: &[f32],
    max: f32,
    scale: f32,
    (top_p, total): (f64, f64),
    cut: Cut,
    scratch: &mut DistributionScratch,
) -> Cut {
    let DistributionScratch { weights, masses, candidates, .. } = scratch;
    // Tokens lighter than this weigh less than `1 - top_p` together: the set is full without them.
    let negligible = ((1.0 - top_p) * total / row.len() as f64) as f32;
    keep_heavy(row, weights, negligible.max(f32::MIN_POSITIVE), candidates);
    masses.clear();
    masses.resize(BINS, 0.0);
    for &(logit, id) in candidates.iter() {
        masses[bin(logit, max, scale)] += f64::from(weights[id as usize]);
    }
    let (target, mut mass) = (top_p * total, 0.0);
    let Some(boundary) = masses.iter().position(|&bin| {
        let reached = mass + bin >= target;
        mass += if reached { 0.0 } else { bin };
        reached
    }) else {
        return cut; // Rounding: every token is needed.
    };
    candidates.retain(|&(logit, _)| bin(logit, max, scale) == boundary);
    candidates.sort_unstable_by(by_rank);
    for &(logit, id) in candidates.iter() {
        mass += f64::from(weights[id as usize]);
        if mass >= target {
            return Cut { logit, id };
        }
    }
    candidates.last().map_or(cut, |&(logit, id)| Cut { logit, id })
}

/// Fills `kept` with the tokens that weigh at least `lightest`. Without a branch per token, which
/// could not be predicted: drawing with top-p 0.95 from 49,152 bell-shaped logits takes 150 us,
/// and 750 us with the branch.
fn keep_heavy(row: &[f32], weights: &[f32], lightest: f32, kept: &mut Vec<(f32, TokenId)>) {
    kept.resize(row.len() + 1, (0.0, 0));
    let mut len = 0;
    for (id, (&logit, &weight)) in row.iter().zip(weights).enumerate() {
        kept[len] = (logit, id as TokenId);
        len += usize::from(weight >= lightest);
    }
    kept.truncate(len);
}

/// The token at which the running sum of weights, in id order, first exceeds `target`.
fn find(weights: &[f32], sums: &[f64], target: f64) -> TokenId {
    let mut before = 0.0;
    for (block, &sum) in weights.chunks(BLOCK).enumerate().zip(sums) {
        if before + sum > target {
            return find_in_block(block.1, before, target) + (block.0 * BLOCK) as TokenId;
        }
        before += sum;
    }
    // Rounding put the target at the total: the last token that has a weight.
    weights.iter().rposition(|&weight| weight > 0.0).expect("the maximum weighs 1") as TokenId
}

/// The same within a block that has some weight; its last weighted token if rounding hides the crossing.
fn find_in_block(weights: &[f32], mut before: f64, target: f64) -> TokenId {
    let mut found = 0;
    for (index, &weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        found = index as TokenId;
        before += f64::from(weight);
        if before > target {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::random;

    const OPEN: Narrowing = Narrowing { temperature: 1.0, min_p: 0.0, top_k: 0, top_p: 1.0 };

    fn row(seed: u64, len: usize, spread: f32) -> Vec<f32> {
        (0..len as u64).map(|i| (random::uniform(seed, i) as f32 - 0.5) * spread).collect()
    }

    /// The definition: sort everything, apply the three cuts one after the other, renormalising.
    fn kept_by_sorting(row: &[f32], narrowing: Narrowing) -> Vec<TokenId> {
        let mut order: Vec<_> = row.iter().enumerate().map(|(i, &l)| (l, i as TokenId)).collect();
        order.sort_by(by_rank);
        let max = order[0].0;
        let weight = |logit: f32| f64::from((logit - max) / narrowing.temperature).exp();
        order.retain(|&(logit, _)| weight(logit) >= f64::from(narrowing.min_p));
        if narrowing.top_k > 0 {
            order.truncate(narrowing.top_k as usize);
        }
        let total: f64 = order.iter().map(|&(logit, _)| weight(logit)).sum();
        let mut mass = 0.0;
        let needed = order.iter().position(|&(logit, _)| {
            mass += weight(logit);
            mass >= f64::from(narrowing.top_p) * total
        });
        order.truncate(needed.map_or(order.len(), |last| last + 1));
        let mut kept: Vec<_> = order.into_iter().map(|(_, id)| id).collect();
        kept.sort_unstable();
        kept
    }

    #[test]
    fn exp_is_close_and_vanishes_far_below() {
        for i in 0..8700 {
            let x = -(i as f32) / 100.0;
            let (got, want) = (f64::from(exp_nonpositive(x)), f64::from(x).exp());
            // Two units in the last place.
            assert!((got - want).abs() <= 2.4e-7 * want, "exp({x}) = {got}, want {want}");
        }
        assert_eq!(exp_nonpositive(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp_nonpositive(0.0), 1.0);
    }

    #[test]
    fn rows_that_are_not_numbers_have_no_maximum() {
        for len in [1, 7, 8, 9, 100] {
            let mut values = row(1, len, 3.0);
            assert_eq!(maximum(&values), values.iter().copied().reduce(f32::max));
            for bad in [f32::NAN, f32::INFINITY] {
                let last = values[len - 1];
                values[len - 1] = bad;
                assert_eq!(maximum(&values), None, "{bad} in {len}");
                values[len - 1] = last;
            }
        }
        assert_eq!(maximum(&[f32::NEG_INFINITY; 9]), None);
        assert_eq!(maximum(&[]), None);
    }

    #[test]
    fn draws_stay_inside_the_sorted_definition_and_reach_all_of_it() {
        let mut scratch = DistributionScratch::default();
        let cases = [
            Narrowing { top_k: 5, ..OPEN },
            Narrowing { top_p: 0.7, ..OPEN },
            Narrowing { min_p: 0.2, ..OPEN },
            Narrowing { top_k: 9, top_p: 0.6, min_p: 0.05, temperature: 0.7 },
            Narrowing { top_k: 1, ..OPEN },
            Narrowing { top_p: 1e-6, ..OPEN },
            Narrowing { min_p: 1.0, ..OPEN },
            Narrowing { top_k: 50, top_p: 0.95, temperature: 1.7, ..OPEN },
        ];
        for (seed, narrowing) in cases.into_iter().enumerate() {
            let values = row(seed as u64, 60, 6.0);
            let want = kept_by_sorting(&values, narrowing);
            let max = maximum(&values).unwrap();
            let mut got: Vec<_> = (0..20_000)
                .map(|i| draw(&values, max, narrowing, random::uniform(9, i), &mut scratch))
                .collect();
            got.sort_unstable();
            got.dedup();
            assert_eq!(got, want, "{narrowing:?}");
        }
    }

    #[test]
    fn large_rows_agree_with_the_sorted_definition() {
        let mut scratch = DistributionScratch::default();
        for (seed, spread) in [(1, 0.1), (2, 8.0), (3, 40.0)] {
            let values = row(seed, 20_001, spread);
            let max = maximum(&values).unwrap();
            for (top_k, top_p, min_p) in
                [(0, 0.9, 0.0), (100, 1.0, 0.0), (5000, 0.5, 0.0), (0, 0.1, 0.0), (0, 0.95, 0.01)]
            {
                let narrowing = Narrowing { top_k, top_p, min_p, ..OPEN };
                let want = kept_by_sorting(&values, narrowing);
                draw(&values, max, narrowing, 0.5, &mut scratch);
                let got = scratch.weights.iter().filter(|&&weight| weight > 0.0).count();
                // The sum of 20,000 rounded terms may move the boundary by a token.
                assert!(got.abs_diff(want.len()) <= 1, "{got} kept, want {}", want.len());
            }
        }
    }

    #[test]
    fn equal_logits_are_cut_by_id() {
        let values = [1.0, 2.0, 2.0, 2.0, 0.0];
        let mut best = Vec::new();
        select_top(&values, 2, Cut::NONE, &mut best);
        best.sort_by(by_rank);
        assert_eq!(best, [(2.0, 1), (2.0, 2)]);
        let many = vec![0.5; 1000];
        select_top(&many, 3, Cut::NONE, &mut best);
        best.sort_by(by_rank);
        assert_eq!(best, [(0.5, 0), (0.5, 1), (0.5, 2)]);
    }

    #[test]
    fn frequencies_follow_the_probabilities() {
        let values: Vec<f32> = [0.5f32, 0.25, 0.125, 0.125].iter().map(|p| p.ln()).collect();
        let mut scratch = DistributionScratch::default();
        let mut counts = [0u32; 4];
        for i in 0..16_000 {
            let token = draw(&values, values[0], OPEN, random::uniform(3, i), &mut scratch);
            counts[token as usize] += 1;
        }
        for (count, want) in counts.into_iter().zip([8000, 4000, 2000, 2000]) {
            // Five standard deviations of the largest, sqrt(16000 * 0.5 * 0.5) = 63.
            assert!(count.abs_diff(want) < 315, "{counts:?}");
        }
    }

    #[test]
    fn the_ends_of_the_interval_draw_tokens_with_weight() {
        let values = [f32::NEG_INFINITY, 0.0, 0.0, f32::NEG_INFINITY];
        let mut scratch = DistributionScratch::default();
        assert_eq!(draw(&values, 0.0, OPEN, 0.0, &mut scratch), 1);
        assert_eq!(draw(&values, 0.0, OPEN, 1.0, &mut scratch), 2);
    }
}
