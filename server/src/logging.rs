//! The log: its level and its form. Lines go to standard error, so that standard output stays ours.
//!
//! Spans carry request ids; no prompt and no completion is ever an event or a field.

use std::io::IsTerminal;

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, fmt};

/// Form of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object per line, the fields of spans beside those of the event.
    Json,
}

/// What is logged, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Least severe level.
    pub level: Level,
    /// Form.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: Level::INFO, format: LogFormat::Human }
    }
}

impl LogConfig {
    /// A level by name, in Rust's, Python's and uvicorn's words, in any case.
    pub fn level(name: &str) -> Option<Level> {
        match name.trim().to_ascii_lowercase().as_str() {
            "trace" | "notset" => Some(Level::TRACE),
            "debug" => Some(Level::DEBUG),
            "info" => Some(Level::INFO),
            "warn" | "warning" => Some(Level::WARN),
            "error" | "critical" | "fatal" => Some(Level::ERROR),
            _ => None,
        }
    }
}

/// Installs the log for the whole process.
///
/// # Errors
/// When another one was installed before.
pub fn init(config: LogConfig) -> Result<(), TryInitError> {
    tracing_subscriber::registry().with(layer(config, std::io::stderr)).try_init()
}

/// The layer that writes lines; libraries below us are heard from warnings upwards only.
fn layer<S, W>(config: LogConfig, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    W: for<'w> fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    let level = LevelFilter::from_level(config.level);
    let targets = Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("tokenmill", level)
        .with_target("access", level)
        .with_target("tokenmill_engine", level)
        .with_target("tokenmill_predictive", level);
    let ansi = std::io::stderr().is_terminal();
    match config.format {
        LogFormat::Human => fmt::layer()
            .with_writer(writer)
            .with_ansi(ansi)
            .with_target(false)
            .with_filter(targets)
            .boxed(),
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .with_writer(writer)
            .with_filter(targets)
            .boxed(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(config: LogConfig) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::registry().with(layer(config, move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!(target: "tokenmill", "request", request_id = "abc");
            let _inside = span.enter();
            tracing::info!(target: "tokenmill", tokens = 3, "finished");
            tracing::debug!(target: "tokenmill", "detail");
            tracing::info!(target: "access", path = "/v1/models", "request");
            tracing::info!(target: "hyper", "noise");
            tracing::warn!(target: "hyper", "trouble");
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_lines_carry_the_request_id() {
        let text = logged(LogConfig { level: Level::INFO, format: LogFormat::Json });
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert_eq!(lines[0]["message"], "finished");
        assert_eq!(lines[0]["tokens"], 3);
        assert_eq!(lines[0]["span"]["request_id"], "abc");
        assert_eq!(lines[1]["path"], "/v1/models");
        assert_eq!(lines[2]["message"], "trouble");
    }

    #[test]
    fn the_level_decides() {
        let text = logged(LogConfig { level: Level::DEBUG, format: LogFormat::Human });
        assert!(
            text.contains("detail") && text.contains("abc") && !text.contains("noise"),
            "{text}"
        );
        assert_eq!(logged(LogConfig { level: Level::ERROR, format: LogFormat::Human }), "");
        assert_eq!(LogConfig::level("Warning"), Some(Level::WARN));
        assert_eq!(LogConfig::level("loud"), None);
    }
}
