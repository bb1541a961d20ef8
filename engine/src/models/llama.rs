//! Llama (arXiv:2302.13971, 2407.21783): pre-norm decoder, rotary positions, gated MLP, grouped queries.
//!
//! Reads of `config.json` beyond the shared fields: `attention_bias`, `mlp_bias`.

use crate::config::ModelConfig;
use crate::layers::{PreNormDecoder, Variation, WeightLoader};
use crate::load::LoadError;
use crate::models::ModelGraph;

/// Reads a `LlamaForCausalLM` checkpoint.
pub(super) fn load(
    config: &ModelConfig,
    positions: u32,
    loader: &mut WeightLoader<'_>,
) -> Result<Box<dyn ModelGraph>, LoadError> {
    let attention_bias = config.flag("attention_bias")?.unwrap_or(false);
    let variation = Variation {
        qkv_bias: attention_bias,
        output_bias: attention_bias,
        mlp_bias: config.flag("mlp_bias")?.unwrap_or(false),
        head_norm: false,
        window: &|_| None,
    };
    Ok(Box::new(PreNormDecoder::load(config, positions, loader, variation)?))
}
