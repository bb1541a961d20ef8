//! `--strict-kserve`: what KServe's servers do where ours do better, so that conformance can be run both ways.
//!
//! Statuses are in [`FailureKind`](super::failure::FailureKind); here are the refusals and answers that have no other place.

use axum::http::{HeaderMap, header};
use serde_json::{Map, Value};
use tokenmill_predictive::{DataType, Model, Request, Tensor, TensorMap};

use super::failure::Failure;
use super::infer::InferOutput;

/// Content types whose V1 bodies are read as JSON; the comparison is of the whole header.
const JSON: [&str; 4] = [
    "application/json",
    "application/cloudevents+json",
    "application/ld+json",
    "application/octet-stream",
];
/// The one extension of `GET /v2`.
pub(super) const EXTENSIONS: [&str; 1] = ["model_repository_extension"];

/// Refuses V1 bodies of other content types: the bytes reach the model as they are.
///
/// # Errors
/// When the body is not read as JSON.
pub(super) fn check_media(headers: &HeaderMap) -> Result<(), Failure> {
    let Some(media) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    if JSON.iter().any(|known| media == known) {
        return Ok(());
    }
    let media = crate::error::clip(&String::from_utf8_lossy(media.as_bytes()));
    Err(Failure::model(format!("the content type {media} is not read as JSON")))
}

/// Refuses rows of plain values, as pandas does.
///
/// # Errors
/// When an object has no list and no object.
pub(super) fn check_rows(objects: &[Map<String, Value>]) -> Result<(), Failure> {
    let plain = |object: &Map<String, Value>| {
        !object.is_empty() && !object.values().any(|value| value.is_array() || value.is_object())
    };
    match objects.iter().any(plain) {
        true => Err(Failure::model("If using all scalar values, you must pass an index")),
        false => Ok(()),
    }
}

/// Refuses outputs that cannot be written: texts by any way, halves as JSON.
///
/// # Errors
/// Names the output.
pub(super) fn check_outputs(
    outputs: &[InferOutput],
    is_json: impl Fn(&InferOutput) -> bool,
) -> Result<(), Failure> {
    for output in outputs {
        match output.tensor.dtype() {
            DataType::Bytes => return Err(Failure::model("decoding str is not supported")),
            DataType::Fp16 | DataType::Bf16 if is_json(output) => {
                return Err(Failure::invalid(format!(
                    "Sending FP16 data via JSON is not supported. Please use the binary data format for output {}",
                    output.name
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Columns as XGBoost's own `DMatrix` takes them: by name in the trained order only, and fewer in silence, as missing.
///
/// # Errors
/// When names are missing or in another order.
pub(super) fn check_columns(model: &dyn Model, request: &mut Request) -> Result<(), Failure> {
    if model.description().format != "xgboost" {
        return Ok(());
    }
    let signature = model.signature();
    match &signature.columns {
        Some(trained) if request.frame => {
            let given: Vec<&str> = request.inputs.iter().map(|(name, _)| name).collect();
            if given != *trained {
                let text = format!("feature_names mismatch: {trained:?} {given:?}");
                return Err(Failure::model(text));
            }
        }
        Some(trained) => {
            let text =
                format!("training data did not have the following fields: {}", trained.join(", "));
            return Err(Failure::model(text));
        }
        None => {
            let columns = signature.inputs.first().and_then(|spec| *spec.shape.get(1)?);
            let short = columns.and_then(|columns| widened(&request.inputs, columns));
            request.inputs = short.unwrap_or_else(|| std::mem::take(&mut request.inputs));
        }
    }
    Ok(())
}

/// The one tensor with missing values behind its rows, when it is numbers and narrower than `columns`.
fn widened(inputs: &TensorMap, columns: usize) -> Option<TensorMap> {
    let (name, tensor) = inputs.iter().next().filter(|_| inputs.len() == 1)?;
    let [rows, width] = *tensor.shape() else { return None };
    if width >= columns || width == 0 {
        return None;
    }
    let values = tensor.to_f64()?;
    let mut wide = Vec::with_capacity(rows.checked_mul(columns)?);
    for row in values.chunks_exact(width) {
        wide.extend_from_slice(row);
        wide.resize(wide.len() + columns - width, f64::NAN);
    }
    let mut map = TensorMap::default();
    map.insert(name, Tensor::from_values(vec![rows, columns], &wide));
    Some(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_are_compared_whole() {
        let check = |media: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(media) = media {
                headers.insert(header::CONTENT_TYPE, media.parse().unwrap());
            }
            check_media(&headers).is_ok()
        };
        for media in [None, Some("application/json"), Some("application/octet-stream")] {
            assert!(check(media), "{media:?}");
        }
        for media in ["application/json; charset=utf-8", "text/plain", "Application/JSON"] {
            assert!(!check(Some(media)), "{media}");
        }
    }

    #[test]
    fn narrow_rows_are_filled_with_missing_values() {
        let mut map = TensorMap::default();
        map.insert("x", Tensor::from_values(vec![2, 1], &[1.0f32, 2.0]));
        let wide = widened(&map, 3).unwrap();
        let values = wide.get("x").unwrap().to_f64().unwrap();
        assert_eq!((values[0], values[3]), (1.0, 2.0));
        assert!([1, 2, 4, 5].iter().all(|&index: &usize| values[index].is_nan()));
        assert!(widened(&map, 1).is_none());
    }
}
