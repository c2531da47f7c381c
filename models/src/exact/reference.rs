//! The profile written to be read: a whole text at once, one number after the
//! other, from the GGUF's own bytes, in the order of docs/spec/exact.md.
//!
//! What every fast path must equal, bit for bit. Shares with the engine only
//! the meaning of the file (`architecture`, `blocks`) and the elementary
//! functions: no packing, cache, batching or threads. Start at
//! [`Reference::score`]; the operations are in `operations`.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use candle_core::quantized::gguf_file::Content;

use super::architecture::{Config, Gate, LayerKind};
use super::blocks::{Block, Format};
use super::weights::LoadError;

pub mod operations;

use operations::*;

/// A model, computed slowly.
pub struct Reference {
    config: Config,
    tensors: HashMap<String, Tensor>,
}

/// A tensor as the file has it.
pub struct Tensor {
    format: Format,
    /// Outputs and inputs of a matrix; a vector has one output.
    outputs: usize,
    inputs: usize,
    bytes: Vec<u8>,
}

/// One output's weights.
enum Output {
    Floats(Vec<f32>),
    Blocks(Vec<Block>),
}

/// One row of numbers for each position of the text.
type Rows = Vec<Vec<f32>>;

impl Tensor {
    /// A tensor of `outputs` rows.
    pub fn new(format: Format, outputs: usize, inputs: usize, bytes: Vec<u8>) -> Self {
        assert_eq!(bytes.len(), outputs * format.row_bytes(inputs));
        Self {
            format,
            outputs,
            inputs,
            bytes,
        }
    }

    fn row(&self, output: usize) -> &[u8] {
        let size = self.format.row_bytes(self.inputs);
        &self.bytes[output * size..][..size]
    }

    fn output(&self, output: usize) -> Output {
        let row = self.row(output);
        let blocks = 0..self.inputs / 32;
        match self.format.is_float() {
            true => Output::Floats(
                (0..self.inputs)
                    .map(|i| self.format.float(row, i))
                    .collect(),
            ),
            false => Output::Blocks(blocks.map(|i| self.format.block(row, i)).collect()),
        }
    }

    /// A vector's numbers.
    fn floats(&self) -> Vec<f32> {
        let mut floats = vec![0.0; self.inputs];
        self.format.dequantise(self.row(0), &mut floats);
        floats
    }
}

impl Reference {
    /// Reads a GGUF.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let file = File::open(path).map_err(LoadError::Io)?;
        let content = Content::read(&mut BufReader::new(&file)).map_err(LoadError::Header)?;
        let file = std::fs::read(path).map_err(LoadError::Io)?;
        let mut tensors = HashMap::new();
        for (name, info) in &content.tensor_infos {
            let problem = |problem: &str| LoadError::Tensor {
                name: name.clone(),
                problem: problem.to_owned(),
            };
            let format = Format::of(info.ggml_dtype).ok_or_else(|| problem("unknown format"))?;
            let shape = info.shape.dims();
            let inputs = *shape.last().ok_or_else(|| problem("no shape"))?;
            let outputs = shape[..shape.len() - 1].iter().product();
            let start = (content.tensor_data_offset + info.offset) as usize;
            let size = outputs * format.row_bytes(inputs);
            let bytes = file.get(start..).and_then(|from| from.get(..size));
            let bytes = bytes.ok_or_else(|| problem("the file ends before it"))?;
            let tensor = Tensor::new(format, outputs, inputs, bytes.to_vec());
            tensors.insert(name.clone(), tensor);
        }
        let factors = tensors.get("rope_freqs.weight").map(Tensor::floats);
        let config =
            Config::read(&content.metadata, factors.as_deref()).map_err(LoadError::Config)?;
        Ok(Self { config, tensors })
    }

    /// Final hidden states and logits of all positions (spec 6).
    pub fn score(&self, tokens: &[u32]) -> (Rows, Rows) {
        let config = &self.config;
        let embedding = self.tensor("token_embd");
        let embed = |token: &u32| {
            let mut x = vec![0.0; config.hidden];
            let row = embedding.row(*token as usize);
            embedding.format.dequantise(row, &mut x);
            if let Some(scale) = config.embedding_scale {
                x.iter_mut().for_each(|x| *x *= scale);
            }
            x
        };
        let mut stream: Rows = tokens.iter().map(embed).collect();

        for (index, kind) in config.layers.iter().enumerate() {
            let branch = self.attend(index, kind, &stream);
            self.join(index, "post_attention_norm", &mut stream, branch);
            let branch = self.feed_forward(index, &stream);
            self.join(index, "post_ffw_norm", &mut stream, branch);
        }

        let hidden = self.norm("output_norm", &stream);
        let head = self.tensors.get("output.weight").unwrap_or(embedding);
        let mut logits = linear(head, &hidden);
        if let Some(cap) = config.logit_cap {
            logits.iter_mut().for_each(|logits| soft_cap(logits, cap));
        }
        (hidden, logits)
    }

    fn attend(&self, index: usize, kind: &LayerKind, stream: &Rows) -> Rows {
        let config = &self.config;
        let name = |part: &str| format!("blk.{index}.{part}");
        let x = self.norm(&name("attn_norm"), stream);
        let mut queries = linear(self.tensor(&name("attn_q")), &x);
        let mut keys = linear(self.tensor(&name("attn_k")), &x);
        let mut values = linear(self.tensor(&name("attn_v")), &x);

        let rope = &config.ropes[kind.rope];
        for position in 0..stream.len() {
            for query in queries[position].chunks_mut(config.head_dim) {
                self.head_norm(&name("attn_q_norm"), query);
                rotate(query, rope, position);
                query.iter_mut().for_each(|q| *q *= config.attention_scale);
            }
            for key in keys[position].chunks_mut(config.head_dim) {
                self.head_norm(&name("attn_k_norm"), key);
                rotate(key, rope, position);
            }
            round_to_f16(&mut keys[position]);
            round_to_f16(&mut values[position]);
        }

        let shared = config.heads / config.kv_heads;
        let mut outputs = Rows::new();
        for (position, queries) in queries.iter().enumerate() {
            let first = (position + 1).saturating_sub(kind.window);
            let mut output = Vec::new();
            for (head, query) in queries.chunks(config.head_dim).enumerate() {
                let start = head / shared * config.head_dim;
                let part = start..start + config.head_dim;
                let pairs: Vec<(&[f32], &[f32])> = (first..=position)
                    .map(|j| (&keys[j][part.clone()], &values[j][part.clone()]))
                    .collect();
                output.extend(attention(query, &pairs, first, config.attention_cap));
            }
            outputs.push(output);
        }
        linear(self.tensor(&name("attn_output")), &outputs)
    }

    fn feed_forward(&self, index: usize, stream: &Rows) -> Rows {
        let name = |part: &str| format!("blk.{index}.{part}");
        let x = self.norm(&name("ffn_norm"), stream);
        let gates = linear(self.tensor(&name("ffn_gate")), &x);
        let ups = linear(self.tensor(&name("ffn_up")), &x);
        let gate = match self.config.gate {
            Gate::Silu => silu,
            Gate::Gelu => gelu,
        };
        let gated: Rows = gates
            .iter()
            .zip(&ups)
            .map(|(gates, ups)| gates.iter().zip(ups).map(|(g, u)| gate(*g) * u).collect())
            .collect();
        linear(self.tensor(&name("ffn_down")), &gated)
    }

    /// Adds a sub-layer's output to the stream, normed where the model has
    /// such a norm.
    fn join(&self, index: usize, part: &str, stream: &mut Rows, branch: Rows) {
        let name = format!("blk.{index}.{part}");
        let branch = match self.tensors.contains_key(&format!("{name}.weight")) {
            true => self.norm(&name, &branch),
            false => branch,
        };
        for (x, y) in stream.iter_mut().zip(&branch) {
            add(x, y);
        }
    }

    fn norm(&self, name: &str, rows: &Rows) -> Rows {
        let weight = self.tensor(name).floats();
        rows.iter()
            .map(|x| rms_norm(x, &weight, self.config.epsilon))
            .collect()
    }

    /// Norms a head in place, where the model has such a norm.
    fn head_norm(&self, name: &str, head: &mut [f32]) {
        if let Some(weight) = self.tensors.get(&format!("{name}.weight")) {
            let normed = rms_norm(head, &weight.floats(), self.config.epsilon);
            head.copy_from_slice(&normed);
        }
    }

    fn tensor(&self, name: &str) -> &Tensor {
        let name = format!("{name}.weight");
        self.tensors
            .get(&name)
            .unwrap_or_else(|| panic!("the model has no {name}"))
    }
}
