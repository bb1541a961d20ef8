//! V1, CloudEvents and the routes around them.

use std::sync::{Arc, LazyLock};

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use tokenmill::app::ServerConfig;
use tokenmill_predictive::{
    DataType, Description, Method as PredictMethod, Model, PredictError, Request, Signature,
    Tensor, TensorMap,
};

use crate::support::{Models, Server, spec};

const ROWS: &str = r#"{"instances": [[6.1, 2.9, 4.7, 1.4], [5.0, 3.4, 1.5, 0.0]]}"#;

#[tokio::test]
async fn rows_are_predicted_whatever_the_content_type() {
    let server = Server::new();
    let path = "/v1/models/flowers:predict";
    for media in [
        "application/json",
        "text/plain",
        "application/json; charset=utf-8",
        "application/octet-stream",
    ] {
        let reply = server.send(Method::POST, path, &[("content-type", media)], ROWS).await;
        assert_eq!((reply.status, reply.text()), (StatusCode::OK, r#"{"predictions":[1,0]}"#));
    }
    let reply = server.send(Method::POST, path, &[], ROWS).await;
    assert_eq!((reply.status, reply.header("content-type")), (StatusCode::OK, "application/json"));
    for body in [
        r#"{"instances": [["6.1", 2.9, "4.7", 1]]}"#,
        r#"{"inputs": [[9, 9, 9, 9]], "instances": 3, "other": {}}"#,
        r#"{"instances": [[true, 2, 9, 9e0]]}"#,
    ] {
        let reply = server.predict(body).await;
        assert_eq!(
            (reply.status, reply.text()),
            (StatusCode::OK, r#"{"predictions":[1]}"#),
            "{body}"
        );
    }
}

#[tokio::test]
async fn wrong_bodies_are_refused() {
    let server = Server::new();
    for (body, text) in [
        (r#"{"instances": "x"}"#, "Expected \"instances\" to be a list"),
        (r#"{"instances": {"a": 1}}"#, "Expected \"instances\" to be a list"),
        (r#"{"inputs": 1}"#, "Expected \"inputs\" to be a list"),
        (r#"{"instances": [[1"#, "Unrecognized request format: "),
        (r#"{"instances": [[NaN, 1, 1, 1]]}"#, "Unrecognized request format: "),
        ("", "Unrecognized request format: "),
        ("\"\\", "Unrecognized request format: "),
        ("{}", "'instances'"),
        ("[1]", "expected an object"),
        ("null", "expected an object"),
        (r#"{"instances": []}"#, "0 rows"),
        (r#"{"instances": [[1, 2, 3]]}"#, "4 columns"),
        (r#"{"instances": [1, 2, 3, 4]}"#, "4 columns"),
        (r#"{"instances": [[[1, 2, 3, 4]]]}"#, "4 columns"),
        (r#"{"instances": [[1, 2, 3, 4], [1]]}"#, "inhomogeneous"),
        (r#"{"instances": [[1, 2, 3, {}]]}"#, "invalid type: map"),
        (r#"{"instances": [{"a": 1}, 3]}"#, "mixed"),
        (r#"{"instances": [{"a": 1}]}"#, "columns are missing"),
        (r#"{"instances": [{"a": [1, 2], "b": [1]}]}"#, "same length"),
        (r#"{"instances": [{"a": [[1]], "b": [1]}]}"#, "column a"),
        (r#"{"instances": [{}]}"#, "instance 0"),
    ] {
        let reply = server.predict(body).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{body}: {}", reply.text());
        let error = reply.json()["error"].as_str().expect("a text").to_owned();
        assert!(error.contains(text), "{body}: {error}");
    }
}

#[tokio::test]
async fn strict_statuses_are_the_reference_servers() {
    let mut config = ServerConfig::default();
    config.kserve.strict = true;
    let server = Server::with(config);
    for (body, status) in [
        (r#"{"instances": [[1, 2, 3]]}"#, 500),
        ("{}", 500),
        ("[]", 500),
        (r#"{"instances": "x"}"#, 400),
        ("", 400),
    ] {
        assert_eq!(server.predict(body).await.status, status, "{body}");
    }
}

#[tokio::test]
async fn objects_are_rows_of_a_table() {
    let server = Server::new();
    for (body, want) in [
        (r#"[{"a": [1, 2], "b": ["x", "yy"]}]"#, json!([101.0, 202.0])),
        (r#"[{"a": {"0": 1}, "b": {"0": "x"}}]"#, json!([101.0])),
        (r#"[{"a": [1], "b": ["x"]}, {"b": ["yy"], "a": [2]}]"#, json!([101.0, 202.0])),
        (r#"[{"a": 1, "b": "x"}, {"b": "yyy", "a": 2}]"#, json!([101.0, 203.0])),
        (r#"[{"a": 1, "b": ["x", "yy"]}]"#, json!([101.0, 102.0])),
        (r#"[{"a": 1, "b": 2}]"#, json!([3.0])),
        (r#"[{"a": 1, "b": 2}, {"a": 1}]"#, json!([3.0, null])),
    ] {
        let reply = server.predict(&format!("{{\"instances\": {body}}}")).await;
        assert_eq!(reply.json(), json!({"predictions": want}), "{body}");
    }
}

#[tokio::test]
async fn models_with_named_inputs_take_objects_and_answer_objects() {
    let server = Server::new();
    let path = "/v1/models/org/adder:predict";
    let reply = server
        .post(path, r#"{"instances": [{"left": 1, "right": 2}, {"left": 0.5, "right": 1}]}"#)
        .await;
    let want = r#"{"predictions":[{"sum":3.0,"difference":-1.0},{"sum":1.5,"difference":-0.5}]}"#;
    assert_eq!(reply.text(), want);
    for (body, text) in [
        (r#"{"instances": [1]}"#, "several inputs"),
        (r#"{"instances": [{"left": 1, "up": 2}]}"#, "no input up"),
        (r#"{"instances": [{"left": 1, "right": 2}, {"left": 1}]}"#, "1 of 2 instances"),
        (r#"{"instances": [{"left": 1}]}"#, "input right: it is missing"),
    ] {
        let reply = server.post(path, body).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{body}");
        assert!(reply.text().contains(text), "{body}: {}", reply.text());
    }
}

#[tokio::test]
async fn cloud_events_are_answered_as_events() {
    let server = Server::new();
    let path = "/v1/models/flowers:predict";
    let mut headers = vec![
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-id", "7"),
        ("ce-source", "me"),
        ("ce-type", "ask"),
    ];
    let reply = server.send(Method::POST, path, &headers, ROWS).await;
    assert_eq!(reply.text(), r#"{"predictions":[1,0]}"#);
    assert_eq!(reply.header("ce-source"), "io.kserve.inference.flowers");
    assert_eq!(reply.header("ce-type"), "io.kserve.inference.response");
    assert_eq!(
        (reply.header("ce-specversion"), reply.header("content-type")),
        ("1.0", "application/json")
    );
    assert!(reply.header("ce-id").len() == 36 && reply.header("ce-time").ends_with("+00:00"));
    headers.remove(2);
    let reply = server.send(Method::POST, path, &headers, ROWS).await;
    assert_eq!((reply.status, reply.header("ce-id")), (StatusCode::OK, ""));
    let envelope = json!({"specversion": "1.0", "id": "7", "source": "me", "type": "ask", "x": 1,
        "data": serde_json::from_str::<Value>(ROWS).unwrap()});
    let media = [("content-type", "application/cloudevents+json")];
    let reply = server.send(Method::POST, path, &media, envelope.to_string()).await;
    assert_eq!(reply.header("content-type"), "application/cloudevents+json");
    let answer = reply.json();
    assert_eq!(answer["data"], json!({"predictions": [1, 0]}));
    assert_eq!(
        (&answer["type"], &answer["x"]),
        (&json!("io.kserve.inference.response"), &Value::Null)
    );
    let reply = server.send(Method::POST, path, &media, r#"{"id": "7", "data": {}}"#).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    assert!(reply.text().contains("specversion is missing"));
}

#[tokio::test]
async fn routes_answer_as_kserves() {
    let server = Server::new();
    for (path, want) in [
        ("/", json!({"status": "alive"})),
        ("/v1/models", json!({"models": ["flowers", "org/adder"]})),
        ("/v1/models/flowers", json!({"name": "flowers", "ready": true})),
        ("/v1/models/org%2Fadder", json!({"name": "org/adder", "ready": true})),
        ("/v2/models", json!({"models": ["flowers", "org/adder"]})),
        ("/v2/models/org/adder/ready", json!({"name": "org/adder", "ready": true})),
        ("/v2/health/live", json!({"live": true})),
        ("/v2/health/ready", json!({"ready": true})),
    ] {
        let reply = server.get(path).await;
        assert_eq!((reply.status, reply.json()), (StatusCode::OK, want), "{path}");
    }
    let not_exist =
        |name: &str| json!({"error": format!("Model with name {name} does not exist.")});
    for (method, path, status, want) in [
        (Method::GET, "/v1/models/no", 404, not_exist("no")),
        (Method::GET, "/v1/models/flowers:predict", 404, not_exist("flowers:predict")),
        (Method::POST, "/v1/models/no:predict", 404, not_exist("no")),
        (
            Method::POST,
            "/v1/models/flowers:explain",
            501,
            json!({"error": "Could not find explainer_host."}),
        ),
        (Method::GET, "/v2/models/no", 404, not_exist("no")),
        (Method::POST, "/v2/models/no/infer", 404, not_exist("no")),
        (
            Method::GET,
            "/v2/models/flowers/versions/1",
            501,
            json!({"error": "Model versioning not supported yet."}),
        ),
        (Method::GET, "/v2/nothing", 404, json!({"detail": "Not Found"})),
        (Method::GET, "/nothing", 404, json!({"detail": "Not Found"})),
        (Method::POST, "/v2/models", 405, json!({"detail": "Method Not Allowed"})),
        (Method::GET, "/v2/models/flowers/infer", 405, json!({"detail": "Method Not Allowed"})),
        (Method::PUT, "/v1/models/flowers:predict", 405, json!({"detail": "Method Not Allowed"})),
    ] {
        let reply = server.send(method.clone(), path, &[], "").await;
        assert_eq!((reply.status.as_u16(), reply.json()), (status, want), "{method} {path}");
        if status == 405 {
            assert!(!reply.header("allow").is_empty(), "{method} {path}");
        }
    }
    assert_eq!(server.send(Method::HEAD, "/v2", &[], "").await.status, 405);
    for (path, to) in [
        ("/v2/", "/v2"),
        ("/v1/models/flowers/", "/v1/models/flowers"),
        ("/v1/models/", "/v1/models"),
    ] {
        let reply = server.get(path).await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("location"), reply.body.len()),
            (307, to, 0),
            "{path}"
        );
    }
}

#[tokio::test]
async fn everything_is_counted() {
    let mut config = ServerConfig::default();
    config.kserve.triton_metrics = true;
    let server = Server::with(config);
    server.predict(ROWS).await;
    server.predict("{}").await;
    let panicked = server.predict(r#"{"instances": [[666, 0, 0, 0]]}"#).await;
    assert_eq!(panicked.status, StatusCode::INTERNAL_SERVER_ERROR);
    let stats = server.get("/v2/models/flowers/stats").await.json();
    let stats = &stats["model_stats"][0];
    assert_eq!((&stats["name"], &stats["inference_count"]), (&json!("flowers"), &json!(2)));
    assert_eq!(stats["inference_stats"]["success"]["count"], 1);
    assert_eq!(stats["inference_stats"]["fail"]["count"], 2);
    assert_eq!(stats["batch_stats"][0]["batch_size"], 2);
    let all = server.get("/v2/models/stats").await.json();
    assert_eq!(all["model_stats"].as_array().expect("a list").len(), 2);
    let metrics = server.get("/metrics").await;
    for line in [
        "request_predict_seconds_count{model_name=\"flowers\"} 1",
        "request_explain_seconds_count{model_name=\"org/adder\"} 0",
        "nv_inference_count{model=\"flowers\",version=\"\"} 2",
        "nv_inference_request_failure{model=\"flowers\",version=\"\",reason=\"OTHER\"} 2",
        "nv_inference_pending_request_count{model=\"flowers\",version=\"\"} 0",
    ] {
        assert!(metrics.text().contains(line), "{line} is not in {}", metrics.text());
    }
    assert!(!Server::new().get("/metrics").await.text().contains("nv_inference"));
}

/// Whether the rows came as texts; with or without columns that were texts when it was fitted.
struct Kind(Signature);

impl Kind {
    fn new(text_columns: bool) -> Arc<Self> {
        let inputs = vec![spec("input-0", DataType::Fp64, &[None, Some(2)])];
        Arc::new(Self(Signature { inputs, text_columns, ..Signature::default() }))
    }
}

impl Model for Kind {
    fn signature(&self) -> &Signature {
        &self.0
    }
    fn description(&self) -> &Description {
        static NONE: LazyLock<Description> = LazyLock::new(Description::default);
        &NONE
    }
    fn methods(&self) -> &[PredictMethod] {
        &[PredictMethod::Predict]
    }
    fn predict(&self, request: &Request) -> Result<TensorMap, PredictError> {
        let texts = request.inputs.iter().any(|(_, tensor)| tensor.dtype() == DataType::Bytes);
        let mut map = TensorMap::default();
        map.insert("output-0", Tensor::from_values(vec![1], &[i64::from(texts)]));
        Ok(map)
    }
}

#[tokio::test]
async fn digits_in_quotes_stay_texts_where_the_model_was_fitted_on_texts() {
    let models: Models = vec![("texts", Kind::new(true)), ("numbers", Kind::new(false))];
    let server = Server::of(ServerConfig::default(), models);
    for (rows, to_texts, to_numbers) in [
        (r#"[["1", "2"]]"#, 1, 0),
        (r#"[["1", 2]]"#, 1, 0),
        (r#"[["1", null]]"#, 1, 0),
        (r#"[[1, "red"]]"#, 1, 1),
        ("[[1, 2]]", 0, 0),
        ("[[1, null]]", 0, 0),
    ] {
        let body = format!("{{\"instances\": {rows}}}");
        for (name, want) in [("texts", to_texts), ("numbers", to_numbers)] {
            let reply = server.post(&format!("/v1/models/{name}:predict"), &body).await;
            assert_eq!(reply.json(), json!({"predictions": [want]}), "{name} {rows}");
        }
    }
}

#[tokio::test]
async fn errors_name_the_element() {
    let server = Server::new();
    for (body, text) in [
        (r#"{"instances": [[1, 2, 3, 4], [1, 2, {}, 4]]}"#, "instances[1][2]: invalid type: map"),
        (r#"{"inputs": [[1, 2, 3, {}]]}"#, "inputs[0][3]: invalid type: map"),
    ] {
        let reply = server.predict(body).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{body}");
        assert!(reply.text().contains(text), "{body}: {}", reply.text());
    }
}
