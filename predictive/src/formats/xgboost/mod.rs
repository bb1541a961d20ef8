//! Models of XGBoost: JSON, UBJSON, the binary layout up to 3.0, and the snapshots inside pickles.

mod binary;
mod booster;
mod bytes;
mod json;
mod lower;
mod names;
mod objective;
mod pickled;
mod schema;
mod source;
mod ubjson;

use crate::error::{Fault, LoadError};
use crate::format::{Format, LoadOptions, ModelFiles, Probe};
use crate::model::Model;
use crate::steps::Tabular;

use self::bytes::Bytes;
pub use booster::Booster;
use booster::Rounds;
pub(crate) use pickled::ESTIMATORS;
use schema::Raw;

/// Suffixes of model files.
const EXTENSIONS: &[&str] = &[".bst", ".json", ".ubj", ".model", ".xgb"];

/// How snapshots of 1.0 to 1.2 begin; the length of a binary model follows.
const CONFIG_OFFSET: &[u8] = b"CONFIG-offset:";

/// The row of [`FORMATS`](crate::formats::FORMATS).
pub struct XgBoost;

impl Format for XgBoost {
    fn name(&self) -> &'static str {
        "xgboost"
    }

    fn probe(&self, files: &ModelFiles) -> Probe {
        let candidates = match files.is_directory {
            true => files.with_extension(EXTENSIONS),
            false => files.names.iter().map(String::as_str).collect(),
        };
        let probes = candidates.into_iter().map(|name| {
            let named = EXTENSIONS.iter().any(|end| name.to_ascii_lowercase().ends_with(end));
            probe(&files.head(name), named)
        });
        probes.max().unwrap_or(Probe::No)
    }

    fn load(&self, files: &ModelFiles, options: &LoadOptions) -> Result<Box<dyn Model>, LoadError> {
        let name = files.single(EXTENSIONS)?;
        let path = files.file(name);
        let bytes = std::fs::read(&path).map_err(|source| LoadError::Io { path, source })?;
        let booster = booster_from_bytes(&bytes).map_err(|fault| fault.of(name))?;
        let description = booster.description().clone();
        let tabular = Tabular::new(Box::new(booster), description, options.method);
        let tabular = tabular.map_err(|error| Fault::unsupported(error.to_string()).of(name))?;
        Ok(Box::new(tabular))
    }
}

/// How sure the head of a file makes us; `named` says that its suffix is ours.
fn probe(head: &[u8], named: bool) -> Probe {
    let has = |key: &[u8]| head.windows(key.len()).any(|window| window == key);
    let ours = [&b"learner"[..], b"Model", b"Config"].into_iter().any(has);
    match head {
        [b'{', b'L', ..] if ours || has(b"version") => Probe::Yes,
        [b'{', ..] if has(b"\"learner\"") || (has(b"\"Config\"") && ours) => Probe::Yes,
        [b'{', ..] if named => Probe::Maybe,
        _ if head.starts_with(b"binf") || head.starts_with(b"bs64") => Probe::Yes,
        _ if head.starts_with(CONFIG_OFFSET) || binary::is_plausible(head) => Probe::Yes,
        _ => Probe::No,
    }
}

/// Reads a model from any container, with all its rounds, as `Booster.predict` uses them.
///
/// # Errors
/// Names the place in the file and what is wrong there, or what is not supported.
pub fn booster_from_bytes(bytes: &[u8]) -> Result<Booster, Fault> {
    Booster::new(read(bytes)?, Rounds::All)
}

/// The container's content.
fn read(bytes: &[u8]) -> Result<Raw, Fault> {
    match bytes {
        [b'{', b'L' | b'i' | b'U' | b'I' | b'l' | b'#' | b'N', ..] => {
            schema::read(&mut Bytes::new(bytes))
        }
        [b'{', ..] => schema::read(&mut json::Json::new(bytes)),
        _ if bytes.starts_with(CONFIG_OFFSET) => binary::read(snapshot_model(bytes)?),
        _ if bytes.starts_with(b"bs64") => Err(Fault::unsupported(
            "base64 models of XGBoost before 1.0 are not supported; load it with XGBoost below \
             3.1 and save it as .json",
        )),
        _ if bytes.starts_with(b"binf") || binary::is_plausible(bytes) => binary::read(bytes),
        _ if bytes.starts_with(b"booster[") || bytes.starts_with(b"[") => Err(Fault::unsupported(
            "a dump of trees has no objective and no base score; write a model with \
             Booster.save_model",
        )),
        _ => Err(Fault::corrupt(
            "byte 0",
            "not a model of XGBoost: expected JSON, UBJSON or the binary layout",
        )),
    }
}

/// The binary model at the head of a snapshot of 1.0 to 1.2.
fn snapshot_model(bytes: &[u8]) -> Result<&[u8], Fault> {
    let rest = &bytes[CONFIG_OFFSET.len()..];
    let length = rest.first_chunk().map(|length| i64::from_le_bytes(*length));
    let length = length.and_then(|length| usize::try_from(length).ok());
    let model = length.and_then(|length| rest.get(8..)?.get(..length));
    model.ok_or_else(|| Fault::corrupt("CONFIG-offset", "the model is longer than the file"))
}
