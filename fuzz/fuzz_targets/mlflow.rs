//! The description in an MLflow directory: whatever it says, the file that it names lies below the directory.

#![no_main]

use std::path::Component;

use libfuzzer_sys::fuzz_target;
use tokenmill_predictive::formats::mlflow::named_file;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(file) = named_file(bytes) {
        assert!(!file.as_os_str().is_empty());
        assert!(file.components().all(|part| matches!(part, Component::Normal(_))), "{file:?}");
    }
});
