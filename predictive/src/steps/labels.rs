//! Arrays of labels: class numbers to labels and back, columns of several outputs as one array.

use std::collections::HashMap;
use std::sync::Arc;

use crate::array::{Array, Values};
use crate::tensor::DataType;

/// The labels of class numbers, `[n]`, or `[n, outputs]` where there are several outputs; `indices` holds one list an
/// output.
pub(crate) fn take(classes: &[Array], indices: &[Vec<usize>]) -> Array {
    let column =
        |(classes, indices): (&Array, &Vec<usize>)| classes.take(vec![indices.len()], indices);
    let mut columns: Vec<Array> = classes.iter().zip(indices).map(column).collect();
    match columns.len() {
        1 => columns.remove(0),
        _ => join(&columns),
    }
}

/// Columns `[n]` side by side, `[n, columns]`; of different types the one that holds all, as numpy promotes.
pub(crate) fn join(columns: &[Array]) -> Array {
    let rows = columns.first().map_or(0, Array::len);
    let shape = vec![rows, columns.len()];
    let first = columns.first().map_or(DataType::Fp64, Array::dtype);
    let same = columns.iter().all(|column| column.dtype() == first);
    let any = |test: fn(&Values) -> bool| columns.iter().any(|column| test(column.values()));
    if any(|values| matches!(values, Values::Text(_))) {
        let texts: Vec<Vec<Arc<str>>> = columns.iter().map(texts).collect();
        return Array::text(shape, interleave(rows, &texts));
    }
    if any(|values| matches!(values, Values::F64(_) | Values::F32(_))) {
        let numbers: Vec<Vec<f64>> =
            columns.iter().map(|column| column.to_f64().unwrap_or_default()).collect();
        let numbers = interleave(rows, &numbers);
        return match same && first == DataType::Fp32 {
            true => Array::f32(shape, numbers.into_iter().map(|value| value as f32).collect()),
            false => Array::f64(shape, numbers),
        };
    }
    let integers: Vec<Vec<i64>> = columns.iter().map(integers).collect();
    let dtype = if same { first } else { DataType::Int64 };
    Array::new(dtype, shape, Values::Int(interleave(rows, &integers)))
}

fn interleave<T: Clone>(rows: usize, columns: &[Vec<T>]) -> Vec<T> {
    (0..rows).flat_map(|row| columns.iter().map(move |column| column[row].clone())).collect()
}

fn integers(array: &Array) -> Vec<i64> {
    match array.values() {
        Values::Int(values) => values.clone(),
        _ => Vec::new(),
    }
}

fn texts(array: &Array) -> Vec<Arc<str>> {
    match array.values() {
        Values::Text(values) => values.clone(),
        Values::Int(values) => values.iter().map(|value| value.to_string().into()).collect(),
        Values::F32(values) => values.iter().map(|value| value.to_string().into()).collect(),
        Values::F64(values) => values.iter().map(|value| value.to_string().into()).collect(),
    }
}

/// Position of each label among `classes`; `None` for a label that is none of them.
pub(crate) fn positions(classes: &Array, labels: &Array) -> Vec<Option<usize>> {
    if let (Values::Text(classes), Values::Text(labels)) = (classes.values(), labels.values()) {
        let known: HashMap<&str, usize> =
            classes.iter().enumerate().map(|(index, class)| (&**class, index)).collect();
        return labels.iter().map(|label| known.get(&**label).copied()).collect();
    }
    match (classes.to_f64(), labels.to_f64()) {
        (Some(classes), Some(labels)) => {
            let known: HashMap<u64, usize> =
                classes.iter().enumerate().map(|(index, class)| (bits(*class), index)).collect();
            labels.iter().map(|label| known.get(&bits(*label)).copied()).collect()
        }
        _ => vec![None; labels.len()],
    }
}

/// Bits that are equal for equal numbers.
fn bits(value: f64) -> u64 {
    (value + 0.0).to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_several_outputs_stand_side_by_side() {
        let classes = [Array::i64(vec![2], vec![5, 7]), Array::i64(vec![2], vec![0, 1])];
        let labels = take(&classes, &[vec![1, 0], vec![0, 1]]);
        assert_eq!(labels, Array::i64(vec![2, 2], vec![7, 0, 5, 1]));
        let mixed = join(&[Array::i64(vec![1], vec![3]), Array::f64(vec![1], vec![0.5])]);
        assert_eq!(mixed, Array::f64(vec![1, 2], vec![3.0, 0.5]));
    }

    #[test]
    fn positions_find_numbers_of_any_type() {
        let classes = Array::i64(vec![2], vec![0, 3]);
        let labels = Array::f64(vec![3], vec![3.0, -0.0, 1.0]);
        assert_eq!(positions(&classes, &labels), [Some(1), Some(0), None]);
        let text = |words: &[&str]| {
            Array::text(vec![words.len()], words.iter().map(|word| (*word).into()).collect())
        };
        assert_eq!(positions(&text(&["a", "b"]), &text(&["b", "z"])), [Some(1), None]);
    }
}
