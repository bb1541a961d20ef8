//! Latent Dirichlet allocation: topics of documents by variational inference (Hoffman, Blei and Bach 2010).

use crate::array::Array;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::Object;
use crate::steps::numeric::{Answer, Base, Points, Rule, dot, matrix, transposed};
use crate::steps::{Builder, Estimator, Row, math};

/// Most iterations per document: the time of a request stays bounded whatever a file says.
const MAX_ITERATIONS: usize = 10_000;

struct Topics {
    topics: usize,
    /// `exp(E[log beta])`, `[words, topics]`.
    words: Vec<f64>,
    prior: f64,
    iterations: usize,
    tolerance: f64,
}

/// Digamma as the library approximates it here: to about 1e-9, and the iteration stops by its values.
fn psi(mut x: f64) -> f64 {
    const EULER: f64 = 0.577_215_664_901_532_9;
    if x <= 1e-6 {
        return -EULER - 1.0 / x;
    }
    let mut result = 0.0;
    while x < 6.0 {
        result -= 1.0 / x;
        x += 1.0;
    }
    let inverse = 1.0 / x;
    result += x.ln() - 0.5 * inverse;
    let square = inverse * inverse;
    result - square * (1.0 / 12.0 - square * (1.0 / 120.0 - square * (1.0 / 252.0)))
}

fn expectations(shares: &[f64]) -> Vec<f64> {
    let total = psi(shares.iter().sum());
    shares.iter().map(|&share| (psi(share) - total).exp()).collect()
}

impl Topics {
    fn infer(&self, row: &[f64], answer: &mut [f64]) {
        let words: Vec<(&[f64], f64)> = (row.iter().enumerate())
            .filter(|(_, count)| **count != 0.0)
            .map(|(word, &count)| (&self.words[word * self.topics..][..self.topics], count))
            .collect();
        let mut shares = vec![1.0; self.topics];
        let mut expected = expectations(&shares);
        for _ in 0..self.iterations {
            let mut next = vec![0.0; self.topics];
            for (word, count) in &words {
                let weight = count / (dot(&expected, word) + f64::EPSILON);
                next.iter_mut().zip(*word).for_each(|(next, word)| *next += weight * word);
            }
            for (next, expected) in next.iter_mut().zip(&expected) {
                *next = *next * expected + self.prior;
            }
            expected = expectations(&next);
            let change: f64 = shares.iter().zip(&next).map(|(old, new)| (old - new).abs()).sum();
            shares = next;
            if change / (self.topics as f64) < self.tolerance {
                break;
            }
        }
        math::normalise(&mut shares);
        answer.copy_from_slice(&shares);
    }
}

impl Rule for Topics {
    fn transform(&self, _: &Base, x: &Points<'_>) -> Answer {
        if x.minimum() < 0.0 {
            return Err(PredictError::input(
                "Negative values in data passed to LatentDirichletAllocation.transform",
            ));
        }
        let values = x.map(self.topics, |row, answer| self.infer(row, answer));
        Ok(Array::f64(vec![x.rows, self.topics], values))
    }
}

fn topics(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = Base::new(object, &[Method::Transform])?;
    let name = "exp_dirichlet_component_";
    let (topics, columns, words) = matrix(object, name)?;
    base.columns(object, name, columns)?;
    base.precision(object, "exp_dirichlet_component_");
    if topics == 0 {
        return Err(object.wrong(name, "has no row"));
    }
    let iterations = object.usize("max_doc_update_iter")?;
    if iterations > MAX_ITERATIONS {
        let reason = format!("expected at most {MAX_ITERATIONS}, found {iterations}");
        return Err(object.wrong("max_doc_update_iter", reason));
    }
    let prior = object.f64("doc_topic_prior_")?;
    let tolerance = object.f64("mean_change_tol")?;
    let words = transposed(topics, columns, &words);
    Ok(base.with(Topics { topics, words, prior, iterations, tolerance }))
}

/// Topic models.
pub(crate) static ESTIMATORS: &[Row] = &[Row { class: "LatentDirichletAllocation", build: topics }];
