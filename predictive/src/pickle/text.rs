//! Texts and long integers as the opcodes spell them.

use std::fmt::Write;

/// UTF-8 in which lone surrogates are replaced.
pub(super) fn utf8(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Latin-1.
pub(super) fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// The bytes of a text in Latin-1; `None` when a character is beyond it.
pub(super) fn to_latin1(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|character| u8::try_from(u32::from(character)).ok()).collect()
}

/// Latin-1 with `\uXXXX` and `\UXXXXXXXX`, as protocol 0 writes texts.
pub(super) fn raw_unicode_escape(line: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = match (byte, after.first()) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            _ => {
                text.push(char::from(byte));
                rest = after;
                continue;
            }
        };
        let hex = std::str::from_utf8(after.get(1..=digits)?).ok()?;
        let code = u32::from_str_radix(hex, 16).ok()?;
        text.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
        rest = &after[1 + digits..];
    }
    Some(text)
}

/// A quoted string with Python's escapes, as protocol 0 of Python 2 writes byte strings.
pub(super) fn quoted(line: &[u8]) -> Option<String> {
    let (&quote, rest) = line.split_first()?;
    let (&last, mut rest) = rest.split_last()?;
    if quote != last || !matches!(quote, b'\'' | b'"') {
        return None;
    }
    let mut text = String::with_capacity(rest.len());
    while let Some((&byte, after)) = rest.split_first() {
        let (character, after) = match (byte, after) {
            (b'\\', [b'x', digits @ ..]) => {
                let hex = std::str::from_utf8(digits.get(..2)?).ok()?;
                (u8::from_str_radix(hex, 16).ok()?, &digits[2..])
            }
            (b'\\', [escaped, after @ ..]) => match escaped {
                b'n' => (b'\n', after),
                b'r' => (b'\r', after),
                b't' => (b'\t', after),
                b'0' => (0, after),
                b'\\' | b'\'' | b'"' => (*escaped, after),
                _ => return None,
            },
            _ => (byte, after),
        };
        text.push(char::from(character));
        rest = after;
    }
    Some(text)
}

/// A little-endian two's complement integer of more than 64 bits in decimal.
pub(super) fn decimal(bytes: &[u8]) -> String {
    let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
    let mut magnitude = bytes.to_vec();
    if negative {
        let mut carry = true;
        for byte in &mut magnitude {
            (*byte, carry) = (!*byte).overflowing_add(u8::from(carry));
        }
    }
    let mut groups = Vec::new();
    while magnitude.iter().any(|&byte| byte != 0) {
        let mut remainder = 0u64;
        for byte in magnitude.iter_mut().rev() {
            let value = remainder * 256 + u64::from(*byte);
            *byte =
                u8::try_from(value / 1_000_000_000).expect("the remainder is below the divisor");
            remainder = value % 1_000_000_000;
        }
        groups.push(remainder);
    }
    let mut text = String::from(if negative { "-" } else { "" });
    let mut groups = groups.iter().rev();
    let _ = write!(text, "{}", groups.next().copied().unwrap_or_default());
    groups.for_each(|group| {
        let _ = write!(text, "{group:09}");
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_integers_in_decimal() {
        let check = |value: i128| assert_eq!(decimal(&value.to_le_bytes()), value.to_string());
        [0, 1, -1, 999_999_999, 1_000_000_000, i128::MAX, i128::MIN, -(1 << 64)]
            .into_iter()
            .for_each(check);
    }

    #[test]
    fn escapes() {
        let (plain, escaped) = (br"a\u00e9\U0001f600\n", br"'a\x41\'\\'");
        assert_eq!(raw_unicode_escape(plain).as_deref(), Some("a\u{e9}\u{1f600}\\n"));
        assert_eq!(quoted(escaped).as_deref(), Some("aA'\\"));
        assert_eq!(quoted(br"'a"), None);
        assert_eq!(quoted(br"'\x4'"), None);
        assert_eq!(quoted(b"'"), None);
    }
}
