//! Everything that opening a GGUF file reads: header, metadata, tokenizer, configuration, rows.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenmill_engine::config::ModelConfig;
use tokenmill_engine::weights::gguf::{GgufFile, GgufTokenizer};
use tokenmill_engine::weights::{TensorSource, WeightFile};

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = GgufFile::from_file(WeightFile::in_memory("fuzz.gguf", bytes.to_vec())) else {
        return;
    };
    for name in file.names() {
        let view = file.tensor(name).expect("every name is a tensor");
        for row in [0, view.rows() - 1] {
            assert!(!view.row(row).is_empty());
        }
    }
    if let Ok(tokenizer) = GgufTokenizer::from_metadata(file.metadata())
        && let Ok(config) = ModelConfig::from_gguf(&file, &tokenizer)
    {
        assert!(config.num_heads.is_multiple_of(config.num_kv_heads));
        assert!(config.eos_tokens.iter().all(|&id| (id as usize) < config.vocab_size));
    }
});
