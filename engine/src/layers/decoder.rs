//! The pre-norm decoder that most architectures are variations of.
//!
//! ```text
//! r = embed(tokens)
//! each layer:  r += attention(rms_norm(r));  r += gated_mlp(rms_norm(r))
//! logits = head(rms_norm(r))
//! ```
//! A model file says how the attention of each layer is configured; everything else is here.

use tokenmill_kernels::rope::RopeTable;

use std::sync::Arc;

use crate::config::ModelConfig;
use crate::layers::{
    Attention, AttentionConfig, Embedding, GatedMlp, Head, RmsNorm, WeightLoader, rope_table,
};
use crate::load::LoadError;
use crate::models::{CacheLayer, ModelGraph};
use crate::ops::{Act, AttentionSpec, Ids, OpError, Ops};

/// A stack of identical layers over a token embedding.
#[derive(Debug)]
pub struct PreNormDecoder {
    embedding: Embedding,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    head: Head,
    cache: Vec<CacheLayer>,
}

#[derive(Debug)]
struct DecoderLayer {
    input_norm: RmsNorm,
    attention: Attention,
    post_norm: RmsNorm,
    mlp: GatedMlp,
}

/// Differences between pre-norm decoders.
#[derive(Clone, Copy)]
pub struct Variation<'a> {
    /// Biases on q, k and v.
    pub qkv_bias: bool,
    /// Bias on the attention's output projection.
    pub output_bias: bool,
    /// Biases in the MLP.
    pub mlp_bias: bool,
    /// Norms of single query and key heads.
    pub head_norm: bool,
    /// Sliding window of a layer.
    pub window: &'a dyn Fn(usize) -> Option<u32>,
}

impl PreNormDecoder {
    /// Reads the names of the `model.layers.N` convention; `positions` is the model length.
    ///
    /// # Errors
    /// When a tensor is absent or has another shape.
    pub fn load(
        config: &ModelConfig,
        positions: u32,
        loader: &mut WeightLoader<'_>,
        variation: Variation<'_>,
    ) -> Result<Self, LoadError> {
        let embedding =
            Embedding::load(loader, "model.embed_tokens", config.vocab_size, config.hidden_size)?;
        let rope = rope_table(config, positions);
        let layers = (0..config.num_layers)
            .map(|index| DecoderLayer::load(config, index, loader, variation, &rope))
            .collect::<Result<Vec<_>, LoadError>>()?;
        let norm = RmsNorm::load(loader, "model.norm", config.hidden_size, config.norm_eps)?;
        let head = Head::load(loader, "lm_head", config.tie_word_embeddings, &embedding)?;
        loader.ignore(&["rotary_emb.inv_freq"]);
        let cache = (0..config.num_layers)
            .map(|index| CacheLayer {
                kv_heads: config.num_kv_heads,
                head_dim: config.head_dim,
                window: (variation.window)(index),
            })
            .collect();
        Ok(Self { embedding, layers, norm, head, cache })
    }
}

impl ModelGraph for PreNormDecoder {
    fn cache_layers(&self) -> &[CacheLayer] {
        &self.cache
    }

    fn forward(&self, ops: &mut dyn Ops) -> Result<Act, OpError> {
        let residual = self.embedding.forward(ops, Ids::Tokens)?;
        let mut pending = None;
        for layer in &self.layers {
            pending = Some(layer.forward(ops, pending, residual)?);
        }
        if let Some(x) = pending {
            ops.add(residual, x)?;
            ops.free(x);
        }
        Ok(residual)
    }

    fn logits(&self, ops: &mut dyn Ops, rows: Act) -> Result<Act, OpError> {
        let normed = ops.alloc(rows.rows, rows.width);
        ops.rms_norm(&self.norm, rows, normed)?;
        let logits = self.head.forward(ops, normed)?;
        ops.free(normed);
        Ok(logits)
    }
}

impl DecoderLayer {
    fn load(
        config: &ModelConfig,
        index: usize,
        loader: &mut WeightLoader<'_>,
        variation: Variation<'_>,
        rope: &Arc<RopeTable>,
    ) -> Result<Self, LoadError> {
        let name = format!("model.layers.{index}");
        let (hidden, eps) = (config.hidden_size, config.norm_eps);
        let spec = AttentionSpec {
            layer: index,
            heads: config.num_heads,
            kv_heads: config.num_kv_heads,
            head_dim: config.head_dim,
            scale: 1.0 / (config.head_dim as f32).sqrt(),
            window: (variation.window)(index),
            softcap: None,
        };
        let attention = AttentionConfig {
            spec,
            hidden,
            qkv_bias: variation.qkv_bias,
            output_bias: variation.output_bias,
            head_norm: variation.head_norm.then_some(eps),
        };
        Ok(Self {
            input_norm: RmsNorm::load(loader, &format!("{name}.input_layernorm"), hidden, eps)?,
            attention: Attention::load(loader, &format!("{name}.self_attn"), attention, rope)?,
            post_norm: RmsNorm::load(
                loader,
                &format!("{name}.post_attention_layernorm"),
                hidden,
                eps,
            )?,
            mlp: GatedMlp::load(
                loader,
                &format!("{name}.mlp"),
                [hidden, config.intermediate_size],
                &config.hidden_act,
                variation.mlp_bias,
            )?,
        })
    }

    /// `pending` is the output of the layer before, not yet added to the residual.
    fn forward(
        &self,
        ops: &mut dyn Ops,
        pending: Option<Act>,
        residual: Act,
    ) -> Result<Act, OpError> {
        let x = match pending {
            Some(x) => {
                let normed = ops.alloc(residual.rows, residual.width);
                ops.add_rms_norm(&self.input_norm, x, residual, normed)?;
                ops.free(x);
                normed
            }
            None => {
                let normed = ops.alloc(residual.rows, residual.width);
                ops.rms_norm(&self.input_norm, residual, normed)?;
                normed
            }
        };
        let attended = self.attention.forward(ops, x)?;
        ops.add_rms_norm(&self.post_norm, attended, residual, x)?;
        ops.free(attended);
        let out = self.mlp.forward(ops, x)?;
        ops.free(x);
        Ok(out)
    }
}
