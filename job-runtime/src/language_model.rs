//! What the engine needs of a model: the seam between when and what.
//!
//! One implementation serves: [`models::Model`]. The engine's own tests put a
//! model of a few lines here, whose every token is known.

use std::sync::Arc;

use models::{Chunk, ForwardError, KvBlock, KvCache, Model, ModelConfig, Scored, Want};

/// A model as the engine drives it.
pub(crate) trait LanguageModel: Send + Sync + 'static {
    /// Tokens that a block holds.
    const BLOCK_TOKENS: usize;
    /// A part of the attention state. Once full it is never written again.
    type Block: Send + Sync;
    /// The attention state of one sequence: a list of blocks.
    type Cache: Send;

    fn config(&self) -> &ModelConfig;

    /// All blocks, free or not.
    fn kv_blocks(&self) -> usize;
    /// Blocks that nobody holds.
    fn kv_free(&self) -> usize;
    /// A cache that begins with these full blocks.
    fn cache_from(&self, prefix: Vec<Arc<Self::Block>>) -> Self::Cache;
    fn fork(&self, cache: &Self::Cache) -> Self::Cache;
    /// A cache's blocks in order of position.
    fn blocks(cache: &Self::Cache) -> &[Arc<Self::Block>];
    /// Free blocks that reading so many more tokens takes.
    fn blocks_wanted(cache: &Self::Cache, tokens: usize) -> usize;

    /// The bytes that a token adds to an answer: none for a special one.
    fn text(&self, token: u32) -> &[u8];

    /// Reads every part's tokens, and shows the last row of each part that draws to
    /// `take`, several at a time. On an error no cache has changed, and what `take`
    /// saw counts for nothing.
    fn forward(
        &self,
        work: &mut [Part<'_, Self::Cache>],
        take: &(dyn Fn(Scored<'_>) + Sync),
    ) -> Result<(), ForwardError>;
}

/// One sequence's part of a step.
pub(crate) struct Part<'a, C> {
    pub cache: &'a mut C,
    pub tokens: &'a [u32],
    /// Whether the next token is to be drawn.
    pub draw: bool,
}

impl LanguageModel for Model {
    const BLOCK_TOKENS: usize = models::exact::POSITIONS;
    type Block = KvBlock;
    type Cache = KvCache;

    fn config(&self) -> &ModelConfig {
        self.config()
    }

    fn kv_blocks(&self) -> usize {
        self.pool().blocks()
    }

    fn kv_free(&self) -> usize {
        self.pool().free()
    }

    fn cache_from(&self, prefix: Vec<Arc<KvBlock>>) -> KvCache {
        self.pool().cache_from(prefix)
    }

    fn fork(&self, cache: &KvCache) -> KvCache {
        cache.fork()
    }

    fn blocks(cache: &KvCache) -> &[Arc<KvBlock>] {
        cache.blocks()
    }

    fn blocks_wanted(cache: &KvCache, tokens: usize) -> usize {
        cache.blocks_wanted(tokens)
    }

    fn text(&self, token: u32) -> &[u8] {
        let tokenizer = self.tokenizer();
        match tokenizer.is_special(token) {
            true => &[],
            false => tokenizer.piece(token).unwrap_or_default(),
        }
    }

    fn forward(
        &self,
        work: &mut [Part<'_, KvCache>],
        take: &(dyn Fn(Scored<'_>) + Sync),
    ) -> Result<(), ForwardError> {
        let mut chunks: Vec<_> = work
            .iter_mut()
            .map(|part| Chunk {
                cache: &mut *part.cache,
                tokens: part.tokens,
                logits: match part.draw {
                    true => Want::Last,
                    false => Want::No,
                },
            })
            .collect();
        self.forward_shared(&mut chunks, take)
    }
}
