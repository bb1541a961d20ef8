//! `CountVectorizer`, `TfidfVectorizer` and `TfidfTransformer`.

use std::collections::HashMap;
use std::sync::Arc;

use super::analyse::Analyzer;
use super::texts;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::Object;
use crate::pool;
use crate::steps::input::Nan;
use crate::steps::transform::{Transform, numeric, sparse_rows, to_sparse, transformer};
use crate::steps::{Builder, Estimator, InputSpec};
use crate::table::{Sparse, Table};

/// Counts of known tokens, weighted where there are weights.
struct Vectorizer {
    class: String,
    input: InputSpec,
    analyzer: Analyzer,
    vocabulary: HashMap<Arc<str>, u32>,
    binary: bool,
    weights: Option<Weights>,
}

/// How counts become tf-idf.
struct Weights {
    sublinear: bool,
    idf: Option<Vec<f64>>,
    norm: Option<Norm>,
}

/// What rows are divided by.
#[derive(Clone, Copy)]
pub(super) enum Norm {
    L1,
    L2,
    Max,
}

impl Norm {
    /// The `norm` parameter.
    ///
    /// # Errors
    /// When it is not known.
    pub(super) fn of(object: Object<'_>) -> Result<Option<Norm>, Fault> {
        match object.some("norm").map(|norm| norm.as_str()) {
            None => Ok(None),
            Some(Some("l1")) => Ok(Some(Norm::L1)),
            Some(Some("l2")) => Ok(Some(Norm::L2)),
            Some(Some("max")) => Ok(Some(Norm::Max)),
            Some(_) => Err(object.wrong("norm", "expected l1, l2, max or None")),
        }
    }

    /// Divides a row by its norm; rows of zeros stay.
    pub(super) fn divide(self, row: &mut [(u32, f64)]) {
        let values = row.iter().map(|&(_, value)| value);
        let norm = match self {
            Norm::L1 => values.map(f64::abs).sum(),
            Norm::L2 => values.map(|value| value * value).sum::<f64>().sqrt(),
            Norm::Max => values.map(f64::abs).fold(0.0, f64::max),
        };
        if norm > 0.0 {
            row.iter_mut().for_each(|(_, value)| *value /= norm);
        }
    }
}

impl Weights {
    fn new(object: Object<'_>, columns: Option<usize>) -> Result<Self, Fault> {
        let idf = match object.bool("use_idf")? {
            false => None,
            true => Some(match object.some("idf_") {
                Some(_) => object.vector("idf_", columns)?,
                // Until 1.4 the weights were the diagonal of a sparse matrix.
                None => object.object("_idf_diag")?.vector("data", columns)?,
            }),
        };
        Ok(Weights { sublinear: object.bool("sublinear_tf")?, idf, norm: Norm::of(object)? })
    }

    fn weigh(&self, row: &mut [(u32, f64)]) {
        for (column, value) in row.iter_mut() {
            if self.sublinear {
                *value = value.ln() + 1.0;
            }
            if let Some(idf) = &self.idf {
                *value *= idf[*column as usize];
            }
        }
        if let Some(norm) = self.norm {
            norm.divide(row);
        }
    }
}

impl Vectorizer {
    fn row(&self, text: &str) -> Vec<(u32, f64)> {
        let mut found = Vec::new();
        self.analyzer.tokens(text, |token| found.extend(self.vocabulary.get(token).copied()));
        found.sort_unstable();
        let mut row: Vec<(u32, f64)> = Vec::new();
        for column in found {
            match row.last_mut() {
                Some((last, count)) if *last == column => {
                    *count = if self.binary { 1.0 } else { *count + 1.0 };
                }
                _ => row.push((column, 1.0)),
            }
        }
        if let Some(weights) = &self.weights {
            weights.weigh(&mut row);
        }
        row
    }
}

impl Estimator for Vectorizer {
    fn name(&self) -> String {
        self.class.clone()
    }

    fn input(&self) -> &InputSpec {
        &self.input
    }

    fn methods(&self) -> &[Method] {
        &[Method::Transform]
    }

    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        let texts = texts(x)?;
        let rows = pool::map(&texts, |text| self.row(text));
        Ok(Table::Sparse(sparse_rows(self.vocabulary.len(), rows.into_iter())))
    }

    fn output_names(&self) -> Option<Vec<String>> {
        let mut names = vec![String::new(); self.vocabulary.len()];
        for (name, &at) in &self.vocabulary {
            names[at as usize] = name.to_string();
        }
        Some(names)
    }
}

/// Tokens and their columns, which are the numbers from 0 on.
pub(super) fn vocabulary(object: Object<'_>) -> Result<HashMap<Arc<str>, u32>, Fault> {
    let name = if object.some("vocabulary_").is_some() { "vocabulary_" } else { "vocabulary" };
    let value = object.attribute(name)?;
    let wrong = |reason: String| object.wrong(name, reason);
    let entries = value
        .as_dict()
        .ok_or_else(|| wrong(format!("expected a dictionary, found {}", value.describe())))?;
    let mut seen = vec![false; entries.len()];
    let mut vocabulary = HashMap::with_capacity(entries.len());
    for (token, column) in entries {
        let token = token.as_str().ok_or_else(|| wrong("expected texts as keys".into()))?;
        let place = column.as_usize().and_then(|column| seen.get_mut(column));
        let Some(place) = place.filter(|seen| !**seen) else {
            let reason = format!("{token:?}: {} is not a column of its own", column.describe());
            return Err(wrong(reason));
        };
        *place = true;
        vocabulary.insert(Arc::from(token), column.as_usize().unwrap_or_default() as u32);
    }
    Ok(vocabulary)
}

fn vectorizer(object: Object<'_>, weighted: bool) -> Result<Box<dyn Estimator>, Fault> {
    let vocabulary = vocabulary(object)?;
    let weights = match weighted {
        true => Some(Weights::new(object.object("_tfidf")?, Some(vocabulary.len()))?),
        false => None,
    };
    Ok(Box::new(Vectorizer {
        class: object.class.to_owned(),
        input: InputSpec { columns: Some(1), texts: true, ..InputSpec::default() },
        analyzer: Analyzer::new(object)?,
        vocabulary,
        binary: object.bool("binary")?,
        weights,
    }))
}

/// `CountVectorizer`.
pub(super) fn count(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    vectorizer(object, false)
}

/// `TfidfVectorizer`.
pub(super) fn tfidf(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    vectorizer(object, true)
}

impl Transform for Weights {
    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        let owned;
        let sparse: &Sparse = match x {
            Table::Sparse(sparse) => sparse,
            other => {
                owned = to_sparse(&*numeric(other, Nan::Refuse)?);
                &owned
            }
        };
        let row = |row: usize| {
            let mut cells: Vec<_> =
                sparse.row(row).map(|(column, value)| (column as u32, value)).collect();
            self.weigh(&mut cells);
            cells
        };
        Ok(Table::Sparse(sparse_rows(sparse.columns, (0..sparse.rows).map(row))))
    }
}

/// `TfidfTransformer`.
pub(super) fn weights(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let weights = Weights::new(object, None)?;
    let columns = weights.idf.as_ref().map(Vec::len);
    transformer(object, columns, weights)
}
