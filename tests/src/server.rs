//! A `tokenmill serve` that ends with the value that stands for it.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::http::{self, Answer, EventStream};
use crate::program;

/// Longest start, a loaded machine included.
const START: Duration = Duration::from_secs(120);
/// Name under which the tests' model is served.
pub const MODEL: &str = "tests";

/// The real model that `cargo xtask model` provides.
pub fn model_path() -> PathBuf {
    program::root().join("models/SmolLM2-135M-Instruct.Q4_1.gguf")
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    child: Child,
    address: SocketAddr,
    log: Arc<Mutex<String>>,
}

impl Server {
    /// Starts a server of the real model on a free port and waits until it says that it is ready.
    ///
    /// # Errors
    /// When it ends or is silent; the error carries its log.
    pub fn start(options: &[&str]) -> Result<Self> {
        Starting::new(0, options)?.finish()
    }

    /// The same with any model; a repository's models have names of their own.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn of(model: &Path, name: Option<&str>, options: &[&str]) -> Result<Self> {
        Self::with(model, name, &[], options)
    }

    /// The same with environment variables; the model may be an address.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn with(
        model: &Path,
        name: Option<&str>,
        environment: &[(&str, &str)],
        options: &[&str],
    ) -> Result<Self> {
        Starting::of(model, name, 0, environment, options)?.finish()
    }

    /// The server that the tests of one binary share; it ends when the last of them lets go of it.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn shared() -> Result<Arc<Self>> {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return Ok(server);
        }
        let server = Arc::new(Self::start(&[])?);
        *shared = Arc::downgrade(&server);
        Ok(server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has written to its log.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `GET path`.
    ///
    /// # Errors
    /// When there is no HTTP answer.
    pub fn get(&self, path: &str) -> Result<Answer> {
        http::exchange(self.address, &http::request("GET", path, &[], b""))
    }

    /// `POST path` with JSON.
    ///
    /// # Errors
    /// When there is no HTTP answer.
    pub fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.post_bytes(path, body.to_string().as_bytes())
    }

    /// `POST path` with bytes that claim to be JSON.
    ///
    /// # Errors
    /// When there is no HTTP answer.
    pub fn post_bytes(&self, path: &str, body: &[u8]) -> Result<Answer> {
        http::exchange(self.address, &http::request("POST", path, &[http::JSON], body))
    }

    /// `POST path`, the answer of which is read event by event.
    ///
    /// # Errors
    /// When the answer is not a stream of events.
    pub fn stream(&self, path: &str, body: &Value) -> Result<EventStream> {
        let body = body.to_string();
        let request = http::request("POST", path, &[http::JSON], body.as_bytes());
        EventStream::open(self.address, &request)
    }

    /// The sum of a metric's series.
    ///
    /// # Errors
    /// When there is none, or one is no number.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let text = self.get("/metrics")?.text();
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with(['{', ' ']).then(|| rest.rsplit(' ').next())?
        });
        let values: Vec<f64> =
            values.map(str::parse).collect::<Result<_, _>>().context(name.to_owned())?;
        ensure!(!values.is_empty(), "/metrics has no {name}");
        Ok(values.iter().sum())
    }

    /// Asks it to end, as a supervisor does.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn terminate(&self) -> Result<()> {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-TERM", &id]).status()?;
        ensure!(status.success(), "kill -TERM {id}: {status}");
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        program::wait(&mut self.child, limit)
            .with_context(|| format!("the server's log:\n{}", self.log()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server that may not be ready yet.
#[derive(Debug)]
pub struct Starting {
    child: Child,
    log: Arc<Mutex<String>>,
    /// Ends with the server's standard error.
    logger: Option<JoinHandle<()>>,
    lines: Receiver<String>,
}

impl Starting {
    /// Starts a server of the real model on `port` (0: any).
    ///
    /// # Errors
    /// When the binary cannot be started.
    pub fn new(port: u16, options: &[&str]) -> Result<Self> {
        let model = model_path();
        ensure!(model.is_file(), "{} is missing: cargo xtask model", model.display());
        Self::of(&model, Some(MODEL), port, &[], options)
    }

    fn of(
        model: &Path,
        name: Option<&str>,
        port: u16,
        environment: &[(&str, &str)],
        options: &[&str],
    ) -> Result<Self> {
        let mut child = program::command()
            .envs(environment.iter().copied())
            .arg("serve")
            .arg(model)
            .args(name.into_iter().flat_map(|name| ["--served-model-name", name]))
            .args(["--host", "127.0.0.1", "--grpc-port", "0"])
            .args(["--port", &port.to_string()])
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| {
                format!("cannot start {}: cargo build --release", program::binary().display())
            })?;
        let log = Arc::new(Mutex::new(String::new()));
        let (sender, lines) = channel();
        if let Some(pipe) = child.stdout.take() {
            each_line(pipe, move |line| {
                // After the start nobody listens.
                let _ = sender.send(line);
            });
        }
        let logger = child.stderr.take().map(|pipe| {
            let log = Arc::clone(&log);
            each_line(pipe, move |line| {
                let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                log.push_str(&line);
                log.push('\n');
            })
        });
        Ok(Self { child, log, logger, lines })
    }

    /// Waits for the line that names the address.
    fn ready(&mut self) -> Result<SocketAddr> {
        loop {
            let line = match self.lines.recv_timeout(START) {
                Ok(line) => line,
                Err(reason) => {
                    let _ = self.child.kill();
                    let status = self.child.wait()?;
                    // Its last words may still be on their way.
                    self.logger.take().map(JoinHandle::join);
                    let log = self.log.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    match reason {
                        RecvTimeoutError::Timeout => bail!("not ready after {START:?}:\n{log}"),
                        RecvTimeoutError::Disconnected => bail!("it ended, {status}:\n{log}"),
                    }
                }
            };
            if let Some(rest) = line.strip_prefix("ready: http://") {
                let address = rest.split([',', ' ']).next().unwrap_or_default();
                return address.parse().with_context(|| format!("no address in {line:?}"));
            }
        }
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn finish(mut self) -> Result<Server> {
        let address = self.ready()?;
        Ok(Server { child: self.child, address, log: self.log })
    }
}

fn each_line(
    pipe: impl Read + Send + 'static,
    mut take: impl FnMut(String) + Send + 'static,
) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            take(line);
        }
    })
}

/// A port that was free a moment ago.
///
/// # Errors
/// When none can be had.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
