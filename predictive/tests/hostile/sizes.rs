//! Large models of every tree format, as the libraries lay them out and as small as their nodes can be written: loading
//! holds at most four times the file plus 64 MiB, the file itself included, or says that the model is too large for it.

use std::fmt::Write;

use crate::FLOOR;
use crate::cuts::is_full;
use crate::files::Reader;
use crate::memory;

/// Bytes of each file, about; where all is tried so many that 64 MiB do not hide what a node takes.
fn length() -> usize {
    if is_full() { 24 << 20 } else { 6 << 20 }
}

/// A complete tree of `nodes` nodes in the order of XGBoost: the children of `n` are `2n + 1` and `2n + 2`.
struct Complete {
    nodes: usize,
}

impl Complete {
    fn left(&self, node: usize) -> i32 {
        if 2 * node + 1 < self.nodes { 2 * node as i32 + 1 } else { -1 }
    }

    fn right(&self, node: usize) -> i32 {
        if self.left(node) == -1 { -1 } else { 2 * node as i32 + 2 }
    }

    /// The values of a number of each node, with commas.
    fn list(&self, of: impl Fn(usize) -> String) -> String {
        (0..self.nodes).map(of).collect::<Vec<_>>().join(",")
    }
}

/// The document around trees, in JSON.
fn xgboost_json(trees: usize, tree: &str) -> Vec<u8> {
    let info = vec!["0"; trees].join(",");
    let trees = vec![tree; trees].join(",");
    format!(
        "{{\"learner\":{{\"gradient_booster\":{{\"model\":{{\"gbtree_model_param\":{{\"num_parallel_tree\":\"1\"}},\
         \"tree_info\":[{info}],\"trees\":[{trees}]}},\"name\":\"gbtree\"}},\"learner_model_param\":\
         {{\"base_score\":\"5E-1\",\"num_class\":\"0\",\"num_feature\":\"100\"}},\
         \"objective\":{{\"name\":\"reg:squarederror\"}}}},\"version\":[3,2,0]}}"
    )
    .into_bytes()
}

/// A tree of JSON; `full` has all the arrays that the library writes.
fn json_tree(nodes: usize, full: bool) -> String {
    let tree = Complete { nodes };
    let mut fields = vec![
        ("left_children", tree.list(|node| tree.left(node).to_string())),
        ("right_children", tree.list(|node| tree.right(node).to_string())),
        ("split_indices", tree.list(|node| (node * full as usize % 100).to_string())),
        ("default_left", tree.list(|_| "0".into())),
    ];
    match full {
        false => fields.push(("split_conditions", tree.list(|_| "0".into()))),
        true => {
            for name in ["split_conditions", "base_weights", "loss_changes", "sum_hessian"] {
                fields.push((name, tree.list(|node| format!("{:E}", node as f32 * 0.12345))));
            }
            fields.push(("parents", tree.list(|node| (node.max(1) / 2).to_string())));
            fields.push(("split_type", tree.list(|_| "0".into())));
        }
    }
    let fields: Vec<String> =
        fields.iter().map(|(name, list)| format!("\"{name}\":[{list}]")).collect();
    let param = format!("\"num_nodes\":\"{nodes}\",\"size_leaf_vector\":\"1\"");
    format!("{{\"tree_param\":{{{param}}},{}}}", fields.join(","))
}

fn key(name: &str) -> Vec<u8> {
    [b"L".as_slice(), &(name.len() as u64).to_be_bytes(), name.as_bytes()].concat()
}

fn object(fields: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let fields = fields.iter().flat_map(|(name, value)| [key(name), value.clone()]);
    [b"{".to_vec(), fields.collect::<Vec<_>>().concat(), b"}".to_vec()].concat()
}

fn text(text: &str) -> Vec<u8> {
    [b"S".to_vec(), key(text)].concat()
}

fn typed(marker: u8, count: usize, items: &[u8]) -> Vec<u8> {
    [b"[$", &[marker][..], b"#L", &(count as u64).to_be_bytes(), items].concat()
}

/// A tree of UBJSON; the small one has numbers of one byte.
fn ubjson_tree(nodes: usize, full: bool) -> Vec<u8> {
    let tree = Complete { nodes };
    let ints = |of: &dyn Fn(usize) -> i32| match full {
        true => {
            typed(b'l', nodes, &(0..nodes).flat_map(|n| of(n).to_be_bytes()).collect::<Vec<_>>())
        }
        false => typed(b'i', nodes, &(0..nodes).map(|n| of(n) as u8).collect::<Vec<_>>()),
    };
    let bytes = typed(b'U', nodes, &vec![0; nodes]);
    let floats = || {
        let all: Vec<u8> = (0..nodes).flat_map(|n| (n as f32 * 0.12345).to_be_bytes()).collect();
        typed(b'd', nodes, &all)
    };
    let mut fields = vec![
        ("left_children", ints(&|node| tree.left(node))),
        ("right_children", ints(&|node| tree.right(node))),
        ("split_indices", ints(&|node| (node % 100) as i32)),
        ("default_left", bytes.clone()),
        ("split_conditions", if full { floats() } else { bytes.clone() }),
    ];
    if full {
        for name in ["base_weights", "loss_changes", "sum_hessian"] {
            fields.push((name, floats()));
        }
        fields.push(("parents", ints(&|node| node as i32 / 2)));
        fields.push(("split_type", bytes));
    }
    let param = [("num_nodes", text(&nodes.to_string())), ("size_leaf_vector", text("1"))];
    fields.push(("tree_param", object(&param)));
    object(&fields)
}

fn xgboost_ubjson(trees: usize, tree: &[u8]) -> Vec<u8> {
    let count =
        |items: Vec<u8>| [b"[#L".as_slice(), &(trees as u64).to_be_bytes(), &items].concat();
    let model = object(&[
        ("tree_info", typed(b'i', trees, &vec![0; trees])),
        ("trees", count(tree.repeat(trees))),
    ]);
    let booster = object(&[("model", model), ("name", text("gbtree"))]);
    let param = object(&[
        ("base_score", text("5E-1")),
        ("num_class", text("0")),
        ("num_feature", text("100")),
    ]);
    let objective = object(&[("name", text("reg:squarederror"))]);
    let learner = object(&[
        ("gradient_booster", booster),
        ("learner_model_param", param),
        ("objective", objective),
    ]);
    object(&[("learner", learner)])
}

/// The binary layout has one way to write a node.
fn xgboost_binary(trees: usize, nodes: usize) -> Vec<u8> {
    let tree = Complete { nodes };
    let words =
        |words: &[i32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let padded = |mut bytes: Vec<u8>, length: usize| {
        bytes.resize(length, 0);
        bytes
    };
    let name = |name: &str| [&(name.len() as u64).to_le_bytes(), name.as_bytes()].concat();
    let records = (0..nodes).flat_map(|node| {
        let value = (node as f32 * 0.12345).to_bits() as i32;
        words(&[node as i32 / 2, tree.left(node), tree.right(node), node as i32 % 100, value])
    });
    let tree =
        [padded(words(&[1, nodes as i32]), 148), records.collect(), vec![0; 16 * nodes]].concat();
    let learner = [&0.5f32.to_le_bytes()[..], &words(&[100, 0, 0, 0, 1, 7, 1])].concat();
    [
        b"binf".to_vec(),
        padded(learner, 136),
        name("reg:squarederror"),
        name("gbtree"),
        padded(words(&[trees as i32, 1]), 160),
        tree.repeat(trees),
        words(&vec![0; trees]),
    ]
    .concat()
}

const LIGHTGBM: &str = "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nmax_feature_idx=0\n\
                        objective=regression\nfeature_names=a\nfeature_infos=[0:1]\n\n";

/// A chain of `splits` nodes; `full` has the lines that the library writes.
fn lightgbm_text(trees: usize, splits: usize, full: bool) -> Vec<u8> {
    let list = |count: usize, of: &dyn Fn(usize) -> String| {
        (0..count).map(of).collect::<Vec<_>>().join(" ")
    };
    let value = |n: usize| if full { format!("{:?}", n as f64 * 0.123456789) } else { "0".into() };
    let count = |n: usize| n.to_string();
    let right =
        |n: usize| if n + 1 < splits { (n + 1).to_string() } else { format!("-{}", splits + 1) };
    let mut tree = format!("num_leaves={}\nnum_cat=0\n", splits + 1);
    let mut line = |name: &str, list: String| writeln!(tree, "{name}={list}").expect("memory");
    line("split_feature", list(splits, &|_| "0".into()));
    line("threshold", list(splits, &value));
    line("decision_type", list(splits, &|_| "2".into()));
    line("left_child", list(splits, &|n| format!("-{}", n + 1)));
    line("right_child", list(splits, &right));
    line("leaf_value", list(splits + 1, &value));
    if full {
        line("split_gain", list(splits, &value));
        line("leaf_weight", list(splits + 1, &value));
        line("leaf_count", list(splits + 1, &count));
        line("internal_value", list(splits, &value));
        line("internal_weight", list(splits, &value));
        line("internal_count", list(splits, &count));
    }
    line("shrinkage", "1".into());
    let trees = (0..trees).map(|index| format!("Tree={index}\n{tree}\n\n"));
    format!("{LIGHTGBM}{}end of trees\n", trees.collect::<String>()).into_bytes()
}

/// Trees of a chain of `splits` nodes as the library's dump has them, or with what is needed only.
fn lightgbm_json(trees: usize, splits: usize, full: bool) -> Vec<u8> {
    let mut tree = String::new();
    for node in 0..splits {
        let facts = if full {
            "\"split_gain\":0.1234567,\"internal_value\":0.1234567,\"internal_weight\":12.34567,\
             \"internal_count\":1234,"
        } else {
            ""
        };
        let leaf = if full { ",\"leaf_weight\":12.34567,\"leaf_count\":1234" } else { "" };
        write!(
            tree,
            "{{\"split_index\":{node},\"split_feature\":0,{facts}\"threshold\":{node},\
             \"decision_type\":\"<=\",\"default_left\":true,\"missing_type\":\"None\",\"left_child\":\
             {{\"leaf_index\":{node},\"leaf_value\":1{leaf}}},\"right_child\":"
        )
        .expect("memory");
    }
    write!(tree, "{{\"leaf_index\":{splits},\"leaf_value\":1}}{}", "}".repeat(splits))
        .expect("memory");
    let leaves = splits + 1;
    let trees: Vec<String> = (0..trees)
        .map(|index| {
            format!("{{\"tree_index\":{index},\"num_leaves\":{leaves},\"tree_structure\":{tree}}}")
        })
        .collect();
    format!(
        "{{\"name\":\"tree\",\"version\":\"v4\",\"num_class\":1,\"num_tree_per_iteration\":1,\
         \"max_feature_idx\":0,\"objective\":\"regression\",\"feature_names\":[\"a\"],\"tree_info\":[{}]}}",
        trees.join(",")
    )
    .into_bytes()
}

/// Makes as many trees as fill a file.
fn filled(make: impl Fn(usize) -> Vec<u8>) -> Vec<u8> {
    let (one, two) = (make(1).len(), make(2).len());
    make((length() - one) / (two - one))
}

#[test]
fn large_models_are_held_to_four_times_their_file() {
    type Make = fn() -> Vec<u8>;
    let files: [(&str, Reader, bool, Make); 9] = [
        ("XGBoost JSON", Reader::XgBoost, true, || {
            filled(|trees| xgboost_json(trees, &json_tree(4095, true)))
        }),
        ("small JSON", Reader::XgBoost, false, || {
            filled(|trees| xgboost_json(trees, &json_tree(31, false)))
        }),
        ("XGBoost UBJSON", Reader::XgBoost, true, || {
            filled(|trees| xgboost_ubjson(trees, &ubjson_tree(4095, true)))
        }),
        ("small UBJSON", Reader::XgBoost, false, || {
            filled(|trees| xgboost_ubjson(trees, &ubjson_tree(127, false)))
        }),
        ("XGBoost binary", Reader::XgBoost, true, || filled(|trees| xgboost_binary(trees, 4095))),
        ("LightGBM text", Reader::LightGbm, true, || {
            filled(|trees| lightgbm_text(trees, 1000, true))
        }),
        ("small text", Reader::LightGbm, false, || filled(|trees| lightgbm_text(trees, 9, false))),
        ("LightGBM JSON", Reader::LightGbm, true, || {
            filled(|trees| lightgbm_json(trees, 30, true))
        }),
        ("small dump", Reader::LightGbm, false, || filled(|trees| lightgbm_json(trees, 30, false))),
    ];
    for (name, reader, real, make) in files {
        let bytes = make();
        let (peak, result) = memory::peak(|| reader.read(&bytes));
        let (held, allowed) = (peak + bytes.len(), 4 * bytes.len() + FLOOR);
        println!("{name}: {} bytes, {held} held, allowed are {allowed}: {result:?}", bytes.len());
        assert!(held <= allowed, "{name}: {held} bytes are held, allowed are {allowed}");
        match result {
            Ok(()) => {}
            Err(fault) => {
                assert!(!real && fault.to_string().contains("more memory"), "{name}: {fault}");
            }
        }
    }
}
