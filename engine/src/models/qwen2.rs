//! Qwen2 and Qwen2.5 (arXiv:2407.10671): Llama with biases on q, k and v.
//!
//! Reads of `config.json` beyond the shared fields: `layer_types` or `max_window_layers` (layers
//! from there on have the sliding window, if `use_sliding_window`).

use crate::config::ModelConfig;
use crate::layers::{PreNormDecoder, Variation, WeightLoader};
use crate::load::LoadError;
use crate::models::ModelGraph;

/// Reads a `Qwen2ForCausalLM` checkpoint.
pub(super) fn load(
    config: &ModelConfig,
    positions: u32,
    loader: &mut WeightLoader<'_>,
) -> Result<Box<dyn ModelGraph>, LoadError> {
    let windows = config.layer_windows()?;
    let variation = Variation {
        qkv_bias: true,
        output_bias: false,
        mlp_bias: false,
        head_norm: false,
        window: &|layer| windows[layer],
    };
    Ok(Box::new(PreNormDecoder::load(config, positions, loader, variation)?))
}
