//! `Pipeline`: transformers in a row and an estimator at the end, which answers every method.

use std::borrow::Cow;

use crate::array::Array;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::{Object, Value};
use crate::steps::{Builder, Estimator, InputSpec, OutputSpec, Row, output};
use crate::table::Table;

pub(crate) static ESTIMATORS: &[Row] = &[Row { class: "Pipeline", build }];

struct Pipeline {
    steps: Vec<Box<dyn Estimator>>,
    /// The last step passes its rows through, so only `transform` is there.
    passes: bool,
    input: InputSpec,
    names: Option<Vec<String>>,
}

/// A name and what stands beside it, as lists of estimators have them; `None` for a step that passes rows through.
pub(super) fn named_step<'a>(
    object: Object<'a>,
    attribute: &str,
    item: Value<'a>,
) -> Result<(&'a str, Option<Object<'a>>), Fault> {
    let wrong = |found: Value<'_>| {
        let reason = format!("expected a name and an estimator, found {}", found.describe());
        object.wrong(attribute, reason)
    };
    let parts = item.as_list().ok_or_else(|| wrong(item))?;
    let [name, step, ..] = parts.as_slice() else { return Err(wrong(item)) };
    let name = name.as_str().ok_or_else(|| wrong(item))?;
    match step.as_object() {
        Some(step) => Ok((name, Some(step))),
        None if step.is_none() || step.as_str() == Some("passthrough") => Ok((name, None)),
        None => Err(wrong(*step)),
    }
}

fn build(object: Object<'_>, builder: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut steps = Vec::new();
    let mut passes = true;
    for item in object.list("steps")? {
        let (name, step) = named_step(object, "steps", item)?;
        passes = step.is_none();
        if let Some(step) = step {
            let step = builder.build(step)?;
            steps.push((name, step));
        }
    }
    let count = steps.len();
    for (index, (name, step)) in steps.iter().enumerate() {
        let inner = index + 1 < count || passes;
        if inner && !step.methods().contains(&Method::Transform) {
            let reason = format!("the step {name:?}, {}, has no transform", step.name());
            return Err(object.wrong("steps", reason));
        }
    }
    let steps = steps.into_iter().map(|(_, step)| step).collect();
    Ok(Box::new(Pipeline::new(steps, passes)))
}

/// A transformer and an estimator of two files as one pipeline.
///
/// # Errors
/// When the first has no `transform`.
pub(crate) fn chain(
    first: Box<dyn Estimator>,
    last: Box<dyn Estimator>,
) -> Result<Box<dyn Estimator>, Fault> {
    if !first.methods().contains(&Method::Transform) {
        let reason = format!("{} stands before the model and has no transform", first.name());
        return Err(Fault::unsupported(reason));
    }
    Ok(Box::new(Pipeline::new(vec![first, last], false)))
}

impl Pipeline {
    fn new(steps: Vec<Box<dyn Estimator>>, passes: bool) -> Self {
        let input = steps.first().map(|step| step.input().clone()).unwrap_or_default();
        let names = steps.last().and_then(|step| step.output_names());
        Self { steps, passes, input, names }
    }

    /// The rows that the last step sees, and that step.
    fn last<'x>(
        &self,
        method: Method,
        x: &'x Table,
    ) -> Result<(Cow<'x, Table>, &dyn Estimator), PredictError> {
        let (Some((last, before)), false) = (self.steps.split_last(), self.passes) else {
            return Err(self.lacks(method));
        };
        Ok((through(before, x)?, last.as_ref()))
    }
}

fn through<'x>(steps: &[Box<dyn Estimator>], x: &'x Table) -> Result<Cow<'x, Table>, PredictError> {
    let start = Ok(Cow::Borrowed(x));
    steps.iter().fold(start, |x: Result<Cow<'x, Table>, _>, step| {
        Ok(Cow::Owned(step.transform(x?.as_ref())?))
    })
}

impl Estimator for Pipeline {
    fn name(&self) -> String {
        let names: Vec<String> = self.steps.iter().map(|step| step.name()).collect();
        format!("Pipeline({})", names.join(", "))
    }

    fn input(&self) -> &InputSpec {
        &self.input
    }

    fn methods(&self) -> &[Method] {
        match self.steps.last() {
            Some(last) if !self.passes => last.methods(),
            _ => &[Method::Transform],
        }
    }

    fn output_specs(&self, method: Method) -> Vec<OutputSpec> {
        match self.steps.last() {
            Some(last) => last.output_specs(method),
            None => output::usual(&[], None, method),
        }
    }

    fn classes(&self) -> &[Array] {
        match self.steps.last() {
            Some(last) if !self.passes => last.classes(),
            _ => &[],
        }
    }

    fn predict(&self, x: &Table) -> Result<Array, PredictError> {
        let (x, last) = self.last(Method::Predict, x)?;
        last.predict(&x)
    }

    fn predict_proba(&self, x: &Table) -> Result<Vec<Array>, PredictError> {
        let (x, last) = self.last(Method::PredictProba, x)?;
        last.predict_proba(&x)
    }

    fn predict_log_proba(&self, x: &Table) -> Result<Vec<Array>, PredictError> {
        let (x, last) = self.last(Method::PredictLogProba, x)?;
        last.predict_log_proba(&x)
    }

    fn decision_function(&self, x: &Table) -> Result<Array, PredictError> {
        let (x, last) = self.last(Method::DecisionFunction, x)?;
        last.decision_function(&x)
    }

    fn score_samples(&self, x: &Table) -> Result<Array, PredictError> {
        let (x, last) = self.last(Method::ScoreSamples, x)?;
        last.score_samples(&x)
    }

    fn apply(&self, x: &Table) -> Result<Array, PredictError> {
        let (x, last) = self.last(Method::Apply, x)?;
        last.apply(&x)
    }

    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        if !self.methods().contains(&Method::Transform) {
            return Err(self.lacks(Method::Transform));
        }
        through(&self.steps, x).map(Cow::into_owned)
    }

    fn inverse_transform(&self, x: &Table) -> Result<Table, PredictError> {
        let mut x = x.clone();
        for step in self.steps.iter().rev() {
            x = step.inverse_transform(&x)?;
        }
        Ok(x)
    }

    fn output_names(&self) -> Option<Vec<String>> {
        self.names.clone()
    }
}
