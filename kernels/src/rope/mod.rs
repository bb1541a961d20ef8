//! Rotary position embedding, half-split (NeoX) pairs: value `i` of a head turns together with value
//! `i + rotary_dim / 2`; values past `rotary_dim` stay.
//!
//! The angles are tabulated per position from inverse frequencies, so every kind of frequency scaling (linear, NTK,
//! YaRN, Llama 3) is a different list handed to [`RopeTable::new`]. Source: Su et al., "RoFormer" (2021).

#[cfg(target_arch = "x86_64")]
mod x86;

use crate::isa::{Isa, Variant, select};
use crate::pool::ThreadPool;
use crate::rows::HeadsMut;

/// Cosines and sines of every position.
#[derive(Clone, Debug)]
pub struct RopeTable {
    cos: Vec<f32>,
    sin: Vec<f32>,
    pairs: usize,
}

impl RopeTable {
    /// The table for positions `0..max_pos`. `inv_freq: [rotary_dim / 2]` in radians per position; `attention_factor`
    /// multiplies cosines and sines (1 but for YaRN and LongRoPE).
    ///
    /// The angle is the product in `f32`, as the reference implementations compute it; cosine and sine are taken
    /// in `f64` and rounded once.
    pub fn new(inv_freq: &[f32], attention_factor: f32, max_pos: usize) -> Self {
        let angles = (0..max_pos).flat_map(|position| {
            inv_freq.iter().map(move |&frequency| position as f32 * frequency)
        });
        Self::from_angles(angles, attention_factor, inv_freq.len())
    }

    /// The table of given angles in radians, `[positions, pairs]` row-major: for frequencies that depend on the position.
    pub fn from_angles(
        angles: impl Iterator<Item = f32>,
        attention_factor: f32,
        pairs: usize,
    ) -> Self {
        let (cos, sin) = angles
            .map(|angle| {
                let (sin, cos) = f64::from(angle).sin_cos();
                (cos as f32 * attention_factor, sin as f32 * attention_factor)
            })
            .unzip();
        Self { cos, sin, pairs }
    }

    /// Number of positions.
    pub fn max_pos(&self) -> usize {
        self.cos.len().checked_div(self.pairs).unwrap_or(usize::MAX)
    }

    /// Values of a head that turn.
    pub fn rotary_dim(&self) -> usize {
        2 * self.pairs
    }

    /// Cosines of a position: `[rotary_dim / 2]`.
    ///
    /// # Panics
    /// When the position is not in the table.
    pub fn cos(&self, position: u32) -> &[f32] {
        &self.cos[position as usize * self.pairs..][..self.pairs]
    }

    /// Sines of a position: `[rotary_dim / 2]`.
    ///
    /// # Panics
    /// When the position is not in the table.
    pub fn sin(&self, position: u32) -> &[f32] {
        &self.sin[position as usize * self.pairs..][..self.pairs]
    }

    /// Bytes of the table.
    pub fn bytes(&self) -> usize {
        (self.cos.len() + self.sin.len()) * size_of::<f32>()
    }
}

/// Turns one head; `cos` and `sin` are `[rotary_dim / 2]`.
pub type RotateHead = fn(head: &mut [f32], cos: &[f32], sin: &[f32]);

/// Every variant, reference first; the last one this machine supports is used.
pub static VARIANTS: &[Variant<RotateHead>] = &[
    Variant { name: "reference", isa: Isa::Scalar, run: reference },
    #[cfg(target_arch = "x86_64")]
    Variant { name: "avx2", isa: Isa::Avx2, run: x86::rotate_avx2 },
    #[cfg(target_arch = "x86_64")]
    Variant { name: "avx512", isa: Isa::Avx512, run: x86::rotate_avx512 },
];

/// Turns every head of row `t` of `x` by the angles of `positions[t]`.
///
/// # Panics
/// When there is not one position per row, a position is not in the table, or a head is narrower than `rotary_dim`.
pub fn rope_in_place(pool: &ThreadPool, x: HeadsMut<'_>, positions: &[u32], table: &RopeTable) {
    assert_eq!(x.rows(), positions.len(), "one position for each row");
    assert!(table.rotary_dim() <= x.head_dim(), "a head is at least rotary_dim wide");
    if let Some(&last) = positions.iter().max() {
        assert!((last as usize) < table.max_pos(), "position {last} of {}", table.max_pos());
    }
    let run = select(VARIANTS).run;
    x.for_each(pool, &|row, head| {
        run(head, table.cos(positions[row]), table.sin(positions[row]));
    });
}

/// The definition, in `f64`.
pub fn reference(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let pairs = cos.len();
    for pair in 0..pairs {
        let (a, b) = (f64::from(head[pair]), f64::from(head[pairs + pair]));
        let (cos, sin) = (f64::from(cos[pair]), f64::from(sin[pair]));
        head[pair] = (a * cos - b * sin) as f32;
        head[pairs + pair] = (b * cos + a * sin) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, assert_same, values};

    fn frequencies(rotary_dim: usize) -> Vec<f32> {
        (0..rotary_dim / 2)
            .map(|i| 1.0 / 10_000f32.powf(2.0 * i as f32 / rotary_dim as f32))
            .collect()
    }

    #[test]
    fn every_variant_matches_the_reference() {
        for (head_dim, rotary_dim) in
            [(2, 2), (8, 8), (16, 6), (64, 64), (80, 32), (96, 96), (128, 126), (256, 256)]
        {
            let table = RopeTable::new(&frequencies(rotary_dim), 1.0, 3000);
            let x = values(1, head_dim);
            for position in [0, 1, 2999] {
                let mut want = x.clone();
                reference(&mut want, table.cos(position), table.sin(position));
                assert_same("past rotary_dim", &want[rotary_dim..], &x[rotary_dim..]);
                for variant in VARIANTS.iter().filter(|v| v.isa.is_supported()) {
                    let mut got = x.clone();
                    (variant.run)(&mut got, table.cos(position), table.sin(position));
                    // Two roundings of values below 2.
                    assert_close(&format!("{} {head_dim}", variant.name), &got, &want, 3e-7);
                }
            }
        }
    }

    #[test]
    fn angles_are_f32_products_and_the_factor_multiplies() {
        let table = RopeTable::new(&[1.0, 0.1], 0.5, 100_000);
        let angle = f64::from(99_999.0f32 * 0.1f32);
        assert!((f64::from(table.cos(99_999)[1]) - 0.5 * angle.cos()).abs() < 1e-7);
        assert!((f64::from(table.sin(99_999)[1]) - 0.5 * angle.sin()).abs() < 1e-7);
        assert_eq!(table.cos(0), [0.5, 0.5]);
        assert_eq!((table.max_pos(), table.rotary_dim(), table.bytes()), (100_000, 4, 1_600_000));
    }

    #[test]
    fn rows_turn_by_their_own_position_and_other_columns_stay() {
        let table = RopeTable::new(&frequencies(8), 1.0, 64);
        let (x, positions) = (values(2, 3 * 40), [5, 0, 63]);
        let mut got = x.clone();
        let heads = HeadsMut::new(&mut got, 40, 8..32, 8);
        rope_in_place(&ThreadPool::new(2), heads, &positions, &table);
        let mut want = x;
        for (row, &position) in want.chunks_mut(40).zip(&positions) {
            for head in row[8..32].chunks_mut(8) {
                reference(head, table.cos(position), table.sin(position));
            }
        }
        assert_close("rows", &got, &want, 3e-7);
    }

    #[test]
    #[should_panic(expected = "position 64 of 64")]
    fn a_position_past_the_table_is_refused() {
        let table = RopeTable::new(&frequencies(8), 1.0, 64);
        let mut x = vec![0.0; 8];
        rope_in_place(&ThreadPool::new(1), HeadsMut::new(&mut x, 8, 0..8, 8), &[64], &table);
    }
}
