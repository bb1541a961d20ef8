//! Trees, boosted ensembles and estimators of estimators answer what scikit-learn answered, and damaged files of them
//! are refused or answer something, but never stop the process.

mod common;

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use tokenmill_predictive::{LoadOptions, Request, Tensor, TensorMap, load};

#[test]
fn trees_answer_what_the_library_answers() {
    common::run("sklearn_trees");
}

#[test]
fn estimators_of_estimators_answer_what_the_library_answers() {
    common::run("sklearn_meta");
}

fn error(file: &str, values: &[f64], columns: usize) -> String {
    let model = common::model(&common::fixtures().join("sklearn_trees").join(file));
    let mut inputs = TensorMap::default();
    inputs.insert("x", Tensor::from_values(vec![values.len() / columns, columns], values));
    let answer = model.predict(&Request { inputs, ..Request::default() });
    answer.expect_err("the rows do not fit").to_string()
}

#[test]
fn rows_that_do_not_fit_are_refused_as_in_the_library() {
    let check = |file: &str, values: &[f64], columns: usize, wanted: &str| {
        let error = error(file, values, columns);
        assert!(error.contains(wanted), "{file}: {error}");
    };
    check("forest_text_1_9.joblib", &[0.0; 6], 3, "X has 3 features");
    check("forest_text_1_9.joblib", &[0.0, 0.0, 1e39, 0.0], 4, "too large for dtype('float32')");
    check("forest_text_1_3.joblib", &[0.0, f64::NAN, 0.0, 0.0], 4, "Input X contains NaN.");
    check("tree_text_1_1.joblib", &[0.0, f64::NAN, 0.0, 0.0], 4, "Input X contains NaN.");
    check("gradient_binary_1_9.joblib", &[0.0, f64::NAN, 0.0, 0.0], 4, "Input X contains NaN.");
}

/// The pickle in a fixture that joblib compressed.
fn pickle(path: &Path) -> Vec<u8> {
    let file = std::fs::File::open(path).expect("a fixture");
    let mut bytes = Vec::new();
    flate2::read::ZlibDecoder::new(file).read_to_end(&mut bytes).expect("a zlib stream");
    bytes
}

/// Models of the newest version in a folder.
fn models(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(common::fixtures().join(folder)).expect("a folder");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.to_string_lossy().ends_with("_1_9.joblib"));
    paths.sort();
    paths
}

#[test]
fn damaged_files_never_panic() {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("damaged.pkl");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut loaded = 0;
    for path in models("sklearn_trees").into_iter().chain(models("sklearn_meta")) {
        let bytes = pickle(&path);
        for _ in 0..24 {
            let mut bytes = bytes.clone();
            for _ in 0..=random(3) {
                let at = random(bytes.len());
                bytes[at] =
                    [0, 1, 0x7f, 0x80, 0xff, bytes[at] ^ 1, bytes[at].wrapping_add(1)][random(7)];
            }
            std::fs::write(&scratch, &bytes).expect("the scratch folder can be written");
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let Ok(model) = load(&scratch, &LoadOptions::default()) else { return false };
                let columns = model.signature().inputs[0].shape.get(1).copied().flatten();
                let columns = columns.unwrap_or(4).min(64);
                let mut inputs = TensorMap::default();
                inputs.insert("x", Tensor::from_values(vec![2, columns], &vec![0.5; 2 * columns]));
                let request = Request { inputs, methods: model.methods().to_vec(), frame: false };
                let _ = model.predict(&request);
                true
            }));
            match outcome {
                Ok(answered) => loaded += usize::from(answered),
                Err(_) => {
                    panic!("{} panicked; the bytes are in {}", path.display(), scratch.display())
                }
            }
        }
    }
    assert!(loaded > 100, "only {loaded} damaged files loaded, so little was tested");
}
