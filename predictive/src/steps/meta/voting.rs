//! Voting: weighted votes or means of estimators that read the same rows.

use crate::array::Array;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::{Object, Value};
use crate::steps::meta::{column, numbers, one, read_estimators, spec, stack, transpose};
use crate::steps::{Builder, Estimator, InputSpec, OutputSpec, Row, input, math, output};
use crate::table::{Matrix, Table};

/// Votes and means.
pub(crate) static ESTIMATORS: &[Row] =
    &[Row { class: "VotingClassifier", build }, Row { class: "VotingRegressor", build }];

/// A fitted ensemble.
struct Voting {
    class: String,
    spec: InputSpec,
    estimators: Vec<Box<dyn Estimator>>,
    weights: Vec<f64>,
    /// Labels, of a classifier.
    classes: Option<Array>,
    soft: bool,
    flat: bool,
}

fn build(object: Object<'_>, builder: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let estimators = read_estimators(object, "estimators_", builder)?;
    let weights = weights(object, estimators.len())?;
    let classes = match object.class {
        "VotingClassifier" => Some(input::labels(object, "classes_")?),
        _ => None,
    };
    let soft = object.get("voting").and_then(Value::as_str) == Some("soft");
    let spec = spec(object, estimators[0].as_ref())?;
    let flat = object.get("flatten_transform").and_then(Value::as_bool).unwrap_or(true);
    Ok(Box::new(Voting {
        class: object.class.to_owned(),
        spec,
        estimators,
        weights,
        classes,
        soft,
        flat,
    }))
}

/// The weight of each estimator that was not dropped; 1 without weights.
fn weights(object: Object<'_>, count: usize) -> Result<Vec<f64>, Fault> {
    if object.some("weights").is_none() {
        return Ok(vec![1.0; count]);
    }
    let weights = object.vector("weights", None)?;
    let dropped =
        |value: Value<'_>| value.as_list().and_then(|pair| pair.get(1)?.as_str()) == Some("drop");
    let given = object.list("estimators")?;
    let kept: Vec<f64> = given
        .into_iter()
        .zip(weights)
        .filter(|(value, _)| !dropped(*value))
        .map(|(_, weight)| weight)
        .collect();
    if kept.len() != count || kept.iter().sum::<f64>() == 0.0 {
        let reason = format!("expected a weight for each of {count} estimators, with a sum");
        return Err(object.wrong("weights", reason));
    }
    Ok(kept)
}

impl Voting {
    /// Predictions of each estimator: class numbers, or values.
    fn votes(&self, x: &Table) -> Result<Vec<Vec<f64>>, PredictError> {
        self.estimators.iter().map(|one| column(&one.predict(x)?, x.rows())).collect()
    }

    fn probas(&self, x: &Table, classes: usize) -> Result<Vec<Vec<f64>>, PredictError> {
        let proba = |estimator: &dyn Estimator| {
            numbers(one(estimator.predict_proba(x)?)?, x.rows(), classes)
        };
        self.estimators.iter().map(|inner| proba(inner.as_ref())).collect()
    }

    /// Weighted mean of several answers of one length.
    fn mean(&self, answers: &[Vec<f64>]) -> Vec<f64> {
        let mut sums = vec![0.0; answers.first().map_or(0, Vec::len)];
        for (answer, weight) in answers.iter().zip(&self.weights) {
            sums.iter_mut().zip(answer).for_each(|(sum, value)| *sum += weight * value);
        }
        let total: f64 = self.weights.iter().sum();
        sums.iter_mut().for_each(|sum| *sum /= total);
        sums
    }

    /// The class with most weight of each row.
    fn winners(&self, x: &Table, classes: usize) -> Result<Vec<usize>, PredictError> {
        if self.soft {
            return Ok(math::argmax_rows(&self.mean(&self.probas(x, classes)?), classes));
        }
        let votes = self.votes(x)?;
        let winner = |row: usize| {
            let mut counts = vec![0.0; classes];
            for (votes, weight) in votes.iter().zip(&self.weights) {
                if let Some(count) = counts.get_mut(votes[row] as usize) {
                    *count += weight;
                }
            }
            math::argmax(&counts)
        };
        Ok((0..x.rows()).map(winner).collect())
    }
}

impl Estimator for Voting {
    fn name(&self) -> String {
        let names: Vec<String> = self.estimators.iter().map(|inner| inner.name()).collect();
        format!("{}({})", self.class, names.join(", "))
    }

    fn input(&self) -> &InputSpec {
        &self.spec
    }

    fn methods(&self) -> &[Method] {
        match (&self.classes, self.soft) {
            (Some(_), true) => {
                &[Method::Predict, Method::PredictProba, Method::PredictLogProba, Method::Transform]
            }
            _ => &[Method::Predict, Method::Transform],
        }
    }

    fn output_specs(&self, method: Method) -> Vec<OutputSpec> {
        let columns = match &self.classes {
            Some(classes) if self.soft => self.estimators.len() * classes.len(),
            _ => self.estimators.len(),
        };
        output::usual(self.classes(), Some(columns), method)
    }

    fn classes(&self) -> &[Array] {
        self.classes.as_slice()
    }

    fn predict(&self, x: &Table) -> Result<Array, PredictError> {
        let x = input::align(x, &self.spec)?;
        let Some(classes) = &self.classes else {
            return Ok(Array::f64(vec![x.rows()], self.mean(&self.votes(&x)?)));
        };
        let winners = self.winners(&x, classes.len())?;
        Ok(classes.take(vec![winners.len()], &winners))
    }

    fn predict_proba(&self, x: &Table) -> Result<Vec<Array>, PredictError> {
        let (Some(classes), true) = (&self.classes, self.soft) else {
            return Err(self.lacks(Method::PredictProba));
        };
        let x = input::align(x, &self.spec)?;
        let mean = self.mean(&self.probas(&x, classes.len())?);
        Ok(vec![Array::f64(vec![x.rows(), classes.len()], mean)])
    }

    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        let x = input::align(x, &self.spec)?;
        let Some(classes) = self.classes.as_ref().filter(|_| self.soft) else {
            let votes = transpose(&self.votes(&x)?, x.rows());
            return Ok(Table::Dense(Matrix::f64(x.rows(), self.estimators.len(), votes)));
        };
        if !self.flat {
            return Err(PredictError::Unsupported(
                "transform with flatten_transform=False gives three dimensions, a table has two"
                    .into(),
            ));
        }
        let probas = self.probas(&x, classes.len())?;
        let blocks: Vec<(usize, Vec<f64>)> =
            probas.into_iter().map(|proba| (classes.len(), proba)).collect();
        Ok(Table::Dense(stack(x.rows(), &blocks)))
    }
}
