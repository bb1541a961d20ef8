//! What names an image: `registry/repository[:tag][@digest]`, as Docker reads it.

/// An image of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    /// Host, with a port if there is one, as it was given: under this name the credentials are kept.
    pub(super) registry: String,
    pub(super) repository: String,
    /// Tag, or digest when there is one.
    pub(super) version: Version,
}

/// Which of a repository's images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Tag(String),
    Digest(Digest),
}

/// The checksum that names a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Digest {
    pub(super) algorithm: &'static ring::digest::Algorithm,
    /// As it is written: `sha256:...`.
    pub(super) text: String,
}

/// The registry of names without one, and where it answers.
const HUB: &str = "docker.io";
const HUB_HOST: &str = "registry-1.docker.io";

impl Reference {
    /// Reads what follows `oci://`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(Digest::parse(digest)?)),
            None => (text, None),
        };
        // A colon before the last slash belongs to the host's port.
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (name, None),
        };
        let is_host = |part: &str| part.contains(['.', ':']) || part == "localhost";
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if is_host(first) => (first, rest.to_owned()),
            _ => (HUB, name.to_owned()),
        };
        let bare = registry == HUB && !repository.contains('/');
        let repository = if bare { format!("library/{repository}") } else { repository };
        if !repository.split('/').all(is_component) {
            return Err(format!(
                "{repository:?} is no repository (lower-case letters and digits, parted by . _ - and /)"
            ));
        }
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(format!(
                "{tag:?} is no tag (at most 128 letters, digits, . _ -, the first no . or -)"
            ));
        }
        let version = match digest {
            Some(digest) => Version::Digest(digest),
            None => Version::Tag(tag.unwrap_or("latest").to_owned()),
        };
        Ok(Self { registry: registry.to_owned(), repository, version })
    }

    /// The host that answers for the registry.
    pub(super) fn host(&self) -> &str {
        match self.registry.as_str() {
            HUB | "index.docker.io" => HUB_HOST,
            other => other,
        }
    }

    /// The names under which a `config.json` keeps its credentials.
    pub(super) fn keys(&self) -> Vec<String> {
        let registry = &self.registry;
        let mut keys = vec![
            registry.clone(),
            format!("https://{registry}"),
            registry.split(':').next().unwrap_or_default().to_owned(),
        ];
        if self.host() == HUB_HOST {
            keys.push("https://index.docker.io/v1/".to_owned());
        }
        keys
    }
}

impl Version {
    /// As an address has it.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Tag(tag) => tag,
            Self::Digest(digest) => &digest.text,
        }
    }
}

impl Digest {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (name, digits) = text.split_once(':').unwrap_or((text, ""));
        let (algorithm, length) = match name {
            "sha256" => (&ring::digest::SHA256, 64),
            "sha512" => (&ring::digest::SHA512, 128),
            _ => return Err(format!("{text:?} is no digest (sha256:... or sha512:...)")),
        };
        let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if digits.len() != length || !digits.bytes().all(hexadecimal) {
            return Err(format!("{text:?} is no digest ({length} lower-case hexadecimal digits)"));
        }
        Ok(Self { algorithm, text: text.to_owned() })
    }

    /// Whether the bytes that were hashed are those that this names; why not.
    pub(super) fn check(&self, context: ring::digest::Context) -> Result<(), String> {
        let found = hexadecimal(&context.finish());
        match found == self.digits() {
            true => Ok(()),
            false => Err(format!("the bytes of {} have the digest {found}", self.text)),
        }
    }

    /// What follows the name of the algorithm.
    pub(super) fn digits(&self) -> &str {
        self.text.rsplit(':').next().unwrap_or_default()
    }
}

/// A checksum in hexadecimal digits.
pub(super) fn hexadecimal(digest: &ring::digest::Digest) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_component(part: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let known = |byte: u8| letter(byte) || b"._-".contains(&byte);
    let bytes = part.as_bytes();
    bytes.iter().all(|&byte| known(byte))
        && bytes.first().is_some_and(|&byte| letter(byte))
        && bytes.last().is_some_and(|&byte| letter(byte))
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=128).contains(&tag.len())
        && tag.bytes().all(|byte| word(byte) || b".-".contains(&byte))
        && tag.as_bytes().first().is_some_and(|&byte| word(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for (text, registry, repository, version) in [
            ("r.io/o/n:v1", "r.io", "o/n", "v1"),
            ("localhost/n", "localhost", "n", "latest"),
            ("127.0.0.1:5000/a/b_c-d.e", "127.0.0.1:5000", "a/b_c-d.e", "latest"),
            (&format!("r.io:1/n:t@{digest}"), "r.io:1", "n", &digest),
            ("org/name:1", "docker.io", "org/name", "1"),
            ("docker.io/name", "docker.io", "library/name", "latest"),
        ] {
            let got = Reference::parse(text).expect(text);
            assert_eq!((got.registry.as_str(), got.repository.as_str()), (registry, repository));
            assert_eq!(got.version.text(), version);
        }
        let hub = Reference::parse("org/name").unwrap();
        assert_eq!(hub.host(), "registry-1.docker.io");
        assert!(hub.keys().contains(&"https://index.docker.io/v1/".to_owned()));
        for (text, part) in [
            ("r.io/Upper", "no repository"),
            ("r.io/a//b", "no repository"),
            ("r.io/a/../b", "no repository"),
            ("r.io/", "no repository"),
            ("r.io/n:.tag", "no tag"),
            ("r.io/n:", "no tag"),
            ("r.io/n@sha256:00", "no digest"),
            ("r.io/n@md5:00", "no digest"),
        ] {
            let error = Reference::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
