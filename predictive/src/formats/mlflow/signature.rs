//! The inputs that `MLmodel` declares: named columns, or one tensor.

use serde::Deserialize;

use crate::error::Fault;
use crate::model::{PredictError, Request, Signature, TensorSpec};
use crate::tensor::{DataType, Tensor, TensorMap};

/// What a model takes.
#[derive(Debug, PartialEq)]
pub(super) enum Inputs {
    /// The file does not say.
    Any,
    /// Columns of a data frame.
    Columns(Vec<Column>),
    /// One array: element type and sizes, `None` where any fits.
    Tensor(DataType, Vec<Option<usize>>),
}

/// A column.
#[derive(Debug, PartialEq)]
pub(super) struct Column {
    name: String,
    dtype: DataType,
    required: bool,
}

/// An item of the signature's JSON.
#[derive(Deserialize)]
struct Item {
    #[serde(rename = "type")]
    kind: String,
    name: Option<String>,
    #[serde(default = "yes")]
    required: bool,
    #[serde(rename = "tensor-spec")]
    tensor: Option<TensorItem>,
}

#[derive(Deserialize)]
struct TensorItem {
    dtype: String,
    shape: Vec<i64>,
}

fn yes() -> bool {
    true
}

impl Inputs {
    /// Reads `signature.inputs`.
    pub(super) fn parse(json: &str) -> Result<Self, Fault> {
        let wrong = |reason: String| Fault::corrupt("signature.inputs", reason);
        let items: Vec<Item> = serde_json::from_str(json)
            .map_err(|error| wrong(format!("expected a list of columns or a tensor: {error}")))?;
        if let [Item { tensor: Some(tensor), .. }] = items.as_slice() {
            let dtype = numpy(&tensor.dtype)
                .ok_or_else(|| wrong(format!("tensors of {} are not supported", tensor.dtype)))?;
            let shape = tensor.shape.iter().map(|&size| usize::try_from(size).ok()).collect();
            return Ok(Inputs::Tensor(dtype, shape));
        }
        let column = |item: Item| {
            let dtype = column_type(&item.kind).ok_or_else(|| {
                let kind = &item.kind;
                Fault::unsupported(format!(
                    "signature.inputs: columns of type {kind} are not supported"
                ))
            })?;
            Ok(item.name.map(|name| Column { name, dtype, required: item.required }))
        };
        let columns: Result<Option<Vec<Column>>, Fault> = items.into_iter().map(column).collect();
        // Columns without names are an array.
        Ok(columns?.filter(|columns| !columns.is_empty()).map_or(Inputs::Any, Inputs::Columns))
    }

    /// The signature of a model whose file has `inner`.
    pub(super) fn signature(&self, inner: Signature) -> Signature {
        match self {
            Inputs::Any => inner,
            Inputs::Columns(columns) => {
                let spec = |column: &Column| TensorSpec {
                    name: column.name.clone(),
                    dtype: column.dtype,
                    shape: vec![None, Some(1)],
                };
                let names = columns.iter().map(|column| column.name.clone()).collect();
                let inputs = columns.iter().map(spec).collect();
                Signature { inputs, columns: Some(names), ..inner }
            }
            Inputs::Tensor(dtype, shape) => {
                let spec =
                    |input: TensorSpec| TensorSpec { dtype: *dtype, shape: shape.clone(), ..input };
                let inputs = inner.inputs.into_iter().map(spec).collect();
                Signature { inputs, ..inner }
            }
        }
    }

    /// The inputs of a request as the model's file takes them; `None` to pass them on as they are.
    pub(super) fn arrange(&self, request: &Request) -> Result<Option<TensorMap>, PredictError> {
        let mut arranged = TensorMap::default();
        match self {
            Inputs::Columns(columns) if request.frame => {
                let missing: Vec<&str> = columns
                    .iter()
                    .filter(|column| column.required && request.inputs.get(&column.name).is_none())
                    .map(|column| column.name.as_str())
                    .collect();
                if let Some(first) = missing.first() {
                    let reason = format!("Model is missing inputs {missing:?}");
                    return Err(PredictError::Input { input: (*first).to_owned(), reason });
                }
                for column in columns {
                    if let Some(tensor) = request.inputs.get(&column.name) {
                        check(&column.name, column.dtype, tensor)?;
                        arranged.insert(&column.name, round(tensor, column.dtype));
                    }
                }
            }
            Inputs::Tensor(dtype, shape) if !request.frame => {
                let Some((name, tensor)) = request.inputs.iter().next() else { return Ok(None) };
                let found = tensor.shape();
                let fits =
                    |(size, wanted): (&usize, &Option<usize>)| wanted.is_none_or(|n| n == *size);
                if found.len() != shape.len() || !found.iter().zip(shape).all(fits) {
                    let any = |size: &Option<usize>| size.map_or("-1".into(), |n| n.to_string());
                    let wanted = shape.iter().map(any).collect::<Vec<String>>().join(", ");
                    let reason = format!("expected the shape [{wanted}], found {found:?}");
                    return Err(PredictError::Input { input: name.to_owned(), reason });
                }
                check(name, *dtype, tensor)?;
                arranged.insert(name, round(tensor, *dtype));
            }
            _ => return Ok(None),
        }
        Ok(Some(arranged))
    }
}

/// Texts where texts are declared, and only there.
fn check(name: &str, declared: DataType, tensor: &Tensor) -> Result<(), PredictError> {
    let texts = tensor.dtype() == DataType::Bytes;
    let nothing = tensor.nulls().is_some_and(|nulls| nulls.iter().all(|null| *null));
    if texts == (declared == DataType::Bytes) || nothing {
        return Ok(());
    }
    let (declared, found) = (declared.name(), tensor.dtype().name());
    let reason = format!("the model's signature has {declared}, found {found}");
    Err(PredictError::Input { input: name.to_owned(), reason })
}

/// Double precision rounded where single is declared, as MLflow does.
fn round(tensor: &Tensor, declared: DataType) -> Tensor {
    match (declared, tensor.dtype(), tensor.to_f64()) {
        (DataType::Fp32, DataType::Fp64, Some(values)) => {
            let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
            Tensor::from_values(tensor.shape().to_vec(), &values)
        }
        _ => tensor.clone(),
    }
}

/// The types of columns.
fn column_type(name: &str) -> Option<DataType> {
    Some(match name {
        "boolean" => DataType::Bool,
        "integer" => DataType::Int32,
        "long" => DataType::Int64,
        "float" => DataType::Fp32,
        "double" => DataType::Fp64,
        "string" => DataType::Bytes,
        _ => return None,
    })
}

/// The types of arrays.
fn numpy(name: &str) -> Option<DataType> {
    Some(match name {
        "float16" => DataType::Fp16,
        "float32" => DataType::Fp32,
        "float64" => DataType::Fp64,
        "str" | "object" => DataType::Bytes,
        name => DataType::from_name(name)?,
    })
}
