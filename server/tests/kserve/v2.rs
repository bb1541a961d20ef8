//! The Open Inference Protocol over HTTP: JSON and raw tensors.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Reply, Server};

fn input(shape: Value, datatype: &str, data: Value) -> String {
    json!({"id": "r-12", "inputs": [{"name": "x", "shape": shape, "datatype": datatype, "data": data}]}).to_string()
}

#[tokio::test]
async fn answers_have_the_protocols_fields_in_order() {
    let server = Server::new();
    let body = input(json!([2, 4]), "FP64", json!([6.1, 2.9, 4.7, 1.4, 5.0, 3.4, 1.5, 0.0]));
    let want = "{\"model_name\":\"flowers\",\"model_version\":null,\"id\":\"r-12\",\"parameters\":null,\"outputs\":\
        [{\"name\":\"output-0\",\"shape\":[2],\"datatype\":\"INT64\",\"parameters\":null,\"data\":[1,0]}]}";
    let reply = server.infer(&body).await;
    assert_eq!((reply.text(), reply.header("content-type")), (want, "application/json"));
    for (shape, datatype, data) in [
        (json!([2, 4]), "fp32", json!([[6.1, 2.9, 4.7, 1.4], [5.0, 3.4, 1.5, 0.0]])),
        (json!([-1, 4]), "FP64", json!([9, 9, 9, 9, 0, 0, 0, 0])),
        (json!([2, -1]), "FP32", json!(["6.1", 2.9, 4.7, 1.4, 5.0, 3.4, 1.5, 0.0])),
        (json!([2, 4]), "INT8", json!([100, 2, 3, 4, -100, 0, 0, 0])),
        (json!([2, 4]), "UINT16", json!([100, 2, 3, 4, 1, 0, 0, 0])),
    ] {
        let reply = server.infer(&input(shape, datatype, data)).await;
        assert_eq!(reply.text(), want, "{datatype}");
    }
    let anonymous = server.infer(&body.replace("\"id\":\"r-12\",", "")).await.json();
    assert_eq!(anonymous["id"].as_str().expect("a text").len(), 36);
    let second = r#"{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[9,9,9,9]},{"name":"y","shape":[1],"datatype":"FP32","data":[1]}]}"#;
    assert_eq!(server.infer(second).await.json()["outputs"][0]["data"], json!([1]));
}

#[tokio::test]
async fn methods_frames_and_classes_can_be_asked_for() {
    let server = Server::new();
    let ask = |more: Value| {
        let mut body: Value =
            serde_json::from_str(&input(json!([1, 4]), "FP64", json!([10, 5, 5, 5]))).unwrap();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body.to_string()
    };
    let outputs = json!({"outputs": [{"name": "predict_proba"}, {"name": "output-0"}]});
    let answer = server.infer(&ask(outputs)).await.json();
    assert_eq!(answer["outputs"][0]["data"], json!([0.25, 0.75]));
    assert_eq!(
        (&answer["outputs"][1]["name"], &answer["outputs"][1]["data"]),
        (&json!("output-0"), &json!([1]))
    );
    let classes =
        json!({"outputs": [{"name": "predict_proba", "parameters": {"classification": 1}}]});
    let output = &server.infer(&ask(classes)).await.json()["outputs"][0];
    assert_eq!(
        (&output["datatype"], &output["shape"], &output["data"]),
        (&json!("BYTES"), &json!([1, 1]), &json!(["0.750000:1"]))
    );
    for name in ["y", "transform", "output-7"] {
        let reply = server.infer(&ask(json!({"outputs": [{"name": name}]}))).await;
        let error =
            json!({"error": format!("Unexpected inference output '{name}' for model 'flowers'")});
        assert_eq!((reply.status, reply.json()), (StatusCode::BAD_REQUEST, error));
    }
    let frame = json!({"parameters": {"content_type": "pd"}, "inputs": [
        {"name": "a", "shape": [2], "datatype": "INT64", "data": [1, 2]},
        {"name": "b", "shape": [2, 1], "datatype": "BYTES", "data": ["x", "yyy"]}]});
    let answer = server.infer(&frame.to_string()).await.json();
    assert_eq!(answer["outputs"][0]["data"], json!([101.0, 203.0]));
    let texts = server.infer(&input(json!([2]), "BYTES", json!(["é", "b"]))).await.json();
    assert_eq!(texts["outputs"][0]["data"], json!(["é", "b"]));
}

fn detail(reply: &Reply) -> Vec<(String, Value)> {
    assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", reply.text());
    let answer = reply.json();
    let one =
        |fault: &Value| (fault["type"].as_str().expect("a text").to_owned(), fault["loc"].clone());
    answer["detail"].as_array().expect("a list").iter().map(one).collect()
}

#[tokio::test]
async fn bodies_of_another_structure_are_422() {
    let server = Server::new();
    let bytes = ("bytes_type".to_owned(), json!(["body", "bytes"]));
    let at = |rest: Value| {
        let mut place = vec![json!("body"), json!("InferenceRequest")];
        place.extend(rest.as_array().unwrap().clone());
        Value::Array(place)
    };
    for (body, kind, place) in [
        ("{}", "missing", json!(["inputs"])),
        (
            r#"{"inputs":[{"name":"x","datatype":"FP32","data":[1]}]}"#,
            "missing",
            json!(["inputs", 0, "shape"]),
        ),
        (
            r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32"}]}"#,
            "missing",
            json!(["inputs", 0, "data"]),
        ),
        (
            r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":1}]}"#,
            "list_type",
            json!(["inputs", 0, "data"]),
        ),
        (r#"{"inputs":3}"#, "list_type", json!(["inputs"])),
        ("[]", "model_attributes_type", json!([])),
    ] {
        let found = detail(&server.infer(body).await);
        assert_eq!(found, [(kind.to_owned(), at(place)), bytes.clone()], "{body}");
    }
    let nested = r#"{"parameters":{"a":{}},"inputs":[]}"#;
    assert_eq!(detail(&server.infer(nested).await).len(), 5);
    let malformed = detail(&server.infer(r#"{"inputs": x"#).await);
    assert_eq!(malformed, [("json_invalid".to_owned(), json!(["body", 11]))]);
    assert_eq!(detail(&server.infer("").await), [("missing".to_owned(), json!(["body"]))]);
}

#[tokio::test]
async fn values_that_do_not_fit_are_400() {
    let server = Server::new();
    for (body, text) in [
        (
            input(json!([3, 4]), "FP64", json!([1, 2, 3, 4, 5, 6, 7, 8])),
            "cannot reshape array of size 8 into shape (3,4)",
        ),
        (input(json!([-1, -1]), "FP64", json!([1, 2])), "one unknown dimension"),
        (input(json!([-2, 4]), "FP64", json!([1, 2])), "cannot reshape"),
        (input(json!([i64::MAX, 4]), "FP64", json!([1, 2])), "cannot reshape"),
        (r#"{"inputs": []}"#.to_owned(), "no inputs"),
        (input(json!([1]), "FP31", json!([1])), "invalid datatype FP31"),
        (
            input(json!([1]), "FP16", json!([1])),
            "Sending FP16 data via JSON is not supported. Please use the binary data format for input x",
        ),
        (input(json!([1]), "INT8", json!([600])), "Python integer 600 out of bounds for int8"),
        (
            input(json!([1, 4]), "FP64", json!(["x", 1, 1, 1])),
            "input x: inputs[0].data[0]: could not convert string to float: 'x'",
        ),
        (
            input(json!([2, 2]), "FP64", json!([[1, 2], [3, {}]])),
            "input x: inputs[0].data[1][1]: invalid type: map",
        ),
        (
            r#"{"inputs": [{"name": "a", "shape": [1], "datatype": "FP32", "data": [1]},
                {"name": "b", "shape": [2], "datatype": "INT8", "data": [1, 600]}]}"#
                .to_owned(),
            "input b: inputs[1].data[1]: Python integer 600 out of bounds for int8",
        ),
        (
            input(json!([1, 4]), "FP64", json!([1, 1, 1, 1])).replacen(
                '{',
                r#"{"parameters": {"priority": -1},"#,
                1,
            ),
            "parameters.priority: expected a whole number of at least 0",
        ),
        (
            input(json!([1, 4]), "FP64", json!([1, 1, 1, 1])).replacen(
                '{',
                r#"{"parameters": {"timeout": "soon"},"#,
                1,
            ),
            "parameters.timeout: expected a whole number of at least 0",
        ),
        (input(json!([1, 3]), "FP64", json!([1, 1, 1])), "expected 4 columns"),
    ] {
        let reply = server.infer(&body).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{body}");
        assert!(reply.json()["error"].as_str().expect("a text").contains(text), "{}", reply.text());
    }
    for media in [&[("content-type", "text/plain")][..], &[]] {
        let reply = server.send(Method::POST, "/v2/models/flowers/infer", media, "{}").await;
        let text =
            "received byte inputs, but the'inference-header-content-length' header is missing.";
        assert_eq!((reply.status, reply.json()), (StatusCode::BAD_REQUEST, json!({"error": text})));
    }
}

async fn raw(server: &Server, head: &str, tail: &[u8], length: &str, media: &str) -> Reply {
    let headers = [("content-type", media), ("inference-header-content-length", length)];
    let body: Vec<u8> = head.bytes().chain(tail.iter().copied()).collect();
    server.send(Method::POST, "/v2/models/flowers/infer", &headers, body).await
}

#[tokio::test]
async fn raw_tensors_come_and_go() {
    let server = Server::new();
    let rows: Vec<u8> =
        [6.1f32, 2.9, 4.7, 1.4].iter().flat_map(|value| value.to_le_bytes()).collect();
    let head = r#"{"id":"r","parameters":{"binary_data_output":true},"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","parameters":{"binary_data_size":16}}]}"#;
    let octets = "application/octet-stream";
    for media in [octets, "application/json"] {
        let reply = raw(&server, head, &rows, &head.len().to_string(), media).await;
        let length: usize =
            reply.header("inference-header-content-length").parse().expect("a length");
        let (json, bytes) = reply.body.split_at(length);
        let want = r#"{"id":"r","model_name":"flowers","model_version":null,"outputs":[{"name":"output-0","shape":[1],"datatype":"INT64","parameters":{"binary_data_size":8}}]}"#;
        assert_eq!(std::str::from_utf8(json).unwrap(), want);
        assert_eq!((bytes, reply.header("content-type")), (&1i64.to_le_bytes()[..], octets));
    }
    let wish = r#""outputs":[{"name":"output-0","parameters":{"binary_data":false}},{"name":"predict_proba"}],"inputs""#;
    let mixed = head.replace("\"inputs\"", wish);
    let reply = raw(&server, &mixed, &rows, &mixed.len().to_string(), octets).await;
    let length: usize = reply.header("inference-header-content-length").parse().expect("a length");
    let json: Value = serde_json::from_slice(&reply.body[..length]).expect("JSON");
    assert_eq!(
        json["outputs"][0],
        json!({"name": "output-0", "shape": [1], "datatype": "INT64", "data": [1]})
    );
    assert_eq!(reply.body.len() - length, 16);
    // Halves: 9.0 is 0x4880.
    let half = head.replace("FP32", "FP16").replace("16}", "8}").replace("true", "false");
    let halves: Vec<u8> = [0x80u8, 0x48].repeat(4);
    let reply = raw(&server, &half, &halves, &half.len().to_string(), octets).await;
    assert_eq!(reply.json()["outputs"][0]["data"], json!([1]));
    // Raw bytes alone.
    let doubles: Vec<u8> = [9.0f64; 8].iter().flat_map(|value| value.to_le_bytes()).collect();
    let reply = raw(&server, "", &doubles, "0", octets).await;
    assert_eq!(reply.json()["outputs"][0]["data"], json!([1, 1]));
}

#[tokio::test]
async fn wrong_raw_bodies_are_400() {
    let server = Server::new();
    let head = r#"{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","parameters":{"binary_data_size":16}}]}"#;
    let bare = r#"{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32"}]}"#;
    let huge = head.replace("16}", "18446744073709551615}");
    let (full, octets) = ([0u8; 16], "application/octet-stream");
    for (head, tail, length, text) in [
        (head, &full[..12], head.len().to_string(), "cannot reshape"),
        (head, &full[..], "x".to_owned(), "Unrecognized request format"),
        (head, &full[..], "9999".to_owned(), "Unrecognized request format"),
        (
            bare,
            &full[..],
            bare.len().to_string(),
            "'data' field is missing for input 'x' for model 'flowers'",
        ),
        (&huge, &full[..], huge.len().to_string(), "'data' field is missing"),
        (head, &[0u8; 20][..], head.len().to_string(), "4 bytes are left over"),
        ("", &full[..15], "0".to_owned(), "not a multiple"),
    ] {
        let reply = raw(&server, head, tail, &length, octets).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{text}: {}", reply.text());
        assert!(reply.text().contains(text), "{text}: {}", reply.text());
    }
}

#[tokio::test]
async fn metadata_and_configuration_come_from_the_file() {
    let server = Server::new();
    let want = json!({"name": "flowers", "versions": null, "platform": "sklearn",
        "inputs": [{"name": "input-0", "datatype": "FP64", "shape": [-1, 4]}],
        "outputs": [{"name": "output-0", "datatype": "INT64", "shape": [-1]}]});
    assert_eq!(server.get("/v2/models/flowers").await.json(), want);
    let config = server.get("/v2/models/flowers/config").await.json();
    assert_eq!(
        config["input"][0],
        json!({"name": "input-0", "data_type": "TYPE_FP64", "dims": [-1, 4]})
    );
    let extensions = server.get("/v2").await.json()["extensions"].clone();
    assert!(extensions.as_array().expect("a list").contains(&json!("binary_tensor_data")));
}

#[tokio::test]
async fn bodies_may_be_compressed_both_ways() {
    let server = Server::new();
    let rows = vec![json!([1, 2, 3, 4]); 2000];
    let body =
        json!({"inputs": [{"name": "x", "shape": [2000, 4], "datatype": "FP32", "data": rows}]})
            .to_string();
    let path = "/v2/models/flowers/infer";
    let json_type = ("content-type", "application/json");
    let reply = server
        .send(Method::POST, path, &[json_type, ("accept-encoding", "gzip")], body.clone())
        .await;
    assert_eq!(reply.header("content-encoding"), "gzip");
    assert!(reply.body.starts_with(&[0x1f, 0x8b]) && reply.body.len() < 1000);
    let plain = server.send(Method::POST, path, &[json_type], body).await;
    assert_eq!(
        (plain.header("content-encoding"), plain.json()["outputs"][0]["shape"][0].as_u64()),
        ("", Some(2000))
    );
    // `{"instances":[[9,9,9,9]]}`, stored.
    let text = br#"{"instances":[[9,9,9,9]]}"#;
    let mut packed = vec![
        0x1f,
        0x8b,
        8,
        0,
        0,
        0,
        0,
        0,
        0,
        255,
        1,
        text.len() as u8,
        0,
        !(text.len() as u8),
        255,
    ];
    packed.extend_from_slice(text);
    packed.extend(crc32(text).to_le_bytes());
    packed.extend((text.len() as u32).to_le_bytes());
    let headers = [("content-encoding", "gzip")];
    let reply = server.send(Method::POST, "/v1/models/flowers:predict", &headers, packed).await;
    assert_eq!(reply.text(), r#"{"predictions":[1]}"#);
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32, &byte: &u8| {
        let fold = |sum: u32, _| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 };
        (0..8).fold(sum ^ u32::from(byte), fold)
    };
    !bytes.iter().fold(!0, step)
}
