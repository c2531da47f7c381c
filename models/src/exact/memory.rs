//! Zeroed anonymous memory for weights and KV blocks, and floats that begin
//! where a cache line does.
//!
//! Mapped, not heap-allocated: untouched pages cost nothing, and the kernel
//! is asked for huge pages, which a stream of weights reads faster.

use std::alloc::Layout;
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
/// one store, and never another worker's too; rows far apart share a huge page.
pub struct Floats {
    memory: Memory,
    len: usize,
}

impl Floats {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        let layout = Layout::array::<f32>(len).expect("a pass's rows fit the address space");
        let memory = Memory::zeroed(layout.size());
        let memory = memory.unwrap_or_else(|_| std::alloc::handle_alloc_error(layout));
        Self { memory, len }
    }
}

impl Deref for Floats {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: as many bytes, page-aligned; any bits are floats.
        unsafe { std::slice::from_raw_parts(self.memory.0.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for Floats {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above; borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.memory.0.as_mut_ptr().cast(), self.len) }
    }
}
