//! An estimator as a served model: tensors to a table, answers to tensors.

use std::sync::Arc;

use crate::array::Array;
use crate::model::{Description, Method, Model, PredictError, Request, Signature, TensorSpec};
use crate::steps::Estimator;
use crate::table::{Column, Frame, Matrix, Numbers, Table};
use crate::tensor::{DataType, Tensor, TensorMap};

/// An estimator behind the [`Model`] trait.
pub struct Tabular {
    estimator: Box<dyn Estimator>,
    signature: Signature,
    description: Description,
    method: Method,
    methods: Vec<Method>,
}

impl Tabular {
    /// Serves `estimator`; requests that name no method call `method`, or the estimator's first.
    ///
    /// # Errors
    /// When the estimator lacks `method`: names those it has.
    pub fn new(
        estimator: Box<dyn Estimator>,
        description: Description,
        method: Option<Method>,
    ) -> Result<Self, PredictError> {
        let mut methods = estimator.methods().to_vec();
        let method = method.or(methods.first().copied()).unwrap_or(Method::Predict);
        if !methods.contains(&method) {
            return Err(estimator.lacks(method));
        }
        methods.sort_by_key(|known| *known != method);
        let signature = signature(estimator.as_ref(), method);
        Ok(Self { estimator, signature, description, method, methods })
    }

    /// For an estimator whose answer to a row depends on the other rows of the call: requests are never merged.
    pub fn joint(mut self) -> Self {
        self.signature.batchable = false;
        self
    }

    fn call(&self, method: Method, x: &Table) -> Result<Vec<Tensor>, PredictError> {
        let one = |array: Array| vec![array.to_tensor()];
        let all = |arrays: Vec<Array>| arrays.iter().map(Array::to_tensor).collect();
        Ok(match method {
            Method::Predict => one(self.estimator.predict(x)?),
            Method::PredictProba => all(self.estimator.predict_proba(x)?),
            Method::PredictLogProba => all(self.estimator.predict_log_proba(x)?),
            Method::DecisionFunction => one(self.estimator.decision_function(x)?),
            Method::ScoreSamples => one(self.estimator.score_samples(x)?),
            Method::Apply => one(self.estimator.apply(x)?),
            Method::Kneighbors => all(self.estimator.kneighbors(x)?),
            Method::Transform => vec![to_tensor(&self.estimator.transform(x)?)?],
        })
    }
}

impl Model for Tabular {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn description(&self) -> &Description {
        &self.description
    }

    fn methods(&self) -> &[Method] {
        &self.methods
    }

    fn predict(&self, request: &Request) -> Result<TensorMap, PredictError> {
        let x = table(request, self.estimator.input().texts)?;
        let mut answers = TensorMap::default();
        let mut add = |name: &str, tensors: Vec<Tensor>| {
            let several = tensors.len() > 1;
            for (index, tensor) in tensors.into_iter().enumerate() {
                let name = if several { format!("{name}-{index}") } else { name.to_owned() };
                answers.insert(name, tensor);
            }
        };
        if request.methods.is_empty() {
            let tensors = self.call(self.method, &x)?;
            match tensors.len() {
                1 => add("output-0", tensors),
                _ => add("output", tensors),
            }
        }
        for &method in &request.methods {
            add(method.name(), self.call(method, &x)?);
        }
        Ok(answers)
    }
}

/// The signature of an estimator whose default method is `method`.
fn signature(estimator: &dyn Estimator, method: Method) -> Signature {
    let input = estimator.input();
    let (dtype, shape) = match input.texts {
        true => (DataType::Bytes, vec![None]),
        false => (DataType::Fp64, vec![None, input.columns]),
    };
    let spec = |name: String, dtype, shape| TensorSpec { name, dtype, shape };
    let outputs = estimator.output_specs(method).into_iter().enumerate().map(|(index, output)| {
        let rows = std::iter::once(None);
        spec(format!("output-{index}"), output.dtype, rows.chain(output.sizes).collect())
    });
    Signature {
        outputs: outputs.collect(),
        inputs: vec![spec("input-0".into(), dtype, shape)],
        batchable: true,
        text_columns: input.text_columns,
        columns: input.names.clone(),
    }
}

/// The table of a request: its first tensor, or all of them as columns.
fn table(request: &Request, texts: bool) -> Result<Table, PredictError> {
    if request.frame {
        return frame(&request.inputs).map(Table::Frame);
    }
    let Some((name, tensor)) = request.inputs.iter().next() else {
        return Err(PredictError::input("the request has no input; give one tensor of rows"));
    };
    array(tensor, texts).map_err(|reason| PredictError::Input { input: name.to_owned(), reason })
}

/// One tensor of rows.
fn array(tensor: &Tensor, texts: bool) -> Result<Table, String> {
    let shape = tensor.shape();
    if let Some(strings) = tensor.byte_strings() {
        let strings = utf8(&strings)?;
        return match *shape {
            [_] | [_, 1] if texts => Ok(Table::Texts(strings)),
            [rows, columns] => {
                let columns =
                    (0..columns).map(|column| text_column(tensor, &strings, rows, column));
                Ok(Table::Frame(Frame { rows, names: None, columns: columns.collect() }))
            }
            _ => Err(wrong_shape(shape)),
        };
    }
    let [rows, columns] = *shape else { return Err(wrong_shape(shape)) };
    Ok(Table::Dense(Matrix { rows, columns, values: numbers(tensor) }))
}

fn wrong_shape(shape: &[usize]) -> String {
    format!("expected rows and columns, a shape of two dimensions, found {shape:?}")
}

/// The numbers of a tensor that is not BYTES.
fn numbers(tensor: &Tensor) -> Numbers {
    match tensor.to_f32() {
        Some(values) => Numbers::F32(values),
        None => Numbers::F64(tensor.to_f64().unwrap_or_default()),
    }
}

fn utf8(strings: &[&[u8]]) -> Result<Vec<Arc<str>>, String> {
    let text = |(index, bytes): (usize, &&[u8])| {
        let text = std::str::from_utf8(bytes);
        text.map(Arc::from).map_err(|_| format!("element {index} is not UTF-8"))
    };
    strings.iter().enumerate().map(text).collect()
}

/// Column `column` of a row-major tensor of `rows` rows whose strings are `strings`.
fn text_column(tensor: &Tensor, strings: &[Arc<str>], rows: usize, column: usize) -> Column {
    let columns = strings.len() / rows.max(1);
    let null = |index: usize| tensor.nulls().is_some_and(|nulls| nulls[index]);
    let cell = |row: usize| {
        let index = row * columns + column;
        (!null(index)).then(|| Arc::clone(&strings[index]))
    };
    Column::Texts((0..rows).map(cell).collect())
}

/// Every tensor as a column of its name.
fn frame(inputs: &TensorMap) -> Result<Frame, PredictError> {
    let mut frame = Frame { rows: 0, names: Some(Vec::new()), columns: Vec::new() };
    for (name, tensor) in inputs.iter() {
        let wrong = |reason| PredictError::Input { input: name.to_owned(), reason };
        let ([rows] | [rows, 1]) = *tensor.shape() else {
            let shape = tensor.shape();
            return Err(wrong(format!("a column has the shape [n] or [n, 1], found {shape:?}")));
        };
        if !frame.columns.is_empty() && rows != frame.rows {
            let reason = format!("has {rows} rows, the columns before have {}", frame.rows);
            return Err(wrong(reason));
        }
        let column = match tensor.byte_strings() {
            Some(strings) => text_column(tensor, &utf8(&strings).map_err(wrong)?, rows, 0),
            None => Column::Numbers(tensor.to_f64().unwrap_or_default()),
        };
        frame.rows = rows;
        frame.names.get_or_insert_default().push(name.into());
        frame.columns.push(column);
    }
    if frame.columns.is_empty() {
        return Err(PredictError::input("the request has no column"));
    }
    Ok(frame)
}

/// Numbers of a transformed table at most: 128 MiB. A hashing vectoriser has a million columns, almost all of them zero.
const MAX_NUMBERS: usize = 1 << 24;

/// A transformed table as one tensor.
fn to_tensor(table: &Table) -> Result<Tensor, PredictError> {
    let shape = vec![table.rows(), table.columns()];
    if table.rows().saturating_mul(table.columns()) > MAX_NUMBERS {
        return Err(PredictError::input(format!(
            "{} rows would be answered with {} columns each, more than {MAX_NUMBERS} numbers; send fewer rows, or serve a \
             pipeline that ends in what reads these columns",
            shape[0], shape[1]
        )));
    }
    let dense = |matrix: &Matrix| match &matrix.values {
        Numbers::F32(values) => Tensor::from_values(shape.clone(), values),
        Numbers::F64(values) => Tensor::from_values(shape.clone(), values),
    };
    Ok(match table {
        Table::Dense(matrix) => dense(matrix),
        Table::Sparse(sparse) => dense(&sparse.to_dense()),
        Table::Texts(texts) => {
            let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
            Tensor::from_texts(vec![texts.len()], &texts)
        }
        Table::Frame(frame) => frame_tensor(frame, shape),
    })
}

/// A frame of numbers as FP64, one with texts as BYTES.
fn frame_tensor(frame: &Frame, shape: Vec<usize>) -> Tensor {
    let cells =
        (0..frame.rows).flat_map(|row| frame.columns.iter().map(move |column| (row, column)));
    let numeric = frame.columns.iter().all(|column| matches!(column, Column::Numbers(_)));
    if numeric {
        let number = |(row, column): (usize, &Column)| match column {
            Column::Numbers(values) => values[row],
            Column::Texts(_) => f64::NAN,
        };
        return Tensor::from_values(shape, &cells.map(number).collect::<Vec<f64>>());
    }
    let text = |(row, column): (usize, &Column)| match column {
        Column::Numbers(values) => (values[row].to_string(), false),
        Column::Texts(values) => {
            let text = values[row].as_deref();
            (text.unwrap_or_default().to_owned(), text.is_none())
        }
    };
    let (texts, nulls): (Vec<String>, Vec<bool>) = cells.map(text).unzip();
    Tensor::from_texts(shape, &texts).with_nulls(nulls)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Sparse;

    #[test]
    fn a_million_columns_are_answered_for_few_rows_only() {
        let hashed = |rows: usize| {
            let (starts, indices, values) = (vec![0; rows + 1], Vec::new(), Vec::new());
            Table::Sparse(Sparse { rows, columns: 1 << 20, starts, indices, values })
        };
        assert_eq!(
            to_tensor(&hashed(1)).map(|tensor| tensor.shape().to_vec()),
            Ok(vec![1, 1 << 20])
        );
        let error = to_tensor(&hashed(17)).map(drop).expect_err("too many numbers").to_string();
        assert!(error.contains("17 rows would be answered with 1048576 columns each"), "{error}");
    }
}
