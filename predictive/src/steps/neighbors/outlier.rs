//! Local outlier factor for new rows, by brute force.

use crate::array::Array;
use crate::error::Fault;
use crate::model::Method;
use crate::pickle::Object;
use crate::steps::neighbors::Search;
use crate::steps::numeric::{Answer, Base, Points, Rule, matrix};
use crate::steps::{Builder, Estimator, Row};

/// Local outlier factor (Breunig et al. 2000).
struct LocalOutlier {
    search: Search,
    count: usize,
    /// Local reachability density of each training row.
    densities: Vec<f64>,
    /// Distance of each training row to its farthest neighbour.
    reaches: Vec<f64>,
    offset: f64,
}

impl LocalOutlier {
    fn scores(&self, x: &Points<'_>) -> Vec<f64> {
        x.map(1, |row, answer| {
            let neighbours = self.search.nearest(row, self.count);
            let reach =
                neighbours.iter().map(|&(distance, index)| distance.max(self.reaches[index]));
            let count = self.count as f64;
            let density = 1.0 / (reach.sum::<f64>() / count + 1e-10);
            let ratios = neighbours.iter().map(|&(_, index)| self.densities[index] / density);
            answer[0] = -ratios.sum::<f64>() / count;
        })
    }

    fn decide(&self, x: &Points<'_>) -> Vec<f64> {
        self.scores(x).into_iter().map(|score| score - self.offset).collect()
    }
}

impl Rule for LocalOutlier {
    fn predict(&self, _: &Base, x: &Points<'_>) -> Answer {
        let inlier = |value: f64| if value < 0.0 { -1 } else { 1 };
        Ok(Array::i64(vec![x.rows], self.decide(x).into_iter().map(inlier).collect()))
    }

    fn decision(&self, _: &Base, x: &Points<'_>) -> Answer {
        Ok(Array::f64(vec![x.rows], self.decide(x)))
    }

    fn scores(&self, _: &Base, x: &Points<'_>) -> Answer {
        Ok(Array::f64(vec![x.rows], LocalOutlier::scores(self, x)))
    }
}

fn local_outlier(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    if !object.bool("novelty")? {
        return Err(Fault::unsupported(
            "LocalOutlierFactor without novelty=True judges only its training rows; fit it with \
             novelty=True",
        ));
    }
    let methods = [Method::Predict, Method::DecisionFunction, Method::ScoreSamples];
    let mut base = Base::new(object, &methods)?;
    let search = Search::read(object, &mut base)?;
    base.precision(object, "_fit_X");
    let count = search.count(object, "n_neighbors_")?;
    let densities = object.vector("_lrd", Some(search.len()))?;
    let (rows, columns, distances) = matrix(object, "_distances_fit_X_")?;
    if rows != search.len() || columns < count {
        let reason = format!("expected {} rows of {count} distances", search.len());
        return Err(object.wrong("_distances_fit_X_", reason));
    }
    let reaches = distances.chunks_exact(columns).map(|row| row[count - 1]).collect();
    let offset = object.f64("offset_")?;
    Ok(base.with(LocalOutlier { search, count, densities, reaches, offset }))
}

/// Outliers among neighbours.
pub(crate) static OUTLIER: &[Row] = &[Row { class: "LocalOutlierFactor", build: local_outlier }];
