//! One estimator an output, side by side or in a chain that feeds answers on.

use crate::array::Array;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::Object;
use crate::steps::input::Nan;
use crate::steps::meta::{column, one, positive, read_estimators, spec, stack, transpose, wrapped};
use crate::steps::{Builder, Estimator, InputSpec, OutputSpec, Row, input, labels};
use crate::table::Table;
use crate::tensor::DataType;

/// Several outputs.
pub(crate) static ESTIMATORS: &[Row] = &[
    Row { class: "MultiOutputClassifier", build: build_outputs },
    Row { class: "MultiOutputRegressor", build: build_outputs },
    Row { class: "ClassifierChain", build: build_chain },
    Row { class: "RegressorChain", build: build_chain },
];

/// Independent estimators.
struct Outputs {
    name: String,
    spec: InputSpec,
    estimators: Vec<Box<dyn Estimator>>,
    classes: Vec<Array>,
    methods: Vec<Method>,
}

/// Estimators that read the rows and the answers before theirs.
struct Chain {
    name: String,
    spec: InputSpec,
    estimators: Vec<Box<dyn Estimator>>,
    /// The output of each estimator.
    order: Vec<usize>,
    /// What is fed on.
    fed: Method,
    classes: Vec<Array>,
    methods: Vec<Method>,
}

/// The first classes of each estimator; none of regressors.
fn inner_classes(
    object: Object<'_>,
    estimators: &[Box<dyn Estimator>],
) -> Result<Vec<Array>, Fault> {
    if !object.class.contains("Classifier") {
        return Ok(Vec::new());
    }
    let one = |estimator: &dyn Estimator| match estimator.classes() {
        [classes] => Ok(classes.clone()),
        _ => Err(object.wrong("estimators_", "expected classifiers of one output")),
    };
    estimators.iter().map(|inner| one(inner.as_ref())).collect()
}

/// `Predict`, and those of `more` that all estimators have.
fn methods(estimators: &[Box<dyn Estimator>], more: &[Method]) -> Vec<Method> {
    let all = |method: &Method| estimators.iter().all(|inner| inner.methods().contains(method));
    std::iter::once(Method::Predict).chain(more.iter().copied().filter(all)).collect()
}

fn build_outputs(object: Object<'_>, builder: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let estimators = read_estimators(object, "estimators_", builder)?;
    let classes = inner_classes(object, &estimators)?;
    let more: &[Method] = if classes.is_empty() { &[] } else { &[Method::PredictProba] };
    Ok(Box::new(Outputs {
        name: wrapped(object.class, estimators[0].as_ref()),
        spec: spec(object, estimators[0].as_ref())?,
        methods: methods(&estimators, more),
        classes,
        estimators,
    }))
}

fn build_chain(object: Object<'_>, builder: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let estimators = read_estimators(object, "estimators_", builder)?;
    let count = estimators.len();
    let order = input::indices(object.attribute("order_")?, count).unwrap_or_default();
    let mut seen = order.clone();
    seen.sort_unstable();
    if !seen.into_iter().eq(0..count) {
        let reason = format!("expected each of the {count} outputs once");
        return Err(object.wrong("order_", reason));
    }
    let inner = inner_classes(object, &estimators)?;
    let mut classes = inner.clone();
    order.iter().zip(inner).for_each(|(&output, inner)| classes[output] = inner);
    let fed = match object.some("chain_method_") {
        None => Method::Predict,
        Some(value) => value.as_str().and_then(Method::from_name).ok_or_else(|| {
            object.wrong("chain_method_", format!("{} is no method", value.describe()))
        })?,
    };
    let more: &[Method] = match classes.is_empty() {
        true => &[],
        false => &[Method::PredictProba, Method::PredictLogProba, Method::DecisionFunction],
    };
    let features = spec_columns(object)?;
    Ok(Box::new(Chain {
        name: wrapped(object.class, estimators[0].as_ref()),
        spec: features,
        methods: methods(&estimators, more),
        estimators,
        order,
        fed,
        classes,
    }))
}

/// A chain's estimators read more columns than the chain, so its own number is needed.
fn spec_columns(object: Object<'_>) -> Result<InputSpec, Fault> {
    let spec = input::spec(object)?;
    match spec.columns {
        Some(_) => Ok(spec),
        None => Err(object.wrong("n_features_in_", "is missing")),
    }
}

impl Estimator for Outputs {
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
        let count = self.estimators.len();
        match method {
            Method::Predict => {
                let dtype = self.classes.first().map_or(DataType::Fp64, Array::dtype);
                vec![OutputSpec::columns(dtype, count)]
            }
            _ => self.estimators.iter().flat_map(|inner| inner.output_specs(method)).collect(),
        }
    }

    fn classes(&self) -> &[Array] {
        &self.classes
    }

    fn predict(&self, x: &Table) -> Result<Array, PredictError> {
        let x = input::align(x, &self.spec)?;
        let answers: Vec<Array> =
            self.estimators.iter().map(|inner| inner.predict(&x)).collect::<Result<_, _>>()?;
        match answers.iter().find(|answer| answer.len() != x.rows()) {
            Some(answer) => Err(super::unexpected("one value a row", answer)),
            None => Ok(labels::join(&answers)),
        }
    }

    fn predict_proba(&self, x: &Table) -> Result<Vec<Array>, PredictError> {
        if !self.methods.contains(&Method::PredictProba) {
            return Err(self.lacks(Method::PredictProba));
        }
        let x = input::align(x, &self.spec)?;
        self.estimators.iter().map(|inner| one(inner.predict_proba(&x)?)).collect()
    }
}

/// One number a row: what a chain feeds on or answers.
fn response(
    estimator: &dyn Estimator,
    method: Method,
    x: &Table,
) -> Result<Vec<f64>, PredictError> {
    match method {
        Method::PredictProba => positive(estimator, x),
        Method::PredictLogProba => Ok(positive(estimator, x)?.into_iter().map(f64::ln).collect()),
        Method::DecisionFunction => column(&estimator.decision_function(x)?, x.rows()),
        _ => column(&estimator.predict(x)?, x.rows()),
    }
}

impl Chain {
    /// Answers of `method`, `[rows, outputs]`.
    fn answers(&self, x: &Table, method: Method) -> Result<Array, PredictError> {
        if !self.methods.contains(&method) {
            return Err(self.lacks(method));
        }
        let x = input::dense(x, &self.spec, Nan::Refuse)?;
        let rows = x.rows;
        let mut blocks = vec![(x.columns, x.to_f64().into_owned())];
        let mut columns = vec![Vec::new(); self.estimators.len()];
        for (estimator, &output) in self.estimators.iter().zip(&self.order) {
            let x = Table::Dense(stack(rows, &blocks));
            let fed = response(estimator.as_ref(), self.fed, &x)?;
            columns[output] = match method == self.fed {
                true => fed.clone(),
                false => response(estimator.as_ref(), method, &x)?,
            };
            blocks.push((1, fed));
        }
        Ok(Array::f64(vec![rows, columns.len()], transpose(&columns, rows)))
    }
}

impl Estimator for Chain {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn input(&self) -> &InputSpec {
        &self.spec
    }

    fn methods(&self) -> &[Method] {
        &self.methods
    }

    fn output_specs(&self, _: Method) -> Vec<OutputSpec> {
        vec![OutputSpec::columns(DataType::Fp64, self.estimators.len())]
    }

    fn classes(&self) -> &[Array] {
        &self.classes
    }

    fn predict(&self, x: &Table) -> Result<Array, PredictError> {
        self.answers(x, Method::Predict)
    }

    fn predict_proba(&self, x: &Table) -> Result<Vec<Array>, PredictError> {
        Ok(vec![self.answers(x, Method::PredictProba)?])
    }

    fn predict_log_proba(&self, x: &Table) -> Result<Vec<Array>, PredictError> {
        Ok(vec![self.answers(x, Method::PredictLogProba)?])
    }

    fn decision_function(&self, x: &Table) -> Result<Array, PredictError> {
        self.answers(x, Method::DecisionFunction)
    }
}
