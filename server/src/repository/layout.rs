//! What a model's directory holds: one model, or numbered versions, and a `config.pbtxt` that says how they run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value as Json;
use tokenmill_predictive::{Batching, HandleOptions};

use super::pbtxt::{self, Message};

/// Fields that are obeyed, and those that the files say themselves.
const KNOWN: [&str; 9] = [
    "name",
    "platform",
    "backend",
    "max_batch_size",
    "input",
    "output",
    "version_policy",
    "dynamic_batching",
    "default_model_filename",
];

/// Fields that tune Triton and mean nothing here: named in a warning.
const WITHOUT_EFFECT: [&str; 7] = [
    "instance_group",
    "parameters",
    "optimization",
    "model_warmup",
    "metric_tags",
    "response_cache",
    "model_transaction_policy",
];

/// Fields of `dynamic_batching` that are obeyed.
const BATCHING: [&str; 3] =
    ["preferred_batch_size", "max_queue_delay_microseconds", "default_queue_policy"];

/// Every field is one of `known`.
fn check_fields(message: &Message, known: &[&str], place: &str) -> Result<(), String> {
    match message.names().find(|name| !known.contains(name)) {
        Some(name) => {
            Err(format!("the field {place}{name} is not supported; known are {}", known.join(", ")))
        }
        None => Ok(()),
    }
}

/// The versions to serve and how.
#[derive(Debug)]
pub(super) struct Layout {
    /// Version (`None` for a model without versions) and its files, in ascending order.
    pub(super) versions: Vec<(Option<String>, PathBuf)>,
    batching: Option<Batching>,
    max_queue: Option<usize>,
}

impl Layout {
    /// Reads a file or directory; `config` (JSON, from a load call) is used in the place of `config.pbtxt`.
    pub(super) fn of(path: &Path, config: Option<&str>) -> Result<Self, String> {
        let file = path.join("config.pbtxt");
        let settings = match config {
            Some(json) => {
                Settings::from_json(json).map_err(|reason| format!("config: {reason}"))?
            }
            None if file.is_file() => {
                let text = std::fs::read_to_string(&file);
                let text = text.map_err(|error| format!("{}: {error}", file.display()))?;
                let read = pbtxt::parse(&text).and_then(|message| Settings::from_pbtxt(&message));
                read.map_err(|reason| format!("{}: {reason}", file.display()))?
            }
            None => Settings::default(),
        };
        let mut numbered = numbered(path)?;
        if numbered.is_empty() {
            numbered.push((None, path.to_owned()));
        } else {
            settings.policy.choose(&mut numbered);
            if numbered.is_empty() {
                return Err(format!("{}: the version policy chooses no version", path.display()));
            }
        }
        let versions = numbered.into_iter().map(|(version, files)| {
            let files = match &settings.file {
                Some(name) => files.join(name),
                None => files,
            };
            (version.map(|version| version.to_string()), files)
        });
        Ok(Self {
            versions: versions.collect(),
            batching: settings.batching,
            max_queue: settings.max_queue,
        })
    }

    /// The options of a handle: the configuration's, else `common`.
    pub(super) fn handle_options(&self, common: &HandleOptions) -> HandleOptions {
        HandleOptions {
            max_in_flight: self.max_queue.unwrap_or(common.max_in_flight),
            batching: self.batching.clone().or_else(|| common.batching.clone()),
        }
    }
}

/// Sub-directories whose names are positive integers, ascending.
fn numbered(path: &Path) -> Result<Vec<(Option<u64>, PathBuf)>, String> {
    let mut versions = Vec::new();
    if path.is_dir() {
        let wrong = |error: std::io::Error| format!("{}: {error}", path.display());
        for entry in std::fs::read_dir(path).map_err(wrong)? {
            let entry = entry.map_err(wrong)?;
            let number = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok());
            if let Some(number) = number.filter(|&number| number > 0)
                && entry.path().is_dir()
            {
                versions.push((Some(number), entry.path()));
            }
        }
        versions.sort();
    }
    Ok(versions)
}

/// Which versions are served.
#[derive(Debug, PartialEq)]
enum Policy {
    Latest(usize),
    All,
    Specific(Vec<u64>),
}

impl Policy {
    fn choose(&self, versions: &mut Vec<(Option<u64>, PathBuf)>) {
        match self {
            Policy::All => {}
            Policy::Latest(count) => {
                let surplus = versions.len().saturating_sub(*count);
                versions.drain(..surplus);
            }
            Policy::Specific(wanted) => versions
                .retain(|(version, _)| version.is_some_and(|version| wanted.contains(&version))),
        }
    }
}

/// What a configuration says.
#[derive(Debug, PartialEq)]
struct Settings {
    policy: Policy,
    file: Option<String>,
    batching: Option<Batching>,
    max_queue: Option<usize>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { policy: Policy::Latest(1), file: None, batching: None, max_queue: None }
    }
}

impl Settings {
    fn from_pbtxt(config: &Message) -> Result<Self, String> {
        check_fields(config, &[KNOWN.as_slice(), &WITHOUT_EFFECT].concat(), "")?;
        for field in config.names().filter(|name| WITHOUT_EFFECT.contains(name)) {
            tracing::warn!(field, "the field of config.pbtxt has no effect");
        }
        let policy = match config.message("version_policy") {
            None => Policy::Latest(1),
            Some(policy) if policy.get("all").is_some() => Policy::All,
            Some(policy) => match (policy.message("specific"), policy.message("latest")) {
                (Some(specific), _) => Policy::Specific(specific.numbers("versions")?),
                (None, latest) => {
                    let count = latest.map(|latest| latest.whole("num_versions")).transpose()?;
                    Policy::Latest(count.flatten().unwrap_or(1) as usize)
                }
            },
        };
        let file = config.text("default_model_filename").map(plain_file).transpose()?;
        let max_rows = config.whole("max_batch_size")?.unwrap_or(0) as usize;
        let dynamic = config.message("dynamic_batching");
        if let Some(dynamic) = dynamic {
            check_fields(dynamic, &BATCHING, "dynamic_batching.")?;
        }
        let batching = dynamic.filter(|_| max_rows > 0).map(|dynamic| {
            let delay = dynamic.whole("max_queue_delay_microseconds")?.unwrap_or(0);
            let preferred = dynamic.numbers("preferred_batch_size")?;
            Ok::<_, String>(Batching {
                max_rows,
                max_delay: Duration::from_micros(delay),
                preferred: preferred.into_iter().map(|rows| rows as usize).collect(),
            })
        });
        let queue = dynamic.and_then(|dynamic| dynamic.message("default_queue_policy"));
        if let Some(queue) = queue {
            check_fields(queue, &["max_queue_size"], "dynamic_batching.default_queue_policy.")?;
        }
        let max_queue = queue.map(|queue| queue.whole("max_queue_size")).transpose()?.flatten();
        Ok(Self {
            policy,
            file,
            batching: batching.transpose()?,
            max_queue: max_queue.filter(|&size| size > 0).map(|size| size as usize),
        })
    }

    /// The same fields as JSON, as load calls carry them.
    fn from_json(text: &str) -> Result<Self, String> {
        let json: Json = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let Json::Object(_) = json else { return Err("expected a JSON object".into()) };
        let mut out = String::new();
        write_fields(&json, &mut out);
        Self::from_pbtxt(&pbtxt::parse(&out)?)
    }
}

/// A file name without a path.
fn plain_file(name: &str) -> Result<String, String> {
    if super::is_plain(name) {
        return Ok(name.to_owned());
    }
    Err(format!("default_model_filename: expected a file name, found {name:?}"))
}

/// The fields of a JSON object in the text form; serde_json has bounded its depth.
fn write_fields(json: &Json, out: &mut String) {
    let Json::Object(fields) = json else { return };
    for (name, value) in fields {
        let items = match value {
            Json::Array(items) => items.as_slice(),
            one => std::slice::from_ref(one),
        };
        for item in items {
            out.push_str(&name.replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
            match item {
                Json::Object(_) => {
                    out.push_str(" {\n");
                    write_fields(item, out);
                    out.push_str("}\n");
                }
                // JSON's escapes of texts and the text form's agree where names need them.
                other => out.push_str(&format!(": {other}\n")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<Settings, String> {
        Settings::from_pbtxt(&pbtxt::parse(text)?)
    }

    #[test]
    fn both_forms_say_the_same() {
        let text = settings(
            "max_batch_size: 16 dynamic_batching { preferred_batch_size: [4, 8] \
             max_queue_delay_microseconds: 250 default_queue_policy { max_queue_size: 7 } } \
             version_policy { specific { versions: [2] } }",
        )
        .unwrap();
        let json = r#"{"max_batch_size": 16, "dynamic_batching": {"preferred_batch_size": [4, 8],
            "max_queue_delay_microseconds": 250, "default_queue_policy": {"max_queue_size": 7}},
            "version_policy": {"specific": {"versions": [2]}}}"#;
        assert_eq!(Settings::from_json(json), Ok(Settings { ..text }));
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        assert!(settings("max_batchsize: 3").unwrap_err().contains("max_batchsize"));
        let nested = settings("dynamic_batching { preserve_ordering: true }").unwrap_err();
        assert!(nested.contains("dynamic_batching.preserve_ordering"), "{nested}");
        assert!(settings("ensemble_scheduling { }").unwrap_err().contains("not supported"));
        assert!(settings("default_model_filename: \"../x\"").unwrap_err().contains("file name"));
        assert!(settings("max_batch_size: many").unwrap_err().contains("max_batch_size"));
    }

    #[test]
    fn policies_choose_versions() {
        let all: Vec<_> = (1..=4).map(|n| (Some(n), PathBuf::new())).collect();
        let chosen = |policy: Policy| {
            let mut versions = all.clone();
            policy.choose(&mut versions);
            versions.into_iter().filter_map(|(version, _)| version).collect::<Vec<_>>()
        };
        assert_eq!(chosen(Policy::Latest(2)), [3, 4]);
        assert_eq!(chosen(Policy::All), [1, 2, 3, 4]);
        assert_eq!(chosen(Policy::Specific(vec![9, 2])), [2]);
    }
}
