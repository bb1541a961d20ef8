//! Models of a given shape without a checkpoint: all tensors are slices of one random buffer.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::{Map, json};
use tokenmill_engine::config::{GenerationDefaults, ModelConfig};
use tokenmill_engine::load::{ModelSource, TokenizerFiles};
use tokenmill_engine::weights::{Container, RowOrder, StoredType, TensorSource, TensorView};

/// bf16 tensors of the names and shapes of a Qwen3 checkpoint.
struct Random {
    path: PathBuf,
    shapes: Vec<(String, Vec<usize>)>,
    bytes: Vec<u8>,
}

impl TensorSource for Random {
    fn names(&self) -> Vec<&str> {
        self.shapes.iter().map(|(name, _)| name.as_str()).collect()
    }

    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let (name, shape) = self.shapes.iter().find(|(known, _)| known == name)?;
        let len = 2 * shape.iter().product::<usize>();
        Some(TensorView {
            name,
            stored_name: name,
            path: &self.path,
            dtype: StoredType::Bf16,
            shape: shape.clone(),
            bytes: &self.bytes[..len],
            row_order: RowOrder::AsStored,
        })
    }

    fn container(&self) -> Container {
        Container::Safetensors
    }
}

/// A model of the shape of Qwen3-0.6B with random bf16 weights (seeded, so runs agree).
///
/// # Errors
/// When the configuration is refused.
pub fn qwen3_0_6b() -> Result<ModelSource> {
    let (vocab, hidden, inner, layers, heads, kv_heads, head_dim) =
        (151_936, 1024, 3072, 28, 16, 8, 128);
    let config = json!({
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": vocab,
        "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head_dim,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "rope_theta": 1_000_000.0,
        "tie_word_embeddings": true, "hidden_act": "silu", "torch_dtype": "bfloat16",
    });
    let config = config.as_object().context("an object")?.clone();
    let config = ModelConfig::from_json(config, &Map::new())?;
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![vocab, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
    ];
    for layer in 0..layers {
        let rows = [
            ("input_layernorm", vec![hidden]),
            ("post_attention_layernorm", vec![hidden]),
            ("self_attn.q_proj", vec![heads * head_dim, hidden]),
            ("self_attn.k_proj", vec![kv_heads * head_dim, hidden]),
            ("self_attn.v_proj", vec![kv_heads * head_dim, hidden]),
            ("self_attn.o_proj", vec![hidden, heads * head_dim]),
            ("self_attn.q_norm", vec![head_dim]),
            ("self_attn.k_norm", vec![head_dim]),
            ("mlp.gate_proj", vec![inner, hidden]),
            ("mlp.up_proj", vec![inner, hidden]),
            ("mlp.down_proj", vec![hidden, inner]),
        ];
        shapes.extend(
            rows.map(|(name, shape)| (format!("model.layers.{layer}.{name}.weight"), shape)),
        );
    }
    let path = Path::new("qwen3-0.6b-random").to_owned();
    let tensors = Random { path: path.clone(), shapes, bytes: random_bf16(vocab * hidden) };
    Ok(ModelSource {
        path: path.clone(),
        config,
        tensors: Arc::new(tensors),
        tokenizer: TokenizerFiles::Directory(path),
        chat_templates: Default::default(),
        special_tokens: Default::default(),
        generation: GenerationDefaults::default(),
    })
}

/// Values of about ±0.03 from a linear congruential generator.
fn random_bf16(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut bytes = Vec::with_capacity(2 * len);
    for _ in 0..len {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let value = ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 0.06;
        bytes.extend_from_slice(&((value.to_bits() >> 16) as u16).to_le_bytes());
    }
    bytes
}
