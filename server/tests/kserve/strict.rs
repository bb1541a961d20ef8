//! `--strict-kserve`: each difference of docs/kserve.md, with and without it.

use std::sync::Arc;

use axum::http::Method as Verb;
use serde_json::{Value, json};
use tokenmill::app::ServerConfig;
use tokenmill_predictive::{
    DataType, Description, Method, Model, PredictError, Request, Signature, Tensor, TensorMap,
};

use crate::support::{Flowers, Reply, Server, spec};

/// Answers the missing cells of each row, in a datatype; with the columns a and b, or two without names.
struct Missing {
    signature: Signature,
    description: Description,
    dtype: DataType,
}

impl Missing {
    fn new(format: &'static str, columns: Option<Vec<String>>, dtype: DataType) -> Self {
        let signature = Signature {
            inputs: vec![spec("input-0", DataType::Fp64, &[None, Some(2)])],
            outputs: vec![spec("output-0", dtype, &[None])],
            columns,
            ..Signature::default()
        };
        Self { signature, description: Description { format, ..Description::default() }, dtype }
    }
}

impl Model for Missing {
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn description(&self) -> &Description {
        &self.description
    }
    fn methods(&self) -> &[Method] {
        &[Method::Predict]
    }
    fn predict(&self, request: &Request) -> Result<TensorMap, PredictError> {
        let (rows, width) = match request.inputs.iter().next().map(|(_, tensor)| tensor.shape()) {
            Some([rows, width]) if !request.frame => (*rows, *width),
            Some([rows, ..]) => (*rows, request.inputs.len()),
            _ => (0, 0),
        };
        if width != 2 {
            return Err(PredictError::input(format!("{width} columns, the model has 2")));
        }
        let cells = |(_, tensor): (&str, &Tensor)| tensor.to_f64().unwrap_or_default();
        let missing = request.inputs.iter().flat_map(cells).filter(|cell| cell.is_nan()).count();
        let mut map = TensorMap::default();
        map.insert(
            "output-0",
            match self.dtype {
                DataType::Fp16 => {
                    Tensor::new(DataType::Fp16, vec![rows], vec![0u8; 2 * rows].into())
                        .expect("fits")
                }
                _ => Tensor::from_values(vec![rows], &vec![missing as i64; rows]),
            },
        );
        Ok(map)
    }
}

fn server(strict: bool) -> Server {
    let mut config = ServerConfig::default();
    config.kserve.strict = strict;
    let names = || Some(vec!["a".to_owned(), "b".to_owned()]);
    Server::of(
        config,
        vec![
            ("flowers", Arc::new(Flowers::new())),
            ("boosted", Arc::new(Missing::new("xgboost", None, DataType::Int64))),
            ("named", Arc::new(Missing::new("xgboost", names(), DataType::Int64))),
            ("halves", Arc::new(Missing::new("sklearn", None, DataType::Fp16))),
        ],
    )
}

/// A status, and a part of the body.
type Want = (u16, &'static str);

async fn check(case: &str, reply: Reply, (status, text): Want) {
    assert_eq!(reply.status, status, "{case}: {}", String::from_utf8_lossy(&reply.body));
    let body = String::from_utf8_lossy(&reply.body);
    assert!(body.contains(text), "{case}: {body}");
}

const JSON: &str = "application/json";

#[tokio::test]
async fn answers_with_and_without_the_switch() {
    let rows = r#"{"instances": [[9, 9, 9, 9]]}"#;
    let texts = r#"{"inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": ["a"]}]}"#;
    let raw_texts = r#"{"parameters": {"binary_data_output": true}, "inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": ["a"]}]}"#;
    let two = r#"{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}"#;
    let one = r#"{"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [1]}]}"#;
    let three =
        r#"{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}"#;
    let frame = r#"{"parameters": {"content_type": "pd"}, "inputs": [
        {"name": "b", "shape": [1], "datatype": "FP32", "data": [1]},
        {"name": "a", "shape": [1], "datatype": "FP32", "data": [2]}]}"#;
    let trained = r#"{"instances": [{"a": [1], "b": [2]}]}"#;
    let flowers = "/v1/models/flowers:predict";
    let infer = "/v2/models/flowers/infer";
    let cases: &[(&str, &str, &str, Want, Want)] = &[
        // Path, content type, body; then the answers without and with the switch.
        (flowers, JSON, r#"{"instances": [[1, 2, 3]]}"#, (400, "error"), (500, "error")),
        (flowers, JSON, "{}", (400, "error"), (500, "'instances'")),
        (flowers, JSON, rows, (200, "[1]"), (200, "[1]")),
        (flowers, "application/ld+json", rows, (200, "[1]"), (200, "[1]")),
        (flowers, "application/json; charset=utf-8", rows, (200, "[1]"), (500, "error")),
        (flowers, "text/plain", rows, (200, "[1]"), (500, "error")),
        (
            flowers,
            JSON,
            r#"{"instances": [{"a": 1, "b": "x"}]}"#,
            (200, "[101.0]"),
            (500, "If using all scalar values, you must pass an index"),
        ),
        (flowers, JSON, r#"{"instances": [{"a": [1], "b": ["x"]}]}"#, (200, "101"), (200, "101")),
        (infer, JSON, texts, (200, "BYTES"), (500, "decoding str is not supported")),
        (infer, JSON, raw_texts, (200, "BYTES"), (500, "decoding str is not supported")),
        (
            infer,
            "application/octet-stream",
            texts,
            (200, "BYTES"),
            (400, "received byte inputs, but the'inference-header-content-length' header"),
        ),
        (
            "/v2/models/halves/infer",
            JSON,
            two,
            (200, "[0.0]"),
            (400, "Sending FP16 data via JSON is not supported. Please use the binary data format"),
        ),
        ("/v2/models/boosted/infer", JSON, two, (200, "[0]"), (200, "[0]")),
        ("/v2/models/boosted/infer", JSON, one, (400, "1 columns"), (200, "[1]")),
        ("/v2/models/boosted/infer", JSON, three, (400, "3 columns"), (500, "3 columns")),
        ("/v2/models/named/infer", JSON, frame, (200, "[0]"), (500, "feature_names mismatch")),
        ("/v1/models/named:predict", JSON, trained, (200, "[0]"), (200, "[0]")),
        (
            "/v2/models/named/infer",
            JSON,
            two,
            (200, "[0]"),
            (500, "training data did not have the following fields: a, b"),
        ),
        ("/v2/repository/index", JSON, "", (200, "READY"), (404, "Not Found")),
    ];
    let servers = [server(false), server(true)];
    for (path, media, body, plain, strict) in cases {
        for (server, want) in servers.iter().zip([plain, strict]) {
            let headers = [("content-type", *media)];
            let reply = server.send(Verb::POST, path, &headers, *body).await;
            check(&format!("{path} {media} {body}"), reply, *want).await;
        }
    }
}

#[tokio::test]
async fn what_is_told_with_and_without_the_switch() {
    let empty =
        json!({"name": "flowers", "versions": null, "platform": "", "inputs": [], "outputs": []});
    for (path, plain, strict) in [
        ("/v2/models/flowers", (200, "FP64"), (200, "flowers")),
        ("/v2/models/flowers/stats", (200, "model_stats"), (404, "Not Found")),
        ("/v2/models/stats", (200, "model_stats"), (404, "stats")),
        ("/v2/models/flowers/config", (200, "TYPE_FP64"), (404, "Not Found")),
        ("/v2", (200, "statistics"), (200, r#"["model_repository_extension"]"#)),
        ("/v2/models/flowers/ready", (200, "true"), (200, "true")),
    ] {
        for (is_strict, want) in [(false, plain), (true, strict)] {
            check(path, server(is_strict).get(path).await, want).await;
        }
    }
    assert_eq!(server(true).get("/v2/models/flowers").await.json(), empty);
}

#[tokio::test]
async fn raw_answers_have_a_content_type_only_without_the_switch() {
    let body = r#"{"parameters": {"binary_data_output": true}, "inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [9, 9, 9, 9]}]}"#;
    for (strict, media) in [(false, "application/octet-stream"), (true, "")] {
        let reply = server(strict).infer(body).await;
        assert_eq!((reply.status.as_u16(), reply.header("content-type")), (200, media));
        assert_ne!(reply.header("inference-header-content-length"), "");
    }
}

#[tokio::test]
async fn unknown_models_of_the_openai_routes_are_a_text_below_the_prefix() {
    let body = r#"{"model": "nothing", "messages": [{"role": "user", "content": "Hello"}]}"#;
    let text = json!({"error": "Model with name nothing does not exist."});
    for (strict, path, is_text) in [
        (false, "/openai/v1/chat/completions", false),
        (true, "/openai/v1/chat/completions", true),
        (true, "/v1/chat/completions", false),
    ] {
        let reply = server(strict).post(path, body).await;
        assert_eq!(reply.status, 404, "{path}");
        let answer: Value = reply.json();
        assert_eq!(answer == text, is_text, "{strict} {path}: {answer}");
        assert_eq!(answer["error"].is_object(), !is_text, "{strict} {path}: {answer}");
    }
}
