//! Gemma 2 (arXiv:2408.00118).
//!
//! ```text
//! r = embed(tokens) * sqrt(hidden)
//! each layer:  r += norm(attention(norm(r)));  r += norm(mlp(norm(r)))
//! logits = softcap(head(norm(r)))
//! ```
//! Scores are soft-capped, layers alternate between a sliding window and full attention, norm
//! weights are stored minus one (not in GGUF, whose converter adds it).
//!
//! Reads of `config.json` beyond the shared fields: `query_pre_attn_scalar`,
//! `attn_logit_softcapping`, `final_logit_softcapping`, `layer_types`, `attention_bias`.

use std::sync::Arc;

use tokenmill_kernels::rope::RopeTable;

use crate::config::ModelConfig;
use crate::layers::{
    Attention, AttentionConfig, Embedding, GatedMlp, Head, RmsNorm, WeightLoader, rope_table,
};
use crate::load::LoadError;
use crate::models::{CacheLayer, ModelGraph};
use crate::ops::{Act, AttentionSpec, Ids, OpError, Ops};

struct Gemma2 {
    embedding: Embedding,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    head: Head,
    logit_softcap: Option<f32>,
    cache: Vec<CacheLayer>,
}

struct DecoderLayer {
    input_norm: RmsNorm,
    attention: Attention,
    post_attention_norm: RmsNorm,
    pre_mlp_norm: RmsNorm,
    mlp: GatedMlp,
    post_mlp_norm: RmsNorm,
}

/// Reads a `Gemma2ForCausalLM` checkpoint.
pub(super) fn load(
    config: &ModelConfig,
    positions: u32,
    loader: &mut WeightLoader<'_>,
) -> Result<Box<dyn ModelGraph>, LoadError> {
    let hidden = config.hidden_size;
    let embedding = Embedding::load(loader, "model.embed_tokens", config.vocab_size, hidden)?;
    let rope = rope_table(config, positions);
    let windows = config.layer_windows()?;
    let layers = (0..config.num_layers)
        .map(|index| DecoderLayer::load(config, index, windows[index], loader, &rope))
        .collect::<Result<Vec<_>, LoadError>>()?;
    let norm = norm(config, loader, "model.norm")?;
    let head = Head::load(loader, "lm_head", config.tie_word_embeddings, &embedding)?;
    let cache = windows
        .iter()
        .map(|&window| CacheLayer {
            kv_heads: config.num_kv_heads,
            head_dim: config.head_dim,
            window,
        })
        .collect();
    Ok(Box::new(Gemma2 {
        embedding: embedding.scaled((hidden as f32).sqrt()),
        layers,
        norm,
        head,
        logit_softcap: config.number("final_logit_softcapping")?,
        cache,
    }))
}

/// A norm whose weights are stored minus one, unless the file is GGUF.
fn norm(
    config: &ModelConfig,
    loader: &mut WeightLoader<'_>,
    name: &str,
) -> Result<RmsNorm, LoadError> {
    let offset = if loader.is_gguf() { 0.0 } else { 1.0 };
    let norm = RmsNorm::load(loader, name, config.hidden_size, config.norm_eps)?;
    Ok(RmsNorm { offset, ..norm })
}

impl ModelGraph for Gemma2 {
    fn cache_layers(&self) -> &[CacheLayer] {
        &self.cache
    }

    fn forward(&self, ops: &mut dyn Ops) -> Result<Act, OpError> {
        let residual = self.embedding.forward(ops, Ids::Tokens)?;
        for layer in &self.layers {
            layer.forward(ops, residual)?;
        }
        Ok(residual)
    }

    fn logits(&self, ops: &mut dyn Ops, rows: Act) -> Result<Act, OpError> {
        let normed = ops.alloc(rows.rows, rows.width);
        ops.rms_norm(&self.norm, rows, normed)?;
        let logits = self.head.forward(ops, normed)?;
        ops.free(normed);
        if let Some(cap) = self.logit_softcap {
            ops.softcap(cap, logits)?;
        }
        Ok(logits)
    }
}

impl DecoderLayer {
    fn load(
        config: &ModelConfig,
        index: usize,
        window: Option<u32>,
        loader: &mut WeightLoader<'_>,
        rope: &Arc<RopeTable>,
    ) -> Result<Self, LoadError> {
        let name = format!("model.layers.{index}");
        let bias = config.flag("attention_bias")?.unwrap_or(false);
        let scalar = config.number("query_pre_attn_scalar")?.unwrap_or(config.head_dim as f32);
        let attention = AttentionConfig {
            spec: AttentionSpec {
                layer: index,
                heads: config.num_heads,
                kv_heads: config.num_kv_heads,
                head_dim: config.head_dim,
                scale: 1.0 / scalar.sqrt(),
                window,
                softcap: config.number("attn_logit_softcapping")?,
            },
            hidden: config.hidden_size,
            qkv_bias: bias,
            output_bias: bias,
            head_norm: None,
        };
        Ok(Self {
            input_norm: norm(config, loader, &format!("{name}.input_layernorm"))?,
            attention: Attention::load(loader, &format!("{name}.self_attn"), attention, rope)?,
            post_attention_norm: norm(config, loader, &format!("{name}.post_attention_layernorm"))?,
            pre_mlp_norm: norm(config, loader, &format!("{name}.pre_feedforward_layernorm"))?,
            mlp: GatedMlp::load(
                loader,
                &format!("{name}.mlp"),
                [config.hidden_size, config.intermediate_size],
                &config.hidden_act,
                false,
            )?,
            post_mlp_norm: norm(config, loader, &format!("{name}.post_feedforward_layernorm"))?,
        })
    }

    fn forward(&self, ops: &mut dyn Ops, residual: Act) -> Result<(), OpError> {
        let x = ops.alloc(residual.rows, residual.width);
        ops.rms_norm(&self.input_norm, residual, x)?;
        let attended = self.attention.forward(ops, x)?;
        ops.rms_norm(&self.post_attention_norm, attended, x)?;
        ops.add_rms_norm(&self.pre_mlp_norm, x, residual, attended)?;
        let out = self.mlp.forward(ops, attended)?;
        ops.free(attended);
        ops.rms_norm(&self.post_mlp_norm, out, x)?;
        ops.free(out);
        ops.add(residual, x)?;
        ops.free(x);
        Ok(())
    }
}
