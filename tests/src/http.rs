//! HTTP/1.1 by hand: one request per connection, bodies by length, in chunks or up to the end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Longest silence of a server under load.
const PATIENCE: Duration = Duration::from_secs(120);
/// The header of JSON bodies.
pub const JSON: (&str, &str) = ("content-type", "application/json");

/// An answer that was read to its end.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, chunks joined.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("status {}, no JSON: {}", self.status, self.text()))
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// The bytes of a request whose connection ends with the answer.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: tests\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Opens a connection.
///
/// # Errors
/// When it is refused.
pub fn connect(address: SocketAddr) -> Result<TcpStream> {
    let socket = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Sends bytes and reads the answer. A server may answer and close before it has read everything.
///
/// # Errors
/// When no answer comes or it breaks off.
pub fn exchange(address: SocketAddr, bytes: &[u8]) -> Result<Answer> {
    let mut socket = connect(address)?;
    let sent = socket.write_all(bytes);
    let answer = Head::read(BufReader::new(socket)).and_then(Head::answer);
    match (answer, sent) {
        (Err(error), Err(sending)) => Err(error.context(format!("sending failed: {sending}"))),
        (answer, _) => answer,
    }
}

/// An answer whose body is still to come.
struct Head {
    status: u16,
    headers: Vec<(String, String)>,
    body: BufReader<TcpStream>,
}

impl Head {
    fn read(mut socket: BufReader<TcpStream>) -> Result<Self> {
        let line = line(&mut socket)?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.with_context(|| format!("no status in {line:?}"))?;
        let mut headers = Vec::new();
        loop {
            let line = self::line(&mut socket)?;
            if line.is_empty() {
                return Ok(Self { status, headers, body: socket });
            }
            let (name, value) = line.split_once(':').with_context(|| format!("header {line:?}"))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn is_chunked(&self) -> bool {
        find(&self.headers, "transfer-encoding") == Some("chunked")
    }

    fn answer(mut self) -> Result<Answer> {
        let mut body = Vec::new();
        if self.is_chunked() {
            while let Some(chunk) = chunk(&mut self.body)? {
                body.extend_from_slice(&chunk);
            }
        } else if let Some(length) = find(&self.headers, "content-length") {
            body.resize(length.parse().context("content-length")?, 0);
            self.body.read_exact(&mut body).context("the body breaks off")?;
        } else {
            self.body.read_to_end(&mut body)?;
        }
        Ok(Answer { status: self.status, headers: self.headers, body })
    }
}

/// A line without its end.
fn line(socket: &mut BufReader<TcpStream>) -> Result<String> {
    let mut line = Vec::new();
    socket.read_until(b'\n', &mut line)?;
    ensure!(line.ends_with(b"\r\n"), "the connection ended in a line: {line:?}");
    line.truncate(line.len() - 2);
    String::from_utf8(line).context("a line of the head")
}

/// The next chunk; `None` after the last one.
fn chunk(socket: &mut BufReader<TcpStream>) -> Result<Option<Vec<u8>>> {
    let size = line(socket)?;
    let size = usize::from_str_radix(&size, 16).with_context(|| format!("chunk size {size:?}"))?;
    let mut data = vec![0; size];
    socket.read_exact(&mut data).context("the body breaks off")?;
    ensure!(line(socket)?.is_empty(), "a chunk is longer than it says");
    Ok((size > 0).then_some(data))
}

/// Server-sent events, one by one. Dropping it closes the connection.
pub struct EventStream {
    socket: BufReader<TcpStream>,
    buffer: Vec<u8>,
    /// `[DONE]` was read.
    done: bool,
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventStream").field("done", &self.done).finish_non_exhaustive()
    }
}

impl EventStream {
    /// Sends a request whose answer must be a stream of events.
    ///
    /// # Errors
    /// When it is another answer; the error carries it.
    pub fn open(address: SocketAddr, request: &[u8]) -> Result<Self> {
        let mut socket = connect(address)?;
        socket.write_all(request)?;
        let head = Head::read(BufReader::new(socket))?;
        let kind = find(&head.headers, "content-type").unwrap_or_default();
        if head.status != 200 || !kind.starts_with("text/event-stream") || !head.is_chunked() {
            let answer = head.answer()?;
            bail!("status {}, not a stream: {}", answer.status, answer.text());
        }
        Ok(Self { socket: head.body, buffer: Vec::new(), done: false })
    }

    /// The next event; `None` once the stream has ended as it should: `[DONE]`, then the last chunk.
    ///
    /// # Errors
    /// When the connection breaks off, an event is no JSON, or something follows `[DONE]`.
    pub fn next_event(&mut self) -> Result<Option<Value>> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = self.buffer.drain(..end + 2).collect();
                let event = String::from_utf8(event).context("an event")?;
                match event.trim_end().strip_prefix("data: ") {
                    Some("[DONE]") if !self.done => self.done = true,
                    Some(data) => {
                        ensure!(!self.done, "after [DONE]: {data}");
                        return serde_json::from_str(data).map(Some).context(data.to_owned());
                    }
                    // A comment keeps the connection alive.
                    None => ensure!(event.starts_with(':'), "no event: {event:?}"),
                }
            } else if let Some(chunk) = chunk(&mut self.socket)? {
                self.buffer.extend_from_slice(&chunk);
            } else {
                ensure!(self.done && self.buffer.is_empty(), "the stream ends without [DONE]");
                return Ok(None);
            }
        }
    }

    /// Every event that is left.
    ///
    /// # Errors
    /// As [`EventStream::next_event`].
    pub fn rest(&mut self) -> Result<Vec<Value>> {
        let mut events = Vec::new();
        while let Some(event) = self.next_event()? {
            events.push(event);
        }
        Ok(events)
    }
}

/// The text of a chat stream's events.
pub fn chat_text(events: &[Value]) -> String {
    let texts = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str());
    texts.collect()
}

/// Why the first choice of a stream ended.
pub fn finish_reason(events: &[Value]) -> Option<&str> {
    events.iter().rev().find_map(|event| event["choices"][0]["finish_reason"].as_str())
}
