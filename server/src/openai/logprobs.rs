//! Log-probabilities in the shapes of the chat and the completions API.
//!
//! Values are printed from the same `f32` wherever they appear, because clients compare them for
//! equality; `-inf` prints as `-9999.0`, which JSON can hold.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::ser::{SerializeMap, SerializeSeq, SerializeStruct};
use serde::{Serialize, Serializer};
use tokenmill_engine::executor::PositionLogprobs;
use tokenmill_engine::text::Tokenizer;

use super::choice::TokenLogprobs;

/// How tokens are printed.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) tokenizer: &'a Tokenizer,
    /// As `token_id:N`.
    pub(crate) as_ids: bool,
}

impl<'a> View<'a> {
    fn text(self, id: u32) -> Cow<'a, str> {
        if self.as_ids {
            return Cow::Owned(format!("token_id:{id}"));
        }
        String::from_utf8_lossy(self.tokenizer.piece(id))
    }
}

/// What JSON can hold of a log-probability.
fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { -9999.0 }
}

/// `choices[].logprobs` of the chat API.
pub(crate) struct ChatLogprobs<'a> {
    pub(crate) view: View<'a>,
    pub(crate) entries: &'a [TokenLogprobs],
}

impl Serialize for ChatLogprobs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("logprobs", 1)?;
        object.serialize_field("content", &ChatEntries(self))?;
        object.end()
    }
}

struct ChatEntries<'a>(&'a ChatLogprobs<'a>);

impl Serialize for ChatEntries<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ChatLogprobs { view, entries } = self.0;
        serializer.collect_seq(entries.iter().map(|entry| ChatEntry {
            view: *view,
            id: entry.position.token,
            logprob: entry.position.logprob,
            top: Some(&entry.position.top),
        }))
    }
}

struct ChatEntry<'a> {
    view: View<'a>,
    id: u32,
    logprob: f32,
    /// Absent in the entries of `top_logprobs` themselves.
    top: Option<&'a [(u32, f32)]>,
}

impl Serialize for ChatEntry<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("entry", 4)?;
        object.serialize_field("token", &self.view.text(self.id))?;
        object.serialize_field("logprob", &finite(self.logprob))?;
        object.serialize_field("bytes", self.view.tokenizer.piece(self.id))?;
        match self.top {
            Some(top) => object.serialize_field("top_logprobs", &TopEntries(self.view, top))?,
            None => object.skip_field("top_logprobs")?,
        }
        object.end()
    }
}

struct TopEntries<'a>(View<'a>, &'a [(u32, f32)]);

impl Serialize for TopEntries<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(view, top) = *self;
        let entry = |&(id, logprob): &(u32, f32)| ChatEntry { view, id, logprob, top: None };
        serializer.collect_seq(top.iter().map(entry))
    }
}

/// One token of a completion's `logprobs`; the first token of a prompt has no values.
pub(crate) struct Item<'a> {
    pub(crate) id: u32,
    /// Characters before it in the returned text.
    pub(crate) offset: u32,
    pub(crate) position: Option<&'a PositionLogprobs>,
}

/// `choices[].logprobs` of the completions API.
pub(crate) struct CompletionLogprobs<'a> {
    pub(crate) view: View<'a>,
    pub(crate) items: Vec<Item<'a>>,
}

impl Serialize for CompletionLogprobs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let items = &self.items;
        let mut object = serializer.serialize_struct("logprobs", 4)?;
        let offsets: Vec<u32> = items.iter().map(|item| item.offset).collect();
        object.serialize_field("text_offset", &offsets)?;
        let value = |item: &Item<'_>| item.position.map(|position| finite(position.logprob));
        let values: Vec<Option<f32>> = items.iter().map(value).collect();
        object.serialize_field("token_logprobs", &values)?;
        let tokens: Vec<Cow<'_, str>> = items.iter().map(|item| self.view.text(item.id)).collect();
        object.serialize_field("tokens", &tokens)?;
        object.serialize_field("top_logprobs", &TopMaps(self))?;
        object.end()
    }
}

struct TopMaps<'a>(&'a CompletionLogprobs<'a>);

impl Serialize for TopMaps<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let CompletionLogprobs { view, items } = self.0;
        let map = |position| TopMap(*view, position);
        serializer.collect_seq(items.iter().map(|item| item.position.map(map)))
    }
}

/// Token text to value, the most likely first; the token itself is added when it is not among them. Of
/// tokens that print alike the most likely stays.
struct TopMap<'a>(View<'a>, &'a PositionLogprobs);

impl Serialize for TopMap<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(view, position) = self;
        let mut seen = HashSet::with_capacity(position.top.len() + 1);
        let mut map = serializer.serialize_map(None)?;
        for &(id, logprob) in position.top.iter().chain([&(position.token, position.logprob)]) {
            let text = view.text(id);
            if !seen.contains(&text) {
                map.serialize_entry(&text, &finite(logprob))?;
                seen.insert(text);
            }
        }
        map.end()
    }
}

/// `prompt_logprobs`: null for the first token, then an object per token, keyed by token id.
pub(crate) struct PromptLogprobs<'a> {
    pub(crate) view: View<'a>,
    /// Of the tokens from the second on.
    pub(crate) positions: &'a [PositionLogprobs],
}

impl Serialize for PromptLogprobs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(Some(self.positions.len() + 1))?;
        sequence.serialize_element(&None::<()>)?;
        for position in self.positions {
            sequence.serialize_element(&PromptEntry(self.view, position))?;
        }
        sequence.end()
    }
}

struct PromptEntry<'a>(View<'a>, &'a PositionLogprobs);

#[derive(Serialize)]
struct PromptValue<'a> {
    logprob: f32,
    rank: u32,
    decoded_token: Cow<'a, str>,
}

impl Serialize for PromptEntry<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(view, position) = *self;
        let mut map = serializer.serialize_map(None)?;
        let mut entry = |id: u32, logprob: f32, rank: u32| {
            let value =
                PromptValue { logprob: finite(logprob), rank, decoded_token: view.text(id) };
            map.serialize_entry(&id, &value)
        };
        entry(position.token, position.logprob, position.rank)?;
        for (&(id, logprob), rank) in position.top.iter().zip(1..) {
            if id != position.token {
                entry(id, logprob, rank)?;
            }
        }
        map.end()
    }
}
