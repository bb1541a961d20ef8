//! Answers of `/v1/chat/completions`, whole and in chunks.

use std::borrow::Cow;
use std::sync::Arc;

use axum::response::Response;
use serde::Serialize;

use super::choice::StopReason;
use super::chunks::Chunks;
use super::generation::{Generation, Usage};
use super::logprobs::{ChatLogprobs, PromptLogprobs, View};
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
    pub(super) role: String,
    /// Text in front of every choice.
    pub(super) echo: Option<String>,
    pub(super) model: Arc<Generative>,
    pub(super) params: Params,
    pub(super) generation: Generation,
}

#[derive(Serialize)]
struct Whole<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<WholeChoice<'a>>,
    service_tier: Option<()>,
    system_fingerprint: &'a str,
    usage: Usage,
    prompt_logprobs: Option<PromptLogprobs<'a>>,
    prompt_token_ids: Option<&'a [u32]>,
    kv_transfer_params: Option<()>,
}

#[derive(Serialize)]
struct WholeChoice<'a> {
    index: usize,
    message: Message<'a>,
    logprobs: Option<ChatLogprobs<'a>>,
    finish_reason: Option<&'static str>,
    stop_reason: Option<StopReason<'a>>,
    token_ids: Option<&'a [u32]>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'a str,
    content: Cow<'a, str>,
    refusal: Option<()>,
    annotations: Option<()>,
    audio: Option<()>,
    function_call: Option<()>,
    reasoning: Option<()>,
}

#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: &'a [ChunkChoice<'a>],
    /// Outer `None`: no key; inner `None`: null.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_fingerprint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<&'a [u32]>,
}

#[derive(Default, Serialize)]
struct ChunkChoice<'a> {
    index: usize,
    delta: Delta<'a>,
    logprobs: Option<ChatLogprobs<'a>>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<Option<StopReason<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<&'a [u32]>,
}

#[derive(Default, Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

impl Answer {
    fn logprobs(&self, index: usize) -> Option<ChatLogprobs<'_>> {
        self.params.logprobs?;
        let entries = &self.generation.choices[index].delta.logprobs;
        Some(ChatLogprobs { view: self.view(), entries })
    }

    fn view(&self) -> View<'_> {
        View { tokenizer: &self.model.tokenizer, as_ids: self.params.tokens_as_ids }
    }

    fn whole_choice(&self, index: usize) -> WholeChoice<'_> {
        let choice = &self.generation.choices[index];
        let content = match &self.echo {
            Some(echo) => Cow::Owned(format!("{echo}{}", choice.delta.text)),
            None => Cow::Borrowed(choice.delta.text.as_str()),
        };
        let token_ids = self.params.return_token_ids.then_some(choice.delta.tokens.as_slice());
        let role = &self.role;
        let (refusal, annotations, audio) = (None, None, None);
        let (function_call, reasoning) = (None, None);
        WholeChoice {
            index,
            message: Message {
                role,
                content,
                refusal,
                annotations,
                audio,
                function_call,
                reasoning,
            },
            logprobs: self.logprobs(index),
            finish_reason: choice.finish.map(|finish| finish.kind.label()),
            stop_reason: choice.stop_reason(),
            token_ids,
        }
    }

    /// Runs to the end and answers at once.
    pub(super) async fn collect(mut self, app: &App) -> Result<Response, ApiError> {
        self.generation.collect(app).await?;
        let choices = (0..self.generation.choices.len()).map(|index| self.whole_choice(index));
        let positions = &self.generation.leader_of(0).prompt_logprobs;
        let prompt_logprobs = self.params.prompt_logprobs.map(|_| positions);
        Ok(body::json(&Whole {
            id: &self.id,
            object: "chat.completion",
            created: self.created,
            model: &self.name,
            choices: choices.collect(),
            service_tier: None,
            system_fingerprint: &self.model.fingerprint,
            usage: self.generation.usage(),
            prompt_logprobs: prompt_logprobs
                .map(|positions| PromptLogprobs { view: self.view(), positions }),
            prompt_token_ids: self.prompt_token_ids(),
            kv_transfer_params: None,
        }))
    }

    fn prompt_token_ids(&self) -> Option<&[u32]> {
        self.params.return_token_ids.then(|| self.generation.prompt_of(0).tokens.as_slice())
    }

    fn chunk<'a>(&'a self, choices: &'a [ChunkChoice<'a>]) -> Chunk<'a> {
        Chunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.name,
            choices,
            usage: None,
            system_fingerprint: None,
            prompt_token_ids: None,
        }
    }
}

/// The chunks of a streamed answer.
pub(super) struct Stream {
    answer: Answer,
    roles_sent: bool,
    usage_sent: bool,
}

impl Stream {
    pub(super) fn new(answer: Answer) -> Self {
        Self { answer, roles_sent: false, usage_sent: false }
    }

    /// For every choice who speaks, then what is echoed.
    fn write_roles(&mut self, frames: &mut Frames) {
        let answer = &self.answer;
        let choices = answer.generation.choices.len();
        let mut write = |index: usize, delta: Delta<'_>, first: bool| {
            let parts = [ChunkChoice { index, delta, ..ChunkChoice::default() }];
            let mut chunk = answer.chunk(&parts);
            let (none, continuous) = (answer.params.include_usage, answer.params.continuous_usage);
            let start = Usage { completion_tokens: 0, ..answer.generation.usage_of(index) };
            let start = Usage { total_tokens: start.prompt_tokens, ..start };
            chunk.usage = none.then(|| continuous.then_some(start));
            if first {
                chunk.prompt_token_ids = answer.prompt_token_ids();
            }
            frames.event(&chunk);
        };
        for index in 0..choices {
            write(index, Delta { role: Some(&answer.role), content: Some("") }, index == 0);
        }
        if let Some(echo) = &answer.echo {
            for index in 0..choices {
                write(index, Delta { role: None, content: Some(echo) }, false);
            }
        }
        self.roles_sent = true;
    }

    fn write_choice(&mut self, index: usize, frames: &mut Frames) {
        let answer = &self.answer;
        let choice = &answer.generation.choices[index];
        if choice.closed {
            return;
        }
        let ids = answer.params.return_token_ids || answer.params.logprobs.is_some();
        let delta = &choice.delta;
        let something = !delta.text.is_empty() || (ids && !delta.tokens.is_empty());
        let ended = choice.is_ended();
        if !something && !ended {
            return;
        }
        let finish = choice.finish;
        let content = (!delta.text.is_empty() || !ended).then_some(delta.text.as_str());
        let token_ids = answer.params.return_token_ids.then_some(delta.tokens.as_slice());
        let has_logprobs = !delta.logprobs.is_empty();
        let parts = [ChunkChoice {
            index,
            delta: Delta { role: None, content },
            logprobs: answer.logprobs(index).filter(|_| has_logprobs),
            finish_reason: finish.map(|finish| finish.kind.label()),
            stop_reason: finish.map(|_| choice.stop_reason()),
            token_ids,
        }];
        let mut chunk = answer.chunk(&parts);
        chunk.usage = answer.generation.chunk_usage(&answer.params, index);
        if ended && !answer.params.include_usage {
            chunk.system_fingerprint = Some(&answer.model.fingerprint);
        }
        frames.event(&chunk);
        self.answer.generation.choices[index].sent();
    }

    fn write_usage(&mut self, frames: &mut Frames) {
        if self.answer.params.include_usage && !self.usage_sent {
            let mut chunk = self.answer.chunk(&[]);
            chunk.usage = Some(Some(self.answer.generation.usage()));
            chunk.system_fingerprint = Some(&self.answer.model.fingerprint);
            frames.event(&chunk);
        }
        self.usage_sent = true;
    }
}

impl Chunks for Stream {
    fn generation(&mut self) -> &mut Generation {
        &mut self.answer.generation
    }

    fn write(&mut self, frames: &mut Frames) {
        if !self.roles_sent {
            if !self.answer.generation.has_output() {
                return;
            }
            self.write_roles(frames);
        }
        for index in 0..self.answer.generation.choices.len() {
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
