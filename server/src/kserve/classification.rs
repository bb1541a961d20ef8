//! The classification extension: the best classes of each row as texts.

use tokenmill_predictive::Tensor;

use super::failure::Failure;

/// The `count` highest values of each row as `value:index`, highest first.
///
/// # Errors
/// When the output is no matrix of numbers, or `count` is 0.
pub(super) fn classify(name: &str, tensor: &Tensor, count: usize) -> Result<Tensor, Failure> {
    let Some(values) = tensor.to_f64() else {
        let text = format!("classification needs an output of numbers, {name} is BYTES");
        return Err(Failure::invalid(text));
    };
    if count == 0 {
        return Err(Failure::invalid(format!(
            "classification of output {name} must be at least 1"
        )));
    }
    let rows = tensor.shape().first().copied().unwrap_or(1);
    let classes = values.len().checked_div(rows).unwrap_or(0);
    let count = count.min(classes);
    let whole = tensor.dtype().name().contains("INT");
    let mut texts = Vec::with_capacity(rows * count);
    for row in values.chunks(classes.max(1)) {
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
        texts.extend(order.into_iter().take(count).map(|index| match whole {
            true => format!("{}:{index}", row[index]),
            false => format!("{:.6}:{index}", row[index]),
        }));
    }
    Ok(Tensor::from_texts(vec![rows, count], &texts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_come_first_and_ties_keep_their_order() {
        let tensor = Tensor::from_values(vec![2, 3], &[0.2f32, 0.5, 0.5, 1.0, 0.0, 0.25]);
        let best = classify("p", &tensor, 2).unwrap();
        assert_eq!(best.shape(), [2, 2]);
        let texts = best.byte_strings().unwrap();
        let want: [&[u8]; 4] = [b"0.500000:1", b"0.500000:2", b"1.000000:0", b"0.250000:2"];
        assert_eq!(texts, want);
        assert_eq!(classify("p", &tensor, 9).unwrap().shape(), [2, 3]);
        assert!(classify("p", &tensor, 0).is_err());
    }
}
