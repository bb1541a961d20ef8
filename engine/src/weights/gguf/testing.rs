//! Writes small GGUF files for tests.

use super::metadata::{Array, Value};

/// Name, ggml dimensions, type number, contents, offset (placed one after the other when absent).
type Tensor = (String, Vec<u64>, u32, Vec<u8>, Option<u64>);

/// Builds the bytes of a file.
#[derive(Clone, Debug)]
pub(crate) struct GgufWriter {
    pub(crate) version: u32,
    metadata: Vec<(String, Value, u32)>,
    tensors: Vec<Tensor>,
}

impl GgufWriter {
    pub(crate) fn new(architecture: &str) -> Self {
        Self { version: 3, metadata: Vec::new(), tensors: Vec::new() }
            .text("general.architecture", architecture)
    }

    fn entry(mut self, key: &str, value: Value, kind: u32) -> Self {
        self.metadata.push((key.to_owned(), value, kind));
        self
    }

    pub(crate) fn text(self, key: &str, value: &str) -> Self {
        self.entry(key, Value::String(value.to_owned()), 8)
    }

    pub(crate) fn u32(self, key: &str, value: u32) -> Self {
        self.entry(key, Value::Unsigned(value.into()), 4)
    }

    pub(crate) fn f32(self, key: &str, value: f32) -> Self {
        self.entry(key, Value::Float(value.into()), 6)
    }

    pub(crate) fn bool(self, key: &str, value: bool) -> Self {
        self.entry(key, Value::Bool(value), 7)
    }

    pub(crate) fn array(self, key: &str, value: Array) -> Self {
        self.entry(key, Value::Array(value), 9)
    }

    pub(crate) fn texts(self, key: &str, values: &[&str]) -> Self {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        self.array(key, Array::String(values))
    }

    /// `dimensions` in ggml's order: columns first.
    pub(crate) fn tensor(self, name: &str, dimensions: &[u64], kind: u32, bytes: &[u8]) -> Self {
        self.tensor_at(name, dimensions, kind, bytes, None)
    }

    pub(crate) fn tensor_at(
        mut self,
        name: &str,
        dimensions: &[u64],
        kind: u32,
        bytes: &[u8],
        offset: Option<u64>,
    ) -> Self {
        let dimensions = dimensions.to_vec();
        self.tensors.push((name.to_owned(), dimensions, kind, bytes.to_vec(), offset));
        self
    }

    /// A tensor of `f32` values.
    pub(crate) fn floats(self, name: &str, dimensions: &[u64], values: &[f32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensor(name, dimensions, 0, &bytes)
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value, kind) in &self.metadata {
            put_text(&mut out, key);
            out.extend(kind.to_le_bytes());
            put_value(&mut out, value, *kind);
        }
        let mut data = Vec::new();
        for (name, dimensions, kind, bytes, offset) in &self.tensors {
            put_text(&mut out, name);
            out.extend((dimensions.len() as u32).to_le_bytes());
            dimensions.iter().for_each(|size| out.extend(size.to_le_bytes()));
            out.extend(kind.to_le_bytes());
            data.resize(data.len().next_multiple_of(32), 0);
            out.extend(offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(bytes);
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(data);
        out
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value, kind: u32) {
    match (value, kind) {
        (Value::Unsigned(value), 4) => out.extend((*value as u32).to_le_bytes()),
        (Value::Float(value), 6) => out.extend((*value as f32).to_le_bytes()),
        (Value::Bool(value), _) => out.push(u8::from(*value)),
        (Value::String(text), _) => put_text(out, text),
        (Value::Array(array), _) => put_array(out, array),
        _ => unreachable!("the writer's own methods choose kinds"),
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    let mut header = |kind: u32, len: usize| {
        out.extend(kind.to_le_bytes());
        out.extend((len as u64).to_le_bytes());
    };
    match array {
        Array::U8(values) => {
            header(0, values.len());
            out.extend(values);
        }
        Array::I32(values) => {
            header(5, values.len());
            values.iter().for_each(|value| out.extend(value.to_le_bytes()));
        }
        Array::F32(values) => {
            header(6, values.len());
            values.iter().for_each(|value| out.extend(value.to_le_bytes()));
        }
        Array::String(values) => {
            header(8, values.len());
            values.iter().for_each(|value| put_text(out, value));
        }
        Array::Array(values) => {
            header(9, values.len());
            values.iter().for_each(|value| put_array(out, value));
        }
        _ => unreachable!("no test writes other arrays"),
    }
}

/// A Llama of one layer: width 4, one head, MLP of 6, 5 tokens.
pub(crate) fn tiny_llama() -> GgufWriter {
    let count = |from: f32, len: usize| (0..len).map(|i| from + i as f32).collect::<Vec<f32>>();
    GgufWriter::new("llama")
        .u32("llama.context_length", 64)
        .u32("llama.embedding_length", 4)
        .u32("llama.block_count", 1)
        .u32("llama.feed_forward_length", 6)
        .u32("llama.attention.head_count", 1)
        .u32("llama.attention.head_count_kv", 1)
        .u32("llama.rope.dimension_count", 4)
        .f32("llama.attention.layer_norm_rms_epsilon", 1e-5)
        .f32("llama.rope.freq_base", 100_000.0)
        .text("tokenizer.ggml.model", "gpt2")
        .text("tokenizer.ggml.pre", "smollm")
        .texts("tokenizer.ggml.tokens", &["a", "b", "<|im_end|>", "<|endoftext|>", "ab"])
        .array("tokenizer.ggml.token_type", Array::I32(vec![1, 1, 3, 3, 1]))
        .texts("tokenizer.ggml.merges", &["a b"])
        .u32("tokenizer.ggml.bos_token_id", 3)
        .u32("tokenizer.ggml.eos_token_id", 2)
        .bool("tokenizer.ggml.add_bos_token", false)
        .text("tokenizer.chat_template", "{{ messages }}")
        .floats("token_embd.weight", &[4, 5], &count(0.0, 20))
        .floats("output_norm.weight", &[4], &[1.0; 4])
        .floats("blk.0.attn_norm.weight", &[4], &[1.0; 4])
        .floats("blk.0.ffn_norm.weight", &[4], &[1.0; 4])
        .floats("blk.0.attn_q.weight", &[4, 4], &count(100.0, 16))
        .floats("blk.0.attn_k.weight", &[4, 4], &count(200.0, 16))
        .floats("blk.0.attn_v.weight", &[4, 4], &count(300.0, 16))
        .floats("blk.0.attn_output.weight", &[4, 4], &count(400.0, 16))
        .floats("blk.0.ffn_gate.weight", &[4, 6], &count(500.0, 24))
        .floats("blk.0.ffn_up.weight", &[4, 6], &count(600.0, 24))
        .floats("blk.0.ffn_down.weight", &[6, 4], &count(700.0, 24))
}
