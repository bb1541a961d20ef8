//! `cargo xtask demo`: from a fresh clone to a model that answers.

use std::path::Path;

use anyhow::Result;

use crate::model;
use crate::shell;

/// Gets the model, builds the binary, prints how to talk to it and serves.
pub(crate) fn run(root: &Path, options: &[String]) -> Result<()> {
    let model = model::ensure_present(root)?;
    shell::run(&mut shell::command(
        root,
        "cargo",
        &["build", "--release", "--package", "tokenmill"],
    ))?;
    let port = port(options);
    eprintln!(
        "\nwhen it says it is ready, talk to it from another terminal:\n\n  \
         curl -N http://127.0.0.1:{port}/v1/chat/completions -H 'Content-Type: application/json' \\\n    \
         -d '{{\"model\":\"smollm2\",\"stream\":true,\"temperature\":0,\"messages\":[{{\"role\":\"user\",\"content\":\"What is the capital of France?\"}}]}}'\n\n  \
         target/release/tokenmill chat --url http://127.0.0.1:{port}\n"
    );
    let binary = root.join("target/release/tokenmill");
    let mut serve = std::process::Command::new(binary);
    serve.current_dir(root).arg("serve").arg(model).args(["--served-model-name", "smollm2"]);
    // What the model's authors recommend; a GGUF file has no place for it, and at temperature 1 a model
    // of this size loses itself.
    serve.args(["--override-generation-config", r#"{"temperature": 0.2, "top_p": 0.9}"#]);
    shell::run(serve.args(["--host", "127.0.0.1"]).args(options))
}

/// The port the options choose: the last one given, else the server's default.
fn port(options: &[String]) -> String {
    let mut port = "8080".to_owned();
    for (index, option) in options.iter().enumerate() {
        match option.split_once('=') {
            Some(("--port" | "--http_port" | "--http-port", value)) => port = value.to_owned(),
            None if matches!(option.as_str(), "--port" | "--http_port" | "--http-port") => {
                if let Some(value) = options.get(index + 1) {
                    port.clone_from(value);
                }
            }
            _ => {}
        }
    }
    port
}
