//! The scikit-learn wrappers of pickles: labels, probabilities, rounds up to the best, their own missing value.

use super::booster::{Booster, Rounds};
use super::objective::first_maximum;
use super::read;
use crate::array::{Array, Values};
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::{Object, Value};
use crate::steps::{Builder, Estimator, InputSpec, OutputSpec, Row};
use crate::table::Table;
use crate::tensor::DataType;

/// The classes of pickles.
pub(crate) static ESTIMATORS: &[Row] = &[
    Row { class: "xgboost.Booster", build: booster },
    Row { class: "XGBModel", build: regressor },
    Row { class: "XGBRegressor", build: regressor },
    Row { class: "XGBRFRegressor", build: regressor },
    Row { class: "XGBRanker", build: regressor },
    Row { class: "DaskXGBRegressor", build: regressor },
    Row { class: "DaskXGBRFRegressor", build: regressor },
    Row { class: "DaskXGBRanker", build: regressor },
    Row { class: "XGBClassifier", build: classifier },
    Row { class: "XGBRFClassifier", build: classifier },
    Row { class: "DaskXGBClassifier", build: classifier },
    Row { class: "DaskXGBRFClassifier", build: classifier },
];

/// A pickled `Booster`, which uses all rounds.
fn booster(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    Ok(Box::new(model(object, Rounds::All)?))
}

/// The model of a pickled `Booster`.
fn model(object: Object<'_>, rounds: Rounds) -> Result<Booster, Fault> {
    if !object.module.starts_with("xgboost") {
        let (module, class) = (object.module, object.class);
        return Err(Fault::unsupported(format!("{module}.{class} is not a class of XGBoost")));
    }
    let handle = object.attribute("handle")?;
    let bytes = handle.as_bytes().ok_or_else(|| {
        let found = handle.describe();
        object.wrong("handle", format!("expected the bytes of a fitted model, found {found}"))
    })?;
    let raw = read(bytes).map_err(|fault| match fault {
        Fault::Corrupt { at, reason } => object.wrong(&format!("handle: {at}"), reason),
        unsupported => unsupported,
    })?;
    Booster::new(raw, rounds)
}

/// The model of a wrapper: rounds up to the best, its missing value.
fn wrapped(object: Object<'_>) -> Result<Booster, Fault> {
    let inner = object.object("_Booster").map_err(|fault| match object.some("_Booster") {
        Some(_) => fault,
        None => object.wrong("_Booster", "the estimator is not fitted"),
    })?;
    // Files of 1.x keep the best round as an attribute of the Python object too.
    let best = inner.some("best_iteration").and_then(Value::as_usize);
    let mut booster = model(inner, Rounds::Best(best))?;
    if let Some(objective) = object.some("objective")
        && objective.as_str().is_none()
    {
        let found = objective.describe();
        let reason = format!("{found}: objectives that are functions are not supported");
        return Err(object.wrong("objective", reason));
    }
    if object.some("missing").is_some() {
        booster.set_missing(object.f64("missing")? as f32);
    }
    Ok(booster)
}

/// A regressor or ranker: answers as the model does.
struct Regressor {
    class: String,
    booster: Booster,
}

fn regressor(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    Ok(Box::new(Regressor { class: object.class.to_owned(), booster: wrapped(object)? }))
}

impl Estimator for Regressor {
    fn name(&self) -> String {
        self.class.clone()
    }

    fn input(&self) -> &InputSpec {
        self.booster.input()
    }

    fn methods(&self) -> &[Method] {
        self.booster.methods()
    }

    fn output_specs(&self, method: Method) -> Vec<OutputSpec> {
        self.booster.output_specs(method)
    }

    fn predict(&self, x: &Table) -> Result<Array, PredictError> {
        self.booster.predict(x)
    }

    fn decision_function(&self, x: &Table) -> Result<Array, PredictError> {
        self.booster.decision_function(x)
    }

    fn apply(&self, x: &Table) -> Result<Array, PredictError> {
        self.booster.apply(x)
    }
}

/// A classifier.
struct Classifier {
    class: String,
    booster: Booster,
    methods: Vec<Method>,
    /// Labels in the order of the columns of probabilities.
    classes: Array,
}

fn classifier(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let booster = wrapped(object)?;
    let encoder = object.some("_le").and_then(Value::as_object);
    let classes = match encoder {
        Some(encoder) => {
            let classes = encoder.array("classes_")?;
            if classes.shape().len() != 1 {
                return Err(encoder.wrong("classes_", "expected one dimension"));
            }
            classes.clone()
        }
        // `classes_` of 1.x holds the labels in the width of the training data; predictions do not.
        None => {
            let classes = object.usize("n_classes_")?;
            let labels = i64::try_from(classes).ok().filter(|_| classes <= 1 << 20);
            let labels = labels.ok_or_else(|| {
                object.wrong("n_classes_", format!("{classes} classes are too many"))
            })?;
            Array::i64(vec![classes], (0..labels).collect())
        }
    };
    if classes.len() < 2 {
        return Err(object.wrong("n_classes_", "a classifier has at least two classes"));
    }
    if booster.outputs() > 1 && classes.len() > 2 && booster.outputs() != classes.len() {
        let (outputs, known) = (booster.outputs(), classes.len());
        return Err(object.wrong("n_classes_", format!("{outputs} outputs for {known} classes")));
    }
    let mut methods = booster.methods().to_vec();
    methods.insert(1, Method::PredictProba);
    Ok(Box::new(Classifier { class: object.class.to_owned(), booster, methods, classes }))
}

impl Classifier {
    /// What the model says, always with the numbers of each class.
    fn scores(&self, x: &Table) -> Result<Array, PredictError> {
        match self.booster.predicts_classes() {
            true => self.booster.softmax_of_margins(x),
            false => self.booster.predict(x),
        }
    }

    /// Labels of class numbers.
    fn labels(&self, classes: &[usize]) -> Array {
        self.classes.take(vec![classes.len()], classes)
    }
}

impl Estimator for Classifier {
    fn name(&self) -> String {
        self.class.clone()
    }

    fn input(&self) -> &InputSpec {
        self.booster.input()
    }

    fn methods(&self) -> &[Method] {
        &self.methods
    }

    fn output_specs(&self, method: Method) -> Vec<OutputSpec> {
        let outputs = self.booster.outputs();
        let several = outputs > 1 && self.classes.len() == 2 && !self.booster.is_multi_class();
        match method {
            Method::Predict if several => vec![OutputSpec::columns(DataType::Fp64, outputs)],
            Method::Predict => vec![OutputSpec::values(self.classes.dtype())],
            Method::PredictProba => vec![OutputSpec::columns(DataType::Fp32, outputs.max(2))],
            _ => self.booster.output_specs(method),
        }
    }

    fn classes(&self) -> &[Array] {
        std::slice::from_ref(&self.classes)
    }

    fn predict(&self, x: &Table) -> Result<Array, PredictError> {
        let scores = self.scores(x)?;
        let Values::F32(values) = scores.values() else {
            return Err(PredictError::Internal("scores are single precision".into()));
        };
        Ok(match *scores.shape() {
            [_, outputs] if self.classes.len() != 2 || self.booster.is_multi_class() => {
                let rows = values.chunks_exact(outputs);
                self.labels(&rows.map(first_maximum).collect::<Vec<_>>())
            }
            [rows, outputs] => {
                let labels = values.iter().map(|&p| f64::from(u8::from(p > 0.5)));
                Array::f64(vec![rows, outputs], labels.collect())
            }
            _ => self.labels(&values.iter().map(|&p| usize::from(p > 0.5)).collect::<Vec<_>>()),
        })
    }

    fn predict_proba(&self, x: &Table) -> Result<Vec<Array>, PredictError> {
        let scores = self.scores(x)?;
        let ([rows], Values::F32(values)) = (scores.shape(), scores.values()) else {
            return Ok(vec![scores]);
        };
        let both = values.iter().flat_map(|&p| [1.0 - p, p]).collect();
        Ok(vec![Array::f32(vec![*rows, 2], both)])
    }

    fn decision_function(&self, x: &Table) -> Result<Array, PredictError> {
        self.booster.decision_function(x)
    }

    fn apply(&self, x: &Table) -> Result<Array, PredictError> {
        self.booster.apply(x)
    }
}
