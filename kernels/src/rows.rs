//! Strided views of activations, and the split of rows over a pool.
//!
//! A step's activations are `[rows, width]`, row-major. Kernels often read or rewrite some columns of each row (the
//! keys of a packed `[q | k | v]` row), so the views carry a row stride and a range of columns. Work over rows is cut
//! into contiguous ranges; rows never share a sum, so the cut cannot change a result.

use std::ops::Range;

use crate::pool::{SharedMut, ThreadPool};

/// Work below this many element operations runs on the calling thread: a fork and join costs about 2 microseconds,
/// in which one core does some 20 000 element operations.
const PARALLEL_ELEMENTS: usize = 32 * 1024;

/// Columns of each row of a row-major matrix.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    data: &'a [f32],
    stride: usize,
    start: usize,
    width: usize,
    len: usize,
}

impl<'a> Rows<'a> {
    /// The `columns` of every row of `data`, whose rows are `stride` values long.
    ///
    /// # Panics
    /// When `data` is not whole rows or `columns` reaches past a row.
    pub fn new(data: &'a [f32], stride: usize, columns: Range<usize>) -> Self {
        let len = count_rows(data.len(), stride, &columns);
        Self { data, stride, start: columns.start, width: columns.len(), len }
    }

    /// Every column: `data` is `[rows, width]`.
    ///
    /// # Panics
    /// When `data` is not whole rows.
    pub fn contiguous(data: &'a [f32], width: usize) -> Self {
        Self::new(data, width, 0..width)
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Values per row that the view shows.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The columns of one row.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row(&self, row: usize) -> &'a [f32] {
        &self.data[row * self.stride + self.start..][..self.width]
    }
}

/// The heads within some columns of each row of a row-major matrix, to be changed in place: `[rows, heads, head_dim]`.
#[derive(Debug)]
pub struct HeadsMut<'a> {
    data: &'a mut [f32],
    stride: usize,
    start: usize,
    heads: usize,
    head_dim: usize,
    rows: usize,
}

impl<'a> HeadsMut<'a> {
    /// The heads of `head_dim` values in the `columns` of every row of `data`, whose rows are `stride` values long.
    ///
    /// # Panics
    /// When `data` is not whole rows, or `columns` reaches past a row or is not whole heads.
    pub fn new(data: &'a mut [f32], stride: usize, columns: Range<usize>, head_dim: usize) -> Self {
        let rows = count_rows(data.len(), stride, &columns);
        assert!(head_dim > 0, "a head has at least one value");
        assert_eq!(columns.len() % head_dim, 0, "columns must be whole heads of {head_dim}");
        let heads = columns.len() / head_dim;
        Self { data, stride, start: columns.start, heads, head_dim, rows }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Heads per row.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Values per head.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Calls `body(row, head values)` for every head, rows split over the pool.
    pub(crate) fn for_each(self, pool: &ThreadPool, body: &(dyn Fn(usize, &mut [f32]) + Sync)) {
        let Self { data, stride, start, heads, head_dim, rows } = self;
        let data = SharedMut::new(data);
        split_rows(pool, rows, heads * head_dim, &|range| {
            for row in range {
                for head in 0..heads {
                    let first = row * stride + start + head * head_dim;
                    // SAFETY: heads do not overlap, and each row belongs to one part.
                    body(row, unsafe { data.slice(first..first + head_dim) });
                }
            }
        });
    }
}

/// Rows of `stride` values in `len` values, of which `columns` are looked at.
fn count_rows(len: usize, stride: usize, columns: &Range<usize>) -> usize {
    assert!(columns.start <= columns.end && columns.end <= stride, "columns end past the row");
    assert!(stride > 0, "a row has at least one value");
    assert_eq!(len % stride, 0, "the data must be whole rows of {stride}");
    len / stride
}

/// Cuts `rows` into contiguous ranges, one per thread when they are worth it, and runs `body` on each.
pub(crate) fn split_rows(
    pool: &ThreadPool,
    rows: usize,
    elements_per_row: usize,
    body: &(dyn Fn(Range<usize>) + Sync),
) {
    pool.for_each_range(rows, PARALLEL_ELEMENTS.div_ceil(elements_per_row.max(1)), body);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_shows_its_columns() {
        let data: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let rows = Rows::new(&data, 4, 1..3);
        assert_eq!((rows.len(), rows.width()), (3, 2));
        assert_eq!(rows.row(2), [9.0, 10.0]);
    }

    #[test]
    #[should_panic(expected = "whole rows of 5")]
    fn a_partial_row_is_refused() {
        Rows::contiguous(&[0.0; 12], 5);
    }

    #[test]
    #[should_panic(expected = "whole heads of 2")]
    fn a_partial_head_is_refused() {
        HeadsMut::new(&mut [0.0; 12], 4, 0..3, 2);
    }

    #[test]
    fn every_head_is_visited_once_on_any_number_of_threads() {
        for threads in [1, 2, 3] {
            let pool = ThreadPool::new(threads);
            let mut data = vec![0.0; 4096 * 24];
            HeadsMut::new(&mut data, 24, 8..24, 8).for_each(&pool, &|row, head| {
                head.iter_mut().for_each(|v| *v += row as f32 + 1.0);
            });
            for (row, values) in data.chunks(24).enumerate() {
                assert!(values[..8].iter().all(|&v| v == 0.0));
                assert!(values[8..].iter().all(|&v| v == row as f32 + 1.0));
            }
        }
    }
}
