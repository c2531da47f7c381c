//! The Llama forward pass on candle tensors.

use crate::kv::KvCache;

/// Which of a chunk's rows need logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// None: the chunk is an inner part of a prompt.
    No,
    /// The last one, to draw the next token.
    Last,
    /// All of them, to check a known text.
    All,
}

/// Tokens to append to one sequence in a step.
#[derive(Debug)]
pub struct Chunk<'a> {
    /// What the sequence has read so far; grows by `tokens`.
    pub cache: &'a mut KvCache,
    /// What it reads now; at least one.
    pub tokens: &'a [u32],
    /// The logits needed.
    pub logits: Want,
}

/// The logits of one chunk: a row for each token asked for, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Logits {
    values: Vec<f32>,
    vocab: usize,
}

/// Why a step failed. No cache has changed.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// A chunk without tokens.
    #[error("chunk {chunk} has no tokens")]
    Empty {
        /// Its index in the step.
        chunk: usize,
    },
    /// A token that isn't in the vocabulary.
    #[error("chunk {chunk} has the token {token}, which isn't in the vocabulary")]
    Token {
        /// Its index in the step.
        chunk: usize,
        /// The token.
        token: u32,
    },
    /// More tokens than the context holds.
    #[error("chunk {chunk} would make its sequence {tokens} tokens long, {max} is the most")]
    Context {
        /// Its index in the step.
        chunk: usize,
        /// The length that the sequence would have.
        tokens: usize,
        /// The longest that it may have.
        max: usize,
    },
    /// NaN or infinity.
    #[error("chunk {chunk} has logits that aren't finite numbers")]
    NotFinite {
        /// Its index in the step.
        chunk: usize,
    },
    /// The tensor library refused.
    #[error("computing")]
    Compute(#[source] candle_core::Error),
}

impl Logits {
    /// The rows.
    pub fn rows(&self) -> std::slice::ChunksExact<'_, f32> {
        self.values.chunks_exact(self.vocab)
    }

    /// The last row, if any was asked for.
    pub fn last(&self) -> Option<&[f32]> {
        self.rows().next_back()
    }
}
