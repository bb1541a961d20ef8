//! Many classes out of classifiers of two: one against the rest, one against one, codes.

use crate::array::Array;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::Object;
use crate::steps::input::Nan;
use crate::steps::meta::{
    binary_score, binary_threshold, column, positive, read_estimators, spec, transpose, wrapped,
};
use crate::steps::{Builder, Estimator, InputSpec, OutputSpec, Row, input, math, output, tree};
use crate::table::Table;
use crate::tensor::DataType;

/// Reductions to two classes.
pub(crate) static ESTIMATORS: &[Row] = &[
    Row { class: "OneVsRestClassifier", build: build_rest },
    Row { class: "OneVsOneClassifier", build: build_one },
    Row { class: "OutputCodeClassifier", build: build_code },
];

/// What a one-versus-rest classifier was fitted on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Targets {
    /// Two classes: one estimator.
    Binary,
    /// More: the best score wins.
    Multiclass,
    /// Several labels at once.
    Multilabel,
}

/// One estimator a class.
struct OneVsRest {
    name: String,
    spec: InputSpec,
    estimators: Vec<Box<dyn Estimator>>,
    targets: Targets,
    /// One array, or one `[0, 1]` a label.
    classes: Vec<Array>,
    methods: Vec<Method>,
}

fn build_rest(object: Object<'_>, builder: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let estimators = read_estimators(object, "estimators_", builder)?;
    let binarizer = object.object("label_binarizer_")?;
    let classes = input::labels(binarizer, "classes_")?;
    let targets = match binarizer.str("y_type_")? {
        "binary" => Targets::Binary,
        "multiclass" => Targets::Multiclass,
        "multilabel-indicator" => Targets::Multilabel,
        other => {
            return Err(Fault::unsupported(format!(
                "OneVsRestClassifier fitted on {other} targets is not supported; supported are \
                 binary, multiclass and multilabel-indicator"
            )));
        }
    };
    let wanted = if targets == Targets::Binary { 1 } else { classes.len() };
    let labels = if targets == Targets::Binary { 2 } else { classes.len() };
    if estimators.len() != wanted || classes.len() != labels {
        let reason = format!("{} estimators of {} classes", estimators.len(), classes.len());
        return Err(object.wrong("estimators_", reason));
    }
    let classes = match targets {
        Targets::Multilabel => vec![Array::i64(vec![2], vec![0, 1]); classes.len()],
        _ => vec![classes],
    };
    let mut methods = vec![Method::Predict];
    for (method, also) in
        [(Method::PredictProba, Some(Method::PredictLogProba)), (Method::DecisionFunction, None)]
    {
        if estimators.iter().all(|inner| inner.methods().contains(&method)) {
            methods.push(method);
            methods.extend(also);
        }
    }
    let spec = spec(object, estimators[0].as_ref())?;
    let name = wrapped(object.class, estimators[0].as_ref());
    Ok(Box::new(OneVsRest { name, spec, estimators, targets, classes, methods }))
}

impl OneVsRest {
    fn scores(&self, x: &Table) -> Result<Vec<Vec<f64>>, PredictError> {
        self.estimators.iter().map(|inner| binary_score(inner.as_ref(), x)).collect()
    }
}

impl Estimator for OneVsRest {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn input(&self) -> &InputSpec {
        &self.spec
    }

    fn methods(&self) -> &[Method] {
        &self.methods
    }

    fn output_specs(&self, method: Method) -> Vec<OutputSpec> {
        let (double, count) = (DataType::Fp64, self.estimators.len());
        match (method, &self.targets) {
            (Method::Predict, Targets::Multilabel) => {
                vec![OutputSpec::columns(DataType::Int64, count)]
            }
            (Method::DecisionFunction, _) => vec![OutputSpec::targets(double, count)],
            (Method::PredictProba | Method::PredictLogProba, _) => {
                vec![OutputSpec::columns(double, count.max(2))]
            }
            _ => output::usual(self.classes(), None, method),
        }
    }

    fn classes(&self) -> &[Array] {
        &self.classes
    }

    fn predict(&self, x: &Table) -> Result<Array, PredictError> {
        let x = input::align(x, &self.spec)?;
        let scores = self.scores(&x)?;
        let rows = x.rows();
        let threshold = binary_threshold(self.estimators[0].as_ref());
        match self.targets {
            Targets::Multiclass => {
                // The last of equal scores wins, as in the library.
                let best = |row: usize| {
                    let (mut best, mut top) = (0, f64::NEG_INFINITY);
                    for (class, scores) in scores.iter().enumerate() {
                        if scores[row] >= top {
                            (best, top) = (class, scores[row]);
                        }
                    }
                    best
                };
                let best: Vec<usize> = (0..rows).map(best).collect();
                Ok(self.classes[0].take(vec![rows], &best))
            }
            Targets::Binary => {
                let side = |score: &f64| usize::from(*score > threshold);
                let sides: Vec<usize> = scores[0].iter().map(side).collect();
                Ok(self.classes[0].take(vec![rows], &sides))
            }
            Targets::Multilabel => {
                let scores = transpose(&scores, rows);
                let labels = scores.iter().map(|score| i64::from(*score > threshold)).collect();
                Ok(Array::i64(vec![rows, self.estimators.len()], labels))
            }
        }
    }

    fn predict_proba(&self, x: &Table) -> Result<Vec<Array>, PredictError> {
        if !self.methods.contains(&Method::PredictProba) {
            return Err(self.lacks(Method::PredictProba));
        }
        let x = input::align(x, &self.spec)?;
        let mut columns: Vec<Vec<f64>> = self
            .estimators
            .iter()
            .map(|inner| positive(inner.as_ref(), &x))
            .collect::<Result<_, _>>()?;
        if let [one] = columns.as_slice() {
            columns.insert(0, one.iter().map(|p| 1.0 - p).collect());
        }
        let (rows, width) = (x.rows(), columns.len());
        let mut proba = transpose(&columns, rows);
        if self.targets != Targets::Multilabel {
            proba.chunks_exact_mut(width).for_each(math::normalise);
        }
        Ok(vec![Array::f64(vec![rows, width], proba)])
    }

    fn decision_function(&self, x: &Table) -> Result<Array, PredictError> {
        if !self.methods.contains(&Method::DecisionFunction) {
            return Err(self.lacks(Method::DecisionFunction));
        }
        let x = input::align(x, &self.spec)?;
        let decision = |inner: &dyn Estimator| column(&inner.decision_function(&x)?, x.rows());
        let columns: Vec<Vec<f64>> = self
            .estimators
            .iter()
            .map(|inner| decision(inner.as_ref()))
            .collect::<Result<_, _>>()?;
        let rows = x.rows();
        Ok(tree::values_array(rows, columns.len(), transpose(&columns, rows)))
    }
}

/// One estimator a pair of classes.
struct OneVsOne {
    name: String,
    spec: InputSpec,
    estimators: Vec<Box<dyn Estimator>>,
    classes: Array,
}

fn build_one(object: Object<'_>, builder: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let estimators = read_estimators(object, "estimators_", builder)?;
    let classes = input::labels(object, "classes_")?;
    let pairs = classes.len() * (classes.len() - 1) / 2;
    if estimators.len() != pairs {
        let reason = format!("expected {pairs}, one for each pair, found {}", estimators.len());
        return Err(object.wrong("estimators_", reason));
    }
    if object.some("pairwise_indices_").is_some() {
        return Err(Fault::unsupported(
            "OneVsOneClassifier over a precomputed kernel is not supported; fit it on features",
        ));
    }
    let name = wrapped(object.class, estimators[0].as_ref());
    Ok(Box::new(OneVsOne { name, spec: input::spec(object)?, estimators, classes }))
}

impl OneVsOne {
    /// Votes with a little of the confidences, `[rows, classes]`.
    fn votes(&self, x: &Table) -> Result<Vec<f64>, PredictError> {
        let x = Table::Dense(input::dense(x, &self.spec, Nan::Any)?.into_owned());
        let (rows, classes) = (x.rows(), self.classes.len());
        let mut votes = vec![0.0; rows * classes];
        let mut sums = vec![0.0; rows * classes];
        let mut pairs = self.estimators.iter();
        for first in 0..classes {
            for second in first + 1..classes {
                let Some(estimator) = pairs.next() else { break };
                let labels = column(&estimator.predict(&x)?, rows)?;
                let scores = binary_score(estimator.as_ref(), &x)?;
                for (row, (label, score)) in labels.into_iter().zip(scores).enumerate() {
                    let row = row * classes;
                    sums[row + first] -= score;
                    sums[row + second] += score;
                    if label == 0.0 {
                        votes[row + first] += 1.0;
                    } else if label == 1.0 {
                        votes[row + second] += 1.0;
                    }
                }
            }
        }
        let add = |(vote, sum): (f64, f64)| vote + sum / (3.0 * (sum.abs() + 1.0));
        Ok(votes.into_iter().zip(sums).map(add).collect())
    }
}

impl Estimator for OneVsOne {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn input(&self) -> &InputSpec {
        &self.spec
    }

    fn methods(&self) -> &[Method] {
        &[Method::Predict, Method::DecisionFunction]
    }

    fn classes(&self) -> &[Array] {
        std::slice::from_ref(&self.classes)
    }

    fn predict(&self, x: &Table) -> Result<Array, PredictError> {
        let votes = self.votes(x)?;
        let indices: Vec<usize> = match self.classes.len() {
            2 => {
                let threshold = binary_threshold(self.estimators[0].as_ref());
                votes.chunks_exact(2).map(|row| usize::from(row[1] > threshold)).collect()
            }
            classes => math::argmax_rows(&votes, classes),
        };
        Ok(self.classes.take(vec![indices.len()], &indices))
    }

    fn decision_function(&self, x: &Table) -> Result<Array, PredictError> {
        let votes = self.votes(x)?;
        Ok(match self.classes.len() {
            2 => {
                let second: Vec<f64> = votes.chunks_exact(2).map(|row| row[1]).collect();
                Array::f64(vec![second.len()], second)
            }
            classes => Array::f64(vec![votes.len() / classes, classes], votes),
        })
    }
}

/// One estimator a bit of a code.
struct OutputCode {
    name: String,
    spec: InputSpec,
    estimators: Vec<Box<dyn Estimator>>,
    /// `[classes, bits]`.
    book: Vec<f64>,
    classes: Array,
}

fn build_code(object: Object<'_>, builder: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let estimators = read_estimators(object, "estimators_", builder)?;
    let classes = input::labels(object, "classes_")?;
    let (rows, bits, book) = object.matrix("code_book_")?;
    if rows != classes.len() || bits != estimators.len() {
        let reason = format!(
            "expected {} codes of {} bits, found {rows} of {bits}",
            classes.len(),
            estimators.len()
        );
        return Err(object.wrong("code_book_", reason));
    }
    let spec = spec(object, estimators[0].as_ref())?;
    let name = wrapped(object.class, estimators[0].as_ref());
    Ok(Box::new(OutputCode { name, spec, estimators, book, classes }))
}

impl Estimator for OutputCode {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn input(&self) -> &InputSpec {
        &self.spec
    }

    fn methods(&self) -> &[Method] {
        &[Method::Predict]
    }

    fn classes(&self) -> &[Array] {
        std::slice::from_ref(&self.classes)
    }

    fn predict(&self, x: &Table) -> Result<Array, PredictError> {
        let x = input::align(x, &self.spec)?;
        let bits = self.estimators.len();
        let columns: Vec<Vec<f64>> = self
            .estimators
            .iter()
            .map(|inner| binary_score(inner.as_ref(), &x))
            .collect::<Result<_, _>>()?;
        // The squared distance without the part that all classes share.
        let far = |scores: &[f64]| -> Vec<f64> {
            let codes = self.book.chunks_exact(bits);
            let distance = |code: &[f64]| {
                let (mut square, mut product) = (0.0, 0.0);
                for (bit, score) in code.iter().zip(scores) {
                    square += bit * bit;
                    product += bit * score;
                }
                square - 2.0 * product
            };
            codes.map(distance).collect()
        };
        let nearest = |scores: &[f64]| {
            let near: Vec<f64> = far(scores).into_iter().map(|distance| -distance).collect();
            math::argmax(&near)
        };
        let scores = transpose(&columns, x.rows());
        let nearest: Vec<usize> = scores.chunks_exact(bits).map(nearest).collect();
        Ok(self.classes.take(vec![nearest.len()], &nearest))
    }
}
