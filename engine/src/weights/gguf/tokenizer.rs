//! The tokenizer that a GGUF file carries in its metadata (`tokenizer.ggml.*`).

use super::metadata::Metadata;
use crate::load::LoadError;

/// Kinds of token, as `tokenizer.ggml.token_type` numbers them.
pub mod token_type {
    /// Ordinary text.
    pub const NORMAL: i32 = 1;
    /// The unknown token.
    pub const UNKNOWN: i32 = 2;
    /// A special token that is never text.
    pub const CONTROL: i32 = 3;
    /// Added by the user: matched before the vocabulary, written as text.
    pub const USER_DEFINED: i32 = 4;
    /// Reserved.
    pub const UNUSED: i32 = 5;
    /// One raw byte, named `<0xAB>`.
    pub const BYTE: i32 = 6;
}

/// Texts of control tokens that end a turn or a document; a GGUF file seldom lists more than one
/// of them as its end, and instruction-tuned models emit the others (the same list of names that
/// llama.cpp looks for).
const END_TEXTS: [&str; 7] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eom_id|>",
];

/// `tokenizer.ggml.*`, checked for consistency but not interpreted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufTokenizer {
    /// Algorithm: `gpt2` (byte-level BPE), `llama` (SentencePiece), ...
    pub model: String,
    /// Name of the pre-tokenizer's regular expression (`smollm`, `llama-bpe`, `qwen2`, ...).
    pub pre: Option<String>,
    /// Text of every token, by id; spelled as the algorithm spells them (`Ġthe`, `▁the`).
    pub tokens: Vec<String>,
    /// SentencePiece scores, one per token, or empty.
    pub scores: Vec<f32>,
    /// Kind of each token (see [`token_type`]), one per token, or empty.
    pub token_types: Vec<i32>,
    /// BPE merges, best first, as `left right`.
    pub merges: Vec<String>,
    /// Beginning of a sequence.
    pub bos: Option<u32>,
    /// End of a sequence.
    pub eos: Option<u32>,
    /// End of a turn.
    pub eot: Option<u32>,
    /// End of a message.
    pub eom: Option<u32>,
    /// Unknown token.
    pub unk: Option<u32>,
    /// Padding token.
    pub pad: Option<u32>,
    /// Whether an encoded prompt starts with `bos`, when the file says.
    pub add_bos: Option<bool>,
    /// Whether an encoded prompt ends with `eos`, when the file says.
    pub add_eos: Option<bool>,
    /// Whether SentencePiece puts a space before the text, when the file says.
    pub add_space_prefix: Option<bool>,
    /// Default chat template.
    pub chat_template: Option<String>,
    /// Chat template for requests with tools.
    pub tool_use_template: Option<String>,
}

impl GgufTokenizer {
    /// Reads `tokenizer.*`; arrays of other lengths and ids outside the vocabulary are errors.
    ///
    /// # Errors
    /// Names the metadata key.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, LoadError> {
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        let tokens = metadata.strings(&key("tokens"))?.unwrap_or_default().to_vec();
        let scores = metadata.floats(&key("scores"))?.unwrap_or_default();
        let token_types = metadata.integers(&key("token_type"))?.unwrap_or_default();
        for (name, len) in [("scores", scores.len()), ("token_type", token_types.len())] {
            if len != 0 && len != tokens.len() {
                let reason = format!("{len} entries for {} tokens", tokens.len());
                return Err(LoadError::config(key(name), reason));
            }
        }
        let id = |name: &str| {
            let key = key(name);
            match metadata.u32(&key)? {
                Some(id) if (id as usize) < tokens.len() => Ok(Some(id)),
                // Converters write the largest value for "none".
                None | Some(u32::MAX) => Ok(None),
                Some(id) => {
                    let reason = format!("token {id} of a vocabulary of {}", tokens.len());
                    Err(LoadError::config(key, reason))
                }
            }
        };
        Ok(Self {
            model: metadata.string(&key("model"))?.unwrap_or_default().to_owned(),
            pre: metadata.string(&key("pre"))?.map(str::to_owned),
            scores,
            token_types,
            merges: metadata.strings(&key("merges"))?.unwrap_or_default().to_vec(),
            bos: id("bos_token_id")?,
            eos: id("eos_token_id")?,
            eot: id("eot_token_id")?,
            eom: id("eom_token_id")?,
            unk: id("unknown_token_id")?,
            pad: id("padding_token_id")?,
            add_bos: metadata.bool(&key("add_bos_token"))?,
            add_eos: metadata.bool(&key("add_eos_token"))?,
            add_space_prefix: metadata.bool(&key("add_space_prefix"))?,
            chat_template: metadata.string("tokenizer.chat_template")?.map(str::to_owned),
            tool_use_template: metadata
                .string("tokenizer.chat_template.tool_use")?
                .map(str::to_owned),
            tokens,
        })
    }

    /// Text of a token.
    pub fn text(&self, id: u32) -> Option<&str> {
        self.tokens.get(id as usize).map(String::as_str)
    }

    /// Every token that ends a completion: those that the metadata names, then control tokens
    /// known to end a turn.
    pub fn end_tokens(&self) -> Vec<u32> {
        let mut ends: Vec<u32> = [self.eos, self.eot, self.eom].into_iter().flatten().collect();
        for (id, kind) in self.token_types.iter().enumerate() {
            let text = self.tokens[id].as_str();
            if *kind == token_type::CONTROL && END_TEXTS.contains(&text) {
                ends.push(id as u32);
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        ends.retain(|id| seen.insert(*id));
        ends
    }
}
