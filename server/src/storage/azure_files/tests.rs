//! A share that wants its key or a signature.

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

/// Signatures that azure-storage-file-share 12.27 made of the same requests.
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
