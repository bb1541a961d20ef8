//! Qwen3 (arXiv:2505.09388): Llama with RMS norms on single query and key heads, before the rotation.
//!
//! Reads of `config.json` beyond the shared fields: `attention_bias`, `layer_types`.

use crate::config::ModelConfig;
use crate::layers::{PreNormDecoder, Variation, WeightLoader};
use crate::load::LoadError;
use crate::models::ModelGraph;

/// Reads a `Qwen3ForCausalLM` checkpoint.
pub(super) fn load(
    config: &ModelConfig,
    positions: u32,
    loader: &mut WeightLoader<'_>,
) -> Result<Box<dyn ModelGraph>, LoadError> {
    let attention_bias = config.flag("attention_bias")?.unwrap_or(false);
    let windows = config.layer_windows()?;
    let variation = Variation {
        qkv_bias: attention_bias,
        output_bias: attention_bias,
        mlp_bias: false,
        head_norm: true,
        window: &|layer| windows[layer],
    };
    Ok(Box::new(PreNormDecoder::load(config, positions, loader, variation)?))
}
