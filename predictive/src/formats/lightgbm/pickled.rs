//! The library's objects inside pickles: `Booster` and the wrappers in the manner of scikit-learn.
//!
//! A pickled `Booster` holds the text model and `best_iteration`, the rounds that `predict` uses when it is above 0.

use super::booster::Booster;
use super::text;
use crate::array::Array;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::{Object, Value};
use crate::steps::input::labels;
use crate::steps::math::argmax_rows;
use crate::steps::{Builder, Estimator, InputSpec, OutputSpec, Row};
use crate::table::Table;
use crate::tensor::DataType;

/// The classes. A booster is called as XGBoost's is, so its row names the package too.
pub(crate) static ESTIMATORS: &[Row] = &[
    Row { class: "lightgbm.Booster", build: |object, _| Ok(Box::new(booster(object)?)) },
    Row { class: "LGBMClassifier", build: classifier },
    Row { class: "LGBMRegressor", build: wrapper },
    Row { class: "LGBMRanker", build: wrapper },
    Row { class: "LGBMModel", build: wrapper },
];

/// The booster of a `lightgbm.basic.Booster`.
fn booster(object: Object<'_>) -> Result<Booster, Fault> {
    let handle = object.some("_handle").or(object.some("handle"));
    let Some(model) = handle.and_then(Value::as_str) else {
        return Err(object.wrong("_handle", "expected the text model; the booster is not trained"));
    };
    let mut source = text::parse(model)?;
    let best = object.get("best_iteration").and_then(Value::as_i64).unwrap_or(0);
    match usize::try_from(best) {
        Ok(rounds) if rounds > 0 => source.truncate(rounds),
        _ => {}
    }
    Booster::new(source)
}

/// The booster of a wrapper.
fn inner(object: Object<'_>) -> Result<Booster, Fault> {
    let unfitted = "is missing; the estimator is not fitted";
    let inner = object.some("_Booster").ok_or_else(|| object.wrong("_Booster", unfitted))?;
    let inner = inner.as_object().ok_or_else(|| {
        object.wrong("_Booster", format!("expected a Booster, found {}", inner.describe()))
    })?;
    booster(inner)
}

fn wrapper(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let (name, booster) = (object.class.to_owned(), inner(object)?);
    Ok(Box::new(Wrapper { name, booster, classes: None }))
}

fn classifier(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let booster = inner(object)?;
    let name = object.class.to_owned();
    let objective = object.some("_objective").or(object.some("objective"));
    if objective.is_some_and(|objective| objective.as_str().is_none()) {
        // The answer of a custom objective is the raw score, also of predict.
        return Ok(Box::new(Wrapper { name, booster, classes: None }));
    }
    let classes = match object.some("_le").and_then(Value::as_object) {
        Some(encoder) => labels(encoder, "classes_")?,
        None => labels(object, "_classes")?,
    };
    let outputs = if classes.len() == 2 { 1 } else { classes.len() };
    if classes.len() < 2 || booster.outputs() != outputs {
        let reason = format!("{} classes for {} outputs", classes.len(), booster.outputs());
        return Err(object.wrong("_classes", reason));
    }
    Ok(Box::new(Wrapper { name, booster, classes: Some([classes]) }))
}

/// `LGBMClassifier` with its classes, or another wrapper, which answers as its booster.
struct Wrapper {
    name: String,
    booster: Booster,
    classes: Option<[Array; 1]>,
}

impl Wrapper {
    /// Probabilities of all classes, row major.
    fn probabilities(&self, classes: &Array, x: &Table) -> Result<Array, PredictError> {
        let scores = self.booster.predict(x)?;
        if classes.len() > 2 {
            return Ok(scores);
        }
        let scores = scores.to_f64().unwrap_or_default();
        let both = scores.iter().flat_map(|&score| [1.0 - score, score]).collect();
        Ok(Array::f64(vec![scores.len(), 2], both))
    }
}

impl Estimator for Wrapper {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn input(&self) -> &InputSpec {
        self.booster.input()
    }

    fn methods(&self) -> &[Method] {
        match self.classes {
            Some(_) => &[
                Method::Predict,
                Method::PredictProba,
                Method::PredictLogProba,
                Method::DecisionFunction,
                Method::Apply,
            ],
            None => self.booster.methods(),
        }
    }

    fn output_specs(&self, method: Method) -> Vec<OutputSpec> {
        match (&self.classes, method) {
            (Some([classes]), Method::Predict) => vec![OutputSpec::values(classes.dtype())],
            (Some([classes]), Method::PredictProba | Method::PredictLogProba) => {
                vec![OutputSpec::columns(DataType::Fp64, classes.len())]
            }
            _ => self.booster.output_specs(method),
        }
    }

    fn classes(&self) -> &[Array] {
        self.classes.as_ref().map_or(&[], |classes| classes)
    }

    fn predict(&self, x: &Table) -> Result<Array, PredictError> {
        let Some([classes]) = &self.classes else { return self.booster.predict(x) };
        let probabilities = self.probabilities(classes, x)?.to_f64().unwrap_or_default();
        let winners = argmax_rows(&probabilities, classes.len());
        Ok(classes.take(vec![winners.len()], &winners))
    }

    fn predict_proba(&self, x: &Table) -> Result<Vec<Array>, PredictError> {
        match &self.classes {
            Some([classes]) => Ok(vec![self.probabilities(classes, x)?]),
            None => Err(self.lacks(Method::PredictProba)),
        }
    }

    fn decision_function(&self, x: &Table) -> Result<Array, PredictError> {
        self.booster.decision_function(x)
    }

    fn apply(&self, x: &Table) -> Result<Array, PredictError> {
        self.booster.apply(x)
    }
}
