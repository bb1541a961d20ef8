//! A loaded model that requests can be sent to: the pool, its panic boundary, deadlines and the queue limit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::model::{Model, PredictError, Request};
use crate::tensor::TensorMap;

/// The threads on which models compute, shared by all of them.
#[derive(Clone)]
pub struct PredictPool {
    threads: Arc<rayon::ThreadPool>,
}

impl PredictPool {
    /// A pool of `threads` threads (at least one).
    ///
    /// # Errors
    /// When the system refuses to start one.
    pub fn new(threads: usize) -> Result<Self, std::io::Error> {
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|index| format!("predict-{index}"))
            .build()
            .map_err(std::io::Error::other)?;
        Ok(Self { threads: Arc::new(threads) })
    }

    /// Runs `work` on the pool and waits for it.
    pub fn install<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.threads.install(work)
    }
}

/// How requests to one model are run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandleOptions {
    /// Requests in flight; more are refused.
    pub max_in_flight: usize,
}

impl Default for HandleOptions {
    fn default() -> Self {
        Self { max_in_flight: 4096 }
    }
}

/// Where the time of a request went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// From submission to the start of its execution.
    pub queue: Duration,
    /// The execution it was part of.
    pub compute: Duration,
    /// Rows of that execution.
    pub batch_rows: usize,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// The outputs.
    pub outputs: TensorMap,
    /// Where the time went.
    pub timings: Timings,
}

/// Why a request got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Too many requests wait.
    #[error("the model's queue is full; retry later")]
    Overloaded,
    /// Its deadline passed before it ran.
    #[error("the deadline passed before the request ran")]
    Deadline,
    /// The model refused or failed.
    #[error(transparent)]
    Predict(#[from] PredictError),
    /// The model panicked; the process lives.
    #[error("the model failed on this request; this is an error of the server")]
    Panicked,
}

/// A model and the threads it runs on; clones share both.
#[derive(Clone)]
pub struct PredictHandle {
    model: Arc<dyn Model>,
    pool: PredictPool,
    options: HandleOptions,
    in_flight: Arc<AtomicUsize>,
}

/// One place among the requests in flight.
struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl PredictHandle {
    /// Serves `model` on `pool`.
    pub fn new(model: Arc<dyn Model>, pool: PredictPool, options: HandleOptions) -> Self {
        Self { model, pool, options, in_flight: Arc::default() }
    }

    /// The model.
    pub fn model(&self) -> &Arc<dyn Model> {
        &self.model
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    fn permit(&self) -> Result<Permit, SubmitError> {
        let before = self.in_flight.fetch_add(1, Ordering::AcqRel);
        let permit = Permit(Arc::clone(&self.in_flight));
        if before >= self.options.max_in_flight { Err(SubmitError::Overloaded) } else { Ok(permit) }
    }

    /// Computes a request. Dropping the future before it runs cancels it.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub async fn predict(
        &self,
        request: Request,
        deadline: Option<Instant>,
    ) -> Result<Prediction, SubmitError> {
        let permit = self.permit()?;
        let submitted = Instant::now();
        let (reply, answer) = oneshot::channel();
        let model = Arc::clone(&self.model);
        self.pool.threads.spawn(move || {
            let _permit = permit;
            if reply.is_closed() {
                return;
            }
            let started = Instant::now();
            if deadline.is_some_and(|deadline| started >= deadline) {
                let _ = reply.send(Err(SubmitError::Deadline));
                return;
            }
            let outcome = catch_unwind(AssertUnwindSafe(|| model.predict(&request)));
            let timings = Timings {
                queue: started - submitted,
                compute: started.elapsed(),
                batch_rows: rows(&request),
            };
            let _ = reply.send(match outcome {
                Ok(outputs) => outputs
                    .map(|outputs| Prediction { outputs, timings })
                    .map_err(SubmitError::Predict),
                Err(_) => Err(SubmitError::Panicked),
            });
        });
        answer.await.unwrap_or(Err(SubmitError::Panicked))
    }
}

/// Rows of a request: the first size of its first tensor.
fn rows(request: &Request) -> usize {
    request
        .inputs
        .iter()
        .next()
        .and_then(|(_, tensor)| tensor.shape().first().copied())
        .unwrap_or(0)
}
