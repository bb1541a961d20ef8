//! Cases made by the libraries themselves: a model file, an input, and what the library answered.
//!
//! `tests/fixtures/cases.py` writes them and says the format.

#![expect(unreachable_pub, reason = "a module of every test binary, of which each uses a part")]

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenmill_predictive::{
    DataType, LoadOptions, Method, Model, PredictError, Request, Tensor, TensorMap, load,
};

/// The folder of fixtures.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Loads a model file.
pub fn model(path: &Path) -> Box<dyn Model> {
    load(path, &LoadOptions::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs every case of a folder of the fixtures; panics with all differences.
pub fn run(folder: &str) {
    let folder = fixtures().join(folder);
    let mut names: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("the folder can be listed").path())
        .filter(|path| path.to_string_lossy().ends_with(".case.json"))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "{} has no case", folder.display());
    let wrong: Vec<String> = names.iter().filter_map(|path| check(path).err()).collect();
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), names.len(), wrong.join("\n"));
}

fn check(path: &Path) -> Result<(), String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
    let case: Value = serde_json::from_str(&text).map_err(|error| format!("{name}: {error}"))?;
    let file = path.with_file_name(case["model"].as_str().unwrap_or_default());
    let model = load(&file, &LoadOptions::default()).map_err(|error| format!("{name}: {error}"))?;
    check_metadata(&name, &file, &case, model.methods())?;
    let (inputs, frame) = inputs(&case["input"]);
    let tolerance = case["tolerance"].as_f64().unwrap_or(0.0);
    let expected = case["expected"].as_object().expect("a case has expectations");
    for (method, wanted) in expected {
        let methods = match method.as_str() {
            "default" => Vec::new(),
            other => vec![Method::from_name(other).unwrap_or_else(|| panic!("method {other}"))],
        };
        let request = Request { inputs: inputs.clone(), frame, methods };
        let got = model.predict(&request).map_err(|error| format!("{name} {method}: {error}"))?;
        let wanted: Vec<&Value> = match wanted.as_array() {
            Some(several) => several.iter().collect(),
            None => vec![wanted],
        };
        if got.len() != wanted.len() {
            return Err(format!("{name} {method}: {} outputs, not {}", got.len(), wanted.len()));
        }
        for ((output, got), wanted) in got.iter().zip(wanted) {
            compare(got, wanted, tolerance)
                .map_err(|reason| format!("{name} {method} {output}: {reason}"))?;
        }
    }
    Ok(())
}

/// Whether what metadata says of the outputs, with each method as the default, is what is answered to inputs of the datatype
/// that metadata says.
fn check_metadata(name: &str, file: &Path, case: &Value, methods: &[Method]) -> Result<(), String> {
    let (mut inputs, frame) = inputs(&case["input"]);
    for method in methods.iter().copied() {
        let options = LoadOptions { method: Some(method), ..LoadOptions::default() };
        let model = load(file, &options).map_err(|error| format!("{name}: {error}"))?;
        let signature = model.signature();
        if let ([spec], Some(given), false) = (&signature.inputs[..], inputs.get("x"), frame)
            && (spec.dtype, given.dtype()) == (DataType::Fp64, DataType::Fp32)
        {
            let values = given.to_f64().unwrap_or_default();
            let wide = Tensor::from_values(given.shape().to_vec(), &values);
            inputs.insert("x", wide);
        }
        let request = Request { inputs: inputs.clone(), frame, methods: Vec::new() };
        let got = match model.predict(&request) {
            Ok(got) => got,
            // A method that a request cannot ask for, as `transform` of a file's own rows.
            Err(PredictError::Unsupported(_)) => continue,
            Err(error) => return Err(format!("{name} {}: {error}", method.name())),
        };
        let said = signature
            .outputs
            .iter()
            .map(|spec| (spec.name.clone(), spec.dtype, spec.shape.clone()));
        let fits = |shape: &[Option<usize>], got: &Tensor| {
            let same = |(said, got): (&Option<usize>, &usize)| said.is_none_or(|said| said == *got);
            shape.len() == got.shape().len() && shape.iter().zip(got.shape()).all(same)
        };
        let said: Vec<_> = said.collect();
        let open = said.iter().any(|(_, _, shape)| shape.iter().skip(1).any(Option::is_none));
        if method != Method::Transform && open {
            return Err(format!("{name} {}: metadata leaves a size open: {said:?}", method.name()));
        }
        let agree = said.len() == got.len()
            && said.iter().zip(got.iter()).all(|((name, dtype, shape), (output, tensor))| {
                name == output && *dtype == tensor.dtype() && fits(shape, tensor)
            });
        if !agree {
            let got: Vec<_> = got
                .iter()
                .map(|(name, tensor)| (name, tensor.dtype(), tensor.shape().to_vec()))
                .collect();
            let kind = &model.description().kind;
            return Err(format!(
                "{name} {}: {kind}: metadata {said:?}, answer {got:?}",
                method.name()
            ));
        }
    }
    Ok(())
}

/// The input of a case: tensors, and whether they are columns.
fn inputs(input: &Value) -> (TensorMap, bool) {
    let mut map = TensorMap::default();
    match input["frame"].as_object() {
        Some(columns) => {
            columns.iter().for_each(|(name, column)| map.insert(name, tensor(column)));
            (map, true)
        }
        None => {
            map.insert("x", tensor(input));
            (map, false)
        }
    }
}

/// A number, or one of the texts that JSON has no number for.
fn number(value: &Value) -> f64 {
    match value.as_str() {
        Some("NaN") => f64::NAN,
        Some("Infinity") => f64::INFINITY,
        Some("-Infinity") => f64::NEG_INFINITY,
        _ => value.as_f64().unwrap_or_else(|| panic!("{value} is a number")),
    }
}

/// A tensor of a case: `{"dtype", "shape", "data"}`.
pub fn tensor(value: &Value) -> Tensor {
    let shape: Vec<usize> = value["shape"]
        .as_array()
        .expect("a shape")
        .iter()
        .map(|size| size.as_u64().expect("a size") as usize)
        .collect();
    let data = value["data"].as_array().expect("data");
    let dtype = DataType::from_name(value["dtype"].as_str().expect("a dtype")).expect("known");
    let integers = || data.iter().map(|value| value.as_i64().expect("an integer"));
    match dtype {
        DataType::Fp32 => {
            let values: Vec<f32> = data.iter().map(|value| number(value) as f32).collect();
            Tensor::from_values(shape, &values)
        }
        DataType::Fp64 => Tensor::from_values(shape, &data.iter().map(number).collect::<Vec<_>>()),
        DataType::Bytes => {
            let texts: Vec<&str> =
                data.iter().map(|value| value.as_str().unwrap_or_default()).collect();
            let nulls = data.iter().map(Value::is_null).collect();
            Tensor::from_texts(shape, &texts).with_nulls(nulls)
        }
        DataType::Bool => {
            let values: Vec<bool> =
                data.iter().map(|value| value.as_bool().expect("bool")).collect();
            Tensor::from_values(shape, &values)
        }
        DataType::Int32 => {
            Tensor::from_values(shape, &integers().map(|value| value as i32).collect::<Vec<_>>())
        }
        DataType::Int64 => Tensor::from_values(shape, &integers().collect::<Vec<_>>()),
        other => panic!("cases do not hold {}", other.name()),
    }
}

/// Datatype and shape equal; numbers within `tolerance` (relative above 1, absolute below; 0 wants equal bits).
fn compare(got: &Tensor, wanted: &Value, tolerance: f64) -> Result<(), String> {
    let wanted = tensor(wanted);
    if got.dtype() != wanted.dtype() || got.shape() != wanted.shape() {
        return Err(format!(
            "{} {:?}, not {} {:?}",
            got.dtype().name(),
            got.shape(),
            wanted.dtype().name(),
            wanted.shape()
        ));
    }
    let (Some(got_numbers), Some(wanted_numbers)) = (got.to_f64(), wanted.to_f64()) else {
        let (got, wanted) = (got.byte_strings(), wanted.byte_strings());
        return if got == wanted { Ok(()) } else { Err(format!("{got:?}, not {wanted:?}")) };
    };
    for (index, (got, wanted)) in got_numbers.iter().zip(&wanted_numbers).enumerate() {
        let same = got == wanted || (got.is_nan() && wanted.is_nan());
        let near = (got - wanted).abs() <= tolerance * wanted.abs().max(1.0);
        if !(same || (tolerance > 0.0 && near)) {
            return Err(format!("element {index}: {got:?}, not {wanted:?}"));
        }
    }
    Ok(())
}
