//! Pickles and joblib files of every protocol, container and version read as the same values.

use std::path::PathBuf;

use serde_json::{Value as Json, json};
use tokenmill_predictive::Values;
use tokenmill_predictive::pickle::{self, Value};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pickle")
}

/// A value as `make_pickle.py` writes it.
fn plain(value: Value<'_>) -> Json {
    if value.is_none() {
        return Json::Null;
    }
    if let Some(text) = value.as_str().filter(|_| value.as_array().is_none()) {
        return text.into();
    }
    if let Some(bytes) = value.as_bytes() {
        return json!({ "bytes": bytes });
    }
    if let Some(array) = value.as_array() {
        let data = match array.values() {
            Values::Text(texts) => json!(texts.iter().map(AsRef::as_ref).collect::<Vec<&str>>()),
            _ => json!(array.to_f64()),
        };
        return json!({ "array": array.dtype().name(), "shape": array.shape(), "data": data });
    }
    if let Some(entries) = value.as_dict() {
        let pairs: Vec<Json> =
            entries.into_iter().map(|(key, value)| json!([plain(key), plain(value)])).collect();
        return json!({ "dict": pairs });
    }
    if let Some(items) = value.as_list() {
        let items: Vec<Json> = items.into_iter().map(plain).collect();
        return match value.describe().starts_with("object array") {
            true => json!({ "objects": value.shape(), "items": items }),
            false => json!({ "list": items }),
        };
    }
    if let Some((module, name)) = value.as_global() {
        // numpy moved its functions between modules.
        let module = module.split('.').next();
        return json!({ "global": format!("{}.{name}", module.unwrap_or_default()) });
    }
    if let Some(object) = value.as_object() {
        if object.class == "csr_matrix" {
            let parts = ["_shape", "data", "indices", "indptr"];
            let parts = parts.map(|part| (part.to_owned(), object.get(part).map(plain).into()));
            return json!({ "sparse": Json::Object(parts.into_iter().collect()) });
        }
        let name = format!("{}.{}", object.module, object.class);
        return json!({ "object": name, "state": plain(object.state) });
    }
    match value.describe().as_str() {
        "True" => true.into(),
        "False" => false.into(),
        text => match (text.parse::<i64>(), text.strip_suffix(" records")) {
            (Ok(number), _) if value.as_i64().is_some() => number.into(),
            (_, Some(records)) => json!({ "records": records.parse::<usize>().ok() }),
            _ if value.as_f64().is_some() => json!({ "float": value.as_f64() }),
            _ => json!({ "big": text }),
        },
    }
}

#[test]
fn every_protocol_container_and_version_reads_as_the_same_values() {
    let text = std::fs::read_to_string(folder().join("zoo.json")).expect("the fixtures are there");
    let wanted: Vec<(String, Json)> = serde_json::from_str(&text).expect("a list of pairs");
    let mut files = 0;
    for entry in std::fs::read_dir(folder()).expect("the fixtures are there") {
        let path = entry.expect("the folder can be listed").path();
        if path.extension().is_some_and(|extension| extension == "json") {
            continue;
        }
        files += 1;
        let name = path.display();
        let bytes = std::fs::read(&path).expect("a fixture can be read");
        let pickle = pickle::read(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        let found = pickle.root().as_dict().expect("a dictionary");
        assert_eq!(found.len(), wanted.len(), "{name}");
        for ((key, value), (wanted_key, wanted)) in found.into_iter().zip(&wanted) {
            assert_eq!(key.as_str(), Some(wanted_key.as_str()), "{name}");
            // Protocols 0 to 2 have no opcode for bytes, and nothing else differs.
            assert_eq!(&plain(value), wanted, "{name}: {wanted_key}");
        }
    }
    assert!(files >= 60, "{files} files");
}

#[test]
fn shared_values_keep_their_identity() {
    let bytes = std::fs::read(folder().join("numpy2.4.protocol4.pkl")).expect("a fixture");
    let pickle = pickle::read(&bytes).expect("a fixture can be read");
    let shared = pickle.root().key("shared").and_then(Value::as_list).expect("a list");
    assert_eq!(shared[0].id(), shared[1].id());
}
