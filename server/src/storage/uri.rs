//! What a model's address means: the schemes in the order in which KServe's own initialiser tries them.
//!
//! Addresses may carry passwords and signatures; what is printed of one never does.

use std::fmt;

use super::{KNOWN, Protocol};

/// An address of a model that has to be downloaded.
#[derive(Clone, PartialEq, Eq)]
pub struct StorageUri {
    /// As it was given, secrets included.
    text: String,
    /// What it means.
    pub(super) place: Place,
}

/// Where the files of an address are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// `gs://bucket/prefix`
    Gs(Bucket),
    /// `s3://bucket/prefix`
    S3(Bucket),
    /// `hdfs://path`, `webhdfs://path`: the path without a slash at its beginning.
    Hdfs(String),
    /// Blobs of Azure.
    AzureBlob(Azure),
    /// A file share of Azure.
    AzureFile(Azure),
    /// `modelscope://owner/model[:revision]`
    ModelScope(Snapshot),
    /// `oci://registry/name[:tag|@digest]`: what follows the scheme.
    Oci(String),
    /// A repository to clone.
    Git,
    /// One file.
    Http,
}

/// Keys of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bucket {
    pub(super) name: String,
    /// Without a slash at its beginning; may be empty.
    pub(super) prefix: String,
}

/// A container or a share of an Azure account.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Azure {
    pub(super) account: String,
    /// `account.blob.core.windows.net`, with a port if there is one.
    pub(super) host: String,
    /// Container or share.
    pub(super) container: String,
    /// Without slashes at its ends; may be empty.
    pub(super) prefix: String,
    /// What followed a `?`: a shared access signature.
    pub(super) query: Option<String>,
}

/// Signatures stay out of logs.
impl fmt::Debug for Azure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let query = self.query.as_ref().map(|_| "hidden");
        let Self { account, host, container, prefix, .. } = self;
        write!(f, "Azure {account:?} {host:?} {container:?} {prefix:?} {query:?}")
    }
}

/// A revision of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) owner: String,
    pub(super) name: String,
    pub(super) revision: Option<String>,
}

impl StorageUri {
    /// Reads an address that is neither a path nor one of the hub.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let unknown = || format!("Cannot recognize storage type for {}{KNOWN}", public(text));
        let (scheme, rest) = text.split_once("://").ok_or_else(unknown)?;
        let place = match scheme {
            "gs" => Place::Gs(bucket(text, rest)?),
            "s3" => Place::S3(bucket(text, rest)?),
            "hdfs" | "webhdfs" => Place::Hdfs(below(text, rest)?),
            "modelscope" => Place::ModelScope(snapshot(text, rest)?),
            "oci" | "oci+fetch" => Place::Oci(reference(text, rest)?),
            "http" | "https" => web(text, scheme, rest).ok_or_else(unknown)??,
            "pvc" => {
                return Err(format!(
                    "{text}: KServe's controller mounts a claim, a server never sees this address; \
                     name the directory where it is mounted (/mnt/models, /mnt/pvc/...)"
                ));
            }
            "oci+native" => {
                return Err(format!(
                    "{text}: KServe's controller mounts the image as a volume; name the directory \
                     where it is mounted (/mnt/models), or write oci:// to pull it here"
                ));
            }
            _ => return Err(unknown()),
        };
        Ok(Self { text: text.to_owned(), place })
    }

    /// As it was given. It may contain secrets: for requests, never for messages.
    pub(super) fn secret_text(&self) -> &str {
        &self.text
    }

    /// Who keeps its files.
    pub(super) fn protocol(&self) -> Protocol {
        match self.place {
            Place::Gs(_) => Protocol::Gcs,
            Place::S3(_) => Protocol::S3,
            Place::Hdfs(_) => Protocol::Hdfs,
            Place::AzureBlob(_) | Place::AzureFile(_) => Protocol::Azure,
            Place::ModelScope(_) => Protocol::ModelScope,
            Place::Oci(_) => Protocol::Oci,
            Place::Git => Protocol::Git,
            Place::Http => Protocol::Http,
        }
    }

    /// The last part of its path: how the model is called when nobody names it.
    pub fn name(&self) -> String {
        let part = |path: &str| {
            let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
            (!last.is_empty()).then(|| last.to_owned())
        };
        let name = match &self.place {
            Place::Gs(bucket) | Place::S3(bucket) => {
                part(&bucket.prefix).unwrap_or_else(|| bucket.name.clone())
            }
            Place::Hdfs(path) => part(path).unwrap_or_default(),
            Place::AzureBlob(azure) | Place::AzureFile(azure) => {
                part(&azure.prefix).unwrap_or_else(|| azure.container.clone())
            }
            Place::ModelScope(snapshot) => snapshot.name.clone(),
            Place::Oci(reference) => {
                let last = part(reference).unwrap_or_default();
                last.split(['@', ':']).next().unwrap_or_default().to_owned()
            }
            Place::Git | Place::Http => {
                let path = self.text.split(['?', '#']).next().unwrap_or_default();
                part(path).unwrap_or_default()
            }
        };
        let endings = [".tar.gz", ".tgz", ".tar", ".zip", ".gguf", ".git"];
        let stem = endings.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(&name);
        if stem.is_empty() { "model".to_owned() } else { stem.to_owned() }
    }

    /// The address of something below it.
    ///
    /// # Errors
    /// When addresses of this scheme have nothing below them.
    pub fn join(&self, name: &str) -> Result<Self, String> {
        let (path, query) = match self.text.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.text.as_str(), None),
        };
        if name.contains(['?', '#', '%', '/']) {
            return Err(format!("{name:?} cannot be a part of an address"));
        }
        let tree = !matches!(self.place, Place::ModelScope(_) | Place::Oci(_) | Place::Git);
        if !tree {
            return Err(format!(
                "{self}: models below such an address cannot be loaded one by one"
            ));
        }
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        Self::parse(&format!("{}/{name}{query}", path.trim_end_matches('/')))
    }
}

/// Without passwords and signatures.
impl fmt::Display for StorageUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&public(&self.text))
    }
}

impl fmt::Debug for StorageUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StorageUri({self})")
    }
}

/// An address without user, password and query.
pub(super) fn public(text: &str) -> String {
    let (address, query) = match text.split_once('?') {
        Some((address, _)) => (address, "?..."),
        None => (text, ""),
    };
    let Some((scheme, rest)) = address.split_once("://") else {
        return format!("{address}{query}");
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host =
        if scheme.starts_with("http") { host.rsplit('@').next().unwrap_or(host) } else { host };
    format!("{scheme}://{host}{path}{query}")
}

fn bucket(text: &str, rest: &str) -> Result<Bucket, String> {
    let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if name.is_empty() {
        return Err(format!("{text}: the bucket is missing (scheme://bucket/prefix)"));
    }
    Ok(Bucket { name: name.to_owned(), prefix: prefix.trim_start_matches('/').to_owned() })
}

fn below(text: &str, rest: &str) -> Result<String, String> {
    let path = rest.trim_matches('/');
    if path.is_empty() {
        return Err(format!("{text}: the path is missing (hdfs://path/of/the/model)"));
    }
    Ok(path.to_owned())
}

fn snapshot(text: &str, rest: &str) -> Result<Snapshot, String> {
    let wrong = || {
        format!(
            "Invalid ModelScope URI format. Expected 'modelscope://owner/model[:revision]', got '{text}'"
        )
    };
    let (owner, model) = rest.split_once('/').ok_or_else(wrong)?;
    let (name, revision) = model.split_once(':').unwrap_or((model, ""));
    let segment = |part: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.is_empty() && part.chars().all(known) && !part.chars().all(|c| c == '.')
    };
    if !segment(owner) || !segment(name) {
        return Err(wrong());
    }
    let revision = Some(revision.to_owned()).filter(|revision| !revision.is_empty());
    Ok(Snapshot { owner: owner.to_owned(), name: name.to_owned(), revision })
}

fn reference(text: &str, rest: &str) -> Result<String, String> {
    if !rest.contains('/') || rest.starts_with('/') || rest.ends_with('/') {
        return Err(format!(
            "Invalid OCI URI; expected 'oci://<registry>/<repo>[:tag|@digest]', got '{text}'"
        ));
    }
    Ok(rest.to_owned())
}

/// What an address of the web is; `None` when it has no path, which no scheme takes.
fn web(text: &str, scheme: &str, rest: &str) -> Option<Result<Place, String>> {
    let (address, query) = match rest.split_once('?') {
        Some((address, query)) => (address, Some(query)),
        None => (rest, None),
    };
    let address = address.split('#').next().unwrap_or_default();
    let (host, path) = address.split_once('/')?;
    if host.is_empty() {
        return None;
    }
    for (kind, place) in
        [("blob", Place::AzureBlob as fn(Azure) -> Place), ("file", Place::AzureFile)]
    {
        if scheme == "https"
            && let Some(account) = azure_account(host, kind)
        {
            return Some(azure(text, host, account, path, query).map(place));
        }
    }
    if path.trim_end_matches('/').ends_with(".git") {
        return Some(Ok(Place::Git));
    }
    if path.is_empty() || path.ends_with('/') {
        return Some(Err(format!("No filename contained in URI: {}", public(text))));
    }
    Some(Ok(Place::Http))
}

/// The account of `account.blob.core.windows.net` and `account.z01.blob.storage.azure.net`.
fn azure_account<'a>(host: &'a str, kind: &str) -> Option<&'a str> {
    let name = host.split(':').next().unwrap_or_default();
    if let Some(account) = name.strip_suffix(&format!(".{kind}.core.windows.net")) {
        return (!account.is_empty()).then_some(account);
    }
    let zoned = name.strip_suffix(&format!(".{kind}.storage.azure.net"))?;
    let (account, zone) = zoned.rsplit_once('.')?;
    let digits = zone.strip_prefix('z')?;
    let known = matches!(digits.len(), 1 | 2) && digits.bytes().all(|byte| byte.is_ascii_digit());
    (known && !account.is_empty()).then_some(account)
}

fn azure(
    text: &str,
    host: &str,
    account: &str,
    path: &str,
    query: Option<&str>,
) -> Result<Azure, String> {
    let (container, prefix) = path.split_once('/').unwrap_or((path, ""));
    if container.is_empty() {
        return Err(format!(
            "{}: the container is missing (https://{host}/container/prefix)",
            public(text)
        ));
    }
    Ok(Azure {
        account: account.to_owned(),
        host: host.to_owned(),
        container: container.to_owned(),
        prefix: prefix.trim_matches('/').to_owned(),
        query: query.filter(|query| !query.is_empty()).map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        StorageUri::parse(text).expect(text).place
    }

    fn bucket(name: &str, prefix: &str) -> Bucket {
        Bucket { name: name.to_owned(), prefix: prefix.to_owned() }
    }

    fn azure(host: &str, container: &str, prefix: &str, query: Option<&str>) -> Azure {
        Azure {
            account: "acc".to_owned(),
            host: host.to_owned(),
            container: container.to_owned(),
            prefix: prefix.to_owned(),
            query: query.map(str::to_owned),
        }
    }

    #[test]
    fn schemes_are_told_apart() {
        assert_eq!(place("gs://b/a/b"), Place::Gs(bucket("b", "a/b")));
        assert_eq!(place("s3://b"), Place::S3(bucket("b", "")));
        assert_eq!(place("s3://b//a/"), Place::S3(bucket("b", "a/")));
        assert_eq!(place("hdfs://user/me/m"), Place::Hdfs("user/me/m".to_owned()));
        assert_eq!(place("webhdfs:///m/"), Place::Hdfs("m".to_owned()));
        let snapshot = |revision: Option<&str>| {
            let (owner, name) = ("o".to_owned(), "m.1".to_owned());
            Place::ModelScope(Snapshot { owner, name, revision: revision.map(str::to_owned) })
        };
        assert_eq!(place("modelscope://o/m.1"), snapshot(None));
        assert_eq!(place("modelscope://o/m.1:v2"), snapshot(Some("v2")));
        assert_eq!(place("oci://r:5000/n:t"), Place::Oci("r:5000/n:t".to_owned()));
        assert_eq!(place("oci+fetch://r/n"), Place::Oci("r/n".to_owned()));
        assert_eq!(place("https://h/a/b.git"), Place::Git);
        assert_eq!(place("https://user@h/a/b.git/"), Place::Git);
        assert_eq!(place("http://h/a/model.joblib?x=.git"), Place::Http);
        assert_eq!(place("https://core.windows.net/x.zip"), Place::Http);
    }

    #[test]
    fn accounts_of_azure() {
        let host = "acc.blob.core.windows.net";
        let blob =
            |container, prefix, query| Place::AzureBlob(azure(host, container, prefix, query));
        assert_eq!(place(&format!("https://{host}/c/p/q/")), blob("c", "p/q", None));
        assert_eq!(place(&format!("https://{host}/c")), blob("c", "", None));
        assert_eq!(
            place(&format!("https://{host}/c/p?sv=1&sig=x")),
            blob("c", "p", Some("sv=1&sig=x"))
        );
        let zoned = "acc.z01.blob.storage.azure.net";
        let want = Place::AzureBlob(azure(zoned, "c", "p", None));
        assert_eq!(place(&format!("https://{zoned}/c/p")), want);
        let share = "acc.file.core.windows.net";
        let want = Place::AzureFile(azure(share, "s", "p", None));
        assert_eq!(place(&format!("https://{share}/s/p")), want);
        // Not a zone, not an account, not over TLS: files of the web.
        for host in ["https://acc.x01.blob.storage.azure.net", "http://acc.blob.core.windows.net"] {
            assert_eq!(place(&format!("{host}/c/p")), Place::Http, "{host}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_would_be_one() {
        for (text, part) in [
            ("ftp://x/y", "Cannot recognize storage type for ftp://x/y"),
            ("ftp://x/y", "s3://"),
            ("https://host", "Cannot recognize storage type"),
            ("https:///x", "Cannot recognize storage type"),
            ("https://host/", "No filename contained in URI"),
            ("https://host/dir/", "No filename contained in URI"),
            ("s3://", "bucket"),
            ("gs:///x", "bucket"),
            ("hdfs://", "path"),
            ("modelscope://only", "modelscope://owner/model"),
            ("modelscope://o/..", "modelscope://owner/model"),
            ("oci://name", "oci://<registry>/<repo>"),
            ("https://acc.blob.core.windows.net/", "container"),
            ("pvc://claim/x", "mounts"),
            ("oci+native://r/n", "mounts"),
        ] {
            let error = StorageUri::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        for (text, want) in [
            ("https://u:p@h/a.git", "https://h/a.git"),
            ("https://h/a.zip?sig=secret", "https://h/a.zip?..."),
            ("s3://b/a@b", "s3://b/a@b"),
        ] {
            let uri = StorageUri::parse(text).unwrap();
            assert_eq!(uri.to_string(), want);
            assert_eq!(format!("{uri:?}"), format!("StorageUri({want})"));
            assert_eq!(uri.secret_text(), text);
        }
        let azure = StorageUri::parse("https://acc.blob.core.windows.net/c?sig=secret").unwrap();
        assert!(!format!("{:?}", azure.place).contains("secret"));
    }

    #[test]
    fn models_are_called_by_the_last_part() {
        for (text, want) in [
            ("s3://b/models/iris/", "iris"),
            ("s3://b", "b"),
            ("gs://b/iris.tar.gz", "iris"),
            ("oci://r:5000/o/n:v1", "n"),
            ("https://h/a/b.git", "b"),
            ("https://h/chat.gguf?x=y", "chat"),
            ("modelscope://o/m:v1", "m"),
            ("hdfs://m", "m"),
        ] {
            assert_eq!(StorageUri::parse(text).unwrap().name(), want, "{text}");
        }
    }

    #[test]
    fn models_below_an_address() {
        let join = |text: &str| {
            StorageUri::parse(text).unwrap().join("m").map(|uri| uri.secret_text().to_owned())
        };
        assert_eq!(join("s3://b/models/").unwrap(), "s3://b/models/m");
        assert_eq!(join("s3://b").unwrap(), "s3://b/m");
        let azure = "https://acc.blob.core.windows.net/c";
        assert_eq!(join(&format!("{azure}/p?s=1")).unwrap(), format!("{azure}/p/m?s=1"));
        assert!(StorageUri::parse("s3://b").unwrap().join("a?b").is_err());
        assert!(join("oci://r/n").unwrap_err().contains("one by one"));
    }
}
