//! Series of classic models: KServe's histograms, our own, and Triton's counters where the settings ask for them.

use std::sync::atomic::Ordering::Relaxed;

use super::histogram::Histogram;
use super::table::{Kind, Metric, Write, metric};
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
use Write::{Classic, Triton, Versioned};

/// The families, in the order of the text.
#[rustfmt::skip]
pub(super) static FAMILIES: &[Metric] = &[
    metric("request_preprocess_seconds", Hist, "", "Reading a request to a classic model (KServe's name).", Classic(|m, f| histogram(&m.statistics.preprocess, f))),
    metric("request_predict_seconds", Hist, "", "The call of a classic model, queue included (KServe's name).", Classic(|m, f| histogram(&m.statistics.predict, f))),
    metric("request_postprocess_seconds", Hist, "", "Writing the answer of a classic model (KServe's name).", Classic(|m, f| histogram(&m.statistics.postprocess, f))),
    metric("request_explain_seconds", Hist, "", "Explanations; there are none (KServe's name).", Classic(|m, f| histogram(&m.statistics.explain, f))),
    metric("tokenmill_predictive_requests_total", Counter, "", "Requests to a classic model, answered and failed.", Versioned(|m, f| f.count(&[], m.statistics.success.count() + m.statistics.fail.count()))),
    metric("tokenmill_predictive_inference_seconds", Hist, "", "Executions of a classic model.", Versioned(|m, f| histogram(&m.statistics.inference, f))),
    metric("tokenmill_predictive_batch_size", Hist, "", "Rows of an execution.", Versioned(|m, f| histogram(&m.statistics.batch_rows, f))),
    metric("nv_inference_request_success", Counter, "", "Answered requests (Triton's name).", Triton(|m, f| f.count(&[], m.statistics.success.count()))),
    metric("nv_inference_request_failure", Counter, "reason", "Failed requests (Triton's name).", Triton(failures)),
    metric("nv_inference_count", Counter, "", "Rows computed (Triton's name).", Triton(|m, f| f.count(&[], m.statistics.rows.load(Relaxed)))),
    metric("nv_inference_exec_count", Counter, "", "Executions of the model (Triton's name).", Triton(|m, f| f.count(&[], m.statistics.executions.load(Relaxed)))),
    metric("nv_inference_pending_request_count", Gauge, "", "Requests in the house (Triton's name).", Triton(|m, f| f.count(&[], m.statistics.pending.load(Relaxed)))),
    metric("nv_inference_request_duration_us", Counter, "", "Time of answered requests (Triton's name).", Triton(|m, f| f.count(&[], m.statistics.success.micros()))),
    metric("nv_inference_queue_duration_us", Counter, "", "Time in the queue (Triton's name).", Triton(|m, f| f.count(&[], m.statistics.queue.micros()))),
    metric("nv_inference_compute_input_duration_us", Counter, "", "Time of reading inputs (Triton's name).", Triton(|m, f| f.count(&[], m.statistics.compute_input.micros()))),
    metric("nv_inference_compute_infer_duration_us", Counter, "", "Time of executions (Triton's name).", Triton(|m, f| f.count(&[], m.statistics.compute_infer.micros()))),
    metric("nv_inference_compute_output_duration_us", Counter, "", "Time of writing outputs (Triton's name).", Triton(|m, f| f.count(&[], m.statistics.compute_output.micros()))),
];
