//! Fetches weights from memory before they are needed.

use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};

use super::super::packed::Layout;

/// Fetches the packed bytes that come next, a part each time, while rows are
/// computed: unpacking alone would wait for memory.
pub struct Ahead {
    next: *const i8,
    lines: usize,
}

impl Ahead {
    /// What follows `tiles` tiles from `first` on, to be fetched in `parts` parts.
    pub fn of(group: &[u8], layout: &Layout, first: usize, tiles: usize, parts: usize) -> Self {
        let (start, end) = (layout.unit_at(first), layout.unit_at(first + tiles));
        Self {
            // After a group lies the next one, if any; a fetch of what isn't
            // there does nothing.
            next: group.as_ptr().wrapping_add(end).cast(),
            lines: (end - start).div_ceil(64).div_ceil(parts.max(1)),
        }
    }

    /// Fetches the next part.
    #[inline]
    pub fn fetch(&mut self) {
        for _ in 0..self.lines {
            // SAFETY: a hint, allowed for any address; SSE is everywhere.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(self.next) };
            self.next = self.next.wrapping_add(64);
        }
    }
}
