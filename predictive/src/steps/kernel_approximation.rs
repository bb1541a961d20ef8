//! Feature maps of kernels: random features, sketches, landmarks, and the kernel principal components.

use std::f64::consts::PI;

use crate::array::Array;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::Object;
use crate::steps::numeric::{Answer, Base, Points, Rule, dot, matrix, transposed};
use crate::steps::pairwise::{Kernel, against};
use crate::steps::{Builder, Estimator, Row};

/// Most places of a sketch.
const MAX_WIDTH: usize = 1 << 20;

/// `cos(X . weights + offset)` times a factor; the skewed kernel takes the logarithm first.
struct RandomFeatures {
    /// `[outputs, columns]`.
    weights: Vec<f64>,
    offsets: Vec<f64>,
    skewedness: Option<f64>,
}

impl Rule for RandomFeatures {
    fn transform(&self, _: &Base, x: &Points<'_>) -> Answer {
        let outputs = self.offsets.len();
        let mut values = match self.skewedness {
            None => x.products(&self.weights, outputs),
            Some(skewedness) => {
                if x.minimum() <= -skewedness {
                    return Err(PredictError::input(
                        "X may not contain entries smaller than -skewedness.",
                    ));
                }
                let logs = x.mapped(|value| (value + skewedness).ln());
                logs.products(&self.weights, outputs)
            }
        };
        let factor = (2.0 / outputs as f64).sqrt();
        for row in values.chunks_exact_mut(outputs.max(1)) {
            for (value, offset) in row.iter_mut().zip(&self.offsets) {
                *value = (*value + offset).cos() * factor;
            }
        }
        Ok(Array::f64(vec![x.rows, outputs], values))
    }
}

fn random_features(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = Base::new(object, &[Method::Transform])?;
    let (columns, outputs, weights) = matrix(object, "random_weights_")?;
    base.columns(object, "random_weights_", columns)?;
    base.precision(object, "random_weights_");
    let offsets = object.vector("random_offset_", Some(outputs))?;
    let skewedness = match object.class {
        "SkewedChi2Sampler" => Some(object.f64("skewedness")?),
        _ => None,
    };
    let weights = transposed(columns, outputs, &weights);
    Ok(base.with(RandomFeatures { weights, offsets, skewedness }))
}

/// Sketches of the polynomial kernel: each column is added to one of `width` places, and the sketches of all degrees are
/// convolved (Pham and Pagh 2013).
struct CountSketch {
    width: usize,
    /// Place and sign of each column for each degree; after the columns that of the constant, where there is one.
    places: Vec<Vec<(usize, f64)>>,
    factor: f64,
    constant: f64,
}

impl CountSketch {
    fn sketch(&self, places: &[(usize, f64)], row: &[f64]) -> Vec<f64> {
        let mut sketch = vec![0.0; self.width];
        let values = row.iter().map(|value| value * self.factor).chain([self.constant]);
        places.iter().zip(values).for_each(|(&(at, sign), value)| sketch[at] += sign * value);
        sketch
    }
}

impl Rule for CountSketch {
    fn transform(&self, _: &Base, x: &Points<'_>) -> Answer {
        let values = x.map(self.width, |row, answer| {
            answer.copy_from_slice(&self.sketch(&self.places[0], row));
            for places in &self.places[1..] {
                let sketch = self.sketch(places, row);
                let before = answer.to_vec();
                answer.fill(0.0);
                for (shift, value) in sketch.iter().enumerate().filter(|(_, value)| **value != 0.0)
                {
                    let (end, start) = before.split_at(self.width - shift);
                    let turned = start.iter().chain(end);
                    answer.iter_mut().zip(turned).for_each(|(sum, old)| *sum += value * old);
                }
            }
        });
        Ok(Array::f64(vec![x.rows, self.width], values))
    }
}

fn count_sketch(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = Base::new(object, &[Method::Transform])?;
    let width = object.usize("n_components")?;
    let (degree, columns, places) = matrix(object, "indexHash_")?;
    let (found, signs_columns, signs) = matrix(object, "bitHash_")?;
    if degree == 0 || (found, signs_columns) != (degree, columns) {
        let reason = format!("expected {degree} rows of {columns} signs, at least one");
        return Err(object.wrong("bitHash_", reason));
    }
    let constant = object.f64("coef0")?;
    let extra = usize::from(constant != 0.0);
    base.columns(object, "indexHash_", columns.saturating_sub(extra))?;
    let fits = |&place: &f64| place.fract() == 0.0 && place >= 0.0 && place < width as f64;
    if !places.iter().all(fits) || width > MAX_WIDTH {
        let reason = format!("expected places below n_components {width}, at most {MAX_WIDTH}");
        return Err(object.wrong("indexHash_", reason));
    }
    let cells = places.iter().map(|&place| place as usize).zip(signs).collect::<Vec<_>>();
    let places = cells.chunks_exact(columns).map(<[_]>::to_vec).collect();
    let (factor, constant) = (object.f64("gamma")?.sqrt(), constant.sqrt());
    Ok(base.with(CountSketch { width, places, factor, constant }))
}

/// Fourier features of the additive chi-squared kernel, sampled at regular steps.
struct AdditiveChi2 {
    steps: usize,
    interval: f64,
}

impl Rule for AdditiveChi2 {
    fn transform(&self, _: &Base, x: &Points<'_>) -> Answer {
        if x.minimum() < 0.0 {
            return Err(PredictError::input(
                "Negative values in data passed to AdditiveChi2Sampler (input X)",
            ));
        }
        let width = x.columns * (2 * self.steps - 1);
        let values = x.map(width, |row, answer| {
            for (column, &value) in row.iter().enumerate().filter(|(_, value)| **value != 0.0) {
                answer[column] = (value * self.interval).sqrt();
                let (log, step) = (self.interval * value.ln(), 2.0 * value * self.interval);
                for j in 1..self.steps {
                    let factor = (step / (PI * j as f64 * self.interval).cosh()).sqrt();
                    let at = (2 * j - 1) * row.len() + column;
                    answer[at] = factor * (j as f64 * log).cos();
                    answer[at + row.len()] = factor * (j as f64 * log).sin();
                }
            }
        });
        Ok(Array::f64(vec![x.rows, width], values))
    }
}

fn additive_chi2(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = Base::new(object, &[Method::Transform])?;
    // Answers have the precision of the rows, whatever the training rows had.
    base.single = true;
    let steps = object.usize("sample_steps")?;
    if !(1..=64).contains(&steps) {
        return Err(object.wrong("sample_steps", format!("expected 1 to 64, found {steps}")));
    }
    // To 1.2 the default was resolved into an attribute.
    let interval = match (object.some("sample_interval_"), object.some("sample_interval"), steps) {
        (Some(_), ..) => object.f64("sample_interval_")?,
        (None, Some(_), _) => object.f64("sample_interval")?,
        (None, None, 1) => 0.8,
        (None, None, 2) => 0.5,
        (None, None, 3) => 0.4,
        _ => return Err(object.wrong("sample_interval", "has a default to 3 sample_steps only")),
    };
    Ok(base.with(AdditiveChi2 { steps, interval }))
}

/// Kernel values against landmarks, centred where that is asked, times `weights`.
struct Landmarks {
    kernel: Kernel,
    /// `[count, columns]`; empty for a precomputed kernel.
    rows: Vec<f64>,
    count: usize,
    centre: Option<Centre>,
    /// `[outputs, count]`.
    weights: Vec<f64>,
}

/// Column means of the training kernel, and the mean of all of it.
struct Centre {
    columns: Vec<f64>,
    all: f64,
}

impl Rule for Landmarks {
    fn transform(&self, _: &Base, x: &Points<'_>) -> Answer {
        let outputs = self.weights.len() / self.count.max(1);
        let values = x.map(outputs, |row, answer| {
            let mut kernels = vec![0.0; self.count];
            match self.kernel {
                Kernel::Precomputed => kernels.copy_from_slice(row),
                kernel => against(row, &self.rows, &mut kernels, |a, b| kernel.at(a, b)),
            }
            if let Some(centre) = &self.centre {
                let mean = kernels.iter().sum::<f64>() / self.count as f64;
                for (value, column) in kernels.iter_mut().zip(&centre.columns) {
                    *value += centre.all - column - mean;
                }
            }
            for (output, answer) in answer.iter_mut().enumerate() {
                *answer = dot(&kernels, &self.weights[output * self.count..][..self.count]);
            }
        });
        Ok(Array::f64(vec![x.rows, outputs], values))
    }
}

fn nystroem(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = Base::new(object, &[Method::Transform])?;
    let (count, columns, rows) = matrix(object, "components_")?;
    base.columns(object, "components_", columns)?;
    base.precision(object, "components_");
    let kernel = Kernel::read(object, columns)?;
    if matches!(kernel, Kernel::Precomputed) || object.some("kernel_params").is_some() {
        return Err(Fault::unsupported(
            "Nystroem with a precomputed kernel or kernel_params is not supported",
        ));
    }
    let (outputs, found, weights) = matrix(object, "normalization_")?;
    if (outputs, found) != (count, count) {
        return Err(object.wrong("normalization_", format!("expected {count} rows and columns")));
    }
    Ok(base.with(Landmarks { kernel, rows, count, centre: None, weights }))
}

fn kernel_pca(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = Base::new(object, &[Method::Transform])?;
    if object.some("kernel_params").is_some() {
        return Err(Fault::unsupported("KernelPCA.kernel_params is not supported"));
    }
    let (count, columns, rows) = matrix(object, "X_fit_")?;
    base.columns(object, "X_fit_", columns)?;
    base.precision(object, "X_fit_");
    let kernel = Kernel::read(object, columns)?;
    let centerer = object.object("_centerer")?;
    let means = centerer.vector("K_fit_rows_", Some(count))?;
    let centre = Some(Centre { columns: means, all: centerer.f64("K_fit_all_")? });
    // lambdas_ and alphas_ before 1.0.
    let new = object.get("eigenvalues_").is_some();
    let names = if new { ("eigenvalues_", "eigenvectors_") } else { ("lambdas_", "alphas_") };
    let values = object.vector(names.0, None)?;
    let (found, outputs, vectors) = matrix(object, names.1)?;
    if found != count || outputs != values.len() {
        let reason = format!("expected {count} rows of {} values", values.len());
        return Err(object.wrong(names.1, reason));
    }
    let mut weights = transposed(count, outputs, &vectors);
    for (row, value) in weights.chunks_exact_mut(count.max(1)).zip(&values) {
        let factor = if *value == 0.0 { 0.0 } else { 1.0 / value.sqrt() };
        row.iter_mut().for_each(|weight| *weight *= factor);
    }
    let rows = if matches!(kernel, Kernel::Precomputed) { Vec::new() } else { rows };
    Ok(base.with(Landmarks { kernel, rows, count, centre, weights }))
}

/// Feature maps.
pub(crate) static ESTIMATORS: &[Row] = &[
    Row { class: "AdditiveChi2Sampler", build: additive_chi2 },
    Row { class: "KernelPCA", build: kernel_pca },
    Row { class: "Nystroem", build: nystroem },
    Row { class: "PolynomialCountSketch", build: count_sketch },
    Row { class: "RBFSampler", build: random_features },
    Row { class: "SkewedChi2Sampler", build: random_features },
];
