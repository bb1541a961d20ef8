//! GPT-2 (Radford et al., 2019): learned positions, layer norms, full multi-head attention.
//!
//! ```text
//! r = wte[tokens] + wpe[positions]
//! each block:  r += attention(layer_norm(r));  r += c_proj(gelu_new(c_fc(layer_norm(r))))
//! logits = wte . layer_norm(r)
//! ```
//! `c_attn`, `c_fc` and `c_proj` are Conv1D weights, stored `[inputs, outputs]` (GGUF's converter
//! transposes them). Checkpoints name tensors with or without the prefix `transformer.`.

use crate::config::ModelConfig;
use crate::layers::{Embedding, Head, LayerNorm, Linear, WeightLoader, activation_named};
use crate::load::LoadError;
use crate::models::{CacheLayer, ModelGraph};
use crate::ops::{Act, AttentionSpec, Ids, OpError, Ops, Rows};
use tokenmill_kernels::activation::Activation;

struct Gpt2 {
    tokens: Embedding,
    positions: Embedding,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Head,
    cache: Vec<CacheLayer>,
}

struct Block {
    spec: AttentionSpec,
    ln_1: LayerNorm,
    c_attn: Linear,
    attn_c_proj: Linear,
    ln_2: LayerNorm,
    c_fc: Linear,
    mlp_c_proj: Linear,
    activation: Activation,
}

/// Reads a `GPT2LMHeadModel` checkpoint.
pub(super) fn load(
    config: &ModelConfig,
    _positions: u32,
    loader: &mut WeightLoader<'_>,
) -> Result<Box<dyn ModelGraph>, LoadError> {
    let prefix = if loader.has("transformer.wte.weight") { "transformer." } else { "" };
    let hidden = config.hidden_size;
    let tokens = Embedding::load(loader, &format!("{prefix}wte"), config.vocab_size, hidden)?;
    let positions =
        Embedding::load(loader, &format!("{prefix}wpe"), config.max_position as usize, hidden)?;
    let blocks = (0..config.num_layers)
        .map(|index| Block::load(config, index, &format!("{prefix}h.{index}"), loader))
        .collect::<Result<Vec<_>, LoadError>>()?;
    let norm = LayerNorm::load(loader, &format!("{prefix}ln_f"), hidden, config.norm_eps)?;
    let head = Head::load(loader, "lm_head", config.tie_word_embeddings, &tokens)?;
    loader.ignore(&["attn.bias", "attn.masked_bias"]);
    let layer = CacheLayer { kv_heads: config.num_heads, head_dim: config.head_dim, window: None };
    let cache = vec![layer; config.num_layers];
    Ok(Box::new(Gpt2 { tokens, positions, blocks, norm, head, cache }))
}

impl ModelGraph for Gpt2 {
    fn cache_layers(&self) -> &[CacheLayer] {
        &self.cache
    }

    fn forward(&self, ops: &mut dyn Ops) -> Result<Act, OpError> {
        let residual = self.tokens.forward(ops, Ids::Tokens)?;
        let positions = self.positions.forward(ops, Ids::Positions)?;
        ops.add(residual, positions)?;
        ops.free(positions);
        for block in &self.blocks {
            block.forward(ops, residual)?;
        }
        Ok(residual)
    }

    fn logits(&self, ops: &mut dyn Ops, rows: Act) -> Result<Act, OpError> {
        let normed = ops.alloc(rows.rows, rows.width);
        ops.layer_norm(&self.norm, rows, normed)?;
        let logits = self.head.forward(ops, normed)?;
        ops.free(normed);
        Ok(logits)
    }
}

impl Block {
    fn load(
        config: &ModelConfig,
        index: usize,
        name: &str,
        loader: &mut WeightLoader<'_>,
    ) -> Result<Self, LoadError> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let spec = AttentionSpec {
            layer: index,
            heads: config.num_heads,
            kv_heads: config.num_heads,
            head_dim: config.head_dim,
            scale: 1.0 / (config.head_dim as f32).sqrt(),
            window: None,
            softcap: None,
        };
        Ok(Self {
            spec,
            ln_1: LayerNorm::load(loader, &format!("{name}.ln_1"), hidden, config.norm_eps)?,
            c_attn: conv1d(loader, &format!("{name}.attn.c_attn"), [hidden, 3 * hidden])?,
            attn_c_proj: conv1d(loader, &format!("{name}.attn.c_proj"), [hidden, hidden])?,
            ln_2: LayerNorm::load(loader, &format!("{name}.ln_2"), hidden, config.norm_eps)?,
            c_fc: conv1d(loader, &format!("{name}.mlp.c_fc"), [hidden, inner])?,
            mlp_c_proj: conv1d(loader, &format!("{name}.mlp.c_proj"), [inner, hidden])?,
            activation: activation_named(&config.hidden_act)?,
        })
    }

    fn forward(&self, ops: &mut dyn Ops, residual: Act) -> Result<(), OpError> {
        let x = ops.alloc(Rows::Tokens, residual.width);
        ops.layer_norm(&self.ln_1, residual, x)?;
        let qkv = ops.alloc(Rows::Tokens, self.spec.packed_width());
        ops.linear(&self.c_attn, x, qkv)?;
        let mixed = ops.alloc(Rows::Tokens, self.spec.query_columns().len());
        ops.attention(&self.spec, qkv, mixed)?;
        ops.free(qkv);
        ops.linear(&self.attn_c_proj, mixed, x)?;
        ops.free(mixed);
        ops.add(residual, x)?;
        ops.layer_norm(&self.ln_2, residual, x)?;
        let inner = ops.alloc(Rows::Tokens, self.c_fc.outputs());
        ops.linear(&self.c_fc, x, inner)?;
        ops.activation(self.activation, inner)?;
        ops.linear(&self.mlp_c_proj, inner, x)?;
        ops.free(inner);
        ops.add(residual, x)?;
        ops.free(x);
        Ok(())
    }
}

/// A Conv1D of `[inputs, outputs]` and its bias.
fn conv1d(
    loader: &mut WeightLoader<'_>,
    name: &str,
    [inputs, outputs]: [usize; 2],
) -> Result<Linear, LoadError> {
    let weight = format!("{name}.weight");
    let weight = match loader.is_gguf() {
        true => loader.weight(&weight, outputs, inputs)?,
        false => loader.transposed_weight(&weight, outputs, inputs)?,
    };
    let bias = loader.vector(&format!("{name}.bias"), outputs)?;
    Ok(Linear { parts: vec![(weight, Some(bias))] })
}
