//! Sparse codes of rows over a fixed dictionary: `SparseCoder`, `DictionaryLearning`, `MiniBatchDictionaryLearning`.
//!
//! Orthogonal matching pursuit, least angles and coordinate descent take the library's steps. `lasso_lars` answers the optimum
//! that its path ends at, found by descent and then solved for exactly on the atoms in use.

use crate::array::Array;
use crate::error::Fault;
use crate::model::Method;
use crate::pickle::{Object, Value};
use crate::steps::decomposition::solve;
use crate::steps::least_angle::least_angle;
use crate::steps::numeric::{Answer, Base, Points, Rule, dot, matrix};
use crate::steps::{Builder, Estimator, Row};

/// Most sweeps of a descent: the time of a row stays bounded whatever a file says.
const MAX_SWEEPS: usize = 100_000;

/// Most atoms of a dictionary: their products are kept, and this is 512 MiB of them.
const MAX_ATOMS: usize = 8192;

/// How codes are found.
enum Algorithm {
    /// Orthogonal matching pursuit of this many atoms.
    Pursuit(usize),
    /// So many steps of least angle regression.
    Angles(usize),
    /// Products with the atoms, shrunk by this much.
    Threshold(f64),
    /// Least squares with this penalty of absolute values.
    Lasso { penalty: f64, descent: Descent, exact: bool },
}

/// How coordinate descent stops.
struct Descent {
    sweeps: usize,
    tolerance: f64,
    /// Atoms that the duality gap proves useless are left out (from 1.8 on).
    screening: bool,
}

struct Coder {
    /// `[count, columns]`.
    atoms: Vec<f64>,
    count: usize,
    /// Products of atoms, `[count, count]`; empty where no algorithm needs them.
    gram: Vec<f64>,
    algorithm: Algorithm,
    positive: bool,
    /// Positive and negative parts are answered side by side.
    split: bool,
}

impl Coder {
    fn gram(&self, a: usize, b: usize) -> f64 {
        self.gram[a * self.count + b]
    }

    /// The code of a row with these products with the atoms.
    fn code(&self, row: &[f64], products: &[f64]) -> Vec<f64> {
        match &self.algorithm {
            Algorithm::Pursuit(atoms) => self.pursue(*atoms, products),
            Algorithm::Angles(steps) => least_angle(&self.gram, products, row.len(), *steps),
            Algorithm::Threshold(least) => {
                let shrunk = |&value: &f64| shrink(value, *least, self.positive);
                products.iter().map(shrunk).collect()
            }
            Algorithm::Lasso { penalty, descent, exact } => {
                let weights = self.descend(*penalty, descent, products, dot(row, row));
                if *exact { self.polished(*penalty, products, weights) } else { weights }
            }
        }
    }

    /// Adds the atom most like what is left, and fits those chosen by a growing Cholesky factor.
    fn pursue(&self, atoms: usize, products: &[f64]) -> Vec<f64> {
        let mut order: Vec<usize> = (0..self.count).collect();
        let mut left = products.to_vec();
        // Rows of the lower factor, and the fit of the atoms chosen.
        let mut factor: Vec<Vec<f64>> = Vec::new();
        let mut fit: Vec<f64> = Vec::new();
        while factor.len() < atoms {
            let active = factor.len();
            // `left` follows `order`: chosen atoms stand first.
            let chosen = (0..left.len()).fold(0, |best, index| {
                if left[index].abs() > left[best].abs() { index } else { best }
            });
            if chosen < active || left[chosen] * left[chosen] < f64::EPSILON {
                break;
            }
            let atom = order[chosen];
            let mut line: Vec<f64> = Vec::with_capacity(active + 1);
            for (at, above) in factor.iter().enumerate() {
                let solved = dot(&above[..at], &line);
                line.push((self.gram(atom, order[at]) - solved) / above[at]);
            }
            let rest = self.gram(atom, atom) - dot(&line, &line);
            if active > 0 && rest <= f64::EPSILON {
                break;
            }
            line.push(rest.sqrt());
            factor.push(line);
            order.swap(active, chosen);
            fit = fitted(&factor, order[..=active].iter().map(|&atom| products[atom]));
            for (left, &atom) in left.iter_mut().zip(&order) {
                let terms =
                    order.iter().zip(&fit).map(|(&other, fit)| self.gram(atom, other) * fit);
                *left = products[atom] - terms.sum::<f64>();
            }
        }
        let mut code = vec![0.0; self.count];
        order.iter().zip(fit).for_each(|(&atom, fit)| code[atom] = fit);
        code
    }

    /// Cyclic coordinate descent with the library's stopping rule; `square` is the squared length of the row.
    fn descend(&self, penalty: f64, descent: &Descent, products: &[f64], square: f64) -> Vec<f64> {
        let mut state = State { weights: vec![0.0; self.count], fitted: vec![0.0; self.count] };
        let mut active: Vec<usize> = (0..self.count).collect();
        let screening = descent.screening && penalty != 0.0;
        if descent.screening {
            let gap = state.gap(penalty, products, square, self.positive);
            if (0.0..=descent.tolerance * square).contains(&gap.gap) {
                return state.weights;
            }
            if screening {
                self.screen(&mut active, &mut state, &gap, penalty);
            }
        }
        for sweep in 0..descent.sweeps {
            let (mut largest, mut change) = (0.0f64, 0.0f64);
            for &atom in &active {
                let (old, own) = (state.weights[atom], self.gram(atom, atom));
                if own == 0.0 {
                    continue;
                }
                let pull = products[atom] - state.fitted[atom] + old * own;
                let new = shrink(pull, penalty, self.positive) / own;
                self.move_to(&mut state, atom, new);
                change = change.max((new - old).abs());
                largest = largest.max(new.abs());
            }
            let still = match descent.screening {
                true => change / largest <= descent.tolerance,
                false => change / largest < descent.tolerance,
            };
            if largest == 0.0 || still || sweep + 1 == descent.sweeps {
                let gap = state.gap(penalty, products, square, self.positive);
                let close = match descent.screening {
                    true => gap.gap <= descent.tolerance * square,
                    false => gap.gap < descent.tolerance * square,
                };
                if close {
                    break;
                }
                if screening {
                    self.screen(&mut active, &mut state, &gap, penalty);
                }
            }
        }
        state.weights
    }

    fn move_to(&self, state: &mut State, atom: usize, weight: f64) {
        let step = weight - state.weights[atom];
        if step != 0.0 {
            let line = &self.gram[atom * self.count..][..self.count];
            state.fitted.iter_mut().zip(line).for_each(|(sum, product)| *sum += step * product);
            state.weights[atom] = weight;
        }
    }

    /// Leaves out the atoms that are zero in every optimum (Ndiaye and others 2017).
    fn screen(&self, active: &mut Vec<usize>, state: &mut State, gap: &Gap, penalty: f64) {
        let radius = (2.0 * gap.gap.abs()).sqrt() / penalty;
        active.retain(|&atom| {
            let own = self.gram(atom, atom);
            let dual = gap.left[atom] / penalty.max(gap.largest);
            let kept = own != 0.0 && (1.0 - dual.abs()) / own.sqrt() <= radius;
            if !kept {
                self.move_to(state, atom, 0.0);
            }
            kept
        });
    }

    /// The optimum on the atoms in use, where it has the signs of `weights`.
    fn polished(&self, penalty: f64, products: &[f64], weights: Vec<f64>) -> Vec<f64> {
        let used: Vec<usize> = (0..self.count).filter(|&atom| weights[atom] != 0.0).collect();
        let line = |&a: &usize| used.iter().map(move |&b| (a, b));
        let system = used.iter().flat_map(line).map(|(a, b)| self.gram(a, b)).collect();
        let target = |&atom: &usize| products[atom] - penalty * weights[atom].signum();
        let Some(solved) = solve(system, used.len(), used.iter().map(target).collect()) else {
            return weights;
        };
        let same = |(&atom, value): (&usize, &f64)| value * weights[atom] > 0.0;
        if !used.iter().zip(&solved).all(same) {
            return weights;
        }
        let mut exact = vec![0.0; self.count];
        used.iter().zip(solved).for_each(|(&atom, value)| exact[atom] = value);
        exact
    }
}

/// Weights of the atoms, and the products of what they stand for with the atoms.
struct State {
    weights: Vec<f64>,
    fitted: Vec<f64>,
}

/// The duality gap, and what it is made of.
struct Gap {
    gap: f64,
    /// Products of the atoms with what is left.
    left: Vec<f64>,
    largest: f64,
}

impl State {
    fn gap(&self, penalty: f64, products: &[f64], square: f64, positive: bool) -> Gap {
        let left: Vec<f64> = products.iter().zip(&self.fitted).map(|(q, fit)| q - fit).collect();
        let size = |value: &f64| if positive { *value } else { value.abs() };
        let largest = left.iter().map(size).fold(f64::NEG_INFINITY, f64::max);
        let along = dot(&self.weights, products);
        let rest = square + dot(&self.weights, &self.fitted) - 2.0 * along;
        let scale = if largest > penalty { penalty / largest } else { 1.0 };
        let absolute: f64 = self.weights.iter().map(|weight| weight.abs()).sum();
        let gap =
            0.5 * rest * (1.0 + scale * scale) + penalty * absolute - scale * (square - along);
        Gap { gap, left, largest }
    }
}

/// Towards zero by `by`; negative values are zero where only positive ones may be.
fn shrink(value: f64, by: f64, positive: bool) -> f64 {
    if positive && value < 0.0 {
        return 0.0;
    }
    (value.abs() - by).max(0.0).copysign(value)
}

/// Solves `L . L' . x = b` for the rows of a lower factor.
pub(super) fn fitted(factor: &[Vec<f64>], target: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut x: Vec<f64> = Vec::with_capacity(factor.len());
    for (line, value) in factor.iter().zip(target) {
        x.push((value - dot(&line[..x.len()], &x)) / line[x.len()]);
    }
    for at in (0..x.len()).rev() {
        x[at] /= factor[at][at];
        let value = x[at];
        x[..at].iter_mut().zip(&factor[at]).for_each(|(x, part)| *x -= value * part);
    }
    x
}

impl Rule for Coder {
    fn transform(&self, _: &Base, x: &Points<'_>) -> Answer {
        let width = if self.split { 2 * self.count } else { self.count };
        let values = x.map(width, |row, answer| {
            let product = |atom: &[f64]| dot(atom, row);
            let products: Vec<f64> = self.atoms.chunks_exact(row.len()).map(product).collect();
            let code = self.code(row, &products);
            let (first, second) = answer.split_at_mut(self.count);
            first.copy_from_slice(&code);
            if self.split {
                first.iter_mut().for_each(|value| *value = value.max(0.0));
                second.iter_mut().zip(&code).for_each(|(part, value)| *part = -value.min(0.0));
            }
        });
        Ok(Array::f64(vec![x.rows, width], values))
    }
}

/// The penalty or threshold: `transform_alpha`, else from 1.2 on the `alpha` of training, else one.
fn penalty(object: Object<'_>) -> Result<f64, Fault> {
    let own = object.version().is_none_or(|version| version >= (1, 2));
    let trained = if own { object.f64_or("alpha", 1.0)? } else { 1.0 };
    object.f64_or("transform_alpha", trained)
}

fn algorithm(object: Object<'_>, columns: usize, count: usize) -> Result<Algorithm, Fault> {
    let name = "transform_n_nonzero_coefs";
    let sweeps = match object.some("transform_max_iter") {
        Some(_) => object.usize("transform_max_iter")?.min(MAX_SWEEPS),
        None => 1000,
    };
    Ok(match object.str("transform_algorithm")? {
        "omp" => match object.some(name) {
            Some(_) => match object.usize(name)? {
                atoms if (1..=count).contains(&atoms) => Algorithm::Pursuit(atoms),
                atoms => {
                    let reason = format!("expected 1 to {count}, found {atoms}");
                    return Err(object.wrong(name, reason));
                }
            },
            None => Algorithm::Pursuit((columns / 10).max(1).min(count)),
        },
        "lars" => Algorithm::Angles(match object.some(name) {
            Some(_) => match object.usize(name)? {
                // Beyond, what is left is rounding.
                steps if steps > columns => {
                    let reason = format!(
                        "{steps} steps of lars explain {columns} columns, no more than these are supported"
                    );
                    return Err(object.wrong(name, reason));
                }
                steps => steps,
            },
            None => (columns / 10).max(1).min(count),
        }),
        "threshold" => Algorithm::Threshold(penalty(object)?),
        "lasso_cd" => {
            let screening = object.version().is_none_or(|version| version >= (1, 8));
            let tolerance = if screening { 1e-8 } else { 1e-4 };
            let descent = Descent { sweeps, tolerance, screening };
            Algorithm::Lasso { penalty: penalty(object)?, descent, exact: false }
        }
        "lasso_lars" => {
            let penalty = penalty(object)?;
            if penalty == 0.0 && count > columns {
                return Err(Fault::unsupported(format!(
                    "{}.transform_alpha: {count} atoms explain {columns} columns in many ways, lasso_lars needs a penalty above 0",
                    object.class
                )));
            }
            let descent = Descent { sweeps: MAX_SWEEPS, tolerance: 1e-14, screening: true };
            Algorithm::Lasso { penalty, descent, exact: true }
        }
        other => {
            return Err(Fault::unsupported(format!(
                "{}.transform_algorithm: {other} is not supported; supported are omp, lars, threshold, \
                 lasso_lars and lasso_cd",
                object.class
            )));
        }
    })
}

fn build(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = Base::new(object, &[Method::Transform])?;
    let name = if object.class == "SparseCoder" { "dictionary" } else { "components_" };
    let (count, columns, atoms) = matrix(object, name)?;
    base.columns(object, name, columns)?;
    base.precision(object, name);
    let algorithm = algorithm(object, columns, count)?;
    let plain = matches!(algorithm, Algorithm::Threshold(_));
    if count == 0 || (count > MAX_ATOMS && !plain) {
        let reason = format!("has {count} atoms, 1 to {MAX_ATOMS} are supported");
        return Err(object.wrong(name, reason));
    }
    let row = |atom: &[f64]| atoms.chunks_exact(columns).map(|b| dot(atom, b)).collect::<Vec<_>>();
    let gram = if plain { vec![] } else { atoms.chunks_exact(columns).flat_map(row).collect() };
    let truth = |name: &str| object.some(name).and_then(Value::as_bool).unwrap_or(false);
    let (positive, split) = (truth("positive_code"), truth("split_sign"));
    Ok(base.with(Coder { atoms, count, gram, algorithm, positive, split }))
}

/// Dictionaries.
pub(crate) static ESTIMATORS: &[Row] = &[
    Row { class: "DictionaryLearning", build },
    Row { class: "MiniBatchDictionaryLearning", build },
    Row { class: "SparseCoder", build },
];
