//! The Jinja2 environment of `transformers`' chat templates, with Python's notion of values.

use std::fmt;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value};

use super::{json, methods, time};

/// Work one rendering may do: about one unit per instruction and per 64 bytes of text. The longest chats
/// in use take some hundred thousands; memory is bounded by 64 bytes per unit.
const FUEL: u64 = 4_000_000;
/// Levels of blocks and macros.
const RECURSION: usize = 200;

/// The argument of a template's `raise_exception`.
#[derive(Debug)]
pub(super) struct Raised(pub(super) String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// An environment without templates.
pub(super) fn new() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_debug(false);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(RECURSION);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the default delimiters are valid"));
    environment.set_formatter(print);
    environment.set_unknown_method_callback(methods::call);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment.add_filter("tojson", tojson_filter);
    environment.add_test("sequence", is_sequence);
    environment.add_test("iterable", is_iterable);
    environment.add_test("integer", is_integer);
    environment.add_test("callable", is_callable);
    environment
}

/// Prints as Python's `str` does.
fn print(out: &mut Output, _state: &mut State, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(()),
        ValueKind::Number if !value.is_integer() => {
            let float = f64::try_from(value.clone()).unwrap_or(f64::NAN);
            let text = match float {
                f if f.is_nan() => "nan".to_owned(),
                f if f.is_infinite() => if f > 0.0 { "inf" } else { "-inf" }.to_owned(),
                f => json::float_text(f),
            };
            out.write_str(&text).map_err(Error::from)
        }
        _ => write!(out, "{value}").map_err(Error::from),
    }
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, "raised by the template")
        .with_source(Raised(message)))
}

fn strftime_now(format: String) -> String {
    time::strftime(&format, time::now())
}

fn tojson_filter(
    state: &mut State,
    args: minijinja::value::Rest<Value>,
) -> Result<Value, Error> {
    json::tojson(state, &args)
}

/// What has a length and an index, strings and dicts among them.
fn is_sequence(value: &Value) -> bool {
    matches!(
        value.kind(),
        ValueKind::Seq | ValueKind::String | ValueKind::Map | ValueKind::Undefined
    )
}

fn is_iterable(value: &Value) -> bool {
    matches!(
        value.kind(),
        ValueKind::Seq
            | ValueKind::Iterable
            | ValueKind::String
            | ValueKind::Map
            | ValueKind::Undefined
    )
}

fn is_integer(value: &Value) -> bool {
    value.kind() == ValueKind::Number && value.is_integer()
}

fn is_callable(value: &Value) -> bool {
    value.kind() == ValueKind::Plain && value.as_object().is_some()
}
