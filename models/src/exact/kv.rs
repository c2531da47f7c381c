//! Keys and values of past positions, in blocks of 32 positions.
//!
//! A [`KvPool`] owns the memory; a [`KvCache`] is one sequence's list of
//! blocks. Blocks are counted by `Arc`: forks and prefix caches share them,
//! and a shared block is copied before it is written, so that a sequence only
//! ever sees its own positions. Values are f16 (spec 5.4); a block's keys lie
//! `[dimension][position]` and its values `[position][dimension]`, per layer
//! and head, which is how attention walks them.

use std::cell::UnsafeCell;
use std::sync::{Arc, Mutex, PoisonError};

use super::memory::Memory;

/// Positions in a block.
pub const POSITIONS: usize = 32;

/// What a pool's blocks hold for each position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    /// Layers of the model.
    pub layers: usize,
    /// Key and value heads of a layer.
    pub heads: usize,
    /// Length of a key, and of a value.
    pub head_dim: usize,
}

impl KvShape {
    /// Memory that one block takes.
    pub fn block_bytes(&self) -> usize {
        2 * self.block_len()
    }

    fn head_len(&self) -> usize {
        2 * POSITIONS * self.head_dim
    }

    fn block_len(&self) -> usize {
        self.layers * self.heads * self.head_len()
    }
}

/// No block is free: preempt a sequence, or evict a cached prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} KV blocks wanted, {free} free")]
pub struct OutOfBlocks {
    /// Blocks that the step needs.
    pub wanted: usize,
    /// Blocks that there are.
    pub free: usize,
}

/// A fixed number of blocks.
#[derive(Clone)]
pub struct KvPool(Arc<Inner>);

struct Inner {
    shape: KvShape,
    total: usize,
    /// Keeps what `start` points to; only reached through `start`.
    _memory: UnsafeCell<Memory>,
    start: *mut u16,
    free: Mutex<Vec<u32>>,
}

// SAFETY: `start` points into `_memory`. It is written only at positions of a
// block that one cache holds alone (`KvCache::reserve`), by the forward pass
// that borrows that cache mutably, and read only after.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

/// One block, returned to its pool when the last holder drops it.
pub struct KvBlock {
    pool: Arc<Inner>,
    index: u32,
}

impl Drop for KvBlock {
    fn drop(&mut self) {
        let mut free = self
            .pool
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        free.push(self.index);
    }
}

impl KvPool {
    /// A pool of `blocks` blocks. Memory is taken as blocks are first used.
    pub fn new(shape: KvShape, blocks: usize) -> std::io::Result<Self> {
        let mut memory = Memory::zeroed(blocks * shape.block_bytes())?;
        let start = memory.bytes_mut().as_mut_ptr().cast();
        let last = u32::try_from(blocks).map_err(std::io::Error::other)?;
        Ok(Self(Arc::new(Inner {
            shape,
            total: blocks,
            _memory: UnsafeCell::new(memory),
            start,
            free: Mutex::new((0..last).rev().collect()),
        })))
    }

    /// What the blocks hold.
    pub fn shape(&self) -> KvShape {
        self.0.shape
    }

    /// All blocks, free or not.
    pub fn blocks(&self) -> usize {
        self.0.total
    }

    /// Free blocks.
    pub fn free(&self) -> usize {
        self.lock().len()
    }

    /// An empty cache.
    pub fn new_cache(&self) -> KvCache {
        self.cache_from(Vec::new())
    }

    /// A cache that begins with positions computed before: whole blocks, all
    /// of them filled, for the same tokens.
    pub fn cache_from(&self, prefix: Vec<Arc<KvBlock>>) -> KvCache {
        assert!(prefix.iter().all(|block| Arc::ptr_eq(&block.pool, &self.0)));
        KvCache {
            pool: self.clone(),
            len: prefix.len() * POSITIONS,
            blocks: prefix,
        }
    }

    fn take(&self) -> Option<Arc<KvBlock>> {
        let index = self.lock().pop()?;
        Some(Arc::new(KvBlock {
            pool: Arc::clone(&self.0),
            index,
        }))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u32>> {
        self.0.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One sequence's keys and values.
pub struct KvCache {
    pool: KvPool,
    blocks: Vec<Arc<KvBlock>>,
    len: usize,
}

impl KvCache {
    /// Positions held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is held yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A second cache with the same positions. Blocks are shared until one of
    /// the two writes to them.
    pub fn fork(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            blocks: self.blocks.clone(),
            len: self.len,
        }
    }

    /// The blocks in order of position; all but the last are full.
    pub fn blocks(&self) -> &[Arc<KvBlock>] {
        &self.blocks
    }

    /// Forgets the positions from `len` on.
    pub fn truncate(&mut self, len: usize) {
        if len < self.len {
            self.len = len;
            self.blocks.truncate(len.div_ceil(POSITIONS));
        }
    }

    /// Free blocks that appending `tokens` positions takes.
    pub fn blocks_wanted(&self, tokens: usize) -> usize {
        if tokens == 0 {
            return 0;
        }
        let shared =
            self.last_is_partial() && self.blocks.last().is_some_and(|b| Arc::strong_count(b) > 1);
        let blocks = (self.len + tokens).div_ceil(POSITIONS);
        blocks.saturating_sub(self.blocks.len()) + usize::from(shared)
    }

    /// Makes sure that the next `tokens` positions can be written: there are
    /// blocks for them, and nobody else holds those.
    pub(super) fn reserve(&mut self, tokens: usize) -> Result<(), OutOfBlocks> {
        let wanted = self.blocks_wanted(tokens);
        let out = |pool: &KvPool| OutOfBlocks {
            wanted,
            free: pool.free(),
        };
        self.blocks.truncate(self.len.div_ceil(POSITIONS));
        if tokens > 0
            && self.last_is_partial()
            && let Some(last) = self.blocks.last_mut()
            && Arc::get_mut(last).is_none()
        {
            let copy = self.pool.take().ok_or_else(|| out(&self.pool))?;
            let len = self.pool.shape().block_len();
            let start = self.pool.0.start;
            // SAFETY: both blocks lie inside the pool and differ; `copy` is
            // new, so nobody reads it, and a shared block isn't written.
            unsafe {
                let from = start.add(last.index as usize * len);
                let to = start.add(copy.index as usize * len);
                std::ptr::copy_nonoverlapping(from, to, len);
            }
            *last = copy;
        }
        while self.blocks.len() * POSITIONS < self.len + tokens {
            let block = self.pool.take().ok_or_else(|| out(&self.pool))?;
            self.blocks.push(block);
        }
        Ok(())
    }

    /// Counts `tokens` reserved positions as held: they were written.
    pub(super) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
        debug_assert!(self.len <= self.blocks.len() * POSITIONS);
    }

    fn last_is_partial(&self) -> bool {
        !self.len.is_multiple_of(POSITIONS)
    }

    pub(super) fn table(&mut self) -> KvTable<'_> {
        KvTable {
            start: self.pool.0.start,
            shape: self.pool.shape(),
            blocks: &self.blocks,
        }
    }
}

/// A cache's blocks while a forward pass works on them.
pub(super) struct KvTable<'a> {
    start: *mut u16,
    shape: KvShape,
    blocks: &'a [Arc<KvBlock>],
}

// SAFETY: see `Inner`; which positions may be written and read is the promise
// of the unsafe methods' callers.
unsafe impl Send for KvTable<'_> {}
// SAFETY: as above.
unsafe impl Sync for KvTable<'_> {}

impl KvTable<'_> {
    fn head(&self, block: usize, layer: usize, head: usize) -> *mut u16 {
        let KvShape { layers, heads, .. } = self.shape;
        assert!(layer < layers && head < heads);
        let index = self.blocks[block].index as usize;
        let at = (index * layers + layer) * heads + head;
        // SAFETY: inside the pool, since the block index is.
        unsafe { self.start.add(at * self.shape.head_len()) }
    }

    /// Keys of one block: `[dimension][position]`.
    ///
    /// # Safety
    /// Nobody writes to this layer and head of the block while the slice lives.
    pub unsafe fn keys(&self, block: usize, layer: usize, head: usize) -> &[u16] {
        // SAFETY: a head's first half; unaliased by the contract.
        unsafe {
            let start = self.head(block, layer, head);
            std::slice::from_raw_parts(start, self.shape.head_len() / 2)
        }
    }

    /// Values of one block: `[position][dimension]`.
    ///
    /// # Safety
    /// Nobody writes to this layer and head of the block while the slice lives.
    pub unsafe fn values(&self, block: usize, layer: usize, head: usize) -> &[u16] {
        // SAFETY: a head's second half; unaliased by the contract.
        unsafe {
            let half = self.shape.head_len() / 2;
            std::slice::from_raw_parts(self.head(block, layer, head).add(half), half)
        }
    }

    /// Writes the key and the value of one position.
    ///
    /// # Safety
    /// The position was reserved by this pass, nobody reads this layer and
    /// head of its block meanwhile, and nobody else writes this position.
    pub unsafe fn write(
        &self,
        position: usize,
        layer: usize,
        head: usize,
        key: impl Iterator<Item = u16>,
        value: impl Iterator<Item = u16>,
    ) {
        let column = position % POSITIONS;
        let dim = self.shape.head_dim;
        let start = self.head(position / POSITIONS, layer, head);
        for (i, key) in key.take(dim).enumerate() {
            // SAFETY: i < head_dim and column < POSITIONS: in the keys.
            unsafe { *start.add(i * POSITIONS + column) = key }
        }
        for (i, value) in value.take(dim).enumerate() {
            // SAFETY: as above, in the values.
            unsafe { *start.add((POSITIONS + column) * dim + i) = value }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(blocks: usize) -> KvPool {
        let shape = KvShape {
            layers: 2,
            heads: 1,
            head_dim: 8,
        };
        KvPool::new(shape, blocks).unwrap()
    }

    fn append(cache: &mut KvCache, values: &[u16]) -> Result<(), OutOfBlocks> {
        cache.reserve(values.len())?;
        let first = cache.len();
        for (i, value) in values.iter().enumerate() {
            let all = || std::iter::repeat(*value);
            // SAFETY: reserved, and this thread is the only one.
            unsafe { cache.table().write(first + i, 1, 0, all(), all()) };
        }
        cache.advance(values.len());
        Ok(())
    }

    fn read(cache: &mut KvCache) -> Vec<u16> {
        let len = cache.len();
        let table = cache.table();
        let value = |i: usize| {
            // SAFETY: nobody writes.
            let block = unsafe { table.values(i / POSITIONS, 1, 0) };
            block[i % POSITIONS * 8 + 7]
        };
        (0..len).map(value).collect()
    }

    #[test]
    fn forks_share_until_they_differ() {
        let pool = pool(8);
        let mut a = pool.new_cache();
        append(&mut a, &[7; 40]).unwrap();
        assert_eq!(pool.free(), 6);
        let mut b = a.fork();
        assert_eq!(pool.free(), 6);
        append(&mut b, &[8; 3]).unwrap();
        assert_eq!(pool.free(), 5, "only the partial block is copied");
        append(&mut a, &[9; 2]).unwrap();
        assert_eq!(
            pool.free(),
            5,
            "the first cache is alone with its block again"
        );
        assert_eq!(read(&mut a)[39..], [7, 9, 9]);
        assert_eq!(read(&mut b)[39..], [7, 8, 8, 8]);
        drop((a, b));
        assert_eq!(pool.free(), 8);
    }

    #[test]
    fn a_full_pool_says_so_and_recovers() {
        let pool = pool(2);
        let mut a = pool.new_cache();
        append(&mut a, &[1; 33]).unwrap();
        let mut b = pool.new_cache();
        let error = append(&mut b, &[2; 1]).unwrap_err();
        assert_eq!((error.wanted, error.free), (1, 0));
        a.truncate(32);
        append(&mut b, &[2; 1]).unwrap();
        assert_eq!(read(&mut b), [2]);
    }

    #[test]
    fn prefixes_are_reused_whole_blocks() {
        let pool = pool(4);
        let mut a = pool.new_cache();
        append(&mut a, &[3; 70]).unwrap();
        let mut b = pool.cache_from(a.blocks()[..2].to_vec());
        append(&mut b, &[4]).unwrap();
        assert_eq!(pool.free(), 0);
        assert_eq!(read(&mut b)[62..], [3, 3, 4]);
        assert_eq!(b.len(), 65);
    }
}
