//! Estimators that ignore the rows.

use std::sync::Arc;

use crate::array::Array;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::{Object, Value};
use crate::steps::{Builder, Estimator, InputSpec, OutputSpec, Row, input, labels, math, tree};
use crate::table::Table;
use crate::tensor::DataType;

/// Dummies.
pub(crate) static ESTIMATORS: &[Row] = &[
    Row { class: "DummyClassifier", build: build_classifier },
    Row { class: "DummyRegressor", build: build_regressor },
    Row { class: "_ConstantPredictor", build: build_constant },
];

/// A constant label of each output, with its probabilities.
struct DummyClassifier {
    spec: InputSpec,
    classes: Vec<Array>,
    best: Vec<usize>,
    proba: Vec<Vec<f64>>,
}

/// A constant value of each output.
struct DummyRegressor {
    spec: InputSpec,
    constant: Vec<f64>,
}

fn build_classifier(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let strategy = match object.some("_strategy") {
        Some(_) => object.str("_strategy")?,
        None => object.str("strategy")?,
    };
    let classes = input::classes(object)?;
    let (best, proba): (Vec<usize>, Vec<Vec<f64>>) = match strategy {
        "prior" | "most_frequent" => {
            let is_prior = strategy == "prior";
            let likely = |prior: Vec<f64>| {
                let best = math::argmax(&prior);
                let proba = if is_prior { prior } else { one_hot(prior.len(), best) };
                (best, proba)
            };
            priors(object, &classes)?.into_iter().map(likely).unzip()
        }
        "constant" => constants(object, &classes)?
            .into_iter()
            .zip(&classes)
            .map(|(best, classes)| (best, one_hot(classes.len(), best)))
            .unzip(),
        other => {
            return Err(Fault::unsupported(format!(
                "DummyClassifier with the strategy {other:?} answers at random; supported are \
                 \"prior\", \"most_frequent\" and \"constant\""
            )));
        }
    };
    Ok(Box::new(DummyClassifier { spec: free(object)?, classes, best, proba }))
}

/// The input of an estimator that takes rows of any width.
fn free(object: Object<'_>) -> Result<InputSpec, Fault> {
    Ok(InputSpec { columns: None, ..input::spec(object)? })
}

fn one_hot(count: usize, hot: usize) -> Vec<f64> {
    (0..count).map(|index| f64::from(u8::from(index == hot))).collect()
}

/// `class_prior_`: an array, or one an output.
fn priors(object: Object<'_>, classes: &[Array]) -> Result<Vec<Vec<f64>>, Fault> {
    let wanted: Vec<usize> = classes.iter().map(Array::len).collect();
    let priors = if classes.len() == 1 {
        vec![object.vector("class_prior_", None)?]
    } else {
        let one = |value: Value<'_>| value.as_array()?.to_f64();
        let several: Option<Vec<_>> = object.list("class_prior_")?.into_iter().map(one).collect();
        several.unwrap_or_default()
    };
    match priors.iter().map(Vec::len).eq(wanted.iter().copied()) {
        true => Ok(priors),
        false => Err(object.wrong("class_prior_", format!("expected {wanted:?} numbers"))),
    }
}

/// The class number of `constant` in each output.
fn constants(object: Object<'_>, classes: &[Array]) -> Result<Vec<usize>, Fault> {
    let value = object.attribute("constant")?;
    let labels = match (value.as_array(), value.as_str(), value.as_f64()) {
        (_, Some(text), _) => Array::text(vec![1], vec![Arc::from(text)]),
        (_, None, Some(number)) => Array::f64(vec![1], vec![number]),
        (Some(array), ..) => array.clone().reshaped(vec![array.len()]),
        _ => input::label_array(value).ok_or_else(|| {
            object.wrong("constant", format!("expected labels, found {}", value.describe()))
        })?,
    };
    if labels.len() != classes.len() {
        let reason = format!("expected {} labels, found {}", classes.len(), labels.len());
        return Err(object.wrong("constant", reason));
    }
    let place = |(index, classes): (usize, &Array)| {
        let label = labels.take(vec![1], &[index]);
        labels::positions(classes, &label)[0]
            .ok_or_else(|| object.wrong("constant", "the label is none of classes_"))
    };
    classes.iter().enumerate().map(place).collect()
}

fn build_regressor(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let (_, constant) = object.numbers("constant_")?;
    match constant.is_empty() {
        true => Err(object.wrong("constant_", "expected at least one number")),
        false => Ok(Box::new(DummyRegressor { spec: free(object)?, constant })),
    }
}

impl Estimator for DummyClassifier {
    fn name(&self) -> String {
        "DummyClassifier".into()
    }

    fn input(&self) -> &InputSpec {
        &self.spec
    }

    fn methods(&self) -> &[Method] {
        &[Method::Predict, Method::PredictProba, Method::PredictLogProba]
    }

    fn classes(&self) -> &[Array] {
        &self.classes
    }

    fn predict(&self, x: &Table) -> Result<Array, PredictError> {
        let indices: Vec<Vec<usize>> = self.best.iter().map(|&best| vec![best; x.rows()]).collect();
        Ok(labels::take(&self.classes, &indices))
    }

    fn predict_proba(&self, x: &Table) -> Result<Vec<Array>, PredictError> {
        let rows = x.rows();
        let output = |proba: &Vec<f64>| Array::f64(vec![rows, proba.len()], proba.repeat(rows));
        Ok(self.proba.iter().map(output).collect())
    }
}

impl Estimator for DummyRegressor {
    fn name(&self) -> String {
        "DummyRegressor".into()
    }

    fn input(&self) -> &InputSpec {
        &self.spec
    }

    fn methods(&self) -> &[Method] {
        &[Method::Predict]
    }

    fn output_specs(&self, _: Method) -> Vec<OutputSpec> {
        vec![OutputSpec::targets(DataType::Fp64, self.constant.len())]
    }

    fn predict(&self, x: &Table) -> Result<Array, PredictError> {
        let values = self.constant.repeat(x.rows());
        Ok(tree::values_array(x.rows(), self.constant.len(), values))
    }
}

/// A class number of one of two classes, always the same: what one-versus-rest puts where a class was absent or alone.
struct Constant {
    spec: InputSpec,
    value: f64,
}

fn build_constant(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let value = object.vector("y_", Some(1))?[0];
    Ok(Box::new(Constant { spec: free(object)?, value }))
}

impl Estimator for Constant {
    fn name(&self) -> String {
        "_ConstantPredictor".into()
    }

    fn input(&self) -> &InputSpec {
        &self.spec
    }

    fn methods(&self) -> &[Method] {
        &[Method::Predict, Method::DecisionFunction, Method::PredictProba]
    }

    fn output_specs(&self, method: Method) -> Vec<OutputSpec> {
        vec![match method {
            Method::Predict => OutputSpec::values(DataType::Int64),
            Method::PredictProba => OutputSpec::columns(DataType::Fp64, 2),
            _ => OutputSpec::values(DataType::Fp64),
        }]
    }

    fn predict(&self, x: &Table) -> Result<Array, PredictError> {
        let values = vec![self.value as i64; x.rows()];
        Ok(Array::i64(vec![x.rows()], values))
    }

    fn decision_function(&self, x: &Table) -> Result<Array, PredictError> {
        Ok(Array::f64(vec![x.rows()], vec![self.value; x.rows()]))
    }

    fn predict_proba(&self, x: &Table) -> Result<Vec<Array>, PredictError> {
        let proba = [1.0 - self.value, self.value].repeat(x.rows());
        Ok(vec![Array::f64(vec![x.rows(), 2], proba)])
    }
}
