//! What is asked: synthetic prompts from a seed, or lines of a file.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use super::random::Random;

/// Words of one token each in most vocabularies.
const WORDS: [&str; 48] = [
    "time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world",
    "school", "state", "family", "student", "group", "country", "problem", "hand", "part", "place",
    "case", "week", "company", "system", "program", "question", "work", "number", "night", "point",
    "home", "water", "room", "mother", "area", "money", "story", "fact", "month", "lot", "right",
    "study", "book", "eye", "job", "word", "house",
];

/// One request to be made.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Prompt {
    /// Chat messages, as JSON.
    pub(super) messages: Value,
    /// Its own limit, when the file gives one.
    pub(super) max_tokens: Option<u32>,
}

impl Prompt {
    /// The messages' texts, for the completions route.
    pub(super) fn text(&self) -> String {
        let messages = self.messages.as_array().map(Vec::as_slice).unwrap_or_default();
        let texts: Vec<&str> =
            messages.iter().filter_map(|message| message["content"].as_str()).collect();
        texts.join("\n")
    }
}

/// Shape of synthetic prompts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) words: usize,
    pub(super) shared_words: usize,
    pub(super) seed: u64,
}

/// `count` prompts of the shape. The first `shared_words` words are the same in all of them, the rest
/// differs from its first word on, so that only the shared part can be found in a prefix cache.
pub(super) fn synthetic(count: usize, shape: Shape) -> Vec<Prompt> {
    let mut shared = Random::new(shape.seed);
    let prefix = text(&mut shared, shape.shared_words);
    let one = |index: usize| {
        let mut random = Random::new(shape.seed ^ (index as u64 + 1).wrapping_mul(0x9e37_79b9));
        let own = text(&mut random, shape.words.saturating_sub(shape.shared_words + 1));
        let content = format!("{prefix} {index} {own}");
        Prompt { messages: user(content.trim()), max_tokens: None }
    };
    (0..count).map(one).collect()
}

/// `count` prompts of a JSON Lines file, from its start again when it is shorter. A line is
/// `{"messages": [...]}` or `{"prompt": "..."}`, with `max_tokens` if it wants.
pub(super) fn from_file(path: &Path, count: usize) -> anyhow::Result<Vec<Prompt>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut prompts = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let prompt = parse(line).with_context(|| format!("{}:{}", path.display(), index + 1))?;
        prompts.push(prompt);
    }
    ensure!(!prompts.is_empty(), "{}: no line holds a prompt", path.display());
    Ok(prompts.iter().cycle().take(count).cloned().collect())
}

fn parse(line: &str) -> anyhow::Result<Prompt> {
    let value: Value = serde_json::from_str(line)?;
    let messages = match (&value["messages"], &value["prompt"]) {
        (messages @ Value::Array(list), _) if !list.is_empty() => messages.clone(),
        (_, Value::String(prompt)) => user(prompt),
        _ => bail!("expected \"messages\" (a list) or \"prompt\" (a text)"),
    };
    let max_tokens = match &value["max_tokens"] {
        Value::Null => None,
        number => {
            let tokens = number.as_u64().and_then(|tokens| u32::try_from(tokens).ok());
            Some(
                tokens
                    .filter(|&tokens| tokens > 0)
                    .context("max_tokens is not a positive number")?,
            )
        }
    };
    Ok(Prompt { messages, max_tokens })
}

fn user(content: &str) -> Value {
    json!([{"role": "user", "content": content}])
}

fn text(random: &mut Random, words: usize) -> String {
    let words: Vec<&str> = (0..words).map(|_| WORDS[random.below(WORDS.len())]).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synthetic_prompts_are_the_same_for_a_seed_and_share_only_their_prefix() {
        let shape = Shape { words: 30, shared_words: 10, seed: 1 };
        let prompts = synthetic(3, shape);
        assert_eq!(prompts, synthetic(3, shape));
        let words: Vec<Vec<String>> = prompts
            .iter()
            .map(|prompt| prompt.text().split(' ').map(str::to_owned).collect())
            .collect();
        assert!(words.iter().all(|words| words.len() == 30));
        assert_eq!(words[0][..10], words[1][..10]);
        assert_ne!(words[0][10], words[1][10]);
        assert_ne!(words[0][11..], words[1][11..]);
    }

    #[test]
    fn lines_are_prompts_or_messages() {
        let messages =
            parse(r#"{"messages":[{"role":"user","content":"a"}],"max_tokens":5}"#).unwrap();
        assert_eq!((messages.text().as_str(), messages.max_tokens), ("a", Some(5)));
        assert_eq!(parse(r#"{"prompt":"b"}"#).unwrap().text(), "b");
        for line in ["{", "{}", r#"{"messages":[]}"#, r#"{"prompt":"b","max_tokens":-1}"#] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
