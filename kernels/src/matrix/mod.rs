//! Packed weight matrices and their products with activations.
//!
//! A weight is packed once, into panels of 32 output columns that every variant and every number
//! of tokens reads (`layout.rs`); nothing is kept twice. Float weights meet f32 activations;
//! block-quantised weights meet activations quantised to 16 bits, a scale per 32 elements (`input.rs`).
//!
//! Every output element is summed in one fixed order along K, whatever the number of tokens, the
//! register tile or the split over threads: a token's result never depends on its neighbours.
//! Different variants may differ in the last bits (fused or separate multiply and add).
//!
//! A NaN or infinite activation makes the outputs of its token NaN (or infinite, for float
//! weights), never plausible numbers. `vdpbf16ps` is deliberately not used: it would round
//! activations to bf16. Processors other than x86-64 run the reference.

mod gated;
mod input;
mod layout;
mod product;
mod reference;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86_avx2;
#[cfg(target_arch = "x86_64")]
mod x86_avx512;

use crate::activation::{self, Activation};
use crate::isa::{Isa, Variant, select};
use crate::pool::ThreadPool;

pub use input::Scratch;
pub use layout::{PackError, PackedMatrix, PackedMatrixBuilder, WeightType};
pub use product::{OutMut, Tile, TileFn};

/// Every variant of the panel product, reference first; the last one this machine supports is used.
pub static VARIANTS: &[Variant<TileFn>] = &[
    Variant { name: "reference", isa: Isa::Scalar, run: reference::tile },
    #[cfg(target_arch = "x86_64")]
    Variant { name: "avx2", isa: Isa::Avx2, run: x86_avx2::tile },
    #[cfg(target_arch = "x86_64")]
    Variant { name: "avx512", isa: Isa::Avx512, run: x86_avx512::tile },
    #[cfg(target_arch = "x86_64")]
    Variant { name: "avx512-vnni", isa: Isa::Avx512Vnni, run: x86_avx512::tile_vnni },
];

impl PackedMatrix {
    /// `out[t, r] = sum over k of x[t, k] * weight[r, k] + bias[r]` for each row `t` of `x`.
    ///
    /// `x` is `[tokens, cols]`, row-major without gaps. Where the result goes and whether it is
    /// added is said by [`OutMut`].
    ///
    /// # Panics
    /// When `x`, `bias` or `out` does not fit the shape.
    pub fn matmul(
        &self,
        pool: &ThreadPool,
        x: &[f32],
        tokens: usize,
        scratch: &mut Scratch,
        bias: Option<&[f32]>,
        out: OutMut<'_>,
    ) {
        product::multiply(select(VARIANTS), pool, &[(self, bias)], (x, tokens), scratch, out);
    }
}

/// The products of several matrices with one input (query, key and value; gate and up) in one
/// fork-join.
///
/// `out` is `[tokens, sum of rows]`: the columns of the first matrix, then those of the second, and
/// so on.
///
/// # Panics
/// When the matrices differ in `cols`, or `x`, a bias or `out` does not fit the shape.
pub fn matmul_many(
    parts: &[(&PackedMatrix, Option<&[f32]>)],
    pool: &ThreadPool,
    x: &[f32],
    tokens: usize,
    scratch: &mut Scratch,
    out: &mut [f32],
) {
    let stride = parts.iter().map(|(matrix, _)| matrix.rows()).sum();
    let out = OutMut::dense(out, stride);
    product::multiply(select(VARIANTS), pool, parts, (x, tokens), scratch, out);
}

/// `out[t] = f(x[t] . gate^T + bias) * (x[t] . up^T + bias)`: both matrices are `[inter, cols]`, `x` is
/// `[tokens, cols]` and `out` `[tokens, inter]`. The same sums as two products and
/// [`act_mul`](activation::VARIANTS) after them.
///
/// # Panics
/// When the matrices differ in shape, or `x`, a bias or `out` does not fit it.
pub fn matmul_gated(
    function: Activation,
    [gate, up]: [(&PackedMatrix, Option<&[f32]>); 2],
    pool: &ThreadPool,
    (x, tokens): (&[f32], usize),
    scratch: &mut Scratch,
    out: &mut [f32],
) {
    let variants = (select(VARIANTS), select(activation::VARIANTS));
    let gate = gated::Gate { function, gate, up };
    gated::multiply(variants, pool, &gate, (x, tokens), scratch, out);
}
