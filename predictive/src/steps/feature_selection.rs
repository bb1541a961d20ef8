//! Selection of columns: by scores, by a model's importances, or as a search found them.

use crate::array::Array;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::Object;
use crate::steps::importance::importances;
use crate::steps::input::{self, Nan};
use crate::steps::transform::{Transform, numeric, select, transformer};
use crate::steps::{Builder, Estimator, InputSpec, OutputSpec, Row};
use crate::table::Table;
use crate::tensor::DataType;

pub(crate) static ESTIMATORS: &[Row] = &[
    Row { class: "VarianceThreshold", build: variance },
    Row { class: "SelectKBest", build: univariate },
    Row { class: "SelectPercentile", build: univariate },
    Row { class: "SelectFpr", build: univariate },
    Row { class: "SelectFdr", build: univariate },
    Row { class: "SelectFwe", build: univariate },
    Row { class: "GenericUnivariateSelect", build: univariate },
    Row { class: "SelectFromModel", build: from_model },
    Row { class: "SequentialFeatureSelector", build: sequential },
    Row { class: "RFE", build: elimination },
    Row { class: "RFECV", build: elimination },
];

/// Some of the columns.
struct Selection {
    kept: Vec<usize>,
    /// What numbers may be.
    nan: Nan,
}

impl Transform for Selection {
    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        if self.nan != Nan::Any && matches!(x, Table::Dense(_)) {
            numeric(x, self.nan)?;
        }
        Ok(select(x, &self.kept))
    }

    fn names(&self, input: Vec<String>) -> Option<Vec<String>> {
        Some(self.kept.iter().map(|&at| input[at].clone()).collect())
    }
}

/// The estimator that keeps the columns of a mask.
fn selection(object: Object<'_>, mask: &[bool], nan: Nan) -> Result<Box<dyn Estimator>, Fault> {
    transformer(object, Some(mask.len()), Selection { kept: kept(mask), nan })
}

fn kept(mask: &[bool]) -> Vec<usize> {
    (0..mask.len()).filter(|&at| mask[at]).collect()
}

fn variance(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let threshold = object.f64("threshold")?;
    let variances = object.vector("variances_", None)?;
    let mask: Vec<bool> = variances.iter().map(|&variance| variance > threshold).collect();
    selection(object, &mask, Nan::Allow)
}

/// `support_`, the mask that a search stored.
fn support(object: Object<'_>) -> Result<Vec<bool>, Fault> {
    Ok(object.vector("support_", None)?.iter().map(|&kept| kept != 0.0).collect())
}

fn sequential(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    selection(object, &support(object)?, Nan::Any)
}

fn univariate(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let (mode, parameter) = match object.class {
        "SelectKBest" => ("k_best", "k"),
        "SelectPercentile" => ("percentile", "percentile"),
        "SelectFpr" => ("fpr", "alpha"),
        "SelectFdr" => ("fdr", "alpha"),
        "SelectFwe" => ("fwe", "alpha"),
        _ => (object.str("mode")?, "param"),
    };
    let scores = || object.vector("scores_", None);
    let chances = || object.vector("pvalues_", None);
    let mask = match mode {
        "k_best" if object.attribute(parameter)?.as_str() == Some("all") => {
            vec![true; scores()?.len()]
        }
        "k_best" => best(&scores()?, object.usize(parameter)?),
        "percentile" => percentile(&scores()?, object.f64(parameter)?),
        "fpr" => below(&chances()?, object.f64(parameter)?),
        "fdr" => {
            let (chances, alpha) = (chances()?, object.f64(parameter)?);
            let mut sorted = chances.clone();
            sorted.sort_by(f64::total_cmp);
            let count = sorted.len() as f64;
            let fits =
                |&(rank, &chance): &(usize, &f64)| chance <= alpha / count * (rank + 1) as f64;
            let last =
                sorted.iter().enumerate().filter(fits).map(|(_, &chance)| chance).next_back();
            chances.iter().map(|&chance| last.is_some_and(|last| chance <= last)).collect()
        }
        "fwe" => {
            let chances = chances()?;
            below(&chances, object.f64(parameter)? / chances.len() as f64)
        }
        other => return Err(object.wrong("mode", format!("{other:?} is not known"))),
    };
    selection(object, &mask, Nan::Refuse)
}

fn below(values: &[f64], bound: f64) -> Vec<bool> {
    values.iter().map(|&value| value < bound).collect()
}

/// The highest scores; NaN is the lowest, and of equal ones the last are kept.
fn best(scores: &[f64], count: usize) -> Vec<bool> {
    let scores: Vec<f64> = cleaned(scores);
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let mut mask = vec![false; scores.len()];
    order.iter().rev().take(count).for_each(|&at| mask[at] = true);
    mask
}

fn cleaned(scores: &[f64]) -> Vec<f64> {
    scores.iter().map(|&score| if score.is_nan() { f64::MIN } else { score }).collect()
}

/// The scores above a percentile, and of those at it the first as long as there is room.
fn percentile(scores: &[f64], percent: f64) -> Vec<bool> {
    if percent >= 100.0 || percent <= 0.0 || scores.is_empty() {
        return vec![percent >= 100.0; scores.len()];
    }
    let scores = cleaned(scores);
    let mut sorted = scores.clone();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len() - 1) as f64 * (100.0 - percent) / 100.0;
    let (low, rest) = (place.floor() as usize, place.fract());
    let high = (low + 1).min(sorted.len() - 1);
    let span = sorted[high] - sorted[low];
    // As numpy: from the nearer end, so that the ends are exact.
    let threshold =
        if rest < 0.5 { sorted[low] + span * rest } else { sorted[high] - span * (1.0 - rest) };
    let mut mask: Vec<bool> = scores.iter().map(|&score| score > threshold).collect();
    let room = (scores.len() as f64 * percent / 100.0) as usize;
    let room = room.saturating_sub(mask.iter().filter(|&&kept| kept).count());
    let ties = scores.iter().enumerate().filter(|&(_, &score)| score == threshold);
    ties.take(room).for_each(|(at, _)| mask[at] = true);
    mask
}

fn from_model(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let fitted = object.some("estimator_").or(object.some("estimator"));
    let wrong = || object.wrong("estimator_", "expected a fitted estimator");
    let model = fitted.and_then(|value| value.as_object()).ok_or_else(wrong)?;
    let getter = object.some("importance_getter").map(|getter| (getter.as_str(), getter));
    let attribute = match getter {
        None | Some((Some("auto"), _)) => None,
        Some((Some(name), _)) => Some(name),
        Some((None, getter)) => {
            let what = format!("{}.importance_getter is {}", object.class, getter.describe());
            return Err(Fault::unsupported(format!(
                "{what}; auto or the name of an attribute is known"
            )));
        }
    };
    let scores = importances(model, attribute, object.f64("norm_order")?)?;
    let threshold = threshold(object, model, &scores)?;
    let limit = object.some("max_features").map(|_| match object.some("max_features_") {
        Some(_) => object.usize("max_features_"),
        None => object.usize("max_features"),
    });
    let mut mask = vec![true; scores.len()];
    if let Some(limit) = limit.transpose()? {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        order.iter().skip(limit).for_each(|&at| mask[at] = false);
    }
    mask.iter_mut().zip(&scores).for_each(|(kept, &score)| *kept &= score >= threshold);
    selection(object, &mask, Nan::Any)
}

/// The least importance that is kept: a number, `mean`, `median`, or one of them times a number.
fn threshold(object: Object<'_>, model: Object<'_>, scores: &[f64]) -> Result<f64, Fault> {
    let value = object.some("threshold");
    if let Some(number) = value.and_then(|value| value.as_f64()) {
        return Ok(number);
    }
    let text = match value {
        Some(value) => value.as_str().ok_or_else(|| {
            object.wrong(
                "threshold",
                format!("expected a number or text, found {}", value.describe()),
            )
        })?,
        None if is_sparse_model(model) => return Ok(1e-5),
        None => "mean",
    };
    let (scale, reference) = text.split_once('*').unwrap_or(("1", text));
    let reference = match reference.trim() {
        "mean" => scores.iter().sum::<f64>() / scores.len() as f64,
        "median" => {
            let mut sorted = scores.to_vec();
            sorted.sort_by(f64::total_cmp);
            let middle = sorted.len() / 2;
            match sorted.len() {
                0 => f64::NAN,
                count if count % 2 == 0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
                _ => sorted[middle],
            }
        }
        _ => return Err(object.wrong("threshold", format!("{text:?} is not known"))),
    };
    let wrong = || object.wrong("threshold", format!("{text:?} does not start with a number"));
    Ok(scale.trim().parse::<f64>().map_err(|_| wrong())? * reference)
}

/// Whether a model drives coefficients to 0, so that the default threshold is near it.
fn is_sparse_model(model: Object<'_>) -> bool {
    let l1 = model.some("penalty").and_then(|penalty| penalty.as_str()) == Some("l1");
    let one = |name: &str| {
        let ratio = model.some(name).and_then(|_| model.vector(name, None).ok());
        ratio.is_some_and(|ratio| ratio.iter().all(|ratio| (ratio - 1.0).abs() < 1e-5))
    };
    // Logistic regressions count by their ratio only since the version that made the penalty one.
    let new = model.version().is_some_and(|version| version >= (1, 8));
    l1 || model.class.contains("Lasso")
        || model.class == "ElasticNet" && one("l1_ratio")
        || model.class == "ElasticNetCV" && one("l1_ratio_")
        || new && model.class == "LogisticRegression" && one("l1_ratio")
        || new && model.class == "LogisticRegressionCV" && one("l1_ratio_")
}

/// Columns that elimination left, and the model of them.
struct Elimination {
    class: String,
    input: InputSpec,
    kept: Vec<usize>,
    model: Box<dyn Estimator>,
    methods: Vec<Method>,
}

fn elimination(object: Object<'_>, builder: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mask = support(object)?;
    let input = input::spec(object)?;
    if input.columns.is_some_and(|columns| columns != mask.len()) {
        return Err(object.wrong("support_", "is not for the number of features"));
    }
    let input = InputSpec { columns: Some(mask.len()), ..input };
    let model = builder.build(object.object("estimator_")?)?;
    let mut methods = model.methods().to_vec();
    methods.retain(|&method| method != Method::Transform && method != Method::Apply);
    methods.push(Method::Transform);
    let class = object.class.to_owned();
    Ok(Box::new(Elimination { class, input, kept: kept(&mask), model, methods }))
}

impl Estimator for Elimination {
    fn name(&self) -> String {
        format!("{}({})", self.class, self.model.name())
    }

    fn input(&self) -> &InputSpec {
        &self.input
    }

    fn methods(&self) -> &[Method] {
        &self.methods
    }

    fn output_specs(&self, method: Method) -> Vec<OutputSpec> {
        match method {
            Method::Transform => vec![OutputSpec::columns(DataType::Fp64, self.kept.len())],
            _ => self.model.output_specs(method),
        }
    }

    fn classes(&self) -> &[Array] {
        self.model.classes()
    }

    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        Ok(select(input::align(x, &self.input)?.as_ref(), &self.kept))
    }

    fn predict(&self, x: &Table) -> Result<Array, PredictError> {
        self.model.predict(&self.transform(x)?)
    }

    fn predict_proba(&self, x: &Table) -> Result<Vec<Array>, PredictError> {
        self.model.predict_proba(&self.transform(x)?)
    }

    fn predict_log_proba(&self, x: &Table) -> Result<Vec<Array>, PredictError> {
        self.model.predict_log_proba(&self.transform(x)?)
    }

    fn decision_function(&self, x: &Table) -> Result<Array, PredictError> {
        self.model.decision_function(&self.transform(x)?)
    }

    fn score_samples(&self, x: &Table) -> Result<Array, PredictError> {
        self.model.score_samples(&self.transform(x)?)
    }

    fn output_names(&self) -> Option<Vec<String>> {
        let names = self.input.names.as_ref()?;
        Some(self.kept.iter().map(|&at| names[at].clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_scores_the_last_are_the_best_and_the_first_fill_a_percentile() {
        assert_eq!(best(&[1.0, f64::NAN, 2.0, 1.0], 2), [false, false, true, true]);
        assert_eq!(percentile(&[1.0, 1.0, 1.0, 2.0], 50.0), [true, false, false, true]);
    }
}
