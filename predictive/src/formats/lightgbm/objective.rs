//! Objectives: from raw scores to what `predict` answers.

use crate::error::Fault;

/// The transform of an objective, in double precision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Objective {
    /// Raw scores are the answer: regression, ranking, custom objectives.
    Identity,
    /// Targets were square roots: `sign(r) * r * r`.
    SignedSquare,
    /// Poisson, gamma, Tweedie.
    Exponential,
    /// `1 / (1 + exp(-scale * r))` of each output: binary, one against all, cross entropy.
    Sigmoid(f64),
    /// Over all outputs of a row.
    Softmax,
    /// `log1p(exp(r))`: cross entropy with weights.
    LogOnePlusExp,
}

/// Regressions that know the word `sqrt`, with the aliases of old files.
const REGRESSION: &[&str] = &[
    "regression",
    "regression_l2",
    "l2",
    "mean_squared_error",
    "mse",
    "l2_root",
    "root_mean_squared_error",
    "rmse",
    "regression_l1",
    "l1",
    "mean_absolute_error",
    "mae",
    "fair",
    "quantile",
    "mape",
    "mean_absolute_percentage_error",
];

/// Rankings, with their aliases.
const RANKING: &[&str] =
    &["lambdarank", "rank_xendcg", "xendcg", "xe_ndcg", "xe_ndcg_mart", "xendcg_mart"];

/// The raw scores' number that an objective wants.
enum Outputs {
    Any,
    One,
    /// As many as `num_class`.
    Classes,
}

impl Objective {
    /// Reads the objective's line; `outputs` is the number of raw scores, `classes` is `num_class`.
    pub(super) fn parse(line: &str, outputs: usize, classes: usize) -> Result<Self, Fault> {
        let mut words = line.split_ascii_whitespace();
        let name = words.next().unwrap_or("none");
        let root = words.clone().any(|word| word == "sqrt");
        let sigmoid = || {
            let value = words.clone().find_map(|word| word.strip_prefix("sigmoid:")).unwrap_or("1");
            let scale: Option<f64> = value.parse().ok();
            let scale = scale.filter(|scale| *scale > 0.0 && scale.is_finite());
            let wrong = || format!("sigmoid: expected a number above 0, found {value:?}");
            scale.map(Objective::Sigmoid).ok_or_else(|| Fault::corrupt("objective", wrong()))
        };
        let (objective, wanted) = match name {
            "none" | "null" | "custom" | "na" => (Objective::Identity, Outputs::Any),
            name if REGRESSION.contains(&name) && root => (Objective::SignedSquare, Outputs::One),
            name if REGRESSION.contains(&name) || RANKING.contains(&name) => {
                (Objective::Identity, Outputs::One)
            }
            "huber" => (Objective::Identity, Outputs::One),
            "poisson" | "gamma" | "tweedie" => (Objective::Exponential, Outputs::One),
            "binary" => (sigmoid()?, Outputs::One),
            "cross_entropy" | "xentropy" => (Objective::Sigmoid(1.0), Outputs::One),
            "cross_entropy_lambda" | "xentlambda" => (Objective::LogOnePlusExp, Outputs::One),
            "multiclass" | "softmax" => (Objective::Softmax, Outputs::Classes),
            "multiclassova" | "multiclass_ova" | "ova" | "ovr" => (sigmoid()?, Outputs::Classes),
            other => {
                let what = format!("the objective {other:?} is not known");
                return Err(Fault::unsupported(what));
            }
        };
        let wanted = match wanted {
            Outputs::Any => outputs,
            Outputs::One => 1,
            Outputs::Classes => classes,
        };
        if outputs != wanted {
            let reason = format!("{name} has {wanted} outputs, but a round has {outputs} trees");
            return Err(Fault::corrupt("objective", reason));
        }
        Ok(objective)
    }

    /// Transforms rows of `outputs` raw scores.
    pub(super) fn apply(self, scores: &mut [f64], outputs: usize) {
        let each = |scores: &mut [f64], transform: &dyn Fn(f64) -> f64| {
            scores.iter_mut().for_each(|score| *score = transform(*score));
        };
        match self {
            Objective::Identity => {}
            Objective::SignedSquare => each(scores, &|raw| {
                let sign = f64::from(i8::from(raw > 0.0) - i8::from(raw < 0.0));
                sign * raw * raw
            }),
            Objective::Exponential => each(scores, &f64::exp),
            Objective::Sigmoid(scale) => each(scores, &|raw| 1.0 / (1.0 + (-scale * raw).exp())),
            Objective::LogOnePlusExp => each(scores, &|raw| raw.exp().ln_1p()),
            Objective::Softmax => scores.chunks_exact_mut(outputs).for_each(softmax),
        }
    }
}

fn softmax(row: &mut [f64]) {
    let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for value in row.iter_mut() {
        *value = (*value - largest).exp();
        sum += *value;
    }
    row.iter_mut().for_each(|value| *value /= sum);
}
