//! From measured requests to the figures that are reported.

use serde::Serialize;

/// One request as the client saw it; times in seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Sample {
    /// When it was sent, from the start of the run.
    pub(super) start: f64,
    /// From sending to the first text.
    pub(super) ttft: Option<f64>,
    /// Between neighbouring pieces of text.
    pub(super) itl: Vec<f64>,
    /// From sending to the end.
    pub(super) e2e: f64,
    /// As the server counted.
    pub(super) prompt_tokens: u64,
    /// Of them, found in the prefix cache.
    pub(super) cached_tokens: u64,
    /// As the server counted, or the pieces of text when it did not.
    pub(super) completion_tokens: u64,
    /// Why it failed.
    pub(super) error: Option<String>,
}

impl Sample {
    /// Mean time of the tokens after the first.
    pub(super) fn tpot(&self) -> Option<f64> {
        let later = self.completion_tokens.checked_sub(1).filter(|&tokens| tokens > 0)?;
        Some((self.e2e - self.ttft?) / later as f64)
    }
}

/// A distribution in a few numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Distribution {
    pub(super) count: usize,
    pub(super) mean: f64,
    pub(super) min: f64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p95: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

impl Distribution {
    /// Of values in any order; zeros when there are none.
    pub(super) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (values.first(), values.last()) else {
            return Self::default();
        };
        Self {
            count: values.len(),
            mean: values.iter().sum::<f64>() / values.len() as f64,
            min,
            p50: percentile(&values, 50.0),
            p90: percentile(&values, 90.0),
            p95: percentile(&values, 95.0),
            p99: percentile(&values, 99.0),
            max,
        }
    }
}

/// The percentile of sorted values, interpolated between neighbours (numpy's default). Not of nothing.
pub(super) fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let place = (sorted.len() - 1) as f64 * percent / 100.0;
    let below = sorted[place.floor() as usize];
    let above = sorted[place.ceil() as usize];
    below + (above - below) * place.fract()
}

/// The figures of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Summary {
    /// Seconds from the first request to the last answer.
    pub(super) seconds: f64,
    pub(super) completed: usize,
    pub(super) failed: usize,
    pub(super) prompt_tokens: u64,
    pub(super) cached_tokens: u64,
    pub(super) completion_tokens: u64,
    pub(super) requests_per_second: f64,
    pub(super) completion_tokens_per_second: f64,
    pub(super) total_tokens_per_second: f64,
    /// In seconds, as all that follow.
    pub(super) ttft: Distribution,
    pub(super) tpot: Distribution,
    pub(super) itl: Distribution,
    pub(super) e2e: Distribution,
    /// Messages of failed requests and how often each came, the most frequent first.
    pub(super) errors: Vec<(String, usize)>,
}

impl Summary {
    pub(super) fn of(samples: &[Sample], seconds: f64) -> Self {
        let good: Vec<&Sample> = samples.iter().filter(|sample| sample.error.is_none()).collect();
        let sum = |of: fn(&Sample) -> u64| good.iter().map(|sample| of(sample)).sum::<u64>();
        let prompt_tokens = sum(|sample| sample.prompt_tokens);
        let completion_tokens = sum(|sample| sample.completion_tokens);
        let per_second = |count: f64| if seconds > 0.0 { count / seconds } else { 0.0 };
        Self {
            seconds,
            completed: good.len(),
            failed: samples.len() - good.len(),
            prompt_tokens,
            cached_tokens: sum(|sample| sample.cached_tokens),
            completion_tokens,
            requests_per_second: per_second(good.len() as f64),
            completion_tokens_per_second: per_second(completion_tokens as f64),
            total_tokens_per_second: per_second((prompt_tokens + completion_tokens) as f64),
            ttft: Distribution::of(good.iter().filter_map(|sample| sample.ttft).collect()),
            tpot: Distribution::of(good.iter().filter_map(|sample| sample.tpot()).collect()),
            itl: Distribution::of(
                good.iter().flat_map(|sample| sample.itl.iter().copied()).collect(),
            ),
            e2e: Distribution::of(good.iter().map(|sample| sample.e2e).collect()),
            errors: errors(samples),
        }
    }
}

fn errors(samples: &[Sample]) -> Vec<(String, usize)> {
    let mut counts = std::collections::BTreeMap::new();
    for error in samples.iter().filter_map(|sample| sample.error.clone()) {
        *counts.entry(error).or_insert(0) += 1;
    }
    let mut counts: Vec<(String, usize)> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_numpy() {
        // numpy.percentile([1, 2, 4, 8, 16], [0, 50, 90, 95, 99, 100])
        let values = [1.0, 2.0, 4.0, 8.0, 16.0];
        for (percent, want) in
            [(0.0, 1.0), (50.0, 4.0), (90.0, 12.8), (95.0, 14.4), (99.0, 15.68), (100.0, 16.0)]
        {
            let got = percentile(&values, percent);
            assert!((got - want).abs() < 1e-12, "{percent}: {got}");
        }
        assert_eq!(percentile(&[3.0], 99.0), 3.0);
        let all = Distribution::of(vec![16.0, 1.0, 8.0, 2.0, 4.0]);
        assert_eq!((all.count, all.min, all.p50, all.mean, all.max), (5, 1.0, 4.0, 6.2, 16.0));
        assert_eq!(Distribution::of(Vec::new()), Distribution::default());
    }

    #[test]
    fn failed_requests_count_only_as_failed() {
        let good = Sample {
            ttft: Some(1.0),
            itl: vec![0.5, 0.5],
            e2e: 2.0,
            prompt_tokens: 10,
            completion_tokens: 3,
            ..Sample::default()
        };
        let bad = Sample { e2e: 9.0, error: Some("503".to_owned()), ..good.clone() };
        let one = Sample { completion_tokens: 1, itl: Vec::new(), ..good.clone() };
        let summary = Summary::of(&[good.clone(), bad.clone(), one, bad], 2.0);
        assert_eq!((summary.completed, summary.failed), (2, 2));
        assert_eq!((summary.requests_per_second, summary.completion_tokens_per_second), (1.0, 2.0));
        assert_eq!(summary.total_tokens_per_second, 12.0);
        assert_eq!((summary.tpot.count, summary.tpot.p50), (1, 0.5));
        assert_eq!((summary.itl.count, summary.e2e.max), (2, 2.0));
        assert_eq!(summary.errors, [("503".to_owned(), 2)]);
    }
}
