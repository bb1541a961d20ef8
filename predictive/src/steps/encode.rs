//! Encoders of categories and of labels.

use crate::error::Fault;
use crate::model::PredictError;
use crate::pickle::{Object, Value};
use crate::steps::categories::{self, Categories, codes, unknown};
use crate::steps::input::Nan;
use crate::steps::transform::{Transform, numeric, sparse_rows, to_frame, to_sparse, transformer};
use crate::steps::{Builder, Estimator, Row};
use crate::table::{Matrix, Table};
use crate::tensor::DataType;

pub(crate) static ESTIMATORS: &[Row] = &[
    Row { class: "OneHotEncoder", build: one_hot },
    Row { class: "OrdinalEncoder", build: ordinal },
    Row { class: "TargetEncoder", build: target },
    Row { class: "LabelEncoder", build: label },
    Row { class: "LabelBinarizer", build: label_binarizer },
    Row { class: "MultiLabelBinarizer", build: multi_label },
];

/// Whether a `dtype` parameter names single precision; integers are answered as double precision.
pub(super) fn is_single(object: Object<'_>) -> bool {
    let Some(dtype) = object.some("dtype") else { return false };
    let text = |value: Value<'_>| matches!(value.as_str(), Some("float32" | "f4" | "<f4" | "f"));
    let global = dtype.as_global().is_some_and(|(_, name)| name == "float32");
    let argument = dtype.as_object().and_then(|dtype| dtype.arguments.as_list()?.first().copied());
    global || text(dtype) || argument.is_some_and(text)
}

/// Where each category of one column goes.
struct OneHotColumn {
    categories: Categories,
    /// The output column of each category; `None` for the dropped one.
    targets: Vec<Option<u32>>,
    /// What unknown categories are.
    unknown: Unknown,
    /// Names of the outputs, without the column's.
    outputs: Vec<String>,
}

#[derive(Clone, Copy)]
enum Unknown {
    Refused,
    Zeros,
    As(Option<u32>),
}

struct OneHotEncoder {
    columns: Vec<OneHotColumn>,
    width: usize,
    sparse: bool,
    single: bool,
}

/// The item of a list attribute, if both are there and not `None`.
fn item<'a>(object: Object<'a>, name: &str, index: usize) -> Option<Value<'a>> {
    let items = object.some(name)?.as_list()?;
    items.get(index).copied().filter(|item| !item.is_none())
}

/// The output of each category before any is dropped: its own, or that of the infrequent ones.
fn grouped(object: Object<'_>, index: usize, count: usize) -> Result<Vec<usize>, Fault> {
    let name = "_default_to_infrequent_mappings";
    let enabled = object.some("_infrequent_enabled").and_then(Value::as_bool).unwrap_or(false);
    let Some(mapping) = item(object, name, index).filter(|_| enabled) else {
        return Ok((0..count).collect());
    };
    let numbers = mapping.as_array().and_then(|array| array.to_f64());
    let numbers = numbers.filter(|numbers| numbers.len() == count);
    let fits = |&number: &f64| number >= 0.0 && number < count as f64;
    match numbers.filter(|numbers| numbers.iter().all(fits)) {
        Some(numbers) => Ok(numbers.into_iter().map(|number| number as usize).collect()),
        None => Err(object.wrong(name, format!("expected a group for each of {count} categories"))),
    }
}

fn infrequent(object: Object<'_>, index: usize) -> Option<usize> {
    let enabled = object.some("_infrequent_enabled").and_then(Value::as_bool).unwrap_or(false);
    let indices = item(object, "_infrequent_indices", index).filter(|_| enabled)?;
    indices.as_array()?.to_f64()?.first().map(|&first| first as usize)
}

fn one_hot(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let handle = object.str("handle_unknown")?;
    let drop = ["_drop_idx_after_grouping", "drop_idx_"];
    let drop = drop.into_iter().find(|name| object.get(name).is_some()).unwrap_or(drop[1]);
    let dropped = |index: usize| match object.some(drop) {
        None => Ok(None),
        Some(value) => match (item(object, drop, index), value.as_array()) {
            (Some(item), _) => item.as_usize().map(Some),
            (None, None) => Some(None),
            (None, Some(array)) => {
                array.to_f64().and_then(|all| all.get(index).map(|&at| Some(at as usize)))
            }
        }
        .ok_or_else(|| object.wrong(drop, "expected the position of a category")),
    };
    let mut columns = Vec::new();
    let mut width = 0;
    for (index, categories) in categories::all(object)?.into_iter().enumerate() {
        let groups = grouped(object, index, categories.len())?;
        let dropped = dropped(index)?;
        let count = groups.iter().max().map_or(0, |last| last + 1);
        let shift = |group: usize| {
            let before = usize::from(dropped.is_some_and(|dropped| dropped < group));
            (dropped != Some(group)).then(|| (width + group - before) as u32)
        };
        let rare = infrequent(object, index);
        let unknown = match (handle, rare.and_then(|rare| groups.get(rare))) {
            ("error", _) => Unknown::Refused,
            ("infrequent_if_exist" | "warn", Some(&group)) => Unknown::As(shift(group)),
            ("ignore" | "infrequent_if_exist" | "warn", _) => Unknown::Zeros,
            (other, _) => {
                let reason =
                    format!("{other:?} is not known; ignore, error and infrequent_if_exist are");
                return Err(object.wrong("handle_unknown", reason));
            }
        };
        let mut outputs = vec![String::new(); count];
        for (category, &group) in groups.iter().enumerate() {
            let shared = rare.is_some_and(|rare| groups.get(rare) == Some(&group));
            let name = if shared { "infrequent_sklearn" } else { categories.shown(category) };
            name.clone_into(&mut outputs[group]);
        }
        if let Some(dropped) = dropped.filter(|&dropped| dropped < count) {
            outputs.remove(dropped);
        }
        let targets = groups.into_iter().map(shift).collect();
        width += outputs.len();
        columns.push(OneHotColumn { categories, targets, unknown, outputs });
    }
    let sparse = object.get("sparse_output").or(object.get("sparse")).and_then(Value::as_bool);
    let (sparse, single, count) = (sparse.unwrap_or(true), is_single(object), columns.len());
    transformer(object, Some(count), OneHotEncoder { columns, width, sparse, single })
}

impl Transform for OneHotEncoder {
    fn dtype(&self) -> DataType {
        if self.single { DataType::Fp32 } else { DataType::Fp64 }
    }

    fn text_columns(&self) -> bool {
        self.columns.iter().any(|column| column.categories.has_texts())
    }

    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        let frame = to_frame(x);
        let mut rows = Vec::with_capacity(frame.rows);
        for row in 0..frame.rows {
            let mut cells = Vec::with_capacity(self.columns.len());
            for (at, (known, column)) in self.columns.iter().zip(&frame.columns).enumerate() {
                let target = match (known.categories.code(column, row), known.unknown) {
                    (Some(code), _) => known.targets[code],
                    (None, Unknown::As(target)) => target,
                    (None, Unknown::Zeros) => None,
                    (None, Unknown::Refused) => return Err(unknown(&frame, at, row)),
                };
                cells.extend(target.map(|target| (target, 1.0)));
            }
            rows.push(cells);
        }
        let sparse = sparse_rows(self.width, rows.into_iter());
        Ok(match (self.sparse, self.single) {
            (true, _) => Table::Sparse(sparse),
            (false, false) => Table::Dense(sparse.to_dense()),
            (false, true) => {
                let values = sparse.to_dense().to_f32().into_owned();
                Table::Dense(Matrix::f32(frame.rows, self.width, values))
            }
        })
    }

    fn names(&self, input: Vec<String>) -> Option<Vec<String>> {
        let of = |(name, column): (&String, &OneHotColumn)| {
            column.outputs.iter().map(|output| format!("{name}_{output}")).collect::<Vec<_>>()
        };
        Some(input.iter().zip(&self.columns).flat_map(of).collect())
    }
}

/// A code, or a fixed value, for each category.
struct OrdinalEncoder {
    categories: Vec<Categories>,
    values: Vec<Vec<f64>>,
    /// What unknown categories are; refused without.
    unknown: Option<f64>,
    single: bool,
}

fn ordinal(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let categories = categories::all(object)?;
    let missing = match object.some("encoded_missing_value") {
        Some(_) => object.f64("encoded_missing_value")?,
        None => f64::NAN,
    };
    let unknown = match object.some("handle_unknown").and_then(Value::as_str) {
        None | Some("error") => None,
        Some("use_encoded_value") => Some(object.f64("unknown_value")?),
        Some(other) => {
            let reason = format!("{other:?} is not known; error and use_encoded_value are");
            return Err(object.wrong("handle_unknown", reason));
        }
    };
    let mut values = Vec::with_capacity(categories.len());
    for (index, known) in categories.iter().enumerate() {
        let groups = ordinal_groups(object, index, known)?;
        let value = |(code, group): (usize, usize)| match known.nan() {
            Some(at) if at == code => missing,
            _ => group as f64,
        };
        values.push(groups.into_iter().enumerate().map(value).collect());
    }
    let (count, single) = (categories.len(), is_single(object));
    transformer(object, Some(count), OrdinalEncoder { categories, values, unknown, single })
}

/// Groups of ordinal codes; the missing category is outside the mapping when there is one.
fn ordinal_groups(
    object: Object<'_>,
    index: usize,
    known: &Categories,
) -> Result<Vec<usize>, Fault> {
    let mapping = item(object, "_default_to_infrequent_mappings", index);
    let mapped =
        mapping.and_then(|mapping| mapping.shape()).and_then(|shape| shape.first().copied());
    match (mapped, known.nan()) {
        (Some(mapped), Some(_)) if mapped + 1 == known.len() => {
            let mut groups = grouped(object, index, mapped)?;
            groups.push(mapped);
            Ok(groups)
        }
        _ => grouped(object, index, known.len()),
    }
}

impl Transform for OrdinalEncoder {
    fn dtype(&self) -> DataType {
        if self.single { DataType::Fp32 } else { DataType::Fp64 }
    }

    fn text_columns(&self) -> bool {
        self.categories.iter().any(Categories::has_texts)
    }

    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        let (rows, codes) = codes(x, &self.categories);
        let count = self.categories.len();
        let mut answer = Vec::with_capacity(codes.len());
        for (cell, code) in codes.iter().enumerate() {
            answer.push(match (code, self.unknown) {
                (Some(code), _) => self.values[cell % count][*code],
                (None, Some(value)) => value,
                (None, None) => return Err(unknown(&to_frame(x), cell % count, cell / count)),
            });
        }
        let matrix = Matrix::f64(rows, count, answer);
        Ok(Table::Dense(match self.single {
            true => Matrix::f32(rows, count, matrix.to_f32().into_owned()),
            false => matrix,
        }))
    }
}

/// The mean target of each category, for each class when there are several.
struct TargetEncoder {
    categories: Vec<Categories>,
    /// One per column and class.
    encodings: Vec<Vec<f64>>,
    /// Mean target of each class: what unknown categories are.
    means: Vec<f64>,
    /// Classes, as names show them, when there are more than two.
    classes: Vec<String>,
}

fn target(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let categories = categories::all(object)?;
    let means = object.vector("target_mean_", None)?;
    let classes = match object.str("target_type_")? {
        "multiclass" => Categories::new(object, "classes_", object.attribute("classes_")?)?.names(),
        _ => Vec::new(),
    };
    if means.len() != classes.len().max(1) {
        let reason = format!("has {} values, not {}", means.len(), classes.len().max(1));
        return Err(object.wrong("target_mean_", reason));
    }
    let mut encodings = Vec::new();
    for encoding in object.list("encodings_")? {
        let known = categories.get(encodings.len() / means.len()).map(Categories::len);
        let encoding = encoding.as_array().and_then(|array| array.to_f64());
        match encoding.filter(|encoding| Some(encoding.len()) == known) {
            Some(encoding) => encodings.push(encoding),
            None => return Err(object.wrong("encodings_", "expected a number for each category")),
        }
    }
    if encodings.len() != categories.len() * means.len() {
        return Err(object.wrong("encodings_", "expected one for each column and class"));
    }
    let count = categories.len();
    transformer(object, Some(count), TargetEncoder { categories, encodings, means, classes })
}

impl Transform for TargetEncoder {
    fn text_columns(&self) -> bool {
        self.categories.iter().any(Categories::has_texts)
    }

    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        let (rows, codes) = codes(x, &self.categories);
        let (count, classes) = (self.categories.len(), self.means.len());
        let mut answer = Vec::with_capacity(codes.len() * classes);
        for (cell, code) in codes.iter().enumerate() {
            for class in 0..classes {
                let encoding = &self.encodings[cell % count * classes + class];
                answer.push(code.map_or(self.means[class], |code| encoding[code]));
            }
        }
        Ok(Table::Dense(Matrix::f64(rows, count * classes, answer)))
    }

    fn names(&self, input: Vec<String>) -> Option<Vec<String>> {
        if self.classes.is_empty() {
            return Some(input);
        }
        let of = |name: String| self.classes.iter().map(move |class| format!("{name}_{class}"));
        Some(input.into_iter().flat_map(of).collect())
    }
}

/// The number of each label.
struct LabelEncoder {
    classes: Categories,
}

impl Transform for LabelEncoder {
    fn text_columns(&self) -> bool {
        self.classes.has_texts()
    }

    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        let (rows, codes) = codes(x, std::slice::from_ref(&self.classes));
        let known = |(row, code): (usize, &Option<usize>)| {
            code.map(|code| code as f64).ok_or_else(|| unknown(&to_frame(x), 0, row))
        };
        let codes = codes.iter().enumerate().map(known).collect::<Result<_, _>>()?;
        Ok(Table::Dense(Matrix::f64(rows, 1, codes)))
    }

    fn inverse(&self, x: &Table) -> Option<Result<Table, PredictError>> {
        Some(numeric(x, Nan::Refuse).and_then(|x| {
            let label = |&code: &f64| {
                let known = code >= 0.0 && (code as usize) < self.classes.len();
                let unknown = || PredictError::input(format!("there is no label of number {code}"));
                known.then(|| self.classes.shown(code as usize).into()).ok_or_else(unknown)
            };
            x.to_f64().iter().map(label).collect::<Result<_, _>>().map(Table::Texts)
        }))
    }
}

fn label(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let classes = Categories::new(object, "classes_", object.attribute("classes_")?)?;
    transformer(object, Some(1), LabelEncoder { classes })
}

/// One column for each label, or one for two labels.
struct LabelBinarizer {
    classes: Categories,
    binary: bool,
    low: f64,
    high: f64,
    sparse: bool,
}

impl Transform for LabelBinarizer {
    fn text_columns(&self) -> bool {
        self.classes.has_texts()
    }

    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        let (rows, codes) = codes(x, std::slice::from_ref(&self.classes));
        let width = if self.binary { 1 } else { self.classes.len() };
        let mut answer = vec![self.low; rows * width];
        for (row, code) in codes.into_iter().enumerate() {
            match code {
                Some(code) if self.binary => {
                    answer[row] = if code == 1 { self.high } else { self.low };
                }
                Some(code) => answer[row * width + code] = self.high,
                None => {}
            }
        }
        let matrix = Matrix::f64(rows, width, answer);
        Ok(match self.sparse {
            true => Table::Sparse(to_sparse(&matrix)),
            false => Table::Dense(matrix),
        })
    }

    fn names(&self, _: Vec<String>) -> Option<Vec<String>> {
        let names = self.classes.names();
        Some(if self.binary { names.into_iter().skip(1).take(1).collect() } else { names })
    }
}

fn label_binarizer(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let binary = match object.str("y_type_")? {
        "binary" => true,
        "multiclass" => false,
        other => {
            let reason = format!("{other:?} is not supported; binary and multiclass are");
            return Err(object.wrong("y_type_", reason));
        }
    };
    let classes = Categories::new(object, "classes_", object.attribute("classes_")?)?;
    let (low, high) = (object.f64("neg_label")?, object.f64("pos_label")?);
    let sparse = object.bool("sparse_output")?;
    transformer(object, Some(1), LabelBinarizer { classes, binary, low, high, sparse })
}

/// One column for each label: whether a row has it. Rows are tables of labels, as wide as the longest; cells without a
/// label are absent (NaN or null).
struct MultiLabelBinarizer {
    classes: Categories,
    sparse: bool,
}

impl Transform for MultiLabelBinarizer {
    fn text_columns(&self) -> bool {
        self.classes.has_texts()
    }

    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        let (frame, width) = (to_frame(x), self.classes.len());
        let mut answer = vec![0.0; frame.rows * width];
        for column in &frame.columns {
            // Unknown labels are left out, as in the library, which warns.
            let codes = (0..frame.rows).map(|row| self.classes.code(column, row));
            let known = codes.enumerate().filter_map(|(row, code)| Some((row, code?)));
            known.for_each(|(row, code)| answer[row * width + code] = 1.0);
        }
        let matrix = Matrix::f64(frame.rows, width, answer);
        Ok(match self.sparse {
            true => Table::Sparse(to_sparse(&matrix)),
            false => Table::Dense(matrix),
        })
    }

    fn names(&self, _: Vec<String>) -> Option<Vec<String>> {
        Some(self.classes.names())
    }
}

fn multi_label(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let classes = Categories::new(object, "classes_", object.attribute("classes_")?)?;
    let sparse = object.bool("sparse_output")?;
    transformer(object, None, MultiLabelBinarizer { classes, sparse })
}
