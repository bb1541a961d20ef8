//! Tokenizer and detokenizer of a real model against `transformers` (`xtask/fixtures/tokens.py`).
//!
//! The model file is not in the repository: without it these tests say so and pass.

use std::path::Path;

use proptest::prelude::*;
use serde_json::Value;
use tokenmill_engine::text::{Detokenizer, TextPool, TextPoolOptions, Tokenizer};
use tokenmill_engine::weights::gguf::{GgufFile, GgufTokenizer};

const FIXTURE: &str = include_str!("fixtures/text/smollm2_tokens.json");
const MODEL: &str = "models/SmolLM2-135M-Instruct.Q4_1.gguf";

fn tokenizer() -> Option<Tokenizer> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(MODEL);
    if !path.is_file() {
        println!("skipped: {MODEL} is absent");
        return None;
    }
    let file = GgufFile::open(&path).expect("a GGUF file");
    let metadata = GgufTokenizer::from_metadata(file.metadata()).expect("a tokenizer");
    Some(Tokenizer::from_gguf(&metadata).expect("a known tokenizer"))
}

/// Text of `ids` after `prompt`, piece by piece.
fn streamed(tokenizer: &Tokenizer, prompt: &[u32], ids: &[u32], skip: bool) -> String {
    let mut stream = Detokenizer::new(tokenizer.clone(), prompt, skip);
    let mut text = String::new();
    for &id in ids {
        text.push_str(stream.push(id));
    }
    text.push_str(stream.flush());
    text
}

#[test]
fn tokens_are_those_of_the_reference() {
    let Some(tokenizer) = tokenizer() else { return };
    let fixture: Value = serde_json::from_str(FIXTURE).unwrap();
    let cases = fixture["cases"].as_array().unwrap();
    assert!(cases.len() >= 60);
    for case in cases {
        let text = case["text"].as_str().unwrap();
        let expected: Vec<u32> =
            case["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        let ids = tokenizer.encode(text, true).unwrap();
        assert_eq!(ids, expected, "{text:?}");
        for (skip, key) in [(false, "decoded"), (true, "decoded_without_special")] {
            let decoded = case[key].as_str().unwrap();
            assert_eq!(tokenizer.decode(&ids, skip), decoded, "{text:?}");
            for at in 0..=ids.len() {
                let before = tokenizer.decode(&ids[..at], skip);
                let after = streamed(&tokenizer, &ids[..at], &ids[at..], skip);
                // A character that is split between the two is given whole.
                let before = before.trim_end_matches('\u{fffd}');
                assert_eq!(format!("{before}{after}"), decoded, "{text:?} after {at}");
            }
        }
        let bytes: Vec<u8> = ids.iter().flat_map(|id| tokenizer.token_bytes(*id)).collect();
        assert_eq!(bytes, text.as_bytes(), "{text:?}");
    }
}

#[test]
fn special_tokens_have_their_ids() {
    let Some(tokenizer) = tokenizer() else { return };
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), Some(2)));
    assert_eq!(tokenizer.token_id("<|im_end|>"), Some(2));
    assert_eq!(tokenizer.token_text(2), "<|im_end|>");
    assert!(tokenizer.is_special(2) && !tokenizer.is_special(300));
    assert_eq!(tokenizer.vocab_size(), 49152);
    assert!(tokenizer.token_bytes(u32::MAX).is_empty() && !tokenizer.is_special(u32::MAX));
}

#[test]
fn long_texts_are_encoded() {
    let Some(tokenizer) = tokenizer() else { return };
    for unit in ["a", " ", "The quick brown fox, 42 times.\n", "中", "\n", "'"] {
        let text = unit.repeat((1 << 20) / unit.len());
        let ids = tokenizer.encode(&text, false).unwrap();
        assert_eq!(tokenizer.decode(&ids, false), text, "{unit:?}");
    }
}

#[tokio::test]
async fn the_pool_encodes_as_the_tokenizer_does() {
    let Some(tokenizer) = tokenizer() else { return };
    let pool = TextPool::new(tokenizer.clone(), TextPoolOptions { threads: 2, queue: 8 }).unwrap();
    let ids = pool.encode("Hello, pool!".to_owned(), true).await.unwrap();
    assert_eq!(ids, tokenizer.encode("Hello, pool!", true).unwrap());
}

/// Ids among which parts of characters and special tokens are common.
fn id() -> impl Strategy<Value = u32> {
    prop_oneof![0u32..17, 17u32..300, 0u32..49152]
}

#[test]
fn streamed_text_is_the_decoded_text() {
    let Some(tokenizer) = tokenizer() else { return };
    let ids =
        (prop::collection::vec(id(), 0..6), prop::collection::vec(id(), 0..40), any::<bool>());
    proptest!(|((prompt, output, skip) in ids)| {
        let before = tokenizer.decode(&prompt, skip);
        let whole = tokenizer.decode(&[&prompt[..], &output[..]].concat(), skip);
        let text = streamed(&tokenizer, &prompt, &output, skip);
        // Where the prompt ends within a character, its U+FFFD is either final or replaced.
        let expected = whole.strip_prefix(&before).or_else(|| {
            whole.strip_prefix(before.strip_suffix('\u{fffd}')?)
        });
        prop_assert_eq!(Some(text.as_str()), expected);
    });
}
