//! Classic models of scikit-learn other than trees against the library's own answers.

mod common;

#[test]
fn every_case_answers_as_the_library() {
    common::run("sklearn_models");
}
