//! Bodies of the Open Inference Protocol: JSON in, JSON out, with raw tensors behind it.

use std::borrow::Cow;

use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokenmill_predictive::DataType;

use super::failure::Failure;
use super::infer::{
    InferInput, InferOutput, InferRequest, RequestedOutput, datatype_of, resolve_shape,
};
use super::{Parameters, json_array, json_print};
use crate::body::write_json;

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    parameters: Option<Parameters>,
    #[serde(borrow)]
    inputs: Vec<Input<'a>>,
    #[serde(borrow)]
    outputs: Option<Vec<Output<'a>>>,
}

#[derive(Deserialize)]
struct Input<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    shape: Vec<i64>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    parameters: Option<Parameters>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Output<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    parameters: Option<Parameters>,
}

/// Reads a request. `raw` holds the bytes of inputs with `binary_data_size`, one after the other; without it
/// every input has its `data`.
///
/// # Errors
/// 422 for another structure, 400 for values that do not fit.
pub(crate) fn parse(model: &str, text: &[u8], raw: Option<Bytes>) -> Result<InferRequest, Failure> {
    let body: Body<'_> = serde_json::from_slice(text).map_err(|_| diagnose(text))?;
    let binary = raw.is_some();
    let mut raw = raw.unwrap_or_default();
    let mut inputs = Vec::with_capacity(body.inputs.len());
    for (index, input) in body.inputs.into_iter().enumerate() {
        let parameters = input.parameters.unwrap_or_default();
        let size = parameters.whole("binary_data_size").filter(|_| binary);
        let (name, shape) = (&input.name, &input.shape);
        inputs.push(match (size, input.data) {
            (Some(size), _) => {
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                if size > raw.len() {
                    return Err(Failure::model(format!(
                        "cannot reshape array: input {name} has a binary_data_size of {size}, the body \
                         has {} more bytes",
                        raw.len()
                    )));
                }
                let data = raw.split_to(size);
                InferInput::from_raw(name, &input.datatype, shape, parameters, data)?
            }
            (None, Some(data)) if data.get().starts_with('[') => {
                let place = format!("inputs[{index}].data");
                from_list((name, &place), &input.datatype, shape, parameters, data)?
            }
            (None, None) if binary => {
                let name = crate::error::clip(name);
                let text = format!("'data' field is missing for input '{name}' for model '{model}'");
                return Err(Failure::invalid(text));
            }
            _ => return Err(diagnose(text)),
        });
    }
    if !raw.is_empty() {
        let text = format!("{} bytes are left over behind the inputs", raw.len());
        return Err(Failure::invalid(text));
    }
    let output = |output: Output<'_>| RequestedOutput {
        name: output.name.into_owned(),
        parameters: output.parameters.unwrap_or_default(),
    };
    Ok(InferRequest {
        id: body.id.map(Cow::into_owned),
        parameters: body.parameters.unwrap_or_default(),
        inputs,
        outputs: body.outputs.unwrap_or_default().into_iter().map(output).collect(),
    })
}

/// The input of a name whose `data` is at a place of the body.
fn from_list(
    (name, place): (&str, &str),
    datatype: &str,
    shape: &[i64],
    parameters: Parameters,
    data: &RawValue,
) -> Result<InferInput, Failure> {
    let dtype = datatype_of(name, datatype)?;
    if matches!(dtype, DataType::Fp16 | DataType::Bf16) {
        return Err(Failure::invalid(format!(
            "Sending {} data via JSON is not supported. Please use the binary data format for input {name}",
            dtype.name()
        )));
    }
    let wrong = |reason| Failure::model(format!("input {name}: {reason}"));
    let (elements, _) = json_array::read(place, data, dtype).map_err(wrong)?;
    let shape = resolve_shape(name, shape, elements.count())?;
    let tensor = elements.tensor(shape).map_err(wrong)?;
    Ok(InferInput { name: name.to_owned(), parameters, tensor })
}

/// The answer to a body of another structure, in the form of KServe's validation.
fn diagnose(text: &[u8]) -> Failure {
    let unprocessable = |detail| Failure::detail(StatusCode::UNPROCESSABLE_ENTITY, detail);
    if text.is_empty() {
        let missing =
            json!({"type": "missing", "loc": ["body"], "msg": "Field required", "input": null});
        return unprocessable(json!([missing]));
    }
    let body: Value = match serde_json::from_slice(text) {
        Ok(body) => body,
        Err(error) => {
            let at = offset(text, error.line(), error.column());
            return unprocessable(json!([{
                "type": "json_invalid", "loc": ["body", at], "msg": "JSON decode error", "input": {},
                "ctx": {"error": error.to_string()},
            }]));
        }
    };
    let mut faults = Vec::new();
    let place = vec![json!("body"), json!("InferenceRequest")];
    check_body(&body, &place, &mut faults);
    faults.push(fault(
        "bytes_type",
        &[json!("body"), json!("bytes")],
        "Input should be a valid bytes",
        &body,
    ));
    unprocessable(Value::Array(faults))
}

/// Characters before a line and column, as Python counts them.
fn offset(text: &[u8], line: usize, column: usize) -> usize {
    let before: usize = text
        .split(|&byte| byte == b'\n')
        .take(line.saturating_sub(1))
        .map(|line| line.len() + 1)
        .sum();
    (before + column.saturating_sub(1)).min(text.len())
}

fn fault(kind: &str, place: &[Value], message: &str, input: &Value) -> Value {
    json!({"type": kind, "loc": place, "msg": message, "input": input})
}

fn at(place: &[Value], more: impl IntoIterator<Item = Value>) -> Vec<Value> {
    place.iter().cloned().chain(more).collect()
}

/// Most faults that are listed.
const MAX_FAULTS: usize = 20;

fn check_body(body: &Value, place: &[Value], faults: &mut Vec<Value>) {
    let Some(object) = body.as_object() else {
        faults.push(fault(
            "model_attributes_type",
            place,
            "Input should be a valid dictionary or object to extract fields from",
            body,
        ));
        return;
    };
    check_text(object.get("id"), place, "id", faults);
    check_parameters(object.get("parameters"), place, faults);
    match object.get("inputs") {
        None => {
            faults.push(fault("missing", &at(place, [json!("inputs")]), "Field required", body))
        }
        Some(inputs) => check_list(inputs, &at(place, [json!("inputs")]), faults, check_input),
    }
    if let Some(outputs) = object.get("outputs").filter(|outputs| !outputs.is_null()) {
        check_list(outputs, &at(place, [json!("outputs")]), faults, check_output);
    }
}

fn check_list(
    list: &Value,
    place: &[Value],
    faults: &mut Vec<Value>,
    check: fn(&Value, &[Value], &mut Vec<Value>),
) {
    let Some(items) = list.as_array() else {
        faults.push(fault("list_type", place, "Input should be a valid list", list));
        return;
    };
    for (index, item) in items.iter().enumerate() {
        if faults.len() < MAX_FAULTS {
            check(item, &at(place, [json!(index)]), faults);
        }
    }
}

fn check_input(input: &Value, place: &[Value], faults: &mut Vec<Value>) {
    let Some(object) = input.as_object() else {
        let text = "Input should be a valid dictionary or object to extract fields from";
        faults.push(fault("model_attributes_type", place, text, input));
        return;
    };
    for field in ["name", "datatype"] {
        if !object.contains_key(field) {
            faults.push(fault("missing", &at(place, [json!(field)]), "Field required", input));
        } else if !object[field].is_string() {
            let text = "Input should be a valid string";
            faults.push(fault("string_type", &at(place, [json!(field)]), text, &object[field]));
        }
    }
    match object.get("shape") {
        None => {
            faults.push(fault("missing", &at(place, [json!("shape")]), "Field required", input))
        }
        Some(shape) => {
            check_list(shape, &at(place, [json!("shape")]), faults, |size, place, faults| {
                if size.as_i64().is_none() {
                    faults.push(fault("int_type", place, "Input should be a valid integer", size));
                }
            })
        }
    }
    check_parameters(object.get("parameters"), place, faults);
    match object.get("data") {
        None => faults.push(fault("missing", &at(place, [json!("data")]), "Field required", input)),
        Some(Value::Array(_)) => {}
        Some(data) => {
            faults.push(fault(
                "list_type",
                &at(place, [json!("data")]),
                "Input should be a valid list",
                data,
            ));
        }
    }
}

fn check_output(output: &Value, place: &[Value], faults: &mut Vec<Value>) {
    check_text(output.get("name"), place, "name", faults);
    if output.get("name").is_none() {
        faults.push(fault("missing", &at(place, [json!("name")]), "Field required", output));
    }
    check_parameters(output.get("parameters"), place, faults);
}

fn check_text(value: Option<&Value>, place: &[Value], field: &str, faults: &mut Vec<Value>) {
    if let Some(value) = value.filter(|value| !value.is_null() && !value.is_string()) {
        let text = "Input should be a valid string";
        faults.push(fault("string_type", &at(place, [json!(field)]), text, value));
    }
}

fn check_parameters(parameters: Option<&Value>, place: &[Value], faults: &mut Vec<Value>) {
    let Some(parameters) = parameters.filter(|value| !value.is_null()) else { return };
    let place = at(place, [json!("parameters")]);
    let Some(object) = parameters.as_object() else {
        faults.push(fault("dict_type", &place, "Input should be a valid dictionary", parameters));
        return;
    };
    for (name, value) in object.iter().filter(|(_, value)| value.is_object() || value.is_array()) {
        for (kind, tag, text) in [
            ("float_type", "float", "Input should be a valid number"),
            ("int_type", "int", "Input should be a valid integer"),
            ("bool_type", "bool", "Input should be a valid boolean"),
            ("string_type", "str", "Input should be a valid string"),
        ] {
            faults.push(fault(kind, &at(&place, [json!(name), json!(tag)]), text, value));
        }
    }
}

/// An answer.
pub(super) struct Answer<'a> {
    pub(super) model_name: &'a str,
    pub(super) model_version: Option<&'a str>,
    pub(super) id: &'a str,
    pub(super) outputs: &'a [InferOutput],
    /// Raw bytes where an output does not say.
    pub(super) binary: bool,
}

impl Answer<'_> {
    /// The body, and the length of its JSON part when raw bytes follow.
    pub(super) fn encode(&self) -> (Bytes, Option<usize>) {
        let raw = |output: &InferOutput| output.binary.unwrap_or(self.binary);
        let mixed = self.outputs.iter().any(raw);
        let mut out = BytesMut::with_capacity(512);
        if mixed {
            self.head_with_raw(&mut out);
        } else {
            self.head(&mut out);
        }
        for (index, output) in self.outputs.iter().enumerate() {
            out.extend_from_slice(if index > 0 { b",{\"name\":" } else { b"{\"name\":" });
            write_json(&mut out, &output.name);
            out.extend_from_slice(b",\"shape\":");
            write_json(&mut out, &output.tensor.shape());
            out.extend_from_slice(b",\"datatype\":\"");
            out.extend_from_slice(output.tensor.dtype().name().as_bytes());
            out.extend_from_slice(b"\"");
            if mixed && raw(output) {
                let size = output.tensor.data().len();
                out.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
                write_json(&mut out, &size);
                out.extend_from_slice(b"}}");
                continue;
            }
            out.extend_from_slice(if mixed {
                b",\"data\":"
            } else {
                b",\"parameters\":null,\"data\":"
            });
            json_print::write(&mut out, &output.tensor, &[output.tensor.elements()]);
            out.extend_from_slice(b"}");
        }
        out.extend_from_slice(b"]}");
        let length = mixed.then_some(out.len());
        for output in self.outputs.iter().filter(|output| mixed && raw(output)) {
            out.extend_from_slice(output.tensor.data());
        }
        (out.freeze(), length)
    }

    fn head(&self, out: &mut BytesMut) {
        out.extend_from_slice(b"{\"model_name\":");
        write_json(out, &self.model_name);
        out.extend_from_slice(b",\"model_version\":");
        write_json(out, &self.model_version);
        out.extend_from_slice(b",\"id\":");
        write_json(out, &self.id);
        out.extend_from_slice(b",\"parameters\":null,\"outputs\":[");
    }

    fn head_with_raw(&self, out: &mut BytesMut) {
        out.extend_from_slice(b"{\"id\":");
        write_json(out, &self.id);
        out.extend_from_slice(b",\"model_name\":");
        write_json(out, &self.model_name);
        out.extend_from_slice(b",\"model_version\":");
        write_json(out, &self.model_version);
        out.extend_from_slice(b",\"outputs\":[");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_parameters_are_refused_in_the_order_of_the_union() {
        let body = br#"{"parameters": {"a": {}}, "inputs": []}"#;
        let failure = parse("m", body, None).expect_err("nested");
        let faults = failure.detail.expect("a list of faults");
        let tags: Vec<&str> = (0..4).filter_map(|index| faults[index]["loc"][4].as_str()).collect();
        assert_eq!(tags, ["float", "int", "bool", "str"]);
        assert_eq!(faults[0]["type"], "float_type");
        assert_eq!(faults[3]["type"], "string_type");
    }
}
