//! `SimpleImputer` and `MissingIndicator`: what stands for cells that are missing.

use std::sync::Arc;

use crate::error::Fault;
use crate::model::PredictError;
use crate::pickle::{Object, Value};
use crate::steps::input::Nan;
use crate::steps::transform::{
    Transform, beside, numeric, select, to_frame, to_sparse, transformer,
};
use crate::steps::{Builder, Estimator, Row};
use crate::table::{Column, Frame, Matrix, Table};
use crate::tensor::DataType;

pub(crate) static ESTIMATORS: &[Row] = &[
    Row { class: "SimpleImputer", build: simple },
    Row { class: "MissingIndicator", build: indicator },
];

/// What counts as missing (`missing_values`).
#[derive(Clone, Debug)]
pub(super) enum Missing {
    /// NaN, and absent texts.
    Nan,
    Number(f64),
    Text(Arc<str>),
}

impl Missing {
    /// The parameter of an imputer.
    ///
    /// # Errors
    /// When it is no number, text, NaN or `None`.
    pub(super) fn of(object: Object<'_>) -> Result<Self, Fault> {
        let value = object.attribute("missing_values")?;
        if let Some(text) = value.as_str() {
            return Ok(Missing::Text(text.into()));
        }
        match value.as_f64() {
            Some(number) if !number.is_nan() => Ok(Missing::Number(number)),
            Some(_) => Ok(Missing::Nan),
            None if value.is_none() || value.describe().contains("NA") => Ok(Missing::Nan),
            None => {
                let reason = format!("{} is not supported; a number or text is", value.describe());
                Err(object.wrong("missing_values", reason))
            }
        }
    }

    /// What numbers may be: NaN only where it is what is missing.
    pub(super) fn finite(&self) -> Nan {
        if matches!(self, Missing::Nan) { Nan::Allow } else { Nan::Refuse }
    }

    /// Whether a number is missing.
    pub(super) fn is(&self, number: f64) -> bool {
        match self {
            Missing::Nan => number.is_nan(),
            Missing::Number(missing) => number == *missing,
            Missing::Text(_) => false,
        }
    }

    fn is_text(&self, text: Option<&str>) -> bool {
        match (self, text) {
            (Missing::Nan, None) => true,
            (Missing::Text(missing), Some(text)) => **missing == *text,
            _ => false,
        }
    }

    fn cells(&self, column: &Column) -> Vec<bool> {
        match column {
            Column::Numbers(values) => values.iter().map(|&value| self.is(value)).collect(),
            Column::Texts(texts) => {
                texts.iter().map(|text| self.is_text(text.as_deref())).collect()
            }
        }
    }
}

/// 1 where a cell is missing, in some columns.
pub(super) struct MissingIndicator {
    missing: Missing,
    features: Vec<usize>,
    /// Columns that were complete in the fit must be in every request.
    strict: bool,
    columns: usize,
    sparse: bool,
}

impl MissingIndicator {
    /// The indicator of an object, which may be an imputer's own.
    ///
    /// # Errors
    /// When attributes are missing or positions outside the features.
    pub(super) fn of(object: Object<'_>, missing: Missing) -> Result<Self, Fault> {
        let columns = match object.some("_n_features") {
            Some(_) => object.usize("_n_features")?,
            None => object.usize("n_features_in_")?,
        };
        let features = super::transform::positions(object.attribute("features_")?, columns)
            .ok_or_else(|| {
                object.wrong("features_", format!("expected positions below {columns}"))
            })?;
        let only = object.str("features")? == "missing-only";
        let strict = only && object.bool("error_on_new")?;
        let sparse = object.attribute("sparse")?.as_bool() == Some(true);
        Ok(MissingIndicator { missing, features, strict, columns, sparse })
    }

    /// Columns that it reads.
    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// The indicators of a table.
    ///
    /// # Errors
    /// When a column that was complete in the fit is not.
    pub(super) fn of_table(&self, x: &Table) -> Result<Matrix, PredictError> {
        let frame = to_frame(x);
        let masks: Vec<Vec<bool>> =
            frame.columns.iter().map(|column| self.missing.cells(column)).collect();
        let new = |&at: &usize| masks[at].contains(&true) && !self.features.contains(&at);
        let new: Vec<String> =
            (0..masks.len()).filter(|at| self.strict && new(at)).map(|at| at.to_string()).collect();
        if !new.is_empty() {
            return Err(PredictError::input(format!(
                "The features [{}] have missing values in transform but have no missing values in fit",
                new.join(", ")
            )));
        }
        let row = |row: usize| self.features.iter().map(move |&at| (at, row));
        let cells = (0..frame.rows).flat_map(row);
        let values = cells.map(|(at, row)| f64::from(u8::from(masks[at][row]))).collect();
        Ok(Matrix::f64(frame.rows, self.features.len(), values))
    }

    pub(super) fn names(&self, input: &[String]) -> Vec<String> {
        self.features.iter().map(|&at| format!("missingindicator_{}", input[at])).collect()
    }
}

impl Transform for MissingIndicator {
    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        let indicators = self.of_table(x)?;
        Ok(match self.sparse || matches!(x, Table::Sparse(_)) {
            true => Table::Sparse(to_sparse(&indicators)),
            false => Table::Dense(indicators),
        })
    }

    fn names(&self, input: Vec<String>) -> Option<Vec<String>> {
        Some(self.names(&input))
    }
}

fn indicator(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let inner = MissingIndicator::of(object, Missing::of(object)?)?;
    let columns = inner.columns;
    transformer(object, Some(columns), inner)
}

/// The indicator that an imputer adds to its answers (`add_indicator`).
///
/// # Errors
/// When it is not there or its attributes are wrong.
pub(super) fn added(
    object: Object<'_>,
    missing: &Missing,
    columns: usize,
) -> Result<Option<MissingIndicator>, Fault> {
    if object.get("add_indicator").is_none_or(|value| value.as_bool() != Some(true)) {
        return Ok(None);
    }
    let indicator = MissingIndicator::of(object.object("indicator_")?, missing.clone())?;
    if indicator.columns() != columns {
        return Err(object.wrong("indicator_", format!("is not for {columns} columns")));
    }
    Ok(Some(indicator))
}

/// Names of an imputer's answers: the columns that it keeps, then its indicators.
pub(super) fn names_of(
    kept: &[usize],
    indicator: Option<&MissingIndicator>,
    input: &[String],
) -> Vec<String> {
    let mut names: Vec<String> = kept.iter().map(|&at| input[at].clone()).collect();
    names.extend(indicator.into_iter().flat_map(|indicator| indicator.names(input)));
    names
}

/// An imputer's answer with its indicators beside it.
///
/// # Errors
/// When a column that was complete in the fit is not.
pub(super) fn with_indicator(
    answer: Table,
    x: &Table,
    indicator: Option<&MissingIndicator>,
) -> Result<Table, PredictError> {
    let Some(indicator) = indicator else { return Ok(answer) };
    let added = indicator.of_table(x)?;
    let sparse = matches!(answer, Table::Sparse(_));
    let single = matches!(&answer, Table::Dense(answer) if answer.is_single());
    let added = match single {
        true => Matrix::f32(added.rows, added.columns, added.to_f32().into_owned()),
        false => added,
    };
    beside(vec![answer, Table::Dense(added)], x.rows(), sparse)
}

/// What fills the missing cells of a column.
#[derive(Clone, Debug)]
enum Fill {
    Number(f64),
    Text(Arc<str>),
    /// The column was all missing and is left out.
    Dropped,
}

struct SimpleImputer {
    missing: Missing,
    fills: Vec<Fill>,
    /// Columns are numbers only, so texts are read as such.
    numbers: bool,
    kept: Vec<usize>,
    indicator: Option<MissingIndicator>,
}

fn simple(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let missing = Missing::of(object)?;
    let statistics = object.attribute("statistics_")?;
    let constant = object.str("strategy")? == "constant";
    let keeps = object.get("keep_empty_features").and_then(Value::as_bool);
    // Before the parameter existed, a constant filled columns without values too.
    let keeps = keeps.unwrap_or(constant);
    let fill = |value: Option<Fill>| match value {
        Some(Fill::Number(number)) if number.is_nan() && !keeps => Some(Fill::Dropped),
        other => other,
    };
    let of = |value: Value<'_>| match value.as_str() {
        Some(text) => Some(Fill::Text(text.into())),
        None if value.is_none() => Some(Fill::Number(f64::NAN)),
        None => value.as_f64().map(Fill::Number),
    };
    let fills: Option<Vec<Fill>> = match statistics.as_array() {
        Some(array) => match array.values() {
            crate::array::Values::Text(texts) => {
                Some(texts.iter().map(|text| Fill::Text(Arc::clone(text))).collect())
            }
            _ => array.to_f64().and_then(|all| {
                all.into_iter().map(|number| fill(Some(Fill::Number(number)))).collect()
            }),
        },
        None => statistics.as_list().and_then(|all| all.into_iter().map(|v| fill(of(v))).collect()),
    };
    let wrong = || object.wrong("statistics_", "expected a number or text for each column");
    let fills = fills.ok_or_else(wrong)?;
    let numbers = statistics.as_array().is_some_and(|array| array.to_f64().is_some());
    let kept = (0..fills.len()).filter(|&at| !matches!(fills[at], Fill::Dropped)).collect();
    let count = fills.len();
    let indicator = added(object, &missing, count)?;
    transformer(object, Some(count), SimpleImputer { missing, fills, numbers, kept, indicator })
}

impl SimpleImputer {
    /// The fill of a numeric column; only columns that are left out have none.
    fn number(&self, column: usize) -> f64 {
        match self.fills[column] {
            Fill::Number(number) => number,
            _ => f64::NAN,
        }
    }

    fn filled(&self, column: &Column, at: usize) -> Result<Column, PredictError> {
        let mask = self.missing.cells(column);
        let mixed = |what: &str, fill: &str| {
            PredictError::input(format!(
                "column {at} holds {what}, but its missing values are filled with {fill}"
            ))
        };
        Ok(match (column, &self.fills[at]) {
            (Column::Numbers(values), Fill::Number(fill)) => {
                let pick = |(&value, &missing): (&f64, &bool)| if missing { *fill } else { value };
                Column::Numbers(values.iter().zip(&mask).map(pick).collect())
            }
            (Column::Texts(texts), Fill::Text(fill)) => {
                let pick = |(text, &missing): (&Option<Arc<str>>, &bool)| match missing {
                    true => Some(Arc::clone(fill)),
                    false => text.clone(),
                };
                Column::Texts(texts.iter().zip(&mask).map(pick).collect())
            }
            (Column::Numbers(_), Fill::Text(fill)) if !mask.contains(&false) => {
                Column::Texts(vec![Some(Arc::clone(fill)); mask.len()])
            }
            (Column::Texts(_), Fill::Number(fill)) if !mask.contains(&false) => {
                Column::Numbers(vec![*fill; mask.len()])
            }
            (column, _) if !mask.contains(&true) => column.clone(),
            (Column::Numbers(_), _) => return Err(mixed("numbers", "a text")),
            (Column::Texts(_), _) => return Err(mixed("texts", "a number")),
        })
    }
}

impl Transform for SimpleImputer {
    fn dtype(&self) -> DataType {
        if self.text_columns() { DataType::Bytes } else { DataType::Fp64 }
    }

    fn text_columns(&self) -> bool {
        self.fills.iter().any(|fill| matches!(fill, Fill::Text(_)))
    }

    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        if self.numbers {
            let matrix = numeric(x, self.missing.finite())?;
            let fill = |column: usize, value: f64| match self.missing.is(value) {
                true => self.number(column),
                false => value,
            };
            let filled = super::transform::map(&matrix, fill);
            let read = Table::Dense(matrix.into_owned());
            let answer = select(&Table::Dense(filled), &self.kept);
            let answer = with_indicator(answer, &read, self.indicator.as_ref())?;
            return Ok(match (x, answer) {
                (Table::Sparse(_), Table::Dense(answer)) => Table::Sparse(to_sparse(&answer)),
                (_, answer) => answer,
            });
        }
        let frame = to_frame(x);
        let columns = self.kept.iter().map(|&at| self.filled(&frame.columns[at], at));
        let columns = columns.collect::<Result<_, _>>()?;
        let answer = Table::Frame(Frame { rows: frame.rows, names: None, columns });
        with_indicator(answer, x, self.indicator.as_ref())
    }

    fn names(&self, input: Vec<String>) -> Option<Vec<String>> {
        Some(names_of(&self.kept, self.indicator.as_ref(), &input))
    }
}
