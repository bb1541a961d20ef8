//! Names of categories, which files from 3.1 on keep: position in the training data frame's list is the code.

use std::collections::HashMap;

use crate::error::Fault;

/// The categories of one feature. Names are bytes: without pyarrow, versions up to 3.2 count the characters of names but
/// store their bytes, so that what follows a name beyond ASCII is cut at wrong places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Categories {
    codes: HashMap<Vec<u8>, u32>,
}

impl Categories {
    /// Names that lie in `values` (UTF-8, one byte each) at `offsets`; `None` for a feature without categories.
    pub(super) fn texts(offsets: &[i64], values: &[i64]) -> Result<Option<Self>, Fault> {
        if offsets.is_empty() {
            return Ok(None);
        }
        let mut codes = HashMap::new();
        for (code, pair) in (0u32..).zip(offsets.windows(2)) {
            let at = || format!("offsets[{code}]");
            let position = |offset: i64| usize::try_from(offset).ok();
            let range = position(pair[0]).zip(position(pair[1]));
            let name = range.and_then(|(start, end)| values.get(start..end));
            let name = name.ok_or_else(|| {
                Fault::corrupt(at(), format!("{pair:?} is outside the {} bytes", values.len()))
            })?;
            codes.insert(name.iter().map(|&byte| byte as u8).collect(), code);
        }
        Ok(Some(Self { codes }))
    }

    /// Integer categories; `kind` is the number that the library gives to the type of the index.
    pub(super) fn integers(kind: i64, values: &[i64]) -> Result<Option<Self>, Fault> {
        let name = |value: i64| match kind {
            16 => value.cast_unsigned().to_string(),
            14 => (value as u32).to_string(),
            12 => (value as u16).to_string(),
            10 => (value as u8).to_string(),
            _ => value.to_string(),
        };
        if !(9..=16).contains(&kind) {
            return Err(Fault::unsupported(format!(
                "categories of type {kind} (floats) are not supported; use texts or integers"
            )));
        }
        Ok(Some(Self {
            codes: values.iter().map(|&value| name(value).into_bytes()).zip(0..).collect(),
        }))
    }

    /// The code of a name.
    pub(super) fn code(&self, name: &str) -> Option<u32> {
        self.codes.get(name.as_bytes()).copied()
    }

    /// Number of categories.
    pub(super) fn len(&self) -> usize {
        self.codes.len()
    }
}
