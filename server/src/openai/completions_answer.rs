//! Answers of `/v1/completions`, whole and in chunks.

use std::borrow::Cow;

use axum::response::Response;
use serde::Serialize;
use std::sync::Arc;
use tokenmill_engine::text::Detokenizer;

use super::choice::StopReason;
use super::chunks::Chunks;
use super::generation::{Generation, Usage};
use super::logprobs::{CompletionLogprobs, Item, PromptLogprobs, View};
use super::params::Params;
use crate::app::App;
use crate::body;
use crate::error::ApiError;
use crate::registry::Generative;
use crate::sse::Frames;

/// A running request with what its answer repeats.
pub(super) struct Answer {
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) name: String,
    pub(super) model: Arc<Generative>,
    pub(super) params: Params,
    pub(super) generation: Generation,
}

#[derive(Serialize)]
struct Message<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: &'a [ChoiceOut<'a>],
    /// Outer `None`: no key; inner `None`: null.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_fingerprint: Option<&'a str>,
}

#[derive(Serialize)]
struct ChoiceOut<'a> {
    index: usize,
    text: Cow<'a, str>,
    logprobs: Option<CompletionLogprobs<'a>>,
    finish_reason: Option<&'static str>,
    stop_reason: Option<StopReason<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<Option<PromptLogprobs<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<Option<&'a [u32]>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Option<&'a [u32]>>,
}

/// Where the tokens of a prompt begin in its text, in characters.
fn offsets(model: &Generative, tokens: &[u32], skip_special: bool) -> Vec<u32> {
    let mut detokenizer = Detokenizer::new(model.tokenizer.clone(), &[], skip_special);
    let mut characters = 0;
    let mut advance = |&id: &u32| {
        let before = characters;
        characters += detokenizer.push(id).chars().count() as u32;
        before
    };
    tokens.iter().map(&mut advance).collect()
}

impl Answer {
    fn view(&self) -> View<'_> {
        View { tokenizer: &self.model.tokenizer, as_ids: self.params.tokens_as_ids }
    }

    /// The part of choice `index` since the last one; `first` parts begin with the echo.
    fn part(&self, index: usize, first: bool) -> ChoiceOut<'_> {
        let choice = &self.generation.choices[index];
        let prompt = self.generation.prompt_of(index);
        let echo = prompt.text.as_deref();
        let text = match echo.filter(|_| first) {
            Some(echo) => Cow::Owned(format!("{echo}{}", choice.delta.text)),
            None => Cow::Borrowed(choice.delta.text.as_str()),
        };
        let streamed = self.params.stream;
        let ids = self.params.return_token_ids;
        let prompt_ids = (ids && first).then_some(prompt.tokens.as_slice());
        let token_ids = ids.then_some(choice.delta.tokens.as_slice());
        let finish = choice.finish.filter(|_| choice.is_ended());
        ChoiceOut {
            index,
            text,
            logprobs: self.logprobs(index, first),
            finish_reason: finish.map(|finish| finish.kind.label()),
            stop_reason: choice.stop_reason(),
            prompt_logprobs: (!streamed).then(|| self.prompt_logprobs(index)),
            prompt_token_ids: (!streamed || prompt_ids.is_some()).then_some(prompt_ids),
            token_ids: (!streamed || ids).then_some(token_ids),
        }
    }

    fn prompt_logprobs(&self, index: usize) -> Option<PromptLogprobs<'_>> {
        self.params.prompt_logprobs?;
        let positions = &self.generation.leader_of(index).prompt_logprobs;
        Some(PromptLogprobs { view: self.view(), positions })
    }

    fn logprobs(&self, index: usize, first: bool) -> Option<CompletionLogprobs<'_>> {
        self.params.logprobs?;
        let choice = &self.generation.choices[index];
        let prompt = self.generation.prompt_of(index);
        let shift = prompt.text.as_ref().map_or(0, |text| text.chars().count() as u32);
        let mut items = Vec::with_capacity(choice.delta.logprobs.len());
        if prompt.text.is_some() && first {
            let positions = &self.generation.leader_of(index).prompt_logprobs;
            let positions = positions.iter().map(Some);
            let offsets = offsets(&self.model, &prompt.tokens, self.params.skip_special);
            let rows =
                prompt.tokens.iter().zip(offsets).zip(std::iter::once(None).chain(positions));
            items.extend(rows.map(|((&id, offset), position)| Item { id, offset, position }));
        }
        items.extend(choice.delta.logprobs.iter().map(|entry| Item {
            id: entry.position.token,
            offset: shift + entry.offset,
            position: Some(&entry.position),
        }));
        Some(CompletionLogprobs { view: self.view(), items })
    }

    fn message<'a>(&'a self, choices: &'a [ChoiceOut<'a>]) -> Message<'a> {
        Message {
            id: &self.id,
            object: "text_completion",
            created: self.created,
            model: &self.name,
            choices,
            usage: None,
            system_fingerprint: None,
        }
    }

    /// Runs to the end and answers at once.
    pub(super) async fn collect(mut self, app: &App) -> Result<Response, ApiError> {
        self.generation.collect(app).await?;
        let parts: Vec<ChoiceOut<'_>> =
            (0..self.generation.choices.len()).map(|index| self.part(index, true)).collect();
        let mut message = self.message(&parts);
        message.usage = Some(Some(self.generation.usage()));
        message.system_fingerprint = Some(&self.model.fingerprint);
        Ok(body::json(&message))
    }
}

/// The chunks of a streamed answer.
pub(super) struct Stream {
    answer: Answer,
    /// Choices whose first chunk was sent.
    begun: Vec<bool>,
    usage_sent: bool,
}

impl Stream {
    pub(super) fn new(answer: Answer) -> Self {
        let begun = vec![false; answer.generation.choices.len()];
        Self { answer, begun, usage_sent: false }
    }

    fn write_choice(&mut self, index: usize, frames: &mut Frames) {
        let answer = &self.answer;
        let choice = &answer.generation.choices[index];
        if choice.closed || !choice.has_begun() {
            return;
        }
        let ids = answer.params.return_token_ids || answer.params.logprobs.is_some();
        let delta = &choice.delta;
        let something = !delta.text.is_empty() || (ids && !delta.tokens.is_empty());
        let echo = !self.begun[index] && answer.params.echo;
        if !something && !echo && !choice.is_ended() {
            return;
        }
        let parts = [answer.part(index, !self.begun[index])];
        let mut message = answer.message(&parts);
        message.usage = answer.generation.chunk_usage(&answer.params, index);
        if choice.is_ended() && !answer.params.include_usage {
            message.system_fingerprint = Some(&answer.model.fingerprint);
        }
        frames.event(&message);
        self.begun[index] = true;
        self.answer.generation.choices[index].sent();
    }

    fn write_usage(&mut self, frames: &mut Frames) {
        if self.answer.params.include_usage && !self.usage_sent {
            let mut message = self.answer.message(&[]);
            message.usage = Some(Some(self.answer.generation.usage()));
            message.system_fingerprint = Some(&self.answer.model.fingerprint);
            frames.event(&message);
        }
        self.usage_sent = true;
    }
}

impl Chunks for Stream {
    fn generation(&mut self) -> &mut Generation {
        &mut self.answer.generation
    }

    fn write(&mut self, frames: &mut Frames) {
        for index in 0..self.begun.len() {
            self.write_choice(index, frames);
        }
        if self.answer.generation.is_ended() {
            self.write_usage(frames);
        }
    }

    fn is_over(&self) -> bool {
        self.usage_sent
    }
}
