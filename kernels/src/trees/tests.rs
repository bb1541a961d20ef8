//! What is refused, what each rule of a test means, and that every layout answers as the reference does.

use super::lanes::KERNELS;
use super::layouts::Layout;
use super::*;
use crate::testing::bits;

fn split(feature: u32, test: Test, left: Child, right: Child) -> Split {
    Split { feature, test, missing_left: true, left, right }
}

/// One split, two leaves 1 and 2, summed in single precision from 0.5.
fn stump(test: Test) -> Ensemble {
    Ensemble {
        features: 2,
        outputs: 1,
        vector_leaves: false,
        input: Precision::Single,
        sum: Precision::Single,
        base: vec![0.5],
        trees: vec![Tree {
            splits: vec![split(1, test, Child::Leaf(0), Child::Leaf(1))],
            leaves: vec![1.0, 2.0],
            output: 0,
        }],
    }
}

/// Which values of the stump's feature go left.
fn left(test: Test, values: &[f64]) -> Vec<bool> {
    let forest = Forest::new(&stump(test)).unwrap();
    let rows: Vec<f64> = values.iter().flat_map(|&value| [0.0, value]).collect();
    let mut leaves = vec![9; values.len()];
    forest.leaves(Rows::F64(&rows), &mut leaves);
    let mut sums = vec![f32::NAN; values.len()];
    forest.sums(Rows::F64(&rows), Sums::F32(&mut sums));
    for (&leaf, &sum) in leaves.iter().zip(&sums) {
        assert_eq!(sum, if leaf == 0 { 1.5 } else { 2.5 });
    }
    leaves.iter().map(|&leaf| leaf == 0).collect()
}

#[test]
fn at_most_compares_in_the_precision_of_the_input() {
    // 0.1 and its neighbour above round to the same single; the threshold is between two singles.
    let values = [0.1, 0.100000001, 0.2, f64::NAN, f64::NEG_INFINITY, f64::INFINITY, -0.0];
    assert_eq!(left(Test::AtMost(0.1), &values), [false, false, false, true, true, false, true]);
    assert_eq!(left(Test::AtMost(0.0), &[0.0, -0.0, 1e-45]), [true, true, false]);
    assert_eq!(left(Test::AtMost(-0.0), &[0.0, -0.0, 1e-45]), [true, true, false]);
    assert_eq!(left(Test::AtMost(f64::INFINITY), &[f64::INFINITY, 1.0]), [true, true]);
}

#[test]
fn zero_is_missing_where_the_test_says_so() {
    let values = [0.0, -1e-36, 1e-35, 2e-35, -1.0, -2.0];
    let test = Test::AtMostZeroMissing(-1.5);
    assert_eq!(left(test, &values), [true, true, true, false, false, true]);
}

#[test]
fn categories_are_sets() {
    let mut set = CategorySplit {
        left: vec![0b101],
        right: vec![0b010, 1],
        other_left: true,
        truncates_negative: true,
    };
    let values = [0.0, 1.0, 2.9, 3.0, 32.0, 64.0, -0.5, -1.0, 1e300, f64::NAN];
    let got = left(Test::Category(Box::new(set.clone())), &values);
    assert_eq!(got, [true, false, true, true, false, true, true, true, true, true]);
    set.other_left = false;
    let got = left(Test::Category(Box::new(set.clone())), &values);
    assert_eq!(got, [true, false, true, false, false, false, true, false, false, true]);
    set.truncates_negative = false;
    assert_eq!(left(Test::Category(Box::new(set)), &[-0.5, -0.0]), [false, true]);
}

#[test]
fn broken_trees_are_refused_by_name() {
    let check = |change: &dyn Fn(&mut Ensemble), reason: &str| {
        let mut ensemble = stump(Test::AtMost(0.0));
        change(&mut ensemble);
        assert_eq!(Forest::new(&ensemble).unwrap_err().to_string(), reason);
    };
    check(&|e| e.trees[0].splits[0].feature = 2, "tree 0: node 0: feature 2 of 2");
    check(&|e| e.trees[0].output = 1, "tree 0: output 1 of 1");
    check(&|e| e.trees[0].splits[0].left = Child::Leaf(2), "tree 0: node 0: leaf 2 of 2");
    check(&|e| e.trees[0].splits[0].left = Child::Node(1), "tree 0: node 0: node 1 of 1");
    check(
        &|e| e.trees[0].splits[0].left = Child::Node(0),
        "tree 0: node 0: node 0 is not behind its parent",
    );
    check(
        &|e| e.trees[0].splits[0].left = Child::Leaf(1),
        "tree 0: node 0: Leaf(1) is reached twice",
    );
    check(
        &|e| e.trees[0].splits[0].test = Test::AtMost(f64::NAN),
        "tree 0: node 0: the threshold is NaN",
    );
    check(
        &|e| e.trees[0].leaves.push(1.0),
        "tree 0: 2 leaves of 1 numbers are expected, 3 numbers found",
    );
    check(&|e| e.base.clear(), "tree 0: sums start from 0 numbers, but there are 1 outputs");
}

#[test]
fn a_forest_without_trees_or_features_answers_its_base() {
    let mut ensemble = stump(Test::AtMost(0.0));
    (ensemble.features, ensemble.trees) = (0, Vec::new());
    let forest = Forest::new(&ensemble).unwrap();
    let mut sums = [f32::NAN; 3];
    forest.sums(Rows::F32(&[]), Sums::F32(&mut sums));
    assert_eq!(sums, [0.5; 3]);
    forest.leaves(Rows::F32(&[]), &mut []);
}

/// A stream of seeded words.
struct Words(std::vec::IntoIter<u64>);

impl Words {
    fn new(seed: u64) -> Self {
        Words(bits(seed, 300_000).into_iter())
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.0.next().unwrap() >> 16) as usize % bound
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }

    /// Mostly ordinary numbers, often equal ones, sometimes the ends and edges.
    fn value(&mut self) -> f64 {
        const EDGES: [f64; 14] = [
            0.0,
            -0.0,
            1e-35,
            1.0000000180025095e-35,
            -1e-36,
            0.1,
            0.10000000149011612,
            f64::INFINITY,
            f64::NEG_INFINITY,
            1e300,
            -1e300,
            f32::MAX as f64,
            1e-45,
            5e-324,
        ];
        match self.below(4) {
            0 => EDGES[self.below(EDGES.len())],
            1 => self.below(70) as f64 - 2.0,
            _ => (self.below(4000) as f64 - 2000.0) / 700.0,
        }
    }
}

/// What a random ensemble is like.
#[derive(Clone, Copy, Debug)]
struct Shape {
    features: usize,
    outputs: usize,
    vector_leaves: bool,
    input: Precision,
    sum: Precision,
    trees: usize,
    max_splits: usize,
    categories: bool,
}

fn random_tree(words: &mut Words, shape: Shape) -> Tree {
    let count = if words.below(6) == 0 { 0 } else { words.below(shape.max_splits + 1) };
    let mut splits: Vec<Split> = Vec::new();
    let mut open: Vec<(usize, bool)> = Vec::new();
    for index in 0..count {
        if index > 0 {
            let at = words.below(open.len());
            let (parent, left) = open.swap_remove(at);
            let child = Child::Node(index as u32);
            if left { splits[parent].left = child } else { splits[parent].right = child }
        }
        let test = match words.below(4) {
            0 => Test::AtMostZeroMissing(words.value()),
            1 if shape.categories => Test::Category(Box::new(CategorySplit {
                left: (0..words.below(3)).map(|_| words.below(1 << 32) as u32).collect(),
                right: (0..words.below(3)).map(|_| words.below(1 << 32) as u32).collect(),
                other_left: words.coin(),
                truncates_negative: words.coin(),
            })),
            _ => Test::AtMost(words.value()),
        };
        let (feature, missing_left) = (words.below(shape.features) as u32, words.coin());
        splits.push(Split {
            feature,
            test,
            missing_left,
            left: Child::Leaf(0),
            right: Child::Leaf(0),
        });
        open.extend([(index, true), (index, false)]);
    }
    let leaves = count + 1;
    let mut number = 0;
    while !open.is_empty() {
        let at = words.below(open.len());
        let (parent, left) = open.swap_remove(at);
        let child = Child::Leaf(number);
        if left {
            splits[parent].left = child
        } else {
            splits[parent].right = child
        }
        number += 1;
    }
    let width = if shape.vector_leaves { shape.outputs } else { 1 };
    let values = (0..leaves * width).map(|_| words.below(1 << 30) as f64 / 1e7 - 50.0).collect();
    Tree { splits, leaves: values, output: words.below(shape.outputs) as u32 }
}

fn random_ensemble(words: &mut Words, shape: Shape) -> Ensemble {
    let trees = (0..shape.trees).map(|_| random_tree(words, shape)).collect();
    let base = (0..shape.outputs).map(|output| output as f64 * 0.3 - 0.1).collect();
    let Shape { features, outputs, vector_leaves, input, sum, .. } = shape;
    Ensemble { features, outputs, vector_leaves, input, sum, base, trees }
}

fn random_forest(words: &mut Words, shape: Shape) -> Forest {
    Forest::new(&random_ensemble(words, shape)).unwrap()
}

/// Every layout and instruction set answers as the reference does, to the bit.
fn check_layouts(label: &str, forest: &Forest, rows: Rows<'_>, count: usize) {
    let answer = |path| {
        let mut leaves = vec![u32::MAX; count * forest.trees()];
        if !leaves.is_empty() {
            forest.layouts.leaves(&forest.reference, path, rows, &mut leaves);
        }
        let sums: Vec<u64> = match forest.sum() {
            Precision::Single => {
                let mut sums = vec![f32::NAN; count * forest.outputs()];
                forest.layouts.sums(&forest.reference, path, rows, Sums::F32(&mut sums));
                sums.into_iter().map(|sum| sum.to_bits().into()).collect()
            }
            Precision::Double => {
                let mut sums = vec![f64::NAN; count * forest.outputs()];
                forest.layouts.sums(&forest.reference, path, rows, Sums::F64(&mut sums));
                sums.into_iter().map(f64::to_bits).collect()
            }
        };
        (leaves, sums)
    };
    let want = answer(Path::Only(Layout::Reference, &KERNELS[0].run));
    assert_eq!(answer(Path::Fastest), want, "{label}, as chosen");
    for kernels in KERNELS.iter().filter(|kernels| kernels.isa.is_supported()) {
        for layout in [Layout::Walk, Layout::Jumps, Layout::Lanes] {
            let got = answer(Path::Only(layout, &kernels.run));
            assert_eq!(got, want, "{label}, {layout:?} {}", kernels.name);
        }
    }
}

#[test]
fn every_layout_answers_as_the_reference() {
    let precisions = [Precision::Single, Precision::Double];
    for seed in 0..60 {
        let mut words = Words::new(seed);
        let shape = Shape {
            features: 1 + words.below(40),
            outputs: 1 + words.below(3) * words.below(3),
            vector_leaves: words.below(3) == 0,
            input: precisions[words.below(2)],
            sum: precisions[words.below(2)],
            trees: words.below(40),
            max_splits: [1, 6, 63, 64, 255, 300, 700][words.below(7)],
            categories: words.coin(),
        };
        let forest = random_forest(&mut words, shape);
        for count in [0, 1, 7, 8, 9, 63, 64, 65, 80, 129, 300] {
            let values: Vec<f64> = (0..count * shape.features)
                .map(|_| if words.below(9) == 0 { f64::NAN } else { words.value() })
                .collect();
            let label = format!("seed {seed}, {count} rows, {shape:?}");
            check_layouts(&label, &forest, Rows::F64(&values), count);
            let singles: Vec<f32> = values.iter().map(|&value| value as f32).collect();
            check_layouts(&label, &forest, Rows::F32(&singles), count);
        }
    }
}

#[test]
fn small_trees_are_evaluated_whole_and_large_ones_walked() {
    let mut words = Words::new(7);
    let mut shape = Shape {
        features: 2,
        outputs: 1,
        vector_leaves: false,
        input: Precision::Single,
        sum: Precision::Double,
        trees: 60,
        max_splits: 255,
        categories: false,
    };
    // More than 255 thresholds a feature: several columns of ranks.
    let forest = random_forest(&mut words, shape);
    assert!(forest.layouts.has(Layout::Lanes) && forest.layouts.has(Layout::Walk));
    let values: Vec<f64> = (0..2 * 5000).map(|_| words.value()).collect();
    check_layouts("many thresholds", &forest, Rows::F64(&values), 5000);
    (shape.max_splits, shape.trees) = (3000, 9);
    let forest = random_forest(&mut words, shape);
    assert!(!forest.layouts.has(Layout::Lanes) && forest.layouts.has(Layout::Walk));
    check_layouts("deep", &forest, Rows::F64(&values), 5000);
}

#[test]
fn missing_values_that_go_as_a_number_take_no_column_of_their_own() {
    let mut words = Words::new(13);
    for (input, swap) in
        [(Precision::Single, false), (Precision::Double, false), (Precision::Double, true)]
    {
        let shape = Shape {
            features: 3,
            outputs: 1,
            vector_leaves: false,
            input,
            sum: Precision::Double,
            trees: 30,
            max_splits: 60,
            categories: false,
        };
        let mut ensemble = random_ensemble(&mut words, shape);
        for split in ensemble.trees.iter_mut().flat_map(|tree| &mut tree.splits) {
            if let Test::AtMost(threshold) | Test::AtMostZeroMissing(threshold) = split.test {
                split.missing_left = (threshold >= 0.5) != swap;
            }
        }
        let forest = Forest::new(&ensemble).unwrap();
        // Numbers, and numbers of which those near zero are missing; on both sides where nothing can stand for them.
        assert_eq!(forest.layouts.columns(), if swap { 12 } else { 6 });
        let values: Vec<f64> = (0..3 * 300)
            .map(|_| if words.below(3) == 0 { f64::NAN } else { words.value() })
            .collect();
        check_layouts(&format!("{input:?}, {swap}"), &forest, Rows::F64(&values), 300);
    }
}

#[test]
fn jumps_take_one_or_two_vectors_of_nodes_and_of_columns() {
    let mut words = Words::new(11);
    for (max_splits, features) in [(64, 9), (64, 14), (64, 30), (128, 6), (128, 14), (128, 30)] {
        let shape = Shape {
            features,
            outputs: 1,
            vector_leaves: false,
            input: Precision::Double,
            sum: Precision::Double,
            trees: 70,
            max_splits,
            categories: false,
        };
        let forest = random_forest(&mut words, shape);
        assert!(forest.layouts.has(Layout::Jumps), "{max_splits} splits, {features} features");
        for count in [1, 2, 6, 7, 16, 17, 31, 33, 70] {
            let values: Vec<f64> = (0..features * count).map(|_| words.value()).collect();
            check_layouts(&format!("{count} rows, {shape:?}"), &forest, Rows::F64(&values), count);
        }
    }
}
