//! Preprocessing steps, text vectorisers and pipelines: cases that scikit-learn 1.1 to 1.9 saved and answered.

mod common;

#[test]
fn steps_answer_as_the_library() {
    common::run("sklearn_prep");
}
