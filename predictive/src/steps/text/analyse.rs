//! From a text to its tokens: letter case, accents, words or characters, n-grams, stop words.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use regex::Regex;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::stop_words::ENGLISH;
use crate::error::Fault;
use crate::pickle::{Object, Value};
use crate::steps::input;

/// How a text becomes tokens.
pub(super) struct Analyzer {
    lower: bool,
    accents: Accents,
    units: Units,
    /// Least and greatest number of units in a token.
    lengths: (usize, usize),
}

enum Accents {
    Kept,
    Ascii,
    Unicode,
}

enum Units {
    Words {
        words: Words,
        stops: HashSet<Arc<str>>,
    },
    Characters,
    /// Characters within words.
    Bounded,
}

/// What a word is.
enum Words {
    /// The longest runs of word characters, of at least this many.
    Runs(usize),
    /// Matches of a pattern, or of its one group; whether it asks for borders of words.
    Pattern(Regex, bool),
}

/// The longest n-gram that is accepted, so that a file cannot ask for endless work.
const MAX_LENGTH: usize = 100;

impl Analyzer {
    /// The analyser of a vectoriser's parameters.
    ///
    /// # Errors
    /// When one is a function, or not known.
    pub(super) fn new(object: Object<'_>) -> Result<Self, Fault> {
        for name in ["preprocessor", "tokenizer"] {
            if let Some(function) = object.some(name) {
                let what = format!("{}.{name} is {}", object.class, function.describe());
                let advice = "functions are not carried out; only None is supported";
                return Err(Fault::unsupported(format!("{what}; {advice}")));
            }
        }
        if let Some(input) = object.some("input").filter(|input| input.as_str() != Some("content"))
        {
            let reason = format!("{} is not supported; content is", input.describe());
            return Err(object.wrong("input", reason));
        }
        let lengths = object.vector("ngram_range", Some(2))?;
        let length = |number: f64| number >= 1.0 && number <= MAX_LENGTH as f64;
        if !length(lengths[0]) || !length(lengths[1]) {
            return Err(object.wrong("ngram_range", format!("expected 1 to {MAX_LENGTH}")));
        }
        let accents = match object.some("strip_accents").map(|value| (value.as_str(), value)) {
            None => Accents::Kept,
            Some((Some("ascii"), _)) => Accents::Ascii,
            Some((Some("unicode"), _)) => Accents::Unicode,
            Some((_, value)) => {
                let what = format!("{}.strip_accents is {}", object.class, value.describe());
                return Err(Fault::unsupported(format!(
                    "{what}; ascii, unicode and None are known"
                )));
            }
        };
        let analyzer = object.attribute("analyzer")?;
        let units = match analyzer.as_str() {
            Some("word") => Units::Words { words: words(object)?, stops: stops(object)? },
            Some("char") => Units::Characters,
            Some("char_wb") => Units::Bounded,
            _ => {
                let what = format!("{}.analyzer is {}", object.class, analyzer.describe());
                return Err(Fault::unsupported(format!(
                    "{what}; word, char and char_wb are known"
                )));
            }
        };
        let lengths = (lengths[0] as usize, lengths[1] as usize);
        Ok(Analyzer { lower: object.bool("lowercase")?, accents, units, lengths })
    }

    /// Calls `each` with every token, as often as it occurs.
    pub(super) fn tokens(&self, text: &str, mut each: impl FnMut(&str)) {
        let mut text = std::borrow::Cow::Borrowed(text);
        if self.lower {
            text = text.to_lowercase().into();
        }
        match self.accents {
            Accents::Unicode if !text.is_ascii() => {
                text = text.nfkd().filter(|&letter| !combines(letter)).collect::<String>().into();
            }
            Accents::Ascii if !text.is_ascii() => {
                text = text.nfkd().filter(char::is_ascii).collect::<String>().into();
            }
            _ => {}
        }
        match &self.units {
            Units::Words { words, stops } => {
                let mut found = Vec::new();
                words.split(&text, |word| {
                    if !stops.contains(word) {
                        found.push(word);
                    }
                });
                self.join(&found, each);
            }
            Units::Characters => {
                let text = collapse(&text);
                self.slide(&text, self.lengths.0, &mut each);
            }
            Units::Bounded => {
                for word in text.split(is_space).filter(|word| !word.is_empty()) {
                    self.bounded(&format!(" {word} "), &mut each);
                }
            }
        }
    }

    /// Words joined by spaces.
    fn join(&self, words: &[&str], mut each: impl FnMut(&str)) {
        let mut token = String::new();
        for length in self.lengths.0..=self.lengths.1.min(words.len()) {
            if length == 1 {
                words.iter().for_each(|word| each(word));
                continue;
            }
            for words in words.windows(length) {
                token.clear();
                for (index, word) in words.iter().enumerate() {
                    if index > 0 {
                        token.push(' ');
                    }
                    token.push_str(word);
                }
                each(&token);
            }
        }
    }

    /// Every stretch of characters.
    fn slide(&self, text: &str, least: usize, each: &mut impl FnMut(&str)) {
        let starts = starts(text);
        let count = starts.len() - 1;
        for length in least..=self.lengths.1.min(count) {
            for at in 0..=count - length {
                each(&text[starts[at]..starts[at + length]]);
            }
        }
    }

    /// Every stretch of a padded word; one that is shorter than a length counts once, whole.
    fn bounded(&self, word: &str, each: &mut impl FnMut(&str)) {
        let starts = starts(word);
        let count = starts.len() - 1;
        for length in self.lengths.0..=self.lengths.1 {
            if length >= count {
                each(word);
                return;
            }
            for at in 0..=count - length {
                each(&word[starts[at]..starts[at + length]]);
            }
        }
    }
}

/// Byte offset of every character, and the end.
fn starts(text: &str) -> Vec<usize> {
    text.char_indices().map(|(at, _)| at).chain([text.len()]).collect()
}

/// Python's `unicodedata.combining`: a combining class above 0.
fn combines(letter: char) -> bool {
    is_combining_mark(letter) && unicode_normalization::char::canonical_combining_class(letter) != 0
}

/// Python's `str.isspace`.
fn is_space(letter: char) -> bool {
    letter.is_whitespace() || matches!(letter, '\x1c'..='\x1f')
}

/// Runs of two or more white spaces become one space.
fn collapse(text: &str) -> String {
    let mut answer = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let mut run = 1;
        while is_space(letter) && letters.next_if(|&next| is_space(next)).is_some() {
            run += 1;
        }
        answer.push(if run > 1 { ' ' } else { letter });
    }
    answer
}

impl Words {
    fn split<'t>(&self, text: &'t str, mut each: impl FnMut(&'t str)) {
        match self {
            Words::Runs(least) => {
                for run in text.split(|letter| !is_word(letter)) {
                    if !run.is_empty() && (*least == 1 || run.chars().nth(least - 1).is_some()) {
                        each(run);
                    }
                }
            }
            Words::Pattern(pattern, false) => find(pattern, text, |range| each(&text[range])),
            Words::Pattern(pattern, true) => {
                let shadow: String = text.chars().map(stand_in).collect();
                let (from, to) = (starts(&shadow), starts(text));
                // Matches lie between characters, and both texts have as many.
                let at = |offset: usize| to[from.partition_point(|&start| start < offset)];
                find(pattern, &shadow, |range| each(&text[at(range.start)..at(range.end)]));
            }
        }
    }
}

/// Every match of a pattern, or what its one group matched (nothing when the group took no part).
fn find(pattern: &Regex, text: &str, mut each: impl FnMut(std::ops::Range<usize>)) {
    if pattern.captures_len() == 1 {
        return pattern.find_iter(text).for_each(|found| each(found.range()));
    }
    for found in pattern.captures_iter(text) {
        each(found.get(1).map_or(0..0, |group| group.range()));
    }
}

/// A character that is part of a word for expressions exactly where the given one is for Python, so that borders of
/// words are Python's: expressions count marks, and do not count numbers that are no digits.
fn stand_in(letter: char) -> char {
    static WORD: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^\w$").expect("the pattern is well formed"));
    if letter.is_ascii() {
        return letter;
    }
    match (is_word(letter), WORD.is_match(letter.encode_utf8(&mut [0; 4]))) {
        (true, false) => '\u{1bb}',
        (false, true) => '\u{a7}',
        _ => letter,
    }
}

/// Python's `\w`: letters, numbers of every kind, underscore; unlike the expressions' own it has no marks.
fn is_word(letter: char) -> bool {
    if letter.is_ascii() {
        return letter.is_ascii_alphanumeric() || letter == '_';
    }
    letter.is_alphanumeric() && (letter.is_numeric() || is_letter(letter))
}

/// Whether an alphabetic character is a letter by its category: `is_alphabetic` counts marks and circled letters too.
fn is_letter(letter: char) -> bool {
    static LETTER: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^\p{L}$").expect("the pattern is well formed"));
    LETTER.is_match(letter.encode_utf8(&mut [0; 4]))
}

fn words(object: Object<'_>) -> Result<Words, Fault> {
    let pattern = object.str("token_pattern")?;
    Ok(match pattern.strip_prefix("(?u)").unwrap_or(pattern) {
        r"\b\w\w+\b" | r"\w\w+" | r"\w{2,}" | r"\b\w{2,}\b" => Words::Runs(2),
        r"\b\w+\b" | r"\w+" | r"\w{1,}" | r"\b\w{1,}\b" => Words::Runs(1),
        _ => {
            let wrong = |reason: String| object.wrong("token_pattern", reason);
            let regex = Regex::new(&translate(pattern)).map_err(|error| {
                wrong(format!("{pattern:?} is not an expression that is supported: {error}"))
            })?;
            if regex.captures_len() > 2 {
                return Err(wrong(format!("{pattern:?} has more than one group")));
            }
            Words::Pattern(regex, pattern.contains(r"\b") || pattern.contains(r"\B"))
        }
    })
}

/// A Python pattern with its classes spelled out, whose meaning differs.
fn translate(pattern: &str) -> String {
    let mut answer = String::with_capacity(pattern.len());
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            // Within a class a bracket is literal, and outside it is a class of its own.
            answer.push(letter);
            continue;
        }
        match letters.next() {
            Some('w') => answer.push_str(r"[\p{L}\p{N}_]"),
            Some('W') => answer.push_str(r"[^\p{L}\p{N}_]"),
            Some('s') => answer.push_str(r"[\s\x1c-\x1f]"),
            Some('S') => answer.push_str(r"[^\s\x1c-\x1f]"),
            Some('Z') => answer.push_str(r"\z"),
            Some(other) => {
                answer.push('\\');
                answer.push(other);
            }
            None => answer.push('\\'),
        }
    }
    answer
}

fn stops(object: Object<'_>) -> Result<HashSet<Arc<str>>, Fault> {
    let Some(value) = object.some("stop_words") else { return Ok(HashSet::new()) };
    let listed = |value: Value<'_>| input::texts(value).map(|words| words.into_iter().collect());
    match value.as_str() {
        Some("english") => Ok(ENGLISH.split_whitespace().map(Arc::from).collect()),
        Some(other) => {
            Err(object
                .wrong("stop_words", format!("{other:?} is no list that is known; english is")))
        }
        None => listed(value).ok_or_else(|| object.wrong("stop_words", "expected words")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_pythons() {
        let check = |text: &str, wanted: &[&str]| {
            let mut found = Vec::new();
            Words::Runs(2).split(text, |word| found.push(word));
            assert_eq!(found, wanted, "{text}");
        };
        check("don't stop_it a bc", &["don", "stop_it", "bc"]);
        // The vowel signs are marks, which end a word; the superscript and the fraction are numbers.
        check("नमस्ते x² ½a", &["नमस", "x²", "½a"]);
        check("日本語 テキスト", &["日本語", "テキスト"]);
    }

    #[test]
    fn classes_are_spelled_out() {
        let pattern = Regex::new(&translate(r"[\w-]+\s")).unwrap();
        assert_eq!(pattern.find("a-b\u{1c}").map(|found| found.as_str()), Some("a-b\u{1c}"));
    }

    #[test]
    fn white_space_collapses_from_two_on() {
        assert_eq!(collapse("a \n b\tc"), "a b\tc");
    }
}
