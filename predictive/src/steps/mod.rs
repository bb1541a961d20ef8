//! Estimators as steps over tables: what scikit-learn pipelines, wrappers and boosted ensembles lower to.

mod ada_boost;
mod agglomerate;
mod categories;
mod cluster;
mod compose;
mod covariance;
mod decomposition;
mod discretise;
mod discriminant;
mod encode;
mod feature_selection;
mod forest;
mod function;
mod gaussian_process;
mod gradient_boosting;
mod hist_gradient_boosting;
mod importance;
mod impute;
mod impute_model;
pub(crate) mod input;
mod isolation_forest;
mod kernel_approximation;
mod label_propagation;
pub(crate) mod labels;
mod least_angle;
mod linear;
mod manifold;
pub(crate) mod math;
pub(crate) mod meta;
mod mixture;
mod naive_bayes;
mod neighbors;
mod neural_network;
pub(crate) mod nmf;
mod normal;
mod numeric;
mod output;
mod pairwise;
pub(crate) mod pipeline;
mod polynomial;
mod power;
mod refused;
mod scale;
mod sparse_coding;
mod special;
mod spline;
mod svm;
mod tabular;
mod text;
mod topics;
mod transform;
mod tree;
mod tree_data;
mod twister;

use crate::array::Array;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::Object;
use crate::table::Table;

pub use output::OutputSpec;
pub use tabular::Tabular;

/// What an estimator reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InputSpec {
    /// Number of columns it was fitted with (`n_features_in_`); `None` when it does not care.
    pub columns: Option<usize>,
    /// Their names (`feature_names_in_`).
    pub names: Option<Vec<String>>,
    /// A list of texts instead of a table (text vectorisers).
    pub texts: bool,
    /// Some column held texts when it was fitted.
    pub text_columns: bool,
}

/// A fitted estimator. Every method checks its input's columns and answers [`PredictError::Input`] when they do not
/// fit; methods that the estimator lacks answer [`PredictError::Unsupported`].
pub trait Estimator: Send + Sync {
    /// Class name, for messages and descriptions: `LogisticRegression`, `Pipeline(StandardScaler, SVC)`.
    fn name(&self) -> String;

    /// What it reads.
    fn input(&self) -> &InputSpec;

    /// The methods it has; the first is the default.
    fn methods(&self) -> &[Method];

    /// The classes of a classifier, in the order of probability columns; one array per output.
    fn classes(&self) -> &[Array] {
        &[]
    }

    /// What a method answers, one element an output: what metadata says before a row is seen.
    fn output_specs(&self, method: Method) -> Vec<OutputSpec> {
        let names = match method {
            Method::Transform => self.output_names().map(|names| names.len()),
            _ => None,
        };
        output::usual(self.classes(), names, method)
    }

    /// Labels `[n]`, or values `[n]` or `[n, outputs]`.
    ///
    /// # Errors
    /// When the rows do not fit or there is no such method.
    fn predict(&self, x: &Table) -> Result<Array, PredictError> {
        let _ = x;
        Err(self.lacks(Method::Predict))
    }

    /// Probabilities `[n, classes]`, one array per output.
    ///
    /// # Errors
    /// When the rows do not fit or there is no such method.
    fn predict_proba(&self, x: &Table) -> Result<Vec<Array>, PredictError> {
        let _ = x;
        Err(self.lacks(Method::PredictProba))
    }

    /// Logarithms of the probabilities. The default takes them of [`predict_proba`](Self::predict_proba).
    ///
    /// # Errors
    /// When the rows do not fit or there is no such method.
    fn predict_log_proba(&self, x: &Table) -> Result<Vec<Array>, PredictError> {
        let log = |array: &Array| {
            let values = array.to_f64().unwrap_or_default();
            Array::f64(array.shape().to_vec(), values.into_iter().map(f64::ln).collect())
        };
        Ok(self.predict_proba(x)?.iter().map(log).collect())
    }

    /// Decision values `[n]` or `[n, classes]`; raw margins of boosted ensembles.
    ///
    /// # Errors
    /// When the rows do not fit or there is no such method.
    fn decision_function(&self, x: &Table) -> Result<Array, PredictError> {
        let _ = x;
        Err(self.lacks(Method::DecisionFunction))
    }

    /// A score per row `[n]`.
    ///
    /// # Errors
    /// When the rows do not fit or there is no such method.
    fn score_samples(&self, x: &Table) -> Result<Array, PredictError> {
        let _ = x;
        Err(self.lacks(Method::ScoreSamples))
    }

    /// Leaf of each tree `[n, trees]`.
    ///
    /// # Errors
    /// When the rows do not fit or there is no such method.
    fn apply(&self, x: &Table) -> Result<Array, PredictError> {
        let _ = x;
        Err(self.lacks(Method::Apply))
    }

    /// Distances to the nearest training rows and their indices, `[n, neighbours]` each.
    ///
    /// # Errors
    /// When the rows do not fit or there is no such method.
    fn kneighbors(&self, x: &Table) -> Result<Vec<Array>, PredictError> {
        let _ = x;
        Err(self.lacks(Method::Kneighbors))
    }

    /// Transformed features.
    ///
    /// # Errors
    /// When the rows do not fit or there is no such method.
    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        let _ = x;
        Err(self.lacks(Method::Transform))
    }

    /// Back from transformed features (targets of a transformed regressor).
    ///
    /// # Errors
    /// When the rows do not fit or there is no such method.
    fn inverse_transform(&self, x: &Table) -> Result<Table, PredictError> {
        let _ = x;
        Err(PredictError::Unsupported(format!("{} has no inverse_transform", self.name())))
    }

    /// Names of the columns that `transform` gives, where they are known.
    fn output_names(&self) -> Option<Vec<String>> {
        None
    }

    /// The answer to a call of a method that is not there.
    fn lacks(&self, method: Method) -> PredictError {
        let have: Vec<&str> = self.methods().iter().map(|method| method.name()).collect();
        let (name, method) = (self.name(), method.name());
        PredictError::Unsupported(format!("{name} has no {method}; it has {}", have.join(", ")))
    }
}

/// How deep estimators may be nested in each other.
pub(crate) const MAX_NESTING: usize = 32;

/// What builders share: the depth of nesting, so that hostile files cannot exhaust the stack.
#[derive(Clone, Copy, Debug, Default)]
pub struct Builder {
    depth: usize,
}

impl Builder {
    /// The estimator of an object, by its class name.
    ///
    /// # Errors
    /// When the class is not known (the message lists those that are), or its attributes are wrong.
    pub fn build(self, object: Object<'_>) -> Result<Box<dyn Estimator>, Fault> {
        if self.depth >= MAX_NESTING {
            let reason = format!("estimators are nested more than {MAX_NESTING} deep");
            return Err(Fault::corrupt(object.class, reason));
        }
        object.pay()?;
        let inner = Builder { depth: self.depth + 1 };
        let mut rows = ESTIMATORS.iter().flat_map(|table| table.iter());
        match rows.find(|row| row.fits(object)) {
            Some(row) => {
                let built = (row.build)(object, inner);
                // Values that nothing is left to pay for look as if they were missing.
                object.pay()?;
                built
            }
            None => Err(refused::reason(object)),
        }
    }
}

/// One supported class.
pub struct Row {
    /// Its name, without the module; with the package before it (`xgboost.Booster`) where two have the name.
    pub class: &'static str,
    /// Makes it from its pickled object; inner estimators are built through the [`Builder`].
    pub build: fn(Object<'_>, Builder) -> Result<Box<dyn Estimator>, Fault>,
}

impl Row {
    fn fits(&self, object: Object<'_>) -> bool {
        match self.class.split_once('.') {
            Some((package, class)) => {
                class == object.class && object.module.split('.').next() == Some(package)
            }
            None => self.class == object.class,
        }
    }
}

/// Every supported class, one table per file of this folder.
pub static ESTIMATORS: &[&[Row]] = &[
    ada_boost::ESTIMATORS,
    agglomerate::ESTIMATORS,
    cluster::ESTIMATORS,
    compose::ESTIMATORS,
    covariance::ESTIMATORS,
    crate::formats::lightgbm::ESTIMATORS,
    crate::formats::xgboost::ESTIMATORS,
    decomposition::ESTIMATORS,
    discretise::ESTIMATORS,
    discriminant::ESTIMATORS,
    encode::ESTIMATORS,
    feature_selection::ESTIMATORS,
    forest::ESTIMATORS,
    function::ESTIMATORS,
    gaussian_process::ESTIMATORS,
    gradient_boosting::ESTIMATORS,
    hist_gradient_boosting::ESTIMATORS,
    impute::ESTIMATORS,
    impute_model::ESTIMATORS,
    isolation_forest::ESTIMATORS,
    kernel_approximation::ESTIMATORS,
    label_propagation::ESTIMATORS,
    linear::CLASSIFIERS,
    linear::ESTIMATORS,
    linear::ISOTONIC,
    manifold::ESTIMATORS,
    meta::bagging::ESTIMATORS,
    meta::calibrated::ESTIMATORS,
    meta::delegate::ESTIMATORS,
    meta::dummy::ESTIMATORS,
    meta::multi_class::ESTIMATORS,
    meta::multi_output::ESTIMATORS,
    meta::stacking::ESTIMATORS,
    meta::target::ESTIMATORS,
    meta::threshold::ESTIMATORS,
    meta::voting::ESTIMATORS,
    mixture::ESTIMATORS,
    naive_bayes::ESTIMATORS,
    neighbors::CENTROID,
    neighbors::DENSITY,
    neighbors::GRAPH,
    neighbors::OUTLIER,
    neighbors::VOTES,
    neural_network::ESTIMATORS,
    nmf::ESTIMATORS,
    pipeline::ESTIMATORS,
    polynomial::ESTIMATORS,
    power::ESTIMATORS,
    scale::ESTIMATORS,
    sparse_coding::ESTIMATORS,
    spline::ESTIMATORS,
    svm::ESTIMATORS,
    text::ESTIMATORS,
    topics::ESTIMATORS,
    tree::ESTIMATORS,
];
