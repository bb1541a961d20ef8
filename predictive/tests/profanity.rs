//! The real files of `alt-profanity-check` 1.9.1, a TF-IDF vectoriser and a calibrated linear SVM, against what the package
//! answers (`tests/fixtures/make_profanity.py`). The files are not in the tree: `cargo xtask model` gets them and
//! `cargo xtask test` does so first; without them this test fails.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenmill_predictive::{LoadOptions, Method, Model, Request, Tensor, TensorMap, load};

const CASE: &str = include_str!("fixtures/profanity.json");
/// Of probabilities.
const TOLERANCE: f64 = 1e-9;

fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/alt-profanity-check");
    let there =
        ["model.joblib", "vectorizer.joblib"].iter().all(|name| folder.join(name).is_file());
    assert!(there, "the files of alt-profanity-check are not there: cargo xtask model");
    folder
}

fn open(path: &Path) -> Box<dyn Model> {
    load(path, &LoadOptions::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn call(model: &dyn Model, input: Tensor, methods: Vec<Method>) -> TensorMap {
    let mut inputs = TensorMap::default();
    inputs.insert("x", input);
    let answer = model.predict(&Request { inputs, frame: false, methods });
    answer.unwrap_or_else(|error| panic!("{error}"))
}

fn list<'a>(case: &'a Value, name: &str) -> &'a [Value] {
    case[name].as_array().expect("a list")
}

fn texts(case: &Value) -> Tensor {
    let texts: Vec<&str> =
        list(case, "texts").iter().map(|text| text.as_str().expect("a text")).collect();
    Tensor::from_texts(vec![texts.len()], &texts)
}

/// Labels equal, probabilities of the second class near.
fn check(case: &Value, labels: &Tensor, probabilities: &Tensor) {
    let numbers = |name: &str| -> Vec<f64> {
        list(case, name).iter().map(|value| value.as_f64().expect("a number")).collect()
    };
    assert_eq!(labels.to_f64().expect("numbers"), numbers("predict"));
    let wanted = numbers("predict_prob");
    assert_eq!(probabilities.shape(), [wanted.len(), 2]);
    let rows = probabilities.to_f64().expect("numbers");
    for (index, (row, wanted)) in rows.chunks(2).zip(wanted).enumerate() {
        let text = &case["texts"][index];
        assert!((row[1] - wanted).abs() <= TOLERANCE, "{text}: {} is not {wanted}", row[1]);
        assert!((row[0] + row[1] - 1.0).abs() <= TOLERANCE, "{text}: {row:?}");
    }
}

#[test]
fn the_files_one_after_the_other_answer_as_the_package() {
    let (folder, case) = (folder(), serde_json::from_str::<Value>(CASE).unwrap());
    let vectoriser = open(&folder.join("vectorizer.joblib"));
    let model = open(&folder.join("model.joblib"));
    let features = call(vectoriser.as_ref(), texts(&case), Vec::new());
    let features = features.get("output-0").expect("the features").clone();
    let answer = call(model.as_ref(), features, vec![Method::Predict, Method::PredictProba]);
    check(&case, answer.get("predict").unwrap(), answer.get("predict_proba").unwrap());
}

#[test]
fn the_folder_of_both_answers_texts_as_the_package() {
    let (folder, case) = (folder(), serde_json::from_str::<Value>(CASE).unwrap());
    let model = open(&folder);
    let kind = "Pipeline(TfidfVectorizer, CalibratedClassifierCV";
    assert!(model.description().kind.starts_with(kind), "{}", model.description().kind);
    let answer = call(model.as_ref(), texts(&case), vec![Method::Predict, Method::PredictProba]);
    check(&case, answer.get("predict").unwrap(), answer.get("predict_proba").unwrap());
}
