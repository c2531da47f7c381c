//! The Llama forward pass: one step over the tokens of many sequences.
//!
//! Weights are candle tensors, dequantised to f32 at load, and every linear
//! layer is one candle matmul over all rows of the step. What looks at one
//! sequence only (rotary embedding, cache, attention) is done row by row.
//! Start at [`Llama::forward`].

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use crate::attention::{self, Query};
use crate::gguf::{Gguf, GgufError};
use crate::kv::{KvCache, KvShape, LayerCache};
use crate::math;

mod linear;
mod rope;

use linear::Linear;
use rope::Rope;

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

/// A Llama model's weights.
pub(crate) struct Llama {
    shape: Shape,
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    head: Linear,
    rope: Rope,
}

/// The sizes of a Llama model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub vocab: usize,
    pub context: usize,
    pub layers: usize,
    hidden: usize,
    inner: usize,
    kv_heads: usize,
    head_dim: usize,
    epsilon: f32,
}

struct Layer {
    attention_norm: Vec<f32>,
    /// Query, key and value rows, one after the other.
    qkv: Linear,
    output: Linear,
    inner_norm: Vec<f32>,
    /// Gate and up rows, one after the other.
    gate_up: Linear,
    down: Linear,
}

/// Where a row of the step belongs.
#[derive(Debug, Clone, Copy)]
struct Row {
    chunk: usize,
    position: usize,
    wanted: bool,
}

impl Shape {
    pub(crate) fn from_gguf(gguf: &Gguf, vocab: usize, context: usize) -> Result<Shape, GgufError> {
        let heads = gguf.usize("llama.attention.head_count")?;
        let hidden = gguf.usize("llama.embedding_length")?;
        let head_dim = gguf.usize("llama.rope.dimension_count")?;
        let kv_heads = gguf.usize("llama.attention.head_count_kv")?;
        if hidden != heads * head_dim {
            return Err(GgufError::Unsupported(
                "heads that don't cover the hidden state",
            ));
        }
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) || !head_dim.is_multiple_of(2) {
            return Err(GgufError::Unsupported("heads that can't be grouped"));
        }
        if context > gguf.usize("llama.context_length")? {
            return Err(GgufError::Unsupported(
                "a manifest with more context than the model's",
            ));
        }
        Ok(Shape {
            vocab,
            context,
            layers: gguf.usize("llama.block_count")?,
            hidden,
            inner: gguf.usize("llama.feed_forward_length")?,
            kv_heads,
            head_dim,
            epsilon: gguf.f32("llama.attention.layer_norm_rms_epsilon")?,
        })
    }

    pub(crate) fn kv(&self) -> KvShape {
        KvShape {
            layers: self.layers,
            heads: self.kv_heads,
            head_dim: self.head_dim,
        }
    }

    fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

impl Llama {
    pub(crate) fn from_gguf(gguf: &Gguf, shape: Shape) -> Result<Llama, GgufError> {
        // What newer Llamas have and this pass doesn't compute must not be ignored.
        for name in [
            "rope_freqs.weight",
            "blk.0.attn_q.bias",
            "blk.0.attn_q_norm.weight",
        ] {
            if gguf.has_tensor(name) {
                return Err(GgufError::Unsupported(name));
            }
        }
        let embedding = gguf.tensor("token_embd.weight", &[shape.vocab, shape.hidden])?;
        let head = match gguf.has_tensor("output.weight") {
            true => gguf.tensor("output.weight", &[shape.vocab, shape.hidden])?,
            false => embedding.clone(),
        };
        let layers = (0..shape.layers)
            .into_par_iter()
            .map(|i| Layer::from_gguf(gguf, &shape, i));
        Ok(Llama {
            shape,
            embedding,
            layers: layers.collect::<Result<_, _>>()?,
            norm: gguf.vector("output_norm.weight", shape.hidden)?,
            head: Linear::new(head),
            rope: Rope::new(
                gguf.f32("llama.rope.freq_base")?,
                shape.head_dim,
                shape.context,
            ),
        })
    }

    pub(crate) fn new_cache(&self) -> KvCache {
        KvCache::new(self.shape.kv())
    }

    /// See [`crate::Model::forward`].
    pub(crate) fn forward(&self, work: &mut [Chunk<'_>]) -> Result<Vec<Logits>, ForwardError> {
        let rows = self.plan(work)?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        for chunk in work.iter_mut() {
            chunk.cache.reserve(chunk.tokens.len());
        }
        let ids: Vec<u32> = work.iter().flat_map(|c| c.tokens).copied().collect();
        let mut x = self.embed(ids).map_err(ForwardError::Compute)?;
        for (i, layer) in self.layers.iter().enumerate() {
            self.layer(i, layer, &rows, work, &mut x)
                .map_err(ForwardError::Compute)?;
        }
        let logits = self.logits(&rows, &x, work)?;
        for chunk in work.iter_mut() {
            chunk.cache.advance(chunk.tokens.len());
        }
        Ok(logits)
    }

    /// Checks the work and lists its rows.
    fn plan(&self, work: &[Chunk<'_>]) -> Result<Vec<Row>, ForwardError> {
        let mut rows = Vec::new();
        for (index, chunk) in work.iter().enumerate() {
            assert!(
                chunk.cache.shape() == self.shape.kv(),
                "the cache is this model's"
            );
            let (start, count) = (chunk.cache.len(), chunk.tokens.len());
            if count == 0 {
                return Err(ForwardError::Empty { chunk: index });
            }
            if start + count > self.shape.context {
                let (tokens, max) = (start + count, self.shape.context);
                return Err(ForwardError::Context {
                    chunk: index,
                    tokens,
                    max,
                });
            }
            if let Some(&token) = chunk
                .tokens
                .iter()
                .find(|t| **t as usize >= self.shape.vocab)
            {
                return Err(ForwardError::Token {
                    chunk: index,
                    token,
                });
            }
            rows.extend((0..count).map(|i| Row {
                chunk: index,
                position: start + i,
                wanted: match chunk.logits {
                    Want::No => false,
                    Want::Last => i + 1 == count,
                    Want::All => true,
                },
            }));
        }
        Ok(rows)
    }

    fn embed(&self, ids: Vec<u32>) -> Result<Vec<f32>, candle_core::Error> {
        let count = ids.len();
        let ids = Tensor::from_vec(ids, count, &Device::Cpu)?;
        self.embedding
            .index_select(&ids, 0)?
            .flatten_all()?
            .to_vec1()
    }

    fn layer(
        &self,
        index: usize,
        layer: &Layer,
        rows: &[Row],
        work: &mut [Chunk<'_>],
        x: &mut [f32],
    ) -> Result<(), candle_core::Error> {
        let mut qkv = layer.qkv.apply(self.normed(x, &layer.attention_norm))?;
        self.rotate_and_store(index, rows, work, &mut qkv);
        let mixed = self.attend(index, rows, work, &qkv);
        add(x, &layer.output.apply(mixed)?);
        let gate_up = layer.gate_up.apply(self.normed(x, &layer.inner_norm))?;
        add(x, &layer.down.apply(self.gate(&gate_up))?);
        Ok(())
    }

    fn normed(&self, x: &[f32], weight: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; x.len()];
        let rows = x
            .chunks_exact(self.shape.hidden)
            .zip(out.chunks_exact_mut(self.shape.hidden));
        rows.for_each(|(x, out)| math::rms_norm(x, weight, self.shape.epsilon, out));
        out
    }

    /// Rotates queries and keys to their positions; keys and values go to the caches.
    fn rotate_and_store(
        &self,
        index: usize,
        rows: &[Row],
        work: &mut [Chunk<'_>],
        qkv: &mut [f32],
    ) {
        let Shape {
            hidden, head_dim, ..
        } = self.shape;
        let width = hidden + 2 * self.shape.kv_width();
        let scale = 1.0 / (head_dim as f32).sqrt();
        for (row, qkv) in rows.iter().zip(qkv.chunks_exact_mut(width)) {
            let (q, kv) = qkv.split_at_mut(hidden);
            let (k, v) = kv.split_at_mut(self.shape.kv_width());
            self.rope.rotate(row.position, q);
            self.rope.rotate(row.position, k);
            q.iter_mut().for_each(|q| *q *= scale);
            work[row.chunk].cache.write(index, row.position, k, v);
        }
    }

    fn attend(&self, index: usize, rows: &[Row], work: &[Chunk<'_>], qkv: &[f32]) -> Vec<f32> {
        let Shape {
            hidden,
            kv_heads,
            head_dim,
            ..
        } = self.shape;
        let width = hidden + 2 * self.shape.kv_width();
        let group = hidden / kv_heads;
        let caches: Vec<&LayerCache> = work.iter().map(|c| c.cache.layer(index)).collect();
        let mut out = vec![0.0; rows.len() * hidden];
        let one = |scores: &mut Vec<f32>, (i, out): (usize, &mut [f32])| {
            let (row, kv_head) = (i / kv_heads, i % kv_heads);
            let start = row * width + kv_head * group;
            let query = Query {
                heads: &qkv[start..start + group],
                kv_head,
                kv_heads,
                head_dim,
                visible: rows[row].position + 1,
            };
            attention::attend(query, caches[rows[row].chunk], scores, out);
        };
        out.par_chunks_mut(group)
            .enumerate()
            .for_each_init(Vec::new, one);
        out
    }

    fn gate(&self, gate_up: &[f32]) -> Vec<f32> {
        let inner = self.shape.inner;
        let mut out = vec![0.0; gate_up.len() / 2];
        let rows = out.par_chunks_mut(inner).zip(gate_up.par_chunks(2 * inner));
        rows.for_each(|(out, gate_up)| {
            let (gate, up) = gate_up.split_at(inner);
            for ((out, &gate), up) in out.iter_mut().zip(gate).zip(up) {
                *out = math::silu(gate) * up;
            }
        });
        out
    }

    /// The output head, for the rows that want it.
    fn logits(
        &self,
        rows: &[Row],
        x: &[f32],
        work: &[Chunk<'_>],
    ) -> Result<Vec<Logits>, ForwardError> {
        let hidden = x.chunks_exact(self.shape.hidden);
        let wanted = rows.iter().zip(hidden).filter(|(row, _)| row.wanted);
        let (wanted, hidden): (Vec<&Row>, Vec<&[f32]>) = wanted.unzip();
        let vocab = self.shape.vocab;
        let mut logits: Vec<Logits> = work
            .iter()
            .map(|_| Logits {
                values: Vec::new(),
                vocab,
            })
            .collect();
        if wanted.is_empty() {
            return Ok(logits);
        }
        let normed = self.normed(&hidden.concat(), &self.norm);
        let values = self.head.apply(normed).map_err(ForwardError::Compute)?;
        for (row, values) in wanted.iter().zip(values.chunks_exact(vocab)) {
            if !math::all_finite(values) {
                return Err(ForwardError::NotFinite { chunk: row.chunk });
            }
            logits[row.chunk].values.extend_from_slice(values);
        }
        Ok(logits)
    }
}

impl Layer {
    fn from_gguf(gguf: &Gguf, shape: &Shape, index: usize) -> Result<Layer, GgufError> {
        let Shape { hidden, inner, .. } = *shape;
        let kv = shape.kv_width();
        let matrix = |name: &str, rows, columns| {
            gguf.tensor(&format!("blk.{index}.{name}.weight"), &[rows, columns])
        };
        let stack = |parts: &[Tensor]| Tensor::cat(parts, 0).map_err(GgufError::Parse);
        let (q, k, v) = (
            matrix("attn_q", hidden, hidden)?,
            matrix("attn_k", kv, hidden)?,
            matrix("attn_v", kv, hidden)?,
        );
        let (gate, up) = (
            matrix("ffn_gate", inner, hidden)?,
            matrix("ffn_up", inner, hidden)?,
        );
        Ok(Layer {
            attention_norm: gguf.vector(&format!("blk.{index}.attn_norm.weight"), hidden)?,
            qkv: Linear::new(stack(&[q, k, v])?),
            output: Linear::new(matrix("attn_output", hidden, hidden)?),
            inner_norm: gguf.vector(&format!("blk.{index}.ffn_norm.weight"), hidden)?,
            gate_up: Linear::new(stack(&[gate, up])?),
            down: Linear::new(matrix("ffn_down", hidden, inner)?),
        })
    }
}

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
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
