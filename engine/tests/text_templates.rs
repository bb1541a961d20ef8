//! Chat templates against `transformers` with the real Jinja2 (`xtask/fixtures/templates.py`).

use serde_json::{Map, Value};
use tokenmill_engine::text::{ChatTemplate, ContentFormat, TemplateError};

const FIXTURE: &str = include_str!("fixtures/text/templates.json");

fn fixture() -> Value {
    serde_json::from_str(FIXTURE).expect("the fixture is JSON")
}

fn render(fixture: &Value, case: &Value) -> Result<String, TemplateError> {
    let source = fixture["templates"][case["template"].as_str().expect("a name")]
        .as_str()
        .expect("a source");
    let template = ChatTemplate::compile(source, "<s>", "</s>")?;
    let mut kwargs: Map<String, Value> = case["kwargs"].as_object().expect("an object").clone();
    kwargs.insert("v".to_owned(), fixture["v"].clone());
    template.render(
        &case["messages"],
        Some(&case["tools"]).filter(|v| !v.is_null()),
        Some(&case["documents"]).filter(|v| !v.is_null()),
        case["add_generation_prompt"].as_bool().expect("a flag"),
        case["continue_final_message"].as_bool().expect("a flag"),
        &kwargs,
    )
}

/// The reference raised an error of its own kind: its words must be ours where the template chose them.
fn error_matches(expected: &str, error: &TemplateError) -> bool {
    match (expected.strip_prefix("TemplateError: "), error) {
        (Some(words), TemplateError::Raised(message)) => words == message,
        (Some(_), _) | (None, TemplateError::Raised(_) | TemplateError::Compile(_)) => false,
        (None, _) => true,
    }
}

#[test]
fn every_template_renders_as_the_reference_does() {
    let fixture = fixture();
    let cases = fixture["cases"].as_array().unwrap();
    assert!(cases.len() > 300, "{} cases", cases.len());
    let mut failures = Vec::new();
    for case in cases {
        let (name, expected) = (&case["name"], case["expected"].as_str());
        match (render(&fixture, case), expected) {
            (Ok(text), Some(expected)) if text == expected => {}
            (Err(error), None) if error_matches(case["error"].as_str().unwrap(), &error) => {}
            (result, _) => {
                let expected = expected.map_or_else(|| case["error"].to_string(), str::to_owned);
                let source = &fixture["templates"][case["template"].as_str().unwrap()];
                let shown: String = source.to_string().chars().take(300).collect();
                failures
                    .push(format!("{name}\n{shown}\n  expected {expected:?}\n  got {result:?}"));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n\n"));
}

#[test]
fn content_formats_of_the_styles() {
    let fixture = fixture();
    for (name, source) in fixture["templates"].as_object().unwrap() {
        if name.starts_with("expression") {
            continue;
        }
        let template = ChatTemplate::compile(source.as_str().unwrap(), "<s>", "</s>").unwrap();
        let expected = if name == "parts" { ContentFormat::OpenAi } else { ContentFormat::String };
        assert_eq!(template.content_format(), expected, "{name}");
    }
}
