//! A few threads for work that grows with the prompt: encoding text, rendering chats.
//!
//! The queue is bounded, and full means an error at once: waiting is the client's choice. A job that panics
//! ends alone. A job nobody waits for any more is skipped.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokenmill_scheduler::TokenId;
use tokio::sync::oneshot;

use super::tokenizer::Tokenizer;
use super::{TextError, catch_panic};

/// More threads than that would only take cores from the model.
const MAX_THREADS: usize = 4;
/// Chat templates recurse.
const STACK_BYTES: usize = 8 << 20;

/// Size of a [`TextPool`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextPoolOptions {
    /// 1 to 4; other values are brought into that range.
    pub threads: usize,
    /// Jobs that may wait while all threads are busy; at least 1.
    pub queue: usize,
}

impl Default for TextPoolOptions {
    /// A quarter of the cores, and 1024 waiting jobs.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self { threads: (cores / 4).clamp(1, MAX_THREADS), queue: 1024 }
    }
}

/// Threads for text, with a bounded queue. Dropping it ends them after their present jobs; waiting jobs end
/// with [`TextError::Closed`].
#[derive(Debug)]
pub struct TextPool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    tokenizer: Tokenizer,
}

type Job = Box<dyn FnOnce() + Send>;

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    capacity: usize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    idle: usize,
    closed: bool,
}

impl Shared {
    /// No job runs under the lock, so a poisoned lock guards a sound state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&self, job: Job) -> Result<(), TextError> {
        let mut state = self.lock();
        if state.closed {
            return Err(TextError::Closed);
        }
        // An idle thread will take a job from the queue at once: that one does not wait.
        if state.jobs.len() >= self.capacity + state.idle {
            return Err(TextError::Busy { queue: self.capacity });
        }
        state.jobs.push_back(job);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// The next job; none when the pool is shut down.
    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        state.idle += 1;
        while state.jobs.is_empty() && !state.closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.idle -= 1;
        if state.closed { None } else { state.jobs.pop_front() }
    }
}

impl TextPool {
    /// Starts the threads.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn new(tokenizer: Tokenizer, options: TextPoolOptions) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            capacity: options.queue.max(1),
        });
        let mut pool = Self { shared, threads: Vec::new(), tokenizer };
        for index in 0..options.threads.clamp(1, MAX_THREADS) {
            let shared = Arc::clone(&pool.shared);
            let thread = std::thread::Builder::new()
                .name(format!("text-{index}"))
                .stack_size(STACK_BYTES)
                .spawn(move || {
                    while let Some(job) = shared.next() {
                        job();
                    }
                })?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    /// Token ids of `text`, as [`Tokenizer::encode`].
    ///
    /// # Errors
    /// Those of [`Tokenizer::encode`] and of [`TextPool::run`].
    pub async fn encode(&self, text: String, add_special: bool) -> Result<Vec<TokenId>, TextError> {
        let tokenizer = self.tokenizer.clone();
        self.run(move || tokenizer.encode(&text, add_special)).await?
    }

    /// Runs `job` on one of the threads and waits for its result. Dropping the future before it started
    /// cancels the job.
    ///
    /// # Errors
    /// [`TextError::Busy`] at once when the queue is full, [`TextError::Panicked`], or
    /// [`TextError::Closed`] when the pool is dropped meanwhile.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, TextError> {
        let (sender, receiver) = oneshot::channel();
        self.shared.submit(Box::new(move || {
            if !sender.is_closed() {
                // The receiver may have gone meanwhile; then nobody wants the result.
                let _ = sender.send(catch_panic(job));
            }
        }))?;
        receiver.await.map_err(|_| TextError::Closed)?.map_err(TextError::Panicked)
    }

    /// Jobs that wait now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let state = self.shared.lock();
        state.jobs.len().saturating_sub(state.idle)
    }

    /// The tokenizer that [`TextPool::encode`] uses.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }
}

impl Drop for TextPool {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        let waiting = std::mem::take(&mut state.jobs);
        drop(state);
        drop(waiting);
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // A job may own the last reference to the pool; its thread cannot wait for itself.
            if thread.thread().id() != std::thread::current().id() {
                // Jobs do not unwind, so there is nothing to report.
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::mpsc;
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// Lets an async function begin.
    fn poll_once<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn pool(threads: usize, queue: usize) -> TextPool {
        let json = br#"{"version":"1.0","added_tokens":[],"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}"#;
        let tokenizer = Tokenizer::from_json_bytes(json).unwrap();
        TextPool::new(tokenizer, TextPoolOptions { threads, queue }).unwrap()
    }

    #[tokio::test]
    async fn a_panic_ends_its_job_only() {
        let pool = pool(1, 4);
        let failed = pool.run(|| -> u32 { panic!("of {}", "note") }).await;
        assert!(matches!(failed, Err(TextError::Panicked(text)) if text == "of note"));
        assert_eq!(pool.run(|| 7).await.unwrap(), 7);
        assert_eq!(pool.encode("aa".to_owned(), true).await.unwrap(), [0, 0]);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_a_dropped_pool_closes() {
        let pool = Arc::new(pool(1, 2));
        let (started, has_started) = mpsc::channel();
        let (go, wait) = mpsc::channel::<()>();
        let running = tokio::spawn({
            let pool = Arc::clone(&pool);
            async move {
                let job = move || {
                    started.send(()).unwrap();
                    wait.recv().is_ok()
                };
                pool.run(job).await
            }
        });
        while has_started.try_recv().is_err() {
            tokio::task::yield_now().await;
        }
        let mut waiting: Vec<_> = (0..2).map(|i| Box::pin(pool.run(move || i))).collect();
        for job in &mut waiting {
            assert!(poll_once(job.as_mut()).is_pending());
        }
        assert_eq!(pool.waiting(), 2);
        assert!(matches!(pool.run(|| 0).await, Err(TextError::Busy { queue: 2 })));
        drop(waiting);
        go.send(()).unwrap();
        assert!(running.await.unwrap().unwrap());
        assert_eq!(pool.run(|| 5).await.unwrap(), 5);
    }

    #[tokio::test]
    async fn a_job_nobody_waits_for_does_not_run() {
        let pool = pool(1, 8);
        let (go, wait) = mpsc::channel::<()>();
        let mut blocking = Box::pin(pool.run(move || wait.recv().is_ok()));
        assert!(poll_once(blocking.as_mut()).is_pending());
        let (ran, has_run) = mpsc::channel();
        let mut abandoned = Box::pin(pool.run(move || ran.send(())));
        assert!(poll_once(abandoned.as_mut()).is_pending());
        drop(abandoned);
        go.send(()).unwrap();
        assert!(blocking.await.unwrap());
        pool.run(|| ()).await.unwrap();
        assert!(has_run.try_recv().is_err());
    }
}
