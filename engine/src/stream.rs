//! One sequence's tokens, across threads.
//!
//! A library channel per sequence: unbounded in type, bounded in fact, because the sequence ends at
//! `max_tokens`. The engine never waits for a reader. Dropping the stream cancels the sequence: the
//! engine looks at every channel once per step.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use tokenmill_scheduler::{FinishReason, TokenId};
use tokio::sync::mpsc;

use crate::executor::PositionLogprobs;

/// What happens to a sequence, in order. The last event is `Finished` or `Lost`.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenEvent {
    /// First admission.
    Admitted {
        /// Prompt tokens found in the prefix cache.
        cached_tokens: u32,
    },
    /// Log-probabilities of one prompt token; from the second prompt token on, in order, before the
    /// first `Token`.
    PromptLogprobs(Box<PositionLogprobs>),
    /// A token was sampled.
    Token {
        /// The token.
        id: TokenId,
        /// Its log-probabilities, when asked for.
        logprobs: Option<Box<PositionLogprobs>>,
    },
    /// The pooled row of a sequence with `OutputKind::Pool`.
    Pooled(Box<[f32]>),
    /// The sequence ended.
    Finished(FinishReason),
    /// The engine ended before the sequence did.
    Lost,
}

/// Reads one sequence's events. Dropping it cancels the sequence.
#[derive(Debug)]
pub struct TokenStream {
    receiver: mpsc::UnboundedReceiver<TokenEvent>,
    ended: bool,
    _permit: Option<Arc<Permit>>,
}

impl TokenStream {
    /// The next event; `None` after `Finished` or `Lost`.
    pub async fn next(&mut self) -> Option<TokenEvent> {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    /// The next event if it is there; `None` also while the engine works on it.
    pub fn try_next(&mut self) -> Option<TokenEvent> {
        if self.ended {
            return None;
        }
        match self.receiver.try_recv() {
            Ok(event) => Some(self.note(Some(event))),
            Err(mpsc::error::TryRecvError::Disconnected) => Some(self.note(None)),
            Err(mpsc::error::TryRecvError::Empty) => None,
        }
    }

    /// The next event, blocking this thread; `None` after `Finished` or `Lost`.
    ///
    /// # Panics
    /// On a thread of an asynchronous runtime.
    pub fn blocking_next(&mut self) -> Option<TokenEvent> {
        if self.ended {
            return None;
        }
        let event = self.receiver.blocking_recv();
        Some(self.note(event))
    }

    /// Whether `Finished` or `Lost` was read.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<TokenEvent>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let event = ready!(self.receiver.poll_recv(context));
        Poll::Ready(Some(self.note(event)))
    }

    /// A channel that closes before the end belonged to an engine that is gone.
    fn note(&mut self, event: Option<TokenEvent>) -> TokenEvent {
        let event = event.unwrap_or(TokenEvent::Lost);
        self.ended = matches!(event, TokenEvent::Finished(_) | TokenEvent::Lost);
        event
    }
}

impl Stream for TokenStream {
    type Item = TokenEvent;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<TokenEvent>> {
        self.get_mut().poll(context)
    }
}

/// The engine's end of a stream.
#[derive(Debug)]
pub struct TokenSender {
    sender: mpsc::UnboundedSender<TokenEvent>,
    permit: Option<Arc<Permit>>,
}

impl TokenSender {
    /// Never waits. A reader that left is no error: [`is_closed`](Self::is_closed) tells.
    pub fn send(&self, event: TokenEvent) {
        drop(self.sender.send(event));
    }

    /// Sends the last event. Its reader finds this end's share of the permit returned.
    pub fn end(self, event: TokenEvent) {
        let Self { sender, permit } = self;
        drop(permit);
        drop(sender.send(event));
    }

    /// Whether the reader is gone.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

/// Both ends of a stream that no engine counts; for driving an `EngineCore` by hand, and for tests
/// of readers.
pub fn detached() -> (TokenSender, TokenStream) {
    pair(None)
}

/// Both ends of a stream. They share the permit, which returns when both are gone: until the engine
/// has noticed a reader that left, its sequence still counts.
pub(crate) fn channel(permit: Permit) -> (TokenSender, TokenStream) {
    pair(Some(Arc::new(permit)))
}

fn pair(permit: Option<Arc<Permit>>) -> (TokenSender, TokenStream) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let stream = TokenStream { receiver, ended: false, _permit: permit.clone() };
    (TokenSender { sender, permit }, stream)
}

/// How many sequences may be anywhere between submission and the drop of their stream.
#[derive(Debug)]
pub(crate) struct Permits {
    taken: AtomicU32,
    limit: u32,
}

impl Permits {
    pub(crate) fn new(limit: u32) -> Arc<Self> {
        Arc::new(Self { taken: AtomicU32::new(0), limit })
    }

    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    pub(crate) fn take(self: &Arc<Self>) -> Option<Permit> {
        let below = |taken| (taken < self.limit).then_some(taken + 1);
        let taken = self.taken.fetch_update(Ordering::AcqRel, Ordering::Relaxed, below);
        taken.is_ok().then(|| Permit(Arc::clone(self)))
    }
}

/// One admission; returned on drop.
#[derive(Debug)]
pub(crate) struct Permit(Arc<Permits>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_arrive_in_order_and_end_once() {
        let (sender, mut stream) = detached();
        assert_eq!(stream.try_next(), None);
        sender.send(TokenEvent::Token { id: 1, logprobs: None });
        sender.end(TokenEvent::Finished(FinishReason::Stop));
        assert_eq!(stream.try_next(), Some(TokenEvent::Token { id: 1, logprobs: None }));
        assert!(!stream.is_ended());
        assert_eq!(stream.blocking_next(), Some(TokenEvent::Finished(FinishReason::Stop)));
        assert_eq!((stream.try_next(), stream.blocking_next()), (None, None));
    }

    #[test]
    fn a_sender_that_vanishes_means_lost() {
        let (sender, mut stream) = detached();
        drop(sender);
        assert_eq!(stream.try_next(), Some(TokenEvent::Lost));
        assert_eq!(stream.try_next(), None);
    }

    #[test]
    fn permits_return_when_both_ends_are_gone() {
        let permits = Permits::new(1);
        let (sender, stream) = channel(permits.take().unwrap());
        assert!(permits.take().is_none());
        drop(stream);
        assert!(sender.is_closed() && permits.take().is_none());
        drop(sender);
        let (sender, stream) = channel(permits.take().unwrap());
        sender.end(TokenEvent::Lost);
        assert!(permits.take().is_none());
        drop(stream);
        assert!(permits.take().is_some());
    }
}
