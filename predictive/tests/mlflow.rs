//! MLflow directories answer as MLflow's own `predict` does, and what cannot be served is refused by name.

mod common;

use std::path::{Path, PathBuf};

use serde_json::json;
use tokenmill_predictive::{DataType, LoadOptions, Request, TensorMap, load};

fn folder(name: &str) -> PathBuf {
    common::fixtures().join("mlflow").join(name)
}

#[test]
fn directories_answer_as_mlflow() {
    common::run("mlflow");
}

#[test]
fn the_signature_gives_names_and_types() {
    let model = common::model(&folder("sklearn"));
    assert_eq!(model.description().format, "mlflow");
    let signature = model.signature();
    let long = "a column with a name that is long enough for the line to be folded";
    let names: Vec<&str> = signature.inputs.iter().map(|input| input.name.as_str()).collect();
    assert_eq!(names, ["a a", "b's", long, "count"]);
    assert_eq!(signature.inputs[3].dtype, DataType::Int64);
    assert_eq!(signature.columns.as_deref().map(<[String]>::len), Some(4));
    let model = common::model(&folder("lightgbm"));
    assert_eq!(model.signature().inputs[0].shape, [None, Some(4)]);
    // The file itself may be named as well.
    common::model(&folder("lightgbm").join("MLmodel"));
}

#[test]
fn requests_are_checked_against_the_signature() {
    let model = common::model(&folder("sklearn"));
    let number = json!({"dtype": "FP64", "shape": [1], "data": [1.0]});
    let text = json!({"dtype": "BYTES", "shape": [1], "data": ["1"]});
    let long = "a column with a name that is long enough for the line to be folded";
    let ask = |columns: &[(&str, &serde_json::Value)]| {
        let mut inputs = TensorMap::default();
        columns.iter().for_each(|(name, column)| inputs.insert(*name, common::tensor(column)));
        let error = model.predict(&Request { inputs, frame: true, methods: Vec::new() });
        error.err().map(|error| error.to_string())
    };
    let all = [("a a", &number), ("b's", &number), (long, &number), ("count", &number)];
    assert_eq!(ask(&all), None);
    let missing = "input b's: Model is missing inputs [\"b's\", \"count\"]";
    assert_eq!(ask(&[all[0], all[2]]).as_deref(), Some(missing));
    let texts = [("a a", &text), all[1], all[2], all[3]];
    let wrong = "input a a: the model's signature has FP64, found BYTES";
    assert_eq!(ask(&texts).as_deref(), Some(wrong));

    let model = common::model(&folder("lightgbm"));
    let mut inputs = TensorMap::default();
    let narrow = json!({"dtype": "FP64", "shape": [1, 2], "data": [1.0, 2.0]});
    inputs.insert("x", common::tensor(&narrow));
    let error = model.predict(&Request { inputs, ..Request::default() }).expect_err("narrow");
    assert_eq!(error.to_string(), "input x: expected the shape [-1, 4], found [1, 2]");
}

/// The message that loading a directory with this `MLmodel` gives.
fn refusal(name: &str, text: &str) -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mlflow").join(name);
    std::fs::create_dir_all(&folder).expect("a folder for the test");
    std::fs::write(folder.join("MLmodel"), text).expect("the file can be written");
    match load(&folder, &LoadOptions::default()) {
        Ok(_) => panic!("{name} loads"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_cannot_be_served_is_refused_by_name() {
    let flavour =
        |name: &str, key: &str, file: &str| format!("flavors:\n  {name}:\n    {key}: {file}\n");
    let cases = [
        (
            "code",
            "flavors:\n  python_function:\n    loader_module: my.code\n    data: x\n".to_owned(),
            "python_function (loader my.code); supported are sklearn, lightgbm, xgboost",
        ),
        ("torch", flavour("pytorch", "data", "model"), "without Python: pytorch; supported are"),
        ("empty", String::new(), "without Python: none;"),
        ("outside", flavour("sklearn", "pickled_model", "../other.pkl"), "expected a file below"),
        ("absolute", flavour("lightgbm", "data", "/etc/hostname"), "expected a file below"),
        ("itself", flavour("xgboost", "data", "''"), "expected a file below"),
        ("skops", flavour("sklearn", "pickled_model", "model.skops"), "is a skops archive"),
        ("no-key", flavour("xgboost", "other", "model.ubj"), "flavors.xgboost.data: is missing"),
        ("gone", flavour("xgboost", "data", "model.ubj"), "model.ubj"),
        (
            "columns",
            flavour("xgboost", "data", "model.ubj")
                + "signature:\n  inputs: '[{\"type\": \"datetime\", \"name\": \"d\"}]'\n",
            "columns of type datetime are not supported",
        ),
        (
            "signature",
            flavour("xgboost", "data", "model.ubj") + "signature:\n  inputs: '[{]'\n",
            "signature.inputs: expected a list of columns or a tensor",
        ),
        ("quote", "flavors: 'x".to_owned(), "a quoted text does not end"),
        ("large", "a: b\n".repeat(300_000), "at most 1048576 are read"),
    ];
    for (name, text, wanted) in cases {
        let message = refusal(name, &text);
        assert!(message.contains(wanted), "{name}: {message}");
    }
}
