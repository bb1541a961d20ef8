//! Linear models: `D = X . coef_ + intercept_`, its link for regressors, labels and probabilities for classifiers.
//!
//! Not here: fitting, and the one-versus-one machines with kernels (`svm`).

mod classifiers;
mod isotonic;

use crate::array::{Array, Values};
use crate::error::Fault;
use crate::model::Method;
use crate::pickle::Object;
use crate::steps::numeric::{Answer, Base, Points, Rule, broadcast, matrix, shaped};
use crate::steps::{Builder, Estimator, Row};
use crate::tensor::DataType;

pub(crate) use classifiers::CLASSIFIERS;
pub(crate) use isotonic::ISOTONIC;

/// Coefficients `[outputs, columns]` and an intercept per output.
pub(crate) struct Linear {
    coefficients: Vec<f64>,
    intercepts: Vec<f64>,
}

impl Linear {
    /// Reads `coef_` and `intercept_`; sets the columns and the precision of `base`.
    pub(crate) fn read(object: Object<'_>, base: &mut Base) -> Result<Self, Fault> {
        let (outputs, columns, coefficients) = matrix(object, "coef_")?;
        base.columns(object, "coef_", columns)?;
        base.precision(object, "coef_");
        let intercepts = broadcast(object, "intercept_", outputs)?;
        Ok(Self { coefficients, intercepts })
    }

    /// Number of outputs.
    pub(crate) fn outputs(&self) -> usize {
        self.intercepts.len()
    }

    /// `D`, `[rows, outputs]`.
    pub(crate) fn decide(&self, x: &Points<'_>) -> Vec<f64> {
        let mut answers = x.products(&self.coefficients, self.outputs());
        for row in answers.chunks_exact_mut(self.outputs().max(1)) {
            row.iter_mut().zip(&self.intercepts).for_each(|(value, add)| *value += add);
        }
        answers
    }
}

/// A linear regressor.
struct Regressor {
    linear: Linear,
    /// `coef_` has one dimension: answers have too.
    flat: bool,
    /// The link is the logarithm.
    exponential: bool,
}

impl Rule for Regressor {
    fn predict(&self, _: &Base, x: &Points<'_>) -> Answer {
        let mut values = self.linear.decide(x);
        if self.exponential {
            values.iter_mut().for_each(|value| *value = value.exp());
        }
        Ok(shaped(x.rows, self.linear.outputs(), self.flat, values))
    }
}

fn regressor(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let exponential = match object.class {
        "PoissonRegressor" | "GammaRegressor" => true,
        "TweedieRegressor" => match object.str("link")? {
            "auto" => object.f64("power")? > 0.0,
            "log" => true,
            "identity" => false,
            other => return Err(object.wrong("link", format!("{other:?} is not a known link"))),
        },
        _ => false,
    };
    let mut base = Base::new(object, &[Method::Predict])?;
    let linear = Linear::read(object, &mut base)?;
    let shape = object.get("coef_").and_then(|value| value.shape());
    let flat = shape.is_some_and(|shape| shape.len() < 2) || object.class == "LinearSVR";
    // SGD and LinearSVR keep coef_ of one dimension; a sparsified coef_ is a matrix of one row.
    let flat = flat || object.class.starts_with("SGD");
    Ok(base.with(Regressor { linear, flat, exponential }))
}

/// RANSAC answers with the estimator that it fitted to the inliers.
fn ransac(object: Object<'_>, builder: Builder) -> Result<Box<dyn Estimator>, Fault> {
    builder.build(object.object("estimator_")?)
}

/// A linear border around one class.
struct OneClass {
    linear: Linear,
    offset: f64,
}

impl OneClass {
    fn decide(&self, x: &Points<'_>) -> Vec<f64> {
        self.linear.decide(x).into_iter().map(|value| value - self.offset).collect()
    }
}

impl Rule for OneClass {
    fn predict(&self, _: &Base, x: &Points<'_>) -> Answer {
        let inlier = |value: f64| if value >= 0.0 { 1 } else { -1 };
        let labels = self.decide(x).into_iter().map(inlier).collect();
        // The library fills an array of 32 bits.
        Ok(Array::new(DataType::Int32, vec![x.rows], Values::Int(labels)))
    }

    fn decision(&self, _: &Base, x: &Points<'_>) -> Answer {
        Ok(Array::f64(vec![x.rows], self.decide(x)))
    }

    fn scores(&self, _: &Base, x: &Points<'_>) -> Answer {
        Ok(Array::f64(vec![x.rows], self.linear.decide(x)))
    }
}

fn one_class(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let methods = [Method::Predict, Method::DecisionFunction, Method::ScoreSamples];
    let mut base = Base::new(object, &methods)?;
    let (rows, columns, coefficients) = matrix(object, "coef_")?;
    base.columns(object, "coef_", columns)?;
    if rows != 1 {
        return Err(object.wrong("coef_", format!("expected one row, found {rows}")));
    }
    let linear = Linear { coefficients, intercepts: vec![0.0] };
    let offset = object.vector("offset_", Some(1))?[0];
    Ok(base.with(OneClass { linear, offset }))
}

const fn row(class: &'static str) -> Row {
    Row { class, build: regressor }
}

/// Linear regressors and one-class borders.
pub(crate) static ESTIMATORS: &[Row] = &[
    row("ARDRegression"),
    row("BayesianRidge"),
    row("ElasticNet"),
    row("ElasticNetCV"),
    row("GammaRegressor"),
    row("HuberRegressor"),
    row("Lars"),
    row("LarsCV"),
    row("Lasso"),
    row("LassoCV"),
    row("LassoLars"),
    row("LassoLarsCV"),
    row("LassoLarsIC"),
    row("LinearRegression"),
    row("LinearSVR"),
    row("MultiTaskElasticNet"),
    row("MultiTaskElasticNetCV"),
    row("MultiTaskLasso"),
    row("MultiTaskLassoCV"),
    row("OrthogonalMatchingPursuit"),
    row("OrthogonalMatchingPursuitCV"),
    row("PassiveAggressiveRegressor"),
    row("PoissonRegressor"),
    row("QuantileRegressor"),
    Row { class: "RANSACRegressor", build: ransac },
    row("Ridge"),
    row("RidgeCV"),
    Row { class: "SGDOneClassSVM", build: one_class },
    row("SGDRegressor"),
    row("TheilSenRegressor"),
    row("TweedieRegressor"),
];
