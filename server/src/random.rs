//! Unpredictable numbers for ids and default seeds, from the standard library's hasher keys.
//!
//! Not for secrets: ids need to be unique and seeds different.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

static KEYS: LazyLock<[RandomState; 2]> =
    LazyLock::new(|| [RandomState::new(), RandomState::new()]);
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// The next two numbers.
fn pair() -> [u64; 2] {
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    [KEYS[0].hash_one(count), KEYS[1].hash_one(count)]
}

/// Two numbers that cannot be foreseen outside the process.
pub(crate) fn hash_key() -> [u64; 2] {
    pair()
}

/// A seed.
pub(crate) fn seed() -> u64 {
    pair()[0]
}

/// A hash that cannot be foreseen outside the process; never 0.
pub(crate) fn keyed_hash(text: &str) -> u64 {
    KEYS[0].hash_one(text).max(1)
}

/// 32 hexadecimal digits.
pub(crate) fn id() -> String {
    let [high, low] = pair();
    format!("{high:016x}{low:016x}")
}

/// A random UUID of version 4.
pub(crate) fn uuid() -> String {
    let [high, low] = pair();
    let (high, low) = (high & !0xf000 | 0x4000, low & !(0b11 << 62) | 1 << 63);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

/// The seed of choice `index` of a request: the request's own for the first, unrelated ones after.
pub(crate) fn choice_seed(seed: u64, index: u32) -> u64 {
    if index == 0 {
        return seed;
    }
    // SplitMix64's finaliser: a bijection of the sum, so that choices of one request never collide.
    let mut mixed = seed.wrapping_add(u64::from(index).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_and_choice_seeds_do_not_repeat() {
        let ids: HashSet<String> = (0..1000).map(|_| id()).collect();
        assert_eq!(ids.len(), 1000);
        let seeds: HashSet<u64> = (0..1000).map(|index| choice_seed(7, index)).collect();
        assert_eq!(seeds.len(), 1000);
        assert_eq!(choice_seed(7, 0), 7);
    }
}
