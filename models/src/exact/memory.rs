//! Zeroed anonymous memory for weights and KV blocks, and floats that begin
//! where a cache line does.
//!
//! Mapped, not heap-allocated: untouched pages cost nothing, and the kernel
//! is asked for huge pages, which a stream of weights reads faster.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use memmap2::MmapMut;

/// Memory on its way to being filled.
pub struct Memory(MmapMut);

impl Memory {
    /// `bytes` zeroes, page-aligned.
    pub fn zeroed(bytes: usize) -> io::Result<Self> {
        let map = MmapMut::map_anon(bytes.max(1))?;
        #[cfg(target_os = "linux")]
        if let Err(error) = map.advise(memmap2::Advice::HugePage) {
            // Only speed depends on it; kernels without huge pages refuse.
            tracing::debug!(%error, "no huge pages");
        }
        Ok(Self(map))
    }

    /// All of it.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// Ends the filling; from here on it is shared and only read.
    pub fn freeze(self) -> Frozen {
        Frozen(Arc::new(self.0))
    }
}

/// Memory that nobody writes any more.
#[derive(Clone)]
pub struct Frozen(Arc<MmapMut>);

impl Frozen {
    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Floats that workers write a cache line at a time. On a boundary, a line is
/// one store, and never another worker's too.
pub struct Floats {
    lines: Vec<Line>,
    len: usize,
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

impl Floats {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        let lines = vec![Line([0.0; 16]); len.div_ceil(16)];
        Self { lines, len }
    }
}

impl Deref for Floats {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: lines are sixteen floats each, without gaps, and there are enough.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for Floats {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above; borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}
