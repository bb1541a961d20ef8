//! Kernel density estimates, summed over all training rows.

use std::f64::consts::PI;

use crate::array::Array;
use crate::error::Fault;
use crate::model::Method;
use crate::pickle::{Object, Value};
use crate::steps::numeric::{Answer, Base, Points, Rule};
use crate::steps::pairwise::Metric;
use crate::steps::{Builder, Estimator, Row, math};

/// The shape of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Gaussian,
    TopHat,
    Epanechnikov,
    Exponential,
    Linear,
    Cosine,
}

impl Shape {
    /// Logarithm of the kernel at a distance, without its norm.
    fn log(self, distance: f64, bandwidth: f64) -> f64 {
        let scaled = distance / bandwidth;
        if matches!(self, Shape::Gaussian) {
            return -0.5 * scaled * scaled;
        }
        if matches!(self, Shape::Exponential) {
            return -scaled;
        }
        if distance >= bandwidth {
            return f64::NEG_INFINITY;
        }
        match self {
            Shape::Epanechnikov => (1.0 - scaled * scaled).ln(),
            Shape::Linear => (1.0 - scaled).ln(),
            Shape::Cosine => (0.5 * PI * scaled).cos().ln(),
            _ => 0.0,
        }
    }

    /// Logarithm of the integral of the kernel of bandwidth one over `columns` dimensions.
    fn log_norm(self, columns: usize) -> f64 {
        let wide = columns as f64;
        match self {
            Shape::Gaussian => 0.5 * wide * (2.0 * PI).ln(),
            Shape::TopHat => log_ball(columns),
            Shape::Epanechnikov => log_ball(columns) + (2.0 / (wide + 2.0)).ln(),
            Shape::Exponential => log_sphere(columns - 1) + log_gamma_half(2 * columns),
            Shape::Linear => log_ball(columns) - (wide + 1.0).ln(),
            Shape::Cosine => {
                let (mut factor, mut term) = (0.0, 2.0 / PI);
                for k in (1..=columns).step_by(2) {
                    factor += term;
                    let (k, square) = (k as f64, (2.0 / PI).powi(2));
                    term *= -(wide - k) * (wide - k - 1.0) * square;
                }
                f64::ln(factor) + log_sphere(columns - 1)
            }
        }
    }
}

/// Logarithm of the gamma function at half of `twice`, by recurrence from 1 or 1/2.
fn log_gamma_half(twice: usize) -> f64 {
    let start = if twice.is_multiple_of(2) { 0.0 } else { 0.5 * PI.ln() };
    let first = if twice.is_multiple_of(2) { 2 } else { 1 };
    start + (first..twice).step_by(2).map(|half| (half as f64 / 2.0).ln()).sum::<f64>()
}

/// Logarithm of the volume of the unit ball of `n` dimensions.
fn log_ball(n: usize) -> f64 {
    0.5 * n as f64 * PI.ln() - log_gamma_half(n + 2)
}

/// Logarithm of the surface of the unit ball of `n + 1` dimensions.
fn log_sphere(n: usize) -> f64 {
    (2.0 * PI).ln() + if n == 0 { (1.0 / PI).ln() } else { log_ball(n - 1) }
}

struct Density {
    shape: Shape,
    metric: Metric,
    bandwidth: f64,
    rows: Vec<f64>,
    log_weights: Vec<f64>,
    /// What is subtracted of every sum: the norm and the total weight.
    log_norm: f64,
}

impl Rule for Density {
    fn scores(&self, _: &Base, x: &Points<'_>) -> Answer {
        let scores = x.map(1, |row, answer| {
            let known = self.rows.chunks_exact(row.len().max(1)).zip(&self.log_weights);
            let log = |(known, weight): (&[f64], &f64)| {
                self.shape.log(self.metric.distance(row, known), self.bandwidth) + weight
            };
            let logs: Vec<f64> = known.map(log).collect();
            answer[0] = math::log_sum_exp(&logs) - self.log_norm;
        });
        Ok(Array::f64(vec![x.rows], scores))
    }
}

fn density(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = Base::new(object, &[Method::ScoreSamples])?;
    // The state of a tree starts with its training rows and ends with their weights.
    let state = object.object("tree_")?.state.as_list().unwrap_or_default();
    let wrong = || object.wrong("tree_", "expected a search tree that starts with its rows");
    let array = state.first().and_then(|value| value.as_array()).ok_or_else(wrong)?;
    let [count, columns] = *array.shape() else { return Err(wrong()) };
    let rows = array.to_f64().ok_or_else(wrong)?;
    base.columns(object, "tree_", columns)?;
    if count == 0 || columns == 0 {
        return Err(wrong());
    }
    let shape = match object.str("kernel")? {
        "gaussian" => Shape::Gaussian,
        "tophat" => Shape::TopHat,
        "epanechnikov" => Shape::Epanechnikov,
        "exponential" => Shape::Exponential,
        "linear" => Shape::Linear,
        "cosine" => Shape::Cosine,
        other => return Err(object.wrong("kernel", format!("{other:?} is not a known kernel"))),
    };
    let name = object.str("metric")?;
    if object.some("metric_params").is_some() {
        return Err(Fault::unsupported("KernelDensity.metric_params is not supported"));
    }
    let metric = Metric::of(name, None).ok_or_else(|| {
        Fault::unsupported(format!("KernelDensity.metric: {name} is not supported"))
    })?;
    // The bandwidth may be a rule's name from 1.2 on; bandwidth_ is what it gave.
    let resolved = object.some("bandwidth_").is_some();
    let bandwidth = object.f64(if resolved { "bandwidth_" } else { "bandwidth" })?;
    let weights = state.last().and_then(|value: &Value<'_>| value.as_array());
    let weights = weights.and_then(Array::to_f64).filter(|weights| weights.len() == count);
    let (total, log_weights) = match weights {
        Some(weights) => (weights.iter().sum(), weights.iter().map(|weight| weight.ln()).collect()),
        None => (count as f64, vec![0.0; count]),
    };
    let log_norm = shape.log_norm(columns) + columns as f64 * bandwidth.ln() + f64::ln(total);
    Ok(base.with(Density { shape, metric, bandwidth, rows, log_weights, log_norm }))
}

/// Kernel densities.
pub(crate) static DENSITY: &[Row] = &[Row { class: "KernelDensity", build: density }];
