//! Functions of one row that many estimators end with.

/// The logistic function.
pub(crate) fn expit(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Replaces a row by its softmax: subtract the largest, `exp`, divide by the sum.
pub(crate) fn softmax(row: &mut [f64]) {
    let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    row.iter_mut().for_each(|value| *value = (*value - top).exp());
    let sum: f64 = row.iter().sum();
    row.iter_mut().for_each(|value| *value /= sum);
}

/// `ln(sum(exp(row)))`, without overflow.
pub(crate) fn log_sum_exp(row: &[f64]) -> f64 {
    let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !top.is_finite() {
        return top;
    }
    top + row.iter().map(|value| (value - top).exp()).sum::<f64>().ln()
}

/// Divides a row by its sum; a row whose sum is 0 is left as it is.
pub(crate) fn normalise(row: &mut [f64]) {
    let sum: f64 = row.iter().sum();
    if sum != 0.0 {
        row.iter_mut().for_each(|value| *value /= sum);
    }
}

/// The sum of a row in numpy's order: eight partial sums from eight numbers on. Rows of more than 128 are summed in
/// numpy's halves.
pub(crate) fn pairwise_sum(row: &[f64]) -> f64 {
    if row.len() < 8 {
        return row.iter().fold(0.0, |sum, value| sum + value);
    }
    if row.len() > 128 {
        let half = row.len() / 2;
        let (left, right) = row.split_at(half - half % 8);
        return pairwise_sum(left) + pairwise_sum(right);
    }
    let (blocks, rest) = row.as_chunks::<8>();
    let mut sums = blocks[0];
    for block in &blocks[1..] {
        sums.iter_mut().zip(block).for_each(|(sum, value)| *sum += value);
    }
    let [a, b, c, d, e, f, g, h] = sums;
    rest.iter().fold(((a + b) + (c + d)) + ((e + f) + (g + h)), |sum, value| sum + value)
}

/// Position of the first largest value; the first NaN wins, as in numpy. 0 without values.
pub(crate) fn argmax(row: &[f64]) -> usize {
    let mut best = 0;
    for (index, &value) in row.iter().enumerate() {
        if value.is_nan() {
            return index;
        }
        if value > row[best] {
            best = index;
        }
    }
    best
}

/// [`argmax`] of every row of `columns` values.
pub(crate) fn argmax_rows(values: &[f64], columns: usize) -> Vec<usize> {
    values.chunks_exact(columns.max(1)).map(argmax).collect()
}

/// Scores of classes from classifiers of two of them, in the order (0, 1), (0, 2) .. (1, 2) ..: whether the second wins,
/// and its confidence. A score is the number of votes, and less than a half for the confidences, which settles ties.
pub(crate) fn one_vs_one(votes: impl IntoIterator<Item = (bool, f64)>, scores: &mut [f64]) {
    let classes = scores.len();
    let pairs = (0..classes).flat_map(|first| (first + 1..classes).map(move |next| (first, next)));
    let mut sums = vec![0.0; classes];
    for ((first, second), (wins, confidence)) in pairs.zip(votes) {
        sums[first] -= confidence;
        sums[second] += confidence;
        scores[if wins { second } else { first }] += 1.0;
    }
    let add = |(score, sum): (&mut f64, f64)| *score += sum / (3.0 * (sum.abs() + 1.0));
    scores.iter_mut().zip(sums).for_each(add);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_largest_wins_and_nan_before_it() {
        assert_eq!(argmax_rows(&[1.0, 3.0, 3.0, 2.0, f64::NAN, 9.0], 3), [1, 1]);
        assert_eq!(argmax(&[f64::NEG_INFINITY; 2]), 0);
    }

    #[test]
    fn large_rows_do_not_overflow() {
        let mut row = [1000.0, 1000.0];
        assert_eq!(log_sum_exp(&row), 1000.0 + 2f64.ln());
        softmax(&mut row);
        assert_eq!(row, [0.5, 0.5]);
        let mut zero = [0.0, 0.0];
        normalise(&mut zero);
        assert_eq!((zero, expit(0.0)), ([0.0, 0.0], 0.5));
    }
}
