//! Everything that a pickle or joblib file can hold, and every estimator that is built of it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenmill_predictive::pickle;
use tokenmill_predictive::steps::Builder;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(pickle) = pickle::read(bytes) {
        let root = pickle.root();
        assert!(!root.describe().is_empty());
        if let Some(object) = root.as_object() {
            drop(Builder::default().build(object));
        }
    }
});
