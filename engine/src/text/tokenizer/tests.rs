//! `tokenizer.json` of every decoding style, against the library; files that are damaged.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::text::Detokenizer;

fn file(model: &Value, decoder: &Value) -> Vec<u8> {
    let special = json!([{
        "id": 0, "content": "<s>", "special": true, "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false,
    }]);
    let whole = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": special,
        "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "decoder": decoder, "model": model,
    });
    serde_json::to_vec(&whole).unwrap()
}

fn bpe(tokens: &[&str]) -> Value {
    let vocab: serde_json::Map<String, Value> =
        tokens.iter().enumerate().map(|(id, t)| ((*t).to_owned(), json!(id))).collect();
    json!({"type": "BPE", "vocab": vocab, "merges": [], "byte_fallback": true})
}

const BYTE_LEVEL: [&str; 10] = ["<s>", "a", "Ġb", "ð", "Ł", "ĺ", "Ģ", "Ċ", "é", "ÿ"];
const PIECES: [&str; 10] =
    ["<s>", "a", "▁b", "<0xF0>", "<0x9F>", "<0x98>", "<0x80>", "▁", "é", "▁▁c"];
const WORDS: [&str; 10] = ["<s>", "a", "##b", "c", "##d", "!", "'", "e", "##é", "f"];

fn files() -> Vec<(&'static str, Vec<u8>)> {
    let replace = json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "});
    let (fallback, fuse) = (json!({"type": "ByteFallback"}), json!({"type": "Fuse"}));
    let strip = json!({"type": "Strip", "content": " ", "start": 1, "stop": 0});
    let gemma = json!({"type": "Sequence", "decoders": [replace, fallback, fuse]});
    let llama = json!({"type": "Sequence", "decoders": [replace, fallback, fuse, strip]});
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true,
    });
    let words = json!({"type": "WordPiece", "prefix": "##", "cleanup": false});
    vec![
        ("byte level", file(&bpe(&BYTE_LEVEL), &byte_level)),
        ("llama", file(&bpe(&PIECES), &llama)),
        ("gemma", file(&bpe(&PIECES), &gemma)),
        ("words", file(&bpe(&WORDS), &words)),
    ]
}

/// The library writes one U+FFFD per byte of a run that is broken anywhere; we keep its whole characters.
/// Such runs are left out of the comparison.
fn has_broken_bytes(text: &str) -> bool {
    text.contains('\u{fffd}')
}

proptest! {
    #[test]
    fn decoding_and_streaming_agree_with_the_library(
        prompt in prop::collection::vec(0u32..12, 0..8),
        output in prop::collection::vec(0u32..12, 0..24),
        skip in any::<bool>(),
    ) {
        for (name, bytes) in files() {
            let tokenizer = Tokenizer::from_json_bytes(&bytes).unwrap();
            let ids = [&prompt[..], &output[..]].concat();
            let whole = tokenizer.decode(&ids, skip);
            let by_library = tokenizer.decode_by_library(&ids, skip);
            if name == "byte level" || !has_broken_bytes(&by_library) {
                prop_assert_eq!(&whole, &by_library, "{}", name);
            }
            let mut stream = Detokenizer::new(tokenizer.clone(), &prompt, skip);
            let mut text = String::new();
            for &id in &output {
                text.push_str(stream.push(id));
            }
            text.push_str(stream.flush());
            let before = tokenizer.decode(&prompt, skip);
            let expected = whole
                .strip_prefix(&before)
                .or_else(|| whole.strip_prefix(before.strip_suffix('\u{fffd}')?));
            prop_assert_eq!(Some(text.as_str()), expected, "{}", name);
        }
    }
}

#[test]
fn damaged_files_are_errors() {
    let good = files().swap_remove(0).1;
    let text = String::from_utf8(good.clone()).unwrap();
    for bytes in [
        Vec::new(),
        b"{}".to_vec(),
        b"[[[[".to_vec(),
        vec![0xff; 64],
        vec![b'['; 100_000],
        text.replace("\"BPE\"", "\"XYZ\"").into_bytes(),
        text.replace("\"a\":1", "\"a\":4294967295").into_bytes(),
        text.replace("\"a\":1", "\"a\":-1").into_bytes(),
        text.replace("\"merges\":[]", "\"merges\":[\"x y\"]").into_bytes(),
        text.replace("\"merges\":[]", "\"merges\":[\"\"]").into_bytes(),
    ] {
        let result = Tokenizer::from_json_bytes(&bytes);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
        assert!(matches!(result, Err(TextError::Invalid { .. })), "{shown}: {result:?}");
    }
    for at in (0..good.len()).step_by(7) {
        assert!(Tokenizer::from_json_bytes(&good[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn a_folder_names_its_special_tokens() {
    let dir = std::env::temp_dir().join(format!("tokenmill-tokenizer-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    assert!(matches!(Tokenizer::from_dir(&dir), Err(TextError::NoTokenizer { .. })));
    std::fs::write(dir.join("tokenizer.json"), &files()[0].1).unwrap();
    let plain = Tokenizer::from_dir(&dir).unwrap();
    assert_eq!((plain.bos(), plain.eos()), (None, None));
    for (config, expected) in [
        (r#"{"bos_token": "<s>", "eos_token": {"content": "a"}}"#, Some((Some(0), Some(1)))),
        (r#"{"bos_token": null, "eos_token": "none such"}"#, Some((None, None))),
        (r#"{"bos_token": 7}"#, None),
        ("{", None),
    ] {
        std::fs::write(dir.join("tokenizer_config.json"), config).unwrap();
        let found = Tokenizer::from_dir(&dir).ok().map(|t| (t.bos(), t.eos()));
        assert_eq!(found, expected, "{config}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}
