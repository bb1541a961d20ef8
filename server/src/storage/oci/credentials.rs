//! Who we are to a registry: the `config.json` of Docker, and the challenge of a registry that wants to know.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::collections::BTreeMap;

use super::reference::Reference;
use crate::storage::StorageError;

/// The variable that names the file.
const VARIABLE: &str = "KSERVE_OCI_DOCKER_CONFIG";

/// What a registry's token server is shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    /// Sent as they are, or exchanged for a token.
    Password { user: String, password: String },
    /// Exchanged for a token.
    Refresh(String),
}

/// What of a `config.json` concerns us.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// The credentials that a file keeps for a registry; none when there is no file, or nothing about it in it.
pub(super) fn read(
    file: &Path,
    reference: &Reference,
) -> Result<Option<Credentials>, StorageError> {
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StorageError::io(file)(error)),
    };
    let wrong =
        |reason: &str| StorageError::setting(VARIABLE, format!("{}: {reason}", file.display()));
    // What the parser says may quote a password.
    let config: DockerConfig = serde_json::from_slice(&text)
        .map_err(|error| wrong(&format!("no config.json of Docker (line {})", error.line())))?;
    let keys = reference.keys();
    let entry = keys.iter().find_map(|key| config.auths.get(key));
    if let Some(found) = entry.map(Auth::credentials) {
        let malformed = || wrong("the registry's \"auth\" is not base64 of user:password");
        let found = found.ok_or_else(malformed)?;
        if found.is_some() {
            return Ok(found);
        }
    }
    let helper =
        keys.iter().find_map(|key| config.cred_helpers.get(key)).or(config.creds_store.as_ref());
    if let Some(helper) = helper {
        let registry = &reference.registry;
        tracing::warn!(registry, helper, "credential helpers are not run; pulling anonymously");
    }
    Ok(None)
}

impl Auth {
    /// Absent when malformed; none when the entry is empty, as a helper leaves it.
    fn credentials(&self) -> Option<Option<Credentials>> {
        if let Some(token) = self.identitytoken.as_ref().filter(|token| !token.is_empty()) {
            return Some(Some(Credentials::Refresh(token.clone())));
        }
        if let Some(auth) = self.auth.as_ref().filter(|auth| !auth.is_empty()) {
            let decoded = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
            let (user, password) = decoded.split_once(':')?;
            let (user, password) = (user.to_owned(), password.trim_end_matches('\0').to_owned());
            return Some(Some(Credentials::Password { user, password }));
        }
        let pair = (self.username.clone(), self.password.clone());
        let (Some(user), Some(password)) = pair else { return Some(None) };
        Some(Some(Credentials::Password { user, password }))
    }
}

/// What a registry wants to see.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    /// A token of the server at `realm`.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

impl Challenge {
    /// Reads a `WWW-Authenticate` header.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let (scheme, parameters) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut named = parameters_of(parameters);
        let realm = named.remove("realm")?;
        Some(Self::Bearer { realm, service: named.remove("service"), scope: named.remove("scope") })
    }
}

/// `key="value, with commas", other=word`
fn parameters_of(mut text: &str) -> BTreeMap<String, String> {
    let mut named = BTreeMap::new();
    while let Some((key, rest)) = text.split_once('=') {
        let (value, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_at(rest.find(',').unwrap_or(rest.len())),
        };
        let key = key.trim_matches([',', ' ']).to_ascii_lowercase();
        named.insert(key, value.trim().to_owned());
        text = after;
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        let hub = "Bearer realm=\"https://a/token\",service=\"s\",scope=\"repository:x:pull,push\"";
        let bearer = |service: Option<&str>, scope: Option<&str>| Challenge::Bearer {
            realm: "https://a/token".to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        };
        for (header, want) in [
            (hub, Some(bearer(Some("s"), Some("repository:x:pull,push")))),
            ("bearer Realm=https://a/token, error=\"x\"", Some(bearer(None, None))),
            ("Basic realm=\"r\"", Some(Challenge::Basic)),
            ("Bearer service=\"s\"", None),
            ("Negotiate", None),
            ("Bearer realm", None),
        ] {
            assert_eq!(Challenge::parse(header), want, "{header}");
        }
    }

    #[test]
    fn files_of_docker() {
        let reference = Reference::parse("r.io:5000/n").unwrap();
        let password = |user: &str, password: &str| {
            let (user, password) = (user.to_owned(), password.to_owned());
            Ok(Some(Credentials::Password { user, password }))
        };
        let auth = STANDARD.encode("me:a:b");
        let file =
            std::env::temp_dir().join(format!("tokenmill-docker-{}.json", std::process::id()));
        for (text, want) in [
            (format!(r#"{{"auths":{{"r.io:5000":{{"auth":"{auth}"}}}}}}"#), password("me", "a:b")),
            (
                format!(r#"{{"auths":{{"https://r.io:5000":{{"auth":"{auth}"}}}}}}"#),
                password("me", "a:b"),
            ),
            (
                r#"{"auths":{"r.io":{"username":"u","password":"p"}}}"#.to_owned(),
                password("u", "p"),
            ),
            (
                r#"{"auths":{"r.io":{"identitytoken":"t"}}}"#.to_owned(),
                Ok(Some(Credentials::Refresh("t".to_owned()))),
            ),
            (format!(r#"{{"auths":{{"other":{{"auth":"{auth}"}}}}}}"#), Ok(None)),
            (r#"{"auths":{"r.io":{}},"credsStore":"x"}"#.to_owned(), Ok(None)),
            (r#"{"auths":{"r.io":{"auth":"secret!"}}}"#.to_owned(), Err("not base64")),
            ("secret".to_owned(), Err("no config.json")),
        ] {
            std::fs::write(&file, &text).unwrap();
            match (read(&file, &reference), want) {
                (Ok(got), Ok(want)) => assert!(got == want, "{text}"),
                (Err(error), Err(part)) => {
                    let error = error.to_string();
                    assert!(error.starts_with(VARIABLE) && error.contains(part), "{error}");
                    assert!(!error.contains("secret"), "{error}");
                }
                _ => panic!("{text}"),
            }
        }
        std::fs::remove_file(&file).unwrap();
        assert!(read(&file, &reference).unwrap().is_none());
    }
}
