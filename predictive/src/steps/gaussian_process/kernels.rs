//! Covariance functions of Gaussian processes, as trees of the library's kernel objects.

use std::f64::consts::PI;

use crate::error::Fault;
use crate::pickle::Object;
use crate::steps::MAX_NESTING;
use crate::steps::numeric::dot;
use crate::steps::pairwise::squared_distance;

/// A kernel between rows of two different sets (so white noise is nothing).
#[derive(Debug)]
pub(crate) enum Covariance {
    Sum(Box<[Covariance; 2]>),
    Product(Box<[Covariance; 2]>),
    Power(Box<Covariance>, f64),
    Constant(f64),
    White(f64),
    Rbf(Scales),
    Matern(Scales, Smoothness),
    RationalQuadratic { alpha: f64, length: f64 },
    ExpSineSquared { length: f64, period: f64 },
    DotProduct { squared_sigma: f64 },
}

/// The smoothness of a Matern kernel whose Bessel function has a closed form.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Smoothness {
    Half,
    ThreeHalves,
    FiveHalves,
    Infinite,
}

/// A length scale of all columns, or one each.
#[derive(Debug)]
pub(crate) struct Scales(Vec<f64>);

impl Scales {
    fn squared_distance(&self, a: &[f64], b: &[f64]) -> f64 {
        match self.0[..] {
            [scale] => squared_distance(a, b) / (scale * scale),
            _ => {
                let gap = |((a, b), scale): ((&f64, &f64), &f64)| ((a - b) / scale).powi(2);
                a.iter().zip(b).zip(&self.0).map(gap).sum()
            }
        }
    }
}

impl Covariance {
    /// Reads a kernel for rows of `columns`.
    pub(crate) fn read(object: Object<'_>, columns: usize) -> Result<Self, Fault> {
        Self::nested(object, columns, 0)
    }

    fn nested(object: Object<'_>, columns: usize, depth: usize) -> Result<Self, Fault> {
        if depth > MAX_NESTING {
            let reason = format!("kernels are nested more than {MAX_NESTING} deep");
            return Err(Fault::corrupt(object.class, reason));
        }
        let inner = |name: &str| Self::nested(object.object(name)?, columns, depth + 1);
        let both = || Ok::<_, Fault>(Box::new([inner("k1")?, inner("k2")?]));
        Ok(match object.class {
            "Sum" => Covariance::Sum(both()?),
            "Product" => Covariance::Product(both()?),
            "Exponentiation" => {
                Covariance::Power(Box::new(inner("kernel")?), object.f64("exponent")?)
            }
            "ConstantKernel" => Covariance::Constant(object.f64("constant_value")?),
            "WhiteKernel" => Covariance::White(object.f64("noise_level")?),
            "RBF" => Covariance::Rbf(scales(object, columns)?),
            "Matern" => Covariance::Matern(scales(object, columns)?, smoothness(object)?),
            "RationalQuadratic" => Covariance::RationalQuadratic {
                alpha: object.f64("alpha")?,
                length: object.f64("length_scale")?,
            },
            "ExpSineSquared" => Covariance::ExpSineSquared {
                length: object.f64("length_scale")?,
                period: object.f64("periodicity")?,
            },
            "DotProduct" => {
                Covariance::DotProduct { squared_sigma: object.f64("sigma_0")?.powi(2) }
            }
            other => {
                return Err(Fault::unsupported(format!(
                    "the kernel {other} is not supported; supported are Sum, Product, \
                     Exponentiation, ConstantKernel, WhiteKernel, RBF, Matern, \
                     RationalQuadratic, ExpSineSquared and DotProduct"
                )));
            }
        })
    }

    /// The covariance of a new row and a training row.
    pub(crate) fn at(&self, a: &[f64], b: &[f64]) -> f64 {
        match self {
            Covariance::Sum(parts) => parts[0].at(a, b) + parts[1].at(a, b),
            Covariance::Product(parts) => parts[0].at(a, b) * parts[1].at(a, b),
            Covariance::Power(inner, exponent) => inner.at(a, b).powf(*exponent),
            Covariance::Constant(value) => *value,
            Covariance::White(_) => 0.0,
            Covariance::Rbf(scales) => (-0.5 * scales.squared_distance(a, b)).exp(),
            Covariance::Matern(scales, smoothness) => {
                matern(scales.squared_distance(a, b), *smoothness)
            }
            Covariance::RationalQuadratic { alpha, length } => {
                (1.0 + squared_distance(a, b) / (2.0 * alpha * length * length)).powf(-alpha)
            }
            Covariance::ExpSineSquared { length, period } => {
                let sine = (PI / period * squared_distance(a, b).sqrt()).sin();
                (-2.0 * (sine / length).powi(2)).exp()
            }
            Covariance::DotProduct { squared_sigma } => dot(a, b) + squared_sigma,
        }
    }

    /// The variance of a row: its covariance with itself, noise included.
    pub(crate) fn variance(&self, row: &[f64]) -> f64 {
        match self {
            Covariance::Sum(parts) => parts[0].variance(row) + parts[1].variance(row),
            Covariance::Product(parts) => parts[0].variance(row) * parts[1].variance(row),
            Covariance::Power(inner, exponent) => inner.variance(row).powf(*exponent),
            Covariance::White(noise) => *noise,
            other => other.at(row, row),
        }
    }
}

fn matern(squared: f64, smoothness: Smoothness) -> f64 {
    let distance = squared.sqrt();
    match smoothness {
        Smoothness::Half => (-distance).exp(),
        Smoothness::ThreeHalves => {
            let k = distance * 3f64.sqrt();
            (1.0 + k) * (-k).exp()
        }
        Smoothness::FiveHalves => {
            let k = distance * 5f64.sqrt();
            (1.0 + k + k * k / 3.0) * (-k).exp()
        }
        Smoothness::Infinite => (-squared / 2.0).exp(),
    }
}

fn smoothness(object: Object<'_>) -> Result<Smoothness, Fault> {
    let nu = object.f64("nu")?;
    Ok(match nu {
        0.5 => Smoothness::Half,
        1.5 => Smoothness::ThreeHalves,
        2.5 => Smoothness::FiveHalves,
        f64::INFINITY => Smoothness::Infinite,
        _ => {
            return Err(Fault::unsupported(format!(
                "Matern.nu: {nu} is not supported; supported are 0.5, 1.5, 2.5 and infinity"
            )));
        }
    })
}

fn scales(object: Object<'_>, columns: usize) -> Result<Scales, Fault> {
    let scales = object.vector("length_scale", None)?;
    if scales.len() != 1 && scales.len() != columns {
        let reason = format!("expected 1 or {columns} values, found {}", scales.len());
        return Err(object.wrong("length_scale", reason));
    }
    Ok(Scales(scales))
}
