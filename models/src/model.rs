//! A model ready to serve: weights, tokenizer, template and config from one file.
//!
//! Start at [`Model::load`].

use std::path::Path;

use protocol::manifest::Manifest;
use protocol::receipt::Numerics;

use crate::gguf::GgufError;
use crate::kv::KvCache;
use crate::llama::{Chunk, ForwardError, Logits};
use crate::template::ChatTemplate;
use crate::tokenizer::{Tokenizer, TokenizerError};

/// The numerics profile of this forward pass.
pub const PROFILE: &str = "candle-cpu/1";

/// A loaded model. Shared by reference; [`Model::forward`] changes only the caches.
#[derive(Debug)]
pub struct Model {}

/// What a caller needs to know about a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelConfig {
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// The longest prompt and output together.
    pub context_tokens: u32,
    /// The tokens that end an answer.
    pub eos: Vec<u32>,
    /// Memory that one cached token takes.
    pub kv_bytes_per_token: usize,
}

/// Why a model can't be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The weight file.
    #[error("the weight file can't be used")]
    Gguf(#[source] GgufError),
    /// The tokenizer in it.
    #[error("the tokenizer can't be built")]
    Tokenizer(#[source] TokenizerError),
    /// The chat template in it.
    #[error("the chat template can't be compiled: {0}")]
    Template(String),
    /// The manifest names an architecture that isn't here, or another than the file.
    #[error("the architecture `{0}` isn't supported")]
    Architecture(String),
    /// The manifest doesn't allow this profile.
    #[error("the manifest doesn't allow the numerics profile {PROFILE}")]
    Profile,
    /// The tensors.
    #[error("reading the weights")]
    Weights(#[source] candle_core::Error),
}

impl Model {
    /// Reads a weight file, which must be the manifest's to the byte.
    pub fn load(path: &Path, manifest: &Manifest) -> Result<Model, LoadError> {
        let _ = (path, manifest);
        todo!()
    }

    /// What a caller needs to know.
    pub fn config(&self) -> &ModelConfig {
        todo!()
    }

    /// The arithmetic, as receipts state it.
    pub fn numerics(&self) -> Numerics {
        todo!()
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        todo!()
    }

    /// The chat template.
    pub fn template(&self) -> &ChatTemplate {
        todo!()
    }

    /// An empty cache for a new sequence.
    pub fn new_cache(&self) -> KvCache {
        todo!()
    }

    /// One step of the engine: reads every chunk's tokens, any mix of prompts and single
    /// tokens, and returns the logits asked for, chunk by chunk.
    ///
    /// On an error no cache has changed; the error says which chunk is to blame, if one is.
    pub fn forward(&self, work: &mut [Chunk<'_>]) -> Result<Vec<Logits>, ForwardError> {
        let _ = work;
        todo!()
    }
}
