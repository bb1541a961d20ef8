//! XGBoost's files: answers of the library in four versions, containers against each other, hostile bytes.

mod common;

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tokenmill_predictive::formats::xgboost::booster_from_bytes;
use tokenmill_predictive::steps::Estimator;
use tokenmill_predictive::{
    Array, LoadOptions, Matrix, Method, Model, ModelFiles, PredictError, Request, Table, Tensor,
    TensorMap, load, recognise,
};

fn folder() -> PathBuf {
    common::fixtures().join("xgboost")
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn dense(rows: &[&[f64]]) -> TensorMap {
    let mut inputs = TensorMap::default();
    inputs.insert("x", Tensor::from_values(vec![rows.len(), rows[0].len()], &rows.concat()));
    inputs
}

fn ask(model: &dyn Model, inputs: TensorMap, frame: bool) -> Result<TensorMap, PredictError> {
    model.predict(&Request { inputs, frame, methods: Vec::new() })
}

#[test]
fn answers_are_the_librarys() {
    common::run("xgboost");
}

#[test]
fn pickled_wrappers_and_boosters_answer_as_the_library() {
    common::run("xgboost/pickles");
}

#[test]
fn every_container_gives_the_bits_of_the_json_model() {
    let mut compared = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let extension = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        if !["ubj", "bst"].contains(&extension.as_str()) {
            continue;
        }
        let (other, json) = (common::model(&path), common::model(&path.with_extension("json")));
        let columns = json.signature().inputs[0].shape[1].expect("a number of features");
        let rows: Vec<Vec<f64>> = (0..40).map(|row| row_of(row, columns)).collect();
        let rows: Vec<&[f64]> = rows.iter().map(Vec::as_slice).collect();
        let methods = json.methods().to_vec();
        let request = Request { inputs: dense(&rows), frame: false, methods };
        assert_eq!(other.predict(&request), json.predict(&request), "{}", path.display());
        compared += 1;
    }
    assert!(compared >= 15, "{compared} files were compared");
}

/// Numbers around the thresholds of the fixtures, some missing.
fn row_of(row: usize, columns: usize) -> Vec<f64> {
    let value = |column: usize| match (row * 7 + column * 3) % 31 {
        0 => f64::NAN,
        n => (n as f64 - 15.0) / 7.0,
    };
    (0..columns).map(value).collect()
}

#[test]
fn old_binaries_come_without_magic_inside_snapshots_and_with_margins() {
    let whole = bytes("x176_tree_softprob.bst");
    let bare = whole.strip_prefix(b"binf").expect("1.7 writes the magic");
    let length = (bare.len() as i64).to_le_bytes();
    let snapshot = [&b"CONFIG-offset:"[..], &length, bare, b"{\"config\": 1}"].concat();
    let wanted = predictions(&whole);
    assert_eq!(predictions(bare), wanted);
    assert_eq!(predictions(&snapshot), wanted);
    refused("a long snapshot", &snapshot[..snapshot.len() - 20], "longer than the file");
    // Before 1.0 the base score was the margin itself: 0.5 is not taken for a probability.
    let mut old = bytes("x176_linear_logistic.bst");
    let margin = |bytes: &[u8]| {
        let booster = booster_from_bytes(bytes).unwrap();
        let x = Table::Dense(Matrix::f64(1, 4, vec![f64::NAN; 4]));
        booster.decision_function(&x).unwrap().to_f64().unwrap()[0]
    };
    old[4..8].copy_from_slice(&0.5f32.to_le_bytes());
    let new = margin(&old);
    old[24..28].fill(0);
    let difference = margin(&old) - new;
    assert!((difference - 0.5).abs() < 1e-6, "{difference}");
}

/// What a model of four columns predicts.
fn predictions(bytes: &[u8]) -> Array {
    let booster = booster_from_bytes(bytes).unwrap_or_else(|fault| panic!("{fault}"));
    let rows: Vec<f64> = (0..40).flat_map(|row| row_of(row, 4)).collect();
    booster.predict(&Table::Dense(Matrix::f64(40, 4, rows))).expect("rows of four columns fit")
}

#[test]
fn files_are_recognised_by_their_content() {
    for name in ["x320_tree_logistic.json", "x320_tree_softprob.ubj", "x176_tree_softprob.bst"] {
        let files = ModelFiles::open(&folder().join(name)).unwrap();
        assert_eq!(recognise(&files).map(|format| format.name()), Some("xgboost"), "{name}");
    }
    let model = common::model(&folder().join("x320_tree_softprob.ubj"));
    assert_eq!(model.description().library.as_deref(), Some("xgboost 3.2.0"));
    assert_eq!(model.description().kind, "gbtree multi:softprob");
    let margin = LoadOptions { method: Some(Method::DecisionFunction), ..LoadOptions::default() };
    let margin = load(&folder().join("x320_tree_softprob.ubj"), &margin).unwrap();
    assert_eq!(margin.methods()[0], Method::DecisionFunction);
}

#[test]
fn requests_that_do_not_fit_are_refused_with_the_numbers() {
    let model = common::model(&folder().join("x320_tree_logistic.json"));
    for (rows, wanted) in [
        (vec![1.0; 3], "the request has 3 columns, the model has 4"),
        (vec![1.0; 5], "the request has 5 columns, the model has 4"),
        (vec![1.0, f64::INFINITY, 0.0, 0.0], "infinity"),
        (vec![1.0, 1e300, 0.0, 0.0], "infinity"),
    ] {
        let error = ask(model.as_ref(), dense(&[&rows]), false).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn columns_are_matched_by_name_and_categories_by_theirs() {
    let model = common::model(&folder().join("x320_names.json"));
    let frame = |animal: &str, name: &str| {
        let mut inputs = TensorMap::default();
        inputs.insert("code", Tensor::from_texts(vec![1], &["300"]));
        inputs.insert(name, Tensor::from_values(vec![1], &[0.5]));
        inputs.insert("animal", Tensor::from_texts(vec![1], &[animal]));
        inputs
    };
    assert!(ask(model.as_ref(), frame("yak", "weight"), true).is_ok());
    let unknown = ask(model.as_ref(), frame("gnu", "weight"), true).unwrap_err().to_string();
    let wanted = "Found a category not in the training set for the 0th (0-based) column: gnu";
    assert!(unknown.contains(wanted), "{unknown}");
    let missing = ask(model.as_ref(), frame("yak", "height"), true).unwrap_err().to_string();
    assert!(missing.contains("\"weight\" is missing"), "{missing}");
    let nameless = common::model(&folder().join("x320_tree_logistic.json"));
    let texts = ["a", "b", "c", "d"];
    let mut inputs = TensorMap::default();
    inputs.insert("x", Tensor::from_texts(vec![1, 4], &texts));
    let error = ask(nameless.as_ref(), inputs, false).unwrap_err().to_string();
    assert!(error.contains("no category names"), "{error}");
}

/// Changes one place of a JSON model.
fn edited(name: &str, change: impl Fn(&mut serde_json::Value)) -> Vec<u8> {
    let mut model = serde_json::from_slice(&bytes(name)).expect("a fixture is JSON");
    change(&mut model);
    serde_json::to_vec(&model).expect("values can be written")
}

fn refused(what: &str, bytes: &[u8], wanted: &str) {
    match booster_from_bytes(bytes) {
        Ok(_) => panic!("{what} was accepted"),
        Err(fault) => assert!(fault.to_string().contains(wanted), "{what}: {fault}"),
    }
}

#[test]
fn wrong_models_are_refused_at_load_with_the_place() {
    const TREE: &str = "/learner/gradient_booster/model/trees/0";
    let cases: [(&str, &str, serde_json::Value, &str); 14] = [
        ("a cycle", "/left_children/1", 0.into(), "trees[0].node 0: is reached twice"),
        ("a child outside", "/right_children/0", 99.into(), "trees[0].right_children[0]: 99"),
        ("a negative child", "/right_children/0", (-7).into(), "right_children[0]: -7"),
        ("a feature outside", "/split_indices/0", 4.into(), "split_indices[0]: 4 is not below"),
        ("a split type", "/split_type", vec![2; 7].into(), "split_type[0]: 2 is neither"),
        ("no categories", "/split_type", vec![1; 7].into(), "categories of node 0: are missing"),
        ("a text as a number", "/split_conditions/0", "1".into(), "split_conditions (byte"),
        ("a short array", "/default_left", serde_json::json!([0]), "default_left: 1 entries"),
        ("a wrong count", "/tree_param/num_nodes", "3000000000".into(), "num_nodes says"),
        (
            "leaf vectors",
            "/tree_param/size_leaf_vector",
            "7".into(),
            "size_leaf_vector: leaves of 7",
        ),
        ("an output", "../../tree_info/0", 5.into(), "tree_info[0]: 5 is not below"),
        (
            "an objective",
            "../../../../objective/name",
            "mine".into(),
            "objective \"mine\" is not known",
        ),
        ("a booster", "../../../name", "gbforest".into(), "booster \"gbforest\" is not known"),
        ("classes", "../../../../learner_model_param/num_class", "4000000000".into(), "outputs"),
    ];
    for (what, place, value, wanted) in cases {
        let path = PathBuf::from(TREE).join(place.trim_start_matches('/'));
        let mut parts: Vec<String> = Vec::new();
        for part in path.iter().skip(1).map(|part| part.to_string_lossy().into_owned()) {
            if part == ".." { drop(parts.pop()) } else { parts.push(part) }
        }
        let pointer = format!("/{}", parts.join("/"));
        let model = edited("x320_tree_squarederror.json", |model| {
            let (parent, key) = pointer.rsplit_once('/').expect("a pointer has a slash");
            match model.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}")) {
                serde_json::Value::Array(items) => {
                    items[key.parse::<usize>().expect("an index")] = value.clone();
                }
                parent => parent[key] = value.clone(),
            }
        });
        refused(what, &model, wanted);
    }
    let score = |text: &str| {
        edited("x320_tree_logistic.json", |model| {
            model["learner"]["learner_model_param"]["base_score"] = text.into();
        })
    };
    refused("a base score", &score("nan"), "base_score");
    refused("base scores", &score("[1E-1,2E-1]"), "2 numbers for 1 outputs");
    assert!(booster_from_bytes(&score("[5E-1]")).is_ok());
    let weights = edited("x320_linear_logistic.json", |model| {
        model["learner"]["gradient_booster"]["model"]["weights"] = serde_json::json!([1.0]);
    });
    refused("weights", &weights, "1 weights for 4 features");
}

#[test]
fn other_files_are_refused_by_what_they_are() {
    refused("a dump", b"booster[0]:\n0:[f0<1] yes=1,no=2", "save_model");
    refused("a list", b"[{\"nodeid\": 0}]", "save_model");
    refused("another library", b"{\"tree_info\": []}", "no \"learner\"");
    refused("base64", b"bs64AAAA", "base64");
    refused("nothing", b"", "byte 0");
}

#[test]
fn dart_of_later_versions_keeps_its_weights_in_the_model() {
    let old = bytes("x320_dart_squarederror.json");
    let new = edited("x320_dart_squarederror.json", |model| {
        let booster = model.pointer_mut("/learner/gradient_booster").unwrap();
        let (mut inner, weights) = (booster["gbtree"].take(), booster["weight_drop"].take());
        inner["model"]["weight_drop"] = weights;
        *booster = inner;
    });
    assert_eq!(predictions(&old), predictions(&new));
}

#[test]
fn every_truncation_and_absurd_lengths_are_errors() {
    for name in [
        "x320_one_tree.json",
        "x320_tree_squarederror.ubj",
        "x176_dart_squarederror.bst",
        "x176_linear_logistic.bst",
        "x320_categories_onehot.ubj",
    ] {
        let whole = bytes(name);
        assert!(booster_from_bytes(&whole).is_ok(), "{name}");
        // The binary layout stores attributes last; all else ends with the last byte.
        for length in 0..whole.len() {
            assert!(booster_from_bytes(&whole[..length]).is_err(), "{name} cut to {length}");
        }
        let follows = [&whole[..], b"x"].concat();
        assert!(booster_from_bytes(&follows).is_err(), "{name} with a byte behind");
    }
    let huge =
        [&b"{L\0\0\0\0\0\0\0\x07learner{L\x7f\xff\xff\xff\xff\xff\xff\xff"[..], b"x"].concat();
    refused("a huge key", &huge, "bytes, the file has");
    let array = b"{L\0\0\0\0\0\0\0\x07version[$l#L\x3f\xff\xff\xff\xff\xff\xff\xff";
    refused("a huge array", array, "version");
    let list = b"{L\0\0\0\0\0\0\0\x07version[#L\x3f\xff\xff\xff\xff\xff\xff\xffi\x01";
    refused("a huge list", list, "version");
    let mut binary = bytes("x176_tree_squarederror.bst");
    let trees = 4 + 136 + 8 + "reg:squarederror".len() + 8 + "gbtree".len();
    binary[trees..trees + 4].copy_from_slice(&i32::MAX.to_le_bytes());
    refused("a huge number of trees", &binary, "trees[");
}

#[test]
fn deep_nesting_is_an_error() {
    let deep = 100_000;
    for (open, at) in [("[", "x"), ("{\"a\":", "x"), ("[", "learner"), ("{\"learner\":", "learner")]
    {
        let bytes = format!("{{\"{at}\":{}", open.repeat(deep)).into_bytes();
        assert!(booster_from_bytes(&bytes).is_err(), "{open} in {at}");
    }
    let mut bytes = b"{i\x01x".to_vec();
    bytes.extend(std::iter::repeat_n(b'[', deep));
    refused("nested arrays", &bytes, "nested more than");
    let mut bytes = b"{i\x01x".to_vec();
    bytes.extend(b"{i\x01a".repeat(deep));
    refused("nested objects", &bytes, "nested more than");
}

#[test]
fn category_sets_cannot_outgrow_the_file() {
    let model = edited("x320_categories_onehot.json", |model| {
        let trees = model["learner"]["gradient_booster"]["model"]["trees"].as_array_mut().unwrap();
        let categories = trees[0]["categories"].as_array_mut().unwrap();
        categories.iter_mut().for_each(|category| *category = ((1 << 24) - 1).into());
        let nodes = trees[0].clone();
        *trees = vec![nodes; 60];
        model["learner"]["gradient_booster"]["model"]["tree_info"] = vec![0; 60].into();
    });
    refused("large sets", &model, "too large for the file");
    let outside = edited("x320_categories_onehot.json", |model| {
        let trees = &mut model["learner"]["gradient_booster"]["model"]["trees"];
        trees[0]["categories"][0] = (1 << 24).into();
    });
    refused("a category", &outside, "16777216 is not between");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn changed_bytes_never_panic(
        file in 0usize..4,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let name = [
            "x320_one_tree.json",
            "x320_categories_partition.ubj",
            "x176_dart_squarederror.bst",
            "x320_labels_vector.ubj",
        ][file];
        let mut bytes = std::fs::read(Path::new(&folder()).join(name)).unwrap();
        for (index, value) in changes {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        if let Ok(booster) = booster_from_bytes(&bytes) {
            let columns = booster.input().columns.unwrap_or_default();
            if columns < 100 {
                let rows: Vec<f64> = (0..9).flat_map(|row| row_of(row, columns)).collect();
                let table = Table::Dense(Matrix::f64(9, columns, rows));
                booster.predict(&table).expect("what loads answers");
            }
        }
    }
}
