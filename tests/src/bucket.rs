//! A web server of files that also lists them as S3 does: path style, one page.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};

/// The first line of each request, and its `Authorization`.
type Seen = Arc<Mutex<Vec<(String, Option<String>)>>>;
/// Contents by path, `/bucket/key`.
type Files = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// A server that ends with the process of the test.
#[derive(Debug)]
pub struct Bucket {
    address: SocketAddr,
    files: Files,
    seen: Seen,
}

impl Bucket {
    /// Serves on a free port of this machine.
    ///
    /// # Errors
    /// When there is none.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (files, seen) = (Files::default(), Seen::default());
        let bucket = Self { address, files: Arc::clone(&files), seen: Arc::clone(&seen) };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (files, seen) = (Arc::clone(&files), Arc::clone(&seen));
                // A client that went away is its own affair.
                thread::spawn(move || answer(stream, &files, &seen));
            }
        });
        Ok(bucket)
    }

    /// `http://host:port`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Puts a file, or another content of it.
    pub fn put(&self, path: &str, content: &[u8]) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.insert(path.to_owned(), content.to_vec());
    }

    /// Requests for a path: their lines, and whether they were signed.
    pub fn seen(&self, path: &str) -> Vec<(String, bool)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let about = seen.iter().filter(|(line, _)| line.contains(path));
        let signed = |signature: &Option<String>| {
            signature.as_ref().is_some_and(|text| text.starts_with("AWS4-HMAC-SHA256 Credential="))
        };
        about.map(|(line, signature)| (line.clone(), signed(signature))).collect()
    }
}

fn answer(mut stream: TcpStream, files: &Files, seen: &Seen) -> Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut signature = None;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("authorization") {
            signature = Some(value.trim().to_owned());
        }
    }
    seen.lock().unwrap_or_else(PoisonError::into_inner).push((request.clone(), signature));
    let target = request.split(' ').nth(1).context("a request line")?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let files = files.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let (status, body) = match files.get(path) {
        Some(content) => ("200 OK", content.clone()),
        None if query.contains("list-type=2") => ("200 OK", list(&files, path, query).into_bytes()),
        None => ("404 Not Found", b"<Error><Code>NoSuchKey</Code></Error>".to_vec()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\netag: {}\r\nlast-modified: {DATE}\r\n\
         content-type: application/octet-stream\r\nconnection: close\r\n\r\n",
        body.len(),
        tag(&body)
    );
    stream.write_all(head.as_bytes())?;
    if !request.starts_with("HEAD") {
        stream.write_all(&body)?;
    }
    Ok(())
}

/// When everything was written.
const DATE: &str = "Wed, 21 Oct 2015 07:28:00 GMT";

fn tag(content: &[u8]) -> String {
    let sum =
        content.iter().fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    format!("\"{sum:x}\"")
}

fn list(files: &BTreeMap<String, Vec<u8>>, bucket: &str, query: &str) -> String {
    let bucket = format!("{}/", bucket.trim_end_matches('/'));
    let prefix = query.split('&').find_map(|pair| pair.strip_prefix("prefix=")).unwrap_or_default();
    let prefix = prefix.replace("%2F", "/");
    let mut xml = "<ListBucketResult><IsTruncated>false</IsTruncated>".to_owned();
    for (path, content) in files {
        let Some(key) = path.strip_prefix(&bucket).filter(|key| key.starts_with(&prefix)) else {
            continue;
        };
        xml += &format!(
            "<Contents><Key>{key}</Key><LastModified>2015-10-21T07:28:00.000Z</LastModified>\
             <ETag>{}</ETag><Size>{}</Size></Contents>",
            tag(content),
            content.len()
        );
    }
    xml + "</ListBucketResult>"
}
