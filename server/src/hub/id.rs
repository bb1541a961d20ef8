//! What a model is called on the hub.

use std::fmt;

use super::files::is_model_file;

/// A repository, and optionally which revision and which file of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubId {
    /// Owner.
    pub owner: String,
    /// Name.
    pub name: String,
    /// Branch, tag or commit.
    pub revision: Option<String>,
    /// One file among several: a `.gguf` file, or a classic model.
    pub file: Option<String>,
}

impl HubId {
    /// Reads `org/name`, `org/name@revision`, `org/name:file.gguf`, any of them after `hf://`, where
    /// `:revision` is known too.
    ///
    /// # Errors
    /// What is wrong with the text, and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (rest, address) = match text.strip_prefix("hf://") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let wrong = |what: &str| {
            format!(
                "{text:?} is not a hub id: {what} (org/name, org/name@revision, org/name:file.gguf)"
            )
        };
        let (rest, after) = match rest.split_once(':') {
            Some((rest, after)) => (rest, Some(after)),
            None => (rest, None),
        };
        let (rest, mut revision) = match rest.split_once('@') {
            Some((rest, revision)) => (rest, Some(revision)),
            None => (rest, None),
        };
        let mut file = None;
        match after {
            None => {}
            Some(after) if is_model_file(after) => file = Some(after),
            Some(after) if address && revision.is_none() => revision = Some(after),
            Some(_) => return Err(wrong("only the file of a model can follow the colon")),
        }
        let (owner, name) = rest.split_once('/').ok_or_else(|| wrong("the owner is missing"))?;
        if !is_segment(owner) || !is_segment(name) {
            return Err(wrong("owner and name are letters, digits, '-', '_' and '.'"));
        }
        if let Some(revision) = revision
            && !revision.split('/').all(is_segment)
        {
            return Err(wrong("this is not the name of a revision"));
        }
        if let Some(file) = file
            && !is_relative(file)
        {
            return Err(wrong("the file has to lie in the repository"));
        }
        Ok(Self {
            owner: owner.to_owned(),
            name: name.to_owned(),
            revision: revision.map(str::to_owned),
            file: file.map(str::to_owned),
        })
    }

    /// `org/name`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }
}

impl fmt::Display for HubId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)?;
        if let Some(revision) = &self.revision {
            write!(f, "@{revision}")?;
        }
        self.file.as_ref().map_or(Ok(()), |file| write!(f, ":{file}"))
    }
}

/// One part of a path that is neither empty nor a step upwards.
fn is_segment(text: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
    !text.is_empty() && text.chars().all(known) && !text.chars().all(|c| c == '.')
}

/// A path that stays below the directory it is joined to.
pub(super) fn is_relative(path: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', '\0', ':'])
    };
    path.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_and_printed() {
        for (text, want) in [
            ("org/name", "org/name"),
            ("org/name@refs/pr/1", "org/name@refs/pr/1"),
            ("org/na.me-1:q4_0.gguf", "org/na.me-1:q4_0.gguf"),
            ("org/name@v1:sub/q4.gguf", "org/name@v1:sub/q4.gguf"),
            ("hf://org/name", "org/name"),
            ("hf://org/name:v2", "org/name@v2"),
        ] {
            assert_eq!(HubId::parse(text).map(|id| id.to_string()), Ok(want.to_owned()), "{text}");
        }
        for text in [
            "name",
            "/name",
            "org/",
            "a/b/c",
            "../name",
            "org/..",
            "org/name:v2",
            "org/name@",
            "org/na me",
            "org/name@../x",
            "org/name:../x.gguf",
            "org/name@v1:v2",
            "",
        ] {
            assert!(HubId::parse(text).is_err(), "{text}");
        }
    }
}
