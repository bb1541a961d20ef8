//! Models of XGBoost in every container, which the first bytes tell apart, and a prediction of what loads.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenmill_predictive::formats::xgboost::booster_from_bytes;
use tokenmill_predictive::steps::Estimator;
use tokenmill_predictive::{Matrix, Table};

fuzz_target!(|bytes: &[u8]| {
    let Ok(booster) = booster_from_bytes(bytes) else {
        return;
    };
    let columns = booster.input().columns.expect("a model has a number of features");
    if columns <= 64 {
        let values = (0..3 * columns).map(|n| [0.5, f64::NAN, -1.0, 40.0][n % 4]).collect();
        let rows = Table::Dense(Matrix::f64(3, columns, values));
        booster.predict(&rows).expect("what loads answers");
    }
});
