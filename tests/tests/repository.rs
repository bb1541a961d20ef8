//! A repository of classic models: versions, loads and unloads while requests run, batching.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::{fs, thread};

use serde_json::{Value, json};
use tokenmill_tests::files::Folder;
use tokenmill_tests::{Server, http, program};

/// Two models of the same four columns with different answers, and a model of three classes.
const FIRST: &str = "xgboost/x176_binary_logistic";
const SECOND: &str = "xgboost/x176_dart_logistic";
const CLIENTS: usize = 4;

/// What a library answered, and where its model is.
struct Case {
    facts: Value,
    stem: &'static str,
}

impl Case {
    fn of(stem: &'static str) -> Self {
        let path = fixtures().join(format!("{stem}.case.json"));
        let text = fs::read_to_string(&path).expect("a case");
        Self { facts: serde_json::from_str(&text).expect("JSON"), stem }
    }

    /// Puts the model into a directory of the repository.
    fn place(&self, directory: &Path) {
        fs::create_dir_all(directory).expect("a directory");
        let file = fixtures().join(format!("{}.json", self.stem));
        let text = fs::read(file).expect("a model");
        // As a careful deployment does: never half a file under the name.
        let (new, name) = (directory.join(".new"), directory.join("model.json"));
        fs::write(&new, text).expect("written");
        fs::rename(new, name).expect("moved");
    }

    /// Row `index` as a V2 request.
    fn request(&self, index: usize) -> Value {
        let row = &self.rows()[index];
        json!({"inputs": [{"name": "x", "shape": [1, row.len()], "datatype": "FP32", "data": row}]})
    }

    /// Rows without missing values, which JSON cannot write.
    fn rows(&self) -> Vec<Vec<f64>> {
        self.numbered_rows().into_iter().map(|(_, row)| row).collect()
    }

    fn numbered_rows(&self) -> Vec<(usize, Vec<f64>)> {
        let input = &self.facts["input"];
        let width = input["shape"][1].as_u64().expect("a width") as usize;
        let data = input["data"].as_array().expect("numbers");
        let rows = data.chunks(width).enumerate();
        let numbers = |row: &[Value]| row.iter().map(Value::as_f64).collect::<Option<Vec<f64>>>();
        rows.filter_map(|(index, row)| Some((index, numbers(row)?))).collect()
    }

    /// The library's answers to [`Case::rows`].
    fn expected(&self) -> Vec<f64> {
        let all = &self.facts["expected"]["default"]["data"];
        let rows = self.numbered_rows().into_iter();
        rows.map(|(index, _)| all[index].as_f64().expect("a number")).collect()
    }
}

fn fixtures() -> std::path::PathBuf {
    program::root().join("predictive/tests/fixtures")
}

fn start(root: &Path, options: &[&str]) -> Server {
    Server::of(root, None, options).expect("a server")
}

/// The status and body of a load or unload.
fn order(server: &Server, name: &str, verb: &str, body: &Value) -> (u16, Value) {
    let path = format!("/v2/repository/models/{name}/{verb}");
    let answer = server.post(&path, body).expect("an answer");
    (answer.status, answer.json().expect("JSON"))
}

fn load(server: &Server, name: &str) -> (u16, Value) {
    order(server, name, "load", &json!({}))
}

/// The first output of a row; panics with the server's words when it is refused.
fn ask(server: &Server, model: &str, request: &Value) -> f64 {
    let answer = server.post(&format!("/v2/models/{model}/infer"), request).expect("an answer");
    let body = answer.json().expect("JSON");
    assert_eq!(answer.status, 200, "{body}");
    body["outputs"][0]["data"][0].as_f64().expect("a number")
}

fn close(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= 1e-6 * expected.abs().max(1e-3)
}

fn states(server: &Server, body: &Value) -> Vec<(String, String, String)> {
    let answer = server.post("/v2/repository/index", body).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let index = answer.json().expect("JSON");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let entries = index.as_array().expect("a list").iter();
    entries
        .map(|entry| (text(&entry["name"]), text(&entry["version"]), text(&entry["state"])))
        .collect()
}

fn entry(name: &str, version: &str, state: &str) -> (String, String, String) {
    (name.to_owned(), version.to_owned(), state.to_owned())
}

#[test]
fn the_policy_chooses_versions() {
    let (first, second) = (Case::of(FIRST), Case::of(SECOND));
    let folder = Folder::new().expect("a folder");
    for (version, case) in [("1", &first), ("2", &second), ("0", &first), ("x", &first)] {
        case.place(&folder.path().join("m").join(version));
    }
    let server = start(folder.path(), &[]);
    assert_eq!(states(&server, &json!({})), [entry("m", "2", "READY")]);
    assert!(close(ask(&server, "m", &second.request(0)), second.expected()[0]));
    let old = server.post("/v2/models/m/versions/1/infer", &first.request(0)).expect("an answer");
    assert_eq!(old.status, 404, "{}", old.text());

    folder.write("m/config.pbtxt", b"version_policy { all { } }").expect("written");
    assert_eq!(load(&server, "m"), (200, json!({"name": "m", "load": true})));
    let all = [entry("m", "1", "READY"), entry("m", "2", "READY")];
    assert_eq!(states(&server, &json!({"ready": true})), all);
    for (version, case) in [("1", &first), ("2", &second)] {
        let found = ask(&server, &format!("m/versions/{version}"), &case.request(0));
        assert!(close(found, case.expected()[0]), "{version}: {found}");
    }
    let metadata = server.get("/v2/models/m").expect("an answer").json().expect("JSON");
    assert_eq!(metadata["versions"], json!(["1", "2"]));

    let only =
        json!({"parameters": {"config": r#"{"version_policy": {"specific": {"versions": [1]}}}"#}});
    assert_eq!(order(&server, "m", "load", &only).0, 200);
    assert_eq!(states(&server, &json!({})), [entry("m", "1", "READY")]);
    let none =
        json!({"parameters": {"config": r#"{"version_policy": {"specific": {"versions": [7]}}}"#}});
    let (status, body) = order(&server, "m", "load", &none);
    assert!(
        status == 503 && body["error"].as_str().expect("a text").contains("no version"),
        "{body}"
    );
    assert!(close(ask(&server, "m", &first.request(0)), first.expected()[0]), "the old one stays");
}

#[test]
fn models_are_replaced_and_taken_away_under_load() {
    let cases = [Case::of(FIRST), Case::of(SECOND)];
    let folder = Folder::new().expect("a folder");
    let place = |case: &Case| case.place(&folder.path().join("m"));
    place(&cases[0]);
    cases[1].place(&folder.path().join("other"));
    let server = start(folder.path(), &[]);
    let (request, done) = (cases[0].request(0), AtomicBool::new(false));
    let answers = ["m", "other"].map(|name| ask(&server, name, &request));
    assert!(!close(answers[0], answers[1]));
    assert_eq!(order(&server, "other", "unload", &json!({})).0, 200);
    fs::remove_dir_all(folder.path().join("other")).expect("removed");
    let either = |found: f64| answers.iter().any(|&answer| close(found, answer));
    let ask_until_done = || {
        let mut found = Vec::new();
        while !done.load(Relaxed) {
            found.push(ask(&server, "m", &request));
        }
        found
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(ask_until_done)).collect();
        for turn in 1..=20 {
            place(&cases[turn % 2]);
            let loaded = load(&server, "m");
            let found = ask(&server, "m", &request);
            if loaded.0 != 200 || !close(found, answers[turn % 2]) {
                done.store(true, Relaxed);
                panic!("{loaded:?}, then {found}");
            }
        }
        done.store(true, Relaxed);
        for client in clients {
            let found = client.join().expect("no request fails");
            assert!(!found.is_empty() && found.iter().all(|&found| either(found)), "{found:?}");
        }
    });
    // A file that is none: the old model stays, and says so to nobody but the loader.
    folder.write("m/model.json", b"{}").expect("written");
    let (status, body) = load(&server, "m");
    let text = body["error"].as_str().expect("a text");
    assert!(status == 503 && text.contains("model.json"), "{body}");
    assert!(either(ask(&server, "m", &request)));
    assert_eq!(states(&server, &json!({})), [entry("m", "", "READY")]);
    // KServe's agent removes the directory first.
    fs::remove_dir_all(folder.path().join("m")).expect("removed");
    assert_eq!(
        order(&server, "m", "unload", &json!({})),
        (200, json!({"name": "m", "unload": true}))
    );
    assert_eq!(states(&server, &json!({})), []);
    let gone = server.post("/v2/models/m/infer", &request).expect("an answer");
    assert_eq!(gone.status, 404);
    assert_eq!(order(&server, "m", "unload", &json!({})).0, 404);
    assert_eq!(load(&server, "m").0, 503);
    // Nothing can answer any more: ready is false, where KServe's servers say true.
    assert_eq!(server.get("/v2/health/ready").expect("an answer").status, 503);
}

#[test]
fn orders_and_their_statuses() {
    let folder = Folder::new().expect("a folder");
    Case::of(FIRST).place(&folder.path().join("good"));
    fs::create_dir(folder.path().join("bad")).expect("a directory");
    folder.write("bad/model.json", b"[]").expect("written");
    Case::of(FIRST).place(&folder.path().join(".hidden"));
    let server = start(folder.path(), &[]);
    let index = [entry("bad", "", "UNAVAILABLE"), entry("good", "", "READY")];
    assert_eq!(states(&server, &json!({"ready": false})), index);
    assert_eq!(states(&server, &json!({"ready": true})), index[1..]);

    let plain = "Model with name nothing is not ready.";
    assert_eq!(load(&server, "nothing"), (503, json!({"error": plain})));
    for name in ["..", ".", "../good", "%2e%2e", "%2e%2e%2fgood", "good/", "a/b", ".hidden", "%00"]
    {
        let answer = server.post(&format!("/v2/repository/models/{name}/load"), &json!({}));
        let answer = answer.expect("an answer");
        assert!(matches!(answer.status, 307 | 400 | 404 | 503), "{name}: {}", answer.text());
        assert_eq!(states(&server, &json!({})), index, "{name}");
    }
    for (path, body, status, word) in [
        ("index", json!({"ready": "yes"}), 400, "ready"),
        ("index", json!([]), 400, "object"),
        ("models/good/load", json!({"parameters": {"file:1/x": "AA=="}}), 400, "file:1/x"),
        ("models/good/load", json!({"parameters": [1]}), 400, "parameters"),
        ("models/good/load", json!({"parameters": {"config": "{"}}), 503, "config"),
        (
            "models/good/load",
            json!({"parameters": {"config": r#"{"max_batchsize": 1}"#}}),
            503,
            "max_batchsize",
        ),
        ("models/nothing/unload", json!({}), 404, "does not exist"),
        ("nothing", json!({}), 404, "Not Found"),
    ] {
        let answer = server.post(&format!("/v2/repository/{path}"), &body).expect("an answer");
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.text());
        assert!(answer.text().contains(word), "{path} {body}: {}", answer.text());
    }
    for path in ["index", "models/good/load", "models/good/unload"] {
        let answer = server.get(&format!("/v2/repository/{path}")).expect("an answer");
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")), "{path}");
    }
    for (path, status) in [
        ("/v2/models/good", 200),
        ("/v2/models/good/ready", 200),
        ("/v2/models/bad/ready", 503),
        ("/v2/models/nothing/ready", 404),
        ("/v2/models/good/versions/1", 501),
        ("/v2/models/good/config", 200),
        ("/v2/models/good/stats", 200),
        ("/v1/models/good", 200),
        ("/v1/models/bad", 503),
        ("/v1/models/nothing", 404),
    ] {
        let answer = server.get(path).expect("an answer");
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
    assert_eq!(server.post_bytes("/v2/repository/index", b"").expect("an answer").status, 200);
    assert_eq!(
        server.post_bytes("/v2/repository/models/good/load", b"").expect("an answer").status,
        200
    );
}

#[test]
fn merged_requests_get_their_own_answers() {
    let case = Case::of(FIRST);
    let folder = Folder::new().expect("a folder");
    case.place(&folder.path().join("m"));
    let options = ["--max-batch-size", "8", "--max-batch-delay-us", "20000"];
    let server = start(folder.path(), &options);
    let expected = case.expected();
    thread::scope(|scope| {
        for client in 0..16 {
            let (server, case, expected) = (&server, &case, &expected);
            scope.spawn(move || {
                for turn in 0..10 {
                    let index = (client + turn) % expected.len();
                    let found = ask(server, "m", &case.request(index));
                    assert!(close(found, expected[index]), "row {index}: {found}");
                }
            });
        }
    });
    let stats = server.get("/v2/models/m/stats").expect("an answer").json().expect("JSON");
    let batches = stats["model_stats"][0]["batch_stats"].as_array().expect("a list");
    assert!(batches.iter().any(|batch| batch["batch_size"] != 1), "nothing was merged: {stats}");
}

#[test]
fn a_refused_request_leaves_its_connection_usable_and_readiness_follows_the_models() {
    let folder = Folder::new().expect("a folder");
    Case::of(FIRST).place(&folder.path().join("one"));
    let server = start(folder.path(), &[]);
    let mut socket = http::connect(server.address()).expect("a connection");
    // Refused before its model is found; larger than what a server drains by itself.
    let body = vec![b' '; 1 << 20];
    let calls = [
        ("POST", "/v2/models/none/infer", body.as_slice(), 404),
        ("POST", "/v2/repository/models/none/unload", b"{}", 404),
        ("GET", "/v2/health/ready", b"", 200),
        ("POST", "/v2/repository/models/one/unload", b"{}", 200),
        ("GET", "/v2/health/ready", b"", 503),
        ("GET", "/v2/health/live", b"", 200),
    ];
    for (method, path, body, status) in calls {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all(&[head.as_bytes(), body].concat()).expect("sent");
        assert_eq!(answer_status(&mut socket), status, "{method} {path}");
    }
}

/// Status of the next answer of a kept connection; its body is read away.
fn answer_status(socket: &mut TcpStream) -> u16 {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte).expect("the connection is open");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("ASCII").to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.map_or(0, |length| length.parse().expect("a number"));
    socket.read_exact(&mut vec![0; length]).expect("a body");
    head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
}
