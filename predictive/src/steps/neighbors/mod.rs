//! Estimators that remember their training rows: nearest neighbours by brute force.
//!
//! The library may search with a tree; it finds the same neighbours. Of rows at exactly the same distance as the last
//! neighbour, those kept are what the library's heap keeps when it reads the training rows in order.

mod centroid;
mod density;
mod graph;
mod measure;
mod outlier;
mod votes;

use crate::error::Fault;
use crate::pickle::{Object, Value};
use crate::steps::numeric::{Base, Points, matrix};

pub(crate) use centroid::{CENTROID, binary_or_all};
pub(crate) use density::DENSITY;
pub(crate) use graph::{GRAPH, Neighbours};
use measure::Measure;
pub(crate) use outlier::OUTLIER;
pub(crate) use votes::VOTES;

/// Training rows and the distance to them.
pub(crate) struct Search {
    metric: Measure,
    rows: usize,
    columns: usize,
    values: Vec<f64>,
}

/// A neighbour: its distance and its index among the training rows.
pub(crate) type Neighbour = (f64, usize);

impl Search {
    /// Reads `_fit_X` and the metric.
    pub(crate) fn read(object: Object<'_>, base: &mut Base) -> Result<Self, Fault> {
        let (rows, columns, values) = matrix(object, "_fit_X")?;
        base.columns(object, "_fit_X", columns)?;
        if rows == 0 {
            return Err(object.wrong("_fit_X", "has no row"));
        }
        let metric = Measure::read(object, columns)?;
        Ok(Self { metric, rows, columns, values })
    }

    /// Training rows.
    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    /// Training row `index`.
    pub(crate) fn row(&self, index: usize) -> &[f64] {
        &self.values[index * self.columns..][..self.columns]
    }

    fn distances(&self, row: &[f64]) -> impl Iterator<Item = Neighbour> {
        (0..self.rows).map(move |index| (self.metric.distance(row, self.row(index)), index))
    }

    /// The `count` nearest training rows, nearest first. `count` is at most [`len`](Self::len).
    pub(crate) fn nearest(&self, row: &[f64], count: usize) -> Vec<Neighbour> {
        let mut heap = vec![(f64::INFINITY, 0); count];
        for neighbour in self.distances(row) {
            push(&mut heap, neighbour);
        }
        heap.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        heap
    }

    /// The training rows within `radius`, in order.
    pub(crate) fn within(&self, row: &[f64], radius: f64) -> Vec<Neighbour> {
        self.distances(row).filter(|&(distance, _)| distance <= radius).collect()
    }

    /// Number of neighbours to ask for, checked against the training rows.
    pub(crate) fn count(&self, object: Object<'_>, name: &str) -> Result<usize, Fault> {
        let count = object.usize(name)?;
        if count == 0 || count > self.rows {
            let reason = format!("expected 1 to {} neighbours, found {count}", self.rows);
            return Err(object.wrong(name, reason));
        }
        Ok(count)
    }
}

/// Replaces the greatest of a max-heap by a smaller neighbour, as the library's `heap_push` does.
fn push(heap: &mut [Neighbour], new: Neighbour) {
    if heap.first().is_none_or(|greatest| new.0 >= greatest.0) {
        return;
    }
    let mut hole = 0;
    loop {
        let (left, right) = (2 * hole + 1, 2 * hole + 2);
        let larger = match (heap.get(left), heap.get(right)) {
            (None, _) => break,
            (Some(l), Some(r)) if l.0 < r.0 => right,
            _ => left,
        };
        if heap[larger].0 <= new.0 {
            break;
        }
        heap[hole] = heap[larger];
        hole = larger;
    }
    heap[hole] = new;
}

/// How neighbours are weighed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weighing {
    Uniform,
    /// By the inverse of the distance; neighbours at distance zero, where there are any, count alone.
    Distance,
}

impl Weighing {
    pub(crate) fn read(object: Object<'_>) -> Result<Self, Fault> {
        match object.some("weights").map(Value::as_str) {
            None | Some(Some("uniform")) => Ok(Weighing::Uniform),
            Some(Some("distance")) => Ok(Weighing::Distance),
            _ => Err(Fault::unsupported(format!(
                "{}.weights: functions are not supported, only uniform and distance",
                object.class
            ))),
        }
    }

    pub(crate) fn weights(self, neighbours: &[Neighbour]) -> Vec<f64> {
        if self == Weighing::Uniform {
            return vec![1.0; neighbours.len()];
        }
        let inverse: Vec<f64> = neighbours.iter().map(|(distance, _)| 1.0 / distance).collect();
        if inverse.iter().any(|weight| weight.is_infinite()) {
            return inverse
                .iter()
                .map(|weight| f64::from(u8::from(weight.is_infinite())))
                .collect();
        }
        inverse
    }
}

/// The neighbours of each row.
pub(crate) enum Reach {
    Nearest(usize),
    Within(f64),
}

impl Reach {
    pub(crate) fn of(&self, search: &Search, row: &[f64]) -> Vec<Neighbour> {
        match *self {
            Reach::Nearest(count) => search.nearest(row, count),
            Reach::Within(radius) => search.within(row, radius),
        }
    }
}

/// A number per row and column of an answer, from the row's neighbours.
pub(crate) fn over(
    search: &Search,
    reach: &Reach,
    x: &Points<'_>,
    width: usize,
    compute: impl Fn(&[Neighbour], &mut [f64]) + Sync,
) -> Vec<f64> {
    x.map(width, |row, answer| compute(&reach.of(search, row), answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heap_keeps_the_smallest_and_the_first_of_equals() {
        let mut heap = vec![(f64::INFINITY, 0); 2];
        for (index, distance) in [3.0, 1.0, 2.0, 2.0, 2.0].into_iter().enumerate() {
            push(&mut heap, (distance, index));
        }
        heap.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert_eq!(heap, [(1.0, 1), (2.0, 2)]);
    }
}
