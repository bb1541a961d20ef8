//! The command line: which command, its help, its exit code.
//!
//! `serve` and `inspect` read their words with the table of flags, as forgiving as the runtimes they
//! stand in for; clap prints their help from the same table and reads the other commands.

mod bench;
mod chat;
mod classic;
mod help;
mod inspect;
mod model;
mod openai_client;
mod predict;
mod progress;
mod ready;
mod serve;
#[cfg(test)]
mod test_server;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::FromArgMatches;

use crate::config::{Arguments, Config, Environment, Machine, UsageError};
use crate::logging::{self, LogConfig};

/// What was typed cannot be obeyed.
const USAGE: u8 = 2;
/// It was tried and failed.
const FAILED: u8 = 1;

/// Runs the program with its words, its name first.
pub fn run(words: Vec<String>) -> ExitCode {
    let environment = Environment::of_process();
    let rest = |from: usize| words.iter().skip(from).cloned();
    match words.get(1).map(String::as_str) {
        Some("serve") => serve(rest(2), &environment),
        Some("inspect") => inspect(rest(2), &environment),
        // A container's arguments without a command: those of a model server.
        Some(word) if starts_a_server(word) => serve(rest(1), &environment),
        _ => other(&words, &environment),
    }
}

fn starts_a_server(word: &str) -> bool {
    word.starts_with("--") && !matches!(word, "--help" | "--version")
}

fn serve(words: impl Iterator<Item = String>, environment: &Environment) -> ExitCode {
    let Some((arguments, config)) = (match resolve(words, environment, "serve") {
        Ok(resolved) => resolved,
        Err(code) => return code,
    }) else {
        return ExitCode::SUCCESS;
    };
    if config.model.is_none() {
        eprintln!("{}", help::NO_MODEL);
        if let Some((flag, value)) = arguments.taken_by_a_list() {
            eprintln!("\n{flag} takes several values and took {value}: write the model first.");
        }
        return ExitCode::from(USAGE);
    }
    start_log(config.log);
    for warning in &arguments.warnings {
        tracing::warn!("{warning}");
    }
    let workers = config.engine.split.tokio_workers;
    finish(in_runtime(workers, serve::serve(config)))
}

fn inspect(words: impl Iterator<Item = String>, environment: &Environment) -> ExitCode {
    let words: Vec<String> = words.collect();
    let json = words.iter().any(|word| word == "--json");
    let words = words.into_iter().filter(|word| word != "--json");
    let Some((arguments, config)) = (match resolve(words, environment, "inspect") {
        Ok(resolved) => resolved,
        Err(code) => return code,
    }) else {
        return ExitCode::SUCCESS;
    };
    if config.model.is_none() {
        eprintln!("which model? Try: tokenmill inspect PATH-OR-HUB-ID");
        return ExitCode::from(USAGE);
    }
    start_log(config.log);
    for warning in &arguments.warnings {
        tracing::warn!("{warning}");
    }
    finish(in_runtime(2, inspect::inspect(config, json)).map(|()| ExitCode::SUCCESS))
}

/// Reads and resolves; `None` when help was printed instead.
fn resolve(
    words: impl Iterator<Item = String>,
    environment: &Environment,
    command: &str,
) -> Result<Option<(Arguments, Config)>, ExitCode> {
    let wrong = |error: UsageError| {
        eprintln!("error: {error}\n\nTry: tokenmill {command} --help");
        ExitCode::from(USAGE)
    };
    let arguments = Arguments::read(words).map_err(wrong)?;
    if arguments.help {
        say(&help::render(command).to_string());
        return Ok(None);
    }
    let config = Config::resolve(&arguments, environment, Machine::detect()).map_err(wrong)?;
    Ok(Some((arguments, config)))
}

/// The commands that clap reads.
fn other(words: &[String], environment: &Environment) -> ExitCode {
    let matches = match help::command().try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(error) => {
            // Help and version come as errors too; clap knows their codes and streams.
            let code = u8::try_from(error.exit_code()).unwrap_or(USAGE);
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let key = || environment.get("VLLM_API_KEY").map(str::to_owned);
    match matches.subcommand() {
        Some(("bench", matches)) => match bench::BenchArgs::from_arg_matches(matches) {
            Ok(args) => client(bench::run(args.or_key(key()))),
            Err(error) => usage(&error),
        },
        Some(("chat", matches)) => match chat::ChatArgs::from_arg_matches(matches) {
            Ok(args) => client(chat::run(args.or_key(key()))),
            Err(error) => usage(&error),
        },
        Some(("predict", matches)) => match predict::PredictArgs::from_arg_matches(matches) {
            Ok(args) => match resolve(args.words().into_iter(), environment, "predict") {
                Ok(Some((_, config))) => client(predict::run(args, config)),
                Ok(None) => ExitCode::SUCCESS,
                Err(code) => code,
            },
            Err(error) => usage(&error),
        },
        Some(("completions", matches)) => match matches.get_one::<clap_complete::Shell>("shell") {
            Some(shell) => {
                let mut command = help::command();
                clap_complete::generate(*shell, &mut command, "tokenmill", &mut io::stdout());
                ExitCode::SUCCESS
            }
            None => ExitCode::from(USAGE),
        },
        _ => {
            say(&help::command().render_long_help().to_string());
            ExitCode::from(USAGE)
        }
    }
}

fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    ExitCode::from(USAGE)
}

/// Runs a command that asks a server or a model and ends.
fn client(command: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    start_log(LogConfig { level: tracing::Level::WARN, ..LogConfig::default() });
    finish(in_runtime(2, command).map(|()| ExitCode::SUCCESS))
}

fn start_log(config: LogConfig) {
    if let Err(error) = logging::init(config) {
        eprintln!("warning: the log could not be set up: {error}");
    }
}

/// Runs to the end; threads that still load or read are left behind, the process ends anyway.
fn in_runtime<T>(
    workers: usize,
    future: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name("tokenmill-io")
        .enable_all()
        .build()?;
    let result = runtime.block_on(future);
    runtime.shutdown_background();
    result
}

/// Prints to standard output; a reader that went away (`| head`) is no failure.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn finish(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("error: {}", described(&error));
        ExitCode::from(FAILED)
    })
}

/// An error with its causes; one that is quoted by the error above it is not said twice.
fn described(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(words: &[&str]) -> ExitCode {
        run(std::iter::once("tokenmill").chain(words.iter().copied()).map(str::to_owned).collect())
    }

    #[test]
    fn a_quoted_cause_is_said_once() {
        let cause = || std::io::Error::other("no space");
        let quoting = anyhow::Error::new(cause()).context("model.gguf: no space");
        assert_eq!(described(&quoting), "model.gguf: no space");
        let other = anyhow::Error::new(cause()).context("model.gguf").context("serve");
        assert_eq!(described(&other), "serve: model.gguf: no space");
    }

    #[test]
    fn exit_codes_tell_usage_from_failure() {
        for (words, want) in [
            (&["--version"][..], 0),
            (&["--help"], 0),
            (&["serve", "--help"], 0),
            (&["inspect", "-h"], 0),
            (&["completions", "bash"], 0),
            (&["bench", "--help"], 0),
            (&[], 2),
            (&["no-such-command"], 2),
            (&["inspect"], 2),
            (&["serve", "--port", "x"], 2),
            (&["--http_port=x"], 2),
            (&["serve", "/no/such/model", "--port", "0"], 1),
            (&["inspect", "/no/such/model"], 1),
            (&["predict", "--help"], 0),
            (&["predict", "model"], 2),
            (&["predict", "model", "--input", "x.csv", "--method", "guess"], 2),
            (&["predict", "/no/such/model", "--input", "x.csv"], 1),
            (&["bench", "--rate", "0"], 2),
            (&["chat", "--url", "http://127.0.0.1:1", "--message", "hi"], 1),
        ] {
            assert_eq!(code(words), ExitCode::from(want), "{words:?}");
        }
    }
}
