//! Categories of encoders: numbers, texts, `None` and NaN, and which one a cell is.

use std::collections::HashMap;
use std::sync::Arc;

use crate::array::Values;
use crate::error::Fault;
use crate::model::PredictError;
use crate::pickle::{Object, Value};
use crate::steps::transform::to_frame;
use crate::table::{Column, Frame, Table};

/// The categories of one column, in the order of their codes.
#[derive(Default)]
pub(super) struct Categories {
    /// As Python prints them, one behind the other, and where each ends: there may be millions.
    names: String,
    ends: Vec<usize>,
    numbers: HashMap<u64, usize>,
    texts: HashMap<Arc<str>, usize>,
    none: Option<usize>,
    nan: Option<usize>,
}

/// Bytes of a category: its name, its code and how it is found.
const CATEGORY: usize = 64;

/// Bits that are equal for equal numbers.
fn bits(number: f64) -> u64 {
    (number + 0.0).to_bits()
}

impl Categories {
    /// The categories of an array or list.
    ///
    /// # Errors
    /// When one is neither number, text nor missing.
    pub(super) fn new(object: Object<'_>, name: &str, value: Value<'_>) -> Result<Self, Fault> {
        let mut categories = Categories::default();
        let count = value.shape().map_or(0, |shape| shape.iter().product());
        if !value.pays(count * CATEGORY) {
            object.pay()?;
        }
        categories.ends.reserve_exact(count);
        if let Some(array) = value.as_array() {
            let boolean = array.dtype() == crate::tensor::DataType::Bool;
            match array.values() {
                Values::Text(texts) => texts.iter().for_each(|text| categories.text(text)),
                Values::Int(values) => values.iter().for_each(|&value| match boolean {
                    true => categories.boolean(value != 0),
                    false => categories.number(value as f64, value.to_string()),
                }),
                Values::F32(values) => {
                    values
                        .iter()
                        .for_each(|&value| categories.number(value.into(), format!("{value:?}")));
                }
                Values::F64(values) => {
                    values.iter().for_each(|&value| categories.number(value, format!("{value:?}")));
                }
            }
            return Ok(categories);
        }
        let wrong = |found: Value<'_>| {
            let reason = format!("expected numbers or texts, found {}", found.describe());
            object.wrong(name, reason)
        };
        for item in value.as_list().ok_or_else(|| wrong(value))? {
            if let Some(text) = item.as_str() {
                categories.text(text);
            } else if item.is_none() {
                categories.none = Some(categories.name("None"));
            } else if let crate::pickle::Node::Bool(value) = item.node() {
                categories.boolean(*value);
            } else {
                let name = match item.as_i64() {
                    Some(integer) => integer.to_string(),
                    None => format!("{:?}", item.as_f64().unwrap_or(f64::NAN)),
                };
                categories.number(item.as_f64().ok_or_else(|| wrong(item))?, name);
            }
        }
        Ok(categories)
    }

    fn text(&mut self, text: impl AsRef<str>) {
        let text = text.as_ref();
        let code = self.name(text);
        self.texts.insert(text.into(), code);
    }

    fn boolean(&mut self, value: bool) {
        self.number(f64::from(u8::from(value)), if value { "True" } else { "False" }.into());
    }

    fn number(&mut self, number: f64, name: String) {
        match number.is_nan() {
            true => self.nan = Some(self.name("nan")),
            false => {
                let code = self.name(&name);
                self.numbers.insert(bits(number), code);
            }
        }
    }

    /// Whether texts are among them.
    pub(super) fn has_texts(&self) -> bool {
        !self.texts.is_empty()
    }

    /// Adds a name and gives its code.
    fn name(&mut self, name: &str) -> usize {
        self.names.push_str(name);
        self.ends.push(self.names.len());
        self.len() - 1
    }

    /// A category as Python prints it.
    pub(super) fn shown(&self, code: usize) -> &str {
        let start = code.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.names[start..self.ends[code]]
    }

    /// Every category as Python prints it.
    pub(super) fn names(&self) -> Vec<String> {
        (0..self.len()).map(|code| self.shown(code).to_owned()).collect()
    }

    /// Number of categories.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The code of NaN, if it is a category; `None` is a category like others.
    pub(super) fn nan(&self) -> Option<usize> {
        self.nan
    }

    /// The code of a number that came as text, as all numbers of a row do when one of its cells is a text.
    fn read(&self, text: &str) -> Option<usize> {
        if self.numbers.is_empty() {
            return None;
        }
        let number: f64 = text.trim().parse().ok()?;
        self.numbers.get(&bits(number)).copied()
    }

    /// The code of one cell; `None` when it is unknown.
    pub(super) fn code(&self, column: &Column, row: usize) -> Option<usize> {
        match column {
            Column::Numbers(values) if values[row].is_nan() => self.nan.or(self.none),
            Column::Numbers(values) => self.numbers.get(&bits(values[row])).copied(),
            Column::Texts(values) => match &values[row] {
                Some(text) => self.texts.get(text.as_ref()).copied().or_else(|| self.read(text)),
                None => self.none.or(self.nan),
            },
        }
    }
}

/// The categories of every column (`categories_`).
pub(super) fn all(object: Object<'_>) -> Result<Vec<Categories>, Fault> {
    let list = object.list("categories_")?;
    list.into_iter().map(|value| Categories::new(object, "categories_", value)).collect()
}

/// A cell as messages show it.
pub(super) fn shown(column: &Column, row: usize) -> String {
    match column {
        Column::Numbers(values) => format!("{:?}", values[row]),
        Column::Texts(values) => match &values[row] {
            Some(text) => format!("{text:?}"),
            None => "None".into(),
        },
    }
}

/// The refusal of a cell that is no known category.
pub(super) fn unknown(frame: &Frame, column: usize, row: usize) -> PredictError {
    let name = match &frame.names {
        Some(names) => format!("{:?}", names[column]),
        None => column.to_string(),
    };
    let cell = shown(&frame.columns[column], row);
    PredictError::input(format!(
        "Found unknown categories [{cell}] in column {name} during transform"
    ))
}

/// The codes of all cells, row-major; `None` where unknown.
pub(super) fn codes(x: &Table, categories: &[Categories]) -> (usize, Vec<Option<usize>>) {
    let frame = to_frame(x);
    let row = |row: usize| {
        let pairs = categories.iter().zip(&frame.columns);
        pairs.map(move |(known, column)| known.code(column, row)).collect::<Vec<_>>()
    };
    (frame.rows, (0..frame.rows).flat_map(row).collect())
}
