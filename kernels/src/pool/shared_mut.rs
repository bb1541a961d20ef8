//! A slice whose disjoint places several threads write.

use std::marker::PhantomData;
use std::ops::Range;

/// A mutable slice that the parts of one job write at disjoint places.
///
/// ```
/// use tokenmill_kernels::pool::{SharedMut, ThreadPool};
/// let (pool, mut squares) = (ThreadPool::new(2), vec![0; 8]);
/// let shared = SharedMut::new(&mut squares);
/// pool.run(8, &|part| {
///     // SAFETY: each part takes its own element.
///     let place = unsafe { shared.slice(part..part + 1) };
///     place[0] = part * part;
/// });
/// assert_eq!(squares[7], 49);
/// ```
#[derive(Debug)]
pub struct SharedMut<'a, T> {
    data: *mut T,
    len: usize,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: `SharedMut` gives out `&mut T` on other threads, which is sending `T`; that the places
// are disjoint is the promise of each caller of `slice`.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}
// SAFETY: as `Sync`: it is a `&mut [T]` in parts.
unsafe impl<T: Send> Send for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    /// Borrows `data` for as long as the parts write to it.
    pub fn new(data: &'a mut [T]) -> SharedMut<'a, T> {
        SharedMut { data: data.as_mut_ptr(), len: data.len(), owner: PhantomData }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there is no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements of `range`, writable.
    ///
    /// # Panics
    /// When `range` does not lie within the slice.
    ///
    /// # Safety
    /// While the result lives, no other call may have returned a slice that overlaps `range`.
    #[expect(clippy::mut_from_ref, reason = "disjointness is the caller's promise, see Safety")]
    pub unsafe fn slice(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        // SAFETY: `range` lies within the slice that was borrowed mutably for `'a`, so the offset
        // stays inside it.
        let start = unsafe { self.data.add(range.start) };
        // SAFETY: as above, and the caller promises that nothing else refers to these elements.
        unsafe { std::slice::from_raw_parts_mut(start, range.end - range.start) }
    }
}
