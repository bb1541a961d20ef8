//! How classic models are loaded and run.

use std::time::Duration;

use tokenmill_predictive::{Batching, HandleOptions, LoadOptions, Method};

use super::{Arguments, Environment, Machine, ModelSpec, Split, UsageError, model};

/// Settings of classic models.
#[derive(Clone, Debug)]
pub struct PredictiveSettings {
    /// Format and default method.
    pub load: LoadOptions,
    /// Threads on which models compute.
    pub threads: usize,
    /// Limits of requests, and how they are merged.
    pub handle: HandleOptions,
    /// Directory of classic models beside a language model, or an address of one.
    pub repository: Option<ModelSpec>,
    /// The model directory holds models of their own folders, which are loaded by calls; it may be empty or missing.
    pub on_call: bool,
    /// Port of gRPC where classic models are served.
    pub grpc_port: Option<u16>,
}

/// KServe's gRPC port.
const GRPC_PORT: u64 = 8081;
/// Rows of a batch when only the delay is given: the default of KServe's batcher.
const BATCH_ROWS: u64 = 32;
/// Longest delay of a batch in microseconds.
const MAX_BATCH_DELAY: u64 = 60_000_000;

pub(super) fn predictive(
    arguments: &Arguments,
    environment: &Environment,
    machine: Machine,
) -> Result<PredictiveSettings, UsageError> {
    let threads = arguments.whole("nthread", 1, 4096)?.or(arguments.whole("threads", 1, 4096)?);
    let limit = arguments.whole("max-in-flight-predictions", 1, u64::from(u32::MAX))?;
    let default = HandleOptions::default();
    Ok(PredictiveSettings {
        load: LoadOptions {
            format: arguments.text("framework").map(str::to_ascii_lowercase),
            method: method(arguments, environment)?,
        },
        threads: threads
            .map_or(Split::of(machine, None).kernel_threads, |threads| threads as usize),
        handle: HandleOptions {
            max_in_flight: limit.map_or(default.max_in_flight, |limit| limit as usize),
            batching: batching(arguments)?,
        },
        repository: model::repository(arguments)?,
        on_call: environment.is_true("MULTI_MODEL_SERVER"),
        grpc_port: arguments
            .switch("enable-grpc")
            .unwrap_or(true)
            .then_some(arguments.whole("grpc-port", 0, 65_535)?.unwrap_or(GRPC_PORT) as u16),
    })
}

/// Batching of models whose own configuration says nothing; off without a size or a delay.
fn batching(arguments: &Arguments) -> Result<Option<Batching>, UsageError> {
    let rows = arguments.whole("max-batch-size", 1, u64::from(u32::MAX))?;
    let delay = arguments.whole("max-batch-delay-us", 0, MAX_BATCH_DELAY)?;
    Ok((rows.is_some() || delay.is_some()).then(|| Batching {
        max_rows: rows.unwrap_or(BATCH_ROWS) as usize,
        max_delay: Duration::from_micros(delay.unwrap_or(0)),
        preferred: Vec::new(),
    }))
}

/// The method that was named; KServe's variable knows two.
fn method(arguments: &Arguments, environment: &Environment) -> Result<Option<Method>, UsageError> {
    let Some(name) = arguments.text("predict-method") else {
        let proba = environment.get("PREDICT_PROBA");
        let proba = proba.is_some_and(|value| value.eq_ignore_ascii_case("true"));
        return Ok(proba.then_some(Method::PredictProba));
    };
    Method::from_name(name).map(Some).ok_or_else(|| {
        let typed = arguments.typed("predict-method");
        let known: Vec<&str> = Method::NAMES.iter().map(|(_, name)| *name).collect();
        UsageError(format!("{typed}: {name:?} is not one of {}", known.join(", ")))
    })
}
