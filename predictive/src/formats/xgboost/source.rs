//! What the JSON and UBJSON readers have in common: a file is walked once, key by key, and only what the schema names is
//! kept, so that no document tree is ever built.

use crate::error::Fault;

/// How deep containers may be nested in parts that are skipped.
pub(super) const MAX_DEPTH: usize = 256;

/// A reader of one document, standing before a value.
pub(super) trait Source: Sized {
    /// Reads an object; `entry` gets each key and must consume its value.
    fn object(
        &mut self,
        entry: impl FnMut(&mut Self, &str) -> Result<(), Fault>,
    ) -> Result<(), Fault>;
    /// Reads an array; `item` must consume each value.
    fn list(&mut self, item: impl FnMut(&mut Self) -> Result<(), Fault>) -> Result<(), Fault>;
    /// Reads a text.
    fn text(&mut self) -> Result<String, Fault>;
    /// Reads a number.
    fn number<T: Number>(&mut self) -> Result<T, Fault>;
    /// Reads an array of numbers.
    fn numbers<T: Number>(&mut self) -> Result<Vec<T>, Fault>;
    /// Bytes of the document.
    fn len(&self) -> usize;
    /// Passes over any value without recursion.
    fn skip(&mut self) -> Result<(), Fault>;
    /// Checks that nothing but padding follows.
    fn finish(&mut self) -> Result<(), Fault>;
}

/// A fault inside the field `key`: its place gets the key in front.
pub(super) fn inside(key: &str, fault: Fault) -> Fault {
    match fault {
        Fault::Corrupt { at, reason } if at.starts_with("byte ") => {
            Fault::Corrupt { at: format!("{key} ({at})"), reason }
        }
        Fault::Corrupt { at, reason } if at.starts_with('[') => {
            Fault::Corrupt { at: format!("{key}{at}"), reason }
        }
        Fault::Corrupt { at, reason } => Fault::Corrupt { at: format!("{key}.{at}"), reason },
        unsupported => unsupported,
    }
}

/// A number of an array; conversions fail where the value would change its meaning.
pub(super) trait Number: Copy {
    /// What it is, for messages.
    const NAME: &'static str;
    /// From its decimal text.
    fn from_text(text: &str) -> Option<Self>;
    /// From an integer.
    fn from_int(value: i64) -> Option<Self>;
    /// From a float.
    fn from_float(value: f64) -> Option<Self>;
}

impl Number for f32 {
    const NAME: &'static str = "number";
    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
    fn from_int(value: i64) -> Option<Self> {
        Some(value as f32)
    }
    fn from_float(value: f64) -> Option<Self> {
        Some(value as f32)
    }
}

impl Number for i64 {
    const NAME: &'static str = "integer";
    fn from_text(text: &str) -> Option<Self> {
        match text {
            "true" => Some(1),
            "false" => Some(0),
            _ => text.parse().ok().or_else(|| Self::from_float(text.parse().ok()?)),
        }
    }
    fn from_int(value: i64) -> Option<Self> {
        Some(value)
    }
    fn from_float(value: f64) -> Option<Self> {
        let exact = value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0;
        exact.then_some(value as i64)
    }
}

/// A narrower integer, checked.
macro_rules! narrow {
    ($type:ty, $name:literal) => {
        impl Number for $type {
            const NAME: &'static str = $name;
            fn from_text(text: &str) -> Option<Self> {
                Self::from_int(i64::from_text(text)?)
            }
            fn from_int(value: i64) -> Option<Self> {
                Self::try_from(value).ok()
            }
            fn from_float(value: f64) -> Option<Self> {
                Self::from_int(i64::from_float(value)?)
            }
        }
    };
}

narrow!(i32, "32-bit integer");
narrow!(u8, "0 or 1");

/// A 32-bit pattern: deleted nodes hold it as -1 or as 4294967295.
impl Number for u32 {
    const NAME: &'static str = "32-bit integer";
    fn from_text(text: &str) -> Option<Self> {
        Self::from_int(i64::from_text(text)?)
    }
    fn from_int(value: i64) -> Option<Self> {
        u32::try_from(value).ok().or_else(|| Some(i32::try_from(value).ok()? as u32))
    }
    fn from_float(value: f64) -> Option<Self> {
        Self::from_int(i64::from_float(value)?)
    }
}
