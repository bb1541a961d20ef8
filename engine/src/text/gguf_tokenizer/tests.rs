//! Small vocabularies of both kinds, and metadata that does not fit together.

use proptest::prelude::*;

use super::*;
use crate::text::Detokenizer;

/// Letters, some merged pieces, all byte tokens.
fn sentence_piece_metadata() -> GgufTokenizer {
    let mut tokens: Vec<(String, f32, i32)> = vec![
        ("<unk>".into(), 0.0, token_type::UNKNOWN),
        ("<s>".into(), 0.0, token_type::CONTROL),
        ("</s>".into(), 0.0, token_type::CONTROL),
    ];
    tokens.extend((0..=255).map(|byte: u8| (format!("<0x{byte:02X}>"), 0.0, token_type::BYTE)));
    let pieces =
        ["ab", "▁c", "bc", "▁ab", "abc", "▁abc", "cd", "bcd", "▁▁", "▁", "a", "b", "c", "d"];
    for (rank, piece) in pieces.iter().enumerate() {
        tokens.push(((*piece).into(), -(rank as f32), token_type::NORMAL));
    }
    tokens.push(("[user]".into(), 0.0, token_type::USER_DEFINED));
    GgufTokenizer {
        model: "llama".into(),
        scores: tokens.iter().map(|t| t.1).collect(),
        token_types: tokens.iter().map(|t| t.2).collect(),
        tokens: tokens.into_iter().map(|t| t.0).collect(),
        bos: Some(1),
        eos: Some(2),
        unk: Some(0),
        ..GgufTokenizer::default()
    }
}

/// The byte alphabet and two merges.
fn byte_level_metadata(pre: &str) -> GgufTokenizer {
    let mut tokens: Vec<String> =
        ('!'..='~').chain('¡'..='¬').chain('®'..='ÿ').map(String::from).collect();
    tokens.extend((0x100..0x100 + 68).filter_map(char::from_u32).map(String::from));
    tokens.extend(["12", "Ġ1", "123", "<|end|>"].map(String::from));
    let mut token_types = vec![token_type::NORMAL; tokens.len()];
    *token_types.last_mut().unwrap() = token_type::CONTROL;
    GgufTokenizer {
        model: "gpt2".into(),
        pre: Some(pre.into()),
        eos: Some(tokens.len() as u32 - 1),
        bos: Some(tokens.len() as u32 - 1),
        tokens,
        token_types,
        merges: ["1 2", "Ġ 1", "12 3"].map(String::from).to_vec(),
        ..GgufTokenizer::default()
    }
}

/// SentencePiece by its definition: merge the neighbours whose union has the best score, the first of those.
fn merge_by_definition(gguf: &GgufTokenizer, text: &str) -> Vec<String> {
    let mut symbols: Vec<String> =
        format!("▁{}", text.replace(' ', "▁")).chars().map(String::from).collect();
    loop {
        let mut best: Option<(f32, usize)> = None;
        for at in 1..symbols.len() {
            let joined = format!("{}{}", symbols[at - 1], symbols[at]);
            let id = gguf.tokens.iter().position(|token| *token == joined);
            if let Some(score) = id.map(|id| gguf.scores[id])
                && best.is_none_or(|(b, _)| score > b)
            {
                best = Some((score, at));
            }
        }
        let Some((_, at)) = best else { return symbols };
        let right = symbols.remove(at);
        symbols[at - 1].push_str(&right);
    }
}

proptest! {
    #[test]
    fn sentence_piece_merges_by_score(text in "[abcd ]{1,24}") {
        let gguf = sentence_piece_metadata();
        let tokenizer = Tokenizer::from_gguf(&gguf).unwrap();
        let ids = tokenizer.encode(&text, false).unwrap();
        let pieces: Vec<String> = ids.iter().map(|id| gguf.tokens[*id as usize].clone()).collect();
        prop_assert_eq!(pieces, merge_by_definition(&gguf, &text));
        prop_assert_eq!(tokenizer.decode(&ids, false), text);
    }

    #[test]
    fn sentence_piece_streams_what_it_decodes(
        prompt in prop::collection::vec(0u32..275, 0..5),
        output in prop::collection::vec(0u32..275, 0..30),
        skip in any::<bool>(),
    ) {
        let tokenizer = Tokenizer::from_gguf(&sentence_piece_metadata()).unwrap();
        let mut stream = Detokenizer::new(tokenizer.clone(), &prompt, skip);
        let mut text = String::new();
        for &id in &output {
            text.push_str(stream.push(id));
        }
        text.push_str(stream.flush());
        let before = tokenizer.decode(&prompt, skip);
        let whole = tokenizer.decode(&[&prompt[..], &output[..]].concat(), skip);
        let expected = whole
            .strip_prefix(&before)
            .or_else(|| whole.strip_prefix(before.strip_suffix('\u{fffd}')?));
        prop_assert_eq!(Some(text.as_str()), expected);
    }
}

#[test]
fn sentence_piece_frames_falls_back_to_bytes_and_finds_special_tokens() {
    let gguf = sentence_piece_metadata();
    let tokenizer = Tokenizer::from_gguf(&gguf).unwrap();
    let id = |token: &str| gguf.tokens.iter().position(|t| t == token).unwrap() as u32;
    let (bos, space) = (id("<s>"), id("▁"));
    for (text, special, expected) in [
        ("é", true, vec![bos, space, 3 + 0xc3, 3 + 0xa9]),
        ("ab</s>c", false, vec![id("▁ab"), id("</s>"), id("▁c")]),
        ("[user]", false, vec![id("[user]")]),
        ("", true, vec![bos]),
    ] {
        assert_eq!(tokenizer.encode(text, special).unwrap(), expected, "{text:?}");
    }
    assert_eq!(tokenizer.decode(&[bos, space, 3 + 0xc3, 3 + 0xa9, id("▁ab")], true), "é ab");
    assert_eq!(tokenizer.token_bytes(3 + 0xc3), [0xc3]);
    assert_eq!(tokenizer.token_bytes(id("▁ab")), b" ab");
    assert!(tokenizer.is_special(bos) && !tokenizer.is_special(id("[user]")));
    let plain = GgufTokenizer {
        add_space_prefix: Some(false),
        add_bos: Some(false),
        add_eos: Some(true),
        ..gguf
    };
    let tokenizer = Tokenizer::from_gguf(&plain).unwrap();
    assert_eq!(tokenizer.encode("ab", true).unwrap(), [id_of(&plain, "ab"), 2]);
    assert_eq!(tokenizer.decode(&[id_of(&plain, "▁ab")], true), " ab");
}

fn id_of(gguf: &GgufTokenizer, token: &str) -> u32 {
    gguf.tokens.iter().position(|t| t == token).unwrap() as u32
}

#[test]
fn pre_tokenizers_cut_as_they_are_named() {
    for (pre, text, expected) in [
        ("gpt-2", " 1123", &["Ġ1", "123"][..]),
        ("smollm", " 12", &["Ġ", "1", "2"]),
        ("qwen2", "12 12", &["1", "2", "Ġ", "1", "2"]),
        ("llama-bpe", "12<|end|>", &["12", "<|end|>"]),
        ("default", "123 1", &["123", "Ġ", "1"]),
        ("deepseek-v3", "1231", &["123", "1"]),
    ] {
        let gguf = byte_level_metadata(pre);
        let tokenizer = Tokenizer::from_gguf(&gguf).unwrap();
        let ids = tokenizer.encode(text, false).unwrap();
        let pieces: Vec<&str> = ids.iter().map(|id| gguf.tokens[*id as usize].as_str()).collect();
        assert_eq!(pieces, expected, "{pre} {text:?}");
    }
}

#[test]
fn every_pre_tokenizer_keeps_the_text() {
    let text = "Hello  World's\r\n\n 12345 ÀéΩж 你好 かな 한국 !?;[x] {y}\t\t😀 ﬀ 𐐀 ";
    for name in PRE_TOKENIZERS.iter().flat_map(|row| row.names) {
        let tokenizer = Tokenizer::from_gguf(&byte_level_metadata(name)).unwrap();
        let ids = tokenizer.encode(text, false).unwrap();
        assert_eq!(tokenizer.decode(&ids, false), text, "{name}");
        let framed = tokenizer.encode("", true).unwrap().len();
        assert_eq!(framed, usize::from(find_pre_tokenizer(Some(name)).unwrap().add_bos), "{name}");
    }
}

#[test]
fn metadata_that_does_not_fit_is_refused() {
    let spm = sentence_piece_metadata;
    let bpe = || byte_level_metadata("gpt-2");
    for (gguf, part) in [
        (GgufTokenizer { model: "bert".into(), ..bpe() }, "known kinds are gpt2 and llama"),
        (GgufTokenizer { pre: Some("new".into()), ..bpe() }, "known are default, gpt-2"),
        (GgufTokenizer { tokens: Vec::new(), ..bpe() }, "0 tokens"),
        (GgufTokenizer { merges: vec!["ab".into()], ..bpe() }, "`ab` is not two tokens"),
        (GgufTokenizer { merges: vec!["a zz".into()], ..bpe() }, "tokenizer.ggml.merges"),
        (GgufTokenizer { merges: vec![String::new()], ..bpe() }, "tokenizer.ggml.merges"),
        (GgufTokenizer { token_types: vec![1], ..bpe() }, "tokenizer.ggml.token_type: 1 entries"),
        (GgufTokenizer { scores: vec![f32::NAN; 273], ..spm() }, "score of token"),
        (GgufTokenizer { scores: Vec::new(), ..spm() }, "needs one score per token"),
        (GgufTokenizer { bos: None, ..spm() }, "tokenizer.ggml.bos_token_id is absent"),
        (GgufTokenizer { eos: Some(9999), ..spm() }, "tokenizer.ggml.eos_token_id"),
    ] {
        let gguf = match gguf.scores.len() {
            273 => GgufTokenizer { scores: vec![f32::NAN; gguf.tokens.len()], ..gguf },
            _ => gguf,
        };
        let error = Tokenizer::from_gguf(&gguf).unwrap_err().to_string();
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}
