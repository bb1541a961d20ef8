//! How much each feature counts for a fitted model: coefficients, or what the splits of trees gain.

use crate::error::Fault;
use crate::pickle::{Object, Value};

/// The importances of `model`: of `attribute` where it is named, else coefficients, else those of its trees. Several
/// rows of coefficients are joined by their norm of `order`.
///
/// # Errors
/// When the model has none that are known.
pub(super) fn importances(
    model: Object<'_>,
    attribute: Option<&str>,
    order: f64,
) -> Result<Vec<f64>, Fault> {
    let name = attribute.unwrap_or("coef_");
    if model.some(name).is_some() {
        let (shape, values) = model.numbers(name)?;
        let columns = shape.last().copied().unwrap_or(1).max(1);
        if shape.len() < 2 {
            return Ok(values.into_iter().map(f64::abs).collect());
        }
        let column = |at: usize| values.iter().skip(at).step_by(columns).map(|value| value.abs());
        let norm = |at: usize| match order {
            1.0 => column(at).sum(),
            order if order == f64::INFINITY => column(at).fold(0.0, f64::max),
            order if order == f64::NEG_INFINITY => column(at).fold(f64::INFINITY, f64::min),
            order => column(at).map(|value| value.powf(order)).sum::<f64>().powf(1.0 / order),
        };
        return Ok((0..columns.min(values.len())).map(norm).collect());
    }
    if attribute.is_none_or(|name| name == "feature_importances_") {
        if let Some(tree) = model.some("tree_").and_then(Value::as_object) {
            return Tree::new(tree)?.importances(true);
        }
        if let Some(trees) = model.some("estimators_").and_then(Value::as_list) {
            return ensemble(model, &trees);
        }
    }
    let class = model.class;
    Err(Fault::unsupported(format!("{class} has no {name}, and no trees to take importances from")))
}

/// The mean of the trees that split, as shares of their sum.
fn ensemble(model: Object<'_>, trees: &[Value<'_>]) -> Result<Vec<f64>, Fault> {
    let boosted = model.class.starts_with("GradientBoosting");
    let forest = ["RandomForest", "ExtraTrees"].iter().any(|class| model.class.starts_with(class));
    if !boosted && !forest {
        let what = format!("the feature importances of {} are not supported", model.class);
        return Err(Fault::unsupported(format!(
            "{what}; those of trees, forests and gradient boosting are"
        )));
    }
    let wrong = || model.wrong("estimators_", "expected fitted trees");
    let (mut sum, mut count) = (Vec::new(), 0usize);
    for tree in trees {
        let tree = tree.as_object().and_then(|tree| tree.some("tree_")?.as_object());
        let tree = Tree::new(tree.ok_or_else(wrong)?)?;
        if sum.is_empty() {
            sum = vec![0.0; tree.features];
        }
        if sum.len() != tree.features {
            return Err(wrong());
        }
        if tree.left.len() > 1 {
            let own = tree.importances(!boosted)?;
            sum.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
            count += 1;
        }
    }
    sum.iter_mut().for_each(|value| *value /= count.max(1) as f64);
    Ok(shares(sum))
}

fn shares(mut values: Vec<f64>) -> Vec<f64> {
    let sum: f64 = values.iter().sum();
    if sum > 0.0 {
        values.iter_mut().for_each(|value| *value /= sum);
    }
    values
}

struct Tree {
    features: usize,
    left: Vec<f64>,
    right: Vec<f64>,
    feature: Vec<f64>,
    impurity: Vec<f64>,
    weight: Vec<f64>,
}

/// Most features that a file may claim for a tree; each tree then has a list of as many.
const MAX_FEATURES: usize = 1 << 20;

impl Tree {
    fn new(object: Object<'_>) -> Result<Self, Fault> {
        let arguments = object.arguments.as_list().unwrap_or_default();
        let features = arguments.first().and_then(|features| features.as_usize());
        let features = features.filter(|&features| features <= MAX_FEATURES).ok_or_else(|| {
            object.wrong("n_features", format!("expected a count up to {MAX_FEATURES}"))
        })?;
        let wrong = || object.wrong("nodes", "expected records");
        let nodes = object.attribute("nodes")?.as_records().ok_or_else(wrong)?;
        Ok(Tree {
            features,
            left: nodes.numbers("left_child")?,
            right: nodes.numbers("right_child")?,
            feature: nodes.numbers("feature")?,
            impurity: nodes.numbers("impurity")?,
            weight: nodes.numbers("weighted_n_node_samples")?,
        })
    }

    /// What the splits of each feature gain, as shares of the whole when `normalised`.
    fn importances(&self, normalised: bool) -> Result<Vec<f64>, Fault> {
        let mut gains = vec![0.0; self.features];
        let wrong = || Fault::corrupt("Tree.nodes", "a node refers to none");
        let part = |at: f64| {
            let at = if at >= 0.0 { at as usize } else { usize::MAX };
            Some(self.weight.get(at)? * self.impurity.get(at)?)
        };
        for node in 0..self.left.len() {
            if self.left[node] < 0.0 {
                continue;
            }
            let below = part(self.left[node]).zip(part(self.right[node])).ok_or_else(wrong)?;
            let whole = part(node as f64).ok_or_else(wrong)?;
            let feature = self.feature[node];
            let feature = if feature >= 0.0 { feature as usize } else { usize::MAX };
            *gains.get_mut(feature).ok_or_else(wrong)? += whole - below.0 - below.1;
        }
        let all = self.weight.first().copied().unwrap_or(1.0);
        gains.iter_mut().for_each(|gain| *gain /= all);
        Ok(if normalised { shares(gains) } else { gains })
    }
}
