//! Work for the pool that no thread has begun, in the order of its priority.

use std::collections::BinaryHeap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How early a waiting request is run, as Triton counts: 1 before 2, and those without one after all that have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority(u64);

impl Priority {
    /// The priority of a number; 0 is that of requests without one.
    pub fn of(number: u64) -> Self {
        Self(if number == 0 { u64::MAX } else { number })
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self::of(0)
    }
}

/// A piece of work.
pub(crate) type Work = Box<dyn FnOnce() + Send>;

/// What waits: the most urgent first, equals in the order they came.
#[derive(Default)]
pub(crate) struct Queue(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    waiting: BinaryHeap<Waiting>,
    arrivals: u64,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds work.
    pub(crate) fn push(&self, priority: Priority, work: Work) {
        let mut inner = self.lock();
        inner.arrivals += 1;
        let rank = (priority, inner.arrivals);
        inner.waiting.push(Waiting { rank, work });
    }

    /// Takes the first.
    pub(crate) fn pop(&self) -> Option<Work> {
        self.lock().waiting.pop().map(|first| first.work)
    }
}

/// Work and its place: by priority, then by arrival.
struct Waiting {
    rank: (Priority, u64),
    work: Work,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    /// The greatest is taken first: the lowest rank.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.rank.cmp(&self.rank)
    }
}
