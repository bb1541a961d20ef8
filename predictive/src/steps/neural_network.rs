//! Multi-layer perceptrons, and the one layer of a restricted Boltzmann machine.

use crate::array::Array;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::Object;
use crate::steps::numeric::{
    Answer, Base, Points, Rule, best, dot, matrix, pairs, shaped, transposed,
};
use crate::steps::{Builder, Estimator, Row, input, math};
use crate::tensor::DataType;

/// What follows the sums of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Activation {
    Identity,
    Logistic,
    Tanh,
    Relu,
    Softmax,
    Exp,
}

impl Activation {
    fn read(object: Object<'_>, name: &str) -> Result<Self, Fault> {
        Ok(match object.str(name)? {
            "identity" => Activation::Identity,
            "logistic" => Activation::Logistic,
            "tanh" => Activation::Tanh,
            "relu" => Activation::Relu,
            "softmax" => Activation::Softmax,
            "exp" => Activation::Exp,
            other => return Err(object.wrong(name, format!("{other:?} is not an activation"))),
        })
    }

    fn apply(self, row: &mut [f64]) {
        let change: fn(f64) -> f64 = match self {
            Activation::Identity => return,
            Activation::Softmax => return math::softmax(row),
            Activation::Logistic => math::expit,
            Activation::Tanh => f64::tanh,
            Activation::Relu => |value| value.max(0.0),
            Activation::Exp => f64::exp,
        };
        row.iter_mut().for_each(|value| *value = change(*value));
    }
}

/// Weights `[outputs, inputs]` and a bias per output.
struct Layer {
    weights: Vec<f64>,
    biases: Vec<f64>,
}

impl Layer {
    fn compute(&self, row: &[f64], answer: &mut Vec<f64>) {
        answer.clear();
        let sum = |(index, bias): (usize, &f64)| {
            dot(row, &self.weights[index * row.len()..][..row.len()]) + bias
        };
        answer.extend(self.biases.iter().enumerate().map(sum));
    }
}

struct Perceptron {
    layers: Vec<Layer>,
    hidden: Activation,
    last: Activation,
    multilabel: bool,
}

impl Perceptron {
    fn outputs(&self) -> usize {
        self.layers.last().map_or(0, |layer| layer.biases.len())
    }

    /// `[rows, outputs]`.
    fn forward(&self, x: &Points<'_>) -> Vec<f64> {
        x.map(self.outputs(), |row, answer| {
            let (mut now, mut next) = (row.to_vec(), Vec::new());
            for (index, layer) in self.layers.iter().enumerate() {
                layer.compute(&now, &mut next);
                let last = index + 1 == self.layers.len();
                if last { self.last } else { self.hidden }.apply(&mut next);
                std::mem::swap(&mut now, &mut next);
            }
            answer.copy_from_slice(&now);
        })
    }
}

/// Labels and probabilities.
struct Classifier(Perceptron);

impl Rule for Classifier {
    fn predict(&self, base: &Base, x: &Points<'_>) -> Answer {
        let values = self.0.forward(x);
        let over = |value: &f64| *value > 0.5;
        if self.0.multilabel {
            let labels = values.iter().map(|value| i64::from(over(value))).collect();
            return Ok(Array::i64(vec![x.rows, self.0.outputs()], labels));
        }
        if self.0.outputs() > 1 {
            return Ok(best(base.labels(), x.rows, &values));
        }
        let indices: Vec<usize> = values.iter().map(|value| usize::from(over(value))).collect();
        Ok(base.labels().take(vec![x.rows], &indices))
    }

    fn proba(&self, _: &Base, x: &Points<'_>) -> Result<Vec<Array>, PredictError> {
        let values = self.0.forward(x);
        let values = if self.0.outputs() == 1 { pairs(values) } else { values };
        Ok(vec![Array::f64(vec![x.rows, self.0.outputs().max(2)], values)])
    }
}

/// Values.
struct Regressor(Perceptron);

impl Rule for Regressor {
    fn predict(&self, _: &Base, x: &Points<'_>) -> Answer {
        Ok(shaped(x.rows, self.0.outputs(), true, self.0.forward(x)))
    }
}

fn perceptron(object: Object<'_>, base: &mut Base) -> Result<Perceptron, Fault> {
    let (weights, biases) = (object.list("coefs_")?, object.list("intercepts_")?);
    if weights.is_empty() || weights.len() != biases.len() {
        let reason = format!("{} matrices for {} intercepts", weights.len(), biases.len());
        return Err(object.wrong("coefs_", reason));
    }
    let mut layers: Vec<Layer> = Vec::new();
    for (index, (weights, biases)) in weights.into_iter().zip(biases).enumerate() {
        let wrong = || object.wrong("coefs_", format!("layer {index} does not fit its neighbours"));
        let (weights, biases) = weights.as_array().zip(biases.as_array()).ok_or_else(wrong)?;
        base.single = weights.dtype() == DataType::Fp32;
        let [inputs, outputs] = *weights.shape() else { return Err(wrong()) };
        let (values, biases) = weights.to_f64().zip(biases.to_f64()).ok_or_else(wrong)?;
        if biases.len() != outputs || layers.last().is_some_and(|l| l.biases.len() != inputs) {
            return Err(wrong());
        }
        if index == 0 {
            base.columns(object, "coefs_", inputs)?;
        }
        layers.push(Layer { weights: transposed(inputs, outputs, &values), biases });
    }
    let hidden = Activation::read(object, "activation")?;
    let last = Activation::read(object, "out_activation_")?;
    Ok(Perceptron { layers, hidden, last, multilabel: false })
}

fn classifier(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let methods = [Method::Predict, Method::PredictProba, Method::PredictLogProba];
    let mut base = Base::new(object, &methods)?;
    let mut network = perceptron(object, &mut base)?;
    let labels = input::labels(object, "classes_")?;
    let kind = object.object("_label_binarizer")?.str("y_type_")?;
    network.multilabel = kind.starts_with("multilabel");
    let expected = if labels.len() == 2 && !network.multilabel { 1 } else { labels.len() };
    if network.outputs() != expected {
        let reason = format!("{} outputs for {} classes", network.outputs(), labels.len());
        return Err(object.wrong("coefs_", reason));
    }
    if !network.multilabel {
        base.classes = vec![labels];
    }
    Ok(base.with(Classifier(network)))
}

fn regressor(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = Base::new(object, &[Method::Predict])?;
    let network = perceptron(object, &mut base)?;
    Ok(base.with(Regressor(network)))
}

/// Probabilities of the hidden units.
struct Boltzmann(Perceptron);

impl Rule for Boltzmann {
    fn transform(&self, _: &Base, x: &Points<'_>) -> Answer {
        Ok(shaped(x.rows, self.0.outputs(), false, self.0.forward(x)))
    }
}

fn boltzmann(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = Base::new(object, &[Method::Transform])?;
    let (outputs, columns, weights) = matrix(object, "components_")?;
    base.columns(object, "components_", columns)?;
    base.precision(object, "components_");
    let biases = object.vector("intercept_hidden_", Some(outputs))?;
    let (hidden, last) = (Activation::Identity, Activation::Logistic);
    let layers = vec![Layer { weights, biases }];
    Ok(base.with(Boltzmann(Perceptron { layers, hidden, last, multilabel: false })))
}

/// Neural networks.
pub(crate) static ESTIMATORS: &[Row] = &[
    Row { class: "BernoulliRBM", build: boltzmann },
    Row { class: "MLPClassifier", build: classifier },
    Row { class: "MLPRegressor", build: regressor },
];
