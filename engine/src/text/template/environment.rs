//! The Jinja2 environment of `transformers`' chat templates, with Python's notion of values.
//!
//! The budget bounds output, strings and loops. It does not cover what the engine itself (minijinja 3.1.0) does
//! with a list that is short to build and long to read, as `[1] * 99999999999`, or `x = [x, x]` again and again:
//! `~`, `join`, comparisons and some of its error texts read all of it before they pay. Nothing here can come
//! between; printing, `string` and `tojson` are ours and do pay. Delete this note when the engine charges for the
//! items of lists in `string_concat`, `Value::eq` and `join`.

use std::fmt;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value,
};

use super::arguments::Arguments;
use super::{json, methods, python_text, time};

/// Work one rendering may do: about one unit per instruction and per 64 bytes of text. The longest chats
/// in use take some hundred thousands; memory is bounded by 64 bytes per unit.
const FUEL: u64 = 2_000_000;
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
    environment.add_filter("string", string_filter);
    environment.add_test("sequence", is_sequence);
    environment.add_test("iterable", is_iterable);
    environment.add_test("integer", is_integer);
    environment.add_test("callable", is_callable);
    environment
}

/// Prints as Python's `str` does.
fn print(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => out.write_str(text).map_err(Error::from),
        None => out.write_str(&to_str(state, value)?).map_err(Error::from),
    }
}

/// `str(value)`.
fn to_str(state: &State, value: &Value) -> Result<String, Error> {
    let mut text = String::new();
    python_text::write_str(state, value, &mut text)?;
    Ok(text)
}

/// The `string` filter.
fn string_filter(state: &mut State, value: &Value) -> Result<String, Error> {
    to_str(state, value)
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, "raised by the template")
        .with_source(Raised(message)))
}

fn strftime_now(format: String) -> String {
    time::strftime(&format, time::now())
}

fn tojson_filter(state: &mut State, args: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    json::tojson(state, Arguments::from_parts("tojson", &args, named))
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
