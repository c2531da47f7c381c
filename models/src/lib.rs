//! Whatever decides a token: the whitelist of models, their weights, tokenizer
//! and chat template, the forward pass, the KV cache and the sampler.
//!
//! When tokens are computed is `job-runtime`'s business, and so are threads
//! and requests; nothing here waits, but for [`fetch`]. Runtime and verifier
//! share [`Model::forward`] and [`Sampler`], so they can't drift apart. Start
//! at [`Model`].

mod attention;
pub mod exact;
pub mod fetch;
mod gguf;
mod kv;
mod llama;
mod math;
mod model;
mod philox;
mod sampler;
mod template;
mod tokenizer;
mod whitelist;

pub use gguf::GgufError;
pub use kv::KvCache;
pub use llama::{Chunk, ForwardError, Logits, Want};
pub use model::{LoadError, Model, ModelConfig, PROFILE};
pub use sampler::{Drawn, Logprobs, SampleError, Sampler, log_softmax_top};
pub use template::{ChatTemplate, TemplateError};
pub use tokenizer::{Special, Tokenizer, TokenizerError};
pub use whitelist::Whitelist;
