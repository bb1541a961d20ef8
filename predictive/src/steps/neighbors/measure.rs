//! Distances with parameters: weights, variances, covariances (`metric_params`).

use crate::error::Fault;
use crate::pickle::{Object, Value};
use crate::steps::decomposition::solve;
use crate::steps::pairwise::{METRICS, Metric};

/// How far apart two rows are.
pub(crate) enum Measure {
    Plain(Metric),
    /// Minkowski's with a weight for each column.
    Weighted {
        p: f64,
        weights: Vec<f64>,
    },
    /// Euclidean over columns divided by their deviations; these are the variances.
    Standardised(Vec<f64>),
    /// Mahalanobis's; the inverse of the covariances, `[columns, columns]`.
    Mahalanobis(Vec<f64>),
}

impl Measure {
    /// The measure that `effective_metric_` and its parameters name.
    ///
    /// # Errors
    /// When it is not known, or its parameters do not fit.
    pub(super) fn read(object: Object<'_>, columns: usize) -> Result<Self, Fault> {
        let name = object.attribute("effective_metric_")?.as_str().ok_or_else(|| {
            object.wrong("effective_metric_", "only metrics by name are supported")
        })?;
        let given = Parameters { object, columns };
        given.only(match name {
            "minkowski" | "p" | "wminkowski" => &["p", "w"],
            "seuclidean" => &["V"],
            "mahalanobis" => &["V", "VI"],
            _ => &["p"],
        })?;
        let p = given.get("p").and_then(Value::as_f64);
        let bare = || {
            let metric = Metric::of(name, p).ok_or_else(|| {
                let reason = format!("the metric {name} is not supported; supported are {METRICS}");
                Fault::unsupported(format!("{}.effective_metric_: {reason}", object.class))
            })?;
            Ok(Measure::Plain(metric))
        };
        match name {
            "seuclidean" => Ok(Measure::Standardised(given.numbers("V", columns)?)),
            "mahalanobis" => given.inverse().map(Measure::Mahalanobis),
            "minkowski" | "p" if given.get("w").is_none() => bare(),
            "minkowski" | "p" | "wminkowski" => {
                let (p, mut weights) = (p.unwrap_or(2.0), given.numbers("w", columns)?);
                if !(p > 0.0 && p.is_finite())
                    || weights.iter().any(|weight| weight.is_sign_negative())
                {
                    return Err(
                        given.wrong("expected a finite p above 0 and weights of at least 0")
                    );
                }
                // To 1.2, where the differences were weighted before they were raised.
                if name == "wminkowski" {
                    weights.iter_mut().for_each(|weight| *weight = weight.powf(p));
                }
                Ok(Measure::Weighted { p, weights })
            }
            _ => bare(),
        }
    }

    /// The distance between two rows.
    pub(super) fn distance(&self, a: &[f64], b: &[f64]) -> f64 {
        let gaps = || a.iter().zip(b).map(|(a, b)| a - b);
        match self {
            Measure::Plain(metric) => metric.distance(a, b),
            Measure::Weighted { p, weights } => {
                let term = |(gap, weight): (f64, &f64)| weight * gap.abs().powf(*p);
                gaps().zip(weights).map(term).sum::<f64>().powf(1.0 / p)
            }
            Measure::Standardised(variances) => {
                let term = |(gap, variance): (f64, &f64)| gap * gap / variance;
                gaps().zip(variances).map(term).sum::<f64>().sqrt()
            }
            Measure::Mahalanobis(inverse) => {
                let row = |(line, gap): (&[f64], f64)| {
                    gap * line.iter().zip(gaps()).map(|(value, gap)| value * gap).sum::<f64>()
                };
                inverse.chunks_exact(a.len()).zip(gaps()).map(row).sum::<f64>().sqrt()
            }
        }
    }
}

/// `effective_metric_params_`.
struct Parameters<'a> {
    object: Object<'a>,
    columns: usize,
}

impl<'a> Parameters<'a> {
    fn get(&self, name: &str) -> Option<Value<'a>> {
        let value = self.object.some("effective_metric_params_")?.key(name);
        value.filter(|value| !value.is_none())
    }

    fn wrong(&self, reason: impl Into<String>) -> Fault {
        self.object.wrong("effective_metric_params_", reason.into())
    }

    /// Refuses others.
    fn only(&self, known: &[&str]) -> Result<(), Fault> {
        let given = self.object.some("effective_metric_params_").and_then(Value::as_dict);
        let unknown = given.unwrap_or_default().iter().find_map(|(key, value)| {
            key.as_str().filter(|name| !known.contains(name) && !value.is_none())
        });
        match unknown {
            Some(name) => Err(self.wrong(format!("the metric parameter {name} is not supported"))),
            None => Ok(()),
        }
    }

    fn numbers(&self, name: &str, count: usize) -> Result<Vec<f64>, Fault> {
        let value = self.get(name).ok_or_else(|| self.wrong(format!("{name} is missing")))?;
        let values = match value.as_array() {
            Some(array) => array.to_f64(),
            None => {
                value.as_list().and_then(|items| items.into_iter().map(Value::as_f64).collect())
            }
        };
        let values = values.filter(|values| values.len() == count);
        values.ok_or_else(|| self.wrong(format!("{name}: expected {count} numbers")))
    }

    /// The inverse of the covariances, given as such or to be found.
    fn inverse(&self) -> Result<Vec<f64>, Fault> {
        let columns = self.columns;
        let size = columns.saturating_mul(columns);
        if self.get("VI").is_some() {
            return self.numbers("VI", size);
        }
        let covariances = self.numbers("V", size)?;
        let cell = |index: usize| f64::from(u8::from(index / columns == index % columns));
        let inverse = solve(covariances, columns, (0..size).map(cell).collect());
        inverse.ok_or_else(|| self.wrong("V: the covariances have no inverse"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_by_hand() {
        let (a, b) = ([1.0, 2.0], [4.0, 0.0]);
        let weighted = |p, weights: [f64; 2]| Measure::Weighted { p, weights: weights.to_vec() };
        assert_eq!(weighted(1.0, [2.0, 1.0]).distance(&a, &b), 8.0);
        assert_eq!(weighted(2.0, [1.0, 4.0]).distance(&a, &b), 5.0);
        assert_eq!(Measure::Standardised(vec![1.0, 0.25]).distance(&a, &b), 5.0);
        let inverse = Measure::Mahalanobis(vec![1.0, 0.5, 0.5, 1.0]);
        assert!((inverse.distance(&a, &b) - 7f64.sqrt()).abs() < 1e-15);
    }
}
