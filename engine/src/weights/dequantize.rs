//! Exact `f32` values of stored types. For vectors and tests; matrices are packed as they are.

use half::{bf16, f16};

use super::StoredType;

/// Values of a quantised block.
const BLOCK: usize = 32;

/// Appends the values of `bytes` to `out`. `None` when the type has no exact `f32` values or when
/// `bytes` is not a whole number of values or blocks.
pub fn dequantize(dtype: StoredType, bytes: &[u8], out: &mut Vec<f32>) -> Option<()> {
    match dtype {
        StoredType::F32 => each(bytes, |value: &[u8; 4]| out.push(f32::from_le_bytes(*value))),
        StoredType::F16 => each(bytes, |value| out.push(f16::from_le_bytes(*value).to_f32())),
        StoredType::Bf16 => each(bytes, |value| out.push(bf16::from_le_bytes(*value).to_f32())),
        StoredType::Q8_0 => each(bytes, |block: &[u8; 2 + BLOCK]| {
            let scale = half_at(block, 0);
            out.extend(block[2..].iter().map(|&byte| scale * f32::from(byte as i8)));
        }),
        StoredType::Q4_0 => each(bytes, |block: &[u8; 2 + BLOCK / 2]| {
            let scale = half_at(block, 0);
            out.extend(nibbles(&block[2..]).map(|nibble| scale * (f32::from(nibble) - 8.0)));
        }),
        StoredType::Q4_1 => each(bytes, |block: &[u8; 4 + BLOCK / 2]| {
            let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
            out.extend(nibbles(&block[4..]).map(|nibble| scale * f32::from(nibble) + minimum));
        }),
        _ => None,
    }
}

fn each<const N: usize>(bytes: &[u8], block: impl FnMut(&[u8; N])) -> Option<()> {
    let (blocks, rest) = bytes.as_chunks::<N>();
    blocks.iter().for_each(block);
    rest.is_empty().then_some(())
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The low halves of all bytes, then the high ones.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> {
    bytes.iter().map(|byte| byte & 15).chain(bytes.iter().map(|byte| byte >> 4))
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::{GgmlDType, QTensor};
    use candle_core::{Device, Tensor};

    use super::*;

    #[test]
    fn blocks_equal_hand_computed_values() {
        let half = |value: f32| f16::from_f32(value).to_le_bytes();
        let check = |dtype, block: Vec<u8>, at: usize, want: f32| {
            let mut out = Vec::new();
            dequantize(dtype, &block, &mut out).unwrap();
            assert_eq!((out.len(), out[at]), (32, want), "{dtype:?} {at}");
        };
        let q8 = [half(0.5).to_vec(), (0..32_u8).map(|i| i.wrapping_sub(3)).collect()].concat();
        check(StoredType::Q8_0, q8.clone(), 0, -1.5);
        check(StoredType::Q8_0, q8, 31, 14.0);
        let q4 = [half(0.25).to_vec(), vec![0xf0; 16]].concat();
        check(StoredType::Q4_0, q4.clone(), 15, -2.0);
        check(StoredType::Q4_0, q4, 16, 1.75);
        let q41 = [half(0.25).to_vec(), half(-1.0).to_vec(), vec![0x2f; 16]].concat();
        check(StoredType::Q4_1, q41.clone(), 0, 2.75);
        check(StoredType::Q4_1, q41, 31, -0.5);
    }

    #[test]
    fn quantised_values_equal_candles() {
        let cases = [
            (StoredType::Q8_0, GgmlDType::Q8_0),
            (StoredType::Q4_0, GgmlDType::Q4_0),
            (StoredType::Q4_1, GgmlDType::Q4_1),
            (StoredType::F16, GgmlDType::F16),
            (StoredType::Bf16, GgmlDType::BF16),
        ];
        let values: Vec<f32> = (0..256).map(|i| ((i * 37 % 101) as f32 - 50.0) / 17.0).collect();
        let tensor = Tensor::from_vec(values, (4, 64), &Device::Cpu).unwrap();
        for (ours, theirs) in cases {
            let quantised = QTensor::quantize(&tensor, theirs).unwrap();
            let want = quantised.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap();
            let mut got = Vec::new();
            dequantize(ours, &quantised.data().unwrap(), &mut got).unwrap();
            assert_eq!(got, want.to_vec1::<f32>().unwrap(), "{ours:?}");
        }
    }

    #[test]
    fn half_blocks_and_integers_are_refused() {
        assert_eq!(dequantize(StoredType::Q8_0, &[0; 33], &mut Vec::new()), None);
        assert_eq!(dequantize(StoredType::F32, &[0; 3], &mut Vec::new()), None);
        assert_eq!(dequantize(StoredType::I64, &[0; 8], &mut Vec::new()), None);
    }
}
