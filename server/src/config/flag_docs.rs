//! `docs/flags.md`, from the table that the command line is read with.

use std::fmt::Write;

use super::flags::{GROUPS, Kind, Value};

const HEAD: &str = "# Flags of `tokenmill serve`

Generated from the table that reads the command line (`cargo test` compares). `--name value` and
`--name=value` are the same, `-` and `_` in names are the same, the last of several wins, and a flag
that is not in this list is a warning, never an error. Switches take nothing or a boolean, and
`--no-NAME` is false. Numbers take units: `4k` is 4000, `4K` and `4KiB` are 4096.

Order of every setting: argument, its own environment variable, a fall-back variable, default.

## Environment

| variable | sets |
|---|---|
| `MODEL_NAME` | `--model-name` |
| `HTTP_PORT`, `PORT` | `--http-port` |
| `KSERVE_LOGLEVEL`, `LOG_LEVEL` | `--log-level` |
| `STORAGE_URI` | `--model-dir` |
| `MULTI_MODEL_SERVER` | true: start without a model; calls load the folders of `--model-dir` |
| `MODEL_INIT_MODE` | `async`: wait for a model directory that appears late |
| `ALLOW_LONG_MAX_MODEL_LEN`, `VLLM_ALLOW_LONG_MAX_MODEL_LEN` | true: `--max-model-len` may be above the model's own length |
| `PREDICT_PROBA` | true: `--predict-method predict_proba`, when the flag is not given |
| `CE_MERGE` | true: answers to CloudEvents keep the attributes of the request |
| `CE_TYPE`, `CE_SOURCE` | `type` and `source` of answers to CloudEvents, default `io.kserve.inference.response` and `io.kserve.inference.MODEL` |
| `KSERVE_OPENAI_ROUTE_PREFIX` | prefix of the second set of OpenAI routes, default `/openai`; empty for none |
| `VLLM_API_KEY` | `--api-key`, when neither it nor `--api-key-file` is given |
| `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN`, `HF_TOKEN_PATH` | token for the hub, or a file with it |
| `HF_ENDPOINT` | address of the hub |
| `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`, `HOME` | where models of the hub are kept, the first that is set |
| `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE` | true: only what is kept already |
| `STORAGE_ALLOW_PATTERNS`, `STORAGE_IGNORE_PATTERNS` | which files of the hub and of other addresses are wanted: shell patterns |
| `STORAGE_CONFIG`, `AWS_...`, `AZURE_...` and others | who we are to storage, and how it is asked: docs/kserve.md, Storage |
";

/// The document.
pub fn markdown() -> String {
    let mut text = HEAD.to_owned();
    for group in GROUPS {
        let obeyed = group.flags.iter().any(|flag| matches!(flag.kind, Kind::Obeyed { .. }));
        let last = if obeyed { "default" } else { "what becomes of it" };
        let _ = write!(text, "\n## {}\n\n| flag | sets | {last} |\n|---|---|---|\n", group.title);
        for flag in group.flags {
            let mut names = format!("`--{}{}`", flag.name, shape(flag.value));
            for alias in flag.aliases {
                let _ = write!(names, ", `--{alias}`");
            }
            let what = match flag.kind {
                Kind::Obeyed { default: "", .. } => String::new(),
                Kind::Obeyed { default, .. } => default.to_owned(),
                Kind::NoEffect { because } => format!("accepted without effect: {because}"),
                Kind::Refused { because, harmless: [] | [""] } => format!("refused: {because}"),
                Kind::Refused { because, harmless } => {
                    format!("refused unless {}: {because}", harmless.join(", "))
                }
            };
            let _ = writeln!(text, "| {names} | {} | {what} |", flag.help.replace('|', "\\|"));
        }
    }
    text
}

/// What follows the name.
fn shape(value: Value) -> String {
    match value {
        Value::Switch => String::new(),
        Value::Whole | Value::Decimal => " N".to_owned(),
        Value::Choice(words) => format!(" {}", words.join("\\|")),
        Value::Text => " TEXT".to_owned(),
        Value::Json => " JSON".to_owned(),
        Value::List => " TEXT...".to_owned(),
    }
}
