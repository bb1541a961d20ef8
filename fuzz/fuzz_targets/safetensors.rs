//! The header of a safetensors file, and every place in the file that it names.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenmill_engine::weights::safetensors::Safetensors;
use tokenmill_engine::weights::{TensorSource, WeightFile};

fuzz_target!(|bytes: &[u8]| {
    let file = WeightFile::in_memory("fuzz.safetensors", bytes.to_vec());
    let Ok(source) = Safetensors::from_files([Ok(file)]) else {
        return;
    };
    let stored: usize = source
        .names()
        .iter()
        .map(|name| source.tensor(name).expect("every name is a tensor").bytes.len())
        .sum();
    assert!(stored <= bytes.len());
});
