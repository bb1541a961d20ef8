//! MLflow: a directory whose `MLmodel` names a file of scikit-learn, XGBoost or LightGBM, served without Python.
//!
//! The file is loaded by its own format. The signature gives the columns: requests of columns are put into its order,
//! their types checked. The `python_function` flavour alone is code and is refused.

mod signature;
mod yaml;

use std::path::{Component, Path, PathBuf};

use crate::error::{Fault, LoadError};
use crate::format::{Format, LoadOptions, ModelFiles, Probe};
use crate::formats::FORMATS;
use crate::model::{Description, Method, Model, PredictError, Request, Signature};
use crate::tensor::{DataType, Tensor, TensorMap};

use signature::Inputs;
use yaml::Document;

/// The format `mlflow`.
pub(crate) struct Mlflow;

/// The file that describes a model.
const MLMODEL: &str = "MLmodel";

/// The flavours: name, the key of the model's file, the format of files that are no pickles.
const FLAVOURS: [(&str, &str, &str); 3] = [
    ("sklearn", "pickled_model", "sklearn"),
    ("lightgbm", "data", "lightgbm"),
    ("xgboost", "data", "xgboost"),
];

impl Format for Mlflow {
    fn name(&self) -> &'static str {
        "mlflow"
    }

    fn probe(&self, files: &ModelFiles) -> Probe {
        if files.names.iter().any(|name| name == MLMODEL) { Probe::Yes } else { Probe::No }
    }

    fn load(&self, files: &ModelFiles, options: &LoadOptions) -> Result<Box<dyn Model>, LoadError> {
        let directory =
            if files.is_directory { Some(files.path.as_path()) } else { files.path.parent() };
        let directory = directory.unwrap_or(Path::new("."));
        let plan = read(&directory.join(MLMODEL))?;
        let inner = LoadOptions { format: None, method: options.method.or(plan.method) };
        let format =
            FORMATS.iter().find(|format| format.name() == plan.format).ok_or_else(|| {
                Fault::unsupported(format!("this build has no format {}", plan.format)).of(MLMODEL)
            })?;
        let model = format.load(&ModelFiles::open(&directory.join(&plan.file))?, &inner)?;
        let (signature, mut description) = (model.signature().clone(), model.description().clone());
        description.format = self.name();
        description.facts.push(("flavour", plan.flavour.to_owned()));
        let mut signature = plan.inputs.signature(signature);
        if plan.labels {
            for output in &mut signature.outputs {
                (output.dtype, output.shape) = (DataType::Int64, vec![None]);
            }
        }
        let (inputs, labels) = (plan.inputs, plan.labels);
        Ok(Box::new(Served { model, inputs, labels, signature, description }))
    }
}

fn read(path: &Path) -> Result<Plan, LoadError> {
    let io = |source| LoadError::Io { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(io)?.len();
    if size > yaml::MAX_BYTES as u64 {
        let reason = format!("{size} bytes; at most {} are read", yaml::MAX_BYTES);
        return Err(Fault::corrupt("size", reason).of(MLMODEL));
    }
    let bytes = std::fs::read(path).map_err(io)?;
    plan(&bytes).map_err(|fault| fault.of(MLMODEL))
}

fn plan(bytes: &[u8]) -> Result<Plan, Fault> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Fault::corrupt(format!("byte {}", error.valid_up_to()), "is not UTF-8"));
    Plan::new(&Document::parse(text?)?)
}

/// The file, below the directory, that the bytes of an `MLmodel` name.
///
/// # Errors
/// Names the line or key and what is wrong there, or the flavours that are not supported.
pub fn named_file(bytes: &[u8]) -> Result<PathBuf, Fault> {
    plan(bytes).map(|plan| plan.file)
}

/// What an `MLmodel` says.
struct Plan {
    flavour: &'static str,
    format: &'static str,
    file: PathBuf,
    /// The method that MLflow's own `predict` calls, where the file says.
    method: Option<Method>,
    /// Probabilities are turned into class numbers, as `XGBClassifier.predict` does.
    labels: bool,
    inputs: Inputs,
}

impl Plan {
    fn new(document: &Document) -> Result<Self, Fault> {
        let names = document.keys(&["flavors"]);
        let Some((flavour, key, format)) =
            FLAVOURS.into_iter().find(|(flavour, ..)| names.contains(flavour))
        else {
            let loader = document.get(&["flavors", "python_function", "loader_module"]);
            let loader = loader.map_or(String::new(), |loader| format!(" (loader {loader})"));
            let found = if names.is_empty() { "none".into() } else { names.join(", ") };
            return Err(Fault::unsupported(format!(
                "none of the flavours can be served without Python: {found}{loader}; supported are \
                 sklearn, lightgbm, xgboost"
            )));
        };
        let at = |name: &str| document.get(&["flavors", flavour, name]);
        let field = format!("flavors.{flavour}.{key}");
        let file = at(key).ok_or_else(|| Fault::corrupt(&field, "is missing"))?;
        let path = PathBuf::from(file);
        let below = path.components().all(|part| matches!(part, Component::Normal(_)));
        if !below || file.is_empty() {
            let reason = format!("expected a file below the directory, found {file:?}");
            return Err(Fault::corrupt(field, reason));
        }
        let extension =
            path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        let pickled = match extension.as_deref() {
            Some("skops") => {
                let what = format!(
                    "{file} is a skops archive; save the model with serialization_format=\"cloudpickle\""
                );
                return Err(Fault::unsupported(what));
            }
            Some("pkl" | "pickle" | "joblib") => true,
            _ => false,
        };
        let class = at("model_class").unwrap_or_default();
        let labels = flavour == "xgboost" && !pickled && class.ends_with("Classifier");
        let predict = document.get(&["flavors", "python_function", "predict_fn"]);
        let method = predict.and_then(Method::from_name).filter(|_| pickled);
        let inputs = match document.get(&["signature", "inputs"]) {
            Some(json) => Inputs::parse(json)?,
            None => Inputs::Any,
        };
        let format = if pickled { "sklearn" } else { format };
        Ok(Self { flavour, format, file: path, method, labels, inputs })
    }
}

/// The model of the file, behind the signature.
struct Served {
    model: Box<dyn Model>,
    inputs: Inputs,
    labels: bool,
    signature: Signature,
    description: Description,
}

impl Model for Served {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn description(&self) -> &Description {
        &self.description
    }

    fn methods(&self) -> &[Method] {
        self.model.methods()
    }

    fn predict(&self, request: &Request) -> Result<TensorMap, PredictError> {
        let outputs = match self.inputs.arrange(request)? {
            Some(inputs) => {
                let methods = request.methods.clone();
                self.model.predict(&Request { inputs, frame: request.frame, methods })?
            }
            None => self.model.predict(request)?,
        };
        if !(self.labels && request.methods.is_empty()) {
            return Ok(outputs);
        }
        let mut labels = TensorMap::default();
        outputs.iter().for_each(|(name, scores)| labels.insert(name, classes(scores)));
        Ok(labels)
    }
}

/// The class of each row: the largest of several scores, or whether the one is above a half.
fn classes(scores: &Tensor) -> Tensor {
    let values = scores.to_f64().unwrap_or_default();
    let rows = scores.shape().first().copied().unwrap_or_default();
    let columns = values.len() / rows.max(1);
    let class = |row: &[f64]| match row {
        [score] => i64::from(*score > 0.5),
        several => crate::steps::math::argmax(several) as i64,
    };
    let classes: Vec<i64> = values.chunks_exact(columns.max(1)).map(class).collect();
    debug_assert_eq!(scores.dtype(), DataType::Fp32, "XGBoost answers in single precision");
    Tensor::from_values(vec![rows], &classes)
}
