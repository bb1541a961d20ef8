//! `KBinsDiscretizer`: numbers as the number of their interval.

use crate::error::Fault;
use crate::model::PredictError;
use crate::pickle::Object;
use crate::steps::input::Nan;
use crate::steps::transform::{Transform, map, numeric, sparse_rows, transformer};
use crate::steps::{Builder, Estimator, Row};
use crate::table::Table;

pub(crate) static ESTIMATORS: &[Row] = &[Row { class: "KBinsDiscretizer", build }];

enum Encoding {
    Ordinal,
    OneHot,
    DenseOneHot,
}

struct Discretizer {
    /// The edges between the intervals of each column, ascending, without the outermost.
    edges: Vec<Vec<f64>>,
    encoding: Encoding,
    single: bool,
    double: bool,
}

fn build(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let wrong = || object.wrong("bin_edges_", "expected two edges or more for each column");
    let edges = |array: Option<Vec<f64>>| match array {
        Some(edges) if edges.len() >= 2 => Ok(edges[1..edges.len() - 1].to_vec()),
        _ => Err(wrong()),
    };
    let value = object.attribute("bin_edges_")?;
    let edges: Vec<Vec<f64>> = match value.as_array() {
        Some(_) => {
            let (_, columns, values) = object.matrix("bin_edges_")?;
            values
                .chunks(columns.max(1))
                .map(|row| edges(Some(row.to_vec())))
                .collect::<Result<_, _>>()?
        }
        None => {
            let columns = object.list("bin_edges_")?.into_iter();
            columns
                .map(|column| edges(column.as_array().and_then(|array| array.to_f64())))
                .collect::<Result<_, _>>()?
        }
    };
    let encoding = match object.str("encode")? {
        "ordinal" => Encoding::Ordinal,
        "onehot" => Encoding::OneHot,
        "onehot-dense" => Encoding::DenseOneHot,
        other => {
            let reason = format!("{other:?} is not known; onehot, onehot-dense and ordinal are");
            return Err(object.wrong("encode", reason));
        }
    };
    let single = super::encode::is_single(object);
    let double = object.some("dtype").is_some() && !single;
    let count = edges.len();
    transformer(object, Some(count), Discretizer { edges, encoding, single, double })
}

impl Transform for Discretizer {
    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        let x = numeric(x, Nan::Refuse)?;
        let x = match (self.single, self.double) {
            (true, _) => crate::table::Matrix::f32(x.rows, x.columns, x.to_f32().into_owned()),
            (_, true) => crate::table::Matrix::f64(x.rows, x.columns, x.to_f64().into_owned()),
            _ => x.into_owned(),
        };
        let bin =
            |column: usize, value: f64| self.edges[column].partition_point(|&edge| edge <= value);
        if matches!(self.encoding, Encoding::Ordinal) {
            return Ok(Table::Dense(map(&x, |column, value| bin(column, value) as f64)));
        }
        let values = x.to_f64();
        let row = |row: usize| {
            let mut offset = 0;
            let mut cells = Vec::with_capacity(x.columns);
            for (column, edges) in self.edges.iter().enumerate() {
                cells.push(((offset + bin(column, values[row * x.columns + column])) as u32, 1.0));
                offset += edges.len() + 1;
            }
            cells
        };
        let width = self.edges.iter().map(|edges| edges.len() + 1).sum();
        let sparse = sparse_rows(width, (0..x.rows).map(row));
        Ok(match self.encoding {
            Encoding::OneHot => Table::Sparse(sparse),
            _ => Table::Dense(x.like(x.rows, width, sparse.to_dense().to_f64().into_owned())),
        })
    }

    fn names(&self, input: Vec<String>) -> Option<Vec<String>> {
        if matches!(self.encoding, Encoding::Ordinal) {
            return Some(input);
        }
        let of = |(name, edges): (&String, &Vec<f64>)| {
            (0..=edges.len()).map(|bin| format!("{name}_{bin}.0")).collect::<Vec<_>>()
        };
        Some(input.iter().zip(&self.edges).flat_map(of).collect())
    }
}
