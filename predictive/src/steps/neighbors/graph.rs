//! Neighbours themselves as the answer: `NearestNeighbors`, and the transformers to graphs of neighbours.

use crate::array::Array;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::Object;
use crate::steps::neighbors::{Neighbour, Reach, Search};
use crate::steps::numeric::{Answer, Base, Points, Rule};
use crate::steps::{Builder, Estimator, Row};

/// `kneighbors`: distances `[n, count]`, nearest first, and the indices of the training rows.
struct Nearest {
    search: Search,
    count: usize,
}

impl Rule for Nearest {
    fn kneighbors(&self, _: &Base, x: &Points<'_>) -> Result<Vec<Array>, PredictError> {
        // Distances and indices side by side: an index is a whole number far below 2^53.
        let both = x.map(2 * self.count, |row, answer| {
            let (distances, indices) = answer.split_at_mut(self.count);
            for (at, (distance, index)) in
                self.search.nearest(row, self.count).into_iter().enumerate()
            {
                (distances[at], indices[at]) = (distance, index as f64);
            }
        });
        let half = |second: bool| {
            let rows = both.chunks_exact(2 * self.count);
            rows.flat_map(move |row| {
                let (distances, indices) = row.split_at(self.count);
                if second { indices } else { distances }
            })
        };
        let shape = vec![x.rows, self.count];
        let indices = half(true).map(|&index| index as i64).collect();
        Ok(vec![
            Array::f64(shape.clone(), half(false).copied().collect()),
            Array::i64(shape, indices),
        ])
    }
}

/// The distance to each training row that is a neighbour, or 1; 0 for the others. `[n, training rows]`.
struct Graph {
    search: Search,
    reach: Reach,
    distances: bool,
}

impl Rule for Graph {
    fn transform(&self, _: &Base, x: &Points<'_>) -> Answer {
        let width = self.search.len();
        let values = x.map(width, |row, answer| {
            for (distance, index) in self.reach.of(&self.search, row) {
                answer[index] = if self.distances { distance } else { 1.0 };
            }
        });
        Ok(Array::f64(vec![x.rows, width], values))
    }
}

fn nearest(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = Base::new(object, &[Method::Kneighbors])?;
    let search = Search::read(object, &mut base)?;
    let count = search.count(object, "n_neighbors")?;
    Ok(base.with(Nearest { search, count }))
}

fn graph(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = Base::new(object, &[Method::Transform])?;
    let search = Search::read(object, &mut base)?;
    let distances = match object.str("mode")? {
        "distance" => true,
        "connectivity" => false,
        other => {
            let reason = format!("{other:?} is not known; distance and connectivity are");
            return Err(object.wrong("mode", reason));
        }
    };
    let reach = match object.class.starts_with("KN") {
        // A row of the training set is its own neighbour, which the distances count on top.
        true => {
            let count = search.count(object, "n_neighbors")? + usize::from(distances);
            if count > search.len() {
                let reason = format!("asks for {count} of {} training rows", search.len());
                return Err(object.wrong("n_neighbors", reason));
            }
            Reach::Nearest(count)
        }
        false => Reach::Within(object.f64("radius")?),
    };
    Ok(base.with(Graph { search, reach, distances }))
}

/// The neighbours of rows among those of a fitted `NearestNeighbors`.
pub(crate) struct Neighbours {
    search: Search,
    reach: Reach,
}

impl Neighbours {
    /// Reads the attribute `name` of `owner`: its neighbours, as many as `owner` asks for or those within its radius.
    pub(crate) fn read(owner: Object<'_>, name: &str, base: &mut Base) -> Result<Self, Fault> {
        let search = Search::read(owner.object(name)?, base)?;
        let reach = match owner.some("n_neighbors") {
            Some(_) => Reach::Nearest(search.count(owner, "n_neighbors")?),
            None => Reach::Within(owner.f64("radius")?),
        };
        Ok(Self { search, reach })
    }

    /// Training rows.
    pub(crate) fn len(&self) -> usize {
        self.search.len()
    }

    /// Training row `index`.
    pub(crate) fn row(&self, index: usize) -> &[f64] {
        self.search.row(index)
    }

    /// The neighbours of a row, nearest first where their number is given.
    pub(crate) fn of(&self, row: &[f64]) -> Vec<Neighbour> {
        self.reach.of(&self.search, row)
    }
}

/// Neighbours and their graphs.
pub(crate) static GRAPH: &[Row] = &[
    Row { class: "KNeighborsTransformer", build: graph },
    Row { class: "NearestNeighbors", build: nearest },
    Row { class: "RadiusNeighborsTransformer", build: graph },
];
