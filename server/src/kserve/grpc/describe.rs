//! What Triton's clients ask about models: configuration and counters as messages.

use tokenmill_predictive::DataType as Stored;

use super::proto::{
    DataType, InferBatchStatistics, InferStatistics, MemoryUsage, ModelConfig,
    ModelDynamicBatching, ModelInput, ModelOutput, ModelStatistics, StatisticDuration,
};
use crate::kserve::statistics::{Snapshot, Sum};
use crate::kserve::{Predictive, metadata};

/// The model's configuration: that of `GET /v2/models/M/config`.
pub(super) fn config(model: &Predictive) -> ModelConfig {
    let loaded = model.handle.model();
    let signature = loaded.signature();
    let batching = model.handle.batching();
    ModelConfig {
        name: model.name.clone(),
        platform: String::new(),
        max_batch_size: batching.map_or(0, |batching| clamp(batching.max_rows)),
        input: signature
            .inputs
            .iter()
            .map(|spec| ModelInput {
                name: spec.name.clone(),
                data_type: data_type(spec.dtype).into(),
                dims: metadata::sizes(spec),
            })
            .collect(),
        output: signature
            .outputs
            .iter()
            .map(|spec| ModelOutput {
                name: spec.name.clone(),
                data_type: data_type(spec.dtype).into(),
                dims: metadata::sizes(spec),
            })
            .collect(),
        dynamic_batching: batching.map(|batching| ModelDynamicBatching {
            preferred_batch_size: batching.preferred.iter().map(|&size| clamp(size)).collect(),
            max_queue_delay_microseconds: metadata::micros(batching.max_delay),
            priority_levels: 0,
            default_priority_level: 0,
        }),
        backend: loaded.description().format.to_owned(),
    }
}

fn clamp(size: usize) -> i32 {
    i32::try_from(size).unwrap_or(i32::MAX)
}

/// Triton's name of a datatype.
fn data_type(dtype: Stored) -> DataType {
    match dtype {
        Stored::Bool => DataType::TypeBool,
        Stored::Uint8 => DataType::TypeUint8,
        Stored::Uint16 => DataType::TypeUint16,
        Stored::Uint32 => DataType::TypeUint32,
        Stored::Uint64 => DataType::TypeUint64,
        Stored::Int8 => DataType::TypeInt8,
        Stored::Int16 => DataType::TypeInt16,
        Stored::Int32 => DataType::TypeInt32,
        Stored::Int64 => DataType::TypeInt64,
        Stored::Fp16 => DataType::TypeFp16,
        Stored::Bf16 => DataType::TypeBf16,
        Stored::Fp32 => DataType::TypeFp32,
        Stored::Fp64 => DataType::TypeFp64,
        Stored::Bytes => DataType::TypeString,
    }
}

fn duration(sum: Sum) -> Option<StatisticDuration> {
    Some(StatisticDuration { count: sum.count, ns: sum.nanos })
}

/// The model's counters: those of `GET /v2/models/M/stats`.
pub(super) fn statistics(model: &Predictive) -> ModelStatistics {
    let Snapshot { last, rows, executions, times, batches } = model.statistics.snapshot();
    let none = duration(Sum::default());
    ModelStatistics {
        name: model.name.clone(),
        version: model.version.clone().unwrap_or_default(),
        last_inference: last,
        inference_count: rows,
        execution_count: executions,
        inference_stats: Some(InferStatistics {
            success: duration(times.success),
            fail: duration(times.fail),
            queue: duration(times.queue),
            compute_input: duration(times.compute_input),
            compute_infer: duration(times.compute_infer),
            compute_output: duration(times.compute_output),
            cache_hit: none,
            cache_miss: none,
        }),
        batch_stats: batches
            .into_iter()
            .map(|(size, compute)| InferBatchStatistics {
                batch_size: size as u64,
                compute_input: none,
                compute_infer: duration(compute),
                compute_output: none,
            })
            .collect(),
        memory_usage: vec![MemoryUsage { r#type: "CPU".into(), id: 0, byte_size: model.bytes }],
    }
}
