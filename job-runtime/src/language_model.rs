//! What the engine needs of a model: the seam between when and what.
//!
//! One implementation serves: [`models::Model`]. The engine's own tests put a
//! model of a few lines here, whose every token is known.

use models::{Chunk, ForwardError, KvCache, Model, ModelConfig, Output, Want};

/// A model as the engine drives it.
pub(crate) trait LanguageModel: Send + Sync + 'static {
    /// The attention state of one sequence.
    type Cache: Send;
    /// What a step computed for one sequence.
    type Logits;

    fn config(&self) -> &ModelConfig;
    fn new_cache(&self) -> Self::Cache;
    fn fork(&self, cache: &Self::Cache) -> Self::Cache;

    /// The bytes that a token adds to an answer: none for a special one.
    fn text(&self, token: u32) -> &[u8];

    /// Reads every part's tokens. On an error no cache has changed.
    fn forward(
        &self,
        work: &mut [Part<'_, Self::Cache>],
    ) -> Result<Vec<Self::Logits>, ForwardError>;

    /// The last row, where a part asked for it.
    fn last(logits: &Self::Logits) -> Option<&[f32]>;
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
    type Logits = Output;

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

    fn forward(&self, work: &mut [Part<'_, KvCache>]) -> Result<Vec<Output>, ForwardError> {
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
        self.forward(&mut chunks)
    }

    fn last(logits: &Output) -> Option<&[f32]> {
        logits.logits.last().map(Vec::as_slice)
    }
}
