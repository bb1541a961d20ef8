//! Our side of `benches/trees.py`: reads a forest in its neutral form and rows, then answers each line
//! `batch threads seconds` of the standard input with the microseconds of the fastest of the evaluations that fill the seconds.

use std::hint::black_box;
use std::io::{BufRead, Write};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokenmill_kernels::trees::{Child, Ensemble, Forest, Precision, Split, Test, Tree};
use tokenmill_predictive::{Matrix, ensemble};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, forest, rows] = &arguments[..] else { bail!("trees FOREST ROWS") };
    let forest = std::fs::read(forest).with_context(|| format!("reading {forest}"))?;
    let (ensemble, double) = parse(&forest)?;
    let forest = Forest::new(&ensemble)?;
    let rows = std::fs::read(rows).with_context(|| format!("reading {rows}"))?;
    let rows: Vec<f32> =
        rows.as_chunks::<4>().0.iter().map(|raw| f32::from_le_bytes(*raw)).collect();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let fields: Vec<&str> = line.split(' ').collect();
        let [batch, threads, seconds] = fields[..] else { bail!("batch threads seconds") };
        let (batch, seconds): (usize, f64) = (batch.parse()?, seconds.parse()?);
        let values = &rows[..batch * forest.features()];
        let x = if double {
            let values = values.iter().map(|&value| value.into()).collect();
            Matrix::f64(batch, forest.features(), values)
        } else {
            Matrix::f32(batch, forest.features(), values.to_vec())
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.parse()?).build()?;
        let time = pool.install(|| {
            black_box(ensemble::sums(&forest, &x));
            let (start, mut best) = (Instant::now(), f64::INFINITY);
            while best == f64::INFINITY || start.elapsed().as_secs_f64() < seconds {
                let one = Instant::now();
                black_box(ensemble::sums(&forest, black_box(&x)));
                best = best.min(one.elapsed().as_secs_f64());
            }
            best
        });
        println!("{}", time * 1e6);
        std::io::stdout().flush()?;
    }
    Ok(())
}

/// The form that `write_forest` of the script writes, and whether rows are double precision.
fn parse(bytes: &[u8]) -> Result<(Ensemble, bool)> {
    let end = bytes.iter().position(|&byte| byte == b'\n').context("a line of JSON comes first")?;
    let header: Value = serde_json::from_slice(&bytes[..end])?;
    let sizes =
        |name: &str| -> Result<Vec<usize>> { Ok(serde_json::from_value(header[name].clone())?) };
    let (splits, leaves) = (sizes("splits")?, sizes("leaves")?);
    let precision = |name: &str| match header[name].as_str() {
        Some("f32") => Precision::Single,
        _ => Precision::Double,
    };
    let mut rest = &bytes[end + 1..];
    let nodes = splits.iter().sum();
    let features = ints(&mut rest, nodes)?;
    let thresholds = doubles(&mut rest, nodes)?;
    let missing = take(&mut rest, nodes)?;
    let (left, right) = (ints(&mut rest, nodes)?, ints(&mut rest, nodes)?);
    let values = doubles(&mut rest, leaves.iter().sum())?;
    let child = |child: i32| match u32::try_from(child) {
        Ok(node) => Child::Node(node),
        Err(_) => Child::Leaf(!child as u32),
    };
    let (mut node, mut leaf) = (0, 0);
    let trees = splits.iter().zip(&leaves).map(|(&splits, &leaves)| {
        let range = node..node + splits;
        let values = values[leaf..leaf + leaves].to_vec();
        (node, leaf) = (node + splits, leaf + leaves);
        let splits = range.map(|index| Split {
            feature: features[index] as u32,
            test: Test::AtMost(thresholds[index]),
            missing_left: missing[index] != 0,
            left: child(left[index]),
            right: child(right[index]),
        });
        Tree { splits: splits.collect(), leaves: values, output: 0 }
    });
    let ensemble = Ensemble {
        features: header["features"].as_u64().context("features")? as usize,
        outputs: 1,
        vector_leaves: false,
        input: precision("input"),
        sum: precision("sum"),
        base: serde_json::from_value(header["base"].clone())?,
        trees: trees.collect(),
    };
    Ok((ensemble, precision("input") == Precision::Double))
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(count).context("the forest ends early")?;
    *rest = after;
    Ok(taken)
}

fn ints(rest: &mut &[u8], count: usize) -> Result<Vec<i32>> {
    let bytes = take(rest, count * 4)?;
    Ok(bytes.as_chunks::<4>().0.iter().map(|raw| i32::from_le_bytes(*raw)).collect())
}

fn doubles(rest: &mut &[u8], count: usize) -> Result<Vec<f64>> {
    let bytes = take(rest, count * 8)?;
    Ok(bytes.as_chunks::<8>().0.iter().map(|raw| f64::from_le_bytes(*raw)).collect())
}
