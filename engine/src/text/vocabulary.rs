//! The bytes of every token, in one flat buffer.

use tokenmill_scheduler::TokenId;

use super::TextError;

/// Ids above this are refused: a vocabulary that large is a damaged file.
pub(crate) const MAX_VOCABULARY: usize = 1 << 24;

/// Token bytes and flags by id. Ids without a token have no bytes.
#[derive(Debug, Default)]
pub(crate) struct Vocabulary {
    bytes: Vec<u8>,
    /// End of each token's bytes.
    ends: Vec<u32>,
    special: Vec<bool>,
}

impl Vocabulary {
    /// Appends the next id's token; `write` appends its bytes.
    pub(crate) fn push(
        &mut self,
        special: bool,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), TextError> {
        write(&mut self.bytes);
        let end = u32::try_from(self.bytes.len()).map_err(|_| {
            TextError::invalid("vocabulary", "the tokens are longer than 4 GiB together")
        })?;
        self.ends.push(end);
        self.special.push(special);
        Ok(())
    }

    /// The token's bytes; empty beyond the vocabulary.
    pub(crate) fn bytes(&self, id: TokenId) -> &[u8] {
        let Some(&end) = usize::try_from(id).ok().and_then(|index| self.ends.get(index)) else {
            return &[];
        };
        let start = match id.checked_sub(1) {
            Some(before) => self.ends[before as usize],
            None => 0,
        };
        &self.bytes[start as usize..end as usize]
    }

    /// The token is a control token, absent from text when special tokens are skipped.
    pub(crate) fn is_special(&self, id: TokenId) -> bool {
        usize::try_from(id).ok().and_then(|index| self.special.get(index)).is_some_and(|s| *s)
    }

    /// One more than the highest id.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }
}
