//! Manifold embeddings that have a rule for new rows: through their neighbours among the training rows.

use crate::array::Array;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::Object;
use crate::steps::decomposition::solve;
use crate::steps::neighbors::Neighbours;
use crate::steps::numeric::{Answer, Base, Points, Rule, matrix};
use crate::steps::{Builder, Estimator, Row};
use crate::table::{Matrix, Table};

/// Geodesic distances through the nearest neighbours, embedded by a kernel principal component analysis.
struct Isomap {
    neighbours: Neighbours,
    /// Distances between training rows along the graph, `[rows, rows]`.
    paths: Vec<f64>,
    embedding: Box<dyn Estimator>,
}

impl Rule for Isomap {
    fn transform(&self, _: &Base, x: &Points<'_>) -> Answer {
        let width = self.neighbours.len();
        let kernels = x.map(width, |row, answer| {
            answer.fill(f64::INFINITY);
            for (distance, index) in self.neighbours.of(row) {
                let paths = &self.paths[index * width..][..width];
                for (answer, path) in answer.iter_mut().zip(paths) {
                    *answer = answer.min(path + distance);
                }
            }
            answer.iter_mut().for_each(|value| *value = *value * *value * -0.5);
        });
        if let Some(at) = kernels.iter().position(|value| value.is_infinite()) {
            let reason = format!("row {} has no neighbour within the radius", at / width);
            return Err(PredictError::input(reason));
        }
        match self.embedding.transform(&Table::Dense(Matrix::f64(x.rows, width, kernels)))? {
            Table::Dense(matrix) => {
                let shape = vec![matrix.rows, matrix.columns];
                Ok(Array::f64(shape, matrix.to_f64().into_owned()))
            }
            _ => Err(PredictError::Internal("KernelPCA answers a dense matrix".into())),
        }
    }
}

fn isomap(object: Object<'_>, builder: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = Base::new(object, &[Method::Transform])?;
    let neighbours = Neighbours::read(object, "nbrs_", &mut base)?;
    let (rows, columns, paths) = matrix(object, "dist_matrix_")?;
    if (rows, columns) != (neighbours.len(), neighbours.len()) {
        let reason = format!("expected {} rows and columns", neighbours.len());
        return Err(object.wrong("dist_matrix_", reason));
    }
    let embedding = builder.build(object.object("kernel_pca_")?)?;
    if embedding.input().columns != Some(rows) {
        return Err(object.wrong("kernel_pca_", format!("does not read {rows} columns")));
    }
    Ok(base.with(Isomap { neighbours, paths, embedding }))
}

/// The embedding of the barycentre of neighbours that is nearest to a row.
struct LocallyLinear {
    neighbours: Neighbours,
    /// `[training rows, outputs]`.
    embedding: Vec<f64>,
    outputs: usize,
    regularisation: f64,
}

impl LocallyLinear {
    /// Weights of the neighbours; NaN where they cannot be had.
    fn weights(&self, row: &[f64], neighbours: &[usize]) -> Vec<f64> {
        let count = neighbours.len();
        let shift = |&index: &usize| -> Vec<f64> {
            self.neighbours.row(index).iter().zip(row).map(|(known, value)| known - value).collect()
        };
        let shifts: Vec<Vec<f64>> = neighbours.iter().map(shift).collect();
        let product = |at: usize| {
            let (a, b) = (&shifts[at / count], &shifts[at % count]);
            a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>()
        };
        let mut system: Vec<f64> = (0..count * count).map(product).collect();
        let trace: f64 = system.iter().step_by(count + 1).sum();
        let ridge = self.regularisation * if trace > 0.0 { trace } else { 1.0 };
        system.iter_mut().step_by(count + 1).for_each(|value| *value += ridge);
        let mut weights =
            solve(system, count, vec![1.0; count]).unwrap_or_else(|| vec![f64::NAN; count]);
        let sum: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= sum);
        weights
    }
}

impl Rule for LocallyLinear {
    fn transform(&self, _: &Base, x: &Points<'_>) -> Answer {
        let values = x.map(self.outputs, |row, answer| {
            let indices: Vec<usize> =
                self.neighbours.of(row).into_iter().map(|(_, index)| index).collect();
            for (index, weight) in indices.iter().zip(self.weights(row, &indices)) {
                let known = &self.embedding[index * self.outputs..][..self.outputs];
                answer.iter_mut().zip(known).for_each(|(sum, value)| *sum += weight * value);
            }
        });
        Ok(Array::f64(vec![x.rows, self.outputs], values))
    }
}

fn locally_linear(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = Base::new(object, &[Method::Transform])?;
    let neighbours = Neighbours::read(object, "nbrs_", &mut base)?;
    let (rows, outputs, embedding) = matrix(object, "embedding_")?;
    if rows != neighbours.len() {
        let reason = format!("has {rows} rows, the training rows are {}", neighbours.len());
        return Err(object.wrong("embedding_", reason));
    }
    let regularisation = object.f64("reg")?;
    Ok(base.with(LocallyLinear { neighbours, embedding, outputs, regularisation }))
}

/// Embeddings with a `transform`.
pub(crate) static ESTIMATORS: &[Row] = &[
    Row { class: "Isomap", build: isomap },
    Row { class: "LocallyLinearEmbedding", build: locally_linear },
];
