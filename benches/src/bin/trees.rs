//! Our side of `benches/trees.py`: loads a model file and rows as the server does, then answers each line
//! `batch threads seconds` of the standard input with the microseconds of the fastest of the predictions that fill the seconds.

use std::hint::black_box;
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use tokenmill_predictive::{LoadOptions, PredictPool, Request, Tensor, TensorMap, load};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, model, rows] = &arguments[..] else { bail!("trees MODEL ROWS") };
    let model = load(Path::new(model), &LoadOptions::default())?;
    let rows = std::fs::read(rows).with_context(|| format!("reading {rows}"))?;
    let rows: Vec<f32> =
        rows.as_chunks::<4>().0.iter().map(|raw| f32::from_le_bytes(*raw)).collect();
    let features = model.signature().inputs[0].shape.last().copied().flatten();
    let features = features.context("the model says how many columns it has")?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let fields: Vec<&str> = line.split(' ').collect();
        let [batch, threads, seconds] = fields[..] else { bail!("batch threads seconds") };
        let (batch, seconds): (usize, f64) = (batch.parse()?, seconds.parse()?);
        let (shape, values) = (vec![batch, features], &rows[..batch * features]);
        // LightGBM compares in double precision, the others in single.
        let x = if model.description().format == "lightgbm" {
            let values: Vec<f64> = values.iter().map(|&value| value.into()).collect();
            Tensor::from_values(shape, &values)
        } else {
            Tensor::from_values(shape, values)
        };
        let mut inputs = TensorMap::default();
        inputs.insert("x", x);
        let request = Request { inputs, ..Request::default() };
        let time = PredictPool::new(threads.parse()?)?.install(|| -> Result<f64> {
            black_box(model.predict(&request)?);
            let (start, mut best) = (Instant::now(), f64::INFINITY);
            while best == f64::INFINITY || start.elapsed().as_secs_f64() < seconds {
                let one = Instant::now();
                black_box(model.predict(black_box(&request))?);
                best = best.min(one.elapsed().as_secs_f64());
            }
            Ok(best)
        })?;
        println!("{}", time * 1e6);
        std::io::stdout().flush()?;
    }
    Ok(())
}
