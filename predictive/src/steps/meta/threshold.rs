//! Classifiers of two classes that decide at a threshold of their own.

use crate::array::Array;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::{Object, Value};
use crate::steps::meta::{column, numbers, one, spec, wrapped};
use crate::steps::{Builder, Estimator, InputSpec, OutputSpec, Row, labels, output};
use crate::table::Table;

/// Thresholds.
pub(crate) static ESTIMATORS: &[Row] = &[
    Row { class: "FixedThresholdClassifier", build: build_fixed },
    Row { class: "TunedThresholdClassifierCV", build: build_tuned },
];

/// A classifier and where it decides.
struct Threshold {
    name: String,
    spec: InputSpec,
    inner: Box<dyn Estimator>,
    /// What is compared: probabilities or decisions.
    method: Method,
    threshold: f64,
    /// Number of the class that scores at or above the threshold mean.
    positive: usize,
}

fn build_fixed(object: Object<'_>, builder: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let attribute = if object.some("estimator_").is_some() { "estimator_" } else { "estimator" };
    let inner = builder.build(object.object(attribute)?)?;
    let method = method(object, inner.as_ref())?;
    let given = object.attribute("threshold")?;
    let threshold = match (given.as_str(), method) {
        (Some("auto"), Method::PredictProba) => 0.5,
        (Some("auto"), _) => 0.0,
        _ => object.f64("threshold")?,
    };
    build(object, inner, method, threshold, object.some("pos_label"))
}

fn build_tuned(object: Object<'_>, builder: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let inner = builder.build(object.object("estimator_")?)?;
    let method = method(object, inner.as_ref())?;
    let threshold = object.f64("best_threshold_")?;
    let scorer = object.object("_curve_scorer")?;
    let given = scorer.get("_kwargs").and_then(|kwargs| kwargs.key("pos_label"));
    // A scorer without the argument uses its function's default: 1 for those below, the second class for the others.
    let function = scorer.get("_score_func").and_then(Value::as_global).map(|(_, name)| name);
    let defaults_to_one = [
        "f1_score",
        "fbeta_score",
        "jaccard_score",
        "precision_score",
        "recall_score",
        "average_precision_score",
    ];
    let defaults = function.is_some_and(|name| defaults_to_one.contains(&name));
    match given {
        Some(value) => {
            let value = (!value.is_none()).then_some(value);
            build(object, inner, method, threshold, value)
        }
        None if defaults => {
            let one = Array::i64(vec![1], vec![1]);
            let place = inner.classes().first().map(|classes| labels::positions(classes, &one)[0]);
            let positive = place.flatten().unwrap_or(1);
            finish(object, inner, method, threshold, positive)
        }
        None => build(object, inner, method, threshold, None),
    }
}

/// The method that `response_method` names.
fn method(object: Object<'_>, inner: &dyn Estimator) -> Result<Method, Fault> {
    let has = |method: Method| inner.methods().contains(&method);
    let wanted = object.get("response_method").and_then(Value::as_str).unwrap_or("auto");
    let method = match wanted {
        "auto" if has(Method::PredictProba) => Some(Method::PredictProba),
        "auto" => Some(Method::DecisionFunction),
        "predict_proba" => Some(Method::PredictProba),
        "decision_function" => Some(Method::DecisionFunction),
        _ => None,
    };
    method.filter(|method| has(*method)).ok_or_else(|| {
        object.wrong("response_method", format!("{} has no method {wanted:?}", inner.name()))
    })
}

fn build(
    object: Object<'_>,
    inner: Box<dyn Estimator>,
    method: Method,
    threshold: f64,
    label: Option<Value<'_>>,
) -> Result<Box<dyn Estimator>, Fault> {
    let positive = match (label, inner.classes()) {
        (Some(label), [classes]) => {
            let array = match (label.as_str(), label.as_f64()) {
                (Some(text), _) => Some(Array::text(vec![1], vec![text.into()])),
                (None, Some(number)) => Some(Array::f64(vec![1], vec![number])),
                (None, None) => None,
            };
            let place = array.and_then(|array| labels::positions(classes, &array)[0]);
            place.ok_or_else(|| object.wrong("pos_label", "the label is none of the classes"))?
        }
        _ => 1,
    };
    finish(object, inner, method, threshold, positive)
}

fn finish(
    object: Object<'_>,
    inner: Box<dyn Estimator>,
    method: Method,
    threshold: f64,
    positive: usize,
) -> Result<Box<dyn Estimator>, Fault> {
    if !matches!(inner.classes(), [classes] if classes.len() == 2) {
        return Err(object.wrong("estimator_", "expected a classifier of two classes"));
    }
    let spec = spec(object, inner.as_ref())?;
    let name = wrapped(object.class, inner.as_ref());
    Ok(Box::new(Threshold { name, spec, inner, method, threshold, positive }))
}

impl Estimator for Threshold {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn input(&self) -> &InputSpec {
        &self.spec
    }

    fn methods(&self) -> &[Method] {
        self.inner.methods()
    }

    fn output_specs(&self, method: Method) -> Vec<OutputSpec> {
        match method {
            Method::Predict => output::usual(self.classes(), None, method),
            _ => self.inner.output_specs(method),
        }
    }

    fn classes(&self) -> &[Array] {
        self.inner.classes()
    }

    fn predict(&self, x: &Table) -> Result<Array, PredictError> {
        let rows = x.rows();
        let scores = match self.method {
            Method::PredictProba => {
                let proba = numbers(one(self.inner.predict_proba(x)?)?, rows, 2)?;
                proba.chunks_exact(2).map(|row| row[self.positive]).collect()
            }
            _ => {
                let mut scores = column(&self.inner.decision_function(x)?, rows)?;
                if self.positive == 0 {
                    scores.iter_mut().for_each(|score| *score = -*score);
                }
                scores
            }
        };
        let side = |score: &f64| match *score >= self.threshold {
            true => self.positive,
            false => 1 - self.positive,
        };
        let sides: Vec<usize> = scores.iter().map(side).collect();
        Ok(self.inner.classes()[0].take(vec![rows], &sides))
    }

    fn predict_proba(&self, x: &Table) -> Result<Vec<Array>, PredictError> {
        self.inner.predict_proba(x)
    }

    fn predict_log_proba(&self, x: &Table) -> Result<Vec<Array>, PredictError> {
        self.inner.predict_log_proba(x)
    }

    fn decision_function(&self, x: &Table) -> Result<Array, PredictError> {
        self.inner.decision_function(x)
    }
}
