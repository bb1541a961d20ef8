//! A model's tokenizer, from `tokenizer.json` or from GGUF metadata.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tokenizers::Tokenizer as Library;
use tokenmill_scheduler::TokenId;

use super::decode_style::DecodeStyle;
use super::vocabulary::{MAX_VOCABULARY, Vocabulary};
use super::{TextError, catch_panic};

/// Text to token ids and back. Immutable; a clone shares everything.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

/// What a tokenizer is made of. The bytes of tokens are kept beside the library's vocabulary: decoding
/// needs them per token, without a copy, and also for tokens that are only part of a character.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) library: Library,
    pub(crate) vocabulary: Vocabulary,
    pub(crate) style: DecodeStyle,
    /// Put around the text with special tokens (GGUF; `tokenizer.json` brings its own post-processor).
    pub(crate) prefix: Vec<TokenId>,
    pub(crate) suffix: Vec<TokenId>,
    pub(crate) bos: Option<TokenId>,
    pub(crate) eos: Option<TokenId>,
}

impl Tokenizer {
    pub(crate) fn from_inner(inner: Inner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// Reads `tokenizer.json` of a model folder, and the names of the special tokens from
    /// `tokenizer_config.json` where there is one.
    ///
    /// # Errors
    /// A file is missing, unreadable or not a tokenizer.
    pub fn from_dir(dir: &Path) -> Result<Self, TextError> {
        let path = dir.join("tokenizer.json");
        if !path.is_file() {
            return Err(TextError::NoTokenizer { dir: dir.to_owned() });
        }
        let bytes = read(&path)?;
        let library = parse_library(&bytes, "tokenizer.json")?;
        let config_path = dir.join("tokenizer_config.json");
        let config = match config_path.is_file() {
            true => serde_json::from_slice(&read(&config_path)?)
                .map_err(|e| TextError::invalid("tokenizer_config.json", e.to_string()))?,
            false => Value::Null,
        };
        let bos = special_token(&library, &config, "bos_token")?;
        let eos = special_token(&library, &config, "eos_token")?;
        Self::from_library(library, bos, eos)
    }

    /// Parses the text of a `tokenizer.json`. It does not name the special tokens, so [`Tokenizer::bos`] and
    /// [`Tokenizer::eos`] are unknown.
    ///
    /// # Errors
    /// The text is not a tokenizer.
    pub fn from_json_bytes(bytes: &[u8]) -> Result<Self, TextError> {
        Self::from_library(parse_library(bytes, "tokenizer.json")?, None, None)
    }

    fn from_library(
        mut library: Library,
        bos: Option<TokenId>,
        eos: Option<TokenId>,
    ) -> Result<Self, TextError> {
        // Both are defaults of the training script; a prompt must come whole.
        library.with_padding(None);
        library
            .with_truncation(None)
            .map_err(|e| TextError::invalid("tokenizer.json", e.to_string()))?;
        let decoder = serde_json::to_value(library.get_decoder()).unwrap_or(Value::Null);
        let style = DecodeStyle::of_decoder(&decoder);
        let vocabulary = vocabulary_of(&library, style)?;
        let (prefix, suffix) = (Vec::new(), Vec::new());
        Ok(Self::from_inner(Inner { library, vocabulary, style, prefix, suffix, bos, eos }))
    }

    /// Token ids of `text`. Special tokens written out in the text become those tokens. With `add_special`
    /// the model's own framing (a begin-of-sequence token, for most) is added.
    ///
    /// # Errors
    /// The tokenizer cannot represent the text (no unknown token, no byte fallback).
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<TokenId>, TextError> {
        let inner = &*self.inner;
        let encoding = catch_panic(|| inner.library.encode_fast(text, add_special))
            .map_err(TextError::Encode)?
            .map_err(|e| TextError::Encode(e.to_string()))?;
        if !add_special || (inner.prefix.is_empty() && inner.suffix.is_empty()) {
            return Ok(encoding.get_ids().to_vec());
        }
        Ok([&inner.prefix, encoding.get_ids(), &inner.suffix].concat())
    }

    /// Text of `ids`. Bytes that are not UTF-8 become U+FFFD, one per maximal invalid part; ids beyond the
    /// vocabulary have no text. `skip_special` leaves control tokens out.
    #[must_use]
    pub fn decode(&self, ids: &[TokenId], skip_special: bool) -> String {
        if self.inner.style == DecodeStyle::Library {
            return self.decode_by_library(ids, skip_special);
        }
        let mut bytes = Vec::new();
        for &id in ids {
            bytes.extend_from_slice(self.visible_bytes(id, skip_special));
        }
        let stripped = match self.inner.style.strips_leading_space() {
            true => bytes.strip_prefix(b" ").unwrap_or(&bytes),
            false => &bytes,
        };
        String::from_utf8_lossy(stripped).into_owned()
    }

    /// The library's own decoding; a decoder that fails has no text.
    pub(crate) fn decode_by_library(&self, ids: &[TokenId], skip_special: bool) -> String {
        let decoded = catch_panic(|| self.inner.library.decode(ids, skip_special));
        decoded.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// The token's bytes, or nothing if it is to be skipped.
    pub(crate) fn visible_bytes(&self, id: TokenId, skip_special: bool) -> &[u8] {
        match skip_special && self.inner.vocabulary.is_special(id) {
            true => &[],
            false => self.inner.vocabulary.bytes(id),
        }
    }

    pub(crate) fn style(&self) -> DecodeStyle {
        self.inner.style
    }

    /// The token's true bytes, which may be a part of a character. Empty beyond the vocabulary.
    #[must_use]
    pub fn token_bytes(&self, id: TokenId) -> Vec<u8> {
        self.piece(id).to_vec()
    }

    /// As [`Tokenizer::token_bytes`], without a copy.
    #[must_use]
    pub fn piece(&self, id: TokenId) -> &[u8] {
        self.inner.vocabulary.bytes(id)
    }

    /// The token's bytes as text, with U+FFFD for what is not UTF-8 alone.
    #[must_use]
    pub fn token_text(&self, id: TokenId) -> String {
        String::from_utf8_lossy(self.piece(id)).into_owned()
    }

    /// The token spelled `token` in the vocabulary (`<|im_end|>`, `Ġthe`, `▁the`).
    #[must_use]
    pub fn token_id(&self, token: &str) -> Option<TokenId> {
        self.inner.library.token_to_id(token)
    }

    /// One more than the highest token id. The model may have more logits than that.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.inner.vocabulary.len()
    }

    /// A control token such as the end of a turn.
    #[must_use]
    pub fn is_special(&self, id: TokenId) -> bool {
        self.inner.vocabulary.is_special(id)
    }

    /// The begin-of-sequence token, where the files name one.
    #[must_use]
    pub fn bos(&self) -> Option<TokenId> {
        self.inner.bos
    }

    /// The end-of-sequence token, where the files name one.
    #[must_use]
    pub fn eos(&self) -> Option<TokenId> {
        self.inner.eos
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TextError> {
    std::fs::read(path).map_err(|source| TextError::Read { path: path.to_owned(), source })
}

fn parse_library(bytes: &[u8], what: &str) -> Result<Library, TextError> {
    catch_panic(|| Library::from_bytes(bytes))
        .map_err(|message| TextError::invalid(what, message))?
        .map_err(|e| TextError::invalid(what, e.to_string()))
}

/// Pieces of every id, as the library spells them.
fn vocabulary_of(library: &Library, style: DecodeStyle) -> Result<Vocabulary, TextError> {
    let highest = library.get_vocab(true).into_values().max();
    let len = highest.map_or(0, |id| id as usize + 1);
    if len > MAX_VOCABULARY {
        let message = format!("token id {} is above the limit of {MAX_VOCABULARY}", len - 1);
        return Err(TextError::invalid("tokenizer.json", message));
    }
    let added = library.get_added_vocabulary();
    let mut vocabulary = Vocabulary::default();
    for id in 0..len as TokenId {
        let token = library.id_to_token(id).unwrap_or_default();
        let special = added.is_special_token(&token);
        vocabulary.push(special, |out| style.token_bytes(&token, out))?;
    }
    Ok(vocabulary)
}

/// `config[key]`, a token or an object with its `content`.
fn special_token(
    library: &Library,
    config: &Value,
    key: &str,
) -> Result<Option<TokenId>, TextError> {
    let token = match &config[key] {
        Value::Null => return Ok(None),
        Value::String(token) => token,
        other => other["content"].as_str().ok_or_else(|| {
            let message = format!("{key} is neither a string nor an object with `content`");
            TextError::invalid("tokenizer_config.json", message)
        })?,
    };
    Ok(library.token_to_id(token))
}

#[cfg(test)]
mod tests;
