//! The best `k` of a row in one scan.
//!
//! Candidates above the running `k`-th best are collected; when twice as many as wanted are held, the worse half is
//! dropped and the bar rises. After the first few thousand values almost nothing passes, so the scan runs at the speed
//! of the comparison. Ids ascend during the scan, so a later equal of the `k`-th best always loses: "above" is enough.

use std::cmp::Ordering;

use super::Kernels;

pub(super) fn top_k(kernels: &Kernels, row: &[f32], k: usize, best: &mut Vec<(u32, f32)>) {
    best.clear();
    let k = k.min(row.len());
    if k == 0 {
        return;
    }
    best.reserve(2 * k);
    let mut bar = None;
    let mut at = 0;
    while let Some(index) = next(kernels, row, at, bar) {
        best.push((index as u32, row[index]));
        at = index + 1;
        if best.len() == 2 * k {
            keep(best, k);
            bar = Some(best[k - 1].1);
        }
    }
    keep(best, k);
    best.sort_unstable_by(order);
}

/// The next value above the bar; before there is one, the next that is a number.
fn next(kernels: &Kernels, row: &[f32], at: usize, bar: Option<f32>) -> Option<usize> {
    match bar {
        Some(bar) => (kernels.next_above)(row, at, bar),
        None => row[at..].iter().position(|x| !x.is_nan()).map(|offset| at + offset),
    }
}

/// Drops all but the best `k`; the worst of them comes last.
fn keep(best: &mut Vec<(u32, f32)>, k: usize) {
    if best.len() > k {
        best.select_nth_unstable_by(k - 1, order);
        best.truncate(k);
    }
}

/// Largest value first, ties by lower id.
fn order(a: &(u32, f32), b: &(u32, f32)) -> Ordering {
    b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal).then(a.0.cmp(&b.0))
}

#[cfg(test)]
mod tests {
    use super::super::VARIANTS;
    use super::*;
    use crate::testing::values;

    fn check(row: &[f32], k: usize) {
        let mut want: Vec<(u32, f32)> = row
            .iter()
            .enumerate()
            .map(|(id, &x)| (id as u32, x))
            .filter(|x| !x.1.is_nan())
            .collect();
        want.sort_by(order);
        want.truncate(k);
        for variant in VARIANTS.iter().filter(|v| v.isa.is_supported()) {
            let mut got = vec![(7, 7.0); 3];
            top_k(&variant.run, row, k, &mut got);
            assert_eq!(got, want, "{} k={k} of {}", variant.name, row.len());
        }
    }

    #[test]
    fn the_best_are_those_of_a_sort() {
        for len in [0, 1, 5, 16, 100, 10_000] {
            let row = values(1, len);
            let coarse: Vec<f32> = row.iter().map(|x| (x * 4.0).round()).collect();
            let ascending: Vec<f32> = (0..len).map(|x| x as f32).collect();
            for k in [0, 1, 2, 20, 200] {
                check(&row, k);
                check(&coarse, k);
                check(&ascending, k);
                check(&vec![f32::NEG_INFINITY; len], k);
            }
        }
    }

    #[test]
    fn nan_is_never_listed() {
        let mut row = values(2, 300);
        row[3] = f32::NAN;
        row[290] = f32::NAN;
        check(&row, 10);
        check(&row, 300);
    }

    #[test]
    fn a_buffer_with_room_is_not_grown() {
        let mut best = Vec::with_capacity(40);
        let before = best.as_ptr();
        top_k(&VARIANTS[0].run, &values(3, 5000), 20, &mut best);
        assert_eq!((best.as_ptr(), best.len()), (before, 20));
    }
}
