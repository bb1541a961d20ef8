//! The operations a model file is written in.
//!
//! A model describes one forward pass as calls on [`Ops`] over handles to activations ([`Act`]) in
//! a per-step workspace. The same file is interpreted by [`crate::cpu::CpuOps`] (runs kernels at
//! once) and [`crate::memory_plan::PlanOps`] (runs nothing, adds up bytes, operations and peak
//! workspace). Activations are `[rows, width]`, row-major `f32`, with no batch dimension; which
//! tokens, positions and blocks a step has is the interpreter's business, so a model file never
//! sees them.
//!
//! The trait grows by an operation only when two architectures need it or a fusion is measured.

use std::ops::Range;

use tokenmill_kernels::activation::Activation;
use tokenmill_kernels::rope::RopeTable;

use crate::layers::{LayerNorm, Linear, RmsNorm, Weight};

/// An operation could not run; the step fails.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OpError(pub String);

/// How many rows an activation has in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rows {
    /// One per query token.
    Tokens,
    /// One per position whose logits are wanted.
    Outputs,
}

/// Handle to an activation `[rows, width]` of the current step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Act {
    /// Index of the workspace buffer.
    pub index: usize,
    /// Number of rows.
    pub rows: Rows,
    /// Values per row.
    pub width: usize,
}

/// What a table lookup is indexed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// The query tokens.
    Tokens,
    /// Their positions.
    Positions,
}

/// Attention of one layer: heads are packed in the row as `[q heads | k heads | v heads]`.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionSpec {
    /// Index of the layer; selects the KV cache.
    pub layer: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Multiplied into the scores.
    pub scale: f32,
    /// Sliding window in tokens; `None` sees everything before.
    pub window: Option<u32>,
    /// `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
}

impl AttentionSpec {
    /// Columns of the queries in a packed row.
    pub fn query_columns(&self) -> Range<usize> {
        0..self.heads * self.head_dim
    }

    /// Columns of the keys in a packed row.
    pub fn key_columns(&self) -> Range<usize> {
        let start = self.heads * self.head_dim;
        start..start + self.kv_heads * self.head_dim
    }

    /// Columns of the values in a packed row.
    pub fn value_columns(&self) -> Range<usize> {
        let start = (self.heads + self.kv_heads) * self.head_dim;
        start..start + self.kv_heads * self.head_dim
    }

    /// Width of a packed row.
    pub fn packed_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }
}

/// Interpreter of a forward pass. Object-safe: a virtual call per operation of a step costs nothing.
///
/// # Errors
/// Every operation fails with [`OpError`] when the device does; shapes are checked by assertion,
/// since they come from the model file and not from input.
#[expect(clippy::missing_errors_doc, reason = "said once for the whole trait")]
pub trait Ops {
    /// A buffer of the workspace, contents unspecified.
    fn alloc(&mut self, rows: Rows, width: usize) -> Act;
    /// Gives a buffer back.
    fn free(&mut self, act: Act);
    /// `out[t] = table[ids[t]] * scale`; `table: [entries, width]`.
    fn embed(&mut self, table: &Weight, ids: Ids, scale: f32, out: Act) -> Result<(), OpError>;
    /// `out = x . w^T (+ bias)`; any weight type; the order of summation of an output element does
    /// not depend on the number of rows.
    fn linear(&mut self, linear: &Linear, x: Act, out: Act) -> Result<(), OpError>;
    /// `out = rms_norm(x) * w`.
    fn rms_norm(&mut self, norm: &RmsNorm, x: Act, out: Act) -> Result<(), OpError>;
    /// `residual += x; out = rms_norm(residual) * w`.
    fn add_rms_norm(
        &mut self,
        norm: &RmsNorm,
        x: Act,
        residual: Act,
        out: Act,
    ) -> Result<(), OpError>;
    /// RMS norm in place of every `norm.width()` columns within `columns` (norms of single heads).
    fn head_norm(&mut self, norm: &RmsNorm, x: Act, columns: Range<usize>) -> Result<(), OpError>;
    /// `out = layer_norm(x) * w + b`.
    fn layer_norm(&mut self, norm: &LayerNorm, x: Act, out: Act) -> Result<(), OpError>;
    /// Rotates every head of `head_dim` columns within `columns`, half-split (NeoX) pairs, in place.
    fn rope(
        &mut self,
        table: &RopeTable,
        x: Act,
        columns: Range<usize>,
        head_dim: usize,
    ) -> Result<(), OpError>;
    /// Writes the keys and values of packed `qkv` into the layer's cache, then causal attention of
    /// its queries over the cache; prefill chunks and decodes mixed. `out: [tokens, heads * head_dim]`.
    fn attention(&mut self, spec: &AttentionSpec, qkv: Act, out: Act) -> Result<(), OpError>;
    /// `out = f(x . gate^T) * (x . up^T)`, biases included; the two parts of `gate_up` have one shape.
    fn gated_linear(
        &mut self,
        gate_up: &Linear,
        f: Activation,
        x: Act,
        out: Act,
    ) -> Result<(), OpError>;
    /// `x = f(x)`.
    fn activation(&mut self, f: Activation, x: Act) -> Result<(), OpError>;
    /// `x += y`.
    fn add(&mut self, x: Act, y: Act) -> Result<(), OpError>;
    /// `x = cap * tanh(x / cap)`.
    fn softcap(&mut self, cap: f32, x: Act) -> Result<(), OpError>;
    /// `out[i] = x[output_row[i]]`; `x` per token, `out` per output.
    fn gather_outputs(&mut self, x: Act, out: Act) -> Result<(), OpError>;
}
