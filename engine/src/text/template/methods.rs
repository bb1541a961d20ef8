//! Methods of Python's lists and dicts; strings have a file of their own.

use minijinja::value::{Tuple, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

use super::arguments::Arguments;
use super::string_methods;

/// Called for every method that the engine does not know.
pub(super) fn call(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => string_methods::call(state, value, method, args),
        ValueKind::Map => dict(value, method, args),
        ValueKind::Seq | ValueKind::Iterable => list(value, method, args),
        _ => Err(unknown(value, method)),
    }
}

/// No such method.
pub(super) fn unknown(value: &Value, method: &str) -> Error {
    let message = format!("{} has no method `{method}`", value.kind());
    Error::new(ErrorKind::UnknownMethod, message)
}

/// The reference runs templates in a sandbox in which values do not change.
fn immutable(value: &Value, method: &str) -> Error {
    let message = format!("`{method}` would change a {}, which templates may not", value.kind());
    Error::new(ErrorKind::InvalidOperation, message)
}

fn dict(value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let mut args = Arguments::new(method, args)?;
    match method {
        "get" => {
            let key = args.required("key")?;
            let default = args.any("default")?.unwrap_or_else(|| Value::from(()));
            args.finish()?;
            let found = value.get_item(&key)?;
            Ok(if found.is_undefined() { default } else { found })
        }
        "keys" => {
            args.finish()?;
            Ok(value.try_iter()?.collect::<Vec<_>>().into())
        }
        "values" => {
            args.finish()?;
            let values: Result<Vec<Value>, Error> =
                value.try_iter()?.map(|key| value.get_item(&key)).collect();
            Ok(values?.into())
        }
        "items" => {
            args.finish()?;
            let mut items = Vec::new();
            for key in value.try_iter()? {
                let item = value.get_item(&key)?;
                items.push(Value::from(Tuple::from([key, item])));
            }
            Ok(items.into())
        }
        "copy" => {
            args.finish()?;
            Ok(value.clone())
        }
        "update" | "pop" | "popitem" | "clear" | "setdefault" => Err(immutable(value, method)),
        _ => Err(unknown(value, method)),
    }
}

fn list(value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let mut args = Arguments::new(method, args)?;
    match method {
        "count" => {
            let wanted = args.required("value")?;
            args.finish()?;
            Ok(value.try_iter()?.filter(|item| *item == wanted).count().into())
        }
        "index" => {
            let wanted = args.required("value")?;
            let start = args.optional_int("start")?;
            let stop = args.optional_int("stop")?;
            let len = value.len().unwrap_or(0);
            let range = python_range(start, stop, len);
            let found = value
                .try_iter()?
                .enumerate()
                .find(|(index, item)| range.contains(index) && *item == wanted);
            let (index, _) = found.ok_or_else(|| args.error(format!("{wanted} is not in list")))?;
            args.finish()?;
            Ok(index.into())
        }
        "copy" => {
            args.finish()?;
            Ok(value.clone())
        }
        "append" | "extend" | "insert" | "pop" | "remove" | "reverse" | "sort" | "clear" => {
            Err(immutable(value, method))
        }
        _ => Err(unknown(value, method)),
    }
}

/// `[start:stop]` of something `len` long, with Python's negative indices.
pub(super) fn python_range(
    start: Option<i64>,
    stop: Option<i64>,
    len: usize,
) -> std::ops::Range<usize> {
    let clamp = |index: i64| match usize::try_from(index) {
        Ok(index) => index.min(len),
        Err(_) => len.saturating_sub(usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX)),
    };
    start.map_or(0, clamp)..stop.map_or(len, clamp)
}
