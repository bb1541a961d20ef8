//! Series of classic models: KServe's histograms, our own, and Triton's counters where the settings ask for them.

use std::sync::atomic::Ordering::Relaxed;

use super::histogram::Histogram;
use super::table::{Kind, Metric};
use super::text::{Buckets, Family};
use crate::kserve::Predictive;

fn histogram(histogram: &Histogram, family: &mut Family<'_>) {
    let (bounds, counts) = (histogram.bounds(), histogram.counts().collect());
    family.buckets(&[], &Buckets { bounds, counts, sum: histogram.sum() });
}

fn failures(model: &Predictive, family: &mut Family<'_>) {
    family.count(&[("reason", "OTHER")], model.statistics.fail.count());
}

use Kind::{Counter, Gauge, Histogram as Hist};

/// The families, in the order of the text.
#[rustfmt::skip]
pub(super) static FAMILIES: &[Metric] = &[
    Metric::classic("request_preprocess_seconds", Hist, "", "Reading a request to a classic model (KServe's name).", |m, f| histogram(&m.statistics.preprocess, f)),
    Metric::classic("request_predict_seconds", Hist, "", "The call of a classic model, queue included (KServe's name).", |m, f| histogram(&m.statistics.predict, f)),
    Metric::classic("request_postprocess_seconds", Hist, "", "Writing the answer of a classic model (KServe's name).", |m, f| histogram(&m.statistics.postprocess, f)),
    Metric::classic("request_explain_seconds", Hist, "", "Explanations; there are none (KServe's name).", |m, f| histogram(&m.statistics.explain, f)),
    Metric::versioned("tokenmill_predictive_requests_total", Counter, "", "Requests to a classic model, answered and failed.", |m, f| f.count(&[], m.statistics.success.count() + m.statistics.fail.count())),
    Metric::versioned("tokenmill_predictive_inference_seconds", Hist, "", "Executions of a classic model.", |m, f| histogram(&m.statistics.inference, f)),
    Metric::versioned("tokenmill_predictive_batch_size", Hist, "", "Rows of an execution.", |m, f| histogram(&m.statistics.batch_rows, f)),
    Metric::triton("nv_inference_request_success", Counter, "", "Answered requests (Triton's name).", |m, f| f.count(&[], m.statistics.success.count())),
    Metric::triton("nv_inference_request_failure", Counter, "reason", "Failed requests (Triton's name).", failures),
    Metric::triton("nv_inference_count", Counter, "", "Rows computed (Triton's name).", |m, f| f.count(&[], m.statistics.rows.load(Relaxed))),
    Metric::triton("nv_inference_exec_count", Counter, "", "Executions of the model (Triton's name).", |m, f| f.count(&[], m.statistics.executions.load(Relaxed))),
    Metric::triton("nv_inference_pending_request_count", Gauge, "", "Requests in the house (Triton's name).", |m, f| f.count(&[], m.statistics.pending.load(Relaxed))),
    Metric::triton("nv_inference_request_duration_us", Counter, "", "Time of answered requests (Triton's name).", |m, f| f.count(&[], m.statistics.success.micros())),
    Metric::triton("nv_inference_queue_duration_us", Counter, "", "Time in the queue (Triton's name).", |m, f| f.count(&[], m.statistics.queue.micros())),
    Metric::triton("nv_inference_compute_input_duration_us", Counter, "", "Time of reading inputs (Triton's name).", |m, f| f.count(&[], m.statistics.compute_input.micros())),
    Metric::triton("nv_inference_compute_infer_duration_us", Counter, "", "Time of executions (Triton's name).", |m, f| f.count(&[], m.statistics.compute_infer.micros())),
    Metric::triton("nv_inference_compute_output_duration_us", Counter, "", "Time of writing outputs (Triton's name).", |m, f| f.count(&[], m.statistics.compute_output.micros())),
];
