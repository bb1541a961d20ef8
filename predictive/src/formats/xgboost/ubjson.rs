//! UBJSON as XGBoost writes it: big-endian, lengths of any integer type, typed arrays without a closing bracket.

use super::bytes::Bytes;
use super::source::{MAX_DEPTH, Number, Source, inside};
use crate::error::Fault;

/// The head of an array: the type of all elements, and their number, where they are said.
struct Head {
    marker: Option<u8>,
    count: Option<usize>,
}

/// Bytes of a value of a fixed size.
fn width(marker: u8) -> Option<usize> {
    match marker {
        b'Z' | b'T' | b'F' => Some(0),
        b'i' | b'U' | b'C' => Some(1),
        b'I' => Some(2),
        b'l' | b'd' => Some(4),
        b'L' | b'D' => Some(8),
        _ => None,
    }
}

/// One number from its bytes, which are as many as `marker` says.
fn decode<T: Number>(marker: u8, raw: &[u8]) -> Option<T> {
    match marker {
        b'T' => T::from_int(1),
        b'F' => T::from_int(0),
        b'i' => T::from_int(i64::from(i8::from_be_bytes(*raw.first_chunk()?))),
        b'U' => T::from_int(i64::from(u8::from_be_bytes(*raw.first_chunk()?))),
        b'I' => T::from_int(i64::from(i16::from_be_bytes(*raw.first_chunk()?))),
        b'l' => T::from_int(i64::from(i32::from_be_bytes(*raw.first_chunk()?))),
        b'L' => T::from_int(i64::from_be_bytes(*raw.first_chunk()?)),
        b'd' => T::from_float(f64::from(f32::from_be_bytes(*raw.first_chunk()?))),
        b'D' => T::from_float(f64::from_be_bytes(*raw.first_chunk()?)),
        _ => None,
    }
}

impl<'a> Bytes<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// The next marker; no-ops are passed over.
    fn marker(&mut self) -> Result<u8, Fault> {
        loop {
            match self.take(1)? {
                [b'N'] => {}
                [marker] => return Ok(*marker),
                _ => return Err(self.wrong("expected a marker")),
            }
        }
    }

    fn expect(&mut self, marker: u8, what: &str) -> Result<(), Fault> {
        let found = self.marker()?;
        if found != marker {
            self.at -= 1;
            return Err(self.wrong(format!("expected {what}, found {:?}", char::from(found))));
        }
        Ok(())
    }

    fn scalar<T: Number>(&mut self) -> Result<T, Fault> {
        let marker = self.marker()?;
        let raw = match width(marker) {
            Some(width) => self.take(width)?,
            None => &[],
        };
        self.number_of(marker, raw)
    }

    fn number_of<T: Number>(&self, marker: u8, raw: &[u8]) -> Result<T, Fault> {
        decode(marker, raw).ok_or_else(|| {
            let reason = format!("expected a {}, found a {:?}", T::NAME, char::from(marker));
            self.wrong(reason)
        })
    }

    fn length(&mut self) -> Result<usize, Fault> {
        let length: i64 = self.scalar()?;
        usize::try_from(length).map_err(|_| self.wrong(format!("a length of {length}")))
    }

    fn string(&mut self) -> Result<&'a str, Fault> {
        let length = self.length()?;
        let raw = self.take(length)?;
        std::str::from_utf8(raw).map_err(|_| self.wrong("a text is not UTF-8"))
    }

    /// `$` type and `#` count after `[` or `{`.
    fn head(&mut self) -> Result<Head, Fault> {
        let mut head = Head { marker: None, count: None };
        if self.peek() == Some(b'$') {
            self.at += 1;
            head.marker = Some(self.marker()?);
            if self.peek() != Some(b'#') {
                return Err(self.wrong("a typed array has no count"));
            }
        }
        if self.peek() == Some(b'#') {
            self.at += 1;
            head.count = Some(self.length()?);
        }
        Ok(head)
    }

    /// Whether an open container ends here; consumes its closing marker.
    fn closes(&mut self, close: u8) -> bool {
        while self.peek() == Some(b'N') {
            self.at += 1;
        }
        let closes = self.peek() == Some(close);
        self.at += usize::from(closes);
        closes
    }

    /// Elements of a typed array of a fixed size: the marker's bytes of one and all of them.
    fn packed(&mut self, marker: u8, count: usize) -> Result<(usize, &'a [u8]), Fault> {
        let Some(width) = width(marker).filter(|&width| width > 0) else {
            let marker = char::from(marker);
            return Err(self.wrong(format!("arrays of type {marker:?} are not supported")));
        };
        Ok((width, self.elements(count, width)?))
    }
}

impl Source for Bytes<'_> {
    fn object(
        &mut self,
        mut entry: impl FnMut(&mut Self, &str) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.expect(b'{', "an object")?;
        let head = self.head()?;
        if head.marker.is_some() {
            return Err(self.wrong("typed objects are not supported"));
        }
        let mut left = head.count;
        loop {
            match left.as_mut() {
                Some(0) => return Ok(()),
                Some(left) => *left -= 1,
                None if self.closes(b'}') => return Ok(()),
                None => {}
            }
            let key = self.string()?;
            entry(self, key).map_err(|fault| inside(key, fault))?;
        }
    }

    fn list(&mut self, mut item: impl FnMut(&mut Self) -> Result<(), Fault>) -> Result<(), Fault> {
        self.expect(b'[', "an array")?;
        let head = self.head()?;
        if head.marker.is_some() {
            return Err(self.wrong("expected an array of values, found one of numbers"));
        }
        for index in 0.. {
            let ends = match head.count {
                Some(count) => index == count,
                None => self.closes(b']'),
            };
            if ends {
                break;
            }
            item(self).map_err(|fault| inside(&format!("[{index}]"), fault))?;
        }
        Ok(())
    }

    fn text(&mut self) -> Result<String, Fault> {
        self.expect(b'S', "a text")?;
        self.string().map(str::to_owned)
    }

    fn number<T: Number>(&mut self) -> Result<T, Fault> {
        self.scalar()
    }

    fn numbers<T: Number>(&mut self) -> Result<Vec<T>, Fault> {
        self.expect(b'[', "an array")?;
        match self.head()? {
            Head { marker: Some(marker), count } => {
                let (width, raw) = self.packed(marker, count.unwrap_or(0))?;
                raw.chunks_exact(width).map(|raw| self.number_of(marker, raw)).collect()
            }
            Head { marker: None, count: Some(count) } => {
                let mut values = Vec::with_capacity(count.min(self.bytes.len() - self.at));
                for _ in 0..count {
                    values.push(self.scalar()?);
                }
                Ok(values)
            }
            Head { marker: None, count: None } => {
                let mut values = Vec::new();
                while !self.closes(b']') {
                    values.push(self.scalar()?);
                }
                Ok(values)
            }
        }
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn skip(&mut self) -> Result<(), Fault> {
        let mut open: Vec<(u8, Option<usize>)> = Vec::new();
        loop {
            let marker = self.marker()?;
            match marker {
                b'{' | b'[' => match self.head()? {
                    Head { marker: Some(marker), count } if marker_is_packed(marker) => {
                        self.packed(marker, count.unwrap_or(0))?;
                    }
                    Head { marker: Some(_), .. } => {
                        return Err(self.wrong("this type of array is not supported"));
                    }
                    Head { marker: None, count } => {
                        if open.len() >= MAX_DEPTH {
                            return Err(self.wrong(format!("nested more than {MAX_DEPTH} deep")));
                        }
                        open.push((marker, count));
                    }
                },
                b'S' | b'H' => drop(self.string()?),
                _ => match width(marker) {
                    Some(width) => drop(self.take(width)?),
                    None => {
                        self.at -= 1;
                        return Err(self.wrong(format!("unknown marker {:?}", char::from(marker))));
                    }
                },
            }
            // Close what ends here; stop when nothing is open, else stand before the next value.
            loop {
                let Some((kind, count)) = open.last_mut() else { return Ok(()) };
                let (kind, ends) = (*kind, count.as_mut().map(take_one));
                let ends = match ends {
                    Some(ends) => ends,
                    None => self.closes(if kind == b'{' { b'}' } else { b']' }),
                };
                if !ends {
                    if kind == b'{' {
                        self.string()?;
                    }
                    break;
                }
                open.pop();
            }
        }
    }

    fn finish(&mut self) -> Result<(), Fault> {
        self.padding()
    }
}

/// Whether arrays of the type are packed elements.
fn marker_is_packed(marker: u8) -> bool {
    width(marker).is_some_and(|width| width > 0)
}

/// Takes one from the number of elements left; whether none was left.
fn take_one(left: &mut usize) -> bool {
    let none = *left == 0;
    *left = left.saturating_sub(1);
    none
}
