//! `SplineTransformer`: the B-spline bases of columns.

use crate::error::Fault;
use crate::model::PredictError;
use crate::pickle::Object;
use crate::steps::input::Nan;
use crate::steps::transform::{Transform, numeric, to_sparse, transformer};
use crate::steps::{Builder, Estimator, Row};
use crate::table::Table;

pub(crate) static ESTIMATORS: &[Row] = &[Row { class: "SplineTransformer", build }];

/// The highest degree that is accepted.
const MAX_DEGREE: usize = 32;

/// What lies beyond the outermost knots.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beyond {
    Refused,
    Constant,
    Linear,
    Continued,
    Periodic,
}

struct Spline {
    knots: Vec<f64>,
    degree: usize,
    /// `[bases, outputs]`, row-major.
    coefficients: Vec<f64>,
    outputs: usize,
    /// The outermost knots that count as inside, and how many outputs at each side are not zero beyond them.
    range: (f64, f64),
    reach: usize,
}

struct SplineTransformer {
    splines: Vec<Spline>,
    outputs: usize,
    beyond: Beyond,
    bias: bool,
    sparse: bool,
    missing: bool,
}

fn build(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let beyond = match object.str("extrapolation")? {
        "error" => Beyond::Refused,
        "constant" => Beyond::Constant,
        "linear" => Beyond::Linear,
        "continue" => Beyond::Continued,
        "periodic" => Beyond::Periodic,
        other => return Err(object.wrong("extrapolation", format!("{other:?} is not known"))),
    };
    let mut splines: Vec<Spline> = Vec::new();
    for item in object.list("bsplines_")? {
        let wrong = || object.wrong("bsplines_", "expected a BSpline for each column");
        let spline = Spline::new(item.as_object().ok_or_else(wrong)?, splines.len(), beyond)?;
        if splines.first().is_some_and(|first| first.outputs != spline.outputs) {
            return Err(object.wrong("bsplines_", "have different numbers of outputs"));
        }
        splines.push(spline);
    }
    let outputs = splines.first().map_or(0, |spline| spline.outputs);
    let flag = |name: &str| object.some(name).and_then(|value| value.as_bool()).unwrap_or(false);
    let missing = object.some("handle_missing").and_then(|value| value.as_str()) == Some("zeros");
    let (bias, sparse) = (object.bool("include_bias")?, flag("sparse_output"));
    let count = splines.len();
    let inner = SplineTransformer { splines, outputs, beyond, bias, sparse, missing };
    transformer(object, Some(count), inner)
}

impl Spline {
    fn new(object: Object<'_>, column: usize, beyond: Beyond) -> Result<Self, Fault> {
        let name = |old: &'static str, new: &'static str| {
            if object.some(new).is_some() { new } else { old }
        };
        let knots = object.vector(name("t", "_t"), None)?;
        let (rows, outputs, coefficients) = object.matrix(name("c", "_c"))?;
        let degree = object.usize("k")?;
        if degree > MAX_DEGREE || knots.len() < 2 * degree + 2 || rows != knots.len() - degree - 1 {
            let reason =
                format!("{} knots and {rows} bases do not fit degree {degree}", knots.len());
            return Err(object.wrong("t", reason));
        }
        if outputs < degree.max(1) || !knots.is_sorted() {
            return Err(
                object.wrong("t", "knots descend, or there are fewer outputs than the degree")
            );
        }
        // The library raises a degree below 2 by one at each column, and takes the knots of columns after by that.
        let linear = beyond == Beyond::Linear;
        let edge = if linear && degree < 2 { (degree + column).min(2) } else { degree };
        let reach = if linear && edge < 2 { edge + 1 } else { edge };
        let (Some(&low), Some(at)) = (knots.get(edge), knots.len().checked_sub(edge + 1)) else {
            return Err(object.wrong("t", "has too few knots"));
        };
        let range = (low, knots[at]);
        Ok(Spline { knots, degree, coefficients, outputs, range, reach })
    }

    /// The interval of knots that `x` counts to: the first or last one beyond them.
    fn interval(&self, x: f64) -> usize {
        let last = self.knots.len() - self.degree - 2;
        let inner = &self.knots[self.degree + 1..=last];
        self.degree + inner.partition_point(|&knot| knot <= x)
    }

    /// The bases of `degree` at `x` that are not zero in its interval (Cox and de Boor).
    fn bases(&self, x: f64, degree: usize) -> Vec<f64> {
        let at = self.interval(x);
        let mut bases = vec![1.0];
        for k in 1..=degree {
            let mut next = vec![0.0; k + 1];
            for (j, basis) in bases.iter().enumerate() {
                let (left, right) = (self.knots[at + j + 1 - k], self.knots[at + j + 1]);
                if right == left {
                    continue;
                }
                let part = basis / (right - left);
                next[j] += part * (right - x);
                next[j + 1] += part * (x - left);
            }
            bases = next;
        }
        bases
    }

    fn combine(&self, first: usize, bases: &[f64]) -> Vec<f64> {
        let mut answer = vec![0.0; self.outputs];
        for (j, basis) in bases.iter().enumerate() {
            let row = &self.coefficients[(first + j) * self.outputs..][..self.outputs];
            answer.iter_mut().zip(row).for_each(|(sum, value)| *sum += basis * value);
        }
        answer
    }

    fn value(&self, x: f64) -> Vec<f64> {
        self.combine(self.interval(x) - self.degree, &self.bases(x, self.degree))
    }

    fn slope(&self, x: f64) -> Vec<f64> {
        let (k, at) = (self.degree, self.interval(x));
        if k == 0 {
            return vec![0.0; self.outputs];
        }
        let mut slopes = vec![0.0; k + 1];
        for (j, basis) in self.bases(x, k - 1).iter().enumerate() {
            let width = self.knots[at + j + 1] - self.knots[at + j + 1 - k];
            if width > 0.0 {
                slopes[j] -= k as f64 * basis / width;
                slopes[j + 1] += k as f64 * basis / width;
            }
        }
        self.combine(at - k, &slopes)
    }

    /// The outputs at `x`; `None` beyond the knots where that is refused.
    fn outputs(&self, x: f64, beyond: Beyond) -> Option<Vec<f64>> {
        let (low, high) = self.range;
        if (low..=high).contains(&x) {
            return Some(self.value(x));
        }
        let edge = if x < low { low } else { high };
        match beyond {
            Beyond::Refused => None,
            Beyond::Continued => Some(self.value(x)),
            Beyond::Periodic if high > low => {
                Some(self.value(low + (x - low).rem_euclid(high - low)))
            }
            Beyond::Periodic => Some(self.value(0.0)),
            Beyond::Constant | Beyond::Linear => {
                let linear = beyond == Beyond::Linear;
                let near = |at: usize| match x < low {
                    true => at < self.reach,
                    false => at + self.reach >= self.outputs,
                };
                let (mut answer, slope) = (self.value(edge), self.slope(edge));
                for (at, (value, slope)) in answer.iter_mut().zip(slope).enumerate() {
                    let moved = if linear { *value + (x - edge) * slope } else { *value };
                    *value = if near(at) { moved } else { 0.0 };
                }
                Some(answer)
            }
        }
    }
}

impl Transform for SplineTransformer {
    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        let x = numeric(x, if self.missing { Nan::Allow } else { Nan::Refuse })?;
        let kept = if self.bias { self.outputs } else { self.outputs.saturating_sub(1) };
        let width = kept * self.splines.len();
        let mut answer = Vec::with_capacity(x.rows * width);
        for (at, &value) in x.to_f64().iter().enumerate() {
            if value.is_nan() {
                answer.extend(std::iter::repeat_n(0.0, kept));
                continue;
            }
            let outputs = self.splines[at % x.columns].outputs(value, self.beyond);
            let outside =
                || PredictError::input("X contains values beyond the limits of the knots");
            answer.extend_from_slice(&outputs.ok_or_else(outside)?[..kept]);
        }
        let answer = x.like(x.rows, width, answer);
        Ok(if self.sparse { Table::Sparse(to_sparse(&answer)) } else { Table::Dense(answer) })
    }

    fn names(&self, input: Vec<String>) -> Option<Vec<String>> {
        let kept = if self.bias { self.outputs } else { self.outputs.saturating_sub(1) };
        let of = |name: String| (0..kept).map(move |at| format!("{name}_sp_{at}"));
        Some(input.into_iter().flat_map(of).collect())
    }
}
