//! From a table to the rows that trees read: columns by name, categories of frames as their numbers.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::Value;

use super::source::{Kind, Source};
use crate::error::Fault;
use crate::model::PredictError;
use crate::table::{Column, Frame, Matrix, Numbers, Table};

/// Values as near to zero as this are zero: `1e-35` in single precision.
const ZERO: f64 = 1e-35_f32 as f64;

/// The features of a model, as requests name them.
#[derive(Debug)]
pub(super) struct Columns {
    names: Vec<String>,
    /// Names that the library made up (`Column_0`): the training data had none.
    made_up: bool,
    categories: Categories,
}

/// Which features have categories by name.
#[derive(Debug)]
enum Categories {
    /// Each feature's, where it has them.
    Known(HashMap<usize, Mapping>),
    /// The file does not say which features: those that a request gives as texts, in order.
    Texts(Vec<Mapping>),
}

/// Category to its number.
#[derive(Debug, Default)]
struct Mapping {
    texts: HashMap<String, f64>,
    /// By the bits of the number.
    numbers: HashMap<u64, f64>,
}

impl Mapping {
    fn new(at: &str, categories: &[Value]) -> Result<Self, Fault> {
        let mut mapping = Mapping::default();
        for (index, category) in categories.iter().enumerate() {
            let code = index as f64;
            match category {
                Value::String(text) => drop(mapping.texts.insert(text.clone(), code)),
                Value::Bool(value) => {
                    mapping.numbers.insert(bits(f64::from(u8::from(*value))), code);
                }
                Value::Number(number) => {
                    let number = number.as_f64().unwrap_or(f64::NAN);
                    mapping.numbers.insert(bits(number), code);
                }
                other => {
                    let reason = format!("expected a text, number or truth value, found {other}");
                    return Err(Fault::corrupt(at, reason));
                }
            }
        }
        Ok(mapping)
    }

    /// The numbers of a column's categories; NaN for those that training has not seen.
    fn codes(&self, column: &Column) -> Vec<f64> {
        let unseen = |code: Option<&f64>| code.copied().unwrap_or(f64::NAN);
        match column {
            Column::Numbers(values) => {
                values.iter().map(|&value| unseen(self.numbers.get(&bits(value)))).collect()
            }
            Column::Texts(texts) => {
                let code = |text: &str| self.texts.get(text);
                texts.iter().map(|text| unseen(text.as_deref().and_then(code))).collect()
            }
        }
    }
}

/// One number for both zeros.
fn bits(number: f64) -> u64 {
    (number + 0.0).to_bits()
}

impl Columns {
    /// The columns of a file.
    pub(super) fn new(source: &Source) -> Result<Self, Fault> {
        let made_up = |(index, name): (usize, &String)| *name == format!("Column_{index}");
        Ok(Self {
            made_up: source.names.iter().enumerate().all(made_up),
            names: source.names.clone(),
            categories: categories(source)?,
        })
    }

    /// The names, where the training data had any.
    pub(super) fn names(&self) -> Option<&[String]> {
        (!self.made_up).then_some(&self.names)
    }

    /// The rows of a table, near-zero values as zero.
    pub(super) fn rows<'a>(&self, x: &'a Table) -> Result<Cow<'a, Matrix>, PredictError> {
        let features = self.names.len();
        let (rows, mut values) = match x {
            Table::Dense(matrix) => {
                self.check_width(matrix.columns)?;
                match &matrix.values {
                    Numbers::F64(values) if !has_small(values) => return Ok(Cow::Borrowed(matrix)),
                    _ => (matrix.rows, matrix.to_f64().into_owned()),
                }
            }
            Table::Sparse(sparse) => {
                self.check_width(sparse.columns)?;
                (sparse.rows, sparse.to_dense().to_f64().into_owned())
            }
            Table::Frame(frame) => (frame.rows, self.frame(frame)?),
            Table::Texts(_) => {
                return Err(PredictError::input("expected numbers, found a list of texts"));
            }
        };
        values.iter_mut().filter(|value| value.abs() <= ZERO).for_each(|value| *value = 0.0);
        Ok(Cow::Owned(Matrix::f64(rows, features, values)))
    }

    fn check_width(&self, found: usize) -> Result<(), PredictError> {
        let expected = self.names.len();
        if found == expected {
            return Ok(());
        }
        Err(PredictError::input(format!(
            "The number of features in data ({found}) is not the same as it was in training data \
             ({expected})."
        )))
    }

    /// The row-major values of a frame.
    fn frame(&self, frame: &Frame) -> Result<Vec<f64>, PredictError> {
        let order = self.order(frame)?;
        let features = order.len();
        let by_text = self.by_text(frame, &order)?;
        let mut values = vec![0.0; frame.rows * features];
        for (feature, &column) in order.iter().enumerate() {
            let data = &frame.columns[column];
            let mapping = match &self.categories {
                Categories::Known(known) => known.get(&feature),
                Categories::Texts(_) => by_text.get(&feature).copied(),
            };
            let numbers = match (mapping, data) {
                (Some(mapping), column) => Cow::from(mapping.codes(column)),
                (None, Column::Numbers(numbers)) => Cow::from(numbers),
                (None, Column::Texts(texts)) if texts.iter().all(Option::is_none) => {
                    Cow::from(vec![f64::NAN; frame.rows])
                }
                (None, Column::Texts(_)) => {
                    let reason = "expected numbers, found texts: the model has no categories for \
                                  this feature"
                        .to_owned();
                    return Err(PredictError::Input { input: self.names[feature].clone(), reason });
                }
            };
            for (row, &number) in numbers.iter().enumerate() {
                values[row * features + feature] = number;
            }
        }
        Ok(values)
    }

    /// The frame's column of each feature.
    fn order(&self, frame: &Frame) -> Result<Vec<usize>, PredictError> {
        let by_position = || {
            self.check_width(frame.columns.len())?;
            Ok((0..frame.columns.len()).collect())
        };
        let Some(names) = &frame.names else { return by_position() };
        // In training, the library wrote `_` for the spaces of names.
        let mut known = HashMap::new();
        for (index, name) in names.iter().enumerate() {
            known.entry(name.split_whitespace().collect::<Vec<_>>().join("_")).or_insert(index);
            known.insert(name.to_string(), index);
        }
        let found = |name: &String| known.get(name).copied();
        if self.made_up && !self.names.iter().any(|name| known.contains_key(name)) {
            return by_position();
        }
        let missing: Vec<&str> =
            self.names.iter().filter(|name| found(name).is_none()).map(String::as_str).collect();
        if !missing.is_empty() {
            let reason = format!("columns are missing: {}", missing.join(", "));
            return Err(PredictError::Input { input: missing[0].to_owned(), reason });
        }
        Ok(self.names.iter().filter_map(found).collect())
    }

    /// The mappings of a request's text columns, where the file does not say whose they are.
    fn by_text(
        &self,
        frame: &Frame,
        order: &[usize],
    ) -> Result<HashMap<usize, &Mapping>, PredictError> {
        let Categories::Texts(mappings) = &self.categories else { return Ok(HashMap::new()) };
        let text = |feature: &usize| matches!(frame.columns[order[*feature]], Column::Texts(_));
        let texts: Vec<usize> = (0..order.len()).filter(text).collect();
        if texts.len() != mappings.len() {
            let (found, expected) = (texts.len(), mappings.len());
            return Err(PredictError::input(format!(
                "{found} columns of texts; the model has categories for {expected} columns and does \
                 not say which, so exactly these must be texts"
            )));
        }
        Ok(texts.into_iter().zip(mappings).collect())
    }
}

/// Whose the lists of `pandas_categorical` are: the categorical features', or those and the constant ones'.
fn categories(source: &Source) -> Result<Categories, Fault> {
    let mapping = |(index, list): (usize, &Vec<Value>)| {
        Mapping::new(&format!("pandas_categorical[{index}]"), list)
    };
    let mappings: Result<Vec<Mapping>, Fault> =
        source.categories.iter().enumerate().map(mapping).collect();
    let mappings = mappings?;
    if mappings.is_empty() {
        return Ok(Categories::Known(HashMap::new()));
    }
    let of = |wanted: &[Kind]| -> Vec<usize> {
        let kinds = source.kinds.iter().enumerate();
        kinds.filter(|(_, kind)| wanted.contains(kind)).map(|(feature, _)| feature).collect()
    };
    let certain = of(&[Kind::Category]);
    let possible = of(&[Kind::Category, Kind::Unknown]);
    let features = match mappings.len() {
        n if n == certain.len() => certain,
        n if n == possible.len() => possible,
        n if n > source.names.len() => {
            let reason = format!("{n} lists for {} features", source.names.len());
            return Err(Fault::corrupt("pandas_categorical", reason));
        }
        _ => return Ok(Categories::Texts(mappings)),
    };
    Ok(Categories::Known(features.into_iter().zip(mappings).collect()))
}

/// Whether some values count as zero without being it: looked at without a branch a value.
fn has_small(values: &[f64]) -> bool {
    let small = |any, value: &f64| any | ((value.abs() <= ZERO) & (value.to_bits() != 0));
    values.iter().fold(false, small)
}
