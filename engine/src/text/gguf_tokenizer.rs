//! Tokenizers from GGUF metadata.
//!
//! `gpt2` is byte-level BPE: vocabulary and merges are in the file, the expressions that cut the text into
//! words are only named (`tokenizer.ggml.pre`) and come from [`PRE_TOKENIZERS`]. `llama` is SentencePiece
//! BPE: the file has a score per token and the merges follow from them. Normalisation is as the original
//! tokenizers have it. Other kinds (`t5`, `bert`, `rwkv`) are refused.

use std::collections::HashMap;

use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::bpe::{BPE, BpeBuilder, Merges, Vocab};
use tokenizers::normalizers::{NFC, NormalizerWrapper, Prepend, Replace, Sequence};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreSequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer as Library};
use tokenmill_scheduler::TokenId;

use super::decode_style::DecodeStyle;
use super::tokenizer::{Inner, Tokenizer};
use super::vocabulary::{MAX_VOCABULARY, Vocabulary};
use super::{TextError, catch_panic};
use crate::weights::gguf::{GgufTokenizer, token_type};

/// Longest token of a SentencePiece vocabulary: deriving its merges takes quadratic time.
const MAX_PIECE_BYTES: usize = 1024;

/// A way to cut text into words, by its names in `tokenizer.ggml.pre`.
struct PreTokenizer {
    names: &'static [&'static str],
    /// Applied in turn, each to the pieces of the one before.
    patterns: &'static [&'static str],
    /// A word that is a token is that token, whatever the merges say.
    ignore_merges: bool,
    /// Text is brought into Unicode's composed form first.
    nfc: bool,
    /// Prompts start with the begin-of-sequence token unless the file says otherwise.
    add_bos: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEEPSEEK3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;
/// DeepSeek LLM names its letters one range after the other.
const DEEPSEEK_LETTERS: &str = r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\x{1F7D}ᾀ-ᾴᾶ-ᾼ\x{1FBE}ῂ-ῄῆ-ῌῐ-\x{1FD3}ῖ-\x{1FDB}ῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\x{2126}ℨ\x{212A}-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";
const DEEPSEEK_PUNCTUATION: &str = r"\s?[!-/:-~！-／：-～‘-‟　-。]+";
const DEEPSEEK_CJK: &str = r"[一-龥ࠀ-一가-퟿]+";

/// A row with everything off.
const PLAIN: PreTokenizer =
    PreTokenizer { names: &[], patterns: &[], ignore_merges: false, nfc: false, add_bos: false };

/// Every pre-tokenizer. The expressions are those of the models' own `tokenizer.json`; the names are
/// llama.cpp's.
static PRE_TOKENIZERS: &[PreTokenizer] = &[
    PreTokenizer {
        names: &["default"],
        patterns: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
        ..PLAIN
    },
    PreTokenizer {
        names: &["gpt-2", "gpt2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling"],
        patterns: &[GPT2],
        ..PLAIN
    },
    PreTokenizer {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        patterns: &[r"\p{N}", GPT2],
        ..PLAIN
    },
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2"],
        patterns: &[LLAMA3],
        ignore_merges: true,
        add_bos: true,
        ..PLAIN
    },
    PreTokenizer { names: &["dbrx", "smaug-bpe", "chatglm-bpe"], patterns: &[LLAMA3], ..PLAIN },
    PreTokenizer { names: &["qwen2"], patterns: &[QWEN2], nfc: true, ..PLAIN },
    PreTokenizer { names: &["qwen35"], patterns: &[QWEN35], nfc: true, ..PLAIN },
    PreTokenizer {
        names: &["deepseek-r1-qwen", "stablelm2", "hunyuan", "megrez"],
        patterns: &[QWEN2],
        ..PLAIN
    },
    PreTokenizer {
        names: &["tekken"],
        patterns: &[TEKKEN],
        ignore_merges: true,
        add_bos: true,
        ..PLAIN
    },
    PreTokenizer { names: &["gpt-4o", "llama4"], patterns: &[GPT4O], ..PLAIN },
    PreTokenizer {
        names: &["deepseek-llm"],
        patterns: &[
            r"[\r\n]",
            DEEPSEEK_LETTERS,
            DEEPSEEK_PUNCTUATION,
            r"\s+$",
            DEEPSEEK_CJK,
            r"\p{N}+",
        ],
        ..PLAIN
    },
    PreTokenizer {
        names: &["deepseek-coder"],
        patterns: &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_CJK, r"\p{N}"],
        ..PLAIN
    },
    PreTokenizer {
        names: &["deepseek-v3"],
        patterns: &[r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3],
        ..PLAIN
    },
    PreTokenizer {
        names: &["falcon"],
        patterns: &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"],
        ..PLAIN
    },
];

impl Tokenizer {
    /// The tokenizer described by a GGUF file.
    ///
    /// # Errors
    /// The kind or the pre-tokenizer is not known, or the metadata does not fit together.
    pub fn from_gguf(gguf: &GgufTokenizer) -> Result<Self, TextError> {
        check_shape(gguf)?;
        catch_panic(|| build(gguf))
            .map_err(|message| TextError::invalid("tokenizer.ggml", message))?
    }
}

fn check_shape(gguf: &GgufTokenizer) -> Result<(), TextError> {
    let len = gguf.tokens.len();
    if len == 0 || len > MAX_VOCABULARY {
        let message = format!("{len} tokens; there must be 1 to {MAX_VOCABULARY}");
        return Err(TextError::invalid("tokenizer.ggml.tokens", message));
    }
    for (key, found) in [("scores", gguf.scores.len()), ("token_type", gguf.token_types.len())] {
        if found != 0 && found != len {
            let message = format!("{found} entries for {len} tokens");
            return Err(TextError::invalid(format!("tokenizer.ggml.{key}"), message));
        }
    }
    for (key, id) in [("bos", gguf.bos), ("eos", gguf.eos), ("unknown", gguf.unk)] {
        if id.is_some_and(|id| id as usize >= len) {
            let message = format!("{id:?} is not one of the {len} tokens");
            return Err(TextError::invalid(format!("tokenizer.ggml.{key}_token_id"), message));
        }
    }
    Ok(())
}

fn build(gguf: &GgufTokenizer) -> Result<Tokenizer, TextError> {
    let (mut library, style, add_bos) = match gguf.model.as_str() {
        "gpt2" => byte_level(gguf)?,
        "llama" => sentence_piece(gguf)?,
        other => {
            let message = format!("`{other}` is not supported; known kinds are gpt2 and llama");
            return Err(TextError::invalid("tokenizer.ggml.model", message));
        }
    };
    library
        .add_tokens(added_tokens(gguf))
        .map_err(|e| TextError::invalid("tokenizer.ggml.tokens", e.to_string()))?;
    let mut vocabulary = Vocabulary::default();
    for (index, token) in gguf.tokens.iter().enumerate() {
        let special = kind(gguf, index) == token_type::CONTROL;
        vocabulary.push(special, |out| style.token_bytes(token, out))?;
    }
    let prefix = framing(gguf.add_bos.unwrap_or(add_bos), gguf.bos, "bos")?;
    let suffix = framing(gguf.add_eos.unwrap_or(false), gguf.eos, "eos")?;
    let (bos, eos) = (gguf.bos, gguf.eos);
    Ok(Tokenizer::from_inner(Inner { library, vocabulary, style, prefix, suffix, bos, eos }))
}

fn framing(wanted: bool, id: Option<TokenId>, name: &str) -> Result<Vec<TokenId>, TextError> {
    match (wanted, id) {
        (false, _) => Ok(Vec::new()),
        (true, Some(id)) => Ok(vec![id]),
        (true, None) => Err(TextError::invalid(
            format!("tokenizer.ggml.add_{name}_token"),
            format!("prompts need this token, but tokenizer.ggml.{name}_token_id is absent"),
        )),
    }
}

fn kind(gguf: &GgufTokenizer, index: usize) -> i32 {
    gguf.token_types.get(index).copied().unwrap_or(token_type::NORMAL)
}

/// Control and user-defined tokens are found in the text before anything else is done to it.
fn added_tokens(gguf: &GgufTokenizer) -> Vec<AddedToken> {
    let mut added = Vec::new();
    for (index, token) in gguf.tokens.iter().enumerate() {
        let special = kind(gguf, index) == token_type::CONTROL;
        if special || kind(gguf, index) == token_type::USER_DEFINED {
            added.push(AddedToken::from(token.clone(), special).normalized(false));
        }
    }
    added
}

/// Ids by text; of equal tokens the first counts.
fn ids_by_token(gguf: &GgufTokenizer) -> Vocab {
    let mut ids = Vocab::default();
    for (id, token) in (0..).zip(&gguf.tokens) {
        ids.entry(token.clone()).or_insert(id);
    }
    ids
}

fn finish_bpe(builder: BpeBuilder) -> Result<BPE, TextError> {
    builder.build().map_err(|e| TextError::invalid("tokenizer.ggml.merges", e.to_string()))
}

/// Byte-level BPE.
fn byte_level(gguf: &GgufTokenizer) -> Result<(Library, DecodeStyle, bool), TextError> {
    let pre = find_pre_tokenizer(gguf.pre.as_deref())?;
    let mut merges: Merges = Vec::with_capacity(gguf.merges.len());
    for merge in &gguf.merges {
        // The left part may not be empty, so its own first character may be a space.
        let pair = merge.char_indices().skip(1).find(|(_, c)| *c == ' ').map(|(at, _)| at);
        let (left, right) = pair.map(|at| (&merge[..at], &merge[at + 1..])).ok_or_else(|| {
            let message = format!("`{merge}` is not two tokens with a space between");
            TextError::invalid("tokenizer.ggml.merges", message)
        })?;
        merges.push((left.to_owned(), right.to_owned()));
    }
    let builder = BPE::builder()
        .vocab_and_merges(ids_by_token(gguf), merges)
        .ignore_merges(pre.ignore_merges);
    let mut library = Library::new(finish_bpe(builder)?);
    let mut steps = Vec::new();
    for pattern in pre.patterns {
        let pattern = SplitPattern::Regex((*pattern).to_owned());
        let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
            .map_err(|e| TextError::invalid("tokenizer.ggml.pre", e.to_string()))?;
        steps.push(PreTokenizerWrapper::Split(split));
    }
    let alphabet = ByteLevel::new(false, true, false);
    steps.push(PreTokenizerWrapper::ByteLevel(alphabet));
    library.with_pre_tokenizer(Some(PreSequence::new(steps)));
    library.with_decoder(Some(DecoderWrapper::ByteLevel(alphabet)));
    if pre.nfc {
        set_normalizer(&mut library, NormalizerWrapper::NFC(NFC))?;
    }
    Ok((library, DecodeStyle::ByteLevel, pre.add_bos))
}

fn find_pre_tokenizer(name: Option<&str>) -> Result<&'static PreTokenizer, TextError> {
    let name = name.unwrap_or("default");
    PRE_TOKENIZERS.iter().find(|row| row.names.contains(&name)).ok_or_else(|| {
        let known: Vec<&str> = PRE_TOKENIZERS.iter().flat_map(|row| row.names).copied().collect();
        let message = format!("`{name}` is not known; known are {}", known.join(", "));
        TextError::invalid("tokenizer.ggml.pre", message)
    })
}

/// SentencePiece BPE.
fn sentence_piece(gguf: &GgufTokenizer) -> Result<(Library, DecodeStyle, bool), TextError> {
    if gguf.scores.is_empty() {
        let message = "absent; a tokenizer of kind llama needs one score per token";
        return Err(TextError::invalid("tokenizer.ggml.scores", message));
    }
    let mut builder = BPE::builder()
        .vocab_and_merges(ids_by_token(gguf), merges_by_score(gguf)?)
        .fuse_unk(true)
        .byte_fallback(true);
    if let Some(unknown) = gguf.unk {
        builder = builder.unk_token(gguf.tokens[unknown as usize].clone());
    }
    let mut library = Library::new(finish_bpe(builder)?);
    let space = Replace::new(" ", "\u{2581}")
        .map_err(|e| TextError::invalid("tokenizer.ggml", e.to_string()))?;
    let space = NormalizerWrapper::Replace(space);
    let prefix = gguf.add_space_prefix.unwrap_or(true);
    let normalizer = match prefix {
        true => {
            let prepend = NormalizerWrapper::Prepend(Prepend::new("\u{2581}".to_owned()));
            NormalizerWrapper::Sequence(Sequence::new(vec![prepend, space]))
        }
        false => space,
    };
    set_normalizer(&mut library, normalizer)?;
    Ok((library, DecodeStyle::SentencePiece { strip_leading_space: prefix }, true))
}

fn set_normalizer(library: &mut Library, normalizer: NormalizerWrapper) -> Result<(), TextError> {
    library
        .with_normalizer(Some(normalizer))
        .map(|_| ())
        .map_err(|e| TextError::invalid("tokenizer.ggml", e.to_string()))
}

/// Merges that give SentencePiece's result: every way to put a token together from two others, the best
/// scores first; the order of ties is that of `transformers`' converter.
fn merges_by_score(gguf: &GgufTokenizer) -> Result<Merges, TextError> {
    let mut ids: HashMap<&str, u32> = HashMap::with_capacity(gguf.tokens.len());
    for (index, token) in gguf.tokens.iter().enumerate() {
        if matches!(kind(gguf, index), token_type::NORMAL | token_type::USER_DEFINED) {
            ids.entry(token).or_insert(index as u32);
        }
    }
    let mut merges = Vec::new();
    for (index, token) in gguf.tokens.iter().enumerate() {
        if ids.get(token.as_str()).copied() != Some(index as u32) {
            continue;
        }
        if token.len() > MAX_PIECE_BYTES {
            let message = format!("token {index} is longer than {MAX_PIECE_BYTES} bytes");
            return Err(TextError::invalid("tokenizer.ggml.tokens", message));
        }
        let score = gguf.scores[index];
        if !score.is_finite() {
            let message = format!("the score of token {index} is {score}");
            return Err(TextError::invalid("tokenizer.ggml.scores", message));
        }
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(&l), Some(&r)) = (ids.get(left), ids.get(right)) {
                merges.push((score, left, right, index, l, r));
            }
        }
    }
    merges.sort_by(|a, b| {
        let lengths =
            |m: &(f32, &str, &str, usize, u32, u32)| (m.1.chars().count(), m.2.chars().count());
        b.0.total_cmp(&a.0)
            .then_with(|| lengths(b).cmp(&lengths(a)))
            .then_with(|| (a.3, a.4, a.5).cmp(&(b.3, b.4, b.5)))
    });
    Ok(merges.into_iter().map(|m| (m.1.to_owned(), m.2.to_owned())).collect())
}

#[cfg(test)]
mod tests;
