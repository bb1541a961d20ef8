//! `KNNImputer` and `IterativeImputer`: missing cells from the rows that are near, or from models of the other columns.

use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::{Object, Value};
use crate::pool;
use crate::steps::impute::{Missing, MissingIndicator, added, names_of, with_indicator};
use crate::steps::input::Nan;
use crate::steps::transform::{Transform, numeric, positions, select, transformer};
use crate::steps::{Builder, Estimator, Row};
use crate::table::{Matrix, Table};

pub(crate) static ESTIMATORS: &[Row] = &[
    Row { class: "KNNImputer", build: neighbours },
    Row { class: "IterativeImputer", build: iterative },
];

/// Missing cells are the mean of those of the nearest fitted rows.
struct KnnImputer {
    missing: Missing,
    /// Row-major; NaN where missing.
    fitted: Vec<f64>,
    columns: usize,
    count: usize,
    by_distance: bool,
    /// Mean of each column; NaN for those without values.
    means: Vec<f64>,
    keeps: bool,
    indicator: Option<MissingIndicator>,
}

fn neighbours(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let missing = Missing::of(object)?;
    let (_, columns, mut fitted) = object.matrix("_fit_X")?;
    if columns == 0 {
        return Err(object.wrong("_fit_X", "has no column"));
    }
    fitted.iter_mut().filter(|value| missing.is(**value)).for_each(|value| *value = f64::NAN);
    if object.attribute("metric")?.as_str() != Some("nan_euclidean") {
        let found = object.attribute("metric")?.describe();
        return Err(Fault::unsupported(format!(
            "KNNImputer.metric is {found}; nan_euclidean is supported"
        )));
    }
    let weights = object.attribute("weights")?;
    let by_distance = match weights.as_str() {
        Some("uniform") => false,
        Some("distance") => true,
        _ => {
            let found = weights.describe();
            let known = "uniform and distance are known";
            return Err(Fault::unsupported(format!("KNNImputer.weights is {found}; {known}")));
        }
    };
    let mean = |column: usize| {
        let cells = fitted.iter().skip(column).step_by(columns).filter(|value| !value.is_nan());
        let (sum, count) = cells.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
        sum / count
    };
    let means = (0..columns).map(mean).collect();
    let count = object.usize("n_neighbors")?.max(1);
    let keeps = object.get("keep_empty_features").and_then(Value::as_bool).unwrap_or(false);
    let indicator = added(object, &missing, columns)?;
    let inner =
        KnnImputer { missing, fitted, columns, count, by_distance, means, keeps, indicator };
    transformer(object, Some(columns), inner)
}

impl KnnImputer {
    /// The columns that are answered: those that had a value, or all.
    fn kept(&self) -> Vec<usize> {
        (0..self.columns).filter(|&at| self.keeps || !self.means[at].is_nan()).collect()
    }

    /// The distance of a row to every fitted one over the cells that both have; NaN without any.
    fn distances(&self, row: &[f64]) -> Vec<f64> {
        let distance = |fitted: &[f64]| {
            let (mut sum, mut both) = (0.0, 0.0);
            for (a, b) in row.iter().zip(fitted) {
                if !a.is_nan() && !b.is_nan() {
                    sum += (a - b) * (a - b);
                    both += 1.0;
                }
            }
            (sum / both * self.columns as f64).sqrt()
        };
        self.fitted.chunks(self.columns).map(distance).collect()
    }

    /// The value of one missing cell.
    fn value(&self, distances: &[f64], column: usize) -> f64 {
        let cell = |row: usize| self.fitted[row * self.columns + column];
        let mut donors: Vec<(f64, f64)> = (0..distances.len())
            .filter(|&row| !cell(row).is_nan() && !distances[row].is_nan())
            .map(|row| (distances[row], cell(row)))
            .collect();
        if donors.is_empty() {
            return self.means[column];
        }
        donors.sort_by(|a, b| a.0.total_cmp(&b.0));
        donors.truncate(self.count);
        let exact = donors[0].0 == 0.0;
        let weight = |distance: f64| match (self.by_distance, exact) {
            (false, _) => 1.0,
            (true, true) => f64::from(u8::from(distance == 0.0)),
            (true, false) => 1.0 / distance,
        };
        let sum = donors.iter().map(|&(distance, value)| weight(distance) * value).sum::<f64>();
        sum / donors.iter().map(|&(distance, _)| weight(distance)).sum::<f64>()
    }
}

impl Transform for KnnImputer {
    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        let matrix = numeric(x, self.missing.finite())?;
        let mut values = matrix.to_f64().into_owned();
        values
            .iter_mut()
            .filter(|value| self.missing.is(**value))
            .for_each(|value| *value = f64::NAN);
        pool::each_part(&mut values, self.columns, |_, row| {
            let empty = |column: usize| self.means[column].is_nan();
            if (0..self.columns).any(|column| row[column].is_nan() && !empty(column)) {
                let distances = self.distances(row);
                for column in (0..self.columns).filter(|&column| !empty(column)) {
                    if row[column].is_nan() {
                        row[column] = self.value(&distances, column);
                    }
                }
            }
            for column in (0..self.columns).filter(|&column| self.keeps && empty(column)) {
                row[column] = 0.0;
            }
        });
        let kept = self.kept();
        let filled = Table::Dense(matrix.like(matrix.rows, matrix.columns, values));
        let read = Table::Dense(matrix.into_owned());
        with_indicator(select(&filled, &kept), &read, self.indicator.as_ref())
    }

    fn names(&self, input: Vec<String>) -> Option<Vec<String>> {
        Some(names_of(&self.kept(), self.indicator.as_ref(), &input))
    }
}

/// One model of a round: the column that it fills and those that it reads.
struct Turn {
    column: usize,
    others: Vec<usize>,
    model: Box<dyn Estimator>,
}

/// Missing cells are filled plainly at first, then by a model of each column in turn.
struct IterativeImputer {
    missing: Missing,
    initial: Box<dyn Estimator>,
    /// Columns of the input that the models see.
    kept: Vec<usize>,
    turns: Vec<Turn>,
    low: Vec<f64>,
    high: Vec<f64>,
    indicator: Option<MissingIndicator>,
}

fn iterative(object: Object<'_>, builder: Builder) -> Result<Box<dyn Estimator>, Fault> {
    if object.bool("sample_posterior")? {
        let what = "IterativeImputer.sample_posterior draws random values; only False is supported";
        return Err(Fault::unsupported(what));
    }
    let missing = Missing::of(object)?;
    let first = object.object("initial_imputer_")?;
    let statistics = first.vector("statistics_", None)?;
    let columns = statistics.len();
    let keeps = object.get("keep_empty_features").and_then(Value::as_bool).unwrap_or(false);
    let empty = |at: &usize| statistics[*at].is_nan();
    let kept: Vec<usize> = (0..columns).filter(|at| keeps || !empty(at)).collect();
    let limits = |name: &str| object.vector(name, Some(kept.len()));
    let (low, high) = (limits("_min_value")?, limits("_max_value")?);
    let mut turns = Vec::new();
    for item in object.list("imputation_sequence_")? {
        let wrong = || object.wrong("imputation_sequence_", "expected columns and their models");
        let parts = item.as_object().map_or(item, |triplet| triplet.arguments).as_list();
        let parts = parts.ok_or_else(wrong)?;
        let &[column, others, model] = parts.as_slice() else { return Err(wrong()) };
        let column = column.as_usize().filter(|&at| at < kept.len()).ok_or_else(wrong)?;
        let others = positions(others, kept.len()).ok_or_else(wrong)?;
        let model = builder.build(model.as_object().ok_or_else(wrong)?)?;
        if !model.methods().contains(&Method::Predict) {
            return Err(wrong());
        }
        turns.push(Turn { column, others, model });
    }
    let initial = builder.build(first)?;
    let indicator = added(object, &missing, columns)?;
    let inner = IterativeImputer { missing, initial, kept, turns, low, high, indicator };
    transformer(object, Some(columns), inner)
}

impl Transform for IterativeImputer {
    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        let x = Table::Dense(numeric(x, self.missing.finite())?.into_owned());
        let given = numeric(&select(&x, &self.kept), Nan::Any)?.to_f64().into_owned();
        let filled = self.initial.transform(&x)?;
        let filled = numeric(&filled, Nan::Any)?.into_owned();
        let (rows, width) = (filled.rows, self.kept.len());
        if filled.columns != width {
            let reason = "the initial imputer gives another number of columns than the models read";
            return Err(PredictError::Internal(reason.into()));
        }
        let mut values = filled.to_f64().into_owned();
        let absent: Vec<bool> = given.iter().map(|&value| self.missing.is(value)).collect();
        for turn in self.turns.iter().filter(|_| absent.contains(&false)) {
            let holes: Vec<usize> =
                (0..rows).filter(|row| absent[row * width + turn.column]).collect();
            if holes.is_empty() {
                continue;
            }
            let cells =
                holes.iter().flat_map(|row| turn.others.iter().map(move |at| row * width + at));
            let cells = cells.map(|cell| values[cell]).collect();
            let read = Table::Dense(filled.like(holes.len(), turn.others.len(), cells));
            let answers = turn.model.predict(&read)?.to_f64().unwrap_or_default();
            let (low, high) = (self.low[turn.column], self.high[turn.column]);
            for (row, answer) in holes.into_iter().zip(answers) {
                values[row * width + turn.column] = answer.max(low).min(high);
            }
        }
        let answer: Matrix = filled.like(rows, width, values);
        with_indicator(Table::Dense(answer), &x, self.indicator.as_ref())
    }

    fn names(&self, input: Vec<String>) -> Option<Vec<String>> {
        Some(names_of(&self.kept, self.indicator.as_ref(), &input))
    }
}
