//! Value generators and comparisons for kernel tests and benches: seeded, so that a failure
//! repeats.

/// `len` reproducible values in `[-1, 1)`, the same for the same seed on every machine.
pub fn values(seed: u64, len: usize) -> Vec<f32> {
    bits(seed, len).into_iter().map(|b| (b >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
}

/// `len` reproducible bytes.
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    bits(seed, len).into_iter().map(|b| (b >> 56) as u8).collect()
}

/// `len` reproducible 64-bit words (SplitMix64).
pub fn bits(seed: u64, len: usize) -> Vec<u64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xd1b5_4a32_d192_ed03;
    (0..len)
        .map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        })
        .collect()
}

/// Asserts `|got - want| <= tolerance * max(1, |want|)` for each element, and NaN exactly where NaN
/// is wanted.
///
/// # Panics
/// On the first element that differs, naming `label`, the index and both values; and when the
/// lengths differ.
#[track_caller]
pub fn assert_close(label: &str, got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len(), "{label}: lengths differ");
    for (index, (&g, &w)) in got.iter().zip(want).enumerate() {
        let close = g == w
            || (g.is_nan() && w.is_nan())
            || (g - w).abs() <= tolerance * w.abs().max(1.0) && g.is_finite();
        assert!(close, "{label}: element {index} is {g}, want {w} (tolerance {tolerance})");
    }
}

/// Asserts that two slices are equal bit for bit (NaN payloads excepted).
///
/// # Panics
/// On the first element that differs, naming `label`, the index and both values; and when the
/// lengths differ.
#[track_caller]
pub fn assert_same(label: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{label}: lengths differ");
    for (index, (&g, &w)) in got.iter().zip(want).enumerate() {
        let same = g.to_bits() == w.to_bits() || (g.is_nan() && w.is_nan());
        assert!(same, "{label}: element {index} is {g:e}, want exactly {w:e}");
    }
}
