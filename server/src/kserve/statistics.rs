//! Counters of one classic model: Triton's statistics and KServe's histograms.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokenmill_predictive::Timings;

use crate::metrics::Histogram;

/// KServe's bounds, in seconds.
const SECONDS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Bounds of executions, in seconds: small models take microseconds.
const EXECUTION: &[f64] = &[
    1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0,
];
/// Bounds of rows.
const ROWS: &[f64] =
    &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0];
/// Batch sizes that are told apart.
const MAX_BATCH_SIZES: usize = 128;

/// How often, and how long altogether.
#[derive(Debug, Default)]
pub(crate) struct Total {
    count: AtomicU64,
    nanos: AtomicU64,
}

impl Total {
    fn add(&self, time: Duration) {
        self.count.fetch_add(1, Relaxed);
        self.nanos.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    pub(crate) fn micros(&self) -> u64 {
        self.nanos.load(Relaxed) / 1000
    }

    fn sum(&self) -> Sum {
        Sum { count: self.count(), nanos: self.nanos.load(Relaxed) }
    }
}

/// How often, and how many nanoseconds altogether.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) count: u64,
    pub(crate) nanos: u64,
}

impl Sum {
    fn json(self) -> Value {
        json!({"count": self.count, "ns": self.nanos})
    }
}

/// The parts of requests that are timed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) success: Sum,
    pub(crate) fail: Sum,
    pub(crate) queue: Sum,
    pub(crate) compute_input: Sum,
    pub(crate) compute_infer: Sum,
    pub(crate) compute_output: Sum,
}

/// The counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// Milliseconds since 1970 of the last answer; 0 before the first.
    pub(crate) last: u64,
    /// Rows answered.
    pub(crate) rows: u64,
    /// Calls of the model.
    pub(crate) executions: u64,
    pub(crate) times: Times,
    /// Batch sizes and what their calls took.
    pub(crate) batches: Vec<(usize, Sum)>,
}

/// Executions of one batch size.
#[derive(Clone, Copy, Debug, Default)]
struct Batches {
    count: u64,
    compute: Duration,
}

/// Everything counted of one model.
#[derive(Debug)]
pub struct Statistics {
    pub(crate) success: Total,
    pub(crate) fail: Total,
    pub(crate) queue: Total,
    pub(crate) compute_input: Total,
    pub(crate) compute_infer: Total,
    pub(crate) compute_output: Total,
    pub(crate) rows: AtomicU64,
    pub(crate) executions: AtomicU64,
    pub(crate) pending: AtomicU64,
    last: AtomicU64,
    batches: Mutex<BTreeMap<usize, Batches>>,
    pub(crate) preprocess: Histogram,
    pub(crate) predict: Histogram,
    pub(crate) postprocess: Histogram,
    pub(crate) explain: Histogram,
    pub(crate) inference: Histogram,
    pub(crate) batch_rows: Histogram,
}

impl Default for Statistics {
    fn default() -> Self {
        Self {
            success: Total::default(),
            fail: Total::default(),
            queue: Total::default(),
            compute_input: Total::default(),
            compute_infer: Total::default(),
            compute_output: Total::default(),
            rows: AtomicU64::new(0),
            executions: AtomicU64::new(0),
            pending: AtomicU64::new(0),
            last: AtomicU64::new(0),
            batches: Mutex::default(),
            preprocess: Histogram::seconds(SECONDS),
            predict: Histogram::seconds(SECONDS),
            postprocess: Histogram::seconds(SECONDS),
            explain: Histogram::seconds(SECONDS),
            inference: Histogram::seconds(EXECUTION),
            batch_rows: Histogram::counts_of(ROWS),
        }
    }
}

impl Statistics {
    /// The counters now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = |(&size, batches): (&usize, &Batches)| {
            let nanos = u64::try_from(batches.compute.as_nanos()).unwrap_or(u64::MAX);
            (size, Sum { count: batches.count, nanos })
        };
        Snapshot {
            last: self.last.load(Relaxed),
            rows: self.rows.load(Relaxed),
            executions: self.executions.load(Relaxed),
            times: Times {
                success: self.success.sum(),
                fail: self.fail.sum(),
                queue: self.queue.sum(),
                compute_input: self.compute_input.sum(),
                compute_infer: self.compute_infer.sum(),
                compute_output: self.compute_output.sum(),
            },
            batches: batches.iter().map(batch).collect(),
        }
    }

    /// One element of `model_stats`; `bytes` is what the model takes.
    pub(crate) fn json(&self, name: &str, version: Option<&str>, bytes: u64) -> Value {
        let Snapshot { last, rows, executions, times, batches } = self.snapshot();
        let zero = Sum::default().json();
        let batch = |(size, compute): &(usize, Sum)| {
            json!({
                "batch_size": size,
                "compute_input": zero,
                "compute_infer": compute.json(),
                "compute_output": zero,
            })
        };
        json!({
            "name": name,
            "version": version.unwrap_or_default(),
            "last_inference": last,
            "inference_count": rows,
            "execution_count": executions,
            "inference_stats": {
                "success": times.success.json(),
                "fail": times.fail.json(),
                "queue": times.queue.json(),
                "compute_input": times.compute_input.json(),
                "compute_infer": times.compute_infer.json(),
                "compute_output": times.compute_output.json(),
                "cache_hit": zero,
                "cache_miss": zero,
            },
            "response_stats": {},
            "batch_stats": batches.iter().map(batch).collect::<Vec<_>>(),
            "memory_usage": [{"type": "CPU", "id": 0, "byte_size": bytes}],
        })
    }

    /// Counts a request, and the execution that it leads.
    fn executed(&self, timings: Timings) {
        self.queue.add(timings.queue);
        self.compute_infer.add(timings.compute);
        self.rows.fetch_add(timings.rows as u64, Relaxed);
        if !timings.leads {
            return;
        }
        let rows = timings.batch_rows;
        self.executions.fetch_add(1, Relaxed);
        self.inference.observe(timings.compute.as_secs_f64());
        self.batch_rows.observe(rows as f64);
        let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        if batches.len() < MAX_BATCH_SIZES || batches.contains_key(&rows) {
            let entry = batches.entry(rows).or_default();
            entry.count += 1;
            entry.compute += timings.compute;
        }
    }
}

/// The clock of one request; a request that is dropped before [`Watch::finish`] counts as failed.
#[derive(Debug)]
pub struct Watch {
    statistics: Arc<Statistics>,
    began: Instant,
    phase: Instant,
    done: bool,
}

impl Watch {
    /// The request came.
    pub fn start(statistics: &Arc<Statistics>) -> Self {
        let began = Instant::now();
        statistics.pending.fetch_add(1, Relaxed);
        Self { statistics: Arc::clone(statistics), began, phase: began, done: false }
    }

    fn lap(&mut self) -> Duration {
        let now = Instant::now();
        let lap = now - self.phase;
        self.phase = now;
        lap
    }

    /// Its inputs are read.
    pub(crate) fn decoded(&mut self) {
        let lap = self.lap();
        self.statistics.compute_input.add(lap);
        self.statistics.preprocess.observe(lap.as_secs_f64());
    }

    /// The model answered.
    pub(crate) fn predicted(&mut self, timings: Timings) {
        let lap = self.lap();
        self.statistics.executed(timings);
        self.statistics.predict.observe(lap.as_secs_f64());
    }

    /// The answer is written.
    pub fn finish(mut self) {
        let lap = self.lap();
        self.statistics.compute_output.add(lap);
        self.statistics.postprocess.observe(lap.as_secs_f64());
        self.statistics.success.add(self.began.elapsed());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.statistics.last.store(millis, Relaxed);
        self.done = true;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.statistics.pending.fetch_sub(1, Relaxed);
        if !self.done {
            self.statistics.fail.add(self.began.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merged_execution_is_counted_once() {
        let statistics = Arc::new(Statistics::default());
        for (rows, leads) in [(2, true), (3, false), (1, false)] {
            let mut watch = Watch::start(&statistics);
            let compute = Duration::from_nanos(50);
            watch.predicted(Timings { batch_rows: 6, rows, leads, compute, ..Timings::default() });
            watch.finish();
        }
        let json = statistics.json("m", None, 7);
        assert_eq!(json["memory_usage"], json!([{"type": "CPU", "id": 0, "byte_size": 7}]));
        assert_eq!((&json["inference_count"], &json["execution_count"]), (&json!(6), &json!(1)));
        assert_eq!(json["inference_stats"]["compute_infer"], json!({"count": 3, "ns": 150}));
        let batches = json["batch_stats"].as_array().expect("a list");
        assert_eq!(batches.len(), 1);
        assert_eq!(batches[0]["batch_size"], 6);
        assert_eq!(batches[0]["compute_infer"], json!({"count": 1, "ns": 50}));
        assert_eq!(
            (statistics.inference.counts().sum::<u64>(), statistics.batch_rows.sum()),
            (1, 6.0)
        );
    }
}
