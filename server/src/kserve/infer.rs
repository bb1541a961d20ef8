//! Inference, neutral of the protocol: from named inputs and wanted outputs to a call of the model and back.

use std::time::Instant;

use bytes::Bytes;
use tokenmill_predictive::{
    DataType, Method, Model, Priority, Request, Tensor, TensorError, TensorMap,
};

use super::classification::classify;
use super::failure::Failure;
use super::statistics::Watch;
use super::{Parameters, Predictive};

/// One input of a request, checked: its bytes are those that datatype and shape say.
#[derive(Clone, Debug, PartialEq)]
pub struct InferInput {
    /// Its name.
    pub name: String,
    /// Its parameters.
    pub parameters: Parameters,
    /// Its values.
    pub tensor: Tensor,
}

impl InferInput {
    /// An input of raw little-endian bytes; one size of the shape may be -1.
    ///
    /// # Errors
    /// When datatype, shape and bytes do not fit.
    pub fn from_raw(
        name: &str,
        datatype: &str,
        shape: &[i64],
        parameters: Parameters,
        data: Bytes,
    ) -> Result<Self, Failure> {
        let dtype = datatype_of(name, datatype)?;
        let elements = match dtype.element_bytes() {
            Some(size) if data.len().is_multiple_of(size) => data.len() / size,
            Some(size) => {
                return Err(Failure::model(format!(
                    "cannot reshape array: input {name} has {} bytes, not a multiple of {size}",
                    data.len()
                )));
            }
            None => byte_strings(&data),
        };
        let shape = resolve_shape(name, shape, elements)?;
        let tensor = Tensor::new(dtype, shape, data).map_err(|error| mismatch(name, &error))?;
        Ok(Self { name: name.to_owned(), parameters, tensor })
    }
}

/// The datatype of a name, in any letter case.
///
/// # Errors
/// When there is none of that name.
pub fn datatype_of(input: &str, datatype: &str) -> Result<DataType, Failure> {
    DataType::from_name(datatype).ok_or_else(|| {
        let known: Vec<&str> = DataType::ALL.into_iter().map(DataType::name).collect();
        let datatype = crate::error::clip(datatype);
        Failure::model(format!(
            "invalid datatype {datatype} in the input {input}; known are {}",
            known.join(", ")
        ))
    })
}

/// Whole length-prefixed elements at the front of `data`.
fn byte_strings(mut data: &[u8]) -> usize {
    let mut count = 0;
    while let Some((prefix, rest)) = data.split_first_chunk::<4>() {
        let Some(after) = rest.get(u32::from_le_bytes(*prefix) as usize..) else { break };
        data = after;
        count += 1;
    }
    count
}

fn mismatch(input: &str, error: &TensorError) -> Failure {
    Failure::model(format!("input {input}: {error}"))
}

/// The sizes of `shape` for so many elements, at most one -1 filled in.
///
/// # Errors
/// When they do not fit.
pub fn resolve_shape(input: &str, shape: &[i64], elements: usize) -> Result<Vec<usize>, Failure> {
    let unfit = || {
        let sizes: Vec<String> = shape.iter().map(i64::to_string).collect();
        let comma = if sizes.len() == 1 { "," } else { "" };
        Failure::model(format!(
            "cannot reshape array of size {elements} into shape ({}{comma}) for input {input}",
            sizes.join(",")
        ))
    };
    let known = shape.iter().filter(|&&size| size != -1);
    let product = known
        .clone()
        .try_fold(1usize, |product, &size| product.checked_mul(usize::try_from(size).ok()?));
    let product = product.ok_or_else(unfit)?;
    let open = shape.len() - known.count();
    let filled = match open {
        0 if product == elements => 0,
        1 if product > 0 && elements.is_multiple_of(product) => elements / product,
        0 | 1 => return Err(unfit()),
        _ => {
            return Err(Failure::model(format!(
                "can only specify one unknown dimension, the shape of input {input} has {open}"
            )));
        }
    };
    Ok(shape.iter().map(|&size| usize::try_from(size).unwrap_or(filled)).collect())
}

/// An output that a request names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestedOutput {
    /// Its name.
    pub name: String,
    /// `binary_data`, `classification`.
    pub parameters: Parameters,
}

/// A request of the Open Inference Protocol.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InferRequest {
    /// Echoed.
    pub id: Option<String>,
    /// `content_type`, `binary_data_output`, `priority`, `timeout`.
    pub parameters: Parameters,
    /// The inputs, in order.
    pub inputs: Vec<InferInput>,
    /// Wanted outputs; empty asks for all.
    pub outputs: Vec<RequestedOutput>,
}

impl InferRequest {
    /// When it expires: `timeout` of the parameters in microseconds, else `default`.
    ///
    /// # Errors
    /// When `timeout` is no whole number.
    pub fn deadline(&self, default: Option<Instant>) -> Result<Option<Instant>, Failure> {
        let timeout = self.whole("timeout")?.filter(|&micros| micros > 0);
        let own = timeout.and_then(|micros| {
            Instant::now().checked_add(std::time::Duration::from_micros(micros))
        });
        Ok(own.or(default))
    }

    /// A parameter that is a whole number where it is there.
    fn whole(&self, name: &str) -> Result<Option<u64>, Failure> {
        let given = self.parameters.get(name).is_some();
        let whole = self.parameters.whole(name);
        match given && whole.is_none() {
            true => Err(Failure::invalid(format!(
                "parameters.{name}: expected a whole number of at least 0"
            ))),
            false => Ok(whole),
        }
    }
}

/// One output of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct InferOutput {
    /// Its name.
    pub name: String,
    /// Its values.
    pub tensor: Tensor,
    /// Whether raw bytes were asked for, or not, for this output.
    pub binary: Option<bool>,
}

/// An output of the answer, and where it comes from.
#[derive(Clone, Debug, PartialEq)]
struct Wanted {
    /// Its name in the answer.
    name: String,
    /// Name of the model's output, or the stem of several (`output` of `output-0`, `output-1`).
    source: String,
    classification: Option<usize>,
    binary: Option<bool>,
}

/// A call of a model and what is wanted of its answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The call.
    pub request: Request,
    /// Its place among the calls that wait.
    pub priority: Priority,
    /// Empty takes every output as it is.
    wanted: Vec<Wanted>,
}

impl From<Request> for Plan {
    fn from(request: Request) -> Self {
        Self { request, ..Self::default() }
    }
}

/// Fits a request to a model.
///
/// # Errors
/// When it has no inputs, or wants an output that the model does not have.
pub fn plan(name: &str, model: &dyn Model, request: InferRequest) -> Result<Plan, Failure> {
    let priority = Priority::of(request.whole("priority")?.unwrap_or(0));
    let InferRequest { parameters, inputs, outputs, .. } = request;
    let tabular = !model.methods().is_empty();
    let frame = parameters.text("content_type") == Some("pd");
    let request = Request {
        inputs: if tabular { table(inputs, frame) } else { named(name, model, inputs)? },
        frame: frame && tabular,
        methods: Vec::new(),
    };
    if request.inputs.is_empty() {
        return Err(Failure::model(format!("the request for model '{name}' has no inputs")));
    }
    let mut plan = Plan { request, priority, wanted: Vec::new() };
    for output in outputs {
        let method = tabular.then(|| method_of(model, &output.name)).flatten();
        let known = |spec: &tokenmill_predictive::TensorSpec| spec.name == output.name;
        let default = model.signature().outputs.iter().any(known)
            || (tabular && output.name.starts_with("output-"));
        if method.is_none() && !default {
            return Err(unexpected(&output.name, name));
        }
        if let Some(method) = method.filter(|method| !plan.request.methods.contains(method)) {
            plan.request.methods.push(method);
        }
        plan.wanted.push(Wanted {
            source: output.name.clone(),
            classification: output.parameters.whole("classification").map(|count| count as usize),
            binary: output.parameters.bool("binary_data"),
            name: output.name,
        });
    }
    plan.call_default_by_name(model);
    Ok(plan)
}

fn unexpected(output: &str, model: &str) -> Failure {
    let output = crate::error::clip(output);
    Failure::invalid(format!("Unexpected inference output '{output}' for model '{model}'"))
}

/// The method that an output's name asks for; `predict_proba-1` is an output of `predict_proba`.
fn method_of(model: &dyn Model, name: &str) -> Option<Method> {
    let stem = name.rsplit_once('-').filter(|(_, index)| index.parse::<usize>().is_ok());
    let method = Method::from_name(name).or_else(|| Method::from_name(stem?.0))?;
    model.methods().contains(&method).then_some(method)
}

/// The first input, or every one as a column.
fn table(inputs: Vec<InferInput>, frame: bool) -> TensorMap {
    let mut map = TensorMap::default();
    let count = if frame { inputs.len() } else { 1 };
    inputs.into_iter().take(count).for_each(|input| map.insert(input.name, input.tensor));
    map
}

/// The inputs by their names; that of a model with one input may have any.
fn named(name: &str, model: &dyn Model, inputs: Vec<InferInput>) -> Result<TensorMap, Failure> {
    let specs = &model.signature().inputs;
    let mut map = TensorMap::default();
    if let ([spec], [_]) = (specs.as_slice(), inputs.as_slice()) {
        inputs.into_iter().for_each(|input| map.insert(&spec.name, input.tensor));
        return Ok(map);
    }
    for input in inputs {
        if !specs.iter().any(|spec| spec.name == input.name) {
            let known: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
            return Err(Failure::invalid(format!(
                "Unexpected inference input '{}' for model '{name}'; its inputs are {}",
                crate::error::clip(&input.name),
                known.join(", ")
            )));
        }
        map.insert(input.name, input.tensor);
    }
    Ok(map)
}

impl Plan {
    /// When methods are named besides the default output, the default is called by its name too.
    fn call_default_by_name(&mut self, model: &dyn Model) {
        let Some(&default) = model.methods().first() else { return };
        if self.request.methods.is_empty() {
            return;
        }
        for wanted in &mut self.wanted {
            let Some(index) = wanted.name.strip_prefix("output-") else { continue };
            if method_of(model, &wanted.name).is_some() {
                continue;
            }
            if !self.request.methods.contains(&default) {
                self.request.methods.push(default);
            }
            wanted.source = format!("{}-{index}", default.name());
        }
    }

    /// What was wanted, of what the model answered.
    ///
    /// # Errors
    /// When an output is not there.
    pub fn answer(self, model: &str, answer: TensorMap) -> Result<Vec<InferOutput>, Failure> {
        if self.wanted.is_empty() {
            let output = |(name, tensor): (&str, &Tensor)| InferOutput {
                name: name.to_owned(),
                tensor: tensor.clone(),
                binary: None,
            };
            return Ok(answer.iter().map(output).collect());
        }
        let mut outputs = Vec::new();
        for wanted in self.wanted {
            let mut found = false;
            for (name, tensor) in answer.iter() {
                let Some(shown) = wanted.shown(name) else { continue };
                found = true;
                let tensor = match wanted.classification {
                    Some(count) => classify(shown, tensor, count)?,
                    None => tensor.clone(),
                };
                outputs.push(InferOutput { name: shown.to_owned(), tensor, binary: wanted.binary });
            }
            if !found {
                return Err(unexpected(&wanted.name, model));
            }
        }
        Ok(outputs)
    }
}

impl Wanted {
    /// The name under which the model's output `name` answers this wish, if it does: itself, one of
    /// several with a number behind, or the only one where the first of several was wanted.
    fn shown<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let numbered = |long: &str, short: &str| {
            long.strip_prefix(short).and_then(|rest| rest.strip_prefix('-')).map(str::to_owned)
        };
        if name == self.source || numbered(&self.source, name).as_deref() == Some("0") {
            return Some(&self.name);
        }
        let index = numbered(name, &self.source)?;
        index.parse::<usize>().is_ok().then_some(name)
    }
}

/// Runs a plan on a model and takes the times.
///
/// # Errors
/// When the model refuses or cannot answer in time.
pub async fn run(
    model: &Predictive,
    mut plan: Plan,
    deadline: Option<Instant>,
    watch: &mut Watch,
) -> Result<Vec<InferOutput>, Failure> {
    let request = std::mem::take(&mut plan.request);
    watch.decoded();
    let prediction = model.handle.predict_in_order(request, deadline, plan.priority).await?;
    watch.predicted(prediction.timings);
    plan.answer(&model.name, prediction.outputs)
}
