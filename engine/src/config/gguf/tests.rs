//! Tests of GGUF configurations, with files the tests write.

use proptest::prelude::*;

use super::*;
use crate::weights::WeightFile;
use crate::weights::gguf::testing::{GgufWriter, tiny_llama};
use crate::weights::gguf::{Array, token_type};

fn read(writer: &GgufWriter) -> Result<ModelConfig, String> {
    read_bytes(writer.build())
}

fn read_bytes(bytes: Vec<u8>) -> Result<ModelConfig, String> {
    let file = WeightFile::in_memory("model.gguf", bytes);
    let file = GgufFile::from_file(file).map_err(|error| error.to_string())?;
    GgufTokenizer::from_metadata(file.metadata())
        .and_then(|tokenizer| ModelConfig::from_gguf(&file, &tokenizer))
        .map_err(|error| error.to_string())
}

/// Sizes of a model of two layers, four heads of 4, without tensors but the embedding.
fn sized(architecture: &str) -> GgufWriter {
    let key = |name: &str| format!("{architecture}.{name}");
    GgufWriter::new(architecture)
        .u32(&key("context_length"), 64)
        .u32(&key("embedding_length"), 16)
        .u32(&key("block_count"), 2)
        .u32(&key("feed_forward_length"), 24)
        .u32(&key("attention.head_count"), 4)
        .f32(&key("attention.layer_norm_rms_epsilon"), 1e-6)
        .floats("token_embd.weight", &[16, 5], &[0.0; 80])
}

#[test]
fn llama_metadata_becomes_a_configuration() {
    let config = read(&tiny_llama()).unwrap();
    assert_eq!(config.architecture, "LlamaForCausalLM");
    assert_eq!((config.vocab_size, config.hidden_size, config.intermediate_size), (5, 4, 6));
    assert_eq!((config.num_layers, config.num_heads, config.num_kv_heads), (1, 1, 1));
    assert_eq!((config.head_dim, config.rotary_dim, config.max_position), (4, 4, 64));
    assert_eq!((config.norm_eps, config.rope_theta), (1e-5, 100_000.0));
    assert_eq!((config.bos_token, config.eos_tokens.as_slice()), (Some(3), &[2, 3][..]));
    assert!(config.tie_word_embeddings);
    assert_eq!((config.hidden_act.as_str(), config.dtype.as_str()), ("silu", "F32"));
    assert_eq!(config.raw["attention_bias"], false);
}

#[test]
fn other_architectures_have_their_own_rules() {
    let qwen = sized("qwen2")
        .u32("qwen2.attention.head_count_kv", 2)
        .floats("blk.0.attn_q.bias", &[16], &[0.0; 16])
        .floats("output.weight", &[16, 5], &[0.0; 80]);
    let qwen = read(&qwen).unwrap();
    assert_eq!((qwen.num_kv_heads, qwen.bos_token), (2, None));
    assert!(!qwen.tie_word_embeddings && qwen.eos_tokens.is_empty());
    assert_eq!(qwen.raw["attention_bias"], true);

    let gemma = sized("gemma2")
        .u32("gemma2.attention.key_length", 8)
        .u32("gemma2.attention.value_length", 8)
        .u32("gemma2.attention.sliding_window", 32)
        .f32("gemma2.attn_logit_softcapping", 25.0);
    let gemma = read(&gemma).unwrap();
    assert_eq!((gemma.head_dim, gemma.num_kv_heads, gemma.sliding_window), (8, 4, Some(32)));
    assert_eq!(gemma.raw["query_pre_attn_scalar"], 8);
    assert_eq!(gemma.raw["attn_logit_softcapping"], 25.0);
    assert_eq!(gemma.raw["final_logit_softcapping"], 30.0);

    let gpt2 = sized("gpt2").f32("gpt2.attention.layer_norm_epsilon", 1e-3);
    let gpt2 = read(&gpt2).unwrap();
    assert_eq!((gpt2.norm_eps, gpt2.hidden_act.as_str()), (1e-3, "gelu_new"));

    let mistral = read(&sized("llama").u32("llama.attention.sliding_window", 16));
    let mistral = mistral.unwrap();
    assert_eq!(mistral.architecture, "MistralForCausalLM");
    assert_eq!(mistral.sliding_window, Some(16));
}

#[test]
fn the_one_gemma_2_with_another_scale_is_recognised() {
    let large = GgufWriter::new("gemma2")
        .u32("gemma2.context_length", 64)
        .u32("gemma2.embedding_length", 48)
        .u32("gemma2.block_count", 46)
        .u32("gemma2.feed_forward_length", 24)
        .u32("gemma2.attention.head_count", 4)
        .u32("gemma2.attention.key_length", 8)
        .floats("token_embd.weight", &[48, 1], &[0.0; 48]);
    assert_eq!(read(&large).unwrap().raw["query_pre_attn_scalar"], 12);
}

#[test]
fn rope_scaling_is_translated() {
    let yarn = sized("qwen2")
        .text("qwen2.rope.scaling.type", "yarn")
        .f32("qwen2.rope.scaling.factor", 4.0)
        .u32("qwen2.rope.scaling.original_context_length", 32);
    let yarn = read(&yarn).unwrap();
    assert!(
        matches!(yarn.rope_scaling, RopeScaling::Yarn { factor, .. } if factor == 4.0),
        "{:?}",
        yarn.rope_scaling
    );
    assert_eq!(yarn.max_position, 128);
    let factors = sized("llama").floats("rope_freqs.weight", &[2], &[1.0, 8.0]);
    let factors = read(&factors).unwrap();
    assert_eq!(factors.rope_scaling, RopeScaling::Factors(vec![1.0, 8.0]));
}

#[test]
fn errors_name_the_metadata_key() {
    let check = |writer: GgufWriter, want: &str| {
        let error = read(&writer).unwrap_err();
        assert!(error.contains(want), "{error:?} does not contain {want:?}");
    };
    check(GgufWriter::new("qwen2"), "qwen2.embedding_length: the field is missing");
    check(
        sized("qwen2").u32("qwen2.attention.head_count_kv", 3),
        "qwen2.attention.head_count_kv: 3 does not divide the 4 query heads",
    );
    check(
        sized("qwen2").f32("qwen2.rope.freq_base", f32::NAN),
        "qwen2.rope.freq_base: NaN is not a finite number",
    );
    check(
        sized("qwen2").f32("qwen2.rope.freq_base", -1.0),
        "qwen2.rope.freq_base: -1.0 is not a number above 0",
    );
    check(
        sized("qwen2").u32("qwen2.attention.value_length", 8),
        "qwen2.attention.value_length: 8 differs from the width of a head, 4",
    );
    check(
        sized("qwen2").text("qwen2.rope.scaling.type", "longrope"),
        "qwen2.rope.scaling.type: longrope is not supported",
    );
    check(
        sized("qwen3").array("qwen3.attention.head_count_kv", Array::I32(vec![2, 4])),
        "qwen3.attention.head_count_kv: [2 i32] is not a whole number that is the same for every",
    );
    check(
        sized("llama").floats("rope_freqs.weight", &[3], &[1.0; 3]),
        "tensor rope_freqs.weight: 3 factors for 2 pairs of a head",
    );
    check(
        sized("llama").floats("rope_freqs.weight", &[2], &[1.0, -1.0]),
        "tensor rope_freqs.weight: frequency factors must be positive",
    );
}

#[test]
fn only_control_tokens_are_ends_by_their_text() {
    let kinds = vec![token_type::NORMAL, token_type::CONTROL];
    let writer = sized("qwen2")
        .texts("tokenizer.ggml.tokens", &["<|im_end|>", "<|endoftext|>"])
        .array("tokenizer.ggml.token_type", Array::I32(kinds));
    assert_eq!(read(&writer).unwrap().eos_tokens, [1]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn damaged_files_give_errors_or_sound_configurations(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = tiny_llama().build();
        // The header; in the weights every byte is allowed.
        let header = bytes.len() / 2;
        for (index, byte) in damage {
            bytes[index.index(header)] = byte;
        }
        if let Ok(config) = read_bytes(bytes) {
            prop_assert!(config.norm_eps > 0.0 && config.rope_theta.is_finite());
            prop_assert!(config.num_heads % config.num_kv_heads == 0);
            prop_assert!(config.head_dim > 0 && config.hidden_size > 0 && config.vocab_size > 0);
        }
    }
}
