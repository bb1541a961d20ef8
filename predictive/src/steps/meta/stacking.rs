//! Stacking: a final estimator over what the first ones answer.

use crate::array::Array;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::{Object, Value};
use crate::steps::meta::{read_estimators, spec, stack, transpose, unexpected};
use crate::steps::{Builder, Estimator, InputSpec, OutputSpec, Row, input, labels, output};
use crate::table::Table;
use crate::tensor::DataType;

/// Stacks.
pub(crate) static ESTIMATORS: &[Row] =
    &[Row { class: "StackingClassifier", build }, Row { class: "StackingRegressor", build }];

/// A fitted stack.
struct Stacking {
    class: String,
    spec: InputSpec,
    estimators: Vec<Box<dyn Estimator>>,
    asked: Vec<Method>,
    last: Box<dyn Estimator>,
    passthrough: bool,
    /// Labels of each output, of a classifier.
    classes: Vec<Array>,
    methods: Vec<Method>,
}

fn build(object: Object<'_>, builder: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let estimators = read_estimators(object, "estimators_", builder)?;
    let last = builder.build(object.object("final_estimator_")?)?;
    let asked: Option<Vec<Method>> = object
        .list("stack_method_")?
        .into_iter()
        .map(|name| Method::from_name(name.as_str()?))
        .collect();
    let asked = asked.filter(|asked| asked.len() == estimators.len()).ok_or_else(|| {
        object.wrong("stack_method_", "expected the name of a method for each estimator")
    })?;
    let spec = spec(object, estimators[0].as_ref())?;
    let classes = match object.class {
        "StackingClassifier" => input::classes(object)?,
        _ => Vec::new(),
    };
    let has = |method: &Method| last.methods().contains(method);
    let mut methods = vec![Method::Predict];
    if !classes.is_empty() {
        let more = [Method::PredictProba, Method::PredictLogProba, Method::DecisionFunction];
        methods.extend(more.into_iter().filter(has));
        check_last(object, &classes, last.as_ref())?;
    }
    methods.push(Method::Transform);
    let passthrough = object.get("passthrough").and_then(Value::as_bool).unwrap_or(false);
    let class = object.class.to_owned();
    Ok(Box::new(Stacking { class, spec, estimators, asked, last, passthrough, classes, methods }))
}

/// The last estimator's classes are numbers of the classes of the stack.
fn check_last(object: Object<'_>, classes: &[Array], last: &dyn Estimator) -> Result<(), Fault> {
    let fits = last.classes().len() == classes.len()
        && last.classes().iter().zip(classes).all(|(inner, outer)| {
            let numbers = Array::i64(vec![outer.len()], (0..outer.len() as i64).collect());
            labels::positions(&numbers, inner).iter().all(Option::is_some)
        });
    match fits {
        true => Ok(()),
        false => Err(object.wrong("final_estimator_", "its classes are not numbers of classes_")),
    }
}

impl Stacking {
    /// What the final estimator reads.
    fn stacked(&self, x: &Table) -> Result<Table, PredictError> {
        let x = input::align(x, &self.spec)?;
        let rows = x.rows();
        let mut blocks = Vec::new();
        let mut add = |array: Array, skip: usize| {
            let width = if array.shape().len() == 1 { 1 } else { array.len() / rows.max(1) };
            let values = array.to_f64().filter(|values| values.len() == rows * width);
            let values = values.ok_or_else(|| unexpected("numbers", &array))?;
            let kept = values.chunks_exact(width.max(1)).flat_map(|row| &row[skip.min(width)..]);
            blocks.push((width - skip.min(width), kept.copied().collect::<Vec<f64>>()));
            Ok::<(), PredictError>(())
        };
        for (estimator, method) in self.estimators.iter().zip(&self.asked) {
            match method {
                Method::PredictProba => {
                    let probas = estimator.predict_proba(&x)?;
                    let several = probas.len() > 1;
                    let binary = matches!(self.classes.as_slice(), [one] if one.len() == 2);
                    for proba in probas {
                        add(proba, usize::from(several || binary))?;
                    }
                }
                Method::DecisionFunction => add(estimator.decision_function(&x)?, 0)?,
                _ => add(estimator.predict(&x)?, 0)?,
            }
        }
        if self.passthrough {
            let x = input::to_matrix(x.into_owned())?;
            blocks.push((x.columns, x.to_f64().into_owned()));
        }
        Ok(Table::Dense(stack(rows, &blocks)))
    }

    fn has(&self, method: Method) -> Result<(), PredictError> {
        if self.methods.contains(&method) { Ok(()) } else { Err(self.lacks(method)) }
    }
}

impl Estimator for Stacking {
    fn name(&self) -> String {
        let names: Vec<String> = self.estimators.iter().map(|inner| inner.name()).collect();
        format!("{}({}; {})", self.class, names.join(", "), self.last.name())
    }

    fn input(&self) -> &InputSpec {
        &self.spec
    }

    fn methods(&self) -> &[Method] {
        &self.methods
    }

    fn output_specs(&self, method: Method) -> Vec<OutputSpec> {
        match method {
            Method::Predict if !self.classes.is_empty() => {
                output::usual(&self.classes, None, method)
            }
            Method::Transform => output::usual(&[], None, method),
            Method::PredictProba | Method::PredictLogProba if self.classes.len() > 1 => {
                vec![OutputSpec::columns(DataType::Fp64, self.classes.len())]
            }
            _ => self.last.output_specs(method),
        }
    }

    fn classes(&self) -> &[Array] {
        &self.classes
    }

    fn predict(&self, x: &Table) -> Result<Array, PredictError> {
        let answer = self.last.predict(&self.stacked(x)?)?;
        if self.classes.is_empty() {
            return Ok(answer);
        }
        let rows = x.rows();
        let outputs = self.classes.len();
        let numbers = answer.to_f64().filter(|numbers| numbers.len() == rows * outputs);
        let numbers = numbers.ok_or_else(|| unexpected("class numbers", &answer))?;
        let indices = |output: usize| -> Vec<usize> {
            (0..rows).map(|row| numbers[row * outputs + output] as usize).collect()
        };
        let indices: Vec<Vec<usize>> = (0..outputs).map(indices).collect();
        Ok(labels::take(&self.classes, &indices))
    }

    fn predict_proba(&self, x: &Table) -> Result<Vec<Array>, PredictError> {
        self.has(Method::PredictProba)?;
        let probas = self.last.predict_proba(&self.stacked(x)?)?;
        if self.classes.len() < 2 {
            return Ok(probas);
        }
        // Of several labels the library answers the probability of each not to be there.
        let rows = x.rows();
        let absent = |proba: &Array| {
            let width = proba.shape().get(1).copied().unwrap_or(1);
            let values = proba.to_f64().filter(|values| values.len() == rows * width);
            let values = values.ok_or_else(|| unexpected("numbers", proba))?;
            Ok::<Vec<f64>, PredictError>(values.chunks_exact(width).map(|row| row[0]).collect())
        };
        let columns = probas.iter().map(absent).collect::<Result<Vec<_>, _>>()?;
        Ok(vec![Array::f64(vec![rows, columns.len()], transpose(&columns, rows))])
    }

    fn decision_function(&self, x: &Table) -> Result<Array, PredictError> {
        self.has(Method::DecisionFunction)?;
        self.last.decision_function(&self.stacked(x)?)
    }

    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        self.stacked(x)
    }
}
