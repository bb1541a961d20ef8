//! A boosted model as an estimator: rows to single precision, margins, predictions.

use std::borrow::Cow;
use std::sync::Arc;

use tokenmill_kernels::trees::Forest;

use super::lower;
use super::names::Categories;
use super::objective::{Objective, softmax};
use super::schema::Raw;
use crate::array::Array;
use crate::ensemble;
use crate::error::Fault;
use crate::model::{Description, Method, PredictError};
use crate::steps::{Estimator, InputSpec, OutputSpec};
use crate::table::{Column, Frame, Matrix, Numbers, Table};
use crate::tensor::DataType;

/// More outputs than any model has; a wrong count must not become a large allocation.
const MAX_OUTPUTS: usize = 1 << 20;

/// Which rounds of a model are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rounds {
    /// All: `Booster.predict`.
    All,
    /// Up to `best_iteration` where the file says one, else this: the scikit-learn wrappers.
    Best(Option<usize>),
}

/// A model of XGBoost.
pub struct Booster {
    input: InputSpec,
    objective: Objective,
    outputs: usize,
    missing: f32,
    learner: Learner,
    categories: Vec<Option<Categories>>,
    description: Description,
}

/// What margins come from.
enum Learner {
    /// Trees, and the file's node numbers of their leaves.
    Trees { forest: Box<Forest>, leaf_nodes: Vec<Vec<u32>> },
    /// Weights, feature by feature, biases last, and what sums start from.
    Linear { weights: Vec<f32>, base: f32 },
}

impl Booster {
    /// Checks what a container held.
    pub(super) fn new(mut raw: Raw, rounds: Rounds) -> Result<Self, Fault> {
        let objective = Objective::from_name(&raw.objective).map_err(|fault| {
            match raw.objective.is_empty() {
                true => Fault::corrupt("learner.objective.name", "is missing"),
                false => fault,
            }
        })?;
        let outputs = raw.num_class.max(raw.num_target).max(1);
        if outputs > MAX_OUTPUTS {
            let reason = format!("{outputs} outputs, at most {MAX_OUTPUTS} are supported");
            return Err(Fault::corrupt("learner.learner_model_param.num_class", reason));
        }
        if raw.num_feature == 0 {
            let reason = "is missing or 0";
            return Err(Fault::corrupt("learner.learner_model_param.num_feature", reason));
        }
        let names = std::mem::take(&mut raw.feature_names);
        if !names.is_empty() && names.len() != raw.num_feature {
            let reason = format!("{} names for {} features", names.len(), raw.num_feature);
            return Err(Fault::corrupt("learner.feature_names", reason));
        }
        let base = base(&raw, objective, outputs)?;
        let description = describe(&raw, outputs);
        let categories = std::mem::take(&mut raw.booster.categories);
        if !categories.is_empty() && categories.len() != raw.num_feature {
            let reason = format!("{} entries for {} features", categories.len(), raw.num_feature);
            return Err(Fault::corrupt("learner.gradient_booster.model.cats.enc", reason));
        }
        let columns = Some(raw.num_feature);
        let learner = match raw.booster.name.as_str() {
            "gbtree" | "dart" => grown(&mut raw, &base, rounds)?,
            "gblinear" => linear(&mut raw, outputs, base[0])?,
            other => {
                return Err(Fault::unsupported(format!(
                    "the booster {other:?} is not known; known are gbtree, dart and gblinear"
                )));
            }
        };
        let names = (!names.is_empty()).then_some(names);
        let input = InputSpec { columns, names, ..InputSpec::default() };
        let missing = f32::NAN;
        Ok(Self { input, objective, outputs, missing, learner, categories, description })
    }

    /// Values equal to `missing` count as missing, as NaN does.
    pub(super) fn set_missing(&mut self, missing: f32) {
        self.missing = missing;
    }

    /// What it is.
    pub(super) fn description(&self) -> &Description {
        &self.description
    }

    /// Probabilities for the classes, whatever the objective makes of the margins.
    pub(super) fn softmax_of_margins(&self, x: &Table) -> Result<Array, PredictError> {
        let mut margins = self.margins(x)?;
        margins.chunks_exact_mut(self.outputs).for_each(softmax);
        Ok(Array::f32(vec![x.rows(), self.outputs], margins))
    }

    /// Numbers of a row of margins.
    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Whether margins are those of classes of which one is right.
    pub(super) fn is_multi_class(&self) -> bool {
        self.objective.is_multi_class()
    }

    /// Whether its predictions are classes instead of their probabilities.
    pub(super) fn predicts_classes(&self) -> bool {
        self.objective == Objective::SoftMax
    }

    fn margins(&self, x: &Table) -> Result<Vec<f32>, PredictError> {
        let rows = self.rows(x)?;
        Ok(match &self.learner {
            Learner::Trees { forest, .. } => match ensemble::sums(forest, &rows) {
                Numbers::F32(sums) => sums,
                Numbers::F64(sums) => sums.into_iter().map(|sum| sum as f32).collect(),
            },
            Learner::Linear { weights, base } => {
                linear_margins(&rows.to_f32(), weights, *base, self.outputs)
            }
        })
    }

    /// Rows of `x` in the model's order of columns, missing values as NaN.
    fn rows<'a>(&self, x: &'a Table) -> Result<Cow<'a, Matrix>, PredictError> {
        let features = self.input.columns.unwrap_or_default();
        if x.columns() != features {
            let found = x.columns();
            let reason = format!("the request has {found} columns, the model has {features}");
            return Err(PredictError::input(reason));
        }
        let mut values = match x {
            Table::Dense(matrix) => match &matrix.values {
                Numbers::F32(values) if !self.changes(values) => return Ok(Cow::Borrowed(matrix)),
                Numbers::F32(values) => values.clone(),
                Numbers::F64(values) => self.narrow(values)?,
            },
            // As in the library, what a sparse matrix does not store is missing.
            Table::Sparse(sparse) => {
                let mut dense = vec![f32::NAN; sparse.rows * features];
                for row in 0..sparse.rows {
                    for (column, value) in sparse.row(row) {
                        dense[row * features + column] = self.narrow(&[value])?[0];
                    }
                }
                dense
            }
            Table::Frame(frame) => self.frame(frame)?,
            Table::Texts(_) => {
                return Err(PredictError::input("expected rows of numbers, found a list of texts"));
            }
        };
        for value in &mut values {
            if *value == self.missing {
                *value = f32::NAN;
            } else if value.is_infinite() {
                return Err(self.infinite());
            }
        }
        Ok(Cow::Owned(Matrix::f32(x.rows(), features, values)))
    }

    /// Whether some values are infinite or missing without being NaN: looked at without a branch a value.
    fn changes(&self, values: &[f32]) -> bool {
        let changes = |any, value: &f32| any | value.is_infinite() | (*value == self.missing);
        values.iter().fold(false, changes)
    }

    fn infinite(&self) -> PredictError {
        PredictError::input(
            "contains infinity or a value too large for single precision; give null or NaN where \
             a value is missing",
        )
    }

    /// Rounded to single precision.
    fn narrow(&self, values: &[f64]) -> Result<Vec<f32>, PredictError> {
        let narrow = |&value: &f64| {
            let single = value as f32;
            let overflows = single.is_infinite() && value.is_finite();
            if overflows { Err(self.infinite()) } else { Ok(single) }
        };
        values.iter().map(narrow).collect()
    }

    /// The columns of a frame, by name where both sides have names.
    fn frame(&self, frame: &Frame) -> Result<Vec<f32>, PredictError> {
        let features = frame.columns.len();
        let order = self.order(frame)?;
        let mut values = vec![f32::NAN; frame.rows * features];
        for (feature, &column) in order.iter().enumerate() {
            let numbers = match &frame.columns[column] {
                Column::Numbers(numbers) => self.narrow(numbers)?,
                Column::Texts(texts) => self.codes(feature, texts)?,
            };
            for (row, number) in numbers.into_iter().enumerate() {
                values[row * features + feature] = number;
            }
        }
        Ok(values)
    }

    /// Position in the frame of each feature.
    fn order(&self, frame: &Frame) -> Result<Vec<usize>, PredictError> {
        let (Some(wanted), Some(given)) = (&self.input.names, &frame.names) else {
            return Ok((0..frame.columns.len()).collect());
        };
        let places: std::collections::HashMap<&str, usize> =
            given.iter().enumerate().map(|(place, name)| (&**name, place)).collect();
        let place = |name: &String| {
            places.get(name.as_str()).copied().ok_or_else(|| {
                let given: Vec<&str> = given.iter().map(AsRef::as_ref).collect();
                let (wanted, given) = (wanted.join(", "), given.join(", "));
                PredictError::input(format!(
                    "the column {name:?} is missing; the model has {wanted}; the request has {given}"
                ))
            })
        };
        wanted.iter().map(place).collect()
    }

    /// Codes of category names; `None` is missing.
    fn codes(&self, feature: usize, texts: &[Option<Arc<str>>]) -> Result<Vec<f32>, PredictError> {
        let code = |text: &Option<Arc<str>>| {
            let Some(text) = text else { return Ok(f32::NAN) };
            let Some(Some(categories)) = self.categories.get(feature) else {
                return Err(PredictError::input(format!(
                    "column {feature} holds the text {text:?}; the file has no category names \
                     for it: give numbers (for a categorical feature the codes)"
                )));
            };
            categories.code(text).map(|code| code as f32).ok_or_else(|| {
                let known = categories.len();
                PredictError::input(format!(
                    "Found a category not in the training set for the {feature}th (0-based) \
                     column: {text} ({known} are known)"
                ))
            })
        };
        texts.iter().map(code).collect()
    }
}

impl Estimator for Booster {
    fn name(&self) -> String {
        "Booster".into()
    }

    fn input(&self) -> &InputSpec {
        &self.input
    }

    fn methods(&self) -> &[Method] {
        match self.learner {
            Learner::Trees { .. } => &[Method::Predict, Method::DecisionFunction, Method::Apply],
            Learner::Linear { .. } => &[Method::Predict, Method::DecisionFunction],
        }
    }

    fn output_specs(&self, method: Method) -> Vec<OutputSpec> {
        let single = DataType::Fp32;
        vec![match (method, self.objective, &self.learner) {
            (Method::Apply, _, Learner::Trees { leaf_nodes, .. }) => {
                OutputSpec::targets(single, leaf_nodes.len())
            }
            (Method::Predict, Objective::SoftMax, _) => OutputSpec::values(single),
            (Method::Predict, Objective::SoftProbability, _) => {
                OutputSpec::columns(single, self.outputs)
            }
            _ => OutputSpec::targets(single, self.outputs),
        }]
    }

    fn predict(&self, x: &Table) -> Result<Array, PredictError> {
        let values = self.objective.predictions(self.margins(x)?, self.outputs);
        let one = match self.objective {
            Objective::SoftMax => true,
            Objective::SoftProbability => false,
            _ => self.outputs == 1,
        };
        let rows = x.rows();
        Ok(Array::f32(if one { vec![rows] } else { vec![rows, self.outputs] }, values))
    }

    fn decision_function(&self, x: &Table) -> Result<Array, PredictError> {
        let (rows, margins) = (x.rows(), self.margins(x)?);
        let one = self.outputs == 1;
        Ok(Array::f32(if one { vec![rows] } else { vec![rows, self.outputs] }, margins))
    }

    fn apply(&self, x: &Table) -> Result<Array, PredictError> {
        let Learner::Trees { forest, leaf_nodes } = &self.learner else {
            return Err(self.lacks(Method::Apply));
        };
        let rows = self.rows(x)?;
        let leaves = ensemble::leaves(forest, &rows);
        let trees = leaf_nodes.len();
        let node = |(index, &leaf): (usize, &u32)| leaf_nodes[index % trees][leaf as usize] as f32;
        let nodes = leaves.iter().enumerate().map(node).collect();
        let rows = x.rows();
        Ok(Array::f32(if trees == 1 { vec![rows] } else { vec![rows, trees] }, nodes))
    }
}

/// The margin that each output's sum starts from.
fn base(raw: &Raw, objective: Objective, outputs: usize) -> Result<Vec<f32>, Fault> {
    let at = "learner.learner_model_param.base_score";
    let mut base = match *raw.base_score.as_slice() {
        [] => return Err(Fault::corrupt(at, "is missing")),
        [one] => vec![one; outputs],
        _ if raw.base_score.len() == outputs => raw.base_score.clone(),
        _ => {
            let reason = format!("{} numbers for {outputs} outputs", raw.base_score.len());
            return Err(Fault::corrupt(at, reason));
        }
    };
    if !raw.base_is_margin {
        objective.link(&mut base)?;
    }
    Ok(base)
}

fn grown(raw: &mut Raw, base: &[f32], rounds: Rounds) -> Result<Learner, Fault> {
    if let Rounds::Best(known) = rounds {
        let best = match &raw.best_iteration {
            Some(text) => Some(text.parse::<u32>().map(|best| best as usize).map_err(|_| {
                let reason = format!("expected a number of a round, found {text:?}");
                Fault::corrupt("learner.attributes.best_iteration", reason)
            })?),
            None => known,
        };
        if let Some(best) = best {
            let used = lower::trees_of_rounds(&raw.booster, best.saturating_add(1))?;
            raw.booster.trees.truncate(used);
        }
    }
    let lower::Lowered { ensemble, leaf_nodes } = lower::trees(raw, base)?;
    let forest = Forest::new(&ensemble).map_err(|error| {
        Fault::corrupt("learner.gradient_booster.model.trees", error.to_string())
    })?;
    Ok(Learner::Trees { forest: Box::new(forest), leaf_nodes })
}

fn linear(raw: &mut Raw, outputs: usize, base: f32) -> Result<Learner, Fault> {
    let weights = std::mem::take(&mut raw.booster.weights);
    let wanted = (raw.num_feature + 1).checked_mul(outputs);
    if wanted != Some(weights.len()) {
        let (found, features) = (weights.len(), raw.num_feature);
        let reason = format!("{found} weights for {features} features and {outputs} outputs");
        return Err(Fault::corrupt("learner.gradient_booster.model.weights", reason));
    }
    Ok(Learner::Linear { weights, base })
}

/// Sums over the features of a row in their order, one rounding per product and per sum.
fn linear_margins(rows: &[f32], weights: &[f32], base: f32, outputs: usize) -> Vec<f32> {
    let (weights, biases) = weights.split_at(weights.len() - outputs);
    let features = weights.len() / outputs;
    let margin = |row: &[f32], output: usize| {
        let terms = row.iter().zip(weights[output..].iter().step_by(outputs));
        let known = terms.filter(|(value, _)| !value.is_nan());
        known.fold(biases[output] + base, |sum, (value, weight)| sum + value * weight)
    };
    let rows = rows.chunks_exact(features);
    rows.flat_map(|row| (0..outputs).map(move |output| margin(row, output))).collect()
}

fn describe(raw: &Raw, outputs: usize) -> Description {
    let booster = &raw.booster;
    let version = raw.version.filter(|&[major, ..]| major > 0);
    let mut facts = vec![("features", raw.num_feature.to_string())];
    if booster.name != "gblinear" {
        facts.push(("trees", booster.trees.len().to_string()));
        let nodes: usize = booster.trees.iter().map(|tree| tree.nodes.len()).sum();
        facts.push(("nodes", nodes.to_string()));
    }
    facts.push(("outputs", outputs.to_string()));
    if let Some(best) = &raw.best_iteration {
        facts.push(("best_iteration", best.chars().take(20).collect()));
    }
    Description {
        format: "xgboost",
        library: version.map(|[major, minor, patch]| format!("xgboost {major}.{minor}.{patch}")),
        kind: format!("{} {}", booster.name, raw.objective),
        facts,
    }
}
