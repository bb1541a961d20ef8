//! LightGBM's text models and JSON dumps: what loads must also answer.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenmill_predictive::formats::lightgbm::booster_from_text;
use tokenmill_predictive::steps::Estimator;
use tokenmill_predictive::{Matrix, Table};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(booster) = booster_from_text(text) else { return };
    let features = booster.input().columns.expect("a booster knows its features");
    let row = |value| vec![value; features];
    let values = [0.0, f64::NAN, -0.5, 3.0, 1e300, f64::NEG_INFINITY].map(row).concat();
    let x = Table::Dense(Matrix::f64(6, features, values));
    assert_eq!(booster.predict(&x).expect("the rows fit").shape()[0], 6);
    assert_eq!(booster.apply(&x).expect("the rows fit").shape(), [6, booster.trees()]);
});
