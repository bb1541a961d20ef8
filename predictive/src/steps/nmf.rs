//! Non-negative matrix factorisation: the weights of fixed components that explain each row.
//!
//! The library iterates over all rows of a call together and stops by a measure over all of them, so an answer to a row
//! depends a little on its neighbours: such models are never merged with other requests ([`JOINT`]).

use crate::array::Array;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::{Object, Value};
use crate::steps::numeric::{Answer, Base, Points, Rule, dot, matrix};
use crate::steps::twister::Twister;
use crate::steps::{Builder, Estimator, Row};

/// Classes whose answer to a row depends on the other rows of the call.
pub(crate) const JOINT: &[&str] = &["MiniBatchNMF", "NMF"];

/// Most iterations of a call: its time stays bounded whatever a file says.
const MAX_ITERATIONS: usize = 10_000;

/// What the library takes for nothing: the epsilon of single precision, also in double precision.
const EPSILON: f64 = f32::EPSILON as f64;

/// Fixed components, and how the weights are found.
struct Factors {
    /// `[count, columns]`, not negative.
    components: Vec<f64>,
    count: usize,
    columns: usize,
    /// Penalties of the weights.
    l1: f64,
    l2: f64,
    solver: Solver,
    iterations: usize,
    tolerance: f64,
    /// Negative values are refused.
    checked: bool,
}

enum Solver {
    /// Coordinate descent; with a seed, over the components in an order that is new in each iteration.
    Descent(Option<u32>),
    /// Multiplicative updates that stop by the divergence, looked at every tenth iteration.
    ByDivergence(Loss),
    /// Multiplicative updates that stop by the change of the weights.
    ByChange(Loss),
}

/// The beta divergence.
#[derive(Clone, Copy)]
struct Loss {
    beta: f64,
    /// Exponent of an update (Févotte and Idier 2011).
    gamma: f64,
}

impl Loss {
    fn read(object: Object<'_>) -> Result<Self, Fault> {
        let beta = match object.attribute("beta_loss")?.as_str() {
            Some("frobenius") => 2.0,
            Some("kullback-leibler") => 1.0,
            Some("itakura-saito") => 0.0,
            Some(other) => {
                let reason = format!(
                    "{other:?} is not known; frobenius, kullback-leibler, itakura-saito and \
                     numbers are"
                );
                return Err(object.wrong("beta_loss", reason));
            }
            None => object.f64("beta_loss")?,
        };
        let gamma = match beta {
            beta if beta < 1.0 => 1.0 / (2.0 - beta),
            beta if beta > 2.0 => 1.0 / (beta - 1.0),
            _ => 1.0,
        };
        Ok(Self { beta, gamma })
    }
}

impl Factors {
    fn component(&self, index: usize) -> &[f64] {
        &self.components[index * self.columns..][..self.columns]
    }

    /// `H . H'`, `[count, count]`.
    fn gram(&self) -> Vec<f64> {
        let row = |a| (0..self.count).map(move |b| dot(self.component(a), self.component(b)));
        (0..self.count).flat_map(row).collect()
    }

    fn descend(&self, seed: Option<u32>, x: &Points<'_>) -> Vec<f64> {
        let mut random = seed.map(Twister::new);
        let mut order: Vec<usize> = (0..self.count).collect();
        let mut gram = self.gram();
        gram.iter_mut().step_by(self.count + 1).for_each(|value| *value += self.l2);
        let mut products = x.products(&self.components, self.count);
        products.iter_mut().for_each(|value| *value -= self.l1);
        let mut weights = vec![0.0; products.len()];
        let mut first = None;
        for _ in 0..self.iterations {
            let mut violation = 0.0;
            if let Some(random) = &mut random {
                order = random.permutation(self.count);
            }
            let rows = weights.chunks_exact_mut(self.count).zip(products.chunks_exact(self.count));
            for (weights, products) in rows {
                for &t in &order {
                    let line = &gram[t * self.count..][..self.count];
                    let terms = line.iter().zip(&*weights).map(|(a, b)| a * b);
                    let gradient = terms.fold(-products[t], |sum, term| sum + term);
                    let projected = if weights[t] == 0.0 { gradient.min(0.0) } else { gradient };
                    violation += projected.abs();
                    if line[t] != 0.0 {
                        weights[t] = (weights[t] - gradient / line[t]).max(0.0);
                    }
                }
            }
            let first = *first.get_or_insert(violation);
            if first == 0.0 || violation / first <= self.tolerance {
                break;
            }
        }
        weights
    }

    /// Every weight equal, of the size of the rows.
    fn start(&self, x: &[f64]) -> Vec<f64> {
        let mean = x.iter().sum::<f64>() / x.len().max(1) as f64;
        vec![(mean / self.count as f64).sqrt(); x.len() / self.columns * self.count]
    }

    /// What the weights of one row stand for: `weights . H`.
    fn restored(&self, weights: &[f64]) -> Vec<f64> {
        let mut row = vec![0.0; self.columns];
        for (index, weight) in weights.iter().enumerate() {
            row.iter_mut().zip(self.component(index)).for_each(|(sum, part)| *sum += weight * part);
        }
        row
    }

    /// One multiplicative update of every row.
    fn update(&self, loss: Loss, gram: &[f64], x: &[f64], weights: &mut [f64]) {
        let rows = weights.chunks_exact_mut(self.count).zip(x.chunks_exact(self.columns));
        for (weights, x) in rows {
            let (numerators, mut denominators) = self.parts(loss, gram, x, weights);
            for (denominator, weight) in denominators.iter_mut().zip(&*weights) {
                *denominator += self.l1 + self.l2 * weight;
                if *denominator == 0.0 {
                    *denominator = EPSILON;
                }
            }
            for (index, weight) in weights.iter_mut().enumerate() {
                let ratio = numerators[index] / denominators[index];
                *weight *= if loss.gamma == 1.0 { ratio } else { ratio.powf(loss.gamma) };
            }
        }
    }

    /// Numerators and denominators of an update of one row.
    fn parts(&self, loss: Loss, gram: &[f64], x: &[f64], weights: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let against = |row: &[f64]| -> Vec<f64> {
            (0..self.count).map(|index| dot(row, self.component(index))).collect()
        };
        if loss.beta == 2.0 {
            let line = |index: usize| dot(&gram[index * self.count..][..self.count], weights);
            return (against(x), (0..self.count).map(line).collect());
        }
        let least = |value: f64, limited: bool| if limited { value.max(EPSILON) } else { value };
        let restored = self.restored(weights);
        let pull = |(&x, &value): (&f64, &f64)| {
            let value = least(value, loss.beta < 2.0);
            match loss.beta {
                1.0 => x / value,
                0.0 => (1.0 / value).powi(2) * x,
                beta => value.powf(beta - 2.0) * x,
            }
        };
        let numerators = against(&x.iter().zip(&restored).map(pull).collect::<Vec<_>>());
        if loss.beta == 1.0 {
            let sums = (0..self.count).map(|index| self.component(index).iter().sum());
            return (numerators, sums.collect());
        }
        let push = |&value: &f64| least(value, loss.beta < 1.0).powf(loss.beta - 1.0);
        (numerators, against(&restored.iter().map(push).collect::<Vec<_>>()))
    }

    /// The root of twice the divergence between the rows and what the weights stand for.
    fn divergence(&self, beta: f64, x: &[f64], weights: &[f64]) -> f64 {
        let rows = || x.chunks_exact(self.columns).zip(weights.chunks_exact(self.count));
        let sum = |term: &dyn Fn(f64, f64) -> f64| -> f64 {
            rows()
                .map(|(x, weights)| {
                    let restored = self.restored(weights);
                    x.iter().zip(&restored).map(|(&x, &value)| term(x, value)).sum::<f64>()
                })
                .sum()
        };
        // Values of almost nothing do not count, except where all restored values are summed.
        let counted = |x: f64| if x > EPSILON { 1.0 } else { 0.0 };
        let some = |term: &dyn Fn(f64, f64) -> f64| {
            sum(&|x, value| {
                if x > EPSILON { term(x, value.max(EPSILON)) } else { 0.0 }
            })
        };
        let result = if beta == 2.0 {
            sum(&|x, value| (x - value) * (x - value)) / 2.0
        } else if beta == 1.0 {
            some(&|x, value| x * (x / value).ln()) + sum(&|x, value| value - counted(x) * x)
        } else if beta == 0.0 {
            some(&|x, value| x / value) - x.len() as f64 - some(&|x, value| (x / value).ln())
        } else {
            let crossed = some(&|x, value| x * value.powf(beta - 1.0));
            let own = some(&|x, _| x.powf(beta));
            let all = sum(&|_, value| value.powf(beta));
            (own - beta * crossed + all * (beta - 1.0)) / (beta * (beta - 1.0))
        };
        (2.0 * result.max(0.0)).sqrt()
    }

    fn until_divergence(&self, loss: Loss, x: &[f64]) -> Vec<f64> {
        let (gram, mut weights) = (self.gram(), self.start(x));
        let first = self.divergence(loss.beta, x, &weights);
        let mut before = first;
        for iteration in 1..=self.iterations {
            self.update(loss, &gram, x, &mut weights);
            if loss.beta < 1.0 {
                let nothing = weights.iter_mut().filter(|weight| **weight < f64::EPSILON);
                nothing.for_each(|weight| *weight = 0.0);
            }
            if self.tolerance > 0.0 && iteration % 10 == 0 {
                let error = self.divergence(loss.beta, x, &weights);
                if (before - error) / first < self.tolerance {
                    break;
                }
                before = error;
            }
        }
        weights
    }

    fn until_change(&self, loss: Loss, x: &[f64]) -> Vec<f64> {
        let (gram, mut weights) = (self.gram(), self.start(x));
        for _ in 0..self.iterations {
            let before = weights.clone();
            self.update(loss, &gram, x, &mut weights);
            let square = |(new, old): (&f64, &f64)| (new - old) * (new - old);
            let change: f64 = weights.iter().zip(&before).map(square).sum();
            let change = change.sqrt() / dot(&weights, &weights).sqrt();
            if self.tolerance > 0.0 && change <= self.tolerance {
                break;
            }
        }
        weights
    }
}

impl Rule for Factors {
    fn transform(&self, base: &Base, x: &Points<'_>) -> Answer {
        let least = x.minimum();
        if self.checked && least < 0.0 {
            let reason = format!("Negative values in data passed to {} (input X)", base.name);
            return Err(PredictError::input(reason));
        }
        let weights = match self.solver {
            Solver::Descent(seed) => self.descend(seed, x),
            Solver::ByDivergence(loss) if loss.beta <= 0.0 && least == 0.0 => {
                return Err(PredictError::input(
                    "When beta_loss <= 0 and X contains zeros, the solver may diverge. Please add \
                     small values to X, or use a positive beta_loss.",
                ));
            }
            Solver::ByDivergence(loss) => self.until_divergence(loss, &x.dense()),
            Solver::ByChange(loss) => self.until_change(loss, &x.dense()),
        };
        Ok(Array::f64(vec![x.rows, self.count], weights))
    }
}

/// Penalties of the weights, L1 and L2.
fn penalties(object: Object<'_>, columns: usize) -> Result<(f64, f64), Fault> {
    let ratio = object.f64_or("l1_ratio", 0.0)?;
    let scaled = object.f64_or("alpha_W", 0.0)? * columns as f64;
    // To 1.1 there was one alpha, of both matrices or of one of them, and it was not scaled.
    let old = object.some("alpha").and_then(Value::as_f64).unwrap_or(0.0);
    let only = object.some("regularization").and_then(Value::as_str);
    let other = object.get("alpha_H").is_some_and(|alpha| alpha.as_str() != Some("same"));
    let alpha = match only {
        _ if scaled != 0.0 || other => scaled,
        None | Some("both" | "transformation") => old,
        Some(_) => 0.0,
    };
    Ok((alpha * ratio, alpha * (1.0 - ratio)))
}

/// The number from which the library draws its orders again at each call, of a model that shuffles.
fn seed(object: Object<'_>) -> Result<Option<u32>, Fault> {
    if object.get("shuffle").and_then(Value::as_bool) != Some(true) {
        return Ok(None);
    }
    let seed = object.some("random_state").and_then(Value::as_i64);
    let seed = seed.and_then(|seed| u32::try_from(seed).ok());
    seed.map(Some).ok_or_else(|| {
        Fault::unsupported(
            "NMF.shuffle: the library's answers differ from call to call without a whole number as random_state; \
             set shuffle to False, the components are the same",
        )
    })
}

fn build(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = Base::new(object, &[Method::Transform])?;
    let (count, columns, components) = matrix(object, "components_")?;
    base.columns(object, "components_", columns)?;
    base.precision(object, "components_");
    if count == 0 || components.iter().any(|value| value.is_nan() || *value < 0.0) {
        return Err(object.wrong("components_", "expected rows that are not negative"));
    }
    let batches = object.class == "MiniBatchNMF";
    let solver = match object.some("solver").and_then(Value::as_str) {
        _ if batches => Solver::ByChange(Loss::read(object)?),
        None | Some("cd") => Solver::Descent(seed(object)?),
        Some("mu") => Solver::ByDivergence(Loss::read(object)?),
        Some(other) => {
            return Err(object.wrong("solver", format!("{other:?} is not known; cd and mu are")));
        }
    };
    let own = object.some("transform_max_iter").is_some();
    let name = if own { "transform_max_iter" } else { "max_iter" };
    let iterations = object.usize(name)?;
    if iterations > MAX_ITERATIONS {
        let reason = format!("expected at most {MAX_ITERATIONS}, found {iterations}");
        return Err(object.wrong(name, reason));
    }
    let (l1, l2) = penalties(object, columns)?;
    let tolerance = object.f64("tol")?;
    let checked = !batches;
    Ok(base.with(Factors {
        components,
        count,
        columns,
        l1,
        l2,
        solver,
        iterations,
        tolerance,
        checked,
    }))
}

/// Non-negative factorisations.
pub(crate) static ESTIMATORS: &[Row] =
    &[Row { class: "MiniBatchNMF", build }, Row { class: "NMF", build }];
