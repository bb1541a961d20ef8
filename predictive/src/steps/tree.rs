//! Single decision trees: a leaf is found and its row of a table answered.

use tokenmill_kernels::trees::Forest;

use crate::array::Array;
use crate::ensemble;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::Object;
use crate::steps::input::{self, Nan};
use crate::steps::tree_data::{self, TreeData};
use crate::steps::{Builder, Estimator, InputSpec, OutputSpec, Row, labels, math, output};
use crate::table::Table;
use crate::tensor::DataType;

/// Decision trees.
pub(crate) static ESTIMATORS: &[Row] = &[
    Row { class: "DecisionTreeClassifier", build },
    Row { class: "DecisionTreeRegressor", build },
    Row { class: "ExtraTreeClassifier", build },
    Row { class: "ExtraTreeRegressor", build },
];

/// A fitted tree.
struct DecisionTree {
    name: String,
    spec: InputSpec,
    nan: Nan,
    forest: Forest,
    leaf_nodes: Vec<u32>,
    answer: Answer,
}

/// What the leaves say.
enum Answer {
    /// Labels of each output, and the best class and the probabilities of each leaf.
    Classes { classes: Vec<Array>, best: Vec<Vec<usize>>, proba: Vec<Vec<f64>> },
    /// `[leaves, outputs]`.
    Values { outputs: usize, values: Vec<f64> },
}

/// Labels of a classifier, checked against the number of classes of its trees; none for a regressor.
pub(crate) fn classes(object: Object<'_>, counts: &[usize]) -> Result<Option<Vec<Array>>, Fault> {
    if !object.class.contains("Classifier") {
        return Ok(None);
    }
    let classes = input::classes(object)?;
    let found: Vec<usize> = classes.iter().map(Array::len).collect();
    if found != counts {
        let reason = format!("{found:?} classes, but its trees have {counts:?}");
        return Err(object.wrong("classes_", reason));
    }
    Ok(Some(classes))
}

/// Probabilities of an output in a leaf: files to 1.3 hold counts.
pub(crate) fn proba(tree: &TreeData, leaf: usize, output: usize, counts: bool) -> Vec<f64> {
    let mut row = tree.value(leaf, output).to_vec();
    if counts {
        let sum = math::pairwise_sum(&row);
        let sum = if sum == 0.0 { 1.0 } else { sum };
        row.iter_mut().for_each(|value| *value /= sum);
    }
    row
}

/// Whether the leaves of a file's classifiers hold counts, not fractions.
pub(crate) fn holds_counts(object: Object<'_>) -> bool {
    object.version().is_none_or(|version| version < (1, 4))
}

/// Numbers of the columns: the attribute, or the trees' own.
pub(crate) fn spec(object: Object<'_>, features: usize) -> Result<InputSpec, Fault> {
    let mut spec = input::spec(object)?;
    if *spec.columns.get_or_insert(features) != features {
        let reason = format!("the trees have {features} features");
        return Err(object.wrong("n_features_in_", reason));
    }
    Ok(spec)
}

fn build(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut tree = TreeData::read(object)?;
    let leaves = 0..tree.leaves();
    let outputs = tree.classes.len();
    let answer = match classes(object, &tree.classes)? {
        Some(classes) => {
            let counts = holds_counts(object);
            let best = |output| {
                leaves.clone().map(|leaf| math::argmax(tree.value(leaf, output))).collect()
            };
            let proba = |output| {
                leaves.clone().flat_map(|leaf| proba(&tree, leaf, output, counts)).collect()
            };
            let (best, proba) =
                ((0..outputs).map(best).collect(), (0..outputs).map(proba).collect());
            Answer::Classes { classes, best, proba }
        }
        None => {
            let values = leaves
                .clone()
                .flat_map(|leaf| (0..outputs).map(move |output| (leaf, output)))
                .map(|(leaf, output)| tree.value(leaf, output)[0])
                .collect();
            Answer::Values { outputs, values }
        }
    };
    let numbers = vec![0.0; tree.leaves()];
    let kernel_tree = tree.take_tree(numbers, 0);
    Ok(Box::new(DecisionTree {
        name: object.class.to_owned(),
        spec: spec(object, tree.features)?,
        nan: tree_data::nan(object),
        forest: tree_data::forest(tree.features, vec![0.0], false, vec![kernel_tree])?,
        leaf_nodes: tree.leaf_nodes,
        answer,
    }))
}

impl DecisionTree {
    fn leaves(&self, x: &Table) -> Result<Vec<usize>, PredictError> {
        let x = input::single(x, &self.spec, self.nan)?;
        let leaves = ensemble::leaves(&self.forest, &x);
        Ok(leaves.into_iter().map(|leaf| leaf as usize).collect())
    }
}

impl Estimator for DecisionTree {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn input(&self) -> &InputSpec {
        &self.spec
    }

    fn methods(&self) -> &[Method] {
        match self.answer {
            Answer::Classes { .. } => {
                &[Method::Predict, Method::PredictProba, Method::PredictLogProba, Method::Apply]
            }
            Answer::Values { .. } => &[Method::Predict, Method::Apply],
        }
    }

    fn output_specs(&self, method: Method) -> Vec<OutputSpec> {
        match (&self.answer, method) {
            (_, Method::Apply) => vec![OutputSpec::values(DataType::Int64)],
            (Answer::Values { outputs, .. }, _) => {
                vec![OutputSpec::targets(DataType::Fp64, *outputs)]
            }
            _ => output::usual(self.classes(), None, method),
        }
    }

    fn classes(&self) -> &[Array] {
        match &self.answer {
            Answer::Classes { classes, .. } => classes,
            Answer::Values { .. } => &[],
        }
    }

    fn predict(&self, x: &Table) -> Result<Array, PredictError> {
        let leaves = self.leaves(x)?;
        Ok(match &self.answer {
            Answer::Classes { classes, best, .. } => {
                let indices = |best: &Vec<usize>| leaves.iter().map(|&leaf| best[leaf]).collect();
                labels::take(classes, &best.iter().map(indices).collect::<Vec<_>>())
            }
            Answer::Values { outputs, values } => {
                let rows = leaves.iter().flat_map(|leaf| &values[leaf * outputs..][..*outputs]);
                values_array(leaves.len(), *outputs, rows.copied().collect())
            }
        })
    }

    fn predict_proba(&self, x: &Table) -> Result<Vec<Array>, PredictError> {
        let Answer::Classes { classes, proba, .. } = &self.answer else {
            return Err(self.lacks(Method::PredictProba));
        };
        let leaves = self.leaves(x)?;
        let output = |(classes, proba): (&Array, &Vec<f64>)| {
            let width = classes.len();
            let rows = leaves.iter().flat_map(|leaf| &proba[leaf * width..][..width]);
            Array::f64(vec![leaves.len(), width], rows.copied().collect())
        };
        Ok(classes.iter().zip(proba).map(output).collect())
    }

    fn apply(&self, x: &Table) -> Result<Array, PredictError> {
        let leaves = self.leaves(x)?;
        let nodes = leaves.iter().map(|&leaf| i64::from(self.leaf_nodes[leaf])).collect();
        Ok(Array::i64(vec![leaves.len()], nodes))
    }
}

/// Values of a regressor: `[n]`, or `[n, outputs]` with several outputs.
pub(crate) fn values_array(rows: usize, outputs: usize, values: Vec<f64>) -> Array {
    let shape = if outputs == 1 { vec![rows] } else { vec![rows, outputs] };
    Array::f64(shape, values)
}
