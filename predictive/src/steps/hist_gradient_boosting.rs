//! Histogram gradient boosting: double-precision rows with missing values and categories.

use tokenmill_kernels::trees::{
    CategorySplit, Child, Ensemble, Forest, Precision, Split, Test, Tree,
};

use crate::array::{Array, Values};
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::{Object, Value};
use crate::steps::forest::sums;
use crate::steps::input::{self, Nan};
use crate::steps::tree_data::{self, child, column_u32, places};
use crate::steps::{Builder, Estimator, InputSpec, OutputSpec, Row, math, output, tree};
use crate::table::{Matrix, Table};
use crate::tensor::DataType;

/// Boosted trees over histograms.
pub(crate) static ESTIMATORS: &[Row] = &[
    Row { class: "HistGradientBoostingClassifier", build },
    Row { class: "HistGradientBoostingRegressor", build },
];

/// A fitted ensemble.
struct HistGradientBoosting {
    name: String,
    spec: InputSpec,
    forest: Forest,
    /// Encodes categories and puts their columns first (from 1.4 on, where there are any).
    preprocessor: Option<Box<dyn Estimator>>,
    /// Labels, of a classifier.
    classes: Option<Array>,
    /// Regression answers `exp` of the sums.
    exponential: bool,
    /// The sign decides between two classes, not the larger probability.
    by_sign: bool,
}

fn build(object: Object<'_>, builder: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let classes = match object.class {
        "HistGradientBoostingClassifier" => Some(input::labels(object, "classes_")?),
        _ => None,
    };
    let width = match classes.as_ref().map_or(2, Array::len) {
        1 => return Err(object.wrong("classes_", "expected at least two classes")),
        2 => 1,
        several => several,
    };
    let mut spec = input::spec(object)?;
    let features = match spec.columns {
        Some(columns) => columns,
        None => object.usize("_n_features")?,
    };
    spec.columns = Some(features);
    let categories = known_categories(object, features)?;
    let mut trees = Vec::new();
    for round in object.list("_predictors")? {
        let round = round.as_list().filter(|trees| trees.len() == width).ok_or_else(|| {
            object.wrong("_predictors", format!("expected rounds of {width} predictors"))
        })?;
        for (output, predictor) in round.into_iter().enumerate() {
            let predictor = predictor
                .as_object()
                .ok_or_else(|| object.wrong("_predictors", "expected predictors of trees"))?;
            trees.push(read_tree(predictor, output as u32, &categories)?);
        }
    }
    let ensemble = Ensemble {
        features,
        outputs: width,
        vector_leaves: false,
        input: Precision::Double,
        sum: Precision::Double,
        base: object.vector("_baseline_prediction", Some(width))?,
        trees,
    };
    let preprocessor = match object.some("_preprocessor").and_then(Value::as_object) {
        Some(preprocessor) => Some(builder.build(preprocessor)?),
        None => None,
    };
    let loss = object.get("loss").and_then(Value::as_str);
    Ok(Box::new(HistGradientBoosting {
        name: object.class.to_owned(),
        spec,
        forest: Forest::new(&ensemble).map_err(tree_data::fault)?,
        preprocessor,
        exponential: classes.is_none() && matches!(loss, Some("poisson" | "gamma")),
        classes,
        by_sign: object.version().is_some_and(|version| version >= BY_SIGN),
    }))
}

/// The first version whose classifiers decide by the sign of the sum.
const BY_SIGN: (u32, u32) = (1, 5);
/// Words of a set of categories: numbers below 256.
const WORDS: usize = 8;

/// Categories seen in training, of each feature, empty sets for numbers; nothing where no feature has any.
fn known_categories(object: Object<'_>, features: usize) -> Result<Vec<[u32; WORDS]>, Fault> {
    let Some(mapper) = object.some("_bin_mapper").and_then(Value::as_object) else {
        return Ok(Vec::new());
    };
    if mapper.some("is_categorical_").is_none() {
        return Ok(Vec::new());
    }
    let categorical = mapper.vector("is_categorical_", Some(features))?;
    let thresholds = mapper.list("bin_thresholds_")?;
    if thresholds.len() != features {
        let reason = format!("expected one array for each of {features} features");
        return Err(mapper.wrong("bin_thresholds_", reason));
    }
    let mut known = vec![[0; WORDS]; features];
    for (feature, values) in thresholds.into_iter().enumerate() {
        if categorical[feature] == 0.0 {
            continue;
        }
        let values = values.as_array().and_then(Array::to_f64).unwrap_or_default();
        for value in values.into_iter().filter(|value| !value.is_nan()) {
            if !(0.0..256.0).contains(&value) {
                let reason = format!("{value} is no category below 256");
                return Err(mapper.wrong("bin_thresholds_", reason));
            }
            known[feature][value as usize / 32] |= 1 << (value as usize % 32);
        }
    }
    Ok(known)
}

/// One tree of one output.
fn read_tree(
    predictor: Object<'_>,
    output: u32,
    categories: &[[u32; WORDS]],
) -> Result<Tree, Fault> {
    let nodes = predictor.attribute("nodes")?.as_records();
    let nodes = nodes.ok_or_else(|| predictor.wrong("nodes", "expected records of nodes"))?;
    let has = |field: &str| nodes.fields.iter().any(|(name, ..)| &**name == field);
    let column = |field: &str| match has(field) {
        true => nodes.numbers(field),
        false => Ok(vec![0.0; nodes.count]),
    };
    let threshold =
        nodes.numbers(if has("num_threshold") { "num_threshold" } else { "threshold" })?;
    let (value, feature) = (nodes.numbers("value")?, column_u32(nodes, "feature_idx")?);
    let (left, right) = (nodes.numbers("left")?, nodes.numbers("right")?);
    let (is_leaf, missing_left) = (nodes.numbers("is_leaf")?, column("missing_go_to_left")?);
    let (categorical, set) = (column("is_categorical")?, column("bitset_idx")?);
    let sets = bitsets(predictor)?;
    let places = places(is_leaf.iter().map(|&leaf| leaf != 0.0));
    let mut tree = Tree { splits: Vec::new(), leaves: Vec::new(), output };
    for (node, place) in places.iter().enumerate() {
        if let Child::Leaf(_) = place {
            tree.leaves.push(value[node]);
            continue;
        }
        let missing_left = missing_left[node] != 0.0;
        let test = match categorical[node] != 0.0 {
            true => {
                let known = categories.get(feature[node] as usize).ok_or_else(|| {
                    let feature = feature[node];
                    predictor.wrong("nodes", format!("feature {feature} has no known categories"))
                })?;
                let left = sets.get(set[node] as usize).ok_or_else(|| {
                    predictor.wrong("raw_left_cat_bitsets", format!("has no set {}", set[node]))
                })?;
                let right = known.iter().zip(left).map(|(known, left)| known & !left).collect();
                Test::Category(Box::new(CategorySplit {
                    left: left.to_vec(),
                    right,
                    other_left: missing_left,
                    truncates_negative: false,
                }))
            }
            false => Test::AtMost(threshold[node]),
        };
        tree.splits.push(Split {
            feature: feature[node],
            test,
            missing_left,
            left: child("TreePredictor.nodes", node, left[node], &places)?,
            right: child("TreePredictor.nodes", node, right[node], &places)?,
        });
    }
    Ok(tree)
}

/// Categories that go left, one set a categorical node.
fn bitsets(predictor: Object<'_>) -> Result<Vec<[u32; WORDS]>, Fault> {
    if predictor.some("raw_left_cat_bitsets").is_none() {
        return Ok(Vec::new());
    }
    let array = predictor.array("raw_left_cat_bitsets")?;
    match (array.shape(), array.values()) {
        ([_, WORDS], Values::Int(words)) => {
            let (sets, _) = words.as_chunks::<WORDS>();
            Ok(sets.iter().map(|set| set.map(|word| word as u32)).collect())
        }
        ([0, ..], _) => Ok(Vec::new()),
        (shape, _) => {
            let reason = format!("expected sets of {WORDS} words, found shape {shape:?}");
            Err(predictor.wrong("raw_left_cat_bitsets", reason))
        }
    }
}

impl HistGradientBoosting {
    /// Sums of each row, `[rows, outputs]`.
    fn raw(&self, x: &Table) -> Result<(usize, Vec<f64>), PredictError> {
        let x = match &self.preprocessor {
            Some(preprocessor) => {
                let x = preprocessor.transform(input::align(x, &self.spec)?.as_ref())?;
                input::to_matrix(x)?
            }
            None => input::dense(x, &self.spec, Nan::Any)?.into_owned(),
        };
        let features = self.forest.features();
        if x.columns != features {
            let reason = format!("the preprocessor gave {} columns, not {features}", x.columns);
            return Err(PredictError::Internal(reason));
        }
        let x = Matrix::f64(x.rows, x.columns, x.to_f64().into_owned());
        Ok((x.rows, sums(&self.forest, &x)))
    }

    fn proba(&self, mut raw: Vec<f64>) -> Vec<f64> {
        match self.forest.outputs() {
            1 => raw.into_iter().map(math::expit).flat_map(|p| [1.0 - p, p]).collect(),
            width => {
                raw.chunks_exact_mut(width).for_each(math::softmax);
                raw
            }
        }
    }
}

impl Estimator for HistGradientBoosting {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn input(&self) -> &InputSpec {
        &self.spec
    }

    fn methods(&self) -> &[Method] {
        match self.classes {
            Some(_) => &[
                Method::Predict,
                Method::PredictProba,
                Method::PredictLogProba,
                Method::DecisionFunction,
            ],
            None => &[Method::Predict],
        }
    }

    fn output_specs(&self, method: Method) -> Vec<OutputSpec> {
        match method {
            Method::DecisionFunction => {
                vec![OutputSpec::targets(DataType::Fp64, self.forest.outputs())]
            }
            _ => output::usual(self.classes(), None, method),
        }
    }

    fn classes(&self) -> &[Array] {
        self.classes.as_slice()
    }

    fn predict(&self, x: &Table) -> Result<Array, PredictError> {
        let (rows, mut raw) = self.raw(x)?;
        let Some(classes) = &self.classes else {
            if self.exponential {
                raw.iter_mut().for_each(|value| *value = value.exp());
            }
            return Ok(Array::f64(vec![rows], raw));
        };
        let indices = match (self.by_sign, self.forest.outputs()) {
            (true, 1) => raw.iter().map(|&raw| usize::from(raw > 0.0)).collect(),
            (true, width) => math::argmax_rows(&raw, width),
            (false, _) => math::argmax_rows(&self.proba(raw), classes.len()),
        };
        Ok(classes.take(vec![rows], &indices))
    }

    fn predict_proba(&self, x: &Table) -> Result<Vec<Array>, PredictError> {
        let Some(classes) = &self.classes else { return Err(self.lacks(Method::PredictProba)) };
        let (rows, raw) = self.raw(x)?;
        Ok(vec![Array::f64(vec![rows, classes.len()], self.proba(raw))])
    }

    fn decision_function(&self, x: &Table) -> Result<Array, PredictError> {
        if self.classes.is_none() {
            return Err(self.lacks(Method::DecisionFunction));
        }
        let (rows, raw) = self.raw(x)?;
        Ok(tree::values_array(rows, self.forest.outputs(), raw))
    }
}
