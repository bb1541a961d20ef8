//! Clusterings that label new rows by the nearest centre.

use crate::array::{Array, Values};
use crate::error::Fault;
use crate::model::Method;
use crate::pickle::Object;
use crate::steps::numeric::{Answer, Base, Points, Rule, matrix, smallest};
use crate::steps::pairwise::{Metric, against, squared_distance};
use crate::steps::{Builder, Estimator, Row};
use crate::tensor::DataType;

/// Centres and the label of each.
struct Centres {
    centres: Vec<f64>,
    labels: Array,
    tree: Option<Bisection>,
}

/// A binary tree of centres; each row goes to the nearer child until it is at a leaf.
struct Bisection {
    /// Root first.
    nodes: Vec<Node>,
}

struct Node {
    centre: Vec<f64>,
    next: Next,
}

enum Next {
    Children(usize, usize),
    Label(usize),
}

impl Bisection {
    /// Reads `_bisecting_tree`; centres are relative to `_X_mean`, where there is one.
    fn read(object: Object<'_>, columns: usize, clusters: usize) -> Result<Self, Fault> {
        let name = "_bisecting_tree";
        let wrong = |reason: &str| object.wrong(name, reason);
        let mean = match object.some("_X_mean") {
            Some(_) => object.vector("_X_mean", Some(columns))?,
            None => vec![0.0; columns],
        };
        let node = |tree: Object<'_>| -> Result<Node, Fault> {
            let mut centre = tree.vector("center", Some(columns))?;
            centre.iter_mut().zip(&mean).for_each(|(value, mean)| *value += mean);
            Ok(Node { centre, next: Next::Label(0) })
        };
        let root = object.object(name)?;
        let (mut nodes, mut open) = (vec![node(root)?], vec![(0, root)]);
        while let Some((index, tree)) = open.pop() {
            if tree.some("left").is_none() {
                let label = tree.usize("label")?;
                if label >= clusters {
                    return Err(wrong("a leaf has a label without a centre"));
                }
                nodes[index].next = Next::Label(label);
                continue;
            }
            if nodes.len() + 2 > 2 * clusters {
                return Err(wrong("has more leaves than there are clusters"));
            }
            let (left, right) = (tree.object("left")?, tree.object("right")?);
            let first = nodes.len();
            nodes.extend([node(left)?, node(right)?]);
            nodes[index].next = Next::Children(first, first + 1);
            open.extend([(first, left), (first + 1, right)]);
        }
        Ok(Self { nodes })
    }

    fn label(&self, row: &[f64]) -> usize {
        let mut node = &self.nodes[0];
        loop {
            match node.next {
                Next::Label(label) => return label,
                Next::Children(left, right) => {
                    let distance = |index: usize| squared_distance(row, &self.nodes[index].centre);
                    let nearer = if distance(left) <= distance(right) { left } else { right };
                    node = &self.nodes[nearer];
                }
            }
        }
    }
}

impl Centres {
    fn distances(&self, x: &Points<'_>, metric: Metric) -> Vec<f64> {
        x.map(self.labels.len(), |row, answer| {
            against(row, &self.centres, answer, |a, b| metric.distance(a, b));
        })
    }
}

impl Rule for Centres {
    fn predict(&self, _: &Base, x: &Points<'_>) -> Answer {
        if self.labels.is_empty() {
            // Affinity propagation that did not converge.
            return Ok(Array::i64(vec![x.rows], vec![-1; x.rows]));
        }
        let nearest = match &self.tree {
            Some(tree) => {
                let labels = x.map(1, |row, answer| answer[0] = tree.label(row) as f64);
                labels.into_iter().map(|label| label as usize).collect()
            }
            None => smallest(x.rows, &self.distances(x, Metric::SquaredEuclidean)),
        };
        Ok(self.labels.take(vec![x.rows], &nearest))
    }

    fn transform(&self, _: &Base, x: &Points<'_>) -> Answer {
        let values = self.distances(x, Metric::Euclidean);
        Ok(Array::f64(vec![x.rows, self.labels.len()], values))
    }
}

fn numbered(count: usize, dtype: DataType) -> Array {
    Array::new(dtype, vec![count], Values::Int((0..count as i64).collect()))
}

fn k_means(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = Base::new(object, &[Method::Predict, Method::Transform])?;
    let (count, columns, centres) = matrix(object, "cluster_centers_")?;
    base.columns(object, "cluster_centers_", columns)?;
    if count == 0 {
        return Err(object.wrong("cluster_centers_", "has no row"));
    }
    base.precision(object, "cluster_centers_");
    let tree = match object.class {
        "BisectingKMeans" => Some(Bisection::read(object, columns, count)?),
        _ => None,
    };
    Ok(base.with(Centres { centres, labels: numbered(count, DataType::Int32), tree }))
}

fn nearest(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = Base::new(object, &[Method::Predict])?;
    if object.get("cluster_centers_").is_none() {
        let reason = format!("{} of a precomputed affinity cannot label new rows", object.class);
        return Err(Fault::unsupported(reason));
    }
    let (count, columns, centres) = matrix(object, "cluster_centers_")?;
    if count > 0 {
        base.columns(object, "cluster_centers_", columns)?;
    }
    Ok(base.with(Centres { centres, labels: numbered(count, DataType::Int64), tree: None }))
}

fn birch(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = Base::new(object, &[Method::Predict, Method::Transform])?;
    let (count, columns, centres) = matrix(object, "subcluster_centers_")?;
    base.columns(object, "subcluster_centers_", columns)?;
    base.precision(object, "subcluster_centers_");
    let labels = object.array("subcluster_labels_")?;
    if labels.shape() != [count] || count == 0 {
        return Err(object.wrong("subcluster_labels_", format!("expected {count} labels")));
    }
    Ok(base.with(Centres { centres, labels: labels.clone(), tree: None }))
}

/// Clusterings with centres.
pub(crate) static ESTIMATORS: &[Row] = &[
    Row { class: "AffinityPropagation", build: nearest },
    Row { class: "Birch", build: birch },
    Row { class: "BisectingKMeans", build: k_means },
    Row { class: "KMeans", build: k_means },
    Row { class: "MeanShift", build: nearest },
    Row { class: "MiniBatchKMeans", build: k_means },
];
