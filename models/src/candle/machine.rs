//! The operations of the model's definition, on candle's tensors.
//!
//! Rows are the positions of one chunk of one sequence. Every tensor is f32.

use candle_core::{D, Device, Result, Tensor};

use super::CandleCache;
use crate::decoder::Machine;
use crate::exact::{Config, Gate, Output, Pairing, Rope, Want, sin_cos_f64};

/// One step of one sequence.
pub(super) struct CandleMachine<'a> {
    config: &'a Config,
    device: &'a Device,
    past: &'a CandleCache,
    tokens: &'a [u32],
    want: Want,
    /// The layers' keys and values with this step's.
    layers: Vec<(Tensor, Tensor)>,
    /// Cosines and sines of the rows, for each rotary embedding: rows, 1, pairs.
    angles: Vec<(Tensor, Tensor)>,
    /// The first position that is still computed.
    first: usize,
    x: Tensor,
    y: Tensor,
    /// Rows, heads, dimensions.
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    logits: Tensor,
}

impl<'a> CandleMachine<'a> {
    pub fn new(
        config: &'a Config,
        device: &'a Device,
        past: &'a CandleCache,
        tokens: &'a [u32],
        want: Want,
    ) -> Result<Self> {
        let positions = past.len..past.len + tokens.len();
        let angles = config.ropes.iter().map(|rope| {
            let angles = positions.clone().flat_map(|position| {
                let angle = move |frequency: &f64| sin_cos_f64(position as f64 * frequency);
                rope.frequencies.iter().map(angle)
            });
            let (sines, cosines): (Vec<f32>, Vec<f32>) =
                angles.map(|(s, c)| (s as f32, c as f32)).unzip();
            let shape = (tokens.len(), 1, rope.frequencies.len());
            Ok((
                Tensor::from_vec(cosines, shape, device)?,
                Tensor::from_vec(sines, shape, device)?,
            ))
        });
        let angles = angles.collect::<Result<_>>()?;
        let none = Tensor::zeros(1, candle_core::DType::F32, device)?;
        Ok(Self {
            config,
            device,
            past,
            tokens,
            want,
            layers: Vec::new(),
            angles,
            first: past.len,
            x: none.clone(),
            y: none.clone(),
            queries: none.clone(),
            keys: none.clone(),
            values: none.clone(),
            logits: none,
        })
    }

    /// The sequence's keys and values, and the rows that are wanted.
    pub fn finish(self) -> Result<(Vec<(Tensor, Tensor)>, Output)> {
        let output = match self.want {
            Want::No => Output::default(),
            Want::Last | Want::All => Output {
                hidden: self.y.to_vec2()?,
                logits: self.logits.to_vec2()?,
            },
        };
        Ok((self.layers, output))
    }

    /// The rows of y from its first to its last that is still computed.
    fn linear(&self, matrix: &Tensor) -> Result<Tensor> {
        self.y.matmul(&matrix.t()?)
    }

    fn rms_norm(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
        let root = (mean + f64::from(self.config.epsilon))?.sqrt()?;
        x.broadcast_div(&root)?.broadcast_mul(weight)
    }

    /// Which positions a row mustn't see: −∞ there, and 0 elsewhere.
    fn mask(&self, window: usize) -> Result<Tensor> {
        let end = self.past.len + self.tokens.len();
        let cell = |position: usize, seen: usize| {
            let visible = seen <= position && position - seen < window;
            if visible { 0.0 } else { f32::NEG_INFINITY }
        };
        let cells: Vec<f32> = (self.first..end)
            .flat_map(|position| (0..end).map(move |seen| cell(position, seen)))
            .collect();
        Tensor::from_vec(cells, (1, 1, end - self.first, end), self.device)
    }
}

impl Machine for CandleMachine<'_> {
    type Matrix = Tensor;
    type Vector = Tensor;
    type Error = candle_core::Error;

    fn embed(&mut self, embedding: &Tensor) -> Result<()> {
        let ids = Tensor::new(self.tokens, self.device)?;
        self.x = embedding.index_select(&ids, 0)?;
        if let Some(scale) = self.config.embedding_scale {
            self.x = (&self.x * f64::from(scale))?;
        }
        Ok(())
    }

    fn norm(&mut self, weight: &Tensor) -> Result<()> {
        self.y = self.rms_norm(&self.x, weight)?;
        Ok(())
    }

    fn project(&mut self, [query, key, value]: [&Tensor; 3]) -> Result<()> {
        let (rows, dim) = (self.tokens.len(), self.config.head_dim);
        let heads = |matrix, heads| self.linear(matrix)?.reshape((rows, heads, dim));
        let (queries, kv) = (self.config.heads, self.config.kv_heads);
        (self.queries, self.keys, self.values) =
            (heads(query, queries)?, heads(key, kv)?, heads(value, kv)?);
        Ok(())
    }

    fn place(
        &mut self,
        layer: usize,
        query_norm: Option<&Tensor>,
        key_norm: Option<&Tensor>,
    ) -> Result<()> {
        let normed = |x: &Tensor, weight: Option<&Tensor>| match weight {
            Some(weight) => self.rms_norm(x, weight),
            None => Ok(x.clone()),
        };
        let kind = self.config.layers[layer].rope;
        let (rope, angles) = (&self.config.ropes[kind], &self.angles[kind]);
        let queries = rotate(&normed(&self.queries, query_norm)?, rope, angles)?;
        let keys = rotate(&normed(&self.keys, key_norm)?, rope, angles)?;
        self.queries = (queries * f64::from(self.config.attention_scale))?;
        let with_past = match self.past.layers.get(layer) {
            None => (keys, self.values.clone()),
            Some((old_keys, old_values)) => (
                Tensor::cat(&[old_keys, &keys], 0)?,
                Tensor::cat(&[old_values, &self.values], 0)?,
            ),
        };
        self.layers.push(with_past);
        Ok(())
    }

    fn narrow(&mut self) -> Result<()> {
        if self.want != Want::All {
            let last = self.tokens.len() - 1;
            self.first = self.past.len + last;
            self.x = self.x.narrow(0, last, 1)?;
            self.queries = self.queries.narrow(0, last, 1)?;
        }
        Ok(())
    }

    fn attention(&mut self, layer: usize) -> Result<()> {
        let Config {
            heads,
            kv_heads,
            head_dim,
            ..
        } = *self.config;
        let (keys, values) = &self.layers[layer];
        let rows = self.queries.dims()[0];
        let seen = keys.dims()[0];
        // The query heads of a key head, one under the other.
        let group = heads / kv_heads;
        let queries = self.queries.transpose(0, 1)?.contiguous()?;
        let queries = queries.reshape((kv_heads, group * rows, head_dim))?;
        let keys = keys.permute((1, 2, 0))?.contiguous()?;
        let values = values.transpose(0, 1)?.contiguous()?;
        let mut scores = queries.matmul(&keys)?;
        if let Some(cap) = self.config.attention_cap {
            scores = soft_cap(&scores, cap)?;
        }
        let scores = scores
            .reshape((kv_heads, group, rows, seen))?
            .broadcast_add(&self.mask(self.config.layers[layer].window)?)?;
        let max = scores.max_keepdim(D::Minus1)?;
        let weights = scores.broadcast_sub(&max)?.exp()?;
        let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
        let weights = weights.reshape((kv_heads, group * rows, seen))?;
        let out = weights.matmul(&values)?.reshape((heads, rows, head_dim))?;
        self.y = out
            .transpose(0, 1)?
            .contiguous()?
            .reshape((rows, heads * head_dim))?;
        Ok(())
    }

    fn join(&mut self, matrix: &Tensor, norm: Option<&Tensor>) -> Result<()> {
        let branch = self.linear(matrix)?;
        let branch = match norm {
            Some(weight) => self.rms_norm(&branch, weight)?,
            None => branch,
        };
        self.x = (&self.x + branch)?;
        Ok(())
    }

    fn gate(&mut self, gate: &Tensor, up: &Tensor) -> Result<()> {
        let gates = self.linear(gate)?;
        let gates = match self.config.gate {
            Gate::Silu => gates.silu()?,
            // By the tanh formula.
            Gate::Gelu => gates.gelu()?,
        };
        self.y = (gates * self.linear(up)?)?;
        Ok(())
    }

    fn head(&mut self, matrix: &Tensor) -> Result<()> {
        if self.want == Want::No {
            return Ok(());
        }
        self.logits = self.linear(matrix)?;
        if let Some(cap) = self.config.logit_cap {
            self.logits = soft_cap(&self.logits, cap)?;
        }
        Ok(())
    }
}

/// Rotates heads (spec 5.3); dimensions past the pairs stay.
fn rotate(heads: &Tensor, rope: &Rope, (cosines, sines): &(Tensor, Tensor)) -> Result<Tensor> {
    let (rows, count, dim) = heads.dims3()?;
    let pairs = rope.frequencies.len();
    let rotated = heads.narrow(2, 0, 2 * pairs)?;
    let (a, b) = match rope.pairing {
        Pairing::Halves => (
            rotated.narrow(2, 0, pairs)?,
            rotated.narrow(2, pairs, pairs)?,
        ),
        Pairing::Adjacent => {
            let rotated = rotated.contiguous()?.reshape((rows, count, pairs, 2))?;
            let part = |i| rotated.narrow(3, i, 1)?.squeeze(3);
            (part(0)?, part(1)?)
        }
    };
    let (a_new, b_new) = (
        (a.broadcast_mul(cosines)? - b.broadcast_mul(sines)?)?,
        (b.broadcast_mul(cosines)? + a.broadcast_mul(sines)?)?,
    );
    let rotated = match rope.pairing {
        Pairing::Halves => Tensor::cat(&[a_new, b_new], 2)?,
        Pairing::Adjacent => {
            Tensor::stack(&[a_new, b_new], 3)?.reshape((rows, count, 2 * pairs))?
        }
    };
    match dim - 2 * pairs {
        0 => Ok(rotated),
        rest => Tensor::cat(&[&rotated, &heads.narrow(2, 2 * pairs, rest)?], 2),
    }
}

fn soft_cap(x: &Tensor, cap: f32) -> Result<Tensor> {
    (x / f64::from(cap))?.tanh()? * f64::from(cap)
}
