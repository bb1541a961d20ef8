//! Calibrated classifiers: probabilities made of decisions.

use crate::array::Array;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::Object;
use crate::steps::meta::{one, spec, unexpected, wrapped};
use crate::steps::{Builder, Estimator, InputSpec, Row, input, labels, math};
use crate::table::{Matrix, Table};
use crate::tensor::DataType;

/// Calibration.
pub(crate) static ESTIMATORS: &[Row] = &[Row { class: "CalibratedClassifierCV", build }];

/// A fitted ensemble of calibrated classifiers.
struct CalibratedClassifier {
    name: String,
    spec: InputSpec,
    members: Vec<Member>,
    classes: Array,
}

/// One classifier with its calibrators.
struct Member {
    estimator: Box<dyn Estimator>,
    /// The place of each of its classes among those of the ensemble.
    places: Vec<usize>,
    calibration: Calibration,
}

/// From scores to probabilities.
enum Calibration {
    /// One curve a class; a single one for two classes.
    Curves(Vec<Curve>),
    /// Softmax of scores times a number.
    Temperature(f64),
}

/// From the score of one class to its probability.
enum Curve {
    /// `expit(-(a * score + b))`.
    Sigmoid { a: f64, b: f64 },
    /// An isotonic regression.
    Isotonic(Box<dyn Estimator>),
}

/// What the library adds to probabilities before it takes logarithms.
const LOGIT_EPS: f64 = 1e-12;

fn build(object: Object<'_>, builder: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let classes = input::labels(object, "classes_")?;
    if classes.len() < 2 {
        return Err(object.wrong("classes_", "expected at least two classes"));
    }
    let mut members = Vec::new();
    for value in object.list("calibrated_classifiers_")? {
        let member = value.as_object().ok_or_else(|| {
            object.wrong("calibrated_classifiers_", "expected calibrated classifiers")
        })?;
        members.push(read_member(member, &classes, builder)?);
    }
    let Some(first) = members.first() else {
        return Err(object.wrong("calibrated_classifiers_", "expected at least one"));
    };
    let spec = spec(object, first.estimator.as_ref())?;
    let name = wrapped(object.class, first.estimator.as_ref());
    Ok(Box::new(CalibratedClassifier { name, spec, members, classes }))
}

fn read_member(object: Object<'_>, classes: &Array, builder: Builder) -> Result<Member, Fault> {
    let old = object.some("base_estimator").is_some();
    let attribute = if old { "base_estimator" } else { "estimator" };
    let estimator = builder.build(object.object(attribute)?)?;
    let known = match estimator.classes() {
        [known] => labels::positions(classes, known).into_iter().collect(),
        _ => None,
    };
    // Temperature scaling numbers labels that are texts before it fits (1.8).
    let numbered = |known: &Array| {
        let numbers: Vec<f64> = (0..classes.len()).map(|index| index as f64).collect();
        classes.dtype() == DataType::Bytes && known.to_f64().is_some_and(|known| known == numbers)
    };
    let known = known.or_else(|| match estimator.classes() {
        [known] if numbered(known) => Some((0..classes.len()).collect()),
        _ => None,
    });
    let places: Vec<usize> = known.ok_or_else(|| {
        object.wrong(attribute, "expected a classifier of the classes of the ensemble")
    })?;
    let calibrators = object.list("calibrators")?;
    let wanted = if classes.len() == 2 { 1 } else { places.len() };
    let mut curves = Vec::new();
    for value in calibrators {
        let calibrator =
            value.as_object().ok_or_else(|| object.wrong("calibrators", "expected calibrators"))?;
        curves.push(match calibrator.class {
            "_SigmoidCalibration" => {
                Curve::Sigmoid { a: calibrator.f64("a_")?, b: calibrator.f64("b_")? }
            }
            "_TemperatureScaling" => {
                let calibration = Calibration::Temperature(calibrator.f64("beta_")?);
                return Ok(Member { estimator, places, calibration });
            }
            "IsotonicRegression" => Curve::Isotonic(builder.build(calibrator)?),
            other => {
                return Err(Fault::unsupported(format!(
                    "the calibrator {other} is not supported; supported are sigmoid, isotonic \
                     and temperature"
                )));
            }
        });
    }
    if curves.len() != wanted {
        let reason = format!("expected {wanted}, found {}", curves.len());
        return Err(object.wrong("calibrators", reason));
    }
    Ok(Member { estimator, places, calibration: Calibration::Curves(curves) })
}

impl Curve {
    fn values(&self, scores: Vec<f64>) -> Result<Vec<f64>, PredictError> {
        match self {
            Curve::Sigmoid { a, b } => {
                Ok(scores.into_iter().map(|score| math::expit(-(a * score + b))).collect())
            }
            Curve::Isotonic(regression) => {
                let rows = scores.len();
                let x = Table::Dense(Matrix::f64(rows, 1, scores));
                super::column(&regression.predict(&x)?, rows)
            }
        }
    }
}

impl Member {
    /// Scores, `[rows, width]`: the decision, or probabilities of a classifier that has none. Of two classes only the
    /// second one's.
    fn scores(&self, x: &Table) -> Result<(bool, usize, Vec<f64>), PredictError> {
        let decides = self.estimator.methods().contains(&Method::DecisionFunction);
        let array = match decides {
            true => self.estimator.decision_function(x)?,
            false => one(self.estimator.predict_proba(x)?)?,
        };
        let width = match *array.shape() {
            [rows] if rows == x.rows() => 1,
            [rows, width] if rows == x.rows() => width,
            _ => return Err(unexpected("scores", &array)),
        };
        let values = array.to_f64().ok_or_else(|| unexpected("scores", &array))?;
        if !decides && width == 2 {
            return Ok((false, 1, values.chunks_exact(2).map(|row| row[1]).collect()));
        }
        Ok((decides, width, values))
    }

    /// Probabilities, `[rows, classes]`.
    fn proba(&self, x: &Table, classes: usize) -> Result<Vec<f64>, PredictError> {
        let (decides, width, scores) = self.scores(x)?;
        let mut proba = match &self.calibration {
            Calibration::Curves(curves) => {
                self.curved(curves, width, &scores, x.rows(), classes)?
            }
            Calibration::Temperature(beta) => {
                let mut logits = match (decides, width) {
                    (true, 1) => scores.into_iter().flat_map(|score| [-score, score]).collect(),
                    (false, 1) => scores.into_iter().flat_map(|p| [1.0 - p, p]).collect(),
                    _ => scores,
                };
                if logits.len() != x.rows() * classes {
                    let reason = format!("an inner classifier has {width} scores a row");
                    return Err(PredictError::Internal(reason));
                }
                let logit = |value: f64| if decides { value } else { (value + LOGIT_EPS).ln() };
                logits.iter_mut().for_each(|value| *value = beta * logit(*value));
                logits.chunks_exact_mut(classes).for_each(math::softmax);
                logits
            }
        };
        let above = |p: &&mut f64| 1.0 < **p && **p <= 1.0 + 1e-5;
        proba.iter_mut().filter(above).for_each(|p| *p = 1.0);
        Ok(proba)
    }

    fn curved(
        &self,
        curves: &[Curve],
        width: usize,
        scores: &[f64],
        rows: usize,
        classes: usize,
    ) -> Result<Vec<f64>, PredictError> {
        let mut proba = vec![0.0; rows * classes];
        for (index, (&place, curve)) in self.places.iter().zip(curves).enumerate().take(width) {
            let place = if classes == 2 { 1 } else { place };
            let column = scores.iter().copied().skip(index).step_by(width).collect();
            let values = curve.values(column)?;
            proba.chunks_exact_mut(classes).zip(values).for_each(|(row, p)| row[place] = p);
        }
        for row in proba.chunks_exact_mut(classes) {
            if classes == 2 {
                row[0] = 1.0 - row[1];
                continue;
            }
            let sum: f64 = row.iter().sum();
            let share = 1.0 / classes as f64;
            row.iter_mut().for_each(|p| *p = if sum == 0.0 { share } else { *p / sum });
        }
        Ok(proba)
    }
}

impl CalibratedClassifier {
    fn mean(&self, x: &Table) -> Result<Vec<f64>, PredictError> {
        let x = input::align(x, &self.spec)?;
        let classes = self.classes.len();
        let mut mean = vec![0.0; x.rows() * classes];
        for member in &self.members {
            let proba = member.proba(&x, classes)?;
            mean.iter_mut().zip(proba).for_each(|(sum, p)| *sum += p);
        }
        let count = self.members.len() as f64;
        mean.iter_mut().for_each(|sum| *sum /= count);
        Ok(mean)
    }
}

impl Estimator for CalibratedClassifier {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn input(&self) -> &InputSpec {
        &self.spec
    }

    fn methods(&self) -> &[Method] {
        &[Method::Predict, Method::PredictProba]
    }

    fn classes(&self) -> &[Array] {
        std::slice::from_ref(&self.classes)
    }

    fn predict(&self, x: &Table) -> Result<Array, PredictError> {
        let best = math::argmax_rows(&self.mean(x)?, self.classes.len());
        Ok(self.classes.take(vec![best.len()], &best))
    }

    fn predict_proba(&self, x: &Table) -> Result<Vec<Array>, PredictError> {
        Ok(vec![Array::f64(vec![x.rows(), self.classes.len()], self.mean(x)?)])
    }
}
