//! A model ready to serve: weights, tokenizer, template and config from one file.
//!
//! Start at [`Model::load`].

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use protocol::manifest::Manifest;
use protocol::receipt::Numerics;

use crate::exact::{
    self, Chunk, ExactModel, ForwardError, KvCache, KvPool, Options, Output, Scored,
};
use crate::gguf::{Gguf, GgufError};
use crate::grammar::Vocabulary;
use crate::template::ChatTemplate;
use crate::tokenizer::{Tokenizer, TokenizerError};

/// A loaded model. Shared by reference; [`Model::forward`] changes only the caches.
pub struct Model {
    config: ModelConfig,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    exact: ExactModel,
    /// Made for the first request that has a grammar.
    vocabulary: OnceLock<Vocabulary>,
}

/// What a caller needs to know about a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelConfig {
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// The longest prompt and output together.
    pub context_tokens: u32,
    /// The token that a plain prompt begins with, if the model wants one. Chat templates write
    /// it themselves.
    pub bos: Option<u32>,
    /// The tokens that end an answer.
    pub eos: Vec<u32>,
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
    /// The weights, or what the metadata says of them.
    #[error("the weights can't be used")]
    Weights(#[source] exact::LoadError),
    /// The vocabularies of tokenizer and weights differ.
    #[error("the tokenizer has {tokenizer} tokens and the weights {weights}")]
    Vocabulary {
        /// Tokens that the tokenizer knows.
        tokenizer: usize,
        /// Rows of the embedding.
        weights: usize,
    },
    /// The manifest's context is longer than the model's.
    #[error("the manifest's context of {manifest} tokens is longer than the model's {model}")]
    Context {
        /// What the manifest says.
        manifest: u32,
        /// What the weight file says.
        model: usize,
    },
    /// The manifest doesn't allow this profile.
    #[error("the manifest doesn't allow the numerics profile {}", exact::PROFILE)]
    Profile,
}

impl Model {
    /// Reads a weight file, which must be the manifest's to the byte.
    pub fn load(path: &Path, manifest: &Manifest, options: &Options) -> Result<Model, LoadError> {
        let identity = &manifest.identity;
        if !manifest.numerics.iter().any(|p| p == exact::PROFILE) {
            return Err(LoadError::Profile);
        }
        let gguf = Gguf::open(path, identity).map_err(LoadError::Gguf)?;
        let architecture = gguf.text("general.architecture").map_err(LoadError::Gguf)?;
        if architecture != identity.architecture {
            return Err(LoadError::Architecture(architecture.to_owned()));
        }
        let tokenizer = Tokenizer::from_gguf(&gguf).map_err(LoadError::Tokenizer)?;
        let ends = Ends::from_gguf(&gguf, &tokenizer).map_err(LoadError::Gguf)?;
        let template = identity.chat_template.as_deref();
        let template = compile_template(template, &gguf, &tokenizer, &ends)?;
        let (content, bytes) = gguf.parts();
        let exact = ExactModel::from_gguf(content, bytes, options).map_err(LoadError::Weights)?;
        if exact.vocab() != tokenizer.vocab_size() {
            return Err(LoadError::Vocabulary {
                tokenizer: tokenizer.vocab_size(),
                weights: exact.vocab(),
            });
        }
        if identity.context_tokens as usize > exact.config().context_tokens {
            return Err(LoadError::Context {
                manifest: identity.context_tokens,
                model: exact.config().context_tokens,
            });
        }
        let config = ModelConfig {
            vocab: exact.vocab(),
            context_tokens: identity.context_tokens,
            bos: ends.bos.filter(|_| ends.add_bos),
            eos: ends.all,
        };
        Ok(Model {
            config,
            tokenizer,
            template,
            exact,
            vocabulary: OnceLock::new(),
        })
    }

    /// The tokens as grammars need them.
    pub(crate) fn vocabulary(&self) -> &Vocabulary {
        self.vocabulary
            .get_or_init(|| Vocabulary::new(&self.tokenizer, &self.config))
    }

    /// What a caller needs to know.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The arithmetic, as receipts state it.
    pub fn numerics(&self) -> Numerics {
        Numerics {
            profile: exact::PROFILE.to_owned(),
            device: "cpu".to_owned(),
            detail: BTreeMap::new(),
        }
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The chat template.
    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// Where the caches' blocks come from.
    pub fn pool(&self) -> &KvPool {
        self.exact.pool()
    }

    /// An empty cache for a new sequence.
    pub fn new_cache(&self) -> KvCache {
        self.exact.new_cache()
    }

    /// One step of the engine: reads every chunk's tokens, any mix of prompts and single
    /// tokens, and returns the rows asked for, chunk by chunk.
    ///
    /// On an error no cache has changed; the error says which chunk is to blame, if one is.
    pub fn forward(&self, work: &mut [Chunk<'_>]) -> Result<Vec<Output>, ForwardError> {
        self.exact.forward(work)
    }

    /// Like [`Model::forward`], and shows each row asked for to `take`, a chunk's in
    /// order of position, without keeping any.
    pub fn forward_each(
        &self,
        work: &mut [Chunk<'_>],
        take: &mut dyn FnMut(Scored<'_>),
    ) -> Result<(), ForwardError> {
        self.exact.forward_each(work, take)
    }

    /// Like [`Model::forward_each`], but `take` is called on all threads that compute, for
    /// several rows at a time, in any order: so sampling takes a share of every core.
    /// After an error it may have been called for some rows.
    pub fn forward_shared(
        &self,
        work: &mut [Chunk<'_>],
        take: &(dyn Fn(Scored<'_>) + Sync),
    ) -> Result<(), ForwardError> {
        self.exact.forward_shared(work, take)
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// The tokens that begin and end texts.
struct Ends {
    bos: Option<u32>,
    add_bos: bool,
    eos: Option<u32>,
    all: Vec<u32>,
}

/// Special tokens that end an answer in the chat formats there are, beside the
/// one that the file names.
const END_TEXTS: [&str; 6] = [
    "<|endoftext|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|end|>",
    "<end_of_turn>",
    "</s>",
];

impl Ends {
    fn from_gguf(gguf: &Gguf, tokenizer: &Tokenizer) -> Result<Ends, GgufError> {
        let id = |key: &str| -> Result<Option<u32>, GgufError> {
            let id = gguf.optional(key, Gguf::usize)?;
            let id = id.filter(|id| *id < tokenizer.vocab_size());
            Ok(id.map(|id| id as u32))
        };
        let eos = id("tokenizer.ggml.eos_token_id")?;
        let mut all = tokenizer.specials_named(&END_TEXTS);
        all.extend(eos);
        all.extend(id("tokenizer.ggml.eot_token_id")?);
        all.sort_unstable();
        all.dedup();
        let add_bos = gguf.optional("tokenizer.ggml.add_bos_token", Gguf::flag)?;
        Ok(Ends {
            bos: id("tokenizer.ggml.bos_token_id")?,
            add_bos: add_bos.unwrap_or(false),
            eos,
            all,
        })
    }
}

/// The manifest's template, or else the file's.
fn compile_template(
    template: Option<&str>,
    gguf: &Gguf,
    tokenizer: &Tokenizer,
    ends: &Ends,
) -> Result<ChatTemplate, LoadError> {
    let text = |id: Option<u32>| {
        let piece = id.and_then(|id| tokenizer.piece(id)).unwrap_or_default();
        String::from_utf8_lossy(piece).into_owned()
    };
    let source = match template {
        Some(template) => template,
        None => gguf
            .text("tokenizer.chat_template")
            .map_err(LoadError::Gguf)?,
    };
    ChatTemplate::compile(source, text(ends.bos), text(ends.eos))
        .map_err(|e| LoadError::Template(e.to_string()))
}
