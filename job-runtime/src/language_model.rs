//! What the engine needs of a model: the seam between when and what.
//!
//! One implementation serves: [`models::Model`]. The engine's own tests put a
//! model of a few lines here, whose every token is known.

use models::{Chunk, ForwardError, KvCache, Model, ModelConfig, Scored, Want};

/// A model as the engine drives it.
pub(crate) trait LanguageModel: Send + Sync + 'static {
    /// The attention state of one sequence.
    type Cache: Send;

    fn config(&self) -> &ModelConfig;
    fn new_cache(&self) -> Self::Cache;
    fn fork(&self, cache: &Self::Cache) -> Self::Cache;

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
    type Cache = KvCache;

    fn config(&self) -> &ModelConfig {
        self.config()
    }

    fn new_cache(&self) -> KvCache {
        self.new_cache()
    }

    fn fork(&self, cache: &KvCache) -> KvCache {
        cache.fork()
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
