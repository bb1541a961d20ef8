//! Linear projections: principal components and their relatives, random projections, partial least squares.
//!
//! Each lowers to `((X - mean) / scale) . W' + offset`, so one rule serves all of them.

use crate::array::Array;
use crate::error::Fault;
use crate::model::Method;
use crate::pickle::Object;
use crate::steps::numeric::{
    Answer, Base, Points, Rule, broadcast, dot, matrix, shaped, transposed,
};
use crate::steps::{Builder, Estimator, Row};

/// Rows times `weights` (`[outputs, columns]`) plus `offsets`.
struct Projection {
    weights: Vec<f64>,
    offsets: Vec<f64>,
    /// Predictions of one target are flat.
    flat: bool,
}

impl Projection {
    /// The projection of `(x - mean) / scale`: scales go into the weights, means into the offsets.
    fn new(weights: Vec<f64>, outputs: usize, mean: Option<&[f64]>) -> Self {
        let columns = weights.len() / outputs.max(1);
        let offset = |row: &[f64]| mean.map_or(0.0, |mean| -dot(row, mean));
        let offsets = (0..outputs).map(|output| offset(&weights[output * columns..][..columns]));
        let offsets = offsets.collect();
        Self { weights, offsets, flat: false }
    }

    fn scale_rows(&mut self, factors: &[f64]) {
        let columns = self.weights.len() / factors.len().max(1);
        for (row, factor) in self.weights.chunks_exact_mut(columns.max(1)).zip(factors) {
            row.iter_mut().for_each(|weight| *weight *= factor);
        }
        self.offsets.iter_mut().zip(factors).for_each(|(offset, factor)| *offset *= factor);
    }

    fn apply(&self, x: &Points<'_>) -> Array {
        let outputs = self.offsets.len();
        let mut values = x.products(&self.weights, outputs);
        for row in values.chunks_exact_mut(outputs.max(1)) {
            row.iter_mut().zip(&self.offsets).for_each(|(value, offset)| *value += offset);
        }
        shaped(x.rows, outputs, self.flat, values)
    }
}

impl Rule for Projection {
    fn predict(&self, _: &Base, x: &Points<'_>) -> Answer {
        Ok(self.apply(x))
    }

    fn transform(&self, _: &Base, x: &Points<'_>) -> Answer {
        Ok(self.apply(x))
    }
}

/// Predicts by one projection and transforms by another.
struct LeastSquares {
    predict: Projection,
    transform: Projection,
}

impl Rule for LeastSquares {
    fn predict(&self, _: &Base, x: &Points<'_>) -> Answer {
        Ok(self.predict.apply(x))
    }

    fn transform(&self, _: &Base, x: &Points<'_>) -> Answer {
        Ok(self.transform.apply(x))
    }
}

/// Components of the largest system that is solved as a model loads.
const MAX_SYSTEM: usize = 1024;

/// `components_` that a system is solved for.
fn few_components(object: Object<'_>, base: &mut Base) -> Result<(usize, Vec<f64>), Fault> {
    let (outputs, weights) = components(object, base)?;
    if outputs > MAX_SYSTEM {
        return Err(Fault::unsupported(format!(
            "{} of {outputs} components is not supported; at most {MAX_SYSTEM} are",
            object.class
        )));
    }
    Ok((outputs, weights))
}

/// `components_` as `[outputs, columns]`.
fn components(object: Object<'_>, base: &mut Base) -> Result<(usize, Vec<f64>), Fault> {
    let (outputs, columns, weights) = matrix(object, "components_")?;
    base.columns(object, "components_", columns)?;
    base.precision(object, "components_");
    Ok((outputs, weights))
}

/// PCA and IncrementalPCA.
fn principal(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = Base::new(object, &[Method::Transform])?;
    let (outputs, weights) = components(object, &mut base)?;
    let columns = weights.len() / outputs.max(1);
    let mean = match object.some("mean_") {
        Some(_) => Some(broadcast(object, "mean_", columns)?),
        None => None,
    };
    let mut projection = Projection::new(weights, outputs, mean.as_deref());
    if object.bool("whiten")? {
        let variances = object.vector("explained_variance_", Some(outputs))?;
        // A variance of almost nothing is clipped from 1.4 on.
        let clipped = object.version().is_none_or(|version| version >= (1, 4));
        let least = if clipped { f64::EPSILON } else { 0.0 };
        let factors = variances.into_iter().map(|variance| 1.0 / variance.sqrt().max(least));
        projection.scale_rows(&factors.collect::<Vec<f64>>());
    }
    Ok(base.with(projection))
}

/// TruncatedSVD, the random projections and neighbourhood components: the components alone.
fn plain(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = Base::new(object, &[Method::Transform])?;
    let (outputs, weights) = components(object, &mut base)?;
    Ok(base.with(Projection::new(weights, outputs, None)))
}

/// FastICA: the unmixing matrix over centred rows, where it whitened.
fn independent(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = Base::new(object, &[Method::Transform])?;
    let (outputs, weights) = components(object, &mut base)?;
    let columns = weights.len() / outputs.max(1);
    let mean = match object.some("mean_") {
        Some(_) => Some(object.vector("mean_", Some(columns))?),
        None => None,
    };
    Ok(base.with(Projection::new(weights, outputs, mean.as_deref())))
}

/// FactorAnalysis: `(X - mean) . Wpsi' . (I + Wpsi . W')^-1` with `Wpsi = W / noise`.
fn factors(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = Base::new(object, &[Method::Transform])?;
    let (outputs, weights) = few_components(object, &mut base)?;
    let columns = weights.len() / outputs.max(1);
    let mean = object.vector("mean_", Some(columns))?;
    let noise = object.vector("noise_variance_", Some(columns))?;
    let scaled: Vec<f64> =
        weights.iter().enumerate().map(|(index, weight)| weight / noise[index % columns]).collect();
    let mut system = products(&scaled, &weights, outputs);
    system.iter_mut().step_by(outputs + 1).for_each(|value| *value += 1.0);
    // The system is symmetric, so the unmixing rows solve `system . rows = scaled`.
    let solved = solve(system, outputs, scaled).ok_or_else(|| {
        object.wrong("components_", "the covariance of the factors cannot be inverted")
    })?;
    Ok(base.with(Projection::new(solved, outputs, Some(&mean))))
}

/// SparsePCA: the ridge regression of the components on centred rows, `(X - mean) . W' . (W . W' + ridge)^-1`.
fn sparse_principal(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = Base::new(object, &[Method::Transform])?;
    let (outputs, weights) = few_components(object, &mut base)?;
    let columns = weights.len() / outputs.max(1);
    let mean = object.vector("mean_", Some(columns))?;
    let ridge = object.f64("ridge_alpha")?;
    let mut system = products(&weights, &weights, outputs);
    system.iter_mut().step_by(outputs + 1).for_each(|value| *value += ridge);
    let solved = solve(system, outputs, weights).ok_or_else(|| {
        object.wrong("components_", "the ridge regression of the components has no solution")
    })?;
    Ok(base.with(Projection::new(solved, outputs, Some(&mean))))
}

/// Products of each row of `a` with each of `b`, `[rows, rows]`.
fn products(a: &[f64], b: &[f64], rows: usize) -> Vec<f64> {
    let columns = (a.len() / rows.max(1)).max(1);
    let line = |a: &[f64]| b.chunks_exact(columns).map(|b| dot(a, b)).collect::<Vec<f64>>();
    a.chunks_exact(columns).flat_map(line).collect()
}

/// Solves `a . x = b` by elimination with pivots; `a` is `[n, n]`, `b` `[n, m]`. `None` where `a` is singular.
pub(crate) fn solve(mut a: Vec<f64>, n: usize, mut b: Vec<f64>) -> Option<Vec<f64>> {
    let m = b.len() / n.max(1);
    for column in 0..n {
        let size = |row: &usize| a[row * n + column].abs();
        let pivot = (column..n).max_by(|x, y| size(x).total_cmp(&size(y)))?;
        if a[pivot * n + column].is_nan() || a[pivot * n + column] == 0.0 {
            return None;
        }
        (0..n).for_each(|j| a.swap(column * n + j, pivot * n + j));
        if pivot != column {
            (0..m).for_each(|j| b.swap(column * m + j, pivot * m + j));
        }
        for row in (0..n).filter(|&row| row != column) {
            let factor = a[row * n + column] / a[column * n + column];
            (column..n).for_each(|j| a[row * n + j] -= factor * a[column * n + j]);
            (0..m).for_each(|j| b[row * m + j] -= factor * b[column * m + j]);
        }
    }
    (0..n * m).for_each(|index| b[index] /= a[index / m.max(1) * (n + 1)]);
    Some(b)
}

/// PLSRegression, PLSCanonical, CCA and PLSSVD.
fn least_squares(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let svd = object.class == "PLSSVD";
    let methods: &[Method] =
        if svd { &[Method::Transform] } else { &[Method::Predict, Method::Transform] };
    let mut base = Base::new(object, methods)?;
    let rotations = if svd { "x_weights_" } else { "x_rotations_" };
    let (columns, outputs, weights) = matrix(object, rotations)?;
    base.columns(object, rotations, columns)?;
    let mean = object.vector("_x_mean", Some(columns))?;
    let scale = object.vector("_x_std", Some(columns))?;
    let divide = |mut weights: Vec<f64>| {
        weights
            .iter_mut()
            .enumerate()
            .for_each(|(index, weight)| *weight /= scale[index % columns]);
        weights
    };
    let weights = divide(transposed(columns, outputs, &weights));
    let transform = Projection::new(weights, outputs, Some(&mean));
    if svd {
        return Ok(base.with(transform));
    }
    // To 1.2 coef_ is [columns, targets] beside the private transpose, from 1.3 on [targets, columns]; from 1.5 on it
    // holds the scale of X.
    let old = object.get("_coef_").is_some();
    let name = if old { "_coef_" } else { "coef_" };
    let (targets, found, coefficients) = matrix(object, name)?;
    if found != columns {
        return Err(object.wrong(name, format!("has {found} columns, expected {columns}")));
    }
    let scaled = old || object.version().is_some_and(|version| version < (1, 5));
    let coefficients = if scaled { divide(coefficients) } else { coefficients };
    let mut predict = Projection::new(coefficients, targets, Some(&mean));
    let intercepts = broadcast(object, "intercept_", targets)?;
    predict.offsets.iter_mut().zip(&intercepts).for_each(|(offset, add)| *offset += add);
    predict.flat = object.get("_predict_1d").is_some_and(|value| value.as_bool() == Some(true));
    Ok(base.with(LeastSquares { predict, transform }))
}

/// Linear projections.
pub(crate) static ESTIMATORS: &[Row] = &[
    Row { class: "CCA", build: least_squares },
    Row { class: "FactorAnalysis", build: factors },
    Row { class: "FastICA", build: independent },
    Row { class: "GaussianRandomProjection", build: plain },
    Row { class: "IncrementalPCA", build: principal },
    Row { class: "MiniBatchSparsePCA", build: sparse_principal },
    Row { class: "NeighborhoodComponentsAnalysis", build: plain },
    Row { class: "PCA", build: principal },
    Row { class: "PLSCanonical", build: least_squares },
    Row { class: "PLSRegression", build: least_squares },
    Row { class: "PLSSVD", build: least_squares },
    Row { class: "SparsePCA", build: sparse_principal },
    Row { class: "SparseRandomProjection", build: plain },
    Row { class: "TruncatedSVD", build: plain },
];
