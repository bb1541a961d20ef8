//! `PolynomialFeatures`: products of columns.

use crate::error::Fault;
use crate::model::PredictError;
use crate::pickle::Object;
use crate::steps::input::Nan;
use crate::steps::transform::{Transform, numeric, to_sparse, transformer};
use crate::steps::{Builder, Estimator, Row};
use crate::table::Table;

pub(crate) static ESTIMATORS: &[Row] = &[Row { class: "PolynomialFeatures", build }];

/// Most terms that a file may ask for.
const MAX_TERMS: usize = 1 << 20;

struct Polynomial {
    bias: bool,
    /// Each term is a column times an earlier term, or a column alone.
    terms: Vec<Term>,
    /// Terms before it are of too low a degree to be answered.
    first: usize,
}

fn build(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let columns = object.usize("n_features_in_")?;
    let range = object.attribute("degree")?;
    let (least, most) = match range.as_usize() {
        Some(most) => (0, most),
        None => {
            let range = object.vector("degree", Some(2))?;
            (range[0] as usize, range[1] as usize)
        }
    };
    let interactions = object.bool("interaction_only")?;
    let (terms, first) = terms(columns, least, most, interactions)
        .ok_or_else(|| object.wrong("degree", format!("asks for more than {MAX_TERMS} terms")))?;
    let bias = object.bool("include_bias")?;
    transformer(object, Some(columns), Polynomial { bias, terms, first })
}

/// A column, and the earlier term it is multiplied with.
type Term = (usize, Option<usize>);

/// Terms by degree, then by columns in order, as the library computes them; `None` when there are too many.
fn terms(
    columns: usize,
    least: usize,
    most: usize,
    interactions: bool,
) -> Option<(Vec<Term>, usize)> {
    if columns > MAX_TERMS {
        return None;
    }
    let mut terms: Vec<Term> = Vec::new();
    let mut first = 0;
    if most >= 1 {
        terms.extend((0..columns).map(|column| (column, None)));
        first = if least > 1 { terms.len() } else { 0 };
    }
    // Where the terms of the degree before start whose first column is this one, and their end.
    let mut starts: Vec<usize> = (0..=terms.len()).collect();
    for degree in 2..=most.min(MAX_TERMS) {
        let end = terms.len();
        let mut next = Vec::with_capacity(columns + 1);
        for column in 0..columns {
            next.push(terms.len());
            let start = starts[column + usize::from(interactions)];
            if terms.len() + (end - start) > MAX_TERMS {
                return None;
            }
            terms.extend((start..end).map(|term| (column, Some(term))));
        }
        next.push(terms.len());
        starts = next;
        if degree < least {
            first = terms.len();
        }
        if terms.len() == end {
            break;
        }
    }
    Some((terms, first))
}

impl Transform for Polynomial {
    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        let matrix = numeric(x, Nan::Refuse)?;
        let single = matrix.is_single();
        let values = matrix.to_f64();
        let width = self.terms.len() - self.first + usize::from(self.bias);
        let mut answer = Vec::with_capacity(matrix.rows * width);
        let mut products = vec![0.0; self.terms.len()];
        for row in 0..matrix.rows {
            let row = &values[row * matrix.columns..(row + 1) * matrix.columns];
            for (at, &(column, before)) in self.terms.iter().enumerate() {
                let product = before.map_or(row[column], |before| products[before] * row[column]);
                products[at] = if single { f64::from(product as f32) } else { product };
            }
            answer.extend(self.bias.then_some(1.0));
            answer.extend_from_slice(&products[self.first..]);
        }
        let answer = matrix.like(matrix.rows, width, answer);
        Ok(match x {
            Table::Sparse(_) => Table::Sparse(to_sparse(&answer)),
            _ => Table::Dense(answer),
        })
    }

    fn names(&self, input: Vec<String>) -> Option<Vec<String>> {
        let name = |term: usize| {
            let mut powers: Vec<(usize, usize)> = Vec::new();
            let mut next = Some(term);
            while let Some(term) = next {
                let (column, before) = self.terms[term];
                match powers.last_mut() {
                    Some((last, power)) if *last == column => *power += 1,
                    _ => powers.push((column, 1)),
                }
                next = before;
            }
            let power = |&(column, power): &(usize, usize)| match power {
                1 => input[column].clone(),
                power => format!("{}^{power}", input[column]),
            };
            powers.iter().map(power).collect::<Vec<_>>().join(" ")
        };
        let bias = self.bias.then(|| "1".to_owned());
        Some(bias.into_iter().chain((self.first..self.terms.len()).map(name)).collect())
    }
}
