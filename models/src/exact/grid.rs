//! A row-major matrix that several workers write at once.

use std::marker::PhantomData;
use std::ops::Range;

/// Rows of `columns` cells. Workers write disjoint parts through `&Grid`.
pub struct Grid<'a, T> {
    start: *mut T,
    len: usize,
    columns: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: only `part` hands out the memory, and its callers promise that parts
// in use at the same time don't overlap.
unsafe impl<T: Send> Sync for Grid<'_, T> {}

impl<'a, T> Grid<'a, T> {
    /// The rows in `cells`.
    pub fn new(cells: &'a mut [T], columns: usize) -> Self {
        Self {
            start: cells.as_mut_ptr(),
            len: cells.len(),
            columns,
            borrow: PhantomData,
        }
    }

    /// Columns `part` of a row.
    ///
    /// # Safety
    /// No other reference to any of these cells may be alive: workers must
    /// ask for disjoint parts.
    #[allow(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    #[inline]
    pub unsafe fn part(&self, row: usize, part: Range<usize>) -> &mut [T] {
        assert!(part.start <= part.end && part.end <= self.columns);
        assert!((row + 1) * self.columns <= self.len);
        // SAFETY: in bounds by the assertions; unaliased by the contract.
        unsafe {
            let start = self.start.add(row * self.columns + part.start);
            std::slice::from_raw_parts_mut(start, part.len())
        }
    }

    /// A whole row.
    ///
    /// # Safety
    /// As for [`Grid::part`].
    #[allow(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    pub unsafe fn row(&self, row: usize) -> &mut [T] {
        // SAFETY: the caller's promise.
        unsafe { self.part(row, 0..self.columns) }
    }
}
