//! Merging requests: rows of several become one call of the model, and its answer is taken apart again.
//!
//! One thread a model collects. It hands a batch on when it is full, has a preferred size, or its oldest request has waited
//! for the delay. Requests that a model refuses together are run alone, so that one request's error stays its own.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::model::Request;
use crate::tensor::{Tensor, TensorMap};

/// How requests to one model are merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Rows of a batch at most; a larger request runs alone.
    pub max_rows: usize,
    /// How long a request waits for others at most.
    pub max_delay: Duration,
    /// Sizes that are run at once when they are reached exactly.
    pub preferred: Vec<usize>,
}

/// Whatever waits in a batch: a request and its reply.
pub(crate) trait Job: Send + 'static {
    /// The request.
    fn request(&self) -> &Request;
    /// When it came.
    fn submitted(&self) -> Instant;
}

/// Rows of a request: the first size of its first tensor.
pub(crate) fn rows(request: &Request) -> usize {
    request
        .inputs
        .iter()
        .next()
        .and_then(|(_, tensor)| tensor.shape().first().copied())
        .unwrap_or(0)
}

/// Whether the rows of two requests may be one table.
fn fit(one: &Request, other: &Request) -> bool {
    let same = |(a, b): ((&str, &Tensor), (&str, &Tensor))| {
        a.0 == b.0
            && a.1.dtype() == b.1.dtype()
            && !a.1.shape().is_empty()
            && a.1.shape().get(1..) == b.1.shape().get(1..)
    };
    one.frame == other.frame
        && one.methods == other.methods
        && one.inputs.len() == other.inputs.len()
        && one.inputs.iter().zip(other.inputs.iter()).all(same)
}

/// Collects jobs into batches until every sender is gone.
pub(crate) fn collect<J: Job>(jobs: &Receiver<J>, options: &Batching, run: impl Fn(Vec<J>)) {
    let mut batch: Vec<J> = Vec::new();
    let mut total = 0;
    loop {
        let next = match batch.first() {
            None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(first) => {
                let due = first.submitted() + options.max_delay;
                jobs.recv_timeout(due.saturating_duration_since(Instant::now()))
            }
        };
        match next {
            Ok(job) => {
                let more = rows(job.request());
                let fits = batch.first().is_none_or(|first| fit(first.request(), job.request()));
                if !fits || (total > 0 && total + more > options.max_rows) {
                    run(std::mem::take(&mut batch));
                    total = 0;
                }
                total += more;
                batch.push(job);
                if total >= options.max_rows || options.preferred.contains(&total) {
                    run(std::mem::take(&mut batch));
                    total = 0;
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                run(std::mem::take(&mut batch));
                total = 0;
            }
            Err(RecvTimeoutError::Disconnected) => {
                if !batch.is_empty() {
                    run(batch);
                }
                return;
            }
        }
    }
}

/// One request of the rows of several that fit together.
pub(crate) fn merge(requests: &[&Request]) -> Option<Request> {
    let first = requests.first()?;
    let mut inputs = TensorMap::default();
    for (name, _) in first.inputs.iter() {
        let parts: Option<Vec<&Tensor>> =
            requests.iter().map(|request| request.inputs.get(name)).collect();
        inputs.insert(name, concatenate(&parts?)?);
    }
    Some(Request { inputs, frame: first.frame, methods: first.methods.clone() })
}

fn concatenate(parts: &[&Tensor]) -> Option<Tensor> {
    let first = parts.first()?;
    let mut data = BytesMut::with_capacity(parts.iter().map(|part| part.data().len()).sum());
    let mut rows = 0;
    for part in parts {
        data.extend_from_slice(part.data());
        rows += part.shape().first()?;
    }
    let mut shape = first.shape().to_vec();
    *shape.first_mut()? = rows;
    let tensor = Tensor::new(first.dtype(), shape, data.freeze()).ok()?;
    if parts.iter().all(|part| part.nulls().is_none()) {
        return Some(tensor);
    }
    let flags = parts.iter().flat_map(|part| match part.nulls() {
        Some(nulls) => nulls.to_vec(),
        None => vec![false; part.elements()],
    });
    Some(tensor.with_nulls(flags.collect()))
}

/// The answers of requests of `sizes` rows; `None` when an output does not have their rows.
pub(crate) fn split(answer: &TensorMap, sizes: &[usize]) -> Option<Vec<TensorMap>> {
    let mut answers = vec![TensorMap::default(); sizes.len()];
    for (name, tensor) in answer.iter() {
        let parts = rows_of(tensor, sizes)?;
        answers.iter_mut().zip(parts).for_each(|(answer, part)| answer.insert(name, part));
    }
    Some(answers)
}

/// A tensor's rows in groups, slices of its bytes.
fn rows_of(tensor: &Tensor, sizes: &[usize]) -> Option<Vec<Tensor>> {
    let (rows, inner) = tensor.shape().split_first()?;
    if *rows != sizes.iter().sum::<usize>() {
        return None;
    }
    let width: usize = inner.iter().product();
    let mut data: Bytes = tensor.data().clone();
    let mut nulls = tensor.nulls();
    let mut parts = Vec::with_capacity(sizes.len());
    for &size in sizes {
        let elements = size * width;
        let length = match tensor.dtype().element_bytes() {
            Some(bytes) => elements * bytes,
            None => byte_strings(&data, elements)?,
        };
        let mut shape = tensor.shape().to_vec();
        *shape.first_mut()? = size;
        let mut part = Tensor::new(tensor.dtype(), shape, data.split_to(length)).ok()?;
        if let Some(flags) = nulls {
            let (own, rest) = flags.split_at_checked(elements)?;
            part = part.with_nulls(own.to_vec());
            nulls = Some(rest);
        }
        parts.push(part);
    }
    Some(parts)
}

/// Bytes of the first `count` length-prefixed elements.
fn byte_strings(data: &[u8], count: usize) -> Option<usize> {
    let mut at = 0usize;
    for _ in 0..count {
        let prefix = data.get(at..)?.first_chunk::<4>()?;
        at = at.checked_add(4 + u32::from_le_bytes(*prefix) as usize)?;
    }
    (at <= data.len()).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(texts: &[&str], numbers: &[f64]) -> Request {
        let mut inputs = TensorMap::default();
        let nulls = texts.iter().map(|text| text.is_empty()).collect();
        inputs.insert("t", Tensor::from_texts(vec![texts.len()], texts).with_nulls(nulls));
        inputs.insert("n", Tensor::from_values(vec![numbers.len(), 1], numbers));
        Request { inputs, frame: true, methods: Vec::new() }
    }

    #[test]
    fn what_is_merged_comes_apart_again() {
        let all = [request(&["a", ""], &[1.0, 2.0]), request(&["ccc"], &[3.0]), request(&[], &[])];
        let merged = merge(&all.each_ref()).unwrap();
        assert_eq!(rows(&merged), 3);
        assert_eq!(merged.inputs.get("n").unwrap().to_f64(), Some(vec![1.0, 2.0, 3.0]));
        let parts = split(&merged.inputs, &[2, 1, 0]).unwrap();
        for (part, request) in parts.iter().zip(&all) {
            assert_eq!(*part, request.inputs);
        }
        assert!(split(&merged.inputs, &[2, 2]).is_none());
    }

    #[test]
    fn other_columns_or_methods_do_not_fit() {
        let one = request(&["a"], &[1.0]);
        assert!(fit(&one, &request(&["b", "c"], &[1.0, 2.0])));
        let methods = vec![crate::model::Method::PredictProba];
        assert!(!fit(&one, &Request { methods, ..one.clone() }));
        let mut wide = one.clone();
        wide.inputs.insert("n", Tensor::from_values(vec![1, 2], &[1.0, 2.0]));
        assert!(!fit(&one, &wide));
    }
}
