//! The model zoo: one architecture per file, one line in [`ARCHITECTURES`].

mod fields;
mod gemma2;
mod gpt2;
mod llama;
mod mistral;
mod qwen2;
mod qwen3;

use crate::config::ModelConfig;
use crate::layers::WeightLoader;
use crate::load::LoadError;
use crate::ops::{Act, OpError, Ops};

/// What one layer keeps in the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheLayer {
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Sliding window in tokens.
    pub window: Option<u32>,
}

/// What a model file implements, and nothing more.
pub trait ModelGraph: Send + Sync {
    /// The cache of every layer, in order.
    fn cache_layers(&self) -> &[CacheLayer];
    /// One forward pass of the packed step: embeds the step's tokens, leaves the residual stream
    /// `[tokens, hidden]` in the returned activation.
    ///
    /// # Errors
    /// When the device fails.
    fn forward(&self, ops: &mut dyn Ops) -> Result<Act, OpError>;
    /// Logits `[outputs, vocab]` of rows `[outputs, hidden]` of the residual stream.
    ///
    /// # Errors
    /// When the device fails.
    fn logits(&self, ops: &mut dyn Ops, rows: Act) -> Result<Act, OpError>;
}

/// Reads a model's weights; the second argument is the model length (positions that can occur).
pub type LoadModel =
    fn(&ModelConfig, u32, &mut WeightLoader<'_>) -> Result<Box<dyn ModelGraph>, LoadError>;

/// One row of the table.
#[derive(Clone, Copy)]
pub struct Architecture {
    /// As `architectures` of config.json names it.
    pub name: &'static str,
    /// How it is read.
    pub load: LoadModel,
}

/// Every architecture, by name.
pub static ARCHITECTURES: &[Architecture] = &[
    Architecture { name: "GPT2LMHeadModel", load: gpt2::load },
    Architecture { name: "Gemma2ForCausalLM", load: gemma2::load },
    Architecture { name: "LlamaForCausalLM", load: llama::load },
    Architecture { name: "MistralForCausalLM", load: mistral::load },
    Architecture { name: "Qwen2ForCausalLM", load: qwen2::load },
    Architecture { name: "Qwen3ForCausalLM", load: qwen3::load },
];

/// The row of an architecture.
///
/// # Errors
/// [`LoadError::UnknownArchitecture`] with the known ones.
pub fn find(name: &str) -> Result<&'static Architecture, LoadError> {
    ARCHITECTURES.iter().find(|row| row.name == name).ok_or_else(|| {
        LoadError::UnknownArchitecture {
            name: name.to_owned(),
            known: ARCHITECTURES.iter().map(|row| row.name).collect::<Vec<_>>().join(", "),
        }
    })
}
