//! Tests of the GGUF parser, with files the tests write.

use candle_core::Device;
use candle_core::quantized::gguf_file;
use proptest::prelude::*;

use super::testing::{GgufWriter, tiny_llama};
use super::*;
use crate::weights::Weights;

fn opened(bytes: &[u8]) -> Result<GgufFile, LoadError> {
    GgufFile::from_file(WeightFile::in_memory("model.gguf", bytes.to_vec()))
}

fn refused(writer: &GgufWriter, want: &str) {
    let error = parse(&writer.build()).unwrap_err();
    assert!(error.contains(want), "{error:?} does not contain {want:?}");
}

#[test]
fn a_file_is_read_under_hugging_face_names() {
    let file = opened(&tiny_llama().build()).unwrap();
    assert_eq!(file.architecture(), "LlamaForCausalLM");
    assert_eq!(file.main_dtype(), Some(StoredType::F32));
    let mut weights = Weights::new(&file);
    assert!(weights.is_gguf() && !weights.has("lm_head.weight"));
    let down = weights.matrix("model.layers.0.mlp.down_proj.weight", 4, 6).unwrap();
    assert_eq!((down.stored_name, down.row(1)[..4].to_vec()), {
        ("blk.0.ffn_down.weight", 706.0_f32.to_le_bytes().to_vec())
    });
    // Rows 0, 2, 1, 3 of the file are rows 0, 1, 2, 3 of the checkpoint; values are not permuted.
    let query = weights.matrix("model.layers.0.self_attn.q_proj.weight", 4, 4).unwrap();
    let firsts = (0..4).map(|row| {
        let bytes = query.row(row)[..4].try_into().unwrap();
        f32::from_le_bytes(bytes)
    });
    assert_eq!(firsts.collect::<Vec<_>>(), [100.0, 108.0, 104.0, 112.0]);
    let value = weights.matrix("model.layers.0.self_attn.v_proj.weight", 4, 4).unwrap();
    assert_eq!(value.row(1)[..4], 304.0_f32.to_le_bytes());
    assert_eq!(weights.report().unread.len(), 8);
}

#[test]
fn the_header_equals_candles_reading() {
    let bytes = tiny_llama().build();
    let ours = parse(&bytes).unwrap();
    let mut cursor = std::io::Cursor::new(&bytes);
    let theirs = gguf_file::Content::read(&mut cursor).unwrap();
    assert_eq!(ours.tensors.len(), theirs.tensor_infos.len());
    for tensor in &ours.tensors {
        let info = &theirs.tensor_infos[&tensor.name];
        assert_eq!(tensor.shape, info.shape.dims());
        assert_eq!(tensor.offset as u64, theirs.tensor_data_offset + info.offset);
        let read = theirs.tensor(&mut cursor, &tensor.name, &Device::Cpu).unwrap();
        let want = read.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap();
        let mut got = Vec::new();
        let stored = &bytes[tensor.offset..tensor.offset + tensor.len];
        dequantize(tensor.kind.dtype, stored, &mut got).unwrap();
        assert_eq!(got, want.to_vec1::<f32>().unwrap());
    }
    let keys: Vec<&str> = ours.metadata.iter().map(|(key, _)| key).collect();
    assert_eq!(keys.len(), theirs.metadata.len());
    assert!(keys.iter().all(|key| theirs.metadata.contains_key(*key)));
}

#[test]
fn the_tokenizer_is_read() {
    let header = parse(&tiny_llama().build()).unwrap();
    let tokenizer = GgufTokenizer::from_metadata(&header.metadata).unwrap();
    assert_eq!((tokenizer.model.as_str(), tokenizer.pre.as_deref()), ("gpt2", Some("smollm")));
    assert_eq!((tokenizer.bos, tokenizer.eos, tokenizer.pad), (Some(3), Some(2), None));
    assert_eq!((tokenizer.add_bos, tokenizer.add_eos), (Some(false), None));
    assert_eq!(tokenizer.end_tokens(), [2, 3]);
    assert_eq!(tokenizer.merges, ["a b"]);
    let check = |writer: GgufWriter, want: &str| {
        let header = parse(&writer.build()).unwrap();
        let error = GgufTokenizer::from_metadata(&header.metadata).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    };
    let tokens = || GgufWriter::new("llama").texts("tokenizer.ggml.tokens", &["a", "b"]);
    check(
        tokens().u32("tokenizer.ggml.eos_token_id", 2),
        "tokenizer.ggml.eos_token_id: token 2 of a vocabulary of 2",
    );
    check(
        tokens().array("tokenizer.ggml.scores", Array::F32(vec![0.0])),
        "tokenizer.ggml.scores: 1 entries for 2 tokens",
    );
    check(tokens().u32("tokenizer.ggml.model", 7), "tokenizer.ggml.model: 7 is not a string");
}

#[test]
fn malformed_directories_name_the_tensor() {
    let file = || GgufWriter::new("llama");
    refused(&file().tensor("w", &[4], 99, &[]), "tensor w has type number 99");
    refused(&file().tensor("w", &[32], 4, &[]), "tensor w is Q4_2, which was removed");
    refused(&file().tensor("w", &[33], 8, &[0; 68]), "tensor w has rows of 33 values");
    refused(&file().tensor("w", &[0], 0, &[]), "tensor w has a dimension of zero");
    refused(&file().tensor("w", &[], 0, &[]), "tensor w has 0 dimensions");
    refused(&file().tensor("w", &[1; 5], 0, &[]), "tensor w has 5 dimensions");
    refused(&file().tensor("w", &[1 << 40, 1 << 40], 0, &[]), "which overflows");
    refused(&file().tensor("w", &[8], 0, &[0; 16]), "tensor w needs 32 bytes at offset 0");
    refused(&file().tensor_at("w", &[1], 0, &[0; 64], Some(4)), "has offset 4, not a multiple");
    refused(&file().tensor_at("w", &[1], 0, &[], Some(u64::MAX - 31)), "it is truncated");
    let twice = file().tensor("a", &[8], 0, &[0; 32]);
    refused(&twice.tensor_at("b", &[8], 0, &[0; 32], Some(0)), "tensors a and b overlap");
    refused(&file().u32("general.alignment", 0), "general.alignment is 0");
    refused(&file().u32("general.alignment", 24), "general.alignment is 24");
    refused(&file().u32("x", 1).u32("x", 2), "metadata x occurs twice");
    let nested = (0..5).fold(Array::U8(vec![1]), |inner, _| Array::Array(vec![inner]));
    refused(&file().array("x", nested), "nested deeper");
    let mut old = file();
    old.version = 1;
    refused(&old, "GGUF version 1");
    old.version = 3_u32.swap_bytes();
    refused(&old, "big-endian");
}

#[test]
fn unusable_types_are_listed_and_refused_by_name() {
    let writer = tiny_llama().tensor("blk.0.attn_q_norm.weight", &[256], 14, &[0; 210]);
    let file = opened(&writer.build()).unwrap();
    let mut weights = Weights::new(&file);
    let error = weights.vector("model.layers.0.self_attn.q_norm.weight", 256).unwrap_err();
    let want = "tensor blk.0.attn_q_norm.weight is Q6_K, which is not supported; supported: F32";
    assert!(error.to_string().starts_with(want), "{error}");
}

#[test]
fn files_of_unknown_architectures_or_odd_heads_are_refused() {
    let check = |writer: GgufWriter, want: &str| {
        let error = opened(&writer.build()).unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
    };
    check(GgufWriter::new("t5"), "architecture t5 is not supported; supported: llama");
    check(tiny_llama().u32("split.count", 2), "split.count: one of 2 files");
    check(GgufWriter::new("llama"), "llama.attention.head_count: the key is missing");
    check(tiny_llama().u32("llama.attention.key_length", 3), "the width must be even");
    let odd = tiny_llama().floats("blk.1.attn_q.weight", &[1, 2], &[0.0; 2]);
    check(odd, "tensor blk.1.attn_q.weight has 2 rows, not whole heads of 4");
    let twice = tiny_llama().floats("output_norm.weight", &[4], &[0.0; 4]);
    check(twice, "tensor output_norm.weight occurs twice");
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = tiny_llama().build();
    assert!(parse(&bytes).is_ok());
    for len in 0..bytes.len() {
        assert!(parse(&bytes[..len]).is_err(), "{len} of {} bytes were accepted", bytes.len());
    }
}

#[test]
fn absurd_counts_are_refused_before_memory_is_taken() {
    let bytes = GgufWriter::new("llama").texts("k", &["a"]).build();
    let array = bytes.windows(4).position(|window| window == 9_u32.to_le_bytes()).unwrap();
    for at in [8, 16, 24, array + 8] {
        for count in [u64::MAX, 1 << 62, 1 << 40, 100_000] {
            let mut bytes = bytes.clone();
            bytes[at..at + 8].copy_from_slice(&count.to_le_bytes());
            let error = parse(&bytes).unwrap_err();
            assert!(error.contains("cannot fit"), "{at} {count}: {error}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn damaged_files_never_panic(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = tiny_llama().build();
        for (index, byte) in damage {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(header) = parse(&bytes) {
            for tensor in &header.tensors {
                prop_assert!(tensor.offset + tensor.len <= bytes.len());
            }
            let _ = GgufTokenizer::from_metadata(&header.metadata);
        }
    }
}
