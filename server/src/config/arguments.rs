//! From words on the command line to values by flag, as forgiving as the runtimes we stand in for.
//!
//! `--name value` and `--name=value`, `-` and `_` alike, the last of several wins, a flag that
//! nobody knows is a warning and never stops the start. What a value means is read later, by the
//! typed getters, so that errors name the flag as it was typed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value as Json;

use super::flags::{self, Flag, Kind, Value};
use super::values;

/// Why the command line cannot be obeyed. The text names the flag and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Values by flag, plus what has to be said about them.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    /// What is not a flag: the model.
    positional: Vec<String>,
    given: BTreeMap<&'static str, Given>,
    /// Warnings to print once logging is set up.
    pub warnings: Vec<String>,
    /// `-h` or `--help` was among the words.
    pub help: bool,
}

/// A flag as it was typed last.
#[derive(Clone, Debug)]
struct Given {
    typed: String,
    values: Vec<String>,
}

/// The words that are left.
type Words = std::iter::Peekable<std::vec::IntoIter<String>>;

impl Arguments {
    /// Reads the words after the program's (and the command's) name.
    ///
    /// # Errors
    /// A flag without its value, a boolean that is none, or a flag that must be refused.
    pub fn read(words: impl IntoIterator<Item = String>) -> Result<Self, UsageError> {
        let mut arguments = Self::default();
        let words: Vec<String> = words.into_iter().collect();
        let mut words = words.into_iter().peekable();
        while let Some(word) = words.next() {
            match word.strip_prefix("--") {
                _ if word == "-h" || word == "--help" => arguments.help = true,
                Some("") => arguments.positional.extend(words.by_ref()),
                Some(flag) => arguments.flag(flag, &mut words)?,
                None if word.starts_with('-') && word.len() > 1 => {
                    arguments.warnings.push(format!("{word}: not a flag of this server; ignored"));
                }
                None => arguments.positional.push(word),
            }
        }
        arguments.settle()?;
        Ok(arguments)
    }

    /// One flag, without its dashes.
    fn flag(&mut self, word: &str, words: &mut Words) -> Result<(), UsageError> {
        let (name, inline) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word, None),
        };
        let negated = || {
            let name = name.replace('_', "-");
            flags::find(name.strip_prefix("no-")?).filter(|flag| flag.value == Value::Switch)
        };
        let (flag, off) = match flags::find(name) {
            Some(flag) => (flag, false),
            None => match negated() {
                Some(flag) => (flag, true),
                None => {
                    self.unknown(name, inline, words);
                    return Ok(());
                }
            },
        };
        let typed = format!("--{name}");
        let values = match flag.value {
            Value::Switch => vec![switch(&typed, off, inline, words)?.to_string()],
            Value::List => list(&typed, inline, words)?,
            _ => vec![single(&typed, flag, inline, words)?],
        };
        self.given.insert(flag.name, Given { typed, values });
        Ok(())
    }

    /// A flag nobody knows: a warning, and the word after it is taken for its value.
    fn unknown(&mut self, name: &str, inline: Option<String>, words: &mut Words) {
        let value = inline.or_else(|| words.next_if(|word| !word.starts_with('-')));
        let also = value.map_or_else(String::new, |value| format!(" together with {value:?}"));
        self.warnings.push(format!("--{name}: not a flag of this server; ignored{also}"));
    }

    /// Refuses what must be refused and says what has no effect, each once, for the value that won.
    fn settle(&mut self) -> Result<(), UsageError> {
        for (name, given) in &self.given {
            let flag = flags::find(name).expect("given flags come from the table");
            match flag.kind {
                Kind::Obeyed { .. } => {}
                Kind::NoEffect { because } => {
                    self.warnings
                        .push(format!("{}: accepted without effect: {because}", given.typed));
                }
                Kind::Refused { because, harmless } => {
                    let asks = |value: &String| {
                        let off = flag.value == Value::Switch && value == "false";
                        !off && !harmless.iter().any(|word| word.eq_ignore_ascii_case(value))
                    };
                    if given.values.iter().any(asks) {
                        let value = given.values.join(" ");
                        let typed = &given.typed;
                        return Err(UsageError(format!("{typed} {value}: refused: {because}")));
                    }
                }
            }
        }
        Ok(())
    }

    /// The words that are no flags.
    pub fn positional(&self) -> &[String] {
        &self.positional
    }

    /// The list flag that may have taken the model for one of its values, and that value.
    pub fn taken_by_a_list(&self) -> Option<(&str, &str)> {
        let list = |name: &str, given: &Given| {
            flags::find(name).is_some_and(|flag| flag.value == Value::List)
                && given.values.len() > 1
        };
        let (_, given) = self.given.iter().find(|(name, given)| list(name, given))?;
        Some((given.typed.as_str(), given.values.last()?.as_str()))
    }

    /// How a flag was typed, for messages; its table name when it was not.
    pub fn typed(&self, name: &str) -> String {
        self.given.get(name).map_or_else(|| format!("--{name}"), |given| given.typed.clone())
    }

    /// A text.
    pub fn text(&self, name: &str) -> Option<&str> {
        debug_assert!(flags::find(name).is_some_and(|flag| flag.name == name), "--{name}");
        self.given.get(name)?.values.last().map(String::as_str)
    }

    /// Every text of a list flag; empty when it was not given.
    pub fn list(&self, name: &str) -> Vec<String> {
        self.given.get(name).map(|given| given.values.clone()).unwrap_or_default()
    }

    /// A boolean.
    pub fn switch(&self, name: &str) -> Option<bool> {
        self.text(name).and_then(values::boolean)
    }

    /// A whole number of `min..=max`.
    ///
    /// # Errors
    /// When it is not one.
    pub fn whole(&self, name: &str, min: u64, max: u64) -> Result<Option<u64>, UsageError> {
        self.text(name).map(|text| whole(&self.typed(name), text, min, max)).transpose()
    }

    /// Seconds, with decimals, up to `max`.
    ///
    /// # Errors
    /// When it is not a number of seconds.
    pub fn seconds(&self, name: &str, max: u64) -> Result<Option<Duration>, UsageError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let typed = self.typed(name);
        match text.trim().parse::<f64>() {
            Ok(seconds) if (0.0..=max as f64).contains(&seconds) => {
                Ok(Some(Duration::from_secs_f64(seconds)))
            }
            Ok(seconds) => Err(UsageError(format!("{typed}: {seconds} is outside 0..={max}"))),
            Err(_) => Err(UsageError(format!("{typed}: {text:?} is not a number of seconds"))),
        }
    }

    /// A JSON list of texts.
    ///
    /// # Errors
    /// When it is not one.
    pub fn texts(&self, name: &str) -> Result<Option<Vec<String>>, UsageError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let wrong = |_| {
            let typed = self.typed(name);
            UsageError(format!("{typed}: expected a JSON list of texts, got {text}"))
        };
        serde_json::from_str(text).map(Some).map_err(wrong)
    }

    /// JSON that has to be an object.
    ///
    /// # Errors
    /// When it is not one.
    pub fn object(&self, name: &str) -> Result<Option<serde_json::Map<String, Json>>, UsageError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let typed = self.typed(name);
        match serde_json::from_str(text) {
            Ok(Json::Object(map)) => Ok(Some(map)),
            Ok(_) => Err(UsageError(format!("{typed}: expected a JSON object, got {text}"))),
            Err(error) => Err(UsageError(format!("{typed}: not JSON: {error}"))),
        }
    }
}

/// Reads a whole number of `min..=max`; `name` is the flag or variable it came from.
///
/// # Errors
/// When it is not one.
pub fn whole(name: &str, text: &str, min: u64, max: u64) -> Result<u64, UsageError> {
    let wrong = |what: String| UsageError(format!("{name}: {what}"));
    let number = values::whole(text)
        .ok_or_else(|| wrong(format!("{text:?} is not a whole number (as 4096, 4k or 4K)")))?;
    if (min..=max).contains(&number) {
        return Ok(number);
    }
    Err(wrong(match max {
        u64::MAX => format!("{number} is too small, it must be at least {min}"),
        _ => format!("{number} is outside {min}..={max}"),
    }))
}

/// A boolean flag: on when nothing follows it, and only a boolean word counts as following.
fn switch(
    typed: &str,
    off: bool,
    inline: Option<String>,
    words: &mut Words,
) -> Result<bool, UsageError> {
    let value = match inline {
        Some(text) => values::boolean(&text).ok_or_else(|| {
            UsageError(format!("{typed}: {text:?} is not a boolean (true or false)"))
        })?,
        None => words
            .next_if(|word| values::boolean(word).is_some())
            .and_then(|word| values::boolean(&word))
            .unwrap_or(true),
    };
    Ok(value != off)
}

fn missing(typed: &str) -> UsageError {
    UsageError(format!("{typed}: a value has to follow"))
}

/// The texts up to the next flag.
fn list(typed: &str, inline: Option<String>, words: &mut Words) -> Result<Vec<String>, UsageError> {
    if let Some(value) = inline {
        return Ok(vec![value]);
    }
    let values: Vec<String> =
        std::iter::from_fn(|| words.next_if(|word| !word.starts_with("--"))).collect();
    if values.is_empty() { Err(missing(typed)) } else { Ok(values) }
}

/// One value. A negative number counts as a value, another flag does not.
fn single(
    typed: &str,
    flag: &Flag,
    inline: Option<String>,
    words: &mut Words,
) -> Result<String, UsageError> {
    let is_value = |word: &String| {
        !word.starts_with('-') || word == "-" || word[1..].starts_with(|c: char| c.is_ascii_digit())
    };
    let value = inline.or_else(|| words.next_if(is_value)).ok_or_else(|| missing(typed))?;
    if let Value::Choice(known) = flag.value
        && matches!(flag.kind, Kind::Obeyed { .. })
    {
        let found = known.iter().find(|word| word.eq_ignore_ascii_case(&value));
        return found.map(|&word| word.to_owned()).ok_or_else(|| {
            UsageError(format!("{typed}: {value:?} is not one of {}", known.join(", ")))
        });
    }
    Ok(value)
}
