//! V1 bodies: `instances` as lists or as objects in, `predictions` out.

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tokenmill_predictive::{DataType, Model, Request, Tensor, TensorMap};

use super::failure::Failure;
use super::infer::InferOutput;
use super::{json_array, json_print, strict};
use crate::body::write_json;

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    inputs: Option<&'a RawValue>,
    #[serde(borrow)]
    instances: Option<&'a RawValue>,
}

/// Reads a request: `inputs` wins over `instances`, everything else is ignored.
///
/// # Errors
/// When the body is something else, or its rows do not fit together; `strict` refuses what pandas refuses.
pub(crate) fn parse(model: &dyn Model, text: &[u8], strict: bool) -> Result<Request, Failure> {
    let unrecognized = |error: serde_json::Error| {
        Failure::invalid(format!("Unrecognized request format: {error}"))
    };
    let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
    if first.is_some_and(|&byte| byte != b'{') {
        serde_json::from_slice::<serde::de::IgnoredAny>(text).map_err(unrecognized)?;
        let expected =
            "Unrecognized request format: expected an object with \"instances\" or \"inputs\"";
        return Err(Failure::model(expected));
    }
    let body: Body<'_> = serde_json::from_slice(text).map_err(unrecognized)?;
    let (field, rows) = match (body.inputs, body.instances) {
        (Some(inputs), _) => ("inputs", inputs),
        (None, Some(instances)) => ("instances", instances),
        (None, None) => {
            return Err(Failure::model(
                "'instances': the body has neither \"instances\" nor \"inputs\"",
            ));
        }
    };
    let Some(inside) = rows.get().strip_prefix('[') else {
        return Err(Failure::invalid(format!("Expected \"{field}\" to be a list")));
    };
    let inside = inside.trim_start();
    if inside.starts_with(']') {
        return Err(Failure::model(format!(
            "{field}: found an array with 0 rows, at least 1 is required"
        )));
    }
    if inside.starts_with('{') {
        let objects: Vec<Map<String, Value>> = serde_json::from_str(rows.get())
            .map_err(|_| Failure::model(format!("{field}: objects and other rows are mixed")))?;
        if strict {
            strict::check_rows(&objects)?;
        }
        return if model.methods().is_empty() { by_input(model, objects) } else { frame(objects) };
    }
    let tensor = lists(model, field, rows).map_err(Failure::model)?;
    let mut inputs = TensorMap::default();
    let specs = &model.signature().inputs;
    if let (true, [_, second, ..]) = (model.methods().is_empty(), specs.as_slice()) {
        let text = format!(
            "{field}: the model has several inputs ({}, {}, ...): give objects that name them",
            specs[0].name, second.name
        );
        return Err(Failure::model(text));
    }
    let name = specs.first().map_or("input-0", |spec| spec.name.as_str());
    inputs.insert(name, tensor);
    Ok(Request { inputs, ..Request::default() })
}

/// Nested lists as one tensor: of the datatype that the model declares where it has named inputs. Rows of a table are texts
/// when one is a text and the model was fitted on texts, or one is a text and no number; else they are numbers.
fn lists(model: &dyn Model, field: &str, rows: &RawValue) -> Result<Tensor, String> {
    let signature = model.signature();
    let declared = signature.inputs.first().map(|spec| spec.dtype);
    let fixed = declared.filter(|&dtype| model.methods().is_empty() || dtype == DataType::Bytes);
    let read = |dtype| {
        let (elements, shape) = json_array::read(field, rows, dtype)?;
        let shape = shape.finish().map_err(|reason| format!("{field}: {reason}"))?;
        elements.tensor(shape).map_err(|reason| format!("{field}: {reason}"))
    };
    match fixed {
        Some(dtype) => read(dtype),
        None if signature.text_columns && rows.get().contains('"') => read(DataType::Bytes),
        None => read(DataType::Fp64).or_else(|error| match error.contains("convert string") {
            true => read(DataType::Bytes),
            false => Err(error),
        }),
    }
}

/// Objects as rows of a table, in pandas' three forms and as plain values: `{"a": [1, 2]}` is two rows,
/// `{"a": {"0": 1}}` one, `{"a": 1}` one.
fn frame(objects: Vec<Map<String, Value>>) -> Result<Request, Failure> {
    let mut columns: Vec<(String, Vec<Value>)> = Vec::new();
    let mut rows = 0;
    for (index, object) in objects.into_iter().enumerate() {
        let height =
            height(&object).map_err(|why| Failure::model(format!("instance {index}: {why}")))?;
        for (name, value) in object {
            let position = columns.iter().position(|(known, _)| *known == name);
            let position = position.unwrap_or_else(|| {
                columns.push((name, vec![Value::Null; rows]));
                columns.len() - 1
            });
            let column = &mut columns[position].1;
            match value {
                Value::Array(values) => column.extend(values),
                Value::Object(values) => column.extend(values.into_iter().map(|(_, value)| value)),
                scalar => column.extend(std::iter::repeat_n(scalar, height)),
            }
        }
        rows += height;
        columns.iter_mut().for_each(|(_, column)| column.resize(rows, Value::Null));
    }
    let mut inputs = TensorMap::default();
    for (name, values) in columns {
        let tensor =
            column(&values).map_err(|why| Failure::model(format!("column {name}: {why}")))?;
        inputs.insert(name, tensor);
    }
    Ok(Request { inputs, frame: true, methods: Vec::new() })
}

/// Rows that one object stands for.
fn height(object: &Map<String, Value>) -> Result<usize, String> {
    let mut height = None;
    for (name, value) in object {
        let own = match value {
            Value::Array(values) => values.len(),
            Value::Object(values) => values.len(),
            _ => continue,
        };
        match height {
            Some(known) if known != own => {
                return Err(format!(
                    "All arrays must be of the same length: {name} has {own} values, not {known}"
                ));
            }
            _ => height = Some(own),
        }
    }
    if object.is_empty() {
        return Err("it has no column".to_owned());
    }
    Ok(height.unwrap_or(1))
}

/// Numbers as FP64, anything with a text as BYTES.
fn column(values: &[Value]) -> Result<Tensor, String> {
    if let Some(nested) = values.iter().find(|value| value.is_array() || value.is_object()) {
        let nested = crate::error::clip(&nested.to_string());
        return Err(format!("a cell is a number, a text or null, found {nested}"));
    }
    let shape = vec![values.len()];
    if values.iter().any(Value::is_string) {
        let text = |value: &Value| match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let texts: Vec<String> = values.iter().map(text).collect();
        let nulls = values.iter().map(Value::is_null).collect();
        return Ok(Tensor::from_texts(shape, &texts).with_nulls(nulls));
    }
    let number = |value: &Value| match value {
        Value::Bool(value) => f64::from(u8::from(*value)),
        other => other.as_f64().unwrap_or(f64::NAN),
    };
    Ok(Tensor::from_values(shape, &values.iter().map(number).collect::<Vec<f64>>()))
}

/// Objects keyed by input: each is one element of the first axis of every input.
fn by_input(model: &dyn Model, objects: Vec<Map<String, Value>>) -> Result<Request, Failure> {
    let mut inputs = TensorMap::default();
    let specs = &model.signature().inputs;
    let known = |name: &String| specs.iter().any(|spec| spec.name == *name);
    if let Some(name) = objects.iter().flat_map(Map::keys).find(|name| !known(name)) {
        let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        let (name, names) = (crate::error::clip(name), names.join(", "));
        return Err(Failure::model(format!(
            "the model has no input {name}; its inputs are {names}"
        )));
    }
    for spec in specs {
        let rows: Vec<Value> =
            objects.iter().filter_map(|object| object.get(&spec.name).cloned()).collect();
        if rows.is_empty() {
            continue;
        }
        let wrong = |why: String| Failure::model(format!("input {}: {why}", spec.name));
        if rows.len() != objects.len() {
            let text = format!("{} of {} instances have it", rows.len(), objects.len());
            return Err(wrong(text));
        }
        let raw =
            serde_json::value::to_raw_value(&rows).map_err(|error| wrong(error.to_string()))?;
        let (elements, shape) = json_array::read("instances", &raw, spec.dtype).map_err(wrong)?;
        let tensor = shape.finish().and_then(|shape| elements.tensor(shape)).map_err(wrong)?;
        inputs.insert(&spec.name, tensor);
    }
    Ok(Request { inputs, ..Request::default() })
}

/// `{"predictions": ...}`: the array itself; of several outputs of one method a list of arrays; of several
/// named outputs one object per row.
pub(crate) fn encode(model: &dyn Model, outputs: &[InferOutput]) -> Bytes {
    let mut out = BytesMut::with_capacity(256);
    out.extend_from_slice(b"{\"predictions\":");
    let print =
        |out: &mut BytesMut, tensor: &Tensor| json_print::write(out, tensor, tensor.shape());
    match outputs {
        [output] => print(&mut out, &output.tensor),
        several if !model.methods().is_empty() => {
            for (index, output) in several.iter().enumerate() {
                out.extend_from_slice(if index == 0 { b"[" } else { b"," });
                print(&mut out, &output.tensor);
            }
            out.extend_from_slice(b"]");
        }
        several => objects(&mut out, several),
    }
    out.extend_from_slice(b"}");
    out.freeze()
}

/// One object per row where every output has as many rows, else one object of arrays.
fn objects(out: &mut BytesMut, outputs: &[InferOutput]) {
    let mut printed = Vec::with_capacity(outputs.len());
    for output in outputs {
        let mut text = BytesMut::new();
        json_print::write(&mut text, &output.tensor, output.tensor.shape());
        let list = serde_json::from_slice::<Vec<Box<RawValue>>>(&text).unwrap_or_default();
        printed.push((&output.name, text, list));
    }
    let rows = printed.first().map_or(0, |(_, _, list)| list.len());
    let even = outputs.iter().all(|output| output.tensor.shape().first() == Some(&rows));
    let object = |out: &mut BytesMut, row: Option<usize>| {
        for (index, (name, whole, list)) in printed.iter().enumerate() {
            out.extend_from_slice(if index == 0 { b"{" } else { b"," });
            write_json(out, name);
            out.extend_from_slice(b":");
            match row {
                Some(row) => out.extend_from_slice(list[row].get().as_bytes()),
                None => out.extend_from_slice(whole),
            }
        }
        out.extend_from_slice(b"}");
    };
    if !even {
        object(out, None);
        return;
    }
    out.extend_from_slice(b"[");
    for row in 0..rows {
        if row > 0 {
            out.extend_from_slice(b",");
        }
        object(out, Some(row));
    }
    out.extend_from_slice(b"]");
}
