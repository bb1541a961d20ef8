//! The byte-level alphabet of GPT-2: each byte is written as one printable character.
//!
//! Printable ASCII and Latin-1 characters stand for themselves, the other 68 bytes for U+0100 and on, in
//! order (`Ġ` is the space, `Ċ` the line feed). See `bytes_to_unicode` in OpenAI's `encoder.py`.

use std::sync::OnceLock;

/// Characters below this may stand for a byte.
const ALPHABET_END: usize = 0x100 + 68;

fn stands_for_itself(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff)
}

fn bytes_of_chars() -> &'static [Option<u8>; ALPHABET_END] {
    static TABLE: OnceLock<[Option<u8>; ALPHABET_END]> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table = [None; ALPHABET_END];
        let mut next = 0x100;
        for byte in 0..=u8::MAX {
            if stands_for_itself(byte) {
                table[usize::from(byte)] = Some(byte);
            } else {
                table[next] = Some(byte);
                next += 1;
            }
        }
        table
    })
}

/// Appends the bytes that `token` stands for. A token with a character outside of the alphabet (an added
/// token with a plain space, say) stands for its own UTF-8 bytes, as the reference decoder has it.
pub(crate) fn decode_into(token: &str, out: &mut Vec<u8>) {
    let table = bytes_of_chars();
    let start = out.len();
    for c in token.chars() {
        match table.get(c as usize).copied().flatten() {
            Some(byte) => out.push(byte),
            None => {
                out.truncate(start);
                out.extend_from_slice(token.as_bytes());
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(token: &str) -> Vec<u8> {
        let mut out = Vec::new();
        decode_into(token, &mut out);
        out
    }

    #[test]
    fn every_byte_has_exactly_one_character() {
        let mut seen = [0; 256];
        for byte in bytes_of_chars().iter().flatten() {
            seen[usize::from(*byte)] += 1;
        }
        assert_eq!(seen, [1; 256]);
    }

    #[test]
    fn known_characters() {
        assert_eq!(decode("ĠhelloĊ"), b" hello\n");
        assert_eq!(decode("ðŁĺ"), [0xf0, 0x9f, 0x98]);
        assert_eq!(decode("a b"), b"a b");
        assert_eq!(decode("Ġ→"), "Ġ→".as_bytes());
    }
}
