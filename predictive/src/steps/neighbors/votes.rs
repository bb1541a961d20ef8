//! Labels and values of neighbours: k nearest, or all within a radius.

use crate::array::Array;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::Object;
use crate::steps::neighbors::{Reach, Search, Weighing, over};
use crate::steps::numeric::{Answer, Base, Points, Rule};
use crate::steps::{Builder, Estimator, Row, input, labels, math};
use crate::tensor::DataType;

/// What neighbours vote with.
struct Votes {
    search: Search,
    reach: Reach,
    weighing: Weighing,
    /// `[training rows, outputs]`: class numbers, or values.
    targets: Vec<f64>,
    outputs: usize,
    /// The targets were one column of their own: answers have one dimension.
    flat: bool,
    /// Per output the labels, followed by that of rows without neighbours.
    outliers: Option<Vec<Array>>,
}

impl Votes {
    /// Sums of weights per class of an output, `[rows, classes]`, not normalised.
    fn sums(&self, base: &Base, x: &Points<'_>, output: usize) -> Vec<f64> {
        let classes = base.classes[output].len();
        over(&self.search, &self.reach, x, classes, |neighbours, answer| {
            let weights = self.weighing.weights(neighbours);
            for (&(_, index), weight) in neighbours.iter().zip(weights) {
                answer[self.targets[index * self.outputs + output] as usize] += weight;
            }
        })
    }

    /// Refuses rows without neighbours where no outlier label is set.
    fn lonely(&self, sums: &[f64], classes: usize) -> Result<Vec<bool>, PredictError> {
        let lonely: Vec<bool> =
            sums.chunks_exact(classes).map(|row| row.iter().all(|&value| value == 0.0)).collect();
        if let (None, Some(row)) = (&self.outliers, lonely.iter().position(|&alone| alone)) {
            return Err(PredictError::input(format!("No neighbors found for row {row}")));
        }
        Ok(lonely)
    }
}

/// Classification.
struct Classify(Votes);

impl Rule for Classify {
    fn predict(&self, base: &Base, x: &Points<'_>) -> Answer {
        let mut columns = Vec::new();
        for (output, labels) in base.classes.iter().enumerate() {
            let sums = self.0.sums(base, x, output);
            let lonely = self.0.lonely(&sums, labels.len())?;
            let mut found = math::argmax_rows(&sums, labels.len());
            // The label of outliers follows those of the classes.
            let outliers = found.iter_mut().zip(&lonely).filter(|(_, lonely)| **lonely);
            outliers.for_each(|(index, _)| *index = labels.len());
            let labels = self.0.outliers.as_ref().map_or(labels, |extended| &extended[output]);
            columns.push(labels.take(vec![x.rows], &found));
        }
        Ok(if self.0.flat { columns.remove(0) } else { labels::join(&columns) })
    }

    fn proba(&self, base: &Base, x: &Points<'_>) -> Result<Vec<Array>, PredictError> {
        let of = |(output, labels): (usize, &Array)| {
            let mut sums = self.0.sums(base, x, output);
            let lonely = self.0.lonely(&sums, labels.len())?;
            sums.chunks_exact_mut(labels.len()).for_each(math::normalise);
            if let Some(extended) = self.0.outliers.as_ref().map(|outliers| &outliers[output]) {
                let outlier = extended.take(vec![], &[labels.len()]);
                let known =
                    (0..labels.len()).find(|&index| extended.take(vec![], &[index]) == outlier);
                for row in (0..x.rows).filter(|&row| lonely[row]) {
                    if let Some(label) = known {
                        sums[row * labels.len() + label] = 1.0;
                    }
                }
            }
            Ok(Array::f64(vec![x.rows, labels.len()], sums))
        };
        base.classes.iter().enumerate().map(of).collect()
    }
}

/// Regression.
struct Regress(Votes);

impl Rule for Regress {
    fn predict(&self, _: &Base, x: &Points<'_>) -> Answer {
        let votes = &self.0;
        let values = over(&votes.search, &votes.reach, x, votes.outputs, |neighbours, answer| {
            let weights = votes.weighing.weights(neighbours);
            let total: f64 = weights.iter().sum();
            for (output, answer) in answer.iter_mut().enumerate() {
                let term = |(&(_, index), weight): (&(f64, usize), &f64)| {
                    votes.targets[index * votes.outputs + output] * weight
                };
                *answer = neighbours.iter().zip(&weights).map(term).sum::<f64>() / total;
            }
        });
        let shape = if votes.flat { vec![x.rows] } else { vec![x.rows, votes.outputs] };
        Ok(Array::f64(shape, values))
    }
}

fn votes(object: Object<'_>, base: &mut Base) -> Result<Votes, Fault> {
    let search = Search::read(object, base)?;
    let reach = match object.class.starts_with("KN") {
        true => Reach::Nearest(search.count(object, "n_neighbors")?),
        false => Reach::Within(object.f64("radius")?),
    };
    let (shape, targets) = object.numbers("_y")?;
    let outputs = match *shape.as_slice() {
        [rows] if rows == search.len() => 1,
        [rows, outputs] if rows == search.len() && outputs > 0 => outputs,
        _ => return Err(object.wrong("_y", format!("shape {shape:?} does not fit _fit_X"))),
    };
    let weighing = Weighing::read(object)?;
    let flat = shape.len() == 1;
    Ok(Votes { search, reach, weighing, targets, outputs, flat, outliers: None })
}

fn classifier(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let methods = [Method::Predict, Method::PredictProba];
    let mut base = Base::new(object, &methods)?;
    base.classes = input::classes(object)?;
    let mut votes = votes(object, &mut base)?;
    votes.flat = !object.bool("outputs_2d_")?;
    if base.classes.len() != votes.outputs || (votes.flat && votes.outputs != 1) {
        return Err(object.wrong("classes_", "expected one array per column of _y"));
    }
    let sizes: Vec<f64> = base.classes.iter().map(|classes| classes.len() as f64).collect();
    let known = |(index, &class): (usize, &f64)| {
        class.fract() == 0.0 && (0.0..sizes[index % votes.outputs]).contains(&class)
    };
    if !votes.targets.iter().enumerate().all(known) {
        return Err(object.wrong("_y", "a class number is outside of classes_"));
    }
    if votes.outputs > 1 && base.classes.iter().any(|c| c.dtype() != base.classes[0].dtype()) {
        return Err(Fault::unsupported("outputs with labels of different types"));
    }
    votes.outliers = outliers(object, &base)?;
    Ok(base.with(Classify(votes)))
}

/// `outlier_label_` of a radius classifier, a label per output.
fn outliers(object: Object<'_>, base: &Base) -> Result<Option<Vec<Array>>, Fault> {
    if object.some("outlier_label_").is_none() {
        return Ok(None);
    }
    let outliers = input::labels(object, "outlier_label_")?;
    let texts = |array: &Array| array.dtype() == DataType::Bytes;
    if outliers.len() != base.classes.len()
        || base.classes.iter().any(|classes| texts(classes) != texts(&outliers))
    {
        return Err(object.wrong("outlier_label_", "expected a label like those of classes_"));
    }
    let one = |array: &Array, index: usize| array.take(vec![1], &[index]);
    let extended = |(output, classes): (usize, &Array)| {
        let mut all: Vec<Array> = (0..classes.len()).map(|index| one(classes, index)).collect();
        all.push(one(&outliers, output));
        labels::join(&all).reshaped(vec![classes.len() + 1])
    };
    Ok(Some(base.classes.iter().enumerate().map(extended).collect()))
}

fn regressor(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = Base::new(object, &[Method::Predict])?;
    let votes = votes(object, &mut base)?;
    Ok(base.with(Regress(votes)))
}

/// Classifiers and regressors of neighbours.
pub(crate) static VOTES: &[Row] = &[
    Row { class: "KNeighborsClassifier", build: classifier },
    Row { class: "KNeighborsRegressor", build: regressor },
    Row { class: "RadiusNeighborsClassifier", build: classifier },
    Row { class: "RadiusNeighborsRegressor", build: regressor },
];
