//! Histogram with many writers: relaxed atomics, no lock, no allocation after construction.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts of observations at or below fixed bounds.
#[derive(Debug)]
pub struct Histogram {
    bounds: Box<[f64]>,
    counts: Box<[AtomicU64]>,
    /// In units of `1 / scale`.
    sum: AtomicU64,
    scale: f64,
}

impl Histogram {
    /// Of seconds, summed in nanoseconds; `bounds` ascend.
    pub fn seconds(bounds: &[f64]) -> Self {
        Self::new(bounds, 1e9)
    }

    /// Of whole numbers; `bounds` ascend.
    pub fn counts_of(bounds: &[f64]) -> Self {
        Self::new(bounds, 1.0)
    }

    fn new(bounds: &[f64], scale: f64) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds: bounds.into(), counts, sum: AtomicU64::new(0), scale }
    }

    /// Adds one observation; negative ones count as zero.
    pub fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|&bound| bound < value);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum.fetch_add((value * self.scale) as u64, Relaxed);
    }

    /// Upper bounds, inclusive.
    pub fn bounds(&self) -> &[f64] {
        &self.bounds
    }

    /// Observations in each bucket, not cumulative; one more than there are bounds.
    pub fn counts(&self) -> impl Iterator<Item = u64> + '_ {
        self.counts.iter().map(|count| count.load(Relaxed))
    }

    /// Sum of all observations.
    pub fn sum(&self) -> f64 {
        self.sum.load(Relaxed) as f64 / self.scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_include_their_bound() {
        let histogram = Histogram::seconds(&[0.5, 1.0]);
        for value in [0.25, 0.5, 0.75, 1.0, 4.0] {
            histogram.observe(value);
        }
        assert_eq!(histogram.counts().collect::<Vec<_>>(), [2, 2, 1]);
        assert_eq!(histogram.sum(), 6.5);
    }
}
