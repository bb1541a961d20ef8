//! A server over two small models: `flowers` with methods, `adder` with named inputs.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method as Verb, Request as HttpRequest, StatusCode};
use serde_json::Value;
use tokenmill::app::{App, ServerConfig, router};
use tokenmill::kserve::Predictive;
use tokenmill::registry::{Registry, Served};
use tokenmill_predictive::{
    DataType, Description, HandleOptions, Method, Model, PredictError, PredictHandle, PredictPool,
    Request, Signature, Tensor, TensorMap, TensorSpec,
};
use tower::ServiceExt;

pub(crate) fn spec(name: &str, dtype: DataType, shape: &[Option<usize>]) -> TensorSpec {
    TensorSpec { name: name.into(), dtype, shape: shape.to_vec() }
}

fn wrong(input: &str, reason: impl Into<String>) -> PredictError {
    PredictError::Input { input: input.into(), reason: reason.into() }
}

/// Four columns; the label is 1 where the sum is above 10 and NaN counts as "missing". A frame has the
/// columns a and b, b a text or number; its label is the number of characters.
pub(crate) struct Flowers {
    signature: Signature,
    description: Description,
}

const METHODS: [Method; 2] = [Method::Predict, Method::PredictProba];

impl Flowers {
    pub(crate) fn new() -> Self {
        let signature = Signature {
            inputs: vec![spec("input-0", DataType::Fp64, &[None, Some(4)])],
            outputs: vec![spec("output-0", DataType::Int64, &[None])],
            batchable: true,
            text_columns: false,
            columns: None,
        };
        let description =
            Description { format: "sklearn", kind: "Flowers".into(), ..Description::default() };
        Self { signature, description }
    }

    fn frame(inputs: &TensorMap) -> Result<TensorMap, PredictError> {
        let missing = |name: &str| wrong(name, format!("columns are missing: {{'{name}'}}"));
        let a = inputs.get("a").ok_or_else(|| missing("a"))?;
        let b = inputs.get("b").ok_or_else(|| missing("b"))?;
        let a = a.to_f64().ok_or_else(|| wrong("a", "numbers"))?;
        let labels: Vec<f64> = match b.byte_strings() {
            Some(texts) => {
                let sizes = texts.iter().map(|text| text.len() as f64);
                a.iter().zip(sizes).map(|(a, b)| a * 100.0 + b).collect()
            }
            None => a.iter().zip(b.to_f64().unwrap_or_default()).map(|(a, b)| a + b).collect(),
        };
        let mut map = TensorMap::default();
        map.insert("output-0", Tensor::from_values(vec![labels.len()], &labels));
        Ok(map)
    }
}

impl Model for Flowers {
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn description(&self) -> &Description {
        &self.description
    }
    fn methods(&self) -> &[Method] {
        &METHODS
    }
    fn predict(&self, request: &Request) -> Result<TensorMap, PredictError> {
        if request.frame {
            return Self::frame(&request.inputs);
        }
        let (name, tensor) = request.inputs.iter().next().ok_or_else(|| wrong("x", "absent"))?;
        if let Some(texts) = tensor.byte_strings() {
            let mut map = TensorMap::default();
            map.insert("output-0", Tensor::from_texts(vec![texts.len()], &texts));
            return Ok(map);
        }
        let &[rows, 4] = tensor.shape() else {
            return Err(wrong(name, format!("expected 4 columns, found {:?}", tensor.shape())));
        };
        let values = tensor.to_f64().unwrap_or_default();
        let sums: Vec<f64> = values.chunks(4).map(|row| row.iter().sum()).collect();
        if sums.contains(&666.0) {
            panic!("the number of the beast");
        }
        let labels: Vec<i64> = sums.iter().map(|&sum| i64::from(sum > 10.0)).collect();
        let mut map = TensorMap::default();
        let methods = if request.methods.is_empty() { &METHODS[..1] } else { &request.methods };
        for method in methods {
            let name = if request.methods.is_empty() { "output-0" } else { method.name() };
            map.insert(
                name,
                match method {
                    Method::Predict => Tensor::from_values(vec![rows], &labels),
                    _ => {
                        let rows = sums.iter().flat_map(|sum| [sum / 100.0, 1.0 - sum / 100.0]);
                        Tensor::from_values(vec![sums.len(), 2], &rows.collect::<Vec<f64>>())
                    }
                },
            );
        }
        Ok(map)
    }
}

/// `sum` and `difference` of `left` and `right`, in single precision.
struct Adder {
    signature: Signature,
    description: Description,
}

impl Adder {
    fn new() -> Self {
        let vector = |name| spec(name, DataType::Fp32, &[None]);
        let signature = Signature {
            inputs: vec![vector("left"), vector("right")],
            outputs: vec![vector("sum"), vector("difference")],
            ..Signature::default()
        };
        Self { signature, description: Description { format: "onnx", ..Description::default() } }
    }
}

impl Model for Adder {
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn description(&self) -> &Description {
        &self.description
    }
    fn predict(&self, request: &Request) -> Result<TensorMap, PredictError> {
        let take = |name: &str| {
            let tensor = request.inputs.get(name).ok_or_else(|| wrong(name, "it is missing"))?;
            tensor.to_f32().ok_or_else(|| wrong(name, "expected FP32"))
        };
        let (left, right) = (take("left")?, take("right")?);
        let pairs = || left.iter().zip(&right);
        let mut map = TensorMap::default();
        let sum: Vec<f32> = pairs().map(|(a, b)| a + b).collect();
        let difference: Vec<f32> = pairs().map(|(a, b)| a - b).collect();
        map.insert("sum", Tensor::from_values(vec![sum.len()], &sum));
        map.insert("difference", Tensor::from_values(vec![sum.len()], &difference));
        Ok(map)
    }
}

/// Models by name.
pub(crate) type Models = Vec<(&'static str, Arc<dyn Model>)>;

/// A server without a socket.
pub(crate) struct Server(pub(crate) Router);

/// An answer, read to its end.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|why| panic!("{why}: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
    }
}

impl Server {
    pub(crate) fn new() -> Self {
        Self::with(ServerConfig::default())
    }

    pub(crate) fn with(config: ServerConfig) -> Self {
        let models: Models =
            vec![("flowers", Arc::new(Flowers::new())), ("org/adder", Arc::new(Adder::new()))];
        Self::of(config, models)
    }

    pub(crate) fn of(config: ServerConfig, models: Models) -> Self {
        let pool = PredictPool::new(2).expect("threads start");
        let mut registry = Registry::default();
        for (name, model) in models {
            let handle = PredictHandle::new(model, pool.clone(), HandleOptions::default());
            let model = Served::Predictive(Arc::new(Predictive::new(name, None, handle)));
            registry.insert(name, model).expect("a new name");
        }
        let app = App::new(config, registry);
        app.set_ready();
        Self(router(app))
    }

    pub(crate) async fn send(
        &self,
        method: Verb,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Reply {
        let mut request = HttpRequest::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).expect("a request");
        let response = self.0.clone().oneshot(request).await.expect("routers do not fail");
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1 << 24).await.expect("a body").to_vec();
        Reply { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Verb::GET, path, &[], Body::empty()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Reply {
        let json = [("content-type", "application/json")];
        self.send(Verb::POST, path, &json, body.to_owned()).await
    }

    pub(crate) async fn infer(&self, body: &str) -> Reply {
        self.post("/v2/models/flowers/infer", body).await
    }

    pub(crate) async fn predict(&self, body: &str) -> Reply {
        self.post("/v1/models/flowers:predict", body).await
    }
}
