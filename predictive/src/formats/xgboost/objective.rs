//! Objectives: from the stored base score to the margin that sums start from, and from margins to predictions.
//!
//! All arithmetic is in single precision, operation by operation as the library does it.

use crate::error::Fault;

/// How base scores and margins are transformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Objective {
    /// The margin is the prediction.
    Identity,
    /// A probability.
    Logistic,
    /// 1 where the margin is positive.
    Hinge,
    /// A positive mean.
    Exponential,
    /// A probability per class.
    SoftProbability,
    /// The most probable class.
    SoftMax,
    /// Several expectiles of a row, which must not cross.
    Expectile,
}

/// Every objective by its name in files.
const OBJECTIVES: &[(&str, Objective)] = &[
    ("reg:squarederror", Objective::Identity),
    ("reg:linear", Objective::Identity),
    ("reg:squaredlogerror", Objective::Identity),
    ("reg:pseudohubererror", Objective::Identity),
    ("reg:absoluteerror", Objective::Identity),
    ("reg:quantileerror", Objective::Identity),
    ("reg:expectileerror", Objective::Expectile),
    ("reg:logistic", Objective::Logistic),
    ("binary:logistic", Objective::Logistic),
    ("binary:logitraw", Objective::Identity),
    ("binary:hinge", Objective::Hinge),
    ("multi:softprob", Objective::SoftProbability),
    ("multi:softmax", Objective::SoftMax),
    ("count:poisson", Objective::Exponential),
    ("reg:gamma", Objective::Exponential),
    ("reg:tweedie", Objective::Exponential),
    ("survival:cox", Objective::Exponential),
    ("survival:aft", Objective::Exponential),
    ("rank:pairwise", Objective::Identity),
    ("rank:ndcg", Objective::Identity),
    ("rank:map", Objective::Identity),
];

/// What the library keeps between two expectiles.
const EXPECTILE_GAP: f32 = 1e-6;

impl Objective {
    /// The objective of a name.
    pub(super) fn from_name(name: &str) -> Result<Self, Fault> {
        let found = OBJECTIVES.iter().find(|(known, _)| *known == name);
        found.map(|(_, objective)| *objective).ok_or_else(|| {
            let known: Vec<&str> = OBJECTIVES.iter().map(|(name, _)| *name).collect();
            let known = known.join(", ");
            Fault::unsupported(format!("the objective {name:?} is not known; known are {known}"))
        })
    }

    /// Whether a row's result has one number per class, whatever their number.
    pub(super) fn is_multi_class(self) -> bool {
        matches!(self, Objective::SoftProbability | Objective::SoftMax)
    }

    /// Margins of base scores, in place.
    pub(super) fn link(self, scores: &mut [f32]) -> Result<(), Fault> {
        match self {
            Objective::Logistic => {
                for score in &mut *scores {
                    let p = score.clamp(1e-6, 1.0 - 1e-6);
                    *score = -(1.0 / p - 1.0).ln();
                }
            }
            Objective::Exponential => scores.iter_mut().for_each(|score| *score = score.ln()),
            Objective::Expectile => {
                for index in (1..scores.len()).rev() {
                    let gap = scores[index] - scores[index - 1] - EXPECTILE_GAP;
                    scores[index] = gap + (-(-gap).exp_m1()).ln();
                }
            }
            _ => {}
        }
        match scores.iter().all(|score| score.is_finite()) {
            true => Ok(()),
            false => {
                let at = "learner.learner_model_param.base_score";
                Err(Fault::corrupt(at, "is out of the range of the objective"))
            }
        }
    }

    /// Predictions of margins, rows of `outputs` numbers; one number a row for [`Objective::SoftMax`].
    pub(super) fn predictions(self, mut margins: Vec<f32>, outputs: usize) -> Vec<f32> {
        match self {
            Objective::Identity => {}
            Objective::Logistic => margins.iter_mut().for_each(|x| *x = sigmoid(*x)),
            Objective::Hinge => {
                margins.iter_mut().for_each(|x| *x = f32::from(u8::from(*x > 0.0)));
            }
            Objective::Exponential => margins.iter_mut().for_each(|x| *x = x.exp()),
            Objective::SoftProbability => margins.chunks_exact_mut(outputs).for_each(softmax),
            Objective::SoftMax => {
                return margins
                    .chunks_exact(outputs)
                    .map(|row| first_maximum(row) as f32)
                    .collect();
            }
            Objective::Expectile => margins.chunks_exact_mut(outputs).for_each(|row| {
                for index in 1..row.len() {
                    let softplus = row[index].max(0.0) + (-row[index].abs()).exp().ln_1p();
                    row[index] = row[index - 1] + EXPECTILE_GAP + softplus;
                }
            }),
        }
        margins
    }
}

fn sigmoid(x: f32) -> f32 {
    let t = (-x).min(88.7).exp();
    1.0 / ((t + 1.0) + 1e-16)
}

/// Probabilities of a row of margins: the sum alone is in double precision.
pub(super) fn softmax(row: &mut [f32]) {
    let maximum = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|x| *x = (*x - maximum).exp());
    let sum = row.iter().copied().map(f64::from).sum::<f64>() as f32;
    row.iter_mut().for_each(|x| *x /= sum);
}

/// Index of the first of the largest numbers.
pub(super) fn first_maximum(row: &[f32]) -> usize {
    (1..row.len()).fold(0, |best, index| if row[index] > row[best] { index } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expectiles_come_back_from_their_base_scores_in_order() {
        let mut scores = vec![0.25, 0.5, 3.5];
        Objective::Expectile.link(&mut scores).unwrap();
        let rows = Objective::Expectile.predictions(scores, 3);
        for (got, wanted) in rows.iter().zip([0.25, 0.5, 3.5]) {
            assert!((got - wanted).abs() < 1e-6, "{got} is {wanted}");
        }
        let crossing = Objective::Expectile.predictions(vec![1.0, -5.0, -200.0], 3);
        assert!(crossing.is_sorted(), "{crossing:?}");
        assert!(Objective::Expectile.link(&mut [1.0, 0.5]).is_err());
    }

    #[test]
    fn extreme_margins_stay_finite() {
        let p = Objective::Logistic.predictions(vec![-1e30, -88.0, 0.0, 1e30], 1);
        assert!(p.iter().all(|p| p.is_finite()) && p[2] == 0.5 && p[3] == 1.0, "{p:?}");
        assert_eq!(first_maximum(&[1.0, 3.0, 3.0]), 1);
    }

    #[test]
    fn unknown_objectives_are_named() {
        let error = Objective::from_name("reg:custom").unwrap_err().to_string();
        assert!(error.contains("reg:custom") && error.contains("multi:softprob"), "{error}");
    }
}
