//! Messages of the protocol to neutral requests, and neutral outputs to messages.

use std::collections::HashMap;

use bytes::Bytes;
use tokenmill_predictive::{DataType, Tensor};

use super::proto::infer_parameter::ParameterChoice;
use super::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use super::proto::model_infer_response::InferOutputTensor;
use super::proto::{InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse};
use crate::kserve::failure::Failure;
use crate::kserve::infer::{InferInput, InferOutput, InferRequest, RequestedOutput, datatype_of};
use crate::kserve::{Parameter, Parameters};

/// A request, and whether its answer is raw: as the request was.
pub(super) fn request(message: ModelInferRequest) -> Result<(InferRequest, bool), Failure> {
    let raw = !message.raw_input_contents.is_empty();
    if raw && message.raw_input_contents.len() != message.inputs.len() {
        return Err(Failure::invalid(format!(
            "raw_input_contents has {} parts for {} inputs; give one part for each input",
            message.raw_input_contents.len(),
            message.inputs.len()
        )));
    }
    let mut parts = message.raw_input_contents.into_iter();
    let inputs = message.inputs.into_iter().map(|tensor| input(tensor, parts.next()));
    let request = InferRequest {
        id: (!message.id.is_empty()).then_some(message.id),
        parameters: parameters(message.parameters),
        inputs: inputs.collect::<Result<_, _>>()?,
        outputs: message.outputs.into_iter().map(requested).collect(),
    };
    Ok((request, raw))
}

fn requested(output: InferRequestedOutputTensor) -> RequestedOutput {
    RequestedOutput { name: output.name, parameters: parameters(output.parameters) }
}

fn parameters(map: HashMap<String, InferParameter>) -> Parameters {
    let mut parameters = Parameters::default();
    for (name, parameter) in map {
        let value = match parameter.parameter_choice {
            Some(ParameterChoice::BoolParam(value)) => Parameter::Bool(value),
            Some(ParameterChoice::Int64Param(value)) => Parameter::Int(value),
            Some(ParameterChoice::Uint64Param(value)) => {
                i64::try_from(value).map_or(Parameter::Float(value as f64), Parameter::Int)
            }
            Some(ParameterChoice::DoubleParam(value)) => Parameter::Float(value),
            Some(ParameterChoice::StringParam(value)) => Parameter::Text(value),
            None => continue,
        };
        parameters.push(name, value);
    }
    parameters
}

fn input(tensor: InferInputTensor, raw: Option<Bytes>) -> Result<InferInput, Failure> {
    let InferInputTensor { name, datatype, shape, parameters: own, contents } = tensor;
    let data = match (raw, contents) {
        (Some(_), Some(_)) => {
            return Err(Failure::invalid(format!(
                "input {name} has contents beside raw_input_contents; give one of them"
            )));
        }
        (Some(raw), None) => raw,
        (None, contents) => {
            typed_bytes(&name, datatype_of(&name, &datatype)?, contents.unwrap_or_default())?
        }
    };
    InferInput::from_raw(&name, &datatype, &shape, parameters(own), data)
}

/// The typed contents of a datatype as little-endian bytes.
fn typed_bytes(
    name: &str,
    dtype: DataType,
    contents: InferTensorContents,
) -> Result<Bytes, Failure> {
    let InferTensorContents {
        bool_contents,
        int_contents,
        int64_contents,
        uint_contents,
        uint64_contents,
        fp32_contents,
        fp64_contents,
        bytes_contents,
    } = contents;
    let narrow = |value: i64| Failure::model(format!("input {name}: {value} is out of range"));
    Ok(match dtype {
        DataType::Bool => bool_contents.into_iter().map(u8::from).collect(),
        DataType::Int8 => little(int_contents, |value| {
            i8::try_from(value).map(i8::to_le_bytes).map_err(|_| narrow(value.into()))
        })?,
        DataType::Int16 => little(int_contents, |value| {
            i16::try_from(value).map(i16::to_le_bytes).map_err(|_| narrow(value.into()))
        })?,
        DataType::Int32 => little(int_contents, |value| Ok(value.to_le_bytes()))?,
        DataType::Int64 => little(int64_contents, |value| Ok(value.to_le_bytes()))?,
        DataType::Uint8 => little(uint_contents, |value| {
            u8::try_from(value).map(u8::to_le_bytes).map_err(|_| narrow(value.into()))
        })?,
        DataType::Uint16 => little(uint_contents, |value| {
            u16::try_from(value).map(u16::to_le_bytes).map_err(|_| narrow(value.into()))
        })?,
        DataType::Uint32 => little(uint_contents, |value| Ok(value.to_le_bytes()))?,
        DataType::Uint64 => little(uint64_contents, |value| Ok(value.to_le_bytes()))?,
        DataType::Fp32 => little(fp32_contents, |value| Ok(value.to_le_bytes()))?,
        DataType::Fp64 => little(fp64_contents, |value| Ok(value.to_le_bytes()))?,
        DataType::Bytes => {
            let count = bytes_contents.len();
            Tensor::from_texts(vec![count], &bytes_contents).data().clone()
        }
        DataType::Fp16 | DataType::Bf16 => {
            return Err(Failure::invalid(format!(
                "input {name}: {} has no typed contents; send raw_input_contents",
                dtype.name()
            )));
        }
    })
}

fn little<T, const N: usize>(
    values: Vec<T>,
    bytes: impl Fn(T) -> Result<[u8; N], Failure>,
) -> Result<Bytes, Failure> {
    let mut data = Vec::with_capacity(values.len() * N);
    for value in values {
        data.extend_from_slice(&bytes(value)?);
    }
    Ok(data.into())
}

/// An answer; raw when it was asked for or an output has no typed contents.
pub(super) fn response(
    (name, version): (&str, Option<&str>),
    id: String,
    outputs: Vec<InferOutput>,
    raw: bool,
) -> ModelInferResponse {
    let halves =
        |output: &InferOutput| matches!(output.tensor.dtype(), DataType::Fp16 | DataType::Bf16);
    let raw = raw || outputs.iter().any(halves);
    let mut response = ModelInferResponse {
        model_name: name.to_owned(),
        model_version: version.unwrap_or_default().to_owned(),
        id,
        ..ModelInferResponse::default()
    };
    for InferOutput { name, tensor, .. } in outputs {
        let mut output = InferOutputTensor {
            name,
            datatype: tensor.dtype().name().to_owned(),
            shape: tensor.shape().iter().map(|&size| size as i64).collect(),
            ..InferOutputTensor::default()
        };
        if raw {
            let size = ParameterChoice::Int64Param(tensor.data().len() as i64);
            let size = InferParameter { parameter_choice: Some(size) };
            output.parameters.insert("binary_data_size".to_owned(), size);
            response.raw_output_contents.push(tensor.data().clone());
        } else {
            output.contents = Some(contents(&tensor));
        }
        response.outputs.push(output);
    }
    response
}

fn contents(tensor: &Tensor) -> InferTensorContents {
    let mut contents = InferTensorContents::default();
    let data = tensor.data();
    match tensor.dtype() {
        DataType::Bool => contents.bool_contents = data.iter().map(|&byte| byte != 0).collect(),
        DataType::Int8 => {
            contents.int_contents = data.iter().map(|&byte| i32::from(byte as i8)).collect();
        }
        DataType::Uint8 => contents.uint_contents = data.iter().map(|&byte| byte.into()).collect(),
        DataType::Int16 => contents.int_contents = read(data, |raw| i16::from_le_bytes(raw).into()),
        DataType::Uint16 => {
            contents.uint_contents = read(data, |raw| u16::from_le_bytes(raw).into())
        }
        DataType::Int32 => contents.int_contents = read(data, i32::from_le_bytes),
        DataType::Uint32 => contents.uint_contents = read(data, u32::from_le_bytes),
        DataType::Int64 => contents.int64_contents = read(data, i64::from_le_bytes),
        DataType::Uint64 => contents.uint64_contents = read(data, u64::from_le_bytes),
        DataType::Fp32 => contents.fp32_contents = read(data, f32::from_le_bytes),
        DataType::Fp64 => contents.fp64_contents = read(data, f64::from_le_bytes),
        DataType::Bytes => {
            let texts = tensor.byte_strings().unwrap_or_default();
            contents.bytes_contents = texts.into_iter().map(|text| data.slice_ref(text)).collect();
        }
        // `response` sends these raw.
        DataType::Fp16 | DataType::Bf16 => {}
    }
    contents
}

fn read<T, const N: usize>(data: &[u8], number: impl Fn([u8; N]) -> T) -> Vec<T> {
    data.as_chunks::<N>().0.iter().map(|raw| number(*raw)).collect()
}
