//! Help that teaches: one command tree, the flags of `serve` from the table that reads them.

use clap::builder::{PossibleValuesParser, StyledStr};
use clap::{Arg, ArgAction, Args, Command, ValueHint};

use crate::config::flags::{GROUPS, Kind, Value};

/// Printed by `serve` without a model.
pub(super) const NO_MODEL: &str =
    "which model? Give a directory, a .gguf file, a hub id or an address:

  tokenmill serve ./SmolLM2-135M-Instruct.gguf
  tokenmill serve HuggingFaceTB/SmolLM2-135M-Instruct
  tokenmill serve s3://bucket/model
  tokenmill serve --help";

const EXAMPLES: &str = "Examples:
  tokenmill serve ./SmolLM2-135M-Instruct.gguf        serve a file on port 8080
  tokenmill serve HuggingFaceTB/SmolLM2-135M-Instruct download once, then serve
  tokenmill chat                                      talk to it in this terminal
  tokenmill predict model.joblib --input rows.csv     ask a classic model, without a server
  tokenmill bench --concurrency 8 --html run.html     measure it
  tokenmill inspect ./model                           what it is and what it would take";

const SERVE_EXAMPLES: &str = "Examples:
  tokenmill serve ./model.gguf
  tokenmill serve org/name@main --served-model-name chat --port 9000
  tokenmill serve --model_dir=/mnt/models --model_name=chat --http_port=8080
  tokenmill serve ./model --max-model-len 4k --kv-cache-memory-bytes 2GiB --api-key secret

Flags are written with - or _, as --name value or --name=value; the last of several wins. Flags of other
model servers are accepted where that is harmless: docs/flags.md lists them all, and the environment.";

const MODEL: &str = "Directory, file, hub id (org/name, org/name@revision, org/name:file.gguf) or address \
                     (hf://, s3://, gs://, hdfs://, oci://, modelscope://, https://)";

/// The whole tree.
pub(super) fn command() -> Command {
    let shell = Arg::new("shell")
        .required(true)
        .value_parser(clap::value_parser!(clap_complete::Shell))
        .help("Shell to print completions for");
    Command::new("tokenmill")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Serves language models on CPUs, for OpenAI clients and KServe")
        .after_help(EXAMPLES)
        .subcommand(serve())
        .subcommand(
            with_flags(Command::new("inspect"))
                .about("Print what a model is and the memory that serving it takes, without loading it")
                .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print JSON"))
                .after_help("Examples:\n  tokenmill inspect ./model.gguf\n  tokenmill inspect org/name --max-model-len 4k --json"),
        )
        .subcommand(super::chat::ChatArgs::augment_args(Command::new("chat")))
        .subcommand(super::predict::PredictArgs::augment_args(Command::new("predict")))
        .subcommand(super::bench::BenchArgs::augment_args(Command::new("bench")))
        .subcommand(
            Command::new("completions")
                .about("Print shell completions")
                .arg(shell)
                .after_help("Example:\n  tokenmill completions bash > /etc/bash_completion.d/tokenmill"),
        )
}

/// The help of `serve` or `inspect`.
pub(super) fn render(name: &str) -> StyledStr {
    let mut tree = command();
    tree.build();
    tree.find_subcommand_mut(name).map(Command::render_long_help).unwrap_or_default()
}

fn serve() -> Command {
    with_flags(Command::new("serve")).about("Serve a model over HTTP").after_help(SERVE_EXAMPLES)
}

/// Every obeyed flag of the table.
fn with_flags(command: Command) -> Command {
    let model = Arg::new("MODEL").value_hint(ValueHint::AnyPath).help(MODEL);
    let mut command = command.arg(model);
    for group in GROUPS {
        for flag in group.flags {
            let Kind::Obeyed { default, .. } = flag.kind else { continue };
            let help = match default {
                "" => flag.help.to_owned(),
                default => format!("{} [default: {default}]", flag.help),
            };
            let arg = Arg::new(flag.name)
                .long(flag.name)
                .visible_aliases(flag.aliases.iter().copied())
                .help_heading(group.title)
                .help(help);
            command = command.arg(match flag.value {
                Value::Switch => arg.num_args(0..=1).require_equals(true).value_name("true|false"),
                Value::Choice(words) => {
                    arg.value_name("WORD").value_parser(PossibleValuesParser::new(words))
                }
                Value::Whole | Value::Decimal => arg.value_name("N"),
                Value::Text => arg.value_name("TEXT"),
                Value::Json => arg.value_name("JSON"),
                Value::List => arg.value_name("TEXT").num_args(1..),
            });
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_sound_and_help_has_every_obeyed_flag() {
        command().debug_assert();
        let help = render("serve").to_string();
        for flag in crate::config::flags::all() {
            let obeyed = matches!(flag.kind, Kind::Obeyed { .. });
            let shown = help.contains(&format!("--{} ", flag.name))
                || help.contains(&format!("--{}[", flag.name));
            assert_eq!(shown, obeyed, "--{}", flag.name);
        }
        assert!(help.contains("tokenmill serve ./model.gguf"));
    }
}
