//! Zeroed anonymous memory for weights and KV blocks.
//!
//! Mapped, not heap-allocated: untouched pages cost nothing, and the kernel
//! is asked for huge pages, which a stream of weights reads faster.

use std::io;
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
