//! Small files next to the weights, read whole with a limit on their size.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};

use crate::load::LoadError;

/// Configurations are kilobytes, the index of a large checkpoint some megabytes.
const MAX_JSON_BYTES: u64 = 64 << 20;

/// The text of a file of at most `limit` bytes.
pub(crate) fn read_text(path: &Path, limit: u64) -> Result<String, LoadError> {
    let failed = |source| LoadError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(LoadError::format(path, format!("larger than {limit} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| LoadError::format(path, format!("not UTF-8: {error}")))
}

/// The object in a JSON file.
pub(crate) fn read_object(path: &Path) -> Result<Map<String, Value>, LoadError> {
    let text = read_text(path, MAX_JSON_BYTES)?;
    serde_json::from_str(&text)
        .map_err(|error| LoadError::format(path, format!("not a JSON object: {error}")))
}

/// The same, or nothing when the file does not exist.
pub(crate) fn read_optional_object(path: &Path) -> Result<Option<Map<String, Value>>, LoadError> {
    match path.try_exists() {
        Ok(true) => read_object(path).map(Some),
        Ok(false) => Ok(None),
        Err(source) => Err(LoadError::Io { path: path.to_owned(), source }),
    }
}
