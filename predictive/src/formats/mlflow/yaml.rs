//! The YAML that MLflow writes: nested mappings of scalars, as PyYAML's dumper lays them out. Sequences are skipped,
//! since nothing that is needed is in one. Anchors, tags and flow mappings are not read: their text is the value.

use crate::error::Fault;

/// Bytes of a file at most.
pub(super) const MAX_BYTES: usize = 1 << 20;

/// Mappings inside each other at most.
const MAX_DEPTH: usize = 16;

/// The scalars of a document, each with the keys that lead to it.
#[derive(Debug)]
pub(super) struct Document(Vec<(Vec<String>, String)>);

impl Document {
    /// Reads a whole document.
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        let mut lines = Lines { lines: text.lines().collect(), next: 0 };
        let mut scalars = Vec::new();
        // The mappings that are open: how far their key is indented, and the key.
        let mut open: Vec<(usize, String)> = Vec::new();
        // Lines further in than this belong to an item of a sequence.
        let mut item = None;
        while let Some(line) = lines.take() {
            let content = line.trim_start_matches(' ');
            let indent = line.len() - content.len();
            if content.is_empty() || content.starts_with('#') || content == "---" {
                continue;
            }
            if item.is_some_and(|item| indent > item) {
                continue;
            }
            item = (content == "-" || content.starts_with("- ")).then_some(indent);
            if item.is_some() {
                continue;
            }
            while open.last().is_some_and(|(outer, _)| *outer >= indent) {
                open.pop();
            }
            let Some((key, value)) = entry(content) else {
                return Err(lines.wrong("expected `key: value`"));
            };
            if value.is_empty() {
                if open.len() >= MAX_DEPTH {
                    return Err(lines.wrong(format!("more than {MAX_DEPTH} nested mappings")));
                }
                open.push((indent, key.to_owned()));
                continue;
            }
            let value = lines.scalar(value, indent)?;
            let path = open.iter().map(|(_, key)| key.clone()).chain([key.to_owned()]);
            scalars.push((path.collect(), value));
        }
        Ok(Self(scalars))
    }

    /// The scalar at a path of keys; `None` when it is not there, or null.
    pub(super) fn get(&self, path: &[&str]) -> Option<&str> {
        let found = self.0.iter().find(|(keys, _)| keys == path);
        found.map(|(_, value)| value.as_str()).filter(|value| !matches!(*value, "null" | "~"))
    }

    /// The keys directly below a path, each once.
    pub(super) fn keys(&self, path: &[&str]) -> Vec<&str> {
        let below = self.0.iter().filter(|(keys, _)| {
            keys.len() > path.len() && keys.iter().zip(path).all(|(key, wanted)| key == wanted)
        });
        let mut keys: Vec<&str> = below.map(|(keys, _)| keys[path.len()].as_str()).collect();
        keys.dedup();
        keys
    }
}

/// Key and value of a line of a mapping.
fn entry(content: &str) -> Option<(&str, &str)> {
    let (key, value) = match content.strip_suffix(':') {
        Some(key) if !key.contains(": ") => (key, ""),
        _ => content.split_once(": ")?,
    };
    Some((key.trim().trim_matches(['"', '\'']), value.trim()))
}

/// The lines of a document.
struct Lines<'a> {
    lines: Vec<&'a str>,
    next: usize,
}

impl<'a> Lines<'a> {
    fn take(&mut self) -> Option<&'a str> {
        let line = self.lines.get(self.next).copied();
        self.next += 1;
        line
    }

    fn wrong(&self, reason: impl Into<String>) -> Fault {
        Fault::corrupt(format!("line {}", self.next), reason)
    }

    /// The scalar that begins with `value` behind a key that is `indent` far in.
    fn scalar(&mut self, value: &str, indent: usize) -> Result<String, Fault> {
        match value.as_bytes().first() {
            Some(b'\'') => self.quoted(&value[1..], single),
            Some(b'"') => self.quoted(&value[1..], double),
            _ => {
                let mut text = value.to_owned();
                while let Some(line) = self.lines.get(self.next) {
                    let inner = line.trim_start_matches(' ');
                    if inner.is_empty() || line.len() - inner.len() <= indent {
                        break;
                    }
                    text.push(' ');
                    text.push_str(inner.trim_end());
                    self.next += 1;
                }
                Ok(text)
            }
        }
    }

    /// A quoted scalar, whose lines are joined by a space, or by a line end for each empty line between them.
    fn quoted(&mut self, first: &str, read: Reader) -> Result<String, Fault> {
        let mut text = String::new();
        let mut line = first;
        let mut empty = 0;
        loop {
            match read(line, &mut text) {
                End::Closed => return Ok(text),
                End::Wrong(reason) => return Err(self.wrong(reason)),
                End::Joined => empty = usize::MAX,
                End::Open => {}
            }
            loop {
                line = self.take().ok_or_else(|| self.wrong("a quoted text does not end"))?.trim();
                if !line.is_empty() {
                    break;
                }
                empty = empty.saturating_add(1);
            }
            match empty {
                usize::MAX => {}
                0 => text.push(' '),
                lines => text.extend(std::iter::repeat_n('\n', lines)),
            }
            empty = 0;
        }
    }
}

/// Appends a line of a quoted scalar.
type Reader = fn(&str, &mut String) -> End;

/// How a line of a quoted scalar ends.
enum End {
    Closed,
    Open,
    /// With a backslash: the next line follows without a space.
    Joined,
    Wrong(&'static str),
}

fn single(line: &str, text: &mut String) -> End {
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        if c == '\'' && rest.next_if_eq(&'\'').is_none() {
            return End::Closed;
        }
        text.push(c);
    }
    trim_end(text)
}

fn double(line: &str, text: &mut String) -> End {
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        let escaped = match c {
            '"' => return End::Closed,
            '\\' => rest.next(),
            other => {
                text.push(other);
                continue;
            }
        };
        let digits = match escaped {
            None => return End::Joined,
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            Some(plain) => {
                text.push(match plain {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    '0' => '\0',
                    ' ' | '"' | '\\' | '/' => plain,
                    _ => return End::Wrong("an escape that is not known"),
                });
                continue;
            }
        };
        let code: String = rest.by_ref().take(digits).collect();
        match u32::from_str_radix(&code, 16).ok().and_then(char::from_u32) {
            Some(c) if code.len() == digits => text.push(c),
            _ => return End::Wrong("an escape that is no character"),
        }
    }
    trim_end(text)
}

fn trim_end(text: &mut String) -> End {
    text.truncate(text.trim_end_matches(' ').len());
    End::Open
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"flavors:
  python_function:
    env:
      conda: conda.yaml
    loader_module: mlflow.sklearn
  sklearn:
    code: null
    trusted:
    - one: two
      three: four
    - pickled_model: hidden.pkl
    pickled_model: model.pkl
    plain: text that goes
      on
signature:
  inputs: '[{"name":
    "b''s"},

    {}]'
  outputs: "a\u00fc\
    \ b"
time: '2026'
"#;

    #[test]
    fn what_the_dumper_writes_is_read() {
        let document = Document::parse(TEXT).unwrap();
        assert_eq!(document.keys(&["flavors"]), ["python_function", "sklearn"]);
        let cases: [(&[&str], Option<&str>); 8] = [
            (&["flavors", "python_function", "env", "conda"], Some("conda.yaml")),
            (&["flavors", "sklearn", "code"], None),
            (&["flavors", "sklearn", "pickled_model"], Some("model.pkl")),
            (&["flavors", "sklearn", "plain"], Some("text that goes on")),
            (&["signature", "inputs"], Some("[{\"name\": \"b's\"},\n{}]")),
            (&["signature", "outputs"], Some("aü b")),
            (&["time"], Some("2026")),
            (&["nothing"], None),
        ];
        for (path, wanted) in cases {
            assert_eq!(document.get(path), wanted, "{path:?}");
        }
    }

    #[test]
    fn cut_and_deep_documents_are_refused_without_a_panic() {
        let whole = TEXT.trim_end().len();
        for length in 0..whole {
            if TEXT.is_char_boundary(length) {
                let _ = Document::parse(&TEXT[..length]);
            }
        }
        let cut = &TEXT[..TEXT.find("{}]").unwrap()];
        assert!(Document::parse(cut).unwrap_err().to_string().contains("does not end"));
        let deep: String = (0..100).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
        assert!(Document::parse(&deep).unwrap_err().to_string().contains("nested mappings"));
        assert!(Document::parse("a: \"\\q\"").is_err());
        assert!(Document::parse("no mapping").is_err());
    }
}
