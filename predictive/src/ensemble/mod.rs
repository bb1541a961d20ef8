//! Tree ensembles: the form that XGBoost, LightGBM and scikit-learn's trees lower to.
//!
//! The kernel evaluates on one thread; here rows are split over the rayon pool that the caller runs on. Rows are
//! independent, so the split never changes a result.

use tokenmill_kernels::trees::{Forest, Precision, Rows, Sums};

use crate::error::Fault;
use crate::pool;
use crate::table::{Matrix, Numbers};

/// Rows of one task at most: whole blocks of the kernels.
const MAX_ROWS: usize = 4096;
/// Tasks are multiples of this many rows, so that blocks of the kernels stay full.
const BLOCK_ROWS: usize = 128;
/// Visits of trees (rows times trees) below which a second task costs more than it gains.
const MIN_VISITS: usize = 8192;

/// Refuses trees that a file writes shorter than any library does, so that reading a file holds at most four times its
/// length plus 64 MiB. `cost` is what a node takes while it is lowered.
///
/// # Errors
/// When the nodes take more than that.
pub(crate) fn afford(nodes: usize, cost: usize, file: usize) -> Result<(), Fault> {
    // The file itself is held too.
    let allowed = file.saturating_mul(3).saturating_add(64 << 20);
    if nodes.saturating_mul(cost) <= allowed {
        return Ok(());
    }
    Err(Fault::unsupported(format!(
        "{nodes} nodes in {file} bytes need more memory than four times the file plus 64 MiB; save the model with the \
         library again"
    )))
}

/// The sums of each row, `[rows, outputs]`, in the precision that the forest sums in.
///
/// # Panics
/// When the matrix has not as many columns as the forest has features.
pub fn sums(forest: &Forest, x: &Matrix) -> Numbers {
    assert_eq!(x.columns, forest.features(), "the columns are the features");
    let (outputs, rows) = (forest.outputs(), task_rows(forest, x.rows));
    match forest.sum() {
        Precision::Single => {
            let mut out = vec![0.0; x.rows * outputs];
            pool::each_part(&mut out, rows * outputs, |task, out| {
                forest.sums(part(x, task * rows, out.len() / outputs), Sums::F32(out));
            });
            Numbers::F32(out)
        }
        Precision::Double => {
            let mut out = vec![0.0; x.rows * outputs];
            pool::each_part(&mut out, rows * outputs, |task, out| {
                forest.sums(part(x, task * rows, out.len() / outputs), Sums::F64(out));
            });
            Numbers::F64(out)
        }
    }
}

/// Number of the leaf that each row reaches in each tree: `[rows, trees]`.
///
/// # Panics
/// When the matrix has not as many columns as the forest has features.
pub fn leaves(forest: &Forest, x: &Matrix) -> Vec<u32> {
    assert_eq!(x.columns, forest.features(), "the columns are the features");
    let (trees, rows) = (forest.trees(), task_rows(forest, x.rows));
    let mut out = vec![0; x.rows * trees];
    pool::each_part(&mut out, rows * trees, |task, out| {
        forest.leaves(part(x, task * rows, out.len() / trees), out);
    });
    out
}

/// Rows of each task: as many tasks as threads where there is enough to do.
fn task_rows(forest: &Forest, rows: usize) -> usize {
    let useful = (rows * forest.trees() / MIN_VISITS).clamp(1, pool::threads());
    let share = rows.div_ceil(useful);
    if useful == 1 || share < BLOCK_ROWS {
        return share.max(1);
    }
    share.next_multiple_of(BLOCK_ROWS).min(MAX_ROWS)
}

fn part(x: &Matrix, first: usize, rows: usize) -> Rows<'_> {
    let range = first * x.columns..(first + rows) * x.columns;
    match &x.values {
        Numbers::F32(values) => Rows::F32(&values[range]),
        Numbers::F64(values) => Rows::F64(&values[range]),
    }
}

#[cfg(test)]
mod tests {
    use tokenmill_kernels::trees::{Child, Ensemble, Split, Test, Tree};

    use super::*;

    #[test]
    fn rows_split_over_threads_give_what_one_thread_gives() {
        let split = Split {
            feature: 0,
            test: Test::AtMost(0.5),
            missing_left: false,
            left: Child::Leaf(0),
            right: Child::Leaf(1),
        };
        let tree = Tree { splits: vec![split], leaves: vec![0.25, -3.5], output: 1 };
        let ensemble = Ensemble {
            features: 3,
            outputs: 2,
            vector_leaves: false,
            input: Precision::Double,
            sum: Precision::Double,
            base: vec![7.0, 1.0],
            trees: vec![tree; 40],
        };
        let forest = Forest::new(&ensemble).unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        for rows in [0, 1, 5, 300, 1000, 13_001] {
            let values = (0..rows * 3).map(|n| (n * 7919 % 100) as f64 / 100.0).collect();
            let x = Matrix::f64(rows, 3, values);
            let (mut alone, mut alone_leaves) = (vec![0.0; rows * 2], vec![0; rows * 40]);
            forest.sums(part(&x, 0, rows), Sums::F64(&mut alone));
            forest.leaves(part(&x, 0, rows), &mut alone_leaves);
            pool.install(|| {
                assert_eq!(sums(&forest, &x), Numbers::F64(alone));
                assert_eq!(leaves(&forest, &x), alone_leaves);
            });
        }
    }
}
