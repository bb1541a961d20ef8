//! Values as Python's `str` and `repr` write them.
//!
//! The engine's own text is nearly the same, but it is only paid for once it is complete, and a value that
//! contains itself over and over (`x = [x, x]`) has no end.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};

use super::json;

/// Deeper values are refused.
const MAX_DEPTH: usize = 200;
/// Fuel for one value, which is some bytes of text and some branches.
const FUEL_PER_VALUE: u64 = 4;

/// Appends `str(value)`; an undefined value has no text.
pub(super) fn write_str(state: &State, value: &Value, out: &mut String) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => {
            state.consume_fuel(text.len() as u64 / 64)?;
            out.push_str(text);
            Ok(())
        }
        None if value.is_undefined() => Ok(()),
        None => write_repr(state, value, 0, out),
    }
}

fn write_repr(state: &State, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
    state.consume_fuel(FUEL_PER_VALUE)?;
    if depth > MAX_DEPTH {
        let message = format!("a value is nested deeper than {MAX_DEPTH} levels");
        return Err(Error::new(ErrorKind::InvalidOperation, message));
    }
    match value.kind() {
        ValueKind::Number if !value.is_integer() => out.push_str(&float(value)),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            state.consume_fuel(text.len() as u64 / 64)?;
            quote(text, out);
        }
        ValueKind::Seq => list(state, value, depth, out)?,
        ValueKind::Map => dict(state, value, depth, out)?,
        ValueKind::Undefined => out.push_str("Undefined"),
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

fn float(value: &Value) -> String {
    match f64::try_from(value.clone()).unwrap_or(f64::NAN) {
        f if f.is_nan() => "nan".to_owned(),
        f if f.is_infinite() => if f > 0.0 { "inf" } else { "-inf" }.to_owned(),
        f => json::float_text(f),
    }
}

/// A string literal; quotes are single unless that would need more escapes.
fn quote(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => out.extend(['\\', c]),
            c if is_printable(c) => out.push(c),
            c if c <= '\u{ff}' => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if c <= '\u{ffff}' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push_str(&format!("\\U{:08x}", c as u32)),
        }
    }
    out.push(quote);
}

/// Python's `str.isprintable`, but for code points that are not assigned.
fn is_printable(c: char) -> bool {
    let is_format = matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{180e}' | '\u{feff}'
    ) || matches!(c, '\u{600}'..='\u{605}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    let is_private = matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..);
    c == ' ' || !(c.is_control() || c.is_whitespace() || is_format || is_private)
}

fn list(state: &State, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
    let (open, close) = if value.is_tuple() { ('(', ')') } else { ('[', ']') };
    out.push(open);
    for (index, item) in value.try_iter()?.enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        write_repr(state, &item, depth + 1, out)?;
    }
    if value.is_tuple() && value.len() == Some(1) {
        out.push(',');
    }
    out.push(close);
    Ok(())
}

fn dict(state: &State, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
    out.push('{');
    for (index, key) in value.try_iter()?.enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        write_repr(state, &key, depth + 1, out)?;
        out.push_str(": ");
        write_repr(state, &value.get_item(&key)?, depth + 1, out)?;
    }
    out.push('}');
    Ok(())
}
