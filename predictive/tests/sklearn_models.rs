//! Classic models of scikit-learn other than trees against the library's own answers.

mod common;

use std::io::Read;

use tokenmill_predictive::steps::{Builder, Estimator};
use tokenmill_predictive::{Matrix, Method, Table, pickle};

#[test]
fn every_case_answers_as_the_library() {
    common::run("sklearn_models");
}

/// The models, uncompressed.
fn models() -> Vec<(String, Vec<u8>)> {
    let folder = std::fs::read_dir(common::fixtures().join("sklearn_models"))
        .expect("the fixtures can be read");
    let paths = folder.map(|entry| entry.expect("the fixtures can be read").path());
    let models = paths.filter(|path| path.extension().is_some_and(|ending| ending == "joblib"));
    let read = |path: std::path::PathBuf| {
        let file = std::fs::File::open(&path).expect("the fixtures can be read");
        let mut bytes = Vec::new();
        flate2::read::ZlibDecoder::new(file)
            .read_to_end(&mut bytes)
            .expect("the fixtures can be read");
        (path.file_name().expect("the fixtures can be read").to_string_lossy().into_owned(), bytes)
    };
    let mut models: Vec<(String, Vec<u8>)> = models.map(read).collect();
    models.sort();
    models
}

fn build(bytes: &[u8]) -> Option<Box<dyn Estimator>> {
    let pickle = pickle::read(bytes).ok()?;
    Builder::default().build(pickle.root().as_object()?).ok()
}

/// Calls every method on rows of as many columns as the estimator reads.
fn call_all(estimator: &dyn Estimator) {
    let columns = estimator.input().columns.unwrap_or(4).min(1000);
    let values = (0..2 * columns).map(|index| (index % 3) as f64).collect();
    let x = Table::Dense(Matrix::f64(2, columns, values));
    for method in estimator.methods() {
        let _ = match method {
            Method::Predict => estimator.predict(&x).map(drop),
            Method::PredictProba => estimator.predict_proba(&x).map(drop),
            Method::PredictLogProba => estimator.predict_log_proba(&x).map(drop),
            Method::DecisionFunction => estimator.decision_function(&x).map(drop),
            Method::ScoreSamples => estimator.score_samples(&x).map(drop),
            Method::Transform => estimator.transform(&x).map(drop),
            Method::Apply => estimator.apply(&x).map(drop),
            Method::Kneighbors => estimator.kneighbors(&x).map(drop),
        };
    }
}

#[test]
fn a_damaged_model_is_refused_or_answers() {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    let (mut refused, mut answered) = (0, 0);
    for (_, bytes) in models() {
        for _ in 0..20 {
            let mut damaged = bytes.clone();
            for _ in 0..=random(3) {
                let at = random(damaged.len());
                damaged[at] = if random(2) == 0 { random(256) as u8 } else { damaged[at] ^ 1 };
            }
            match build(&damaged) {
                Some(estimator) => {
                    call_all(estimator.as_ref());
                    answered += 1;
                }
                None => refused += 1,
            }
        }
    }
    assert!(refused > 500 && answered > 500, "{refused} refused, {answered} answered");
}

#[test]
fn an_attribute_that_does_not_fit_is_named() {
    let models = models();
    let check = |model: &str, attribute: &str, renamed: &str, wanted: &str| {
        let (_, bytes) = models.iter().find(|(name, _)| name.starts_with(model)).unwrap();
        let at = bytes.windows(attribute.len()).position(|part| part == attribute.as_bytes());
        let mut bytes = bytes.clone();
        bytes[at.unwrap()..][..renamed.len()].copy_from_slice(renamed.as_bytes());
        let pickle = pickle::read(&bytes).unwrap();
        let fault = Builder::default().build(pickle.root().as_object().unwrap()).err().unwrap();
        assert!(fault.to_string().contains(wanted), "{fault}");
    };
    check("Isomap_1", "Isomap", "DBSCAN", "has neither predict nor transform for new rows");
    check("KMeans_", "KMeans", "XMeans", "sklearn.cluster._kmeans.XMeans is not supported");
    check("Ridge_", "coef_", "koef_", "Ridge.coef_: is missing");
    check("KMeans_", "cluster_centers_", "kluster_centers_", "KMeans.cluster_centers_: is missing");
    check("SVC_rbf", "rbf", "rbg", "SVC.kernel: \"rbg\" is not a known kernel");
    check("MLPRegressor_tanh", "tanh", "tang", "MLPRegressor.activation: \"tang\"");
    check("KNeighborsClassifier_cosine", "cosine", "dosine", "metric");
}

#[test]
fn a_model_that_looks_at_all_rows_at_once_is_not_batched() {
    for (name, batchable) in [("NMF_cd_191", false), ("KMeans_191", true)] {
        let path = common::fixtures().join(format!("sklearn_models/{name}.joblib"));
        assert_eq!(common::model(&path).signature().batchable, batchable, "{name}");
    }
}
