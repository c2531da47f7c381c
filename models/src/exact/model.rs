//! The model: weights, a KV pool, a team of threads, and [`ExactModel::forward`].
//!
//! One call is one engine step: any mix of prefill chunks and single decodes.
//! Rows are taken in passes of at most [`PASS_ROWS`], each of which streams the
//! weights once for all of its rows; where passes begin changes no bit. What
//! a pass computes is in `pass`.

use std::io::Cursor;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use candle_core::quantized::gguf_file::Content;

use super::architecture::Config;
use super::kv::{KvCache, KvPool, KvShape, OutOfBlocks};
use super::level::Level;
use super::packed::Packed;
use super::pass::{Row, Take, Workspace};
use super::team::Team;
use super::weights::{self, LoadError, Weights};

/// Which of a chunk's rows the caller wants to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// None: the chunk is an inner part of a prompt.
    No,
    /// The last one, to draw the next token.
    Last,
    /// All of them, to check a known text.
    All,
}

/// Rows that share one stream of the weights.
pub const PASS_ROWS: usize = 256;

/// How to run a model. Nothing here changes a bit of its answers.
#[derive(Debug, Clone)]
pub struct Options {
    /// Threads that compute.
    pub threads: NonZeroUsize,
    /// Kernels; one of [`Level::available`].
    pub level: Level,
    /// Positions that all sequences together can hold.
    pub kv_tokens: usize,
}

/// A model of profile `exact/1`.
pub struct ExactModel {
    pub(super) config: Config,
    pub(super) weights: Weights,
    pool: KvPool,
    bench: Mutex<Bench>,
}

/// What one forward pass uses at a time.
struct Bench {
    team: Team,
    workspace: Workspace,
}

/// How much there is to read and to multiply, for benchmarks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Weights of the layers: each is multiplied once for every row.
    pub layer_weights: usize,
    /// Weights of the output head: for every row whose logits are wanted.
    pub head_weights: usize,
    /// Bytes of both as they lie in memory: what a step of one row reads.
    pub bytes: usize,
}

/// Some tokens to append to one sequence.
pub struct Chunk<'a> {
    /// The sequence's past; the chunk's positions are added to it.
    pub cache: &'a mut KvCache,
    /// The tokens.
    pub tokens: &'a [u32],
    /// Which rows' hidden states and logits are wanted.
    pub logits: Want,
}

/// One row of a step, while it is in the engine's memory.
#[derive(Debug, Clone, Copy)]
pub struct Scored<'a> {
    /// Index of its chunk.
    pub chunk: usize,
    /// Position in its sequence.
    pub position: usize,
    /// Final hidden state, after the last norm.
    pub hidden: &'a [f32],
    /// Logits.
    pub logits: &'a [f32],
}

/// What a chunk gave: a row for each token that was wanted.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Output {
    /// Final hidden states after the last norm, row after row.
    pub hidden: Vec<Vec<f32>>,
    /// Logits, row after row.
    pub logits: Vec<Vec<f32>>,
}

/// Why a step can't be computed. Nothing was appended to any cache.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// No room for the step's positions.
    #[error("no room for the step's keys and values")]
    OutOfBlocks(#[source] OutOfBlocks),
    /// A token isn't in the vocabulary.
    #[error("chunk {chunk} has token {token}, outside the vocabulary")]
    Token {
        /// Index of the chunk.
        chunk: usize,
        /// The token.
        token: u32,
    },
    /// A sequence would be longer than the model's context.
    #[error("chunk {chunk} ends at position {end}, past the context of {context}")]
    TooLong {
        /// Index of the chunk.
        chunk: usize,
        /// Positions with the chunk.
        end: usize,
        /// Positions that the model was made for.
        context: usize,
    },
    /// A chunk has no tokens.
    #[error("chunk {chunk} is empty")]
    Empty {
        /// Index of the chunk.
        chunk: usize,
    },
    /// A number left the range of floats (spec 2.4): the sequence can't go
    /// on. Others in the step aren't affected; run them again without it.
    #[error("chunk {chunk} isn't finite at position {position}")]
    NotFinite {
        /// Index of the chunk.
        chunk: usize,
        /// The first position at fault.
        position: usize,
    },
}

impl ExactModel {
    /// Loads a GGUF file and repacks its weights.
    pub fn load(path: &Path, options: &Options) -> Result<Self, LoadError> {
        let bytes = std::fs::read(path).map_err(LoadError::Io)?;
        let content = Content::read(&mut Cursor::new(&bytes)).map_err(LoadError::Header)?;
        Self::from_gguf(&content, &bytes, options)
    }

    /// Repacks the weights of a GGUF file in memory, whose header is `content`.
    pub fn from_gguf(
        content: &Content,
        bytes: &[u8],
        options: &Options,
    ) -> Result<Self, LoadError> {
        assert!(
            Level::available().contains(&options.level),
            "this CPU doesn't have {:?}",
            options.level
        );
        let (config, weights) = weights::load(content, bytes, options.threads)?;
        let shape = KvShape {
            layers: config.layers.len(),
            heads: config.kv_heads,
            head_dim: config.head_dim,
        };
        let blocks = options.kv_tokens.div_ceil(super::kv::POSITIONS);
        let pool = KvPool::new(shape, blocks).map_err(LoadError::Io)?;
        let team = Team::new(options.threads).map_err(LoadError::Io)?;
        let vocab = weights.head().outputs();
        let workspace = Workspace::new(&config, vocab, options.level, team.threads());
        Ok(Self {
            config,
            weights,
            pool,
            bench: Mutex::new(Bench { team, workspace }),
        })
    }

    /// Sizes and choices of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Tokens in the vocabulary.
    pub fn vocab(&self) -> usize {
        self.weights.head().outputs()
    }

    /// How much a row reads and multiplies.
    pub fn size(&self) -> Size {
        let weights = |matrix: &Packed| matrix.outputs() * matrix.inputs();
        let unused = self.weights.head.as_ref().map(|_| &self.weights.embedding);
        let streamed = |count: &dyn Fn(&Packed) -> usize| {
            let all: usize = self.weights.matrices().map(count).sum();
            all - unused.map_or(0, count)
        };
        let head_weights = weights(self.weights.head());
        Size {
            layer_weights: streamed(&weights) - head_weights,
            head_weights,
            bytes: streamed(&Packed::bytes),
        }
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        let bench = self.bench.lock().unwrap_or_else(PoisonError::into_inner);
        bench.team.threads()
    }

    /// Where its caches' blocks come from.
    pub fn pool(&self) -> &KvPool {
        &self.pool
    }

    /// A cache for a new sequence.
    pub fn new_cache(&self) -> KvCache {
        self.pool.new_cache()
    }

    /// Computes one step and collects what is wanted, chunk by chunk.
    pub fn forward(&self, work: &mut [Chunk]) -> Result<Vec<Output>, ForwardError> {
        let mut outputs = vec![Output::default(); work.len()];
        self.forward_each(work, &mut |row| {
            outputs[row.chunk].hidden.push(row.hidden.to_vec());
            outputs[row.chunk].logits.push(row.logits.to_vec());
        })?;
        Ok(outputs)
    }

    /// Computes one step and shows each wanted row to `take`, positions of a
    /// chunk in order, without keeping any.
    pub fn forward_each(
        &self,
        work: &mut [Chunk],
        take: &mut dyn FnMut(Scored),
    ) -> Result<(), ForwardError> {
        self.step(work, Take::InOrder(take))
    }

    /// Like [`ExactModel::forward_each`], but `take` is called on all threads of the
    /// team, for several rows at a time, in any order: for work on each row that
    /// is worth sharing. After an error it may have been called for some rows.
    pub fn forward_shared(
        &self,
        work: &mut [Chunk],
        take: &(dyn Fn(Scored) + Sync),
    ) -> Result<(), ForwardError> {
        self.step(work, Take::Anywhere(take))
    }

    fn step(&self, work: &mut [Chunk], mut take: Take) -> Result<(), ForwardError> {
        self.check(work)?;
        let mut bench = self.bench.lock().unwrap_or_else(PoisonError::into_inner);
        let Bench { team, workspace } = &mut *bench;
        let rows: Vec<Row> = rows(work).collect();
        let tables: Vec<_> = work.iter_mut().map(|chunk| chunk.cache.table()).collect();
        for rows in rows.chunks(PASS_ROWS) {
            workspace
                .run(self, team, rows, &tables, &mut take)
                .map_err(|row| ForwardError::NotFinite {
                    chunk: row.chunk,
                    position: row.position,
                })?;
        }
        drop(tables);
        for chunk in work {
            chunk.cache.advance(chunk.tokens.len());
        }
        Ok(())
    }

    fn check(&self, work: &mut [Chunk]) -> Result<(), ForwardError> {
        let context = self.config.context_tokens;
        for (chunk, Chunk { cache, tokens, .. }) in work.iter().enumerate() {
            if tokens.is_empty() {
                return Err(ForwardError::Empty { chunk });
            }
            if let Some(token) = tokens.iter().find(|t| **t as usize >= self.vocab()) {
                let token = *token;
                return Err(ForwardError::Token { chunk, token });
            }
            let end = cache.len() + tokens.len();
            if end > context {
                return Err(ForwardError::TooLong {
                    chunk,
                    end,
                    context,
                });
            }
        }
        for chunk in work {
            chunk
                .cache
                .reserve(chunk.tokens.len())
                .map_err(ForwardError::OutOfBlocks)?;
        }
        Ok(())
    }
}

/// The rows of a step, chunk by chunk.
fn rows<'a>(work: &'a [Chunk]) -> impl Iterator<Item = Row> + 'a {
    work.iter().enumerate().flat_map(|(chunk, work)| {
        let last = work.tokens.len() - 1;
        work.tokens.iter().enumerate().map(move |(i, token)| Row {
            chunk,
            position: work.cache.len() + i,
            token: *token,
            wanted: match work.logits {
                Want::No => false,
                Want::Last => i == last,
                Want::All => true,
            },
        })
    })
}

#[cfg(test)]
mod tests;
