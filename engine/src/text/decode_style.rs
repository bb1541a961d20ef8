//! How a tokenizer's tokens become text, read off its decoder.
//!
//! Nearly every language model has one of two decoders: the byte-level alphabet, or SentencePiece pieces
//! with byte fallback. For both, text is the concatenation of each token's bytes, which makes decoding
//! incremental and exact. Any other decoder is left to the `tokenizers` library.

use serde_json::Value;

use super::byte_alphabet;

/// U+2581, SentencePiece's space.
pub(crate) const SPACE_MARK: char = '\u{2581}';

/// How tokens become text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecodeStyle {
    /// Tokens are written in the byte-level alphabet.
    ByteLevel,
    /// `▁` is a space and `<0xNN>` a byte; the text's first space may be dropped.
    SentencePiece {
        /// Encoding put a space before the text, decoding takes it off.
        strip_leading_space: bool,
    },
    /// The library's decoder, which may look at several tokens at once.
    Library,
}

impl DecodeStyle {
    /// The style of a decoder as `tokenizer.json` writes it.
    pub(crate) fn of_decoder(decoder: &Value) -> Self {
        let steps = match decoder["type"].as_str() {
            Some("Sequence") => decoder["decoders"].as_array().map_or(&[][..], Vec::as_slice),
            Some(_) => std::slice::from_ref(decoder),
            None => return Self::Library,
        };
        if let [step] = steps
            && step["type"] == "ByteLevel"
        {
            return Self::ByteLevel;
        }
        match steps {
            [replace, fallback, fuse] if is_sentence_piece(replace, fallback, fuse) => {
                Self::SentencePiece { strip_leading_space: false }
            }
            [replace, fallback, fuse, strip]
                if is_sentence_piece(replace, fallback, fuse) && strips_one_space(strip) =>
            {
                Self::SentencePiece { strip_leading_space: true }
            }
            _ => Self::Library,
        }
    }

    /// Appends the bytes of a token.
    pub(crate) fn token_bytes(self, token: &str, out: &mut Vec<u8>) {
        match self {
            Self::ByteLevel => byte_alphabet::decode_into(token, out),
            Self::SentencePiece { .. } => match byte_token(token) {
                Some(byte) => out.push(byte),
                None => {
                    out.extend_from_slice(token.replace(SPACE_MARK, " ").as_bytes());
                }
            },
            Self::Library => out.extend_from_slice(token.as_bytes()),
        }
    }

    /// The text's first space is not part of it.
    pub(crate) fn strips_leading_space(self) -> bool {
        self == Self::SentencePiece { strip_leading_space: true }
    }
}

/// The byte of a `<0xNN>` token.
pub(crate) fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_hex = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    is_hex.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

fn is_sentence_piece(replace: &Value, fallback: &Value, fuse: &Value) -> bool {
    replace["type"] == "Replace"
        && replace["pattern"]["String"] == "\u{2581}"
        && replace["content"] == " "
        && fallback["type"] == "ByteFallback"
        && fuse["type"] == "Fuse"
}

fn strips_one_space(strip: &Value) -> bool {
    strip["type"] == "Strip" && strip["content"] == " " && strip["start"] == 1 && strip["stop"] == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn styles_of_decoders() {
        let replace = json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "});
        let strip = json!({"type": "Strip", "content": " ", "start": 1, "stop": 0});
        let (fallback, fuse) = (json!({"type": "ByteFallback"}), json!({"type": "Fuse"}));
        let sequence = |steps: &[&Value]| json!({"type": "Sequence", "decoders": steps});
        for (decoder, expected) in [
            (json!({"type": "ByteLevel", "add_prefix_space": true}), DecodeStyle::ByteLevel),
            (json!({"type": "WordPiece"}), DecodeStyle::Library),
            (Value::Null, DecodeStyle::Library),
            (
                sequence(&[&replace, &fallback, &fuse]),
                DecodeStyle::SentencePiece { strip_leading_space: false },
            ),
            (
                sequence(&[&replace, &fallback, &fuse, &strip]),
                DecodeStyle::SentencePiece { strip_leading_space: true },
            ),
            (sequence(&[&replace, &fuse, &strip]), DecodeStyle::Library),
            (sequence(&[]), DecodeStyle::Library),
        ] {
            assert_eq!(DecodeStyle::of_decoder(&decoder), expected, "{decoder}");
        }
    }

    #[test]
    fn byte_tokens() {
        assert_eq!(byte_token("<0x0A>"), Some(10));
        assert_eq!(byte_token("<0xfe>"), Some(0xfe));
        for text in ["<0x0>", "<0x00A>", "<0x+1>", "0x0A", "<0xZZ>"] {
            assert_eq!(byte_token(text), None, "{text}");
        }
    }
}
