//! Bagging: means over estimators that each read some of the columns.

use std::borrow::Cow;

use crate::array::Array;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::Object;
use crate::steps::meta::{column, numbers, one, read_estimators, select, wrapped};
use crate::steps::{Builder, Estimator, InputSpec, OutputSpec, Row, input, labels, math, output};
use crate::table::Table;
use crate::tensor::DataType;

/// Bagging.
pub(crate) static ESTIMATORS: &[Row] =
    &[Row { class: "BaggingClassifier", build }, Row { class: "BaggingRegressor", build }];

/// A fitted ensemble.
struct Bagging {
    name: String,
    spec: InputSpec,
    members: Vec<Member>,
    classes: Option<Array>,
    methods: Vec<Method>,
}

/// One estimator.
struct Member {
    estimator: Box<dyn Estimator>,
    /// Its columns; `None` for all in order.
    columns: Option<Vec<usize>>,
    /// The place of each of its classes among those of the ensemble.
    places: Vec<usize>,
}

fn build(object: Object<'_>, builder: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let spec = input::spec(object)?;
    let classes = match object.class {
        "BaggingClassifier" => Some(input::labels(object, "classes_")?),
        _ => None,
    };
    let estimators = read_estimators(object, "estimators_", builder)?;
    let subsets = object.list("estimators_features_")?;
    if subsets.len() != estimators.len() {
        let reason = format!("expected one list of columns for each of {}", estimators.len());
        return Err(object.wrong("estimators_features_", reason));
    }
    let total = match spec.columns {
        Some(total) => total,
        None => return Err(object.wrong("n_features_in_", "is missing")),
    };
    let mut members = Vec::new();
    for (estimator, subset) in estimators.into_iter().zip(subsets) {
        let subset = input::indices(subset, total).ok_or_else(|| {
            object.wrong("estimators_features_", format!("expected columns below {total}"))
        })?;
        let places = match &classes {
            Some(classes) => inner_places(object, classes.len(), estimator.as_ref())?,
            None => Vec::new(),
        };
        let columns = (!subset.iter().copied().eq(0..total)).then_some(subset);
        members.push(Member { estimator, columns, places });
    }
    let mut methods = vec![Method::Predict];
    if classes.is_some() {
        methods.extend([Method::PredictProba, Method::PredictLogProba]);
        if members.iter().all(|m| m.estimator.methods().contains(&Method::DecisionFunction)) {
            methods.push(Method::DecisionFunction);
        }
    }
    let name = wrapped(object.class, members[0].estimator.as_ref());
    Ok(Box::new(Bagging { name, spec, members, classes, methods }))
}

/// Inner classifiers are fitted on class numbers.
fn inner_places(
    object: Object<'_>,
    classes: usize,
    estimator: &dyn Estimator,
) -> Result<Vec<usize>, Fault> {
    let numbers = Array::i64(vec![classes], (0..classes as i64).collect());
    let [inner] = estimator.classes() else {
        return Err(object.wrong("estimators_", "expected classifiers of one output"));
    };
    let places: Option<Vec<usize>> = labels::positions(&numbers, inner).into_iter().collect();
    places.ok_or_else(|| {
        let reason = format!("an estimator has classes other than the numbers below {classes}");
        object.wrong("estimators_", reason)
    })
}

impl Bagging {
    fn each<'a>(
        &'a self,
        x: &'a Table,
    ) -> Result<impl Iterator<Item = (&'a Member, Cow<'a, Table>)>, PredictError> {
        let x = input::align(x, &self.spec)?;
        Ok(self.members.iter().map(move |member| {
            let x = match &member.columns {
                Some(columns) => Cow::Owned(select(&x, columns)),
                None => x.clone(),
            };
            (member, x)
        }))
    }

    /// Mean probabilities, or shares of votes of estimators without any, `[rows, classes]`.
    fn proba(&self, x: &Table, classes: usize) -> Result<Vec<f64>, PredictError> {
        let rows = x.rows();
        let mut sums = vec![0.0; rows * classes];
        for (member, x) in self.each(x)? {
            let width = member.places.len();
            if member.estimator.methods().contains(&Method::PredictProba) {
                let proba = numbers(one(member.estimator.predict_proba(&x)?)?, rows, width)?;
                for (row, proba) in sums.chunks_exact_mut(classes).zip(proba.chunks_exact(width)) {
                    member.places.iter().zip(proba).for_each(|(&place, p)| row[place] += p);
                }
                continue;
            }
            let votes = column(&member.estimator.predict(&x)?, rows)?;
            for (row, vote) in sums.chunks_exact_mut(classes).zip(votes) {
                if let Some(sum) = row.get_mut(vote as usize) {
                    *sum += 1.0;
                }
            }
        }
        let count = self.members.len() as f64;
        sums.iter_mut().for_each(|sum| *sum /= count);
        Ok(sums)
    }

    /// Mean of what `answer` gives, and its shape.
    fn mean(
        &self,
        x: &Table,
        answer: impl Fn(&dyn Estimator, &Table) -> Result<Array, PredictError>,
    ) -> Result<Array, PredictError> {
        let mut total: Option<(Vec<usize>, Vec<f64>)> = None;
        for (member, x) in self.each(x)? {
            let array = answer(member.estimator.as_ref(), &x)?;
            let values = array.to_f64().unwrap_or_default();
            match &mut total {
                None => total = Some((array.shape().to_vec(), values)),
                Some((shape, sums)) if shape == array.shape() && sums.len() == values.len() => {
                    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
                }
                Some((shape, _)) => return Err(super::unexpected(&format!("{shape:?}"), &array)),
            }
        }
        let (shape, mut sums) = total.unwrap_or_default();
        let count = self.members.len() as f64;
        sums.iter_mut().for_each(|sum| *sum /= count);
        Ok(Array::f64(shape, sums))
    }
}

impl Estimator for Bagging {
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
        match (method, &self.classes, self.members.first()) {
            (Method::Predict, None, Some(member)) | (Method::DecisionFunction, _, Some(member)) => {
                let inner = member.estimator.output_specs(method).into_iter();
                inner.map(|output| OutputSpec { dtype: DataType::Fp64, ..output }).collect()
            }
            _ => output::usual(self.classes(), None, method),
        }
    }

    fn classes(&self) -> &[Array] {
        self.classes.as_slice()
    }

    fn predict(&self, x: &Table) -> Result<Array, PredictError> {
        let Some(classes) = &self.classes else {
            return self.mean(x, |estimator, x| estimator.predict(x));
        };
        let best = math::argmax_rows(&self.proba(x, classes.len())?, classes.len());
        Ok(classes.take(vec![best.len()], &best))
    }

    fn predict_proba(&self, x: &Table) -> Result<Vec<Array>, PredictError> {
        let Some(classes) = &self.classes else { return Err(self.lacks(Method::PredictProba)) };
        let proba = self.proba(x, classes.len())?;
        Ok(vec![Array::f64(vec![x.rows(), classes.len()], proba)])
    }

    fn decision_function(&self, x: &Table) -> Result<Array, PredictError> {
        if !self.methods.contains(&Method::DecisionFunction) {
            return Err(self.lacks(Method::DecisionFunction));
        }
        self.mean(x, |estimator, x| estimator.decision_function(x))
    }
}
