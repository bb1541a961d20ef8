//! `tokenmill predict`: a classic model asked from files, without a server.

mod npy;
mod table;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde_json::Value;
use serde_json::value::RawValue;
use tokenmill_predictive::{
    HandleOptions, Method, Model, PredictHandle, PredictPool, Request, Tensor, TensorMap, load,
};

use super::model;
use crate::config::Config;
use crate::kserve::failure::Failure;
use crate::kserve::infer::{self, Plan};
use crate::kserve::{v1, v2_json};

/// Ask a classic model (scikit-learn, XGBoost, LightGBM) without a server.
///
/// Prints what the V1 route answers, {"predictions": ...}, on standard output.
#[derive(Args, Debug)]
#[command(after_help = "Inputs:
  .json   the body of a V1 request ({\"instances\": ...}) or of a V2 one ({\"inputs\": ...})
  .csv    a table whose first line names its columns; empty cells are missing values
  .npy    one array of numbers, booleans or texts, as numpy.save writes it

Examples:
  tokenmill predict model.joblib --input rows.csv
  tokenmill predict ./model --input rows.npy --method predict_proba
  tokenmill predict model.ubj --input request.json --json > answer.json")]
pub(super) struct PredictArgs {
    /// File or directory of the model, or a hub id (org/name).
    model: String,
    /// File of the rows: .json, .csv or .npy.
    #[arg(long, short, value_name = "FILE")]
    input: PathBuf,
    /// Method to call: predict, predict_proba, decision_function, ...; the model's own when absent.
    #[arg(long, value_parser = method)]
    method: Option<Method>,
    /// The first line of a .csv file is a row: columns are taken by position.
    #[arg(long)]
    no_header: bool,
    /// Print the answer on one line, as the server sends it; else each row has its line.
    #[arg(long)]
    json: bool,
}

impl PredictArgs {
    /// The model as `serve` takes it.
    pub(super) fn words(&self) -> Vec<String> {
        vec!["--model".to_owned(), self.model.clone()]
    }
}

fn method(name: &str) -> Result<Method, String> {
    Method::from_name(name).ok_or_else(|| {
        let known: Vec<&str> = Method::NAMES.iter().map(|(_, name)| *name).collect();
        format!("known are {}", known.join(", "))
    })
}

/// Loads, asks and prints; `config` names the model.
pub(super) async fn run(args: PredictArgs, config: Config) -> anyhow::Result<()> {
    let spec = config.model.as_ref().context("no model was named")?;
    let path = model::locate(&config, spec).await?;
    let options = config.predictive.load.clone();
    let model = tokio::task::spawn_blocking(move || load(&path, &options)).await??;
    let model: Arc<dyn Model> = Arc::from(model);
    let answer = ask(&model, &args).await?;
    let body = v1::encode(model.as_ref(), &answer);
    let body = std::str::from_utf8(&body).context("the answer is not UTF-8")?;
    super::say(&if args.json { format!("{body}\n") } else { a_row_a_line(body) });
    Ok(())
}

/// The answer to the rows of the input file.
async fn ask(
    model: &Arc<dyn Model>,
    args: &PredictArgs,
) -> anyhow::Result<Vec<infer::InferOutput>> {
    let file = args.input.display().to_string();
    let mut plan = read(model.as_ref(), args).with_context(|| file.clone())?;
    if let Some(method) = args.method {
        let known = model.methods();
        if !known.contains(&method) {
            let names: Vec<&str> = known.iter().map(|method| method.name()).collect();
            bail!("--method {}: the model has {}", method.name(), names.join(", "));
        }
        let named = &plan.request.methods;
        ensure!(named.is_empty(), "--method {}: {file} names its outputs itself", method.name());
        plan.request.methods = vec![method];
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let pool = PredictPool::new(threads).context("cannot start the threads of the model")?;
    let handle = PredictHandle::new(Arc::clone(model), pool, HandleOptions::default());
    let request = std::mem::take(&mut plan.request);
    let prediction = handle.predict(request, None).await.with_context(|| file.clone())?;
    plan.answer(&args.model, prediction.outputs)
        .map_err(|failure| described(&failure))
        .context(file)
}

/// The request that the input file makes of the model.
fn read(model: &dyn Model, args: &PredictArgs) -> anyhow::Result<Plan> {
    let extension = args.input.extension().and_then(|extension| extension.to_str());
    let extension = extension.unwrap_or_default().to_ascii_lowercase();
    ensure!(
        matches!(extension.as_str(), "json" | "csv" | "npy"),
        "its name ends in none of .json, .csv and .npy"
    );
    ensure!(!args.no_header || extension == "csv", "--no-header is for .csv files");
    let bytes = std::fs::read(&args.input)?;
    match extension.as_str() {
        "json" => json(model, &args.model, &bytes),
        "csv" => {
            let names = if args.no_header { table::Names::Position } else { table::Names::Header };
            Ok(table::request(model, &bytes, names)?.into())
        }
        _ => Ok(one(model, npy::read(bytes)?).into()),
    }
}

/// A request of one tensor.
fn one(model: &dyn Model, tensor: Tensor) -> Request {
    let mut inputs = TensorMap::default();
    let name = model.signature().inputs.first().map_or("input-0", |spec| spec.name.as_str());
    inputs.insert(name, tensor);
    Request { inputs, ..Request::default() }
}

/// A V2 body when its inputs have a shape and a datatype, else a V1 body.
fn json(model: &dyn Model, name: &str, text: &[u8]) -> anyhow::Result<Plan> {
    let body: Value = serde_json::from_slice(text).context("not JSON")?;
    let v2 = body["inputs"][0].as_object().is_some_and(|input| {
        input.contains_key("datatype")
            || (input.contains_key("shape") && input.contains_key("data"))
    });
    let plan = if v2 {
        v2_json::parse(name, text, None).and_then(|request| infer::plan(name, model, request))
    } else {
        v1::parse(model, text, false).map(Plan::from)
    };
    plan.map_err(|failure| described(&failure))
}

/// A failure as a line: of a list of faults the first, with its field.
fn described(failure: &Failure) -> anyhow::Error {
    let fault = failure.detail.as_ref().and_then(|detail| detail.get(0));
    let Some((place, Some(message))) = fault.map(|fault| (&fault["loc"], fault["msg"].as_str()))
    else {
        return anyhow::anyhow!("{}", failure.text);
    };
    let step = |step: &Value| step.as_str().map_or_else(|| step.to_string(), str::to_owned);
    // The first two steps name the body and its schema.
    let place: Vec<String> = place.as_array().into_iter().flatten().skip(2).map(step).collect();
    anyhow::anyhow!("{}: {message}", place.join("."))
}

/// The same JSON with a line for each row.
fn a_row_a_line(body: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        predictions: Vec<&'a RawValue>,
    }
    let Ok(answer) = serde_json::from_str::<Answer<'_>>(body) else { return format!("{body}\n") };
    let rows: Vec<&str> = answer.predictions.iter().map(|row| row.get()).collect();
    format!("{{\"predictions\": [\n  {}\n]}}\n", rows.join(",\n  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_get_their_lines_and_stay_the_same_json() {
        let body = r#"{"predictions":[[0.5,1.0],[null,"a,b"]]}"#;
        let lines = a_row_a_line(body);
        assert_eq!(lines, "{\"predictions\": [\n  [0.5,1.0],\n  [null,\"a,b\"]\n]}\n");
        let (a, b): (Value, Value) =
            (serde_json::from_str(body).unwrap(), serde_json::from_str(&lines).unwrap());
        assert_eq!(a, b);
        assert_eq!(a_row_a_line(r#"{"predictions":{"a":1}}"#), "{\"predictions\":{\"a\":1}}\n");
    }

    #[test]
    fn faults_name_their_field() {
        let body = br#"{"inputs": [{"name": "x", "datatype": "FP64", "data": [1]}]}"#;
        let failure = v2_json::parse("m", body, None).unwrap_err();
        assert_eq!(described(&failure).to_string(), "inputs.0.shape: Field required");
    }

    #[test]
    fn methods_are_the_librarys() {
        assert_eq!(method("predict_proba"), Ok(Method::PredictProba));
        assert!(method("probabilities").unwrap_err().contains("decision_function"));
    }
}
