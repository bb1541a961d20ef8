//! The binary from the outside: a small model with random weights is served, asked and stopped.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/tests/fixtures/models/llama");

/// A directory that goes with the test.
struct Model(PathBuf);

impl Drop for Model {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Model {
    /// The engine's fixture with a tokenizer of one word per id.
    fn new(name: &str) -> Self {
        let directory =
            std::env::temp_dir().join(format!("tokenmill-cli-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("the fixture can be copied");
        for file in ["config.json", "generation_config.json", "model.safetensors"] {
            fs::copy(Path::new(FIXTURE).join(file), directory.join(file))
                .expect("the fixture can be copied");
        }
        let config: serde_json::Value = serde_json::from_slice(
            &fs::read(directory.join("config.json")).expect("the fixture can be copied"),
        )
        .expect("the fixture can be copied");
        let size = config["vocab_size"].as_u64().expect("the fixture can be copied");
        let vocabulary: serde_json::Map<_, _> =
            (0..size).map(|id| (format!("w{id}"), id.into())).collect();
        let tokenizer = serde_json::json!({
            "version": "1.0",
            "pre_tokenizer": {"type": "Whitespace"},
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "w0"},
        });
        fs::write(directory.join("tokenizer.json"), tokenizer.to_string())
            .expect("the fixture can be copied");
        Self(directory)
    }
}

fn tokenmill(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenmill"));
    command.args(words).env_clear().stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A server that does not outlive its test.
struct Running {
    child: Child,
    address: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn start(words: &[&str]) -> Self {
        Self::spawn(&mut tokenmill(words))
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::null()).spawn().expect("the server runs");
        let mut ready = String::new();
        BufReader::new(child.stdout.take().expect("the server runs"))
            .read_line(&mut ready)
            .expect("the server runs");
        let address = ready.strip_prefix("ready: http://").and_then(|rest| rest.split(',').next());
        let address = address.unwrap_or_else(|| panic!("no ready line: {ready:?}")).to_owned();
        assert!(ready.contains("try: curl "), "{ready}");
        Self { child, address }
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let mut socket = TcpStream::connect(&self.address).expect("the server runs");
        write!(
            socket,
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("the server runs");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("the server runs");
        answer
    }
}

#[test]
fn a_model_is_served_and_sigterm_ends_it_well() {
    let model = Model::new("serve");
    let path = model.0.to_str().unwrap();
    let mut server = Running::start(&[
        "serve",
        "--model_dir",
        path,
        "--model_name=tiny",
        "--http_port=0",
        "--host=127.0.0.1",
        "--grpc_port=9000",
        "--made-up",
        "--max-num-seqs=4",
        "--kv-cache-memory-bytes=4MiB",
    ]);
    let metrics = server.ask("GET", "/metrics", "");
    for series in ["phase=\"first_token\"", "part=\"kv\""] {
        assert!(metrics.contains(series), "{series} is not in {metrics}");
    }
    let models = server.ask("GET", "/v1/models", "");
    assert!(models.contains("200 OK") && models.contains("\"id\":\"tiny\""), "{models}");
    let body = r#"{"model":"tiny","prompt":"w1 w2 w3","max_tokens":3,"temperature":0}"#;
    let completion = server.ask("POST", "/v1/completions", body);
    assert!(completion.contains("200 OK"), "{completion}");
    assert!(completion.contains("\"completion_tokens\":3"), "{completion}");

    // The same port again: refused before anything is loaded, and the running server goes on.
    let port = server.address.rsplit(':').next().unwrap();
    let second =
        tokenmill(&["serve", path, "--host", "127.0.0.1", "--port", port]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("cannot listen on 127.0.0.1:"));

    let pid = server.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

#[test]
fn inspect_tells_programs_everything() {
    let model = Model::new("inspect");
    let path = model.0.to_str().unwrap();
    let output =
        tokenmill(&["inspect", path, "--json", "--num-gpu-blocks-override=64"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let facts: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(facts["architecture"], "LlamaForCausalLM");
    assert_eq!(facts["kv_cache"]["tokens"], 64 * 16);
    assert_eq!(facts["chat_template"], serde_json::Value::Null);
    assert!(facts["refused"][0].as_str().unwrap().starts_with("chat: "));
    let memory = &facts["memory"];
    let parts = ["weights", "kv_cache", "workspace", "tables"];
    let sum: u64 = parts.iter().map(|part| memory[part].as_u64().unwrap()).sum();
    assert_eq!(memory["total"], sum);
    let templated =
        ["inspect", path, "--json", "--chat-template", "{% for m in messages %}x{% endfor %}"];
    let output = tokenmill(&templated).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("string content"));
}

#[test]
fn without_a_model_serve_says_what_to_type() {
    let output = tokenmill(&["serve", "--port", "0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("tokenmill serve ./SmolLM2-135M-Instruct.gguf"), "{said}");
    let broken = Model::new("broken");
    fs::write(broken.0.join("config.json"), "{").unwrap();
    let output = tokenmill(&["serve", broken.0.to_str().unwrap(), "--port=0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("config.json"));
}

/// A fixture of the classic models.
fn classic(path: &str) -> String {
    format!("{}/../predictive/tests/fixtures/{path}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn predict_answers_from_files() {
    let directory = Model::new("predict");
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.0.join(name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let mut npy = b"\x93NUMPY\x01\0".to_vec();
    let header = "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 4), }\n";
    npy.extend((header.len() as u16).to_le_bytes());
    npy.extend_from_slice(header.as_bytes());
    npy.extend([0, 1, 0, 0, 1, 1, 2, 1]);
    let v1 = write("v1.json", br#"{"instances": [[0, 0, 1, 2], [1, 0, 1, 1]]}"#);
    let v2 = write(
        "v2.json",
        br#"{"inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP64", "data": [0, 0, 1, 2, 1, 0, 1, 1]}]}"#,
    );
    let csv = write("rows.csv", b"0,0,1,2\n1,0,1,1\n");
    let npy = write("rows.npy", &npy);
    let bayes = classic("sklearn_models/ComplementNB_binary_191.joblib");
    let predict = |words: &[&str]| {
        let output = tokenmill(&[&["predict"], words].concat()).output().unwrap();
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap());
        (output.status.code(), said[0].clone(), said[1].clone())
    };
    for words in [&["--input", &v1][..], &["-i", &v2], &["-i", &csv, "--no-header"], &["-i", &npy]]
    {
        let (code, answer, error) = predict(&[&[bayes.as_str(), "--json"], words].concat());
        assert_eq!(code, Some(0), "{words:?}: {error}");
        assert_eq!(answer, "{\"predictions\":[\"no\",\"yes\"]}\n", "{words:?}");
    }
    let (_, answer, error) = predict(&[&bayes, "-i", &npy, "--method", "predict_proba"]);
    assert_eq!(answer.lines().count(), 4, "{answer}{error}");
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let chance = answer["predictions"][1][0].as_f64().unwrap();
    assert!((chance - 0.47287366087015764).abs() < 1e-9, "{answer}");

    // Columns are found by their names, in any order.
    let frame = classic("sklearn_prep/11_columns_frame.pkl");
    let table = write("table.csv", "city,size,age\nRome,0,45.5\nŁódź,1,39.25\n".as_bytes());
    let (code, answer, error) = predict(&[&frame, "--input", &table, "--json"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(answer.contains("45.5,0.0]"), "{answer}");

    let short = write("short.csv", b"a,b\n1,2\n3\n");
    let shapeless = write("shapeless.json", br#"{"inputs": [{"name": "x", "datatype": "FP64"}]}"#);
    for (words, want) in [
        (&[&bayes, "-i", &short][..], "short.csv: CSV error: record 2 (line: 3"),
        (&[&bayes, "-i", &shapeless], "shapeless.json: inputs.0.shape: Field required"),
        (&[&frame, "-i", &npy, "--method", "predict"], "--method predict: the model has transform"),
        (&[&frame, "-i", &csv], "rows.csv: "),
        (&[&bayes, "-i", "rows.txt"], "rows.txt: its name ends in none of .json, .csv and .npy"),
    ] {
        let (code, answer, error) = predict(words);
        assert_eq!((code, answer.as_str()), (Some(1), ""), "{words:?}");
        assert!(error.contains(want), "{words:?}: {error}");
    }
}

#[test]
fn a_server_of_many_models_starts_empty_and_loads_on_call() {
    let directory = Model::new("many");
    let models = directory.0.join("models");
    let mut command = tokenmill(&["serve", "--model_dir", models.to_str().unwrap()]);
    command.args(["--http_port=0", "--host=127.0.0.1", "--grpc_port=0"]);
    let server = Running::spawn(command.env("MULTI_MODEL_SERVER", "true"));
    let ready = server.ask("GET", "/v2/health/ready", "");
    assert!(ready.contains("200 OK"), "{ready}");
    let missing = server.ask("POST", "/v2/repository/models/bayes/load", "{}");
    assert!(missing.contains("503"), "{missing}");

    fs::create_dir_all(models.join("bayes")).unwrap();
    let bayes = classic("sklearn_models/ComplementNB_binary_191.joblib");
    fs::copy(bayes, models.join("bayes/model.joblib")).unwrap();
    let loaded = server.ask("POST", "/v2/repository/models/bayes/load", "{}");
    assert!(loaded.contains("200 OK"), "{loaded}");
    let body = r#"{"instances": [[2, 2, 2, 2]]}"#;
    let answer = server.ask("POST", "/v1/models/bayes:predict", body);
    assert!(answer.contains("{\"predictions\":["), "{answer}");
}
