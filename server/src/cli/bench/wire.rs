//! A client's side of HTTP/1.1 that costs next to nothing: prepared bytes out, answers counted and dropped.
//!
//! It reads what servers send (lengths, chunks, bodies that end with the connection) and keeps nothing but the
//! status. No TLS, no pipelining.

use std::io;
use std::ops::Range;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest line of a head, and of the size of a chunk.
const MAX_LINE: usize = 64 << 10;
/// Most lines of a head.
const MAX_LINES: usize = 256;

/// What is left of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Its status.
    pub(super) status: u16,
    /// Whether the server ends the connection.
    pub(super) closes: bool,
}

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Bytes(u64),
    Chunks,
    UntilClosed,
}

/// A connection whose answers are read one by one.
#[derive(Debug)]
pub(super) struct Connection<S> {
    socket: S,
    buffer: Vec<u8>,
    /// Bytes of the buffer that are read.
    read: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn new(socket: S) -> Self {
        Self { socket, buffer: Vec::with_capacity(4096), read: 0 }
    }

    /// Sends `request` and reads the answer to its end.
    ///
    /// # Errors
    /// When the connection breaks, or what comes is no answer.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.socket.write_all(request).await?;
        loop {
            let (answer, body) = self.head().await?;
            match body {
                // An interim answer: the real one follows.
                _ if answer.status < 200 => continue,
                Body::Bytes(length) => self.skip(length).await?,
                Body::Chunks => self.chunks().await?,
                Body::UntilClosed => while self.fill().await? > 0 {},
            }
            return Ok(answer);
        }
    }

    async fn head(&mut self) -> io::Result<(Answer, Body)> {
        let line = self.line().await?;
        let status = status(&self.buffer[line]).ok_or_else(|| wrong("its first line"))?;
        let mut answer = Answer { status, closes: false };
        let mut body = Body::UntilClosed;
        for _ in 0..MAX_LINES {
            let line = self.line().await?;
            let line = &self.buffer[line];
            if line.is_empty() {
                if matches!(status, 204 | 304) {
                    body = Body::Bytes(0);
                }
                answer.closes |= body == Body::UntilClosed;
                return Ok((answer, body));
            }
            let (name, value) = header(line).ok_or_else(|| wrong("a line of its head"))?;
            let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
            if is("content-length") && body != Body::Chunks {
                body = Body::Bytes(number(value, 10).ok_or_else(|| wrong("its length"))?);
            } else if is("transfer-encoding") {
                body = Body::Chunks;
            } else if is("connection") {
                answer.closes |= value.eq_ignore_ascii_case(b"close");
            }
        }
        Err(wrong("too many lines in its head"))
    }

    async fn chunks(&mut self) -> io::Result<()> {
        loop {
            let line = self.line().await?;
            let size = self.buffer[line].split(|&byte| byte == b';').next().unwrap_or_default();
            let size = number(size.trim_ascii(), 16).ok_or_else(|| wrong("the size of a chunk"))?;
            if size == 0 {
                break;
            }
            self.skip(size).await?;
            if !self.line().await?.is_empty() {
                return Err(wrong("the end of a chunk"));
            }
        }
        while !self.line().await?.is_empty() {}
        Ok(())
    }

    /// The next line, without its end.
    async fn line(&mut self) -> io::Result<Range<usize>> {
        let mut searched = self.read;
        loop {
            if let Some(at) = self.buffer[searched..].iter().position(|&byte| byte == b'\n') {
                let (start, end) = (self.read, searched + at);
                self.read = end + 1;
                let bare = self.buffer[start..end].strip_suffix(b"\r").map_or(end, |_| end - 1);
                return Ok(start..bare);
            }
            searched = self.buffer.len() - self.read;
            if searched > MAX_LINE {
                return Err(wrong("a line that does not end"));
            }
            self.more().await?;
        }
    }

    /// Reads over so many bytes.
    async fn skip(&mut self, mut bytes: u64) -> io::Result<()> {
        loop {
            let here = (self.buffer.len() - self.read) as u64;
            if bytes <= here {
                self.read += bytes as usize;
                return Ok(());
            }
            bytes -= here;
            self.read = self.buffer.len();
            self.more().await?;
        }
    }

    /// More bytes behind those that are not read yet.
    async fn more(&mut self) -> io::Result<()> {
        self.buffer.drain(..self.read);
        self.read = 0;
        match self.socket.read_buf(&mut self.buffer).await? {
            0 => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server ended the connection"))
            }
            _ => Ok(()),
        }
    }

    /// New bytes instead of the old; 0 at the end.
    async fn fill(&mut self) -> io::Result<usize> {
        self.buffer.clear();
        self.read = 0;
        self.socket.read_buf(&mut self.buffer).await
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not an answer of HTTP/1.1: {what}"))
}

fn status(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    u16::try_from(number(rest, 10)?).ok()
}

fn header(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = line.iter().position(|&byte| byte == b':')?;
    Some((&line[..at], line[at + 1..].trim_ascii()))
}

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
    u64::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client makes of an answer that arrives in two parts.
    async fn read(text: &[u8], cut: usize) -> io::Result<(Answer, Vec<u8>)> {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let server = async {
            let mut asked = [0; 3];
            theirs.read_exact(&mut asked).await?;
            theirs.write_all(&text[..cut]).await?;
            tokio::task::yield_now().await;
            theirs.write_all(&text[cut..]).await?;
            theirs.shutdown().await
        };
        let mut connection = Connection::new(ours);
        let (answer, served) = tokio::join!(connection.exchange(b"ask"), server);
        served?;
        Ok((answer?, connection.buffer.split_off(connection.read)))
    }

    #[tokio::test]
    async fn answers_end_where_they_say_wherever_they_are_cut() {
        for (text, status, closes) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab", 200, false),
            ("HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", 503, true),
            ("HTTP/1.1 204 \r\n\r\n", 204, false),
            (
                "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\na;x=y\n0123456789\n0\nt: 1\n\n",
                200,
                false,
            ),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length:1\r\n\r\na",
                200,
                false,
            ),
        ] {
            for cut in 0..=text.len() {
                // What follows an answer is left for the next one.
                let with_rest = format!("{text}rest");
                let (answer, rest) = read(with_rest.as_bytes(), cut).await.expect(text);
                assert_eq!(answer, Answer { status, closes }, "{text:?} cut at {cut}");
                assert!(b"rest".starts_with(&rest), "{text:?} cut at {cut}");
            }
        }
        let (answer, rest) = read(b"HTTP/1.0 200 OK\r\n\r\nuntil the end", 30).await.unwrap();
        assert_eq!((answer, rest), (Answer { status: 200, closes: true }, Vec::new()));
    }

    #[tokio::test]
    async fn what_is_no_answer_is_an_error() {
        for (text, part) in [
            ("", "ended the connection"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab", "ended the connection"),
            ("SSH-2.0\r\n", "its first line"),
            ("HTTP/1.1 +20 OK\r\n", "its first line"),
            ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "a line of its head"),
            ("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "its length"),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n", "size of a chunk"),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n", "end of a chunk"),
        ] {
            let error = read(text.as_bytes(), 0).await.expect_err(text).to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
        let endless = vec![b'x'; MAX_LINE + 5000];
        assert!(read(&endless, 0).await.is_err());
        let many = format!("HTTP/1.1 200 OK\r\n{}", "a: b\r\n".repeat(MAX_LINES + 1));
        assert!(read(many.as_bytes(), 0).await.is_err());
    }
}
