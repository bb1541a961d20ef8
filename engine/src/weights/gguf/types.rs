//! The tensor types of ggml, by number.

use crate::weights::StoredType;

/// A ggml type: values per block, bytes per block.
#[derive(Clone, Copy, Debug)]
pub(super) struct GgmlType {
    pub(super) number: u32,
    pub(super) dtype: StoredType,
    pub(super) block: usize,
    pub(super) block_bytes: usize,
}

const fn row(number: u32, dtype: StoredType, block: usize, block_bytes: usize) -> GgmlType {
    GgmlType { number, dtype, block, block_bytes }
}

/// Sizes as `ggml.c` has them. Numbers that are absent were removed from ggml.
static TYPES: &[GgmlType] = &[
    row(0, StoredType::F32, 1, 4),
    row(1, StoredType::F16, 1, 2),
    row(2, StoredType::Q4_0, 32, 18),
    row(3, StoredType::Q4_1, 32, 20),
    row(6, StoredType::Other("Q5_0"), 32, 22),
    row(7, StoredType::Other("Q5_1"), 32, 24),
    row(8, StoredType::Q8_0, 32, 34),
    row(9, StoredType::Other("Q8_1"), 32, 36),
    row(10, StoredType::Other("Q2_K"), 256, 84),
    row(11, StoredType::Other("Q3_K"), 256, 110),
    row(12, StoredType::Other("Q4_K"), 256, 144),
    row(13, StoredType::Other("Q5_K"), 256, 176),
    row(14, StoredType::Other("Q6_K"), 256, 210),
    row(15, StoredType::Other("Q8_K"), 256, 292),
    row(16, StoredType::Other("IQ2_XXS"), 256, 66),
    row(17, StoredType::Other("IQ2_XS"), 256, 74),
    row(18, StoredType::Other("IQ3_XXS"), 256, 98),
    row(19, StoredType::Other("IQ1_S"), 256, 50),
    row(20, StoredType::Other("IQ4_NL"), 32, 18),
    row(21, StoredType::Other("IQ3_S"), 256, 110),
    row(22, StoredType::Other("IQ2_S"), 256, 82),
    row(23, StoredType::Other("IQ4_XS"), 256, 136),
    row(24, StoredType::I8, 1, 1),
    row(25, StoredType::I16, 1, 2),
    row(26, StoredType::I32, 1, 4),
    row(27, StoredType::I64, 1, 8),
    row(28, StoredType::F64, 1, 8),
    row(29, StoredType::Other("IQ1_M"), 256, 56),
    row(30, StoredType::Bf16, 1, 2),
    row(34, StoredType::Other("TQ1_0"), 256, 54),
    row(35, StoredType::Other("TQ2_0"), 256, 66),
    row(39, StoredType::Other("MXFP4"), 32, 17),
];

/// Removed from ggml; files with them must be converted again.
static REMOVED: &[(u32, &str)] = &[
    (4, "Q4_2"),
    (5, "Q4_3"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (36, "IQ4_NL_4_4"),
    (37, "IQ4_NL_4_8"),
    (38, "IQ4_NL_8_8"),
];

/// The type with this number; the error says what the number means, if anything.
pub(super) fn find(number: u32) -> Result<GgmlType, String> {
    if let Some(found) = TYPES.iter().find(|row| row.number == number) {
        return Ok(*found);
    }
    let supported = StoredType::computable_names();
    Err(match REMOVED.iter().find(|row| row.0 == number) {
        Some((_, name)) => {
            format!("is {name}, which was removed from the format; supported: {supported}")
        }
        None => format!("has type number {number}, which is unknown; supported: {supported}"),
    })
}
