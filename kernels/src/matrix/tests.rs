//! Every variant against the reference, batch invariance, exactness of packing, and refusals.

use half::{bf16, f16};

use super::layout::WIDTH;
use super::product::{OutMut, TileFn, multiply};
use super::*;
use crate::testing::{assert_close, assert_same, bits, values};

/// Stored bytes of a matrix and its exact values.
fn stored(dtype: WeightType, rows: usize, cols: usize) -> (Vec<u8>, Vec<f32>) {
    let weights = values(7, rows * cols);
    let mut bytes = Vec::new();
    let mut exact = Vec::new();
    if !dtype.is_quantised() {
        for &weight in &weights {
            match dtype {
                WeightType::F32 => {
                    bytes.extend(weight.to_le_bytes());
                    exact.push(weight);
                }
                WeightType::F16 => {
                    bytes.extend(f16::from_f32(weight).to_le_bytes());
                    exact.push(f16::from_f32(weight).to_f32());
                }
                _ => {
                    bytes.extend(bf16::from_f32(weight).to_le_bytes());
                    exact.push(bf16::from_f32(weight).to_f32());
                }
            }
        }
        return (bytes, exact);
    }
    let random = bits(11, rows * cols);
    for (block, random) in random.chunks_exact(32).enumerate() {
        let scale = f16::from_f32((weights[block] + 1.5) / 64.0);
        let minimum = f16::from_f32(weights[block + 1] / 8.0);
        bytes.extend(scale.to_le_bytes());
        if dtype == WeightType::Q8_0 {
            for word in random {
                bytes.push(*word as u8);
                exact.push(scale.to_f32() * f32::from(*word as i8));
            }
            continue;
        }
        if dtype == WeightType::Q4_1 {
            bytes.extend(minimum.to_le_bytes());
        }
        let nibbles: Vec<u8> = random.iter().map(|word| *word as u8 & 15).collect();
        bytes.extend((0..16).map(|i| nibbles[i] | nibbles[16 + i] << 4));
        exact.extend(nibbles.iter().map(|&q| match dtype {
            WeightType::Q4_0 => scale.to_f32() * (f32::from(q) - 8.0),
            _ => scale.to_f32() * f32::from(q) + minimum.to_f32(),
        }));
    }
    (bytes, exact)
}

fn product(
    variant: &Variant<TileFn>,
    pool: &ThreadPool,
    matrix: &PackedMatrix,
    x: &[f32],
    tokens: usize,
) -> Vec<f32> {
    let mut out = vec![f32::NAN; tokens * matrix.rows()];
    let to = OutMut::dense(&mut out, matrix.rows());
    multiply(variant, pool, &[(matrix, None)], (x, tokens), &mut Scratch::default(), to);
    out
}

fn supported() -> impl Iterator<Item = &'static Variant<TileFn>> {
    VARIANTS.iter().filter(|variant| variant.isa.is_supported())
}

fn columns(dtype: WeightType) -> &'static [usize] {
    match (dtype.is_quantised(), cfg!(miri)) {
        (true, true) => &[32, 64],
        (true, false) => &[32, 64, 96, 576, 1536],
        (false, true) => &[1, 7],
        (false, false) => &[1, 2, 7, 32, 64, 333, 576, 1536],
    }
}

#[test]
fn every_variant_matches_the_reference() {
    let pool = ThreadPool::new(1);
    for dtype in WeightType::ALL {
        for &cols in columns(dtype) {
            for rows in [1, 15, 16, 17, 31, 32, 33, 100] {
                let matrix =
                    PackedMatrix::pack(dtype, rows, cols, &stored(dtype, rows, cols).0).unwrap();
                for tokens in [1, 3, 13] {
                    let x = values(3, tokens * cols);
                    let want = product(&VARIANTS[0], &pool, &matrix, &x, tokens);
                    // Fused and separate multiply-adds differ by an ulp of the running sum per
                    // step.
                    let tolerance = 1e-6 * (cols as f32).sqrt().max(2.0);
                    for variant in supported() {
                        let got = product(variant, &pool, &matrix, &x, tokens);
                        let label = format!("{} {dtype:?} {rows}x{cols} {tokens}", variant.name);
                        assert_close(&label, &got, &want, tolerance);
                    }
                }
            }
        }
    }
}

#[test]
fn the_reference_matches_the_exact_values_in_f64() {
    let (rows, cols, tokens) = (33, 96, 2);
    // Multiples of 1/32768 up to 32512/32768 in each block, none with a low byte of -128: quantising
    // them to 16 bits loses nothing, and both bytes count.
    let mut x: Vec<f32> = values(5, tokens * cols).iter().map(|v| (v * 32000.0).round()).collect();
    x.iter_mut().filter(|v| (**v as i32 + 128) & 255 == 0).for_each(|v| *v += 1.0);
    x.iter_mut().step_by(32).for_each(|v| *v = 32512.0);
    x.iter_mut().for_each(|v| *v /= 32768.0);
    for dtype in WeightType::ALL {
        let (bytes, exact) = stored(dtype, rows, cols);
        let matrix = PackedMatrix::pack(dtype, rows, cols, &bytes).unwrap();
        let got = product(&VARIANTS[0], &ThreadPool::new(1), &matrix, &x, tokens);
        let want: Vec<f32> = (0..tokens * rows)
            .map(|i| {
                let (x, w) = (&x[i / rows * cols..][..cols], &exact[i % rows * cols..][..cols]);
                x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum::<f64>() as f32
            })
            .collect();
        // 96 terms of up to 5, each rounded to 2^-24 of a partial sum.
        assert_close(&format!("{dtype:?}"), &got, &want, 1e-5);
    }
}

#[test]
fn a_token_never_depends_on_its_neighbours_or_the_threads() {
    let (rows, most) = (100, if cfg!(miri) { 3 } else { 70 });
    let pools = [ThreadPool::new(1), ThreadPool::new(3)];
    for dtype in WeightType::ALL {
        let cols = if cfg!(miri) { 32 } else { 576 + 7 * usize::from(!dtype.is_quantised()) };
        let matrix = PackedMatrix::pack(dtype, rows, cols, &stored(dtype, rows, cols).0).unwrap();
        let x = values(9, most * cols);
        for variant in supported() {
            let alone: Vec<f32> = x
                .chunks_exact(cols)
                .flat_map(|x| product(variant, &pools[0], &matrix, x, 1))
                .collect();
            for tokens in 2..=most {
                let pool = &pools[tokens % 2];
                let got = product(variant, pool, &matrix, &x[..tokens * cols], tokens);
                let label = format!("{} {dtype:?} {tokens} tokens", variant.name);
                assert_same(&label, &got, &alone[..tokens * rows]);
            }
        }
    }
}

#[test]
fn rows_come_back_exactly() {
    for dtype in WeightType::ALL {
        for &cols in columns(dtype) {
            let rows = WIDTH + 5;
            let (bytes, exact) = stored(dtype, rows, cols);
            let matrix = PackedMatrix::pack(dtype, rows, cols, &bytes).unwrap();
            let mut got = vec![f32::NAN; cols];
            for row in 0..rows {
                matrix.dequantize_row(row, &mut got);
                assert_same(&format!("{dtype:?} row {row}"), &got, &exact[row * cols..][..cols]);
            }
        }
    }
}

#[test]
fn bad_activations_give_nan_for_their_token_only() {
    let (rows, cols, tokens) = (40, 64, 15);
    for dtype in WeightType::ALL {
        let matrix = PackedMatrix::pack(dtype, rows, cols, &stored(dtype, rows, cols).0).unwrap();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = values(1, tokens * cols);
            x[13 * cols + 40] = bad;
            for variant in supported() {
                let got = product(variant, &ThreadPool::new(1), &matrix, &x, tokens);
                for (token, sums) in got.chunks_exact(rows).enumerate() {
                    let finite = sums.iter().filter(|sum| sum.is_finite()).count();
                    let want = if token == 13 { 0 } else { rows };
                    assert_eq!(finite, want, "{} {dtype:?} {bad} token {token}", variant.name);
                }
            }
        }
    }
}

#[test]
fn zero_and_tiny_activations_count_as_zero_when_quantised() {
    let matrix = PackedMatrix::pack(WeightType::Q8_0, 3, 32, &stored(WeightType::Q8_0, 3, 32).0);
    let matrix = matrix.unwrap();
    for tiny in [0.0, 1e-38, f32::from_bits(1)] {
        for variant in supported() {
            let got = product(variant, &ThreadPool::new(1), &matrix, &[tiny; 32], 1);
            assert_same(variant.name, &got, &[0.0; 3]);
        }
    }
}

#[test]
fn products_of_one_input_share_rows_and_add_biases() {
    let (cols, tokens, pool) = (64, 17, ThreadPool::new(2));
    let pack = |dtype, rows| PackedMatrix::pack(dtype, rows, cols, &stored(dtype, rows, cols).0);
    let a = pack(WeightType::Q4_1, 40).unwrap();
    let b = pack(WeightType::Bf16, 33).unwrap();
    let (x, bias) = (values(1, tokens * cols), values(2, 33));
    let mut scratch = Scratch::with_capacity(tokens, cols);
    assert_eq!(scratch.bytes(), Scratch::bytes_for(tokens, cols));
    let mut together = vec![f32::NAN; tokens * 73];
    matmul_many(&[(&a, None), (&b, Some(&bias))], &pool, &x, tokens, &mut scratch, &mut together);
    let mut apart = vec![1.0; tokens * 73];
    let out = OutMut { data: &mut apart, stride: 73, offset: 0, accumulate: false };
    a.matmul(&pool, &x, tokens, &mut scratch, None, out);
    let out = OutMut { data: &mut apart, stride: 73, offset: 40, accumulate: false };
    b.matmul(&pool, &x, tokens, &mut scratch, Some(&bias), out);
    assert_same("apart", &apart, &together);
    let out = OutMut::dense(&mut apart, 73).accumulate();
    a.matmul(&pool, &x, tokens, &mut scratch, None, out);
    for (apart, together) in apart.chunks_exact(73).zip(together.chunks_exact(73)) {
        let twice: Vec<f32> = together[..40].iter().map(|value| value + value).collect();
        assert_same("accumulated", &apart[..40], &twice);
        assert_same("untouched", &apart[40..], &together[40..]);
    }
    assert_eq!(scratch.bytes(), Scratch::bytes_for(tokens, cols), "no growth after the start");
}

#[test]
fn a_gated_product_is_two_products_and_the_gate_between() {
    let act_mul = select(crate::activation::VARIANTS).run;
    for dtype in [WeightType::F32, WeightType::Bf16, WeightType::Q4_1] {
        // The last panel is not full, and there are more row blocks than are kept apart.
        for (rows, cols, tokens) in [(70, 64, 1), (70, 64, 13), (40, 32, 230)] {
            let weights = stored(dtype, 2 * rows, cols).0;
            let (gate, up) = weights.split_at(weights.len() / 2);
            let [gate, up] =
                [gate, up].map(|bytes| PackedMatrix::pack(dtype, rows, cols, bytes).unwrap());
            let (x, bias) = (values(3, tokens * cols), values(5, 2 * rows));
            let parts = [(&gate, Some(&bias[..rows])), (&up, Some(&bias[rows..]))];
            let mut both = vec![0.0; tokens * 2 * rows];
            let (one, mut scratch) = (ThreadPool::new(1), Scratch::default());
            matmul_many(&parts, &one, &x, tokens, &mut scratch, &mut both);
            let mut want = vec![f32::NAN; tokens * rows];
            for (both, want) in both.chunks(2 * rows).zip(want.chunks_mut(rows)) {
                act_mul(Activation::Silu, &both[..rows], &both[rows..], want);
            }
            for threads in [1, 3] {
                let (pool, mut out) = (ThreadPool::new(threads), vec![f32::NAN; tokens * rows]);
                let input = (x.as_slice(), tokens);
                matmul_gated(Activation::Silu, parts, &pool, input, &mut scratch, &mut out);
                let label = format!("{dtype:?} {rows}x{cols}, {tokens} tokens, {threads} threads");
                assert_same(&label, &out, &want);
            }
        }
    }
}

#[test]
fn packed_size_is_about_the_stored_size() {
    for (dtype, most) in
        WeightType::ALL.into_iter().zip([4.0, 2.0, 2.0, 34.0 / 32.0, 0.5625, 0.625])
    {
        let matrix = PackedMatrix::pack(dtype, 64, 64, &stored(dtype, 64, 64).0).unwrap();
        assert_eq!(matrix.bytes(), PackedMatrix::packed_bytes(dtype, 64, 64));
        assert_eq!(matrix.bytes() as f64, 64.0 * 64.0 * most, "{dtype:?}");
    }
}

#[test]
fn wrong_shapes_and_lengths_are_refused() {
    let check = |dtype, rows, cols, len: usize, want: &str| {
        let error = PackedMatrix::pack(dtype, rows, cols, &vec![0; len]).unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
    };
    check(WeightType::F32, 0, 4, 0, "F32 matrix of 0 x 4");
    check(WeightType::F32, 4, 0, 0, "F32 matrix of 4 x 0");
    check(WeightType::F32, usize::MAX, usize::MAX, 0, "cannot be held");
    check(WeightType::Q8_0, 2, 33, 68, "33 columns, but Q8_0 stores blocks of 32");
    check(WeightType::F16, 2, 3, 11, "11 bytes, but a F16 row of 3 columns takes 6");
    check(WeightType::F16, 2, 3, 6, "1 rows given, 2 expected");
    check(WeightType::Q4_1, 2, 32, 60, "3 rows given, 2 expected");
    let mut builder = PackedMatrix::builder(WeightType::F32, 3, 1).unwrap();
    builder.push_rows(&[0; 8]).unwrap();
    assert_eq!(builder.push_rows(&[0; 8]), Err(PackError::Rows { rows: 3, got: 4 }));
    builder.push_rows(&1f32.to_le_bytes()).unwrap();
    let mut last = [0.0];
    builder.finish().unwrap().dequantize_row(2, &mut last);
    assert_eq!(last, [1.0]);
}
