//! Whatever decides a token: the whitelist of models, their weights, tokenizer
//! and chat template, the forward pass, the KV cache and the sampler.
//!
//! When tokens are computed is `job-runtime`'s business, and so are threads
//! and requests; nothing here waits, but for [`fetch`]. Runtime and verifier
//! share [`Model::forward`] and [`Sampler`], so they can't drift apart. Start
//! at [`Model`].

pub mod candle;
mod conversation;
mod decoder;
pub mod exact;
pub mod fetch;
mod gguf;
mod grammar;
mod math;
mod model;
pub mod output;
mod philox;
mod prompt;
mod sampler;
mod template;
mod token_mask;
mod tokenizer;
mod whitelist;

pub use exact::{
    Chunk, ForwardError, KvBlock, KvCache, KvPool, Level, Options, Output, Scored, Trace, Want,
};
pub use gguf::GgufError;
pub use grammar::{Grammar, GrammarError, GrammarRefused, GrammarState};
pub use model::{LoadError, Model, ModelConfig};
pub use sampler::{
    Drawn, Logprobs, Rule, SampleError, Sampler, Standing, Weighed, log_softmax_top,
};
pub use template::{ChatTemplate, TemplateError};
pub use token_mask::TokenMask;
pub use tokenizer::{Special, Tokenizer, TokenizerError};
pub use whitelist::Whitelist;
