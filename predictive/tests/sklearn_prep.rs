//! Preprocessing steps, text vectorisers and pipelines: cases that scikit-learn 1.1 to 1.9 saved and answered, and
//! what is refused of requests.

mod common;

use tokenmill_predictive::{Method, Request, Tensor, TensorMap};

#[test]
fn steps_answer_as_the_library() {
    common::run("sklearn_prep");
}

/// What `model` answers to named columns, or to one tensor named `x`.
fn ask(model: &str, columns: &[(&str, Tensor)]) -> Result<TensorMap, String> {
    let model = common::model(&common::fixtures().join("sklearn_prep").join(model));
    let mut inputs = TensorMap::default();
    columns.iter().for_each(|(name, tensor)| inputs.insert(*name, tensor.clone()));
    let frame = columns[0].0 != "x";
    let request = Request { inputs, frame, methods: vec![model.methods()[0]] };
    model.predict(&request).map_err(|error| error.to_string())
}

#[test]
fn models_say_whether_a_column_was_text_when_they_were_fitted() {
    for (name, wanted) in [
        ("19_onehot_array.pkl", true),
        ("19_ordinal.pkl", true),
        ("19_label.pkl", true),
        ("19_imputer_text_fill.pkl", true),
        ("19_columns_frame.pkl", true),
        ("19_pipeline_frame.pkl", true),
        ("19_onehot_numbers.pkl", false),
        ("19_imputer_mean.pkl", false),
        ("19_standard.pkl", false),
        ("19_pipeline_array.pkl", false),
    ] {
        let model = common::model(&common::fixtures().join("sklearn_prep").join(name));
        assert_eq!(model.signature().text_columns, wanted, "{name}");
    }
}

#[test]
fn rows_that_do_not_fit_are_refused_with_the_reason() {
    let text = |value: &str| Tensor::from_texts(vec![1], &[value]);
    let number = |value: f64| Tensor::from_values(vec![1], &[value]);
    let row = |values: &[f64]| Tensor::from_values(vec![1, values.len()], values);
    let check = |model: &str, columns: &[(&str, Tensor)], wanted: &str| {
        let error = ask(model, columns).expect_err(model);
        assert!(error.contains(wanted), "{model}: {error}");
    };
    let city = [("city", text("Paris")), ("size", number(1.0))];
    check("19_onehot.pkl", &city, "unknown categories [\"Paris\"] in column \"city\"");
    check("19_ordinal.pkl", &city, "unknown categories [\"Paris\"] in column \"city\"");
    check("19_onehot.pkl", &city[..1], "missing: size");
    check("19_pipeline_frame.pkl", &city, "columns are missing: age, note");
    check("19_standard.pkl", &[("x", row(&[1.0; 3]))], "3 features");
    check("19_standard.pkl", &[("x", row(&[f64::INFINITY; 4]))], "infinity");
    check("19_normalizer.pkl", &[("x", row(&[f64::NAN; 4]))], "NaN");
    check("19_indicator_all.pkl", &[("x", row(&[0.0; 5]))], "5 features");
    check("19_power_cox.pkl", &[("x", row(&[0.0; 4]))], "strictly positive");
    check("19_tfidf.pkl", &[("x", row(&[0.0; 4]))], "list of texts");
    check("19_dictionary.pkl", &[("x", row(&[0.0; 4]))], "named columns");
}

#[test]
fn columns_are_found_by_name_in_any_order() {
    let (age, size) = (Tensor::from_values(vec![1], &[40.0]), Tensor::from_values(vec![1], &[1.0]));
    let (city, note) =
        (Tensor::from_texts(vec![1], &["Oslo"]), Tensor::from_texts(vec![1], &["fox"]));
    let given = [("city", city), ("size", size), ("age", age), ("note", note)];
    let mut turned = given.clone();
    turned.reverse();
    let one = ask("19_pipeline_frame.pkl", &given).expect("the row fits");
    assert_eq!(one, ask("19_pipeline_frame.pkl", &turned).expect("the row fits"));
}

#[test]
fn a_pipeline_has_the_methods_of_its_last_step() {
    let model = common::model(&common::fixtures().join("sklearn_prep/19_pipeline_array.pkl"));
    assert!(model.methods().contains(&Method::PredictProba));
    assert!(!model.methods().contains(&Method::Transform));
    let kind = &model.description().kind;
    assert_eq!(kind, "Pipeline(StandardScaler, SelectKBest, LogisticRegression)");
}
