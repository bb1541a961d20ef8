//! The scalar reference of the panel product: the definition that the variants are tested against.

use half::{bf16, f16};

use super::input::QuantX;
use super::layout::{QuantBlock, WIDTH, WeightType, get};
use super::product::{Sums, Tile};

/// Sums of one tile, in order along K.
pub(crate) fn tile(tile: &Tile<'_>, sums: &mut Sums) {
    sums.fill([0.0; WIDTH]);
    if tile.dtype.is_quantised() { quantised(tile, sums) } else { float(tile, sums) }
}

fn float(tile: &Tile<'_>, sums: &mut Sums) {
    let (step, lines) = tile.dtype.step();
    let xs = tile.floats.chunks(step * tile.rows);
    for (lines, xs) in tile.panel.chunks_exact(lines).zip(xs) {
        for (part, xs) in xs.chunks_exact(tile.rows).enumerate() {
            let weights: [f32; WIDTH] = std::array::from_fn(|lane| match tile.dtype {
                WeightType::F32 => f32::from_le_bytes(get(lines, lane)),
                WeightType::F16 => f16::from_le_bytes(get(lines, lane)).to_f32(),
                _ => bf16::from_le_bytes(get(lines, 2 * lane + part)).to_f32(),
            });
            for (x, sums) in xs.iter().zip(&mut *sums) {
                sums.iter_mut().zip(&weights).for_each(|(sum, weight)| *sum += x * weight);
            }
        }
    }
}

fn quantised(tile: &Tile<'_>, sums: &mut Sums) {
    let (_, lines) = tile.dtype.step();
    for (lines, xs) in tile.panel.chunks_exact(lines).zip(tile.quants.chunks_exact(tile.rows)) {
        for lane in 0..WIDTH {
            let block = QuantBlock::read(tile.dtype, lines, lane);
            for (x, sums) in xs.iter().zip(&mut *sums) {
                sums[lane] += dot(&block, x) as f32 * (block.scale * x.scale);
                if tile.dtype == WeightType::Q4_1 {
                    sums[lane] += block.minimum * x.weighted_sum;
                }
            }
        }
    }
}

/// The integer dot product, exact.
fn dot(block: &QuantBlock, x: &QuantX) -> i32 {
    let bytes = |quads: [i32; 8]| quads.into_iter().flat_map(|quad| quad.to_le_bytes());
    let quants = bytes(x.high).zip(bytes(x.low));
    let quants = quants.map(|(high, low)| 256 * i32::from(high as i8) + i32::from(low as i8));
    block.quants.iter().zip(quants).map(|(&q, x)| (i32::from(q) - block.zero) * x).sum()
}
