//! Triton's `config.pbtxt`: the text form of protocol buffers as a tree of names and values, bounded and without a schema.

/// Longest file read.
const MAX_BYTES: usize = 1 << 20;
/// Deepest nesting.
const MAX_DEPTH: usize = 32;

/// A value of a field.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// A number, truth value or enumeration as written.
    Word(String),
    /// A quoted text.
    Text(String),
    /// A message.
    Message(Message),
}

/// Fields in order; a repeated field comes several times.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Message(Vec<(String, Value)>);

impl Message {
    /// The last value of a field.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// A message field.
    pub(super) fn message(&self, name: &str) -> Option<&Message> {
        match self.get(name)? {
            Value::Message(message) => Some(message),
            _ => None,
        }
    }

    /// A text field, or a word.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Value::Text(text) | Value::Word(text) => Some(text),
            Value::Message(_) => None,
        }
    }

    /// A whole number.
    ///
    /// # Errors
    /// When the field holds something else.
    pub(super) fn whole(&self, name: &str) -> Result<Option<u64>, String> {
        let parse = |text: &str| {
            text.parse().map_err(|_| format!("{name}: expected a whole number, found {text:?}"))
        };
        self.text(name).map(parse).transpose()
    }

    /// Every whole number of a repeated field.
    ///
    /// # Errors
    /// When one is something else.
    pub(super) fn numbers(&self, name: &str) -> Result<Vec<u64>, String> {
        let values = self.0.iter().filter(|(known, _)| known == name);
        let number = |(_, value): &(String, Value)| match value {
            Value::Word(text) => text.parse().ok(),
            _ => None,
        };
        let wrong = || format!("{name}: expected whole numbers");
        values.map(number).collect::<Option<_>>().ok_or_else(wrong)
    }

    /// Names of the fields.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }
}

/// Reads a configuration.
///
/// # Errors
/// Names the line and what was expected.
pub(super) fn parse(text: &str) -> Result<Message, String> {
    if text.len() > MAX_BYTES {
        return Err(format!("the configuration has more than {MAX_BYTES} bytes"));
    }
    let mut reader = Reader { rest: text, line: 1 };
    let message = reader.message(0)?;
    match reader.peek() {
        None => Ok(message),
        Some(found) => Err(reader.wrong(&format!("expected a field, found {found:?}"))),
    }
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '+')
}

impl Reader<'_> {
    fn wrong(&self, what: &str) -> String {
        format!("line {}: {what}", self.line)
    }

    /// The next character that is no space, comma, semicolon or comment.
    fn peek(&mut self) -> Option<char> {
        loop {
            let next = self.rest.chars().next()?;
            match next {
                '#' => self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest),
                ' ' | '\t' | '\r' | '\n' | ',' | ';' => self.rest = &self.rest[1..],
                _ => return Some(next),
            }
            if matches!(next, '#' | '\n') {
                self.line += 1;
            }
        }
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.rest = &self.rest[wanted.len_utf8()..];
        }
        found
    }

    fn word(&mut self) -> Result<String, String> {
        let found = self.peek();
        let length = self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len());
        if length == 0 {
            return Err(self.wrong(&format!("expected a name or value, found {found:?}")));
        }
        let (word, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(word.to_owned())
    }

    /// Fields until a closing brace or the end.
    fn message(&mut self, depth: usize) -> Result<Message, String> {
        if depth > MAX_DEPTH {
            return Err(self.wrong(&format!("messages are nested more than {MAX_DEPTH} deep")));
        }
        let mut fields = Vec::new();
        while !matches!(self.peek(), None | Some('}' | '>')) {
            let name = self.word()?;
            let colon = self.take(':');
            if self.take('[') {
                while !self.take(']') {
                    fields.push((name.clone(), self.value(colon, depth)?));
                }
            } else {
                fields.push((name, self.value(colon, depth)?));
            }
        }
        Ok(Message(fields))
    }

    fn value(&mut self, colon: bool, depth: usize) -> Result<Value, String> {
        match self.peek() {
            Some(open @ ('{' | '<')) => {
                self.take(open);
                let message = self.message(depth + 1)?;
                let close = if open == '{' { '}' } else { '>' };
                if !self.take(close) {
                    return Err(self.wrong(&format!("expected {close:?}")));
                }
                Ok(Value::Message(message))
            }
            Some(quote @ ('"' | '\'')) if colon => self.text(quote).map(Value::Text),
            Some(_) if colon => self.word().map(Value::Word),
            found => Err(self.wrong(&format!("expected ':' or a message, found {found:?}"))),
        }
    }

    fn text(&mut self, quote: char) -> Result<String, String> {
        self.take(quote);
        let mut text = String::new();
        let mut characters = self.rest.char_indices();
        while let Some((at, c)) = characters.next() {
            match c {
                '\n' => break,
                '\\' => match characters.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, escaped)) => text.push(escaped),
                    None => break,
                },
                _ if c == quote => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(text);
                }
                _ => text.push(c),
            }
        }
        Err(self.wrong("a text without its closing quote"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
        name: "iris"  # a comment
        max_batch_size: 8
        input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }, { name: "y" dims: 1 } ]
        dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 }
        version_policy: { specific { versions: [1, 3] } }
    "#;

    #[test]
    fn fields_messages_and_lists_are_read() {
        let config = parse(CONFIG).unwrap();
        assert_eq!(config.text("name"), Some("iris"));
        assert_eq!(config.whole("max_batch_size"), Ok(Some(8)));
        assert_eq!(config.names().filter(|name| *name == "input").count(), 2);
        let batching = config.message("dynamic_batching").unwrap();
        assert_eq!(batching.numbers("preferred_batch_size"), Ok(vec![4, 8]));
        let policy = config.message("version_policy").unwrap();
        assert_eq!(policy.message("specific").unwrap().numbers("versions"), Ok(vec![1, 3]));
    }

    #[test]
    fn wrong_text_names_its_line() {
        assert!(parse("name: \"a\"\nx").unwrap_err().starts_with("line 2"));
        assert!(parse("a {").unwrap_err().contains("expected '}'"));
        assert!(parse("a: \"open").unwrap_err().contains("closing quote"));
        assert!(parse("}").unwrap_err().contains("expected a field"));
        assert!(parse(&"a{".repeat(100_000)).unwrap_err().contains("deep"));
        assert!(parse("a: [").is_err());
    }
}
