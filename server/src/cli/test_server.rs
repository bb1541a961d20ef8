//! A server for tests of the clients: one scripted answer per request, bodies kept.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// What is answered.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    status: u16,
    content_type: &'static str,
    body: String,
}

impl Answer {
    pub(super) fn json(status: u16, body: &str) -> Self {
        Self { status, content_type: "application/json", body: body.to_owned() }
    }

    /// A stream of events with these data.
    pub(super) fn events(data: &[&str]) -> Self {
        let body = data.iter().map(|data| format!("data: {data}\n\n")).collect();
        Self { status: 200, content_type: "text/event-stream", body }
    }
}

/// A request: its path and its body.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) path: String,
    pub(super) body: Value,
}

/// A listening server; it ends with the process.
pub(super) struct TestServer {
    pub(super) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl TestServer {
    pub(super) fn start(script: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, script) = (Arc::clone(&asked), Arc::new(script));
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (log, script) = (Arc::clone(&log), Arc::clone(&script));
                std::thread::spawn(move || answer(socket, &log, &*script));
            }
        });
        Self { url, asked }
    }

    /// Bodies of the requests so far, in the order of their arrival.
    pub(super) fn bodies(&self) -> Vec<Value> {
        self.asked.lock().unwrap().iter().map(|asked| asked.body.clone()).collect()
    }
}

fn answer(mut socket: TcpStream, log: &Mutex<Vec<Asked>>, script: &dyn Fn(&Asked) -> Answer) {
    let mut reader = BufReader::new(socket.try_clone().unwrap());
    let (mut path, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let line = line.trim().to_ascii_lowercase();
        if path.is_empty() {
            path = line.split(' ').nth(1).unwrap_or("/").to_owned();
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let asked = Asked { path, body: serde_json::from_slice(&body).unwrap_or_default() };
    log.lock().unwrap().push(asked.clone());
    let Answer { status, content_type, body } = script(&asked);
    let reply = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = socket.write_all(reply.as_bytes());
}
