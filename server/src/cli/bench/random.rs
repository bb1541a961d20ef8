//! Seeded randomness that stays the same in every version: SplitMix64 (Steele, Lea, Flood 2014).

/// A stream of numbers that its seed determines.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is not zero; its bias is below `bound / 2^64`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// Exponentially distributed with mean 1.
    pub(super) fn exponential(&mut self) -> f64 {
        // 53 bits: uniform in (0, 1], whose logarithm is finite.
        let uniform = ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64;
        -uniform.ln()
    }
}

/// Seconds at which `count` requests arrive at `rate` per second, as a Poisson process.
pub(super) fn arrivals(count: usize, rate: f64, seed: u64) -> Vec<f64> {
    let mut random = Random::new(seed);
    let mut now = 0.0;
    let next = |_| {
        let at = now;
        now += random.exponential() / rate;
        at
    };
    (0..count).map(next).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_that_of_the_paper() {
        let mut random = Random::new(1234567);
        let first = [6457827717110365317, 3203168211198807973, 9817491932198370423];
        assert_eq!([random.next(), random.next(), random.next()], first);
    }

    #[test]
    fn arrivals_are_the_same_for_a_seed_and_have_the_rate() {
        let times = arrivals(20_000, 4.0, 7);
        assert_eq!(times, arrivals(20_000, 4.0, 7));
        assert_ne!(times, arrivals(20_000, 4.0, 8));
        assert!(times.is_sorted() && times[0] == 0.0);
        let rate = times.len() as f64 / times[times.len() - 1];
        assert!((rate - 4.0).abs() < 0.1, "{rate}");
    }
}
