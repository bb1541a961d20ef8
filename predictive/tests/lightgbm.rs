//! LightGBM files answer as the library does: raw scores and leaves bit by bit, transforms to the last place.
//! Hostile files are refused with the place of the fault, in bounded time, without a panic.

mod common;

use std::panic::catch_unwind;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;
use tokenmill_predictive::formats::lightgbm::booster_from_text;
use tokenmill_predictive::{Model, PredictError, Request, TensorMap};

fn file(name: &str) -> PathBuf {
    common::fixtures().join("lightgbm").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(file(name)).expect("a fixture")
}

#[test]
fn files_of_every_version_answer_as_the_library() {
    common::run("lightgbm");
}

#[test]
fn pickled_boosters_and_wrappers_answer_as_the_library() {
    common::run("lightgbm/pickles");
}

/// Both forms of a model: text and JSON dump.
const FORMS: [&str; 6] = [
    "iris-470.txt",
    "iris-470.json",
    "zero-missing-335.txt",
    "zero-missing-335.json",
    "linear-470.json",
    "linear-nan-470.txt",
];

#[test]
fn a_truncated_file_is_refused_or_whole() {
    for name in FORMS {
        let text = text(name);
        let end = text.find("end of trees").unwrap_or(text.len() - 1);
        // Every place of the text's end, every third before.
        for length in (0..text.len()).filter(|length| length % 3 == 0 || length + 200 > end) {
            let outcome = catch_unwind(|| booster_from_text(&text[..length]).is_ok());
            let loaded = outcome.unwrap_or_else(|_| panic!("{name} cut to {length} panics"));
            // Behind the last tree there is nothing that an answer needs.
            assert!(!loaded || length + 4 >= end, "{name} cut to {length} of {end} loads");
        }
    }
}

#[test]
fn a_changed_byte_never_panics() {
    for name in FORMS {
        let text = text(name);
        for place in (0..text.len()).step_by(5) {
            let mut bytes = text.clone().into_bytes();
            bytes[place] = b"09- \n=e"[place % 7];
            let changed = String::from_utf8_lossy(&bytes).into_owned();
            let outcome = catch_unwind(|| booster_from_text(&changed).is_ok());
            assert!(outcome.is_ok(), "{name} with another byte at {place} panics");
        }
    }
}

/// A text model of one tree, its lines replaced or (with an empty value) left out.
fn model_with(changes: &[(&str, &str)]) -> String {
    let header = [
        ("version", "v4"),
        ("num_class", "1"),
        ("num_tree_per_iteration", "1"),
        ("label_index", "0"),
        ("max_feature_idx", "1"),
        ("objective", "regression"),
        ("feature_names", "a b"),
        ("feature_infos", "[0:1] 0:1:2"),
    ];
    let tree = [
        ("Tree", "0"),
        ("num_leaves", "3"),
        ("num_cat", "1"),
        ("split_feature", "0 1"),
        ("threshold", "0.5 0"),
        ("decision_type", "2 1"),
        ("left_child", "1 -1"),
        ("right_child", "-3 -2"),
        ("leaf_value", "1 2 3"),
        ("cat_boundaries", "0 1"),
        ("cat_threshold", "5"),
        ("is_linear", "0"),
    ];
    let value = |key: &str, value: &str| {
        let change = changes.iter().find(|(changed, _)| *changed == key);
        change.map_or(value.to_owned(), |(_, value)| value.to_string())
    };
    let lines = |pairs: &[(&str, &str)]| -> String {
        let pairs = pairs.iter().map(|(key, default)| (key, value(key, default)));
        let kept = pairs.filter(|(_, value)| !value.is_empty());
        kept.map(|(key, value)| format!("{key}={value}\n")).collect()
    };
    format!("tree\n{}\n{}\n\nend of trees\n", lines(&header), lines(&tree))
}

#[test]
fn faults_name_their_place() {
    assert!(booster_from_text(&model_with(&[])).is_ok());
    let cases = [
        ("left_child", "0 -1", "Tree=0: node 0: node 0 is not behind its parent"),
        ("left_child", "1 0", "Tree=0: node 1: node 0 is not behind its parent"),
        ("left_child", "7 -1", "Tree=0: node 0: node 7 of 2"),
        ("left_child", "-3 -1", "Tree=0: node 0: Leaf(2) is reached twice"),
        ("left_child", "1 -2147483648", "Tree=0: node 1: leaf 2147483647 of 3"),
        ("left_child", "1", "Tree=0.left_child: expected 2 values, found 1"),
        ("right_child", "", "Tree=0.right_child: is missing"),
        ("split_feature", "0 2", "Tree=0: node 1: feature 2 of 2"),
        ("split_feature", "0 -1", "Tree=0.split_feature: expected numbers (u32), found \"-1\""),
        ("threshold", "nan 0", "Tree=0: node 0: the threshold is NaN"),
        ("threshold", "0.5 1", "Tree=0.threshold: 1 is not the number of one of 1 category sets"),
        ("threshold", "0.5 1e300", "is not the number of one of 1 category sets"),
        ("decision_type", "1 1", "Tree=0.threshold: 0.5 is not the number"),
        ("decision_type", "14 1", "Tree=0.decision_type: 14 at node 0 has no missing type"),
        ("num_leaves", "0", "Tree=0.num_leaves: expected at least 1"),
        ("num_leaves", "18446744073709551615", "expected 18446744073709551615 values, found 3"),
        ("num_leaves", "4294967296", "Tree=0.leaf_value: expected 4294967296 values, found 3"),
        ("num_cat", "18446744073709551615", "Tree=0.cat_boundaries: expected"),
        ("cat_boundaries", "0 9", "Tree=0.cat_boundaries: expected ascending bounds up to 1"),
        ("cat_boundaries", "1 0", "Tree=0.cat_boundaries: expected ascending bounds up to 1"),
        ("is_linear", "1", "Tree=0.leaf_const: is missing"),
        ("is_linear", "2", "Tree=0.is_linear: expected 0 or 1"),
        ("max_feature_idx", "18446744073709551615", "header.max_feature_idx: is too large"),
        (
            "max_feature_idx",
            "4000000000",
            "header.feature_names: expected 4000000001 values, found 2",
        ),
        ("feature_infos", "none", "header.feature_infos: expected 2 values, found 1"),
        ("num_tree_per_iteration", "0", "num_tree_per_iteration: 1 trees are no whole number"),
        ("num_tree_per_iteration", "9", "num_tree_per_iteration: 1 trees are no whole number"),
        ("num_class", "", "header.num_class: is missing"),
        ("objective", "custom_thing x:1", "the objective \"custom_thing\" is not known"),
        ("objective", "multiclass num_class:3", ""),
        ("objective", "binary sigmoid:0", "sigmoid: expected a number above 0"),
        ("objective", "binary sigmoid:nan", "sigmoid: expected a number above 0"),
    ];
    for (key, value, wanted) in cases {
        let error = match booster_from_text(&model_with(&[(key, value)])) {
            Ok(_) if wanted.is_empty() => continue,
            Ok(_) => panic!("{key}={value} loads"),
            Err(error) => error.to_string(),
        };
        assert!(!wanted.is_empty() && error.contains(wanted), "{key}={value}: {error}");
    }
    let classes = [("objective", "multiclass num_class:3"), ("num_class", "3")];
    let error = booster_from_text(&model_with(&classes)).expect_err("three classes, one tree");
    assert!(error.to_string().contains("multiclass has 3 outputs, but a round has 1"), "{error}");
    let outputs =
        "tree\nnum_class=4000000000\nmax_feature_idx=0\nfeature_names=a\n\nend of trees\n";
    let error = booster_from_text(outputs).expect_err("outputs without a tree");
    assert!(error.to_string().contains("4000000000 outputs without a tree"), "{error}");
}

#[test]
fn two_nodes_cannot_share_a_category_set() {
    let changes = [("decision_type", "1 1"), ("threshold", "0 0")];
    let error = booster_from_text(&model_with(&changes)).expect_err("one set, two nodes");
    assert!(error.to_string().contains("two nodes have the category set 0"), "{error}");
}

#[test]
fn depth_and_size_are_bounded() {
    let started = Instant::now();
    let leaf = r#"{"leaf_index":0,"leaf_value":1}"#;
    let depth = 100_000;
    let deep = format!("{}{leaf}{}", "{\"left_child\":".repeat(depth), "}".repeat(depth));
    let dump = |tree: &str, leaves: &str| {
        format!(
            r#"{{"name":"tree","num_class":1,"num_tree_per_iteration":1,"max_feature_idx":0,
            "feature_names":["a"],"tree_info":[{{"num_leaves":{leaves},"tree_structure":{tree}}}]}}"#
        )
    };
    let error = booster_from_text(&dump(&deep, "2")).expect_err("too deep");
    assert!(error.to_string().contains("can be read from the text model"), "{error}");
    assert!(booster_from_text(&dump(leaf, "1")).is_ok());
    let error = booster_from_text(&dump(leaf, "4000000000")).expect_err("too many leaves");
    assert!(error.to_string().contains("tree_info[0].num_leaves: 4000000000 leaves"), "{error}");
    // A chain of nodes, as deep as it has nodes, is fine in the text form.
    let nodes = 100_000;
    let join = |item: &dyn Fn(i64) -> i64| {
        (0..nodes).map(|node| item(node).to_string()).collect::<Vec<_>>().join(" ")
    };
    let chain = model_with(&[
        ("num_leaves", &(nodes + 1).to_string()),
        ("num_cat", "0"),
        ("split_feature", &join(&|_| 0)),
        ("threshold", &join(&|node| node)),
        ("decision_type", &join(&|_| 2)),
        ("left_child", &join(&|node| -node - 1)),
        ("right_child", &join(&|node| if node + 1 < nodes { node + 1 } else { -nodes - 1 })),
        ("leaf_value", &format!("{} 7", join(&|node| node))),
    ]);
    let booster = booster_from_text(&chain).expect("a chain is a tree");
    assert_eq!(booster.trees(), 1);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

fn answer(
    model: &dyn Model,
    columns: &[(&str, serde_json::Value)],
) -> Result<Vec<f64>, PredictError> {
    let mut inputs = TensorMap::default();
    columns.iter().for_each(|(name, column)| inputs.insert(*name, common::tensor(column)));
    let frame = columns.iter().all(|(name, _)| *name != "x");
    let outputs = model.predict(&Request { inputs, frame, methods: Vec::new() })?;
    Ok(outputs.get("output-0").and_then(|tensor| tensor.to_f64()).expect("numbers"))
}

#[test]
fn requests_that_do_not_fit_name_the_input() {
    let iris = common::model(&file("iris-470.txt"));
    let narrow = json!({"dtype": "FP64", "shape": [1, 3], "data": [1.0, 2.0, 3.0]});
    let error = answer(iris.as_ref(), &[("x", narrow)]).expect_err("too narrow");
    let wanted = "input x: The number of features in data (3) is not the same as it was in training \
                  data (4).";
    assert_eq!(error.to_string(), wanted);

    let frame = common::model(&file("frame-470.txt"));
    let one = |value: f64| json!({"dtype": "FP64", "shape": [1], "data": [value]});
    let red = json!({"dtype": "BYTES", "shape": [1], "data": ["red"]});
    let full = vec![
        ("weight", one(0.5)),
        ("grade", one(20.0)),
        ("flag", json!({"dtype": "BOOL", "shape": [1], "data": [true]})),
        ("colour", red.clone()),
        ("size_of_it", one(0.1)),
    ];
    let expected = answer(frame.as_ref(), &full).expect("names with `_` for spaces fit");
    let mut spaced = full.clone();
    spaced[4].0 = "size of it";
    assert_eq!(answer(frame.as_ref(), &spaced), Ok(expected));
    let error = answer(frame.as_ref(), &full[..3]).expect_err("columns are missing");
    let wanted = "input colour: columns are missing: colour, size_of_it";
    assert_eq!(error.to_string(), wanted);
    let mut texts = full.clone();
    texts[0].1 = red;
    let error = answer(frame.as_ref(), &texts).expect_err("texts where numbers belong");
    assert!(error.to_string().contains("input weight: expected numbers, found texts"), "{error}");
}

#[test]
fn line_ends_of_windows_are_read() {
    let unix = text("iris-470.txt");
    let windows = unix.replace('\n', "\r\n");
    let trees = |text: &str| booster_from_text(text).expect("loads").trees();
    assert_eq!(trees(&windows), trees(&unix));
}

#[test]
fn a_file_of_many_lines_or_trees_is_refused_at_once() {
    let started = Instant::now();
    for (line, wanted) in
        [("a\n", "more than 256 lines"), ("Tree=\n", "Tree=0.leaf_value: is missing")]
    {
        let text = format!("tree\n{}", line.repeat(4 << 20));
        let error = booster_from_text(&text).expect_err("no model").to_string();
        assert!(error.contains(wanted), "{error}");
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}
