//! JSON as Python's `json.dumps` writes it.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};

use super::arguments::Arguments;

/// Deeper values are refused; Python's limit is of that order.
const MAX_DEPTH: usize = 200;
/// Fuel for one value, which is some bytes of text and some branches.
const FUEL_PER_VALUE: u64 = 4;
/// Widest indent of one level.
const MAX_INDENT: i64 = 64;

/// The options of `json.dumps` that chat templates may set.
struct Writer<'a, 'b, 'c> {
    state: &'a State<'b, 'c>,
    ensure_ascii: bool,
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
    out: String,
}

/// The `tojson` filter of `transformers`: nothing is escaped for HTML.
pub(super) fn tojson(state: &State, mut args: Arguments<'_>) -> Result<Value, Error> {
    let value = args.required("x")?;
    let ensure_ascii = args.flag("ensure_ascii")?;
    let indent = match args.optional("indent")? {
        None => None,
        Some(indent) => Some(indent_text(&args, &indent)?),
    };
    let (item_separator, key_separator) = match args.optional("separators")? {
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
        Some(pair) => separators(&args, &pair)?,
    };
    let sort_keys = args.flag("sort_keys")?;
    args.finish()?;
    let out = String::new();
    let mut writer =
        Writer { state, ensure_ascii, indent, item_separator, key_separator, sort_keys, out };
    writer.value(&value, 0)?;
    Ok(Value::from(writer.out))
}

fn indent_text(args: &Arguments<'_>, indent: &Value) -> Result<String, Error> {
    if let Some(text) = indent.as_str() {
        return Ok(text.to_owned());
    }
    let width = i64::try_from(indent.clone()).ok().filter(|width| *width <= MAX_INDENT);
    let width = width.ok_or_else(|| {
        args.error(format!("`indent` must be a string or a number up to {MAX_INDENT}"))
    })?;
    Ok(" ".repeat(usize::try_from(width).unwrap_or(0)))
}

fn separators(args: &Arguments<'_>, pair: &Value) -> Result<(String, String), Error> {
    let parts: Vec<Value> = pair.try_iter()?.collect();
    match parts.iter().map(Value::as_str).collect::<Vec<_>>()[..] {
        [Some(item), Some(key)] => Ok((item.to_owned(), key.to_owned())),
        _ => Err(args.error("`separators` must be two strings".to_owned())),
    }
}

impl Writer<'_, '_, '_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.state.consume_fuel(FUEL_PER_VALUE)?;
        if depth > MAX_DEPTH {
            let message = format!("a value is nested deeper than {MAX_DEPTH} levels");
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        }
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.out.push_str(&number(value)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default())?,
            ValueKind::Seq | ValueKind::Iterable => self.list(value, depth)?,
            ValueKind::Map => self.object(value, depth)?,
            kind => {
                let message = format!("a value of kind {kind} is not JSON serializable");
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        }
        Ok(())
    }

    fn list(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let mut empty = true;
        self.out.push('[');
        for item in value.try_iter()? {
            self.next_item(empty, depth);
            empty = false;
            self.value(&item, depth + 1)?;
        }
        self.close(empty, depth, ']');
        Ok(())
    }

    fn object(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let mut entries = Vec::new();
        for key in value.try_iter()? {
            let item = value.get_item(&key)?;
            entries.push((key_text(&key)?, item));
        }
        if self.sort_keys {
            entries.sort_by(|a, b| a.0.cmp(&b.0));
        }
        self.out.push('{');
        for (index, (key, item)) in entries.iter().enumerate() {
            self.next_item(index == 0, depth);
            self.string(key)?;
            self.out.push_str(&self.key_separator);
            self.value(item, depth + 1)?;
        }
        self.close(entries.is_empty(), depth, '}');
        Ok(())
    }

    fn next_item(&mut self, first: bool, depth: usize) {
        if !first {
            self.out.push_str(&self.item_separator);
        }
        self.line(depth + 1);
    }

    fn close(&mut self, empty: bool, depth: usize, bracket: char) {
        if !empty {
            self.line(depth);
        }
        self.out.push(bracket);
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            for _ in 0..depth {
                self.out.push_str(indent);
            }
        }
    }

    fn string(&mut self, text: &str) -> Result<(), Error> {
        self.state.consume_fuel(text.len() as u64 / 64)?;
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if c < ' ' || (self.ensure_ascii && c > '~') => self.escape(c),
                c => self.out.push(c),
            }
        }
        self.out.push('"');
        Ok(())
    }

    fn escape(&mut self, c: char) {
        for unit in c.encode_utf16(&mut [0; 2]) {
            self.out.push_str(&format!("\\u{unit:04x}"));
        }
    }
}

/// Python's `json.dumps` turns numbers, truth values and `None` into keys.
fn key_text(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.as_str().unwrap_or_default().to_owned()),
        ValueKind::None => Ok("null".to_owned()),
        ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.to_owned()),
        ValueKind::Number => Ok(number(key)),
        kind => {
            let message = format!("keys must be str, int, float, bool or None, not {kind}");
            Err(Error::new(ErrorKind::InvalidOperation, message))
        }
    }
}

fn number(value: &Value) -> String {
    match f64::try_from(value.clone()) {
        Ok(float) if !value.is_integer() => float_text(float),
        _ => value.to_string(),
    }
}

/// A float as Python's `repr` has it, but for infinities and NaN, which are `json.dumps`'s.
pub(super) fn float_text(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let text = format!("{value:e}");
        let (mantissa, exponent) = text.split_once('e').expect("exponent format has an e");
        let (sign, digits) = match exponent.strip_prefix('-') {
            Some(digits) => ('-', digits),
            None => ('+', exponent),
        };
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    format!("{value:?}")
}
