//! A model's configuration, normalised from `config.json` or GGUF metadata.
//!
//! GGUF metadata is translated to the names of `config.json` first, so there is one place that gives
//! fields their defaults and checks their ranges.

mod fields;
mod generation;
mod gguf;
mod json;
mod parse;
mod rope;

use serde_json::{Map, Value};

pub use generation::GenerationDefaults;
pub(crate) use json::{read_object, read_optional_object, read_text};

/// How positions are scaled (the `rope_scaling` of checkpoints).
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// No scaling.
    None,
    /// Positions divided by `factor`.
    Linear {
        /// Divisor.
        factor: f32,
    },
    /// NTK-aware base that grows with the sequence (as `transformers`' "dynamic").
    Dynamic {
        /// Factor.
        factor: f32,
        /// Trained length.
        original_max_position: u32,
    },
    /// Llama 3's piecewise scaling of frequencies.
    Llama3 {
        /// Factor.
        factor: f32,
        /// Low-frequency factor.
        low_freq_factor: f32,
        /// High-frequency factor.
        high_freq_factor: f32,
        /// Trained length.
        original_max_position: u32,
    },
    /// YaRN (arXiv:2309.00071).
    Yarn {
        /// Factor.
        factor: f32,
        /// Trained length.
        original_max_position: u32,
        /// Fast boundary (32).
        beta_fast: f32,
        /// Slow boundary (1).
        beta_slow: f32,
        /// Multiplier of cos and sin; `None` computes `0.1 ln(factor) + 1`.
        attention_factor: Option<f32>,
        /// `mscale`, `mscale_all_dim` when given.
        mscale: Option<(f32, f32)>,
        /// Whether the correction range is truncated to whole dimensions (default true).
        truncate: bool,
    },
    /// Explicit frequency factors, one per pair of dimensions (GGUF's
    /// `rope_freqs.weight`): frequencies are divided by them.
    Factors(Vec<f32>),
}

/// The configuration of one model: what several architectures share, plus everything raw.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    /// As checkpoints name it: `LlamaForCausalLM`.
    pub architecture: String,
    /// Vocabulary size (rows of the embedding).
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_layers: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads.
    pub num_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Trained context length, with the scaling applied.
    pub max_position: u32,
    /// Epsilon of the norms.
    pub norm_eps: f32,
    /// Base of the rotary embedding.
    pub rope_theta: f32,
    /// Scaling of the rotary embedding.
    pub rope_scaling: RopeScaling,
    /// Rotated dimensions of a head (`head_dim` unless `partial_rotary_factor` says less).
    pub rotary_dim: usize,
    /// Sliding window in tokens, when the checkpoint uses one.
    pub sliding_window: Option<u32>,
    /// The head shares the embedding's weights.
    pub tie_word_embeddings: bool,
    /// Name of the MLP's activation (`silu`, `gelu_pytorch_tanh`, `gelu_new`, ...).
    pub hidden_act: String,
    /// Beginning-of-sequence token.
    pub bos_token: Option<u32>,
    /// Tokens that end a completion (those of the generation configuration, else the model's), the
    /// main one first.
    pub eos_tokens: Vec<u32>,
    /// Stored type of most weights: `float32`, `float16`, `bfloat16`, or GGUF's name of it.
    pub dtype: String,
    /// Everything, under the names of `config.json` (GGUF metadata is translated), for fields that one architecture reads.
    pub raw: Map<String, Value>,
}
