//! UTF-8 decoding in pieces, with the result of `String::from_utf8_lossy` over the whole.

const REPLACEMENT: &str = "\u{fffd}";

/// Bytes of at most one unfinished character, between pushes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Utf8Stream {
    pending: Vec<u8>,
    /// The unfinished character began before the first push: its replacement was already shown.
    shown: bool,
}

impl Utf8Stream {
    /// A stream that goes on after `tail`, the last bytes (three suffice) of a text already shown.
    pub(crate) fn after(tail: &[u8]) -> Self {
        let mut stream = Self::default();
        stream.push(tail, &mut String::new());
        stream.shown = !stream.pending.is_empty();
        stream
    }

    /// Appends the characters that `bytes` complete. An unfinished one at the end is kept; a sequence that
    /// cannot be completed becomes U+FFFD.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut String) {
        if self.pending.is_empty() {
            let rest = self.consume(bytes, out);
            self.pending.extend_from_slice(&bytes[rest..]);
        } else {
            self.pending.extend_from_slice(bytes);
            let joined = std::mem::take(&mut self.pending);
            let rest = self.consume(&joined, out);
            self.pending = joined;
            self.pending.drain(..rest);
        }
    }

    /// Ends the text: an unfinished character becomes U+FFFD.
    pub(crate) fn finish(&mut self, out: &mut String) {
        if !self.pending.is_empty() {
            self.pending.clear();
            self.replace(out);
        }
    }

    /// Decodes all of `bytes` but an unfinished character at the end; returns where that starts.
    fn consume(&mut self, bytes: &[u8], out: &mut String) -> usize {
        let mut start = 0;
        loop {
            let rest = &bytes[start..];
            let error = match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.append(text, out);
                    return bytes.len();
                }
                Err(error) => error,
            };
            let valid = error.valid_up_to();
            self.append(&String::from_utf8_lossy(&rest[..valid]), out);
            start += valid;
            match error.error_len() {
                None => return start,
                Some(invalid) => {
                    self.replace(out);
                    start += invalid;
                }
            }
        }
    }

    fn append(&mut self, text: &str, out: &mut String) {
        if !text.is_empty() {
            self.shown = false;
            out.push_str(text);
        }
    }

    fn replace(&mut self, out: &mut String) {
        if !std::mem::take(&mut self.shown) {
            out.push_str(REPLACEMENT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn in_pieces(bytes: &[u8], size: usize) -> String {
        let (mut stream, mut out) = (Utf8Stream::default(), String::new());
        for piece in bytes.chunks(size) {
            stream.push(piece, &mut out);
        }
        stream.finish(&mut out);
        out
    }

    /// Bytes among which broken and whole sequences are common.
    fn byte() -> impl Strategy<Value = u8> {
        prop::sample::select(vec![
            b'a', 0x80, 0x9f, 0x98, 0xbf, 0xc3, 0xe2, 0x82, 0xac, 0xed, 0xa0, 0xf0, 0xf4, 0xff,
            0xa9,
        ])
    }

    proptest! {
        #[test]
        fn pieces_give_what_the_whole_gives(bytes in prop::collection::vec(byte(), 0..40), size in 1usize..5) {
            prop_assert_eq!(in_pieces(&bytes, size), String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn an_unfinished_character_of_the_text_before_is_completed_or_left_alone() {
        for (tail, bytes, expected) in [
            (&b"x\xf0\x9f\x98"[..], &b"\x80!"[..], "😀!"),
            (b"x\xf0\x9f", b"y", "y"),
            (b"\xe2\x82", b"", ""),
            (b"\xf0", b"\x9f", ""),
            (b"\xf0", b"\xf0", "\u{fffd}"),
            (b"abc", b"\xff", "\u{fffd}"),
        ] {
            let (mut stream, mut out) = (Utf8Stream::after(tail), String::new());
            stream.push(bytes, &mut out);
            stream.finish(&mut out);
            assert_eq!(out, expected, "{tail:x?} {bytes:x?}");
        }
    }
}
