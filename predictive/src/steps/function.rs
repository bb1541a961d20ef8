//! `FunctionTransformer`: a function of numpy that is known by name. Nothing of the file is ever called.

use std::borrow::Cow;

use crate::error::Fault;
use crate::model::PredictError;
use crate::pickle::{Object, Value};
use crate::steps::input::Nan;
use crate::steps::transform::{Transform, map, numeric, transformer};
use crate::steps::{Builder, Estimator, Row};
use crate::table::{Column, Frame, Table};

pub(crate) static ESTIMATORS: &[Row] = &[Row { class: "FunctionTransformer", build }];

type Function = fn(f64) -> f64;

/// Functions of numpy and `scipy.special` that are known.
static FUNCTIONS: &[(&str, Function)] = &[
    ("abs", f64::abs),
    ("absolute", f64::abs),
    ("arcsinh", f64::asinh),
    ("arctan", f64::atan),
    ("cbrt", f64::cbrt),
    ("ceil", f64::ceil),
    ("cos", f64::cos),
    ("cosh", f64::cosh),
    ("deg2rad", f64::to_radians),
    ("exp", f64::exp),
    ("exp2", f64::exp2),
    ("expit", crate::steps::math::expit),
    ("expm1", f64::exp_m1),
    ("fabs", f64::abs),
    ("floor", f64::floor),
    ("log", f64::ln),
    ("log10", f64::log10),
    ("log1p", f64::ln_1p),
    ("log2", f64::log2),
    ("nan_to_num", finite),
    ("negative", |x| -x),
    ("positive", |x| x),
    ("rad2deg", f64::to_degrees),
    ("reciprocal", f64::recip),
    ("rint", f64::round_ties_even),
    ("sign", |x| if x == 0.0 || x.is_nan() { x } else { x.signum() }),
    ("sin", f64::sin),
    ("sinh", f64::sinh),
    ("sqrt", f64::sqrt),
    ("square", |x| x * x),
    ("tan", f64::tan),
    ("tanh", f64::tanh),
    ("trunc", f64::trunc),
];

/// `numpy.nan_to_num`: 0 for NaN, the greatest numbers for infinities.
fn finite(x: f64) -> f64 {
    if x.is_nan() { 0.0 } else { x.clamp(f64::MIN, f64::MAX) }
}

struct FunctionTransformer {
    /// `None` is the identity.
    forward: Option<Function>,
    inverse: Option<Function>,
    nan: Nan,
}

/// The function of an attribute.
fn function(object: Object<'_>, name: &str, arguments: &str) -> Result<Option<Function>, Fault> {
    let Some(value) = object.some(name) else { return Ok(None) };
    if is_check(value) {
        return Ok(None);
    }
    let extra = object.some(arguments).and_then(Value::as_dict).unwrap_or_default();
    if !extra.is_empty() {
        return Err(Fault::unsupported(format!("{}.{arguments} is not empty", object.class)));
    }
    let global = value.as_global();
    let known = global.filter(|(module, _)| {
        ["numpy", "scipy.special"].iter().any(|root| {
            module.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    });
    let found = known.and_then(|(_, name)| FUNCTIONS.iter().find(|(known, _)| *known == name));
    found.map(|&(_, function)| Some(function)).ok_or_else(|| {
        let known: Vec<&str> = FUNCTIONS.iter().map(|(name, _)| *name).collect();
        let (class, found, known) = (object.class, value.describe(), known.join(", "));
        Fault::unsupported(format!(
            "{class}.{name} is {found}; functions are not carried out, but these of numpy are known: {known}"
        ))
    })
}

/// Whether a function only checks its array: `functools.partial(sklearn.utils.check_array, ...)`, which the gradient
/// boosting of histograms puts before its numbers.
fn is_check(value: Value<'_>) -> bool {
    let partial = value.as_object().filter(|object| object.class == "partial");
    let called = partial.and_then(|partial| partial.arguments.as_list()?.first()?.as_global());
    called.is_some_and(|(module, name)| module.starts_with("sklearn.") && name == "check_array")
}

fn build(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let forward = function(object, "func", "kw_args")?;
    let inverse = function(object, "inverse_func", "inv_kw_args")?;
    let nan = if object.bool("validate")? { Nan::Refuse } else { Nan::Any };
    transformer(object, None, FunctionTransformer { forward, inverse, nan })
}

impl FunctionTransformer {
    fn call(&self, function: Option<Function>, x: &Table) -> Result<Table, PredictError> {
        let Some(function) = function else {
            return match self.nan {
                Nan::Refuse if !matches!(x, Table::Sparse(_)) => {
                    numeric(x, self.nan).map(Cow::into_owned).map(Table::Dense)
                }
                _ => Ok(x.clone()),
            };
        };
        Ok(match x {
            Table::Sparse(sparse) if function(0.0) == 0.0 => {
                let mut sparse = sparse.clone();
                sparse.values.iter_mut().for_each(|value| *value = function(*value));
                Table::Sparse(sparse)
            }
            // A frame stays one, so that steps after it find its columns by name.
            Table::Frame(frame) if self.nan == Nan::Any => {
                let apply = |column: &Column| {
                    let columns = vec![column.clone()];
                    let one = Table::Frame(Frame { rows: frame.rows, names: None, columns });
                    let values = numeric(&one, Nan::Any)?;
                    Ok(Column::Numbers(
                        values.to_f64().iter().map(|&value| function(value)).collect(),
                    ))
                };
                let columns =
                    frame.columns.iter().map(apply).collect::<Result<_, PredictError>>()?;
                Table::Frame(Frame { rows: frame.rows, names: frame.names.clone(), columns })
            }
            x => Table::Dense(map(&*numeric(x, self.nan)?, |_, value| function(value))),
        })
    }
}

impl Transform for FunctionTransformer {
    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        self.call(self.forward, x)
    }

    fn inverse(&self, x: &Table) -> Option<Result<Table, PredictError>> {
        Some(self.call(self.inverse, x))
    }
}
