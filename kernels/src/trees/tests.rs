//! What is refused, what each rule of a test means, and that every layout answers as the reference does.

use super::*;

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
    let got = left(Test::Category(set.clone()), &values);
    assert_eq!(got, [true, false, true, true, false, true, true, true, true, true]);
    set.other_left = false;
    let got = left(Test::Category(set.clone()), &values);
    assert_eq!(got, [true, false, true, false, false, false, true, false, false, true]);
    set.truncates_negative = false;
    assert_eq!(left(Test::Category(set), &[-0.5, -0.0]), [false, true]);
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
