//! Vectorisers of names and values: `HashingVectorizer`, `FeatureHasher`, `DictVectorizer`.

use std::collections::HashMap;
use std::sync::Arc;

use super::analyse::Analyzer;
use super::texts;
use super::vectorise::{Norm, vocabulary};
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::Object;
use crate::pool;
use crate::steps::transform::{sparse_rows, to_frame};
use crate::steps::{Builder, Estimator, InputSpec, OutputSpec};
use crate::table::{Column, Frame, Table};
use crate::tensor::DataType;

/// Where a name goes, by its hash.
struct Hasher {
    columns: u32,
    signed: bool,
}

impl Hasher {
    fn new(object: Object<'_>) -> Result<Self, Fault> {
        let columns = object.usize("n_features")?;
        let columns = i32::try_from(columns).ok().filter(|&columns| columns > 0);
        let wrong = || object.wrong("n_features", "expected 1 to 2147483647");
        let columns = columns.ok_or_else(wrong)?.unsigned_abs();
        Ok(Hasher { columns, signed: object.bool("alternate_sign")? })
    }

    /// The column of a name, and the sign of its values.
    fn place(&self, name: &str) -> (u32, f64) {
        let hash = murmur3(name.as_bytes());
        let sign = if self.signed && hash < 0 { -1.0 } else { 1.0 };
        (hash.unsigned_abs() % self.columns, sign)
    }
}

/// MurmurHash3 of 32 bits, seed 0, as a signed number.
fn murmur3(bytes: &[u8]) -> i32 {
    let scramble =
        |block: u32| block.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let mut hash = 0u32;
    let (blocks, tail) = bytes.as_chunks::<4>();
    for block in blocks {
        hash ^= scramble(u32::from_le_bytes(*block));
        hash = hash.rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    let rest = tail.iter().rev().fold(0u32, |rest, &byte| rest << 8 | u32::from(byte));
    if !tail.is_empty() {
        hash ^= scramble(rest);
    }
    hash ^= bytes.len() as u32;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    (hash ^ hash >> 16) as i32
}

/// Cells in order of their columns, those of one column added up.
fn summed(mut cells: Vec<(u32, f64)>) -> Vec<(u32, f64)> {
    cells.sort_by_key(|&(column, _)| column);
    cells.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 += next.1;
        }
        same
    });
    cells
}

struct HashingVectorizer {
    input: InputSpec,
    analyzer: Analyzer,
    hasher: Hasher,
    binary: bool,
    norm: Option<Norm>,
}

impl Estimator for HashingVectorizer {
    fn name(&self) -> String {
        "HashingVectorizer".into()
    }

    fn input(&self) -> &InputSpec {
        &self.input
    }

    fn methods(&self) -> &[Method] {
        &[Method::Transform]
    }

    fn output_specs(&self, _: Method) -> Vec<OutputSpec> {
        vec![OutputSpec::columns(DataType::Fp64, self.hasher.columns as usize)]
    }

    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        let row = |text: &Arc<str>| {
            let mut cells = Vec::new();
            self.analyzer.tokens(text, |token| cells.push(self.hasher.place(token)));
            let mut cells = summed(cells);
            if self.binary {
                cells.iter_mut().for_each(|(_, value)| *value = 1.0);
            }
            if let Some(norm) = self.norm {
                norm.divide(&mut cells);
            }
            cells
        };
        let texts = texts(x)?;
        let rows = pool::map(&texts, row);
        Ok(Table::Sparse(sparse_rows(self.hasher.columns as usize, rows.into_iter())))
    }
}

/// `HashingVectorizer`.
pub(super) fn vectorizer(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    Ok(Box::new(HashingVectorizer {
        input: InputSpec { columns: Some(1), texts: true, ..InputSpec::default() },
        analyzer: Analyzer::new(object)?,
        hasher: Hasher::new(object)?,
        binary: object.bool("binary")?,
        norm: Norm::of(object)?,
    }))
}

/// Rows that are dictionaries in the library: names of columns and their values here.
struct Dictionaries {
    class: String,
    input: InputSpec,
    places: Places,
    separator: String,
    sparse: bool,
}

enum Places {
    Hashed(Hasher),
    Known(HashMap<Arc<str>, u32>),
}

impl Dictionaries {
    fn width(&self) -> usize {
        match &self.places {
            Places::Hashed(hasher) => hasher.columns as usize,
            Places::Known(known) => known.len(),
        }
    }

    /// The cell of a name and value, if it has one.
    fn cell(&self, name: &str, value: f64) -> Option<(u32, f64)> {
        match &self.places {
            Places::Hashed(_) if value == 0.0 => None,
            Places::Hashed(hasher) => {
                let (column, sign) = hasher.place(name);
                Some((column, sign * value))
            }
            Places::Known(known) => known.get(name).map(|&column| (column, value)),
        }
    }

    fn row(&self, frame: &Frame, names: &[Arc<str>], row: usize) -> Vec<(u32, f64)> {
        let cells = frame.columns.iter().zip(names).filter_map(|(column, name)| match column {
            Column::Numbers(values) => self.cell(name, values[row]),
            Column::Texts(texts) => match &texts[row] {
                Some(text) => self.cell(&format!("{name}{}{text}", self.separator), 1.0),
                None => self.cell(name, f64::NAN),
            },
        });
        summed(cells.collect())
    }
}

impl Estimator for Dictionaries {
    fn name(&self) -> String {
        self.class.clone()
    }

    fn input(&self) -> &InputSpec {
        &self.input
    }

    fn methods(&self) -> &[Method] {
        &[Method::Transform]
    }

    fn output_specs(&self, _: Method) -> Vec<OutputSpec> {
        vec![OutputSpec::columns(DataType::Fp64, self.width())]
    }

    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        let Table::Frame(frame @ Frame { names: Some(names), .. }) = x else {
            let reason = format!("{} reads named columns, one tensor each", self.class);
            return Err(PredictError::input(reason));
        };
        let rows = (0..frame.rows).map(|row| self.row(frame, names, row));
        let sparse = sparse_rows(self.width(), rows);
        Ok(if self.sparse { Table::Sparse(sparse) } else { Table::Dense(sparse.to_dense()) })
    }

    fn output_names(&self) -> Option<Vec<String>> {
        let Places::Known(known) = &self.places else { return None };
        let mut names = vec![String::new(); known.len()];
        known.iter().for_each(|(name, &at)| names[at as usize] = name.to_string());
        Some(names)
    }
}

/// Rows that are lists of names in the library: tables of texts here, as wide as the longest list; absent cells are
/// none.
struct Names {
    input: InputSpec,
    hasher: Hasher,
}

impl Estimator for Names {
    fn name(&self) -> String {
        "FeatureHasher".into()
    }

    fn input(&self) -> &InputSpec {
        &self.input
    }

    fn methods(&self) -> &[Method] {
        &[Method::Transform]
    }

    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        let frame = to_frame(x);
        let row = |row: usize| {
            let cells = frame.columns.iter().filter_map(|column| match column {
                Column::Texts(texts) => {
                    texts[row].as_deref().map(|name| Ok(self.hasher.place(name)))
                }
                Column::Numbers(values) if values[row].is_nan() => None,
                Column::Numbers(_) => {
                    Some(Err(PredictError::input("FeatureHasher reads names, which are texts")))
                }
            });
            cells.collect::<Result<_, _>>().map(summed)
        };
        let rows: Vec<_> = (0..frame.rows).map(row).collect::<Result<_, _>>()?;
        Ok(Table::Sparse(sparse_rows(self.hasher.columns as usize, rows.into_iter())))
    }
}

/// `FeatureHasher`: of dictionaries or pairs, which are names with a value each, or of names alone.
pub(super) fn hasher(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    match object.str("input_type")? {
        "dict" | "pair" => {}
        "string" => {
            let (input, hasher) = (InputSpec::default(), Hasher::new(object)?);
            return Ok(Box::new(Names { input, hasher }));
        }
        other => {
            let reason = format!("{other:?} is not known; dict, pair and string are");
            return Err(object.wrong("input_type", reason));
        }
    }
    Ok(Box::new(Dictionaries {
        class: object.class.to_owned(),
        input: InputSpec::default(),
        places: Places::Hashed(Hasher::new(object)?),
        separator: "=".into(),
        sparse: true,
    }))
}

/// `DictVectorizer`.
pub(super) fn dictionary(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    Ok(Box::new(Dictionaries {
        class: object.class.to_owned(),
        input: InputSpec::default(),
        places: Places::Known(vocabulary(object)?),
        separator: object.str("separator")?.to_owned(),
        sparse: object.bool("sparse")?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_the_published_ones() {
        for (text, wanted) in
            [("", 0), ("a", 0x3c25_69b2), ("test", 0xba6b_d213_u32), ("hello", 0x248b_fa47)]
        {
            assert_eq!(murmur3(text.as_bytes()) as u32, wanted, "{text}");
        }
    }
}
