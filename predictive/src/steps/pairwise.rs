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
    Minkowski {
        p: f64,
    },
    Cosine,
    Correlation,
    Canberra,
    BrayCurtis,
    Hamming,
    /// Of latitudes and longitudes in radians, on a sphere of radius one.
    Haversine,
    /// Between truth values, which are numbers other than zero.
    Truth(Truth),
}

/// A distance between rows of truth values, by how many are true in both and in one only.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Truth {
    Jaccard,
    Dice,
    RogersTanimoto,
    RussellRao,
    SokalSneath,
}

impl Truth {
    fn distance(self, a: &[f64], b: &[f64]) -> f64 {
        let (mut both, mut one) = (0.0, 0.0);
        for (a, b) in a.iter().zip(b).map(|(a, b)| (*a != 0.0, *b != 0.0)) {
            both += f64::from(u8::from(a && b));
            one += f64::from(u8::from(a != b));
        }
        let all = a.len() as f64;
        match self {
            Truth::Jaccard if both + one == 0.0 => 0.0,
            Truth::Jaccard => one / (both + one),
            Truth::Dice => one / (2.0 * both + one),
            Truth::RogersTanimoto => 2.0 * one / (all + one),
            Truth::RussellRao => (all - both) / all,
            Truth::SokalSneath => one / (one + 0.5 * both),
        }
    }
}

/// Names of the metrics without parameters, for messages.
pub(crate) const METRICS: &str = "euclidean, manhattan, chebyshev, minkowski, cosine, correlation, \
    canberra, braycurtis, hamming, haversine, jaccard, dice, rogerstanimoto, russellrao, \
    sokalsneath, sokalmichener, and of neighbours seuclidean and mahalanobis";

impl Metric {
    /// The metric of a name, `p` being the exponent of Minkowski's.
    pub(crate) fn of(name: &str, p: Option<f64>) -> Option<Metric> {
        Some(match (name, p) {
            ("euclidean" | "l2", _) => Metric::Euclidean,
            ("sqeuclidean", _) => Metric::SquaredEuclidean,
            ("manhattan" | "cityblock" | "l1", _) => Metric::Manhattan,
            ("chebyshev" | "infinity", _) => Metric::Chebyshev,
            ("cosine", _) => Metric::Cosine,
            ("correlation", _) => Metric::Correlation,
            ("canberra", _) => Metric::Canberra,
            ("braycurtis", _) => Metric::BrayCurtis,
            ("hamming", _) => Metric::Hamming,
            ("haversine", _) => Metric::Haversine,
            ("jaccard", _) => Metric::Truth(Truth::Jaccard),
            ("dice", _) => Metric::Truth(Truth::Dice),
            ("rogerstanimoto" | "sokalmichener", _) => Metric::Truth(Truth::RogersTanimoto),
            ("russellrao", _) => Metric::Truth(Truth::RussellRao),
            ("sokalsneath", _) => Metric::Truth(Truth::SokalSneath),
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
            Metric::Correlation => {
                let centred = |row: &[f64]| -> Vec<f64> {
                    let mean = row.iter().sum::<f64>() / row.len() as f64;
                    row.iter().map(|value| value - mean).collect()
                };
                let (a, b) = (centred(a), centred(b));
                1.0 - dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()
            }
            Metric::Canberra => {
                let term = |(a, b): (&f64, &f64)| {
                    let sum = a.abs() + b.abs();
                    if sum > 0.0 { (a - b).abs() / sum } else { 0.0 }
                };
                a.iter().zip(b).map(term).sum()
            }
            Metric::BrayCurtis => {
                let sums: f64 = a.iter().zip(b).map(|(a, b)| a.abs() + b.abs()).sum();
                if sums > 0.0 { gaps().sum::<f64>() / sums } else { 0.0 }
            }
            Metric::Hamming => {
                a.iter().zip(b).filter(|(a, b)| a != b).count() as f64 / a.len() as f64
            }
            Metric::Haversine => haversine(a, b),
            Metric::Truth(truth) => truth.distance(a, b),
        }
    }
}

/// The angle between two points on a sphere; NaN for rows that are no pairs.
fn haversine(a: &[f64], b: &[f64]) -> f64 {
    let ([lat_a, long_a], [lat_b, long_b]) = (a, b) else { return f64::NAN };
    let half = |x: f64| (0.5 * x).sin().powi(2);
    let chord = half(lat_a - lat_b) + lat_a.cos() * lat_b.cos() * half(long_a - long_b);
    2.0 * chord.sqrt().asin()
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
