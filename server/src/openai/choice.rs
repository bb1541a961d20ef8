//! One sequence on its way to the client: tokens in, text with log-probabilities out.
//!
//! A [`Choice`] takes whatever the engine has ready, so that several tokens share a chunk when the
//! client is slow; the delta holds exactly the tokens whose text it covers. Text that may become a stop
//! string is held back by the matcher, text of unfinished characters by the detokenizer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::Stream;
use serde::Serialize;
use tokenmill_engine::executor::PositionLogprobs;
use tokenmill_engine::stream::{TokenEvent, TokenStream};
use tokenmill_engine::text::{Detokenizer, StopMatcher};
use tokenmill_scheduler::FinishReason;

use crate::error::ApiError;
use crate::metrics::{Canceller, Finished, SequenceTimes};
use crate::registry::Generative;

/// Why a choice ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FinishKind {
    Stop,
    Length,
    Abort,
}

impl FinishKind {
    /// `finish_reason` of the APIs.
    pub(crate) fn label(self) -> &'static str {
        match self {
            FinishKind::Stop => "stop",
            FinishKind::Length => "length",
            FinishKind::Abort => "abort",
        }
    }
}

/// What stopped a choice, when it was not the end of the model's own text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopCause {
    /// End of sequence, or not a stop.
    None,
    /// Index of the stop string.
    Text(usize),
    /// A token of the request's `stop_token_ids`.
    Token(u32),
}

/// [`StopCause`] as the APIs print it.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum StopReason<'a> {
    Text(&'a str),
    Token(u32),
}

/// How a choice ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finish {
    pub(crate) kind: FinishKind,
    pub(crate) cause: StopCause,
}

/// Log-probabilities of one token, and where its text begins.
#[derive(Debug)]
pub(crate) struct TokenLogprobs {
    /// Characters of the completion before the token's text.
    pub(crate) offset: u32,
    pub(crate) position: Box<PositionLogprobs>,
}

/// What came since the last chunk.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    pub(crate) text: String,
    pub(crate) tokens: Vec<u32>,
    pub(crate) logprobs: Vec<TokenLogprobs>,
}

impl Delta {
    fn clear(&mut self) {
        self.text.clear();
        self.tokens.clear();
        self.logprobs.clear();
    }
}

/// What all choices of a request obey.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) stop: Vec<String>,
    pub(crate) include_stop: bool,
    /// Tokens that end a choice: the model's own first, then the request's.
    pub(crate) eos_tokens: Vec<u32>,
    pub(crate) stop_token_ids: Vec<u32>,
    pub(crate) min_tokens: u32,
    pub(crate) skip_special: bool,
    /// Generate nothing (`max_tokens: 0` with echo): a token that had to be sampled is hidden.
    pub(crate) hide_completion: bool,
}

/// One sequence.
pub(crate) struct Choice {
    stream: Option<TokenStream>,
    detokenizer: Detokenizer,
    matcher: StopMatcher,
    rules: Arc<Rules>,
    model: Arc<Generative>,
    times: SequenceTimes,
    characters: u32,
    /// The stop token that was sampled, if one was.
    stopped_by: StopCause,
    /// Completion tokens so far.
    pub(crate) generated: u32,
    /// Prompt tokens found in the cache.
    pub(crate) cached_tokens: u32,
    /// Of prompt tokens from the second on.
    pub(crate) prompt_logprobs: Vec<PositionLogprobs>,
    /// Not yet sent.
    pub(crate) delta: Delta,
    /// Set once.
    pub(crate) finish: Option<Finish>,
    /// The finish was sent.
    pub(crate) closed: bool,
    /// Why it cannot end well; the whole request fails.
    pub(crate) error: Option<ApiError>,
}

impl Choice {
    /// Reads `stream`, whose sequence continues `prompt`.
    pub(crate) fn new(
        model: &Arc<Generative>,
        rules: &Arc<Rules>,
        prompt: &[u32],
        stream: Option<TokenStream>,
        arrival: Instant,
    ) -> Self {
        let mut matcher = StopMatcher::new(rules.stop.clone(), rules.include_stop);
        matcher.hold(rules.min_tokens > 0);
        Self {
            stream,
            detokenizer: Detokenizer::new(model.tokenizer.clone(), prompt, rules.skip_special),
            matcher,
            rules: Arc::clone(rules),
            model: Arc::clone(model),
            times: SequenceTimes::new(arrival, prompt.len()),
            characters: 0,
            stopped_by: StopCause::None,
            generated: 0,
            cached_tokens: 0,
            prompt_logprobs: Vec::new(),
            delta: Delta::default(),
            finish: None,
            closed: false,
            error: None,
        }
    }

    /// Whether nothing more will come.
    pub(crate) fn is_ended(&self) -> bool {
        self.stream.is_none()
    }

    /// Whether a token was sampled or the choice ended.
    pub(crate) fn has_begun(&self) -> bool {
        self.generated > 0 || self.is_ended()
    }

    /// `stop_reason` of the APIs.
    pub(crate) fn stop_reason(&self) -> Option<StopReason<'_>> {
        match self.finish?.cause {
            StopCause::None => None,
            StopCause::Text(index) => Some(StopReason::Text(self.rules.stop.get(index)?)),
            StopCause::Token(id) => Some(StopReason::Token(id)),
        }
    }

    /// The delta went out, and with it the finish if there is one.
    pub(crate) fn sent(&mut self) {
        self.delta.clear();
        self.closed = self.is_ended();
    }

    /// Takes every event that is ready. `true` when there was one.
    pub(crate) fn poll_drain(&mut self, context: &mut Context<'_>) -> bool {
        let began = Instant::now();
        let mut progressed = false;
        let before = self.generated;
        while let Some(stream) = &mut self.stream {
            let Poll::Ready(event) = Pin::new(stream).poll_next(context) else { break };
            progressed = true;
            self.take(event.unwrap_or(TokenEvent::Lost));
        }
        if self.generated > before {
            self.times.output(&self.model.metrics, began);
        }
        if progressed && self.is_ended() {
            self.record_end();
        }
        progressed
    }

    fn take(&mut self, event: TokenEvent) {
        match event {
            TokenEvent::Admitted { cached_tokens } => {
                self.cached_tokens = cached_tokens;
                self.times.admitted(cached_tokens);
            }
            TokenEvent::PromptLogprobs(position) => self.prompt_logprobs.push(*position),
            TokenEvent::Token { id, logprobs } => self.take_token(id, logprobs),
            TokenEvent::Pooled(_) => self.fail(ApiError::internal(
                "The model answered with a vector instead of a token.",
                "Pooled event on a generation stream",
            )),
            TokenEvent::Finished(reason) => self.take_end(reason),
            TokenEvent::Lost => self.fail(ApiError::engine_lost()),
        }
    }

    fn take_token(&mut self, id: u32, logprobs: Option<Box<PositionLogprobs>>) {
        if self.rules.hide_completion {
            return;
        }
        self.generated += 1;
        self.delta.tokens.push(id);
        if let Some(position) = logprobs {
            self.delta.logprobs.push(TokenLogprobs { offset: self.characters, position });
        }
        let cause = self.stop_token(id);
        if let Some(cause) = cause {
            self.stopped_by = cause;
            if !self.rules.include_stop {
                return;
            }
        }
        if self.generated > self.rules.min_tokens {
            self.matcher.hold(false);
        }
        let text = self.detokenizer.push(id);
        self.characters += text.chars().count() as u32;
        if let Some(index) = self.matcher.push(text, &mut self.delta.text) {
            self.end(Finish { kind: FinishKind::Stop, cause: StopCause::Text(index) });
        }
    }

    /// What stopped the sequence if `id` is one of its stop tokens.
    fn stop_token(&self, id: u32) -> Option<StopCause> {
        if self.rules.eos_tokens.contains(&id) {
            Some(StopCause::None)
        } else if self.rules.stop_token_ids.contains(&id) {
            Some(StopCause::Token(id))
        } else {
            None
        }
    }

    fn take_end(&mut self, reason: FinishReason) {
        let kind = match reason {
            FinishReason::Stop => FinishKind::Stop,
            FinishReason::Length => FinishKind::Length,
            FinishReason::Cancelled => FinishKind::Abort,
            FinishReason::Deadline if self.generated == 0 => {
                return self.fail(ApiError::deadline());
            }
            FinishReason::Deadline => {
                self.model.metrics.cancelled(Canceller::Deadline, self.generated);
                FinishKind::Abort
            }
            FinishReason::Failed | FinishReason::Pooled => {
                return self.fail(ApiError::sequence_failed());
            }
        };
        let rest = self.detokenizer.flush();
        if let Some(index) = self.matcher.push(rest, &mut self.delta.text) {
            return self.end(Finish { kind: FinishKind::Stop, cause: StopCause::Text(index) });
        }
        self.matcher.finish(&mut self.delta.text);
        let kind = if self.rules.hide_completion { FinishKind::Length } else { kind };
        self.end(Finish { kind, cause: self.stopped_by });
    }

    /// Ends it; dropping the stream cancels a sequence that still runs.
    fn end(&mut self, finish: Finish) {
        self.finish = Some(finish);
        self.stream = None;
    }

    fn fail(&mut self, error: ApiError) {
        self.error = Some(error);
        self.stream = None;
    }

    fn record_end(&mut self) {
        let finished = match self.finish.map(|finish| finish.kind) {
            Some(FinishKind::Stop) => Finished::Stop,
            Some(FinishKind::Length) => Finished::Length,
            Some(FinishKind::Abort) => Finished::Abort,
            None => Finished::Error,
        };
        self.times.end(&self.model.metrics, finished, self.generated);
    }

    /// An end without a sequence, for prompts that are only echoed.
    pub(crate) fn finish_without_sequence(&mut self) {
        self.end(Finish { kind: FinishKind::Length, cause: StopCause::None });
        self.record_end();
    }
}

impl Choice {
    /// Takes the sequence back without counting it: its request was refused.
    pub(crate) fn discard(&mut self) {
        self.stream = None;
    }

    /// Cancels what still runs, on behalf of `by`.
    pub(crate) fn cancel(&mut self, by: Canceller) {
        if self.stream.take().is_some() {
            self.times.end(&self.model.metrics, Finished::Abort, self.generated);
            self.model.metrics.cancelled(by, self.generated);
        }
    }
}

impl Drop for Choice {
    /// A choice that still runs when it is dropped belonged to a client that left.
    fn drop(&mut self) {
        self.cancel(Canceller::Client);
    }
}
