//! Prompt blocks that were computed, for those that begin alike.
//!
//! A block is named by the hash of all tokens up to its end, so equal names
//! are equal keys and values.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use models::KvBlock;
use models::exact::POSITIONS;
use protocol::Digest;
use protocol::digest::Hasher;

/// Names the tokens up to the end of a block.
pub type Key = Digest;

/// The keys of the whole blocks of `tokens`.
pub fn keys(tokens: &[u32]) -> Vec<Key> {
    let mut last = Digest::of(b"");
    let (blocks, _) = tokens.as_chunks::<POSITIONS>();
    blocks
        .iter()
        .map(|block| {
            let mut hash = Hasher::new();
            hash.update(last.as_bytes());
            block.iter().for_each(|token| hash.update_token(*token));
            last = hash.finish();
            last
        })
        .collect()
}

/// What is kept. Memory is the pool's, which [`Prefixes::forget_one`] gives back to.
#[derive(Default)]
pub struct Prefixes {
    blocks: HashMap<Key, Arc<KvBlock>>,
    /// Oldest first.
    order: VecDeque<Key>,
}

impl Prefixes {
    /// The blocks of as many of `keys` as are kept without a gap.
    pub fn longest(&self, keys: &[Key]) -> Vec<Arc<KvBlock>> {
        keys.iter()
            .map_while(|key| self.blocks.get(key).cloned())
            .collect()
    }

    /// Keeps a sequence's first blocks.
    pub fn keep(&mut self, keys: &[Key], blocks: &[Arc<KvBlock>]) {
        for (key, block) in keys.iter().zip(blocks) {
            if !self.blocks.contains_key(key) {
                self.blocks.insert(*key, Arc::clone(block));
                self.order.push_back(*key);
            }
        }
    }

    /// Drops the oldest; false if nothing was kept.
    pub fn forget_one(&mut self) -> bool {
        let oldest = self.order.pop_front();
        oldest.is_some_and(|key| self.blocks.remove(&key).is_some())
    }

    /// Drops all; false if nothing was kept.
    pub fn clear(&mut self) -> bool {
        self.order.clear();
        let kept = !self.blocks.is_empty();
        self.blocks.clear();
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_everything_before_it() {
        let one: Vec<u32> = (0..100).collect();
        let mut other = one.clone();
        other[40] = 7;
        let (one, other) = (keys(&one), keys(&other));
        assert_eq!(one.len(), 3);
        assert_eq!(one[0], other[0]);
        assert!(one[1] != other[1] && one[2] != other[2]);
    }
}
