//! A loaded model that requests can be sent to: where it runs, its panic boundary, deadlines, the queue limit, batching.
//!
//! A request runs on the pool, or with others as a batch. A small one to a model that answers small ones quickly is
//! computed where it came in, because the way to another thread and back would take longer than the answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::batch::{self, Batching};
use crate::model::{Model, PredictError, Request};
use crate::pool::PredictPool;
use crate::queue::Priority;
use crate::tensor::TensorMap;

/// Most rows of a small request.
const SMALL_ROWS: usize = 16;
/// Most bytes of a small request.
const SMALL_BYTES: usize = 4096;
/// Small requests that take no longer are computed where they come in: a thread of sockets can do without the time,
/// and waking another thread and being woken by it costs about as much.
const QUICK: Duration = Duration::from_micros(50);

/// How requests to one model are run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandleOptions {
    /// Requests in flight; more are refused.
    pub max_in_flight: usize,
    /// Requests are merged; `None` runs each alone.
    pub batching: Option<Batching>,
}

impl Default for HandleOptions {
    fn default() -> Self {
        Self { max_in_flight: 4096, batching: None }
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
    /// The request's own rows.
    pub rows: usize,
    /// The first answered of its execution: who counts executions counts this one.
    pub leads: bool,
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
    max_in_flight: usize,
    in_flight: Arc<AtomicUsize>,
    pace: Arc<Pace>,
    /// How requests are merged, and the thread that collects them.
    collector: Option<(Batching, Sender<Job>)>,
}

/// How long small requests to a model take, in nanoseconds; 0 before the first.
#[derive(Default)]
struct Pace(AtomicU64);

impl Pace {
    fn is_small(request: &Request) -> bool {
        let bytes: usize = request.inputs.iter().map(|(_, tensor)| tensor.data().len()).sum();
        bytes <= SMALL_BYTES && batch::rows(request) <= SMALL_ROWS
    }

    fn is_quick(&self) -> bool {
        let nanos = self.0.load(Ordering::Relaxed);
        nanos > 0 && u128::from(nanos) <= QUICK.as_nanos()
    }

    /// A slow one counts at once and is forgotten slowly.
    fn note(&self, took: Duration) {
        let new = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
        let old = self.0.load(Ordering::Relaxed);
        self.0.store(new.max(old - old / 8 + new / 8), Ordering::Relaxed);
    }
}

/// One place among the requests in flight.
struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A request on its way.
struct Job {
    request: Request,
    submitted: Instant,
    deadline: Option<Instant>,
    priority: Priority,
    reply: oneshot::Sender<Result<Prediction, SubmitError>>,
    permit: Permit,
}

impl batch::Job for Job {
    fn request(&self) -> &Request {
        &self.request
    }

    fn submitted(&self) -> Instant {
        self.submitted
    }
}

impl Job {
    /// Itself, unless nobody waits any more or its time is over.
    fn still_wanted(self) -> Option<Self> {
        if self.reply.is_closed() {
            return None;
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            self.answer(Err(SubmitError::Deadline));
            return None;
        }
        Some(self)
    }

    /// Replies, and says whether somebody waited; its place is free before the caller knows.
    fn answer(self, answer: Result<Prediction, SubmitError>) -> bool {
        drop(self.permit);
        self.reply.send(answer).is_ok()
    }

    /// Computes it alone.
    fn run(self, model: &dyn Model) {
        let answer = alone(model, &self.request, self.submitted);
        self.answer(answer);
    }
}

/// Computes a request by itself.
fn alone(
    model: &dyn Model,
    request: &Request,
    submitted: Instant,
) -> Result<Prediction, SubmitError> {
    let started = Instant::now();
    let outputs = call(model, request)?;
    let rows = batch::rows(request);
    let (queue, compute) = (started - submitted, started.elapsed());
    let timings = Timings { queue, compute, batch_rows: rows, rows, leads: true };
    Ok(Prediction { outputs, timings })
}

/// Calls the model behind the panic boundary.
fn call(model: &dyn Model, request: &Request) -> Result<TensorMap, SubmitError> {
    catch_unwind(AssertUnwindSafe(|| model.predict(request)))
        .map_err(|_| SubmitError::Panicked)?
        .map_err(SubmitError::Predict)
}

/// Computes jobs whose requests fit together: as one, or each alone when that fails.
fn run_batch(model: &dyn Model, jobs: Vec<Job>) {
    let mut jobs: Vec<Job> = jobs.into_iter().filter_map(Job::still_wanted).collect();
    if jobs.len() == 1 {
        jobs.drain(..).for_each(|job| job.run(model));
        return;
    }
    let started = Instant::now();
    let sizes: Vec<usize> = jobs.iter().map(|job| batch::rows(&job.request)).collect();
    let requests: Vec<&Request> = jobs.iter().map(|job| &job.request).collect();
    let answers = batch::merge(&requests)
        .and_then(|merged| call(model, &merged).ok())
        .and_then(|answer| batch::split(&answer, &sizes));
    let Some(answers) = answers else {
        jobs.into_iter().for_each(|job| job.run(model));
        return;
    };
    let compute = started.elapsed();
    let batch_rows = sizes.iter().sum();
    let mut leads = true;
    for ((job, outputs), rows) in jobs.into_iter().zip(answers).zip(sizes) {
        let queue = started - job.submitted;
        let timings = Timings { queue, compute, batch_rows, rows, leads };
        if job.answer(Ok(Prediction { outputs, timings })) {
            leads = false;
        }
    }
}

impl PredictHandle {
    /// Serves `model` on `pool`. Merges requests when the options ask for it and the model's rows are independent.
    ///
    /// # Panics
    /// When the system refuses to start the collecting thread.
    pub fn new(model: Arc<dyn Model>, pool: PredictPool, options: HandleOptions) -> Self {
        let HandleOptions { max_in_flight, batching } = options;
        let batching = batching.filter(|_| model.signature().batchable);
        let collector = batching.map(|batching| {
            let (sender, jobs) = channel();
            let (model, pool) = (Arc::clone(&model), pool.clone());
            let options = batching.clone();
            let run = move |batch: Vec<Job>| {
                let model = Arc::clone(&model);
                let priority = batch.iter().map(|job| job.priority).min().unwrap_or_default();
                pool.spawn(priority, move || run_batch(model.as_ref(), batch));
            };
            std::thread::Builder::new()
                .name("predict-batches".into())
                .spawn(move || batch::collect(&jobs, &options, run))
                .expect("the operating system starts a thread");
            (batching, sender)
        });
        let (in_flight, pace) = (Arc::default(), Arc::default());
        Self { model, pool, max_in_flight, in_flight, pace, collector }
    }

    /// The model.
    pub fn model(&self) -> &Arc<dyn Model> {
        &self.model
    }

    /// How requests are merged; `None` when each runs alone.
    pub fn batching(&self) -> Option<&Batching> {
        self.collector.as_ref().map(|(batching, _)| batching)
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    fn permit(&self) -> Result<Permit, SubmitError> {
        let before = self.in_flight.fetch_add(1, Ordering::AcqRel);
        let permit = Permit(Arc::clone(&self.in_flight));
        if before >= self.max_in_flight { Err(SubmitError::Overloaded) } else { Ok(permit) }
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
        self.predict_in_order(request, deadline, Priority::default()).await
    }

    /// The same before everything that waits with a lower priority; a batch has that of its most urgent request.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub async fn predict_in_order(
        &self,
        request: Request,
        deadline: Option<Instant>,
        priority: Priority,
    ) -> Result<Prediction, SubmitError> {
        let (submitted, permit) = (Instant::now(), self.permit()?);
        let small = self.collector.is_none() && Pace::is_small(&request);
        if small && self.pace.is_quick() {
            if deadline.is_some_and(|deadline| submitted >= deadline) {
                return Err(SubmitError::Deadline);
            }
            let answer = alone(self.model.as_ref(), &request, submitted);
            self.pace.note(submitted.elapsed());
            return answer;
        }
        let (reply, answer) = oneshot::channel();
        let job = Job { request, submitted, deadline, priority, reply, permit };
        match &self.collector {
            Some((_, collector)) => collector.send(job).map_err(|_| SubmitError::Panicked)?,
            None => {
                let (model, pace) = (Arc::clone(&self.model), Arc::clone(&self.pace));
                self.pool.spawn(priority, move || {
                    let Some(job) = job.still_wanted() else { return };
                    let started = Instant::now();
                    let answer = alone(model.as_ref(), &job.request, job.submitted);
                    if small {
                        pace.note(started.elapsed());
                    }
                    job.answer(answer);
                });
            }
        }
        answer.await.unwrap_or(Err(SubmitError::Panicked))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;
    use std::thread::ThreadId;

    use super::*;
    use crate::model::{Description, Signature};
    use crate::tensor::Tensor;

    /// Doubles its input; refuses negative numbers, panics on NaN, counts calls.
    #[derive(Default)]
    struct Double {
        signature: Signature,
        description: Description,
        calls: AtomicUsize,
        thread: Mutex<Option<ThreadId>>,
    }

    impl Model for Double {
        fn signature(&self) -> &Signature {
            &self.signature
        }

        fn description(&self) -> &Description {
            &self.description
        }

        fn predict(&self, request: &Request) -> Result<TensorMap, PredictError> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            *self.thread.lock().expect("nobody panicked with it") =
                Some(std::thread::current().id());
            let x = request.inputs.get("x").and_then(Tensor::to_f64).expect("tests send x");
            assert!(!x.iter().any(|x| x.is_nan()), "a bug");
            if x.iter().any(|&x| x < 0.0) {
                return Err(PredictError::input("negative"));
            }
            let doubled: Vec<f64> = x.iter().map(|x| 2.0 * x).collect();
            let mut answer = TensorMap::default();
            answer.insert("y", Tensor::from_values(vec![x.len(), 1], &doubled));
            Ok(answer)
        }
    }

    fn request(x: f64) -> Request {
        let mut inputs = TensorMap::default();
        inputs.insert("x", Tensor::from_values(vec![1, 1], &[x]));
        Request { inputs, ..Request::default() }
    }

    fn handle(model: &Arc<Double>, options: HandleOptions) -> PredictHandle {
        let pool = PredictPool::new(1).expect("a thread starts");
        PredictHandle::new(Arc::clone(model) as Arc<dyn Model>, pool, options)
    }

    fn double() -> Arc<Double> {
        let signature = Signature { batchable: true, ..Signature::default() };
        Arc::new(Double { signature, ..Double::default() })
    }

    fn y(answer: &Result<Prediction, SubmitError>) -> Option<f64> {
        answer.as_ref().ok()?.outputs.get("y")?.to_f64()?.first().copied()
    }

    #[tokio::test]
    async fn errors_and_panics_stay_with_their_request() {
        let model = double();
        let batching =
            Batching { max_rows: 4, max_delay: Duration::from_secs(5), preferred: Vec::new() };
        let options = HandleOptions { batching: Some(batching), ..HandleOptions::default() };
        let handle = handle(&model, options);
        let run = |x| handle.predict(request(x), None);
        let answers = tokio::join!(run(1.0), run(-1.0), run(f64::NAN), run(4.0));
        assert_eq!((y(&answers.0), y(&answers.3)), (Some(2.0), Some(8.0)));
        assert_eq!(answers.1.unwrap_err(), SubmitError::Predict(PredictError::input("negative")));
        assert_eq!(answers.2.unwrap_err(), SubmitError::Panicked);
        assert_eq!(handle.in_flight(), 0);
    }

    #[tokio::test]
    async fn full_and_preferred_batches_run_at_once_as_one_call() {
        let model = double();
        let batching =
            Batching { max_rows: 4, max_delay: Duration::from_secs(60), preferred: vec![2] };
        let options = HandleOptions { batching: Some(batching), ..HandleOptions::default() };
        let handle = handle(&model, options);
        let run = |x| handle.predict(request(x), None);
        let (a, b) = tokio::join!(run(1.0), run(2.0));
        assert_eq!((y(&a), y(&b)), (Some(2.0), Some(4.0)));
        assert_eq!(model.calls.load(Ordering::Relaxed), 1);
        let counted = [a, b].map(|answer| {
            let Timings { batch_rows, rows, leads, .. } = answer.unwrap().timings;
            (batch_rows, rows, leads)
        });
        assert_eq!(counted, [(2, 1, true), (2, 1, false)]);
    }

    #[tokio::test]
    async fn small_requests_to_quick_models_stay_on_their_thread() {
        let model = double();
        let handle = handle(&model, HandleOptions::default());
        let here = std::thread::current().id();
        let pace = |nanos| handle.pace.0.store(nanos, Ordering::Relaxed);
        let thread = || model.thread.lock().expect("nobody panicked with it").expect("a call");
        assert_eq!(y(&handle.predict(request(1.0), None).await), Some(2.0));
        assert!(thread() != here && handle.pace.0.load(Ordering::Relaxed) > 0);
        pace(1);
        assert_eq!(y(&handle.predict(request(1.0), None).await), Some(2.0));
        assert_eq!(thread(), here);
        pace(1);
        let late = handle.predict(request(1.0), Some(Instant::now())).await;
        assert_eq!(late.unwrap_err(), SubmitError::Deadline);
        let failed = handle.predict(request(f64::NAN), None).await;
        assert_eq!((failed.unwrap_err(), handle.in_flight()), (SubmitError::Panicked, 0));
        pace(1);
        let large = Tensor::from_values(vec![SMALL_ROWS + 1, 1], &[1.0; SMALL_ROWS + 1]);
        let mut inputs = TensorMap::default();
        inputs.insert("x", large);
        let large = Request { inputs, ..Request::default() };
        assert!(handle.predict(large, None).await.is_ok() && thread() != here);
    }

    #[test]
    fn a_slow_call_counts_at_once_and_is_forgotten_slowly() {
        let pace = Pace::default();
        assert!(!pace.is_quick());
        pace.note(QUICK);
        assert!(pace.is_quick());
        pace.note(QUICK * 8);
        let mut calls = 0;
        while !pace.is_quick() {
            pace.note(QUICK / 2);
            calls += 1;
        }
        assert!((10..40).contains(&calls), "{calls}");
    }

    #[tokio::test]
    async fn limits_and_deadlines_refuse() {
        let model = double();
        let handle = handle(&model, HandleOptions { max_in_flight: 0, batching: None });
        let refused = handle.predict(request(1.0), None).await;
        assert_eq!(refused.unwrap_err(), SubmitError::Overloaded);
        let handle = self::handle(&model, HandleOptions::default());
        let late = handle.predict(request(1.0), Some(Instant::now())).await;
        assert_eq!(late.unwrap_err(), SubmitError::Deadline);
        assert_eq!(model.calls.load(Ordering::Relaxed), 0);
    }
}
