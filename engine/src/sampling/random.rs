//! Random numbers addressed by (seed, index): no state, so no order of evaluation can change them.
//!
//! Philox 4x32 with ten rounds (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as
//! 1, 2, 3", SC 2011). The key is the seed, the counter is the index; adjacent seeds give unrelated
//! streams, so a request with several choices may use `seed + i`.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Ten rounds of Philox 4x32.
fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let (mut c, mut k) = (counter, key);
    for _ in 0..10 {
        let left = u64::from(MULTIPLIERS[0]) * u64::from(c[0]);
        let right = u64::from(MULTIPLIERS[1]) * u64::from(c[2]);
        c = [
            (right >> 32) as u32 ^ c[1] ^ k[0],
            right as u32,
            (left >> 32) as u32 ^ c[3] ^ k[1],
            left as u32,
        ];
        k = [k[0].wrapping_add(WEYL[0]), k[1].wrapping_add(WEYL[1])];
    }
    c
}

/// The `index`-th 64 random bits of `seed`.
pub fn bits(seed: u64, index: u64) -> u64 {
    let words =
        philox([index as u32, (index >> 32) as u32, 0, 0], [seed as u32, (seed >> 32) as u32]);
    u64::from(words[0]) | u64::from(words[1]) << 32
}

/// The `index`-th uniform number of `seed`, in `[0, 1)`, with 53 random bits.
pub fn uniform(seed: u64, index: u64) -> f64 {
    (bits(seed, index) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers published with the Random123 library (`kat_vectors`, philox4x32 10 rounds).
    #[test]
    fn philox_matches_its_published_answers() {
        let ones = u32::MAX;
        for (counter, key, want) in [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([ones; 4], [ones; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ] {
            assert_eq!(philox(counter, key), want);
        }
    }

    #[test]
    fn uniform_numbers_fill_the_interval_evenly() {
        let mut bins = [0u32; 16];
        for seed in 0..16 {
            for index in 0..1000 {
                let value = uniform(seed, index);
                assert!((0.0..1.0).contains(&value));
                bins[(value * 16.0) as usize] += 1;
            }
        }
        // 1000 expected per bin, standard deviation 31: five of them.
        assert!(bins.iter().all(|&count| (845..1155).contains(&count)), "{bins:?}");
    }

    #[test]
    fn index_and_seed_are_not_interchangeable() {
        assert_ne!(bits(1, 2), bits(2, 1));
        assert_ne!(bits(0, 1 << 32), bits(0, 1));
    }
}
