//! Wrappers that answer what one fitted estimator answers: searches, frozen estimators, self-training.

use crate::array::Array;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::Object;
use crate::steps::{Builder, Estimator, InputSpec, OutputSpec, Row};
use crate::table::Table;

/// Wrappers by the attribute of what they wrap.
pub(crate) static ESTIMATORS: &[Row] = &[
    Row { class: "GridSearchCV", build: search },
    Row { class: "RandomizedSearchCV", build: search },
    Row { class: "HalvingGridSearchCV", build: search },
    Row { class: "HalvingRandomSearchCV", build: search },
    Row { class: "SelfTrainingClassifier", build: self_training },
    Row { class: "FrozenEstimator", build: frozen },
];

/// A wrapper.
struct Delegate {
    name: String,
    inner: Box<dyn Estimator>,
}

fn wrap(object: Object<'_>, name: &str, builder: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let inner = builder.build(object.object(name)?)?;
    Ok(Box::new(Delegate { name: super::wrapped(object.class, inner.as_ref()), inner }))
}

fn search(object: Object<'_>, builder: Builder) -> Result<Box<dyn Estimator>, Fault> {
    if object.some("best_estimator_").is_none() {
        let reason = "is missing; fit the search with refit, so that it holds an estimator";
        return Err(object.wrong("best_estimator_", reason));
    }
    wrap(object, "best_estimator_", builder)
}

fn self_training(object: Object<'_>, builder: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let old = object.some("base_estimator_").is_some();
    wrap(object, if old { "base_estimator_" } else { "estimator_" }, builder)
}

fn frozen(object: Object<'_>, builder: Builder) -> Result<Box<dyn Estimator>, Fault> {
    wrap(object, "estimator", builder)
}

impl Estimator for Delegate {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn input(&self) -> &InputSpec {
        self.inner.input()
    }

    fn methods(&self) -> &[Method] {
        self.inner.methods()
    }

    fn output_specs(&self, method: Method) -> Vec<OutputSpec> {
        self.inner.output_specs(method)
    }

    fn classes(&self) -> &[Array] {
        self.inner.classes()
    }

    fn predict(&self, x: &Table) -> Result<Array, PredictError> {
        self.inner.predict(x)
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

    fn score_samples(&self, x: &Table) -> Result<Array, PredictError> {
        self.inner.score_samples(x)
    }

    fn apply(&self, x: &Table) -> Result<Array, PredictError> {
        self.inner.apply(x)
    }

    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        self.inner.transform(x)
    }

    fn inverse_transform(&self, x: &Table) -> Result<Table, PredictError> {
        self.inner.inverse_transform(x)
    }

    fn output_names(&self) -> Option<Vec<String>> {
        self.inner.output_names()
    }
}
