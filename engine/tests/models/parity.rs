//! Logits and greedy tokens of every tiny architecture against `transformers`
//! (`xtask/fixtures/tiny_models.py`), and invariance under batching, chunking, caching and preemption.

use std::collections::HashMap;
use std::path::Path;

use crate::common::{collect, config, engine, greedy, models, submit};
use tokenmill_engine::executor::PositionLogprobs;
use tokenmill_engine::handle::EngineConfig;
use tokenmill_engine::layers::FloatType;
use tokenmill_engine::load::{LoadOptions, open};
use tokenmill_engine::sampling::SamplingParams;

const PROMPTS: usize = 3;

/// Tensors of a golden file, as f32 or i64.
struct Golden(HashMap<String, (Vec<usize>, Vec<f64>)>);

impl Golden {
    fn open(model: &Path) -> Self {
        let bytes = std::fs::read(model.join("golden.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file.iter().map(|(name, view)| {
            let values: Vec<f64> = match view.dtype() {
                safetensors::Dtype::F32 => view
                    .data()
                    .chunks_exact(4)
                    .map(|b| f32::from_le_bytes(b.try_into().unwrap()).into())
                    .collect(),
                _ => view
                    .data()
                    .chunks_exact(8)
                    .map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64)
                    .collect(),
            };
            (name.to_owned(), (view.shape().to_vec(), values))
        });
        Self(tensors.collect())
    }

    fn values(&self, name: &str) -> &[f64] {
        &self.0[name].1
    }

    fn tokens(&self, name: &str) -> Vec<u32> {
        self.values(name).iter().map(|&token| token as u32).collect()
    }
}

fn small() -> LoadOptions {
    LoadOptions {
        max_sequences: 8,
        max_step_tokens: 128,
        max_model_len: Some(128),
        ..LoadOptions::default()
    }
}

/// Largest difference between the log-probabilities of a position and a golden row.
fn distance(position: &PositionLogprobs, row: &[f64]) -> f64 {
    assert_eq!(position.top.len(), row.len(), "the whole vocabulary was asked for");
    let difference =
        |&(token, logprob): &(u32, f32)| (f64::from(logprob) - row[token as usize]).abs();
    position.top.iter().map(difference).fold(0.0, f64::max)
}

fn check_logprobs(model: &Path, dtype: FloatType, golden_name: &str, tolerance: f64) {
    let golden = Golden::open(model);
    let source = open(model).unwrap();
    let engine = engine(&source, &LoadOptions { dtype, ..small() }, config());
    let everything =
        SamplingParams { logprobs: Some(u32::MAX), prompt_logprobs: Some(u32::MAX), ..greedy() };
    for index in 0..PROMPTS {
        let prompt = golden.tokens(&format!("prompt.{index}"));
        let rows = golden.values(&format!("{golden_name}.{index}"));
        let vocab = rows.len() / prompt.len();
        let generation = collect(submit(&engine, &prompt, 1, &everything));
        assert_eq!(generation.prompt_logprobs.len(), prompt.len() - 1);
        let positions = generation.prompt_logprobs.iter().chain(&generation.logprobs);
        for (position, row) in positions.zip(rows.chunks_exact(vocab)) {
            let distance = distance(position, row);
            let name = model.file_name().unwrap().display();
            assert!(distance <= tolerance, "{name}, prompt {index}: {distance} > {tolerance}");
        }
    }
}

#[test]
fn logprobs_equal_transformers_in_float32() {
    for model in models() {
        check_logprobs(&model, FloatType::F32, "logprobs", 1e-4);
    }
}

#[test]
fn logprobs_equal_transformers_in_bfloat16() {
    for model in models() {
        check_logprobs(&model, FloatType::Bf16, "bf16_logprobs", 3e-2);
    }
}

#[test]
fn greedy_tokens_equal_transformers() {
    for model in models() {
        let golden = Golden::open(&model);
        let engine = engine(&open(&model).unwrap(), &small(), config());
        for index in 0..PROMPTS {
            let prompt = golden.tokens(&format!("prompt.{index}"));
            let want = golden.tokens(&format!("greedy.{index}"));
            let margins = golden.values(&format!("margin.{index}"));
            let got = collect(submit(&engine, &prompt, want.len() as u32, &greedy())).tokens;
            // After a near tie both continuations are right, and they differ from there on.
            let sure = margins.iter().take_while(|&&margin| margin > 1e-3).count();
            assert_eq!(got[..sure], want[..sure], "{}, prompt {index}", model.display());
        }
    }
}

#[test]
fn batching_chunking_caching_and_preemption_change_nothing() {
    for model in models() {
        let golden = Golden::open(&model);
        let source = open(&model).unwrap();
        let sampled = SamplingParams { seed: 7, logprobs: Some(3), ..SamplingParams::default() };
        let prompts: Vec<Vec<u32>> = (0..12)
            .map(|index| {
                let long = golden.tokens("prompt.2");
                // Equal beginnings of different lengths, so that blocks are shared.
                let mut prompt = long[..20 + 4 * (index % 5)].to_vec();
                prompt.extend(&long[index..index + 3]);
                prompt
            })
            .collect();
        let alone: Vec<_> = {
            let engine = engine(&source, &small(), config());
            let run = |prompt: &Vec<u32>| collect(submit(&engine, prompt, 24, &sampled));
            prompts.iter().map(run).collect()
        };
        // Room for little more than two sequences, steps of 16 tokens, chunks of 7.
        let probe = tokenmill_engine::load::plan(&source, &small(), 1).unwrap();
        let tight = LoadOptions {
            kv_bytes: Some(160 * probe.kv_bytes_per_token),
            max_step_tokens: 16,
            ..small()
        };
        let engine_config = EngineConfig { max_chunk_tokens: 7, prefix_cache: true, ..config() };
        let engine = engine(&source, &tight, engine_config);
        let streams: Vec<_> =
            prompts.iter().map(|prompt| submit(&engine, prompt, 24, &sampled)).collect();
        let mut hits = 0;
        for (index, (stream, alone)) in streams.into_iter().zip(&alone).enumerate() {
            let together = collect(stream);
            hits += together.cached_tokens;
            let place = format!("{}, prompt {index}", model.display());
            assert_eq!(together.tokens, alone.tokens, "{place}");
            assert_eq!(together.logprobs, alone.logprobs, "{place}");
        }
        assert!(hits > 0, "{}: no block was shared", model.display());
        let preempted = engine.stats().preemptions.get();
        assert!(preempted > 0, "{}: nothing was preempted", model.display());
    }
}
