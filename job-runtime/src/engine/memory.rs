//! Which sequence holds which KV blocks, and which are kept for the next one.
//!
//! Gives a sequence its cache, with what is known of its beginning; keeps its
//! blocks as they fill; takes everything back. Start at [`Memory::attach`].

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::language_model::LanguageModel;
use crate::prefixes::{BlockKey, Prefixes};
use crate::scheduler::{Blocks, Prefix, SequenceId};

use super::sequence::Sequence;

/// All blocks of a model.
pub(super) struct Memory<M: LanguageModel> {
    model: Arc<M>,
    prefixes: Prefixes<M::Block>,
}

impl<M: LanguageModel> Memory<M> {
    pub(super) fn new(model: Arc<M>) -> Self {
        Self {
            model,
            prefixes: Prefixes::new(),
        }
    }

    /// Gives a sequence a cache, if it holds nothing; how many tokens are in it already.
    pub(super) fn attach(&mut self, sequence: &mut Sequence<M::Cache>) -> Option<usize> {
        if sequence.held() > 0 {
            return None;
        }
        let blocks = self.prefixes.take(sequence.prefix_keys(M::BLOCK_TOKENS));
        let found = blocks.len();
        sequence.kept = vec![true; found];
        sequence.begin(self.model.cache_from(blocks), found * M::BLOCK_TOKENS);
        Some(found * M::BLOCK_TOKENS)
    }

    /// Keeps the blocks that a sequence has filled since.
    pub(super) fn keep(&mut self, sequence: &mut Sequence<M::Cache>) {
        let full = sequence.held() / M::BLOCK_TOKENS;
        if full == sequence.kept.len() {
            return;
        }
        let keys = sequence.keys.of(&sequence.tokens[..sequence.held()]);
        let cache = sequence.cache.as_ref().map_or(&[][..], M::blocks);
        for at in sequence.kept.len()..full {
            let kept = match (keys.get(at), cache.get(at)) {
                (Some(key), Some(block)) => self.prefixes.keep(*key, block),
                _ => false,
            };
            sequence.kept.push(kept);
        }
    }

    /// The sequence's forks hold what it holds.
    pub(super) fn forked(&mut self, fork: &Sequence<M::Cache>) {
        for key in held(fork) {
            self.prefixes.hold(key);
        }
    }

    /// Takes a sequence's cache back; it may begin again from its tokens.
    pub(super) fn release(&mut self, sequence: &mut Sequence<M::Cache>) {
        self.prefixes.release(held(sequence));
        sequence.kept.clear();
        sequence.preempt();
    }

    /// Evicts until so many blocks are free; false if that can't be.
    pub(super) fn make_room(&mut self, wanted: usize) -> bool {
        while self.model.kv_free() < wanted {
            if !self.prefixes.evict() {
                return false;
            }
        }
        true
    }

    /// Share of the blocks that sequences hold.
    pub(super) fn usage(&self) -> f64 {
        let all = self.model.kv_blocks();
        (all - self.free()) as f64 / all as f64
    }

    fn free(&self) -> usize {
        self.model.kv_free() + self.prefixes.idle()
    }

    /// What the scheduler may ask.
    pub(super) fn view<'a>(
        &'a self,
        sequences: &'a BTreeMap<SequenceId, Sequence<M::Cache>>,
    ) -> View<'a, M> {
        View {
            memory: self,
            sequences,
        }
    }
}

fn held<C>(sequence: &Sequence<C>) -> impl DoubleEndedIterator<Item = &BlockKey> {
    let keys = sequence.keys.known().iter().zip(&sequence.kept);
    keys.filter(|(_, kept)| **kept).map(|(key, _)| key)
}

/// The blocks between two steps.
pub(super) struct View<'a, M: LanguageModel> {
    memory: &'a Memory<M>,
    sequences: &'a BTreeMap<SequenceId, Sequence<M::Cache>>,
}

impl<M: LanguageModel> Blocks for View<'_, M> {
    fn free(&self) -> u32 {
        count(self.memory.free())
    }

    fn own(&self, id: SequenceId) -> u32 {
        let sequence = &self.sequences[&id];
        let blocks = sequence.cache.as_ref().map_or(&[][..], M::blocks);
        let alone = |(at, block): &(usize, &Arc<M::Block>)| {
            let kept = sequence.kept.get(*at).is_some_and(|kept| *kept);
            Arc::strong_count(block) == 1 + usize::from(kept)
        };
        count(blocks.iter().enumerate().filter(alone).count())
    }

    fn prefix(&self, id: SequenceId) -> Prefix {
        let keys = self.sequences[&id].prefix_keys(M::BLOCK_TOKENS);
        let (blocks, idle) = self.memory.prefixes.find(keys);
        Prefix {
            blocks: count(blocks),
            idle: count(idle),
        }
    }
}

fn count(blocks: usize) -> u32 {
    u32::try_from(blocks).expect("block numbers fit a u32")
}
