//! Kernels and distances between rows, under the library's names.

use crate::error::Fault;
use crate::pickle::Object;
use crate::steps::numeric::dot;

/// A kernel with its parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kernel {
    Linear,
    Polynomial {
        gamma: f64,
        coef0: f64,
        degree: f64,
    },
    Rbf {
        gamma: f64,
    },
    Sigmoid {
        gamma: f64,
        coef0: f64,
    },
    Laplacian {
        gamma: f64,
    },
    Cosine,
    Chi2 {
        gamma: f64,
    },
    AdditiveChi2,
    /// The rows are kernel values already.
    Precomputed,
}

impl Kernel {
    /// The kernel that `kernel`, `gamma`, `degree` and `coef0` of an estimator name; `gamma` may be a resolved
    /// attribute (`gamma_`, `_gamma`), else it defaults to one over the number of columns.
    pub(crate) fn read(object: Object<'_>, columns: usize) -> Result<Kernel, Fault> {
        let name = object.attribute("kernel")?.as_str().ok_or_else(|| {
            object.wrong("kernel", "only kernels by name are supported, this one is a function")
        })?;
        let resolved = ["_gamma", "gamma_"].into_iter().find(|name| object.some(name).is_some());
        let default = if name == "chi2" { 1.0 } else { 1.0 / columns as f64 };
        let gamma = || object.f64_or(resolved.unwrap_or("gamma"), default);
        let coef0 = || object.f64_or("coef0", 1.0);
        Ok(match name {
            "linear" => Kernel::Linear,
            "poly" | "polynomial" => Kernel::Polynomial {
                gamma: gamma()?,
                coef0: coef0()?,
                degree: object.f64_or("degree", 3.0)?,
            },
            "rbf" => Kernel::Rbf { gamma: gamma()? },
            "sigmoid" => Kernel::Sigmoid { gamma: gamma()?, coef0: coef0()? },
            "laplacian" => Kernel::Laplacian { gamma: gamma()? },
            "cosine" => Kernel::Cosine,
            "chi2" => Kernel::Chi2 { gamma: gamma()? },
            "additive_chi2" => Kernel::AdditiveChi2,
            "precomputed" => Kernel::Precomputed,
            other => {
                return Err(object.wrong("kernel", format!("{other:?} is not a known kernel")));
            }
        })
    }

    /// The kernel between two rows.
    pub(crate) fn at(self, a: &[f64], b: &[f64]) -> f64 {
        match self {
            Kernel::Rbf { gamma } => (-gamma * squared_distance(a, b)).exp(),
            Kernel::Laplacian { gamma } => (-gamma * Metric::Manhattan.distance(a, b)).exp(),
            Kernel::Cosine => 1.0 - Metric::Cosine.distance(a, b),
            Kernel::Chi2 { gamma } => (gamma * additive_chi2(a, b)).exp(),
            Kernel::AdditiveChi2 => additive_chi2(a, b),
            _ => self.of_product(dot(a, b)),
        }
    }

    /// A kernel of the scalar product, from it.
    pub(crate) fn of_product(self, product: f64) -> f64 {
        match self {
            Kernel::Polynomial { gamma, coef0, degree } => power(gamma * product + coef0, degree),
            Kernel::Sigmoid { gamma, coef0 } => (gamma * product + coef0).tanh(),
            _ => product,
        }
    }
}

/// A power by repeated multiplication where the exponent is a small integer.
fn power(base: f64, exponent: f64) -> f64 {
    if exponent.fract() == 0.0 && exponent.abs() < 1024.0 {
        return base.powi(exponent as i32);
    }
    base.powf(exponent)
}

fn additive_chi2(a: &[f64], b: &[f64]) -> f64 {
    let term = |(a, b): (&f64, &f64)| {
        let sum = a + b;
        if sum == 0.0 { 0.0 } else { (a - b) * (a - b) / sum }
    };
    -a.iter().zip(b).map(term).sum::<f64>()
}

/// Sum of squared differences.
pub(crate) fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (left, right) = (a.chunks_exact(8), b.chunks_exact(8));
    let square = |a: f64, b: f64| (a - b) * (a - b);
    let rest = left.remainder().iter().zip(right.remainder());
    let rest: f64 = rest.map(|(&a, &b)| square(a, b)).sum();
    for (a, b) in left.zip(right) {
        for lane in 0..8 {
            sums[lane] += square(a[lane], b[lane]);
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// A distance between rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Metric {
    Euclidean,
    SquaredEuclidean,
    Manhattan,
    Chebyshev,
    Minkowski { p: f64 },
    Cosine,
}

impl Metric {
    /// The metric of a name, `p` being the exponent of Minkowski's.
    pub(crate) fn of(name: &str, p: Option<f64>) -> Option<Metric> {
        Some(match (name, p) {
            ("euclidean" | "l2", _) => Metric::Euclidean,
            ("sqeuclidean", _) => Metric::SquaredEuclidean,
            ("manhattan" | "cityblock" | "l1", _) => Metric::Manhattan,
            ("chebyshev", _) => Metric::Chebyshev,
            ("cosine", _) => Metric::Cosine,
            ("minkowski" | "p", p) => match p.unwrap_or(2.0) {
                1.0 => Metric::Manhattan,
                2.0 => Metric::Euclidean,
                f64::INFINITY => Metric::Chebyshev,
                p if p > 0.0 => Metric::Minkowski { p },
                _ => return None,
            },
            _ => return None,
        })
    }

    /// The distance between two rows.
    pub(crate) fn distance(self, a: &[f64], b: &[f64]) -> f64 {
        let gaps = || a.iter().zip(b).map(|(a, b)| (a - b).abs());
        match self {
            Metric::Euclidean => squared_distance(a, b).sqrt(),
            Metric::SquaredEuclidean => squared_distance(a, b),
            Metric::Manhattan => gaps().sum(),
            Metric::Chebyshev => gaps().fold(0.0, f64::max),
            Metric::Minkowski { p } => gaps().map(|gap| gap.powf(p)).sum::<f64>().powf(1.0 / p),
            Metric::Cosine => {
                let norm = |row: &[f64]| match dot(row, row).sqrt() {
                    0.0 => 1.0,
                    norm => norm,
                };
                (1.0 - dot(a, b) / (norm(a) * norm(b))).clamp(0.0, 2.0)
            }
        }
    }
}

/// `compute` of a row with each row of `rows` (`[count, columns]`).
pub(crate) fn against(
    row: &[f64],
    rows: &[f64],
    answer: &mut [f64],
    compute: impl Fn(&[f64], &[f64]) -> f64,
) {
    for (index, answer) in answer.iter_mut().enumerate() {
        *answer = compute(row, &rows[index * row.len()..][..row.len()]);
    }
}
