//! Tests of the whole path from words to a [`Config`].

use super::flags::{Kind, Value};
use super::*;

const MACHINE: Machine = Machine { cores: 8, memory: 10_000_000_000 };

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn read(line: &str) -> Arguments {
    Arguments::read(words(line)).expect(line)
}

fn resolve(line: &str, variables: &[(&str, &str)]) -> Result<Config, UsageError> {
    let environment = Environment::of(variables.iter().copied());
    Config::resolve(&Arguments::read(words(line))?, &environment, MACHINE)
}

fn config(line: &str) -> Config {
    resolve(line, &[]).expect(line)
}

/// Everything in a configuration (secrets by their number only).
fn shown(config: &Config) -> String {
    format!("{config:?}")
}

#[test]
fn every_spelling_says_the_same() {
    let want =
        config("org/name --max-model-len=1024 --served-model-name=chat --no-enable-prefix-caching");
    for line in [
        "org/name --max_model_len 1024 --served_model_name chat --enable_prefix_caching=False",
        "--max-model-len 1024 --served-model-name chat --enable-prefix-caching 0 org/name",
        "--max_model-len=1K --served-model-name=chat --enable-prefix-caching no -- org/name",
        "org/name --max_length=1024 --model_name=x --served-model-name chat --no_enable_prefix_caching true",
        "org/name --max-model-len 5 --enable-prefix-caching --served-model-name a b \
         --max_model_len=1024 --enable-prefix-caching=f --served-model-name chat",
    ] {
        assert_eq!(shown(&config(line)), shown(&want), "{line}");
    }
}

#[test]
fn every_obeyed_flag_changes_the_configuration() {
    let keys = std::env::temp_dir().join(format!("tokenmill-keys-{}", std::process::id()));
    std::fs::write(&keys, "one\n\ntwo\n").expect("a file in the temporary directory");
    let pem = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/both.pem");
    let tls = |name: &str, value: &str| format!("--{name}={value}");
    for flag in flags::all() {
        let Kind::Obeyed { example, .. } = flag.kind else { continue };
        let example = match flag.name {
            "api-key-file" => keys.display().to_string(),
            "ssl-certfile" | "ssl-ca-certs" => pem.to_owned(),
            "ssl-keyfile" => pem.replace("both.pem", "server.key"),
            _ => example.to_owned(),
        };
        // What has no meaning without another flag is compared with that flag alone.
        let mut line = match flag.name {
            "ssl-keyfile" | "enable-ssl-refresh" => vec![tls("ssl-certfile", pem)],
            "ssl-ca-certs" | "ssl-cert-reqs" => {
                let authorities = pem.replace("both.pem", "authority.pem");
                ["ssl-certfile", "ssl-ca-certs", "ssl-cert-reqs"]
                    .map(|name| match name {
                        "ssl-certfile" => tls(name, pem),
                        "ssl-ca-certs" => tls(name, &authorities),
                        _ => tls(name, "1"),
                    })
                    .to_vec()
            }
            _ => Vec::new(),
        };
        let none = Arguments::read(line.clone()).expect("valid");
        let none = Config::resolve(&none, &Environment::default(), MACHINE).expect("valid");
        line.push(format!("--{}={example}", flag.name));
        let arguments = Arguments::read(line).expect(flag.name);
        assert_eq!(arguments.warnings, Vec::<String>::new(), "--{}", flag.name);
        let environment = Environment::default();
        let given = Config::resolve(&arguments, &environment, MACHINE).expect(flag.name);
        assert_ne!(shown(&given), shown(&none), "--{} {example} is obeyed by nothing", flag.name);
    }
    std::fs::remove_file(keys).expect("it was written above");
}

#[test]
fn flags_without_effect_warn_and_refused_ones_stop_unless_harmless() {
    for flag in flags::all() {
        let value = match flag.value {
            Value::Switch => "true",
            _ => "7",
        };
        let line = vec![format!("--{}={value}", flag.name)];
        match flag.kind {
            Kind::Obeyed { .. } => {}
            Kind::NoEffect { because } => {
                let read = Arguments::read(line).expect(flag.name);
                assert_eq!(read.warnings.len(), 1, "--{}", flag.name);
                assert!(read.warnings[0].contains(because), "{:?}", read.warnings);
            }
            Kind::Refused { because, harmless } => {
                let error = Arguments::read(line).expect_err(flag.name).to_string();
                assert!(error.contains(because) && error.contains(flag.name), "{error}");
                for value in harmless {
                    let line = vec![format!("--{}={value}", flag.name)];
                    Arguments::read(line).expect(flag.name);
                }
            }
        }
    }
    Arguments::read(words("--enable-lora --enable-lora=false")).expect("the last one wins");
}

#[test]
fn unknown_flags_warn_and_never_stop() {
    let arguments = read("m --made-up-flag 7 --other=x -z --third --http_port 9");
    assert_eq!(arguments.warnings.len(), 4, "{:?}", arguments.warnings);
    assert!(
        arguments.warnings[0].contains("--made-up-flag") && arguments.warnings[0].contains('7')
    );
    assert_eq!(arguments.positional(), ["m"]);
    assert_eq!(arguments.whole("http-port", 0, 9), Ok(Some(9)));
}

#[test]
fn a_model_behind_a_list_is_found_out() {
    let arguments = read("--served_model_name chat ./model");
    assert_eq!(arguments.taken_by_a_list(), Some(("--served_model_name", "./model")));
    assert_eq!(read("./model --served-model-name chat").taken_by_a_list(), None);
}

#[test]
fn wrong_values_are_named() {
    for (line, part) in [
        ("--max-model-len", "--max-model-len: a value has to follow"),
        ("--max-model-len --port 1", "--max-model-len: a value has to follow"),
        ("--max_model_len=many", "--max_model_len: \"many\" is not a whole number"),
        ("--port 70000", "--port: 70000 is outside 0..=65535"),
        ("--dtype int3", "--dtype: \"int3\" is not one of auto, float32"),
        ("--enable-prefix-caching=maybe", "\"maybe\" is not a boolean"),
        ("--block-size 24", "24 is not a power of two"),
        ("--max-num-seqs 64 --max-num-batched-tokens 32", "do not fit a step of 32 tokens"),
        ("--host nowhere", "not an IP address"),
        ("--override-generation-config [1]", "expected a JSON object"),
        ("--default-chat-template-kwargs {", "not JSON"),
        ("--allowed-origins x", "expected a JSON list"),
        ("--api-key-file /does/not/exist", "--api-key-file: /does/not/exist"),
        ("--ssl-keyfile /k", "--ssl-keyfile needs --ssl-certfile"),
        ("--ssl-cert-reqs 2", "--ssl-cert-reqs needs --ssl-certfile"),
        ("--ssl-certfile /c --ssl-ca-certs /a", "--ssl-ca-certs needs --ssl-cert-reqs 1 or 2"),
        ("--ssl-certfile /c --ssl-cert-reqs 1", "--ssl-cert-reqs needs --ssl-ca-certs"),
        ("--ssl-certfile /c", "--ssl-certfile: /c: No such file"),
        ("--ssl-cert-reqs 3", "--ssl-cert-reqs: 3 is outside 0..=2"),
        ("--tensor-parallel-size 2", "refused"),
        ("ftp://host/model", "Cannot recognize storage type for ftp://host/model"),
        ("org/name:x", "MODEL: "),
    ] {
        let error = resolve(line, &[]).expect_err(line).to_string();
        assert!(error.contains(part), "{line}: {error}");
    }
}

#[test]
fn arguments_win_over_the_environment_and_that_over_defaults() {
    let variables = [
        ("PORT", "81"),
        ("HTTP_PORT", "82"),
        ("MODEL_NAME", "env"),
        ("LOG_LEVEL", "ERROR"),
        ("KSERVE_LOGLEVEL", "DEBUG"),
        ("VLLM_API_KEY", "envkey"),
        ("STORAGE_URI", "hf://org/env:v2"),
        ("KSERVE_OPENAI_ROUTE_PREFIX", ""),
        ("HF_ENDPOINT", "http://mirror/"),
        ("HF_HOME", "/home/hf"),
        ("HF_TOKEN", "token"),
        ("HF_HUB_OFFLINE", "1"),
    ];
    let from_env = resolve("", &variables).expect("valid");
    assert_eq!((from_env.http.port, from_env.http.prefixes), (82, Vec::<String>::new()));
    assert_eq!(from_env.served_names, ["env"]);
    assert_eq!(from_env.log.level, tracing::Level::DEBUG);
    assert_eq!(from_env.http.api_keys, ["envkey"]);
    assert_eq!(from_env.model.expect("STORAGE_URI").text(), "org/env@v2");
    assert_eq!(from_env.hub.endpoint, "http://mirror");
    assert_eq!(from_env.hub.cache, PathBuf::from("/home/hf/hub"));
    assert_eq!(from_env.hub.token.as_deref(), Some("token"));
    assert!(from_env.hub.offline);

    let line = "./here --port 83 --model-name arg --log-level warning --api-key a b --hf-token t";
    let given = resolve(line, &variables).expect("valid");
    assert_eq!((given.http.port, given.served_names), (83, vec!["arg".to_owned()]));
    assert_eq!(given.log.level, tracing::Level::WARN);
    assert_eq!(given.http.api_keys, ["a", "b"]);
    assert_eq!(given.model.expect("positional").text(), "./here");
    assert_eq!(given.hub.token.as_deref(), Some("t"));

    let defaults = config("m");
    assert_eq!((defaults.http.host.as_str(), defaults.http.port), ("0.0.0.0", 8080));
    assert_eq!(defaults.http.prefixes, ["/openai"]);
    assert_eq!((defaults.engine.max_sequences, defaults.engine.max_step_tokens), (256, 2048));
    assert_eq!(defaults.engine.kv_bytes_default, 4_000_000_000);
    assert_eq!(defaults.engine.split.kernel_threads, 8);
    let bad = resolve("m", &[("PORT", "http")]).expect_err("not a port").to_string();
    assert!(bad.starts_with("PORT: "), "{bad}");
}

#[test]
fn models_are_paths_or_hub_ids() {
    for (line, want, name) in [
        ("org/name", "org/name", "org/name"),
        ("org/name@v1", "org/name@v1", "org/name"),
        ("hf://org/name:v1", "org/name@v1", "org/name"),
        ("org/name:q4.gguf", "org/name:q4.gguf", "org/name"),
        ("./dir/model.gguf", "./dir/model.gguf", "model"),
        ("dir/model.gguf", "dir/model.gguf", "model"),
        ("file:///models/chat", "/models/chat", "chat"),
        ("/mnt/models", "/mnt/models", "model"),
        ("--model_id=org/a --model_dir=/b", "org/a", "org/a"),
        ("--model_dir=/b --model=/c", "/c", "c"),
        ("/d --model=/c", "/d", "d"),
    ] {
        let model = config(line).model.expect(line);
        assert_eq!((model.text().as_str(), model.default_name().as_str()), (want, name), "{line}");
    }
    let late = resolve("", &[("MODEL_INIT_MODE", "async")]).expect("valid");
    assert_eq!(late.model.expect("the mount").text(), "/mnt/models");
}

#[test]
fn secrets_are_not_printed() {
    let file = std::env::temp_dir().join(format!("tokenmill-secrets-{}", std::process::id()));
    std::fs::write(&file, "topsecret\n").expect("a file in the temporary directory");
    let line = format!(
        "--api-key topsecret --hf-token topsecret --admin-api-key topsecret --api-key-file {}",
        file.display()
    );
    let shown = format!("{:?}", config(&line));
    std::fs::remove_file(&file).expect("it was written above");
    assert!(!shown.contains("topsecret"), "{shown}");
}

#[test]
fn every_variable_that_is_read_is_in_the_table() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config");
    let table = markdown();
    let mut found = 0;
    for name in ["http.rs", "hub.rs", "mod.rs", "model.rs", "predictive.rs"] {
        let source = std::fs::read_to_string(format!("{folder}/{name}")).expect("a source file");
        let is_name = |text: &&str| {
            (text.contains('_') || ["HOME", "PORT"].contains(text))
                && text.starts_with(|first: char| first.is_ascii_uppercase())
                && text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
        };
        for variable in source.split('"').skip(1).step_by(2).filter(is_name) {
            assert!(table.contains(&format!("`{variable}`")), "{name} reads {variable}");
            found += 1;
        }
    }
    assert!(found > 20, "the search found {found} variables");
}

#[test]
fn the_flags_document_is_in_sync() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/flags.md");
    let written = std::fs::read_to_string(path).unwrap_or_default();
    if written != markdown() {
        let fresh = std::env::temp_dir().join("tokenmill-flags.md");
        std::fs::write(&fresh, markdown()).expect("the temporary directory can be written");
        panic!("docs/flags.md differs from the table; the right one is {}", fresh.display());
    }
}
