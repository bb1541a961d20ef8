//! The demo model from its GGUF file against `transformers` on the dequantised weights
//! (`xtask/fixtures/real_model.py`): tokens of the prompts, log-probabilities, greedy continuations.

use std::path::{Path, PathBuf};

use crate::common::{collect, config, engine, greedy, submit};
use serde_json::Value;
use tokenmill_engine::layers::FloatType;
use tokenmill_engine::load::{LoadOptions, ModelSource, TokenizerFiles, open};
use tokenmill_engine::sampling::SamplingParams;
use tokenmill_engine::text::{ChatTemplate, Tokenizer};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The demo model; `cargo xtask model` gets it, and `cargo xtask test` does so first.
fn source() -> Option<ModelSource> {
    let path = root().join("models/SmolLM2-135M-Instruct.Q4_1.gguf");
    if !path.exists() {
        println!("skipped: {} is absent (cargo xtask model)", path.display());
        return None;
    }
    Some(open(&path).unwrap())
}

fn cases() -> Vec<Value> {
    let path = root().join("engine/tests/fixtures/real/smollm2.json");
    let fixture: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    fixture["cases"].as_array().unwrap().clone()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

#[test]
fn the_template_and_the_tokenizer_give_the_same_prompts() {
    let Some(source) = source() else { return };
    let TokenizerFiles::Gguf(files) = &source.tokenizer else { panic!("a GGUF file has its own") };
    let tokenizer = Tokenizer::from_gguf(files).unwrap();
    let template = source.chat_templates.default.as_deref().unwrap();
    let special = &source.special_tokens;
    let text = |token: &Option<String>| token.clone().unwrap_or_default();
    let template =
        ChatTemplate::compile(template, &text(&special.bos), &text(&special.eos)).unwrap();
    for case in cases() {
        let messages = serde_json::json!([{"role": "user", "content": case["question"]}]);
        let none = serde_json::Map::new();
        let rendered = template.render(&messages, None, None, true, false, &none).unwrap();
        assert_eq!(rendered, case["text"].as_str().unwrap());
        assert_eq!(tokenizer.encode(&rendered, false).unwrap(), ids(&case["prompt"]));
    }
}

/// How far the engine is from the reference over all cases.
#[derive(Debug, Default)]
struct Distance {
    average: f64,
    largest: f64,
    /// Positions where the reference's margin is above 0.2, and how many of them agree.
    sure: usize,
    equal: usize,
}

/// The reference's continuation is fed back as a prompt, so every position is compared, also after
/// a near tie.
fn distance(source: &ModelSource, dtype: FloatType) -> Distance {
    let options = LoadOptions { max_model_len: Some(1024), dtype, ..LoadOptions::default() };
    let engine = engine(source, &options, config());
    let scored = SamplingParams { prompt_logprobs: Some(1), ..greedy() };
    let (mut distance, mut count) = (Distance::default(), 0);
    for case in cases() {
        let (prompt, greedy_tokens) = (ids(&case["prompt"]), ids(&case["greedy"]));
        let (logprobs, margins) = (numbers(&case["logprobs"]), numbers(&case["margins"]));
        let whole = [prompt.clone(), greedy_tokens.clone()].concat();
        let generation = collect(submit(&engine, &whole, 1, &scored));
        let positions = &generation.prompt_logprobs[prompt.len() - 1..];
        assert_eq!(positions.len(), greedy_tokens.len());
        for (index, position) in positions.iter().enumerate() {
            let difference = (f64::from(position.logprob) - logprobs[index]).abs();
            distance.average += difference;
            distance.largest = distance.largest.max(difference);
            count += 1;
            if margins[index] > 0.2 {
                distance.sure += 1;
                distance.equal += usize::from(position.top[0].0 == greedy_tokens[index]);
            }
        }
    }
    distance.average /= f64::from(count);
    println!("{dtype:?}, {count} positions: {distance:?}");
    distance
}

#[test]
fn dequantised_it_is_the_reference() {
    let Some(source) = source() else { return };
    let distance = distance(&source, FloatType::F32);
    assert!(distance.average <= 1e-3, "{distance:?}");
    assert_eq!(distance.equal, distance.sure, "{distance:?}");
}

#[test]
fn log_probabilities_are_close_to_the_dequantised_model() {
    let Some(source) = source() else { return };
    let distance = distance(&source, FloatType::Stored);
    assert!(distance.average <= 0.05, "{distance:?}");
    assert_eq!(distance.equal, distance.sure, "{distance:?}");
}

#[test]
fn greedy_continuations_equal_the_reference_until_a_near_tie() {
    let Some(source) = source() else { return };
    let options = LoadOptions { max_model_len: Some(1024), ..LoadOptions::default() };
    let engine = engine(&source, &options, config());
    let cases = cases();
    let streams: Vec<_> =
        cases.iter().map(|case| submit(&engine, &ids(&case["prompt"]), 32, &greedy())).collect();
    for (case, stream) in cases.iter().zip(streams) {
        let want = ids(&case["greedy"]);
        let sure = numbers(&case["margins"]).iter().take_while(|&&margin| margin > 0.2).count();
        assert_eq!(collect(stream).tokens[..sure], want[..sure], "{}", case["question"]);
    }
}
