//! JSON as XGBoost writes it. Not a general parser: numeric arrays may hold `NaN` and `Infinity`, and what is skipped is
//! checked for balance only.

use std::borrow::Cow;

use super::source::{MAX_DEPTH, Number, Source, inside};
use crate::error::Fault;

/// A reader of JSON bytes.
pub(super) struct Json<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Json<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn wrong(&self, reason: impl Into<String>) -> Fault {
        Fault::corrupt(format!("byte {}", self.at), reason)
    }

    /// The next byte that is not white space, not consumed.
    fn peek(&mut self) -> Option<u8> {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
        self.bytes.get(self.at).copied()
    }

    fn found(byte: Option<u8>) -> String {
        byte.map_or("the end of the file".into(), |byte| format!("{:?}", char::from(byte)))
    }

    fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        let next = self.peek();
        if next != Some(byte) {
            let (wanted, found) = (char::from(byte), Self::found(next));
            return Err(self.wrong(format!("expected {wanted:?}, found {found}")));
        }
        self.at += 1;
        Ok(())
    }

    /// After an element: whether another follows `,` instead of the end `close`.
    fn more(&mut self, close: u8) -> Result<bool, Fault> {
        let next = self.peek();
        self.at += 1;
        match next {
            Some(b',') => Ok(true),
            Some(byte) if byte == close => Ok(false),
            _ => {
                self.at -= 1;
                let found = Self::found(next);
                Err(self.wrong(format!("expected ',' or {:?}, found {found}", char::from(close))))
            }
        }
    }

    /// The characters of a number, `true`, `NaN` and the like.
    fn word(&mut self) -> Result<&'a str, Fault> {
        self.peek();
        let rest = &self.bytes[self.at..];
        let is_word =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        let length = rest.iter().position(|byte| !is_word(byte)).unwrap_or(rest.len());
        let word = std::str::from_utf8(&rest[..length]).unwrap_or_default();
        if word.is_empty() {
            let found = Self::found(rest.first().copied());
            return Err(self.wrong(format!("expected a number, found {found}")));
        }
        self.at += length;
        Ok(word)
    }

    /// Consumes the string that starts here; the bytes between its quotes, escapes as they are.
    fn raw_string(&mut self) -> Result<&'a [u8], Fault> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => self.at += 2,
                Some(_) => self.at += 1,
                None => return Err(self.wrong("the file ends inside a text")),
            }
        }
        self.at += 1;
        Ok(&self.bytes[start..self.at - 1])
    }

    fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        let raw = self.raw_string()?;
        if raw.contains(&b'\\') {
            // The library's strings are JSON strings: let the JSON crate undo the escapes.
            let quoted = [b"\"", raw, b"\""].concat();
            let text = serde_json::from_slice(&quoted);
            return text.map(Cow::Owned).map_err(|error| self.wrong(error.to_string()));
        }
        let text = std::str::from_utf8(raw);
        text.map(Cow::Borrowed).map_err(|_| self.wrong("a text is not UTF-8"))
    }

    fn parse<T: Number>(&self, word: &str) -> Result<T, Fault> {
        T::from_text(word).ok_or_else(|| {
            let word: String = word.chars().take(40).collect();
            self.wrong(format!("expected a {}, found {word:?}", T::NAME))
        })
    }
}

impl Source for Json<'_> {
    fn object(
        &mut self,
        mut entry: impl FnMut(&mut Self, &str) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.expect(b'{')?;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            let key = self.string()?;
            self.expect(b':')?;
            entry(self, &key).map_err(|fault| inside(&key, fault))?;
            if !self.more(b'}')? {
                return Ok(());
            }
            self.peek();
        }
    }

    fn list(&mut self, mut item: impl FnMut(&mut Self) -> Result<(), Fault>) -> Result<(), Fault> {
        self.expect(b'[')?;
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        for index in 0usize.. {
            item(self).map_err(|fault| inside(&format!("[{index}]"), fault))?;
            if !self.more(b']')? {
                break;
            }
        }
        Ok(())
    }

    fn text(&mut self) -> Result<String, Fault> {
        self.string().map(Cow::into_owned)
    }

    fn number<T: Number>(&mut self) -> Result<T, Fault> {
        let word = self.word()?;
        self.parse(word)
    }

    fn numbers<T: Number>(&mut self) -> Result<Vec<T>, Fault> {
        self.expect(b'[')?;
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Vec::new());
        }
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|&byte| byte == b']').unwrap_or(0);
        let commas = rest[..end].iter().filter(|&&byte| byte == b',').count();
        let mut values = Vec::with_capacity(commas + 1);
        loop {
            let word = self.word()?;
            values.push(self.parse(word)?);
            if !self.more(b']')? {
                return Ok(values);
            }
        }
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn skip(&mut self) -> Result<(), Fault> {
        let mut closers: Vec<u8> = Vec::new();
        loop {
            match self.peek() {
                Some(b'"') => drop(self.raw_string()?),
                Some(open @ (b'{' | b'[')) => {
                    if closers.len() >= MAX_DEPTH {
                        return Err(self.wrong(format!("nested more than {MAX_DEPTH} deep")));
                    }
                    closers.push(if open == b'{' { b'}' } else { b']' });
                    self.at += 1;
                }
                Some(close @ (b'}' | b']')) => {
                    if closers.pop() != Some(close) {
                        return Err(self.wrong(format!("unexpected {:?}", char::from(close))));
                    }
                    self.at += 1;
                }
                Some(b',' | b':') if !closers.is_empty() => self.at += 1,
                _ => drop(self.word()?),
            }
            if closers.is_empty() {
                return Ok(());
            }
        }
    }

    fn finish(&mut self) -> Result<(), Fault> {
        while matches!(self.peek(), Some(0)) {
            self.at += 1;
        }
        match self.peek() {
            None => Ok(()),
            Some(byte) => Err(self.wrong(format!("{:?} follows the model", char::from(byte)))),
        }
    }
}
