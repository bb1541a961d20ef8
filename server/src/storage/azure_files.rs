//! File shares of Azure: listings from directory to directory, files by path.
//!
//! A shared access signature in the address, or in the place of the key, wins over the key; without either the share is asked
//! anonymously. Requests are signed as `SharedKey` says:
//! <https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key>.

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use reqwest::{Method, Response, header};
use serde::Deserialize;

use super::answer::{Asked, escaped, escaped_path};
use super::uri::Azure;
use super::{Body, Limits, Protocol, Remote, RemoteFile, Source, StorageError, StorageUri, client};
use super::{DEEPEST, MOST_FILES};
use crate::config::StorageConfig;
use crate::config::storage::AzureSettings;

/// The version of the protocol that is spoken.
const VERSION: &str = "2022-11-02";
/// The variable of the key.
const KEY: &str = "AZURE_STORAGE_ACCESS_KEY";

/// A path of a share.
struct Share {
    asked: Asked,
    http: reqwest::Client,
    /// `https://host`
    server: String,
    account: String,
    /// Of the share, with a slash at its beginning.
    root: String,
    /// Without slashes at its ends; may be empty.
    prefix: String,
    identity: Identity,
    files: usize,
}

/// Who we are.
enum Identity {
    Key(Vec<u8>),
    /// A query without `?`.
    Signature(String),
    Anonymous,
}

/// An answer to a listing.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listing {
    #[serde(default)]
    entries: Entries,
    #[serde(default)]
    next_marker: Option<String>,
}

#[derive(Default, Deserialize)]
struct Entries {
    #[serde(default, rename = "$value")]
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
enum Entry {
    File(Item),
    Directory(Item),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    name: Name,
    #[serde(default)]
    properties: Properties,
}

#[derive(Deserialize)]
struct Name {
    /// Characters that XML cannot have are escaped as in addresses.
    #[serde(default, rename = "@Encoded")]
    encoded: bool,
    #[serde(default, rename = "$text")]
    text: String,
}

#[derive(Default, Deserialize)]
struct Properties {
    #[serde(rename = "Content-Length")]
    content_length: Option<u64>,
    #[serde(rename = "Etag")]
    etag: Option<String>,
    #[serde(rename = "Last-Modified")]
    last_modified: Option<String>,
}

/// The files of an address of a share.
pub(super) fn open(
    uri: &StorageUri,
    azure: &Azure,
    config: &StorageConfig,
) -> Result<Remote, StorageError> {
    let text = uri.to_string();
    let http = client::build(client::builder(config)?, Protocol::Azure, &text)?;
    let server = format!("https://{}", azure.host);
    Ok(Remote::Files(Box::new(Share::new(text, server, azure, &config.azure, http)?)))
}

impl Share {
    fn new(
        uri: String,
        server: String,
        azure: &Azure,
        settings: &AzureSettings,
        http: reqwest::Client,
    ) -> Result<Self, StorageError> {
        let decode = |text: &str| {
            let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
            decoded.map(|text| text.into_owned()).map_err(|_| StorageError::Unsupported {
                uri: uri.clone(),
                reason: "its path is not UTF-8".to_owned(),
            })
        };
        Ok(Self {
            http,
            server,
            account: azure.account.clone(),
            root: format!("/{}", decode(&azure.container)?),
            prefix: decode(&azure.prefix)?,
            identity: identity(azure, settings)?,
            files: settings.max_files.max(1),
            asked: Asked { protocol: Protocol::Azure, uri, explain },
        })
    }

    /// Asks for a path of the share, from byte `start` on.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        start: u64,
    ) -> Result<Response, StorageError> {
        let slash = if path.is_empty() { "" } else { "/" };
        let path = escaped_path(&format!("{}{slash}{path}", self.root));
        let pair = |(name, value): &(&str, &str)| format!("{name}={}", escaped(value));
        let mut pairs: Vec<String> = query.iter().map(pair).collect();
        if let Identity::Signature(signature) = &self.identity {
            pairs.push(signature.clone());
        }
        let mark = if pairs.is_empty() { "" } else { "?" };
        let url = format!("{}{path}{mark}{}", self.server, pairs.join("&"));
        let date = httpdate::fmt_http_date(SystemTime::now());
        let mut request = self
            .http
            .request(method.clone(), url)
            .header("x-ms-version", VERSION)
            .header("x-ms-date", &date);
        let range = (start > 0).then(|| format!("bytes={start}-"));
        if let Some(range) = &range {
            request = request.header("x-ms-range", range);
        }
        if let Identity::Key(key) = &self.identity {
            let mut headers = format!("x-ms-date:{date}\n");
            if let Some(range) = range {
                headers.push_str(&format!("x-ms-range:{range}\n"));
            }
            headers.push_str(&format!("x-ms-version:{VERSION}\n"));
            let path = format!("/{}{path}", self.account);
            let signature = sign(key, &text_to_sign(method.as_str(), &headers, &path, query));
            request = request
                .header(header::AUTHORIZATION, format!("SharedKey {}:{signature}", self.account));
        }
        self.asked.send(request).await
    }

    /// One directory, page after page.
    async fn entries(&self, directory: &str) -> Result<Vec<Entry>, StorageError> {
        let mut entries = Vec::new();
        let mut marker = String::new();
        loop {
            let mut query = vec![("comp", "list"), ("include", "Timestamps,Etag")];
            if !marker.is_empty() {
                query.push(("marker", &marker));
            }
            query.push(("restype", "directory"));
            let answer = self.ask(Method::GET, directory, &query, 0).await?;
            let body = self.asked.bytes(answer).await?;
            let page: Listing = quick_xml::de::from_reader(body.as_slice())
                .map_err(|error| self.asked.malformed(error.to_string()))?;
            entries.extend(page.entries.entries);
            if entries.len() > MOST_FILES {
                return Err(self.asked.malformed(format!("more than {MOST_FILES} files")));
            }
            match page.next_marker.filter(|next| !next.is_empty() && *next != marker) {
                Some(next) => marker = next,
                None => return Ok(entries),
            }
        }
    }

    /// Every file below the prefix.
    async fn walk(&self) -> Result<Vec<RemoteFile>, StorageError> {
        let mut files = Vec::new();
        let mut left = vec![(String::new(), 0)];
        while let Some((directory, depth)) = left.pop() {
            for entry in self.entries(&below(&self.prefix, &directory)).await? {
                let (Entry::File(item) | Entry::Directory(item)) = &entry;
                let path = below(&directory, &self.name(&item.name)?);
                match entry {
                    Entry::File(item) => {
                        let key = below(&self.prefix, &path);
                        let Properties { content_length, etag, last_modified } = item.properties;
                        let tag = etag.or(last_modified);
                        files.push(RemoteFile { path, key, size: content_length, tag });
                    }
                    Entry::Directory(_) if depth < DEEPEST => left.push((path, depth + 1)),
                    Entry::Directory(_) => {
                        return Err(self.asked.malformed(format!("{path} is nested too deeply")));
                    }
                }
            }
            if files.len() + left.len() > MOST_FILES {
                return Err(self.asked.malformed(format!("more than {MOST_FILES} files")));
            }
        }
        Ok(files)
    }

    fn name(&self, name: &Name) -> Result<String, StorageError> {
        let decoded = match name.encoded {
            true => {
                percent_encoding::percent_decode_str(&name.text).decode_utf8_lossy().into_owned()
            }
            false => name.text.clone(),
        };
        if decoded.is_empty() || decoded.contains('/') {
            return Err(self.asked.malformed(format!("{decoded:?} is no name of a file")));
        }
        Ok(decoded)
    }

    /// The address itself as a file.
    async fn file(&self) -> Result<RemoteFile, StorageError> {
        let answer = self.ask(Method::HEAD, &self.prefix, &[], 0).await?;
        let header = |name| answer.headers().get(name)?.to_str().ok().map(str::to_owned);
        Ok(RemoteFile {
            path: self.prefix.rsplit('/').next().unwrap_or_default().to_owned(),
            key: self.prefix.clone(),
            size: header(header::CONTENT_LENGTH).and_then(|text| text.parse().ok()),
            tag: header(header::ETAG).or_else(|| header(header::LAST_MODIFIED)),
        })
    }
}

impl Source for Share {
    fn list(&self) -> BoxFuture<'_, Result<Vec<RemoteFile>, StorageError>> {
        Box::pin(async {
            match self.walk().await {
                Err(StorageError::NotFound { .. }) if !self.prefix.is_empty() => {
                    Ok(vec![self.file().await?])
                }
                other => other,
            }
        })
    }

    fn open<'a>(
        &'a self,
        file: &'a RemoteFile,
        start: u64,
    ) -> BoxFuture<'a, Result<Body, StorageError>> {
        Box::pin(async move {
            let answer = self.ask(Method::GET, &file.key, &[], start).await?;
            let partial = answer.status() == reqwest::StatusCode::PARTIAL_CONTENT;
            let start = if partial { start } else { 0 };
            Ok(Body { start, bytes: self.asked.stream(answer) })
        })
    }

    fn limits(&self) -> Limits {
        Limits { files: self.files, ..Limits::default() }
    }
}

fn identity(azure: &Azure, settings: &AzureSettings) -> Result<Identity, StorageError> {
    if let Some(query) = &azure.query {
        return Ok(Identity::Signature(query.clone()));
    }
    let Some(key) = &settings.access_key else {
        tracing::warn!("{KEY} is not set, the share is asked anonymously");
        return Ok(Identity::Anonymous);
    };
    // Azure's own libraries take a signature in the place of a key as well.
    if key.0.contains("sig=") {
        return Ok(Identity::Signature(key.0.trim_start_matches('?').to_owned()));
    }
    let wrong = |_| {
        StorageError::setting(
            KEY,
            "expected the account's key (base64), or a signature (?sv=...&sig=...)",
        )
    };
    Ok(Identity::Key(STANDARD.decode(&key.0).map_err(wrong)?))
}

/// What a request is signed by: its method, its `x-ms-` headers, account and path, query.
fn text_to_sign(method: &str, headers: &str, path: &str, query: &[(&str, &str)]) -> String {
    // Encoding, language, length, MD5, type, date, four conditions, range: none is sent.
    let mut text = format!("{method}\n{}{headers}{path}", "\n".repeat(11));
    let mut query = query.to_vec();
    query.sort_unstable();
    for (name, value) in query {
        text.push_str(&format!("\n{name}:{value}"));
    }
    text
}

fn sign(key: &[u8], text: &str) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
    STANDARD.encode(ring::hmac::sign(&key, text.as_bytes()))
}

/// A path below another, either may be empty.
fn below(directory: &str, name: &str) -> String {
    match (directory, name) {
        ("", name) => name.to_owned(),
        (directory, "") => directory.to_owned(),
        (directory, name) => format!("{directory}/{name}"),
    }
}

/// `<Error><Code>...</Code><Message>...</Message></Error>`
fn explain(body: &str) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Refusal {
        code: String,
        #[serde(default)]
        message: String,
    }
    let refusal: Refusal = quick_xml::de::from_str(body.trim_start_matches('\u{feff}')).ok()?;
    // What follows the first line numbers the request.
    let message = refusal.message.lines().next().unwrap_or_default();
    Some(format!("{}: {message}", refusal.code))
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use axum::response::{IntoResponse, Response};
    use futures_util::TryStreamExt;

    use super::*;
    use crate::config::storage::Secret;
    use crate::storage::loopback::{self, Loopback};

    /// The bytes of a base64 text.
    const SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZg==";

    fn share(
        server: &str,
        prefix: &str,
        query: Option<&str>,
        key: Option<&str>,
    ) -> Result<Share, StorageError> {
        let azure = Azure {
            account: "acc".to_owned(),
            host: String::new(),
            container: "share".to_owned(),
            prefix: prefix.to_owned(),
            query: query.map(str::to_owned),
        };
        let settings = AzureSettings {
            access_key: key.map(|key| Secret(key.to_owned())),
            ..AzureSettings::default()
        };
        let http = client::plain().build().unwrap();
        Share::new(
            "https://acc.file/share".to_owned(),
            format!("http://{server}"),
            &azure,
            &settings,
            http,
        )
    }

    /// Signatures that azure-storage-file-share 12.23 made of the same requests.
    #[test]
    fn signatures_are_those_of_the_official_library() {
        let version = "x-ms-version:2022-11-02\n";
        let date = "x-ms-date:Sun, 06 Nov 1994 08:49:37 GMT\n";
        let query = [
            ("comp", "list"),
            ("include", "Timestamps,Etag"),
            ("marker", "m/1"),
            ("restype", "directory"),
        ];
        for (method, headers, path, query, want) in [
            (
                "GET",
                format!("{date}{version}"),
                "/acc/share/a%20b",
                &query[..],
                "oNRq37Xqk/XlHcJQ9AkmFRhjgYdFdPWFuuZaDIzyZNA=",
            ),
            (
                "HEAD",
                format!("{date}{version}"),
                "/acc/share/model.bin",
                &[],
                "sImbDmubIId+b1VnosEBLboBdbxeA0hw9Fju8010rw0=",
            ),
            (
                "GET",
                format!("{date}x-ms-range:bytes=5-\n{version}"),
                "/acc/share/model.bin",
                &[],
                "dOIOetTnPE4cI9F5RivKdV9pYUZ4AYeuav8YzRlVwvo=",
            ),
        ] {
            let key = STANDARD.decode(SECRET).unwrap();
            assert_eq!(sign(&key, &text_to_sign(method, &headers, path, query)), want);
        }
    }

    /// A share that wants its key, or a signature.
    fn azure(asked: &loopback::Asked) -> Response {
        let path = percent_encoding::percent_decode_str(&asked.path).decode_utf8().unwrap();
        let key = STANDARD.decode(SECRET).unwrap();
        let plain: Vec<(String, String)> = asked
            .query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| {
                let value = percent_encoding::percent_decode_str(value).decode_utf8().unwrap();
                (name.to_owned(), value.into_owned())
            })
            .collect();
        let pairs: Vec<(&str, &str)> =
            plain.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let signed = pairs.contains(&("sig", "x+y"));
        let headers: String = ["x-ms-date", "x-ms-range", "x-ms-version"]
            .iter()
            .filter_map(|name| Some(format!("{name}:{}\n", asked.header(name)?)))
            .collect();
        let text =
            text_to_sign(asked.method.as_str(), &headers, &format!("/acc{}", asked.path), &pairs);
        let key =
            asked.header("authorization") == Some(&format!("SharedKey acc:{}", sign(&key, &text)));
        if !signed && !key {
            let body = "<?xml version=\"1.0\"?><Error><Code>AuthenticationFailed</Code>\
                        <Message>not signed\nRequestId:1</Message></Error>";
            return (StatusCode::FORBIDDEN, body).into_response();
        }
        let file = |name: &str, size: usize| {
            format!(
                "<File><FileId>1</FileId><Name>{name}</Name><Properties><Content-Length>{size}</Content-Length>\
                     <Last-Modified>x</Last-Modified><Etag>\"t\"</Etag></Properties></File>"
            )
        };
        let directory =
            |name: &str| format!("<Directory><Name>{name}</Name><Properties /></Directory>");
        let list = asked.query.contains("comp=list");
        let page = |entries: &str, next: &str| {
            let head = "<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ServiceEndpoint=\"x\" \
                        ShareName=\"share\" DirectoryPath=\"\"><Entries>";
            format!("{head}{entries}</Entries><NextMarker>{next}</NextMarker></EnumerationResults>")
                .into_response()
        };
        match (&*path, list) {
            ("/share/m", true) if asked.query.contains("marker=2%2Fx") => {
                page(&(file("z.bin", 3) + &directory("a b")), "")
            }
            ("/share/m", true) => page(&(file("config.json", 2) + &directory("empty")), "2/x"),
            ("/share/m/empty", true) => {
                "<EnumerationResults><Entries /><NextMarker /></EnumerationResults>".into_response()
            }
            ("/share/m/a b", true) => page(
                &file("<x/>", 1)
                    .replace("<Name><x/></Name>", "<Name Encoded=\"true\">w%25&amp;.bin</Name>"),
                "",
            ),
            ("/share/m/config.json", false) => loopback::ranged(&renamed(asked), b"{}"),
            ("/share/m/z.bin", false) => loopback::ranged(&renamed(asked), b"zzz"),
            ("/share/m/a b/w%&.bin", false) => loopback::ranged(&renamed(asked), b"w"),
            _ => {
                let body = "\u{feff}<?xml version=\"1.0\"?><Error><Code>ResourceNotFound</Code><Message>no</Message></Error>";
                (StatusCode::NOT_FOUND, body).into_response()
            }
        }
    }

    /// Azure's name of the range.
    fn renamed(asked: &loopback::Asked) -> loopback::Asked {
        let mut asked = asked.clone();
        if let Some(range) = asked.headers.remove("x-ms-range") {
            asked.headers.insert("range", range);
        }
        asked
    }

    async fn contents(share: &Share, start: u64) -> Result<Vec<String>, StorageError> {
        let mut contents = Vec::new();
        for file in share.list().await? {
            let body = share.open(&file, start).await?;
            assert_eq!(body.start, start);
            let bytes = body.bytes.try_collect::<Vec<_>>().await?.concat();
            let text = String::from_utf8(bytes).unwrap();
            contents.push(format!("{}={text} {:?} {:?}", file.path, file.size, file.tag));
        }
        contents.sort();
        Ok(contents)
    }

    #[tokio::test]
    async fn files_come_for_keys_and_for_signatures() {
        let server = Loopback::start(azure).await;
        let signature = "sv=2022&sig=x%2By";
        for (query, key) in [
            (None, Some(SECRET)),
            (Some(signature), None),
            (Some(signature), Some("not used, and no base64")),
            (None, Some("?sv=2022&sig=x%2By")),
        ] {
            let share = share(&server.host, "m", query, key).unwrap();
            let got = contents(&share, 0).await.unwrap();
            let tag = "Some(\"\\\"t\\\"\")";
            let want = [
                format!("a b/w%&.bin=w Some(1) {tag}"),
                format!("config.json={{}} Some(2) {tag}"),
                format!("z.bin=zzz Some(3) {tag}"),
            ];
            assert_eq!(got, want);
        }
        let share = share(&server.host, "m/z.bin", None, Some(SECRET)).unwrap();
        assert_eq!(contents(&share, 0).await.unwrap(), ["z.bin=zzz Some(3) None"]);
        assert_eq!(contents(&share, 1).await.unwrap(), ["z.bin=zz Some(3) None"]);
    }

    #[tokio::test]
    async fn refusals_say_what_to_do() {
        let server = Loopback::start(azure).await;
        let wrong = STANDARD.encode("another key");
        for (prefix, key, parts) in [
            ("m", None, ["AuthenticationFailed: not signed", "AZURE_STORAGE_ACCESS_KEY"]),
            ("m", Some(wrong.as_str()), ["AuthenticationFailed: not signed", "Access denied"]),
            ("other", Some(SECRET), ["not found", "https://acc.file/share"]),
        ] {
            let share = share(&server.host, prefix, None, key).unwrap();
            let error = share.list().await.unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
            assert!(!error.contains("RequestId"), "{error}");
        }
        let error = share(&server.host, "m", None, Some("!")).err().expect("no key").to_string();
        assert!(error.starts_with("AZURE_STORAGE_ACCESS_KEY: expected"), "{error}");
        for (body, part) in [
            ("<html>", "unexpected"),
            (
                "<EnumerationResults><Entries><File><Name>../x</Name></File></Entries></EnumerationResults>",
                "no name of a file",
            ),
            (
                "<EnumerationResults><Entries><Directory><Name>d</Name></Directory></Entries></EnumerationResults>",
                "too deeply",
            ),
        ] {
            let server = Loopback::start(move |_| body.into_response()).await;
            let error = share(&server.host, "m", None, None).unwrap().list().await.unwrap_err();
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
    }
}
