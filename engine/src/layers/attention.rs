//! Grouped-query attention over the paged KV cache (arXiv:2305.13245).

use std::sync::Arc;

use tokenmill_kernels::rope::RopeTable;

use crate::layers::{Linear, LinearSpec, RmsNorm, WeightLoader};
use crate::load::LoadError;
use crate::ops::{Act, AttentionSpec, OpError, Ops, Rows};

/// What distinguishes the attention of one layer.
#[derive(Clone, Debug)]
pub struct AttentionConfig {
    /// Heads, scale, window, soft cap.
    pub spec: AttentionSpec,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Biases on q, k and v.
    pub qkv_bias: bool,
    /// Bias on the output projection.
    pub output_bias: bool,
    /// Epsilon of the norms of single query and key heads (`q_norm`, `k_norm`), when there are any.
    pub head_norm: Option<f32>,
}

/// Projections and the rotary embedding of one layer.
#[derive(Debug)]
pub struct Attention {
    spec: AttentionSpec,
    qkv: Linear,
    output: Linear,
    norms: Option<(RmsNorm, RmsNorm)>,
    rope: Arc<RopeTable>,
}

impl Attention {
    /// Reads `name.{q,k,v,o}_proj` and, when asked, `name.{q,k}_norm`.
    ///
    /// # Errors
    /// When a tensor is absent or has another shape.
    pub fn load(
        loader: &mut WeightLoader<'_>,
        name: &str,
        config: AttentionConfig,
        rope: &Arc<RopeTable>,
    ) -> Result<Self, LoadError> {
        let AttentionConfig { spec, hidden, qkv_bias: bias, output_bias, head_norm } = config;
        let names = ["q", "k", "v"].map(|part| format!("{name}.{part}_proj"));
        let outputs =
            [spec.query_columns().len(), spec.key_columns().len(), spec.value_columns().len()];
        let parts: [LinearSpec<'_>; 3] =
            std::array::from_fn(|i| LinearSpec { name: &names[i], outputs: outputs[i], bias });
        let qkv = loader.linear(&parts, hidden)?;
        let output = format!("{name}.o_proj");
        let output = LinearSpec { name: &output, outputs: hidden, bias: output_bias };
        let output = loader.linear(&[output], spec.query_columns().len())?;
        let norms = match head_norm {
            Some(eps) => Some((
                RmsNorm::load(loader, &format!("{name}.q_norm"), spec.head_dim, eps)?,
                RmsNorm::load(loader, &format!("{name}.k_norm"), spec.head_dim, eps)?,
            )),
            None => None,
        };
        Ok(Self { spec, qkv, output, norms, rope: Arc::clone(rope) })
    }

    /// `x: [tokens, hidden]` to the same shape; keys and values go to the layer's cache.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward(&self, ops: &mut dyn Ops, x: Act) -> Result<Act, OpError> {
        let spec = &self.spec;
        let qkv = ops.alloc(Rows::Tokens, spec.packed_width());
        ops.linear(&self.qkv, x, qkv)?;
        if let Some((query_norm, key_norm)) = &self.norms {
            ops.head_norm(query_norm, qkv, spec.query_columns())?;
            ops.head_norm(key_norm, qkv, spec.key_columns())?;
        }
        let rotated = spec.query_columns().start..spec.key_columns().end;
        ops.rope(&self.rope, qkv, rotated, spec.head_dim)?;
        let mixed = ops.alloc(Rows::Tokens, spec.query_columns().len());
        ops.attention(spec, qkv, mixed)?;
        ops.free(qkv);
        let out = ops.alloc(Rows::Tokens, self.output.outputs());
        ops.linear(&self.output, mixed, out)?;
        ops.free(mixed);
        Ok(out)
    }
}
