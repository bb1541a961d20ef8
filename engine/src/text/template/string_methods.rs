//! Methods of Python's `str`.

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Tuple, ValueKind};
use minijinja::{Error, State, Value};

use super::arguments::Arguments;
use super::methods::{python_range, unknown};

/// A method of a string.
pub(super) fn call(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let text = value.as_str().unwrap_or_default();
    if method == "format" {
        return format_method(text, args);
    }
    let mut args = Arguments::new(method, args)?;
    let result = match strip(text, method, &mut args)
        .or_else(|| split(text, method, &mut args))
        .or_else(|| search(text, method, &mut args))
        .or_else(|| build(state, text, method, &mut args))
    {
        Some(result) => result?,
        None => simple(text, method).ok_or_else(|| unknown(value, method))?,
    };
    args.finish()?;
    Ok(result)
}

/// White space for Python, which counts the four ASCII separators.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Methods without arguments.
fn simple(text: &str, method: &str) -> Option<Value> {
    let all = |test: fn(char) -> bool| !text.is_empty() && text.chars().all(test);
    Some(match method {
        "upper" => text.to_uppercase().into(),
        "lower" | "casefold" => text.to_lowercase().into(),
        "title" => title(text).into(),
        "capitalize" => capitalize(text).into(),
        "swapcase" => text.chars().map(swap_case).collect::<String>().into(),
        "isspace" => all(is_space).into(),
        "isalpha" => all(char::is_alphabetic).into(),
        "isalnum" => all(char::is_alphanumeric).into(),
        "isdigit" | "isnumeric" | "isdecimal" => all(char::is_numeric).into(),
        "isascii" => text.is_ascii().into(),
        "isupper" => {
            (text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)).into()
        }
        "islower" => {
            (text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase)).into()
        }
        _ => return None,
    })
}

fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    first + &chars.as_str().to_lowercase()
}

/// A capital at the start of every run of letters.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut within = false;
    for c in text.chars() {
        match within {
            true => out.extend(c.to_lowercase()),
            false => out.extend(c.to_uppercase()),
        }
        within = c.is_alphabetic();
    }
    out
}

fn swap_case(c: char) -> String {
    if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
}

type Outcome = Option<Result<Value, Error>>;

/// `strip` and its kin.
fn strip(text: &str, method: &str, args: &mut Arguments<'_>) -> Outcome {
    let (left, right) = match method {
        "strip" => (true, true),
        "lstrip" => (true, false),
        "rstrip" => (false, true),
        "removeprefix" | "removesuffix" => {
            return Some(args.string("affix").map(|affix| {
                let rest = match method {
                    "removeprefix" => text.strip_prefix(&affix),
                    _ => text.strip_suffix(&affix),
                };
                rest.unwrap_or(text).into()
            }));
        }
        _ => return None,
    };
    Some(args.optional_string("chars").map(|chars| {
        let matches = |c: char| chars.as_ref().map_or_else(|| is_space(c), |set| set.contains(c));
        let text = if left { text.trim_start_matches(matches) } else { text };
        if right { text.trim_end_matches(matches) } else { text }.into()
    }))
}

/// `split` and its kin.
fn split(text: &str, method: &str, args: &mut Arguments<'_>) -> Outcome {
    match method {
        "split" | "rsplit" => Some(split_at_separator(text, method == "rsplit", args)),
        "splitlines" => Some(args.flag("keepends").map(|keep| list(&split_lines(text, keep)))),
        "partition" | "rpartition" => Some(partition(text, method == "rpartition", args)),
        _ => None,
    }
}

fn list(parts: &[&str]) -> Value {
    parts.iter().map(|part| Value::from(*part)).collect()
}

fn split_at_separator(text: &str, reverse: bool, args: &mut Arguments<'_>) -> Result<Value, Error> {
    let separator = args.optional_string("sep")?;
    let most = args.optional_int("maxsplit")?.and_then(|n| usize::try_from(n).ok());
    let parts: Vec<&str> = match separator {
        None => split_at_space(text, reverse, most),
        Some(separator) if separator.is_empty() => {
            return Err(args.error("empty separator".to_owned()));
        }
        Some(separator) => {
            let pieces = most.map_or(usize::MAX, |n| n.saturating_add(1));
            match reverse {
                false => text.splitn(pieces, &separator).collect(),
                true => {
                    let mut parts: Vec<&str> = text.rsplitn(pieces, &separator).collect();
                    parts.reverse();
                    parts
                }
            }
        }
    };
    Ok(list(&parts))
}

/// Runs of white space separate; none at the ends.
fn split_at_space(text: &str, reverse: bool, most: Option<usize>) -> Vec<&str> {
    let most = most.unwrap_or(usize::MAX);
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        rest = match reverse {
            false => rest.trim_start_matches(is_space),
            true => rest.trim_end_matches(is_space),
        };
        if rest.is_empty() {
            break;
        }
        let at = if reverse { rest.rfind(is_space) } else { rest.find(is_space) };
        let Some(at) = at.filter(|_| parts.len() < most) else {
            parts.push(rest);
            break;
        };
        if reverse {
            let width = rest[at..].chars().next().map_or(1, char::len_utf8);
            parts.push(&rest[at + width..]);
            rest = &rest[..at];
        } else {
            parts.push(&rest[..at]);
            rest = &rest[at..];
        }
    }
    if reverse {
        parts.reverse();
    }
    parts
}

/// At every line boundary that Python knows.
fn split_lines(text: &str, keep_ends: bool) -> Vec<&str> {
    let is_end = |c: char| {
        matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}')
            || matches!(c, '\u{2028}' | '\u{2029}')
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(is_end) {
        let end = match rest[at..].strip_prefix("\r\n") {
            Some(after) => rest.len() - after.len(),
            None => at + rest[at..].chars().next().map_or(1, char::len_utf8),
        };
        lines.push(if keep_ends { &rest[..end] } else { &rest[..at] });
        rest = &rest[end..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

fn partition(text: &str, reverse: bool, args: &mut Arguments<'_>) -> Result<Value, Error> {
    let separator = args.string("sep")?;
    let at = if reverse { text.rfind(&separator) } else { text.find(&separator) };
    let parts = match (at, reverse) {
        (Some(at), _) => {
            [&text[..at], &text[at..at + separator.len()], &text[at + separator.len()..]]
        }
        (None, false) => [text, "", ""],
        (None, true) => ["", "", text],
    };
    Ok(Value::from(Tuple::from(parts.map(Value::from))))
}

/// `find` and its kin, which count characters.
fn search(text: &str, method: &str, args: &mut Arguments<'_>) -> Outcome {
    match method {
        "startswith" | "endswith" => Some(affix(text, method == "endswith", args)),
        "find" | "rfind" | "index" | "rindex" | "count" => Some(find(text, method, args)),
        _ => None,
    }
}

/// The part of `text` between the arguments `start` and `end`, and the characters before it.
fn window<'t>(text: &'t str, args: &mut Arguments<'_>) -> Result<(&'t str, usize), Error> {
    let (start, end) = (args.optional_int("start")?, args.optional_int("end")?);
    if start.is_none() && end.is_none() {
        return Ok((text, 0));
    }
    let range = python_range(start, end, text.chars().count());
    let byte = |index: usize| text.char_indices().nth(index).map_or(text.len(), |(at, _)| at);
    let from = byte(range.start);
    Ok((&text[from..byte(range.end).max(from)], range.start))
}

fn affix(text: &str, at_end: bool, args: &mut Arguments<'_>) -> Result<Value, Error> {
    let wanted = args.required("affix")?;
    let (text, _) = window(text, args)?;
    let matches = |affix: &Value| {
        let affix = affix.as_str().ok_or_else(|| {
            args.error(format!(
                "the argument must be a string or a tuple of them, not {}",
                affix.kind()
            ))
        })?;
        Ok(if at_end { text.ends_with(affix) } else { text.starts_with(affix) })
    };
    if wanted.kind() != ValueKind::Seq {
        return matches(&wanted).map(Value::from);
    }
    for affix in wanted.try_iter()? {
        if matches(&affix)? {
            return Ok(Value::from(true));
        }
    }
    Ok(Value::from(false))
}

fn find(text: &str, method: &str, args: &mut Arguments<'_>) -> Result<Value, Error> {
    let wanted = args.string("sub")?;
    let (text, before) = window(text, args)?;
    if method == "count" {
        return Ok(text.matches(&wanted).count().into());
    }
    let at = if method.starts_with('r') { text.rfind(&wanted) } else { text.find(&wanted) };
    match at {
        Some(at) => Ok((before + text[..at].chars().count()).into()),
        None if method.ends_with("find") => Ok((-1).into()),
        None => Err(args.error("substring not found".to_owned())),
    }
}

/// Methods whose result may be much longer than the string; they pay for it first.
fn build(state: &State, text: &str, method: &str, args: &mut Arguments<'_>) -> Outcome {
    match method {
        "replace" => Some(replace(state, text, args)),
        "join" => Some(join(state, text, args)),
        "ljust" | "rjust" | "center" | "zfill" => Some(pad(state, text, method, args)),
        _ => None,
    }
}

fn pay(state: &State, bytes: usize) -> Result<(), Error> {
    state.consume_fuel(bytes as u64 / 64)
}

fn replace(state: &State, text: &str, args: &mut Arguments<'_>) -> Result<Value, Error> {
    let (old, new) = (args.string("old")?, args.string("new")?);
    let most = args.optional_int("count")?.and_then(|n| usize::try_from(n).ok());
    let found = text.matches(&old).count().min(most.unwrap_or(usize::MAX));
    pay(state, text.len().saturating_add(found.saturating_mul(new.len())))?;
    Ok(match most {
        Some(most) => text.replacen(&old, &new, most),
        None => text.replace(&old, &new),
    }
    .into())
}

fn join(state: &State, separator: &str, args: &mut Arguments<'_>) -> Result<Value, Error> {
    let mut out = String::new();
    for (index, item) in args.required("iterable")?.try_iter()?.enumerate() {
        let item = item.as_str().ok_or_else(|| {
            args.error(format!("item {index} must be a string, not {}", item.kind()))
        })?;
        pay(state, separator.len() + item.len())?;
        if index > 0 {
            out.push_str(separator);
        }
        out.push_str(item);
    }
    Ok(out.into())
}

fn pad(state: &State, text: &str, method: &str, args: &mut Arguments<'_>) -> Result<Value, Error> {
    let width = args.optional_int("width")?.unwrap_or(0);
    let fill = match method {
        "zfill" => "0".to_owned(),
        _ => args.optional_string("fillchar")?.unwrap_or_else(|| " ".to_owned()),
    };
    if fill.chars().count() != 1 {
        return Err(args.error("`fillchar` must be one character".to_owned()));
    }
    let len = text.chars().count();
    let missing = usize::try_from(width).unwrap_or(0).saturating_sub(len);
    pay(state, missing.saturating_mul(fill.len()))?;
    let (left, right) = match method {
        "ljust" => (0, missing),
        "center" => {
            // CPython puts the odd space to the left when the width is odd.
            let left = missing / 2 + (missing & usize::try_from(width).unwrap_or(0) & 1);
            (left, missing - left)
        }
        _ => (missing, 0),
    };
    let (sign, text) = match text.as_bytes().first() {
        Some(b'+' | b'-') if method == "zfill" => text.split_at(1),
        _ => ("", text),
    };
    Ok(format!("{sign}{}{text}{}", fill.repeat(left), fill.repeat(right)).into())
}

/// `str.format`. Widths and precisions are bounded, since the engine only counts the result afterwards.
fn format_method(text: &str, args: &[Value]) -> Result<Value, Error> {
    const MAX_DIGITS: usize = 4;
    let longest = text.split(|c: char| !c.is_ascii_digit()).map(str::len).max().unwrap_or(0);
    if longest > MAX_DIGITS {
        let args = Arguments::new("format", &[])?;
        return Err(args.error(format!("numbers of more than {MAX_DIGITS} digits are refused")));
    }
    format(FormatStyle::StrFormat, text, args).map(Value::from)
}
