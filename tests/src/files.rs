//! Model files to be refused: the head of the real one, patched, and safetensors made by hand.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::server::model_path;

/// Bytes that hold the whole header of the real model.
const HEADER: u64 = 2 << 20;

/// A directory that is removed with the value.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// A fresh one.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tokenmill-tests-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file into it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.0.join(name);
        fs::write(&path, bytes).with_context(|| path.display().to_string())?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Left behind at worst, in the directory for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The start of the real GGUF file, its header and a little more.
///
/// # Errors
/// When it cannot be read.
pub fn gguf_head() -> Result<Vec<u8>> {
    let path = model_path();
    let file = File::open(&path)
        .with_context(|| format!("{} is missing: cargo xtask model", path.display()))?;
    let mut bytes = Vec::new();
    file.take(HEADER).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The length of the real file: its tensors lie within.
///
/// # Errors
/// When there is none.
pub fn gguf_len() -> Result<u64> {
    Ok(fs::metadata(model_path())?.len())
}

/// Replaces the first `from` by as many bytes.
///
/// # Panics
/// When the lengths differ or `from` does not occur: the test's own mistakes.
pub fn patch(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|window| window == from);
    let at = at.expect("what is to be patched occurs in the file");
    bytes[at..at + to.len()].copy_from_slice(to);
}

/// A safetensors file: the header's length, the header, data.
pub fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

/// A `config.json` of a tiny Llama.
pub fn tiny_config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": 32,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "rope_theta": 10000.0,
        "tie_word_embeddings": true,
        "torch_dtype": "float32",
    })
}

/// Weights that fit [`tiny_config`], all of them zero.
pub fn tiny_weights() -> Vec<u8> {
    let layer = |name: &str| format!("model.layers.0.{name}.weight");
    let tensors = [
        ("model.embed_tokens.weight".to_owned(), vec![32, 64]),
        ("model.norm.weight".to_owned(), vec![64]),
        (layer("input_layernorm"), vec![64]),
        (layer("post_attention_layernorm"), vec![64]),
        (layer("self_attn.q_proj"), vec![64, 64]),
        (layer("self_attn.k_proj"), vec![64, 64]),
        (layer("self_attn.v_proj"), vec![64, 64]),
        (layer("self_attn.o_proj"), vec![64, 64]),
        (layer("mlp.gate_proj"), vec![128, 64]),
        (layer("mlp.up_proj"), vec![128, 64]),
        (layer("mlp.down_proj"), vec![64, 128]),
    ];
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in tensors {
        let start = end;
        end += 4 * shape.iter().product::<usize>();
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]});
        header.insert(name, entry);
    }
    safetensors(&Value::Object(header).to_string(), end)
}
