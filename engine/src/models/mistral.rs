//! Mistral (arXiv:2310.06825): Llama with a sliding window on every layer, when the checkpoint has one.

use crate::config::ModelConfig;
use crate::layers::{PreNormDecoder, Variation, WeightLoader};
use crate::load::LoadError;
use crate::models::ModelGraph;

/// Reads a `MistralForCausalLM` checkpoint.
pub(super) fn load(
    config: &ModelConfig,
    positions: u32,
    loader: &mut WeightLoader<'_>,
) -> Result<Box<dyn ModelGraph>, LoadError> {
    let variation = Variation {
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        head_norm: false,
        window: &|_| config.sliding_window,
    };
    Ok(Box::new(PreNormDecoder::load(config, positions, loader, variation)?))
}
