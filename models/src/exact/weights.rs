//! Loads a GGUF's tensors: norms as f32, matrices repacked for the kernels.
//!
//! The file's bytes are needed while loading only. All matrices go to one stretch of
//! memory, packed by as many threads as the model may use. Every tensor must
//! find its place: one that the profile doesn't know would change the answer
//! if it were ignored.

use std::collections::HashMap;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Mutex;

use candle_core::quantized::gguf_file::Content;

use super::architecture::{Config, ConfigError};
use super::blocks::Format;
use super::memory::Memory;
use super::packed::{Packed, pack_into};

/// A model's tensors.
pub struct Weights {
    /// Token embeddings: one output per token.
    pub embedding: Packed,
    /// Layers, first to last.
    pub layers: Vec<Layer>,
    /// Weight of the norm after the last layer.
    pub final_norm: Vec<f32>,
    /// Output head; the embedding again where the model ties them.
    pub head: Packed,
}

/// One layer's tensors.
#[allow(missing_docs, reason = "named as in spec 6.1")]
pub struct Layer {
    pub attention_norm: Vec<f32>,
    pub query: Packed,
    pub key: Packed,
    pub value: Packed,
    pub query_norm: Option<Vec<f32>>,
    pub key_norm: Option<Vec<f32>>,
    pub attention_output: Packed,
    pub post_attention_norm: Option<Vec<f32>>,
    pub ffn_norm: Vec<f32>,
    pub gate: Packed,
    pub up: Packed,
    pub down: Packed,
    pub post_ffn_norm: Option<Vec<f32>>,
}

/// Why a file can't be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file can't be opened or mapped, or memory is short.
    #[error("reading the weights")]
    Io(#[source] io::Error),
    /// The file isn't a GGUF that candle can read.
    #[error("parsing the GGUF header")]
    Header(#[source] candle_core::Error),
    /// The metadata doesn't describe a model of this profile.
    #[error("reading the model's metadata")]
    Config(#[source] ConfigError),
    /// A tensor is missing, or isn't as the metadata says.
    #[error("tensor {name}: {problem}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

/// Loads what a GGUF file in memory holds.
pub fn load(
    content: &Content,
    bytes: &[u8],
    threads: NonZeroUsize,
) -> Result<(Config, Weights), LoadError> {
    let mut tensors = Tensors::find(content, bytes)?;
    let factors = tensors.optional_vector("rope_freqs.weight", None)?;
    let config = Config::read(&content.metadata, factors.as_deref()).map_err(LoadError::Config)?;
    let weights = Weights::load(&config, &mut tensors, threads)?;
    Ok((config, weights))
}

impl Weights {
    fn load(
        config: &Config,
        tensors: &mut Tensors,
        threads: NonZeroUsize,
    ) -> Result<Self, LoadError> {
        let Config { hidden, ffn, .. } = *config;
        let (query, kv) = (config.query_width(), config.kv_width());
        let head_dim = config.head_dim;
        // Plan first: names and shapes of all matrices, in order.
        let mut plan = vec![tensors.matrix("token_embd.weight", None, hidden)?];
        let vocab = plan[0].outputs;
        let tied = !tensors.has("output.weight");
        if !tied {
            plan.push(tensors.matrix("output.weight", Some(vocab), hidden)?);
        }
        for layer in 0..config.layers.len() {
            for (name, outputs, inputs) in [
                ("attn_q", query, hidden),
                ("attn_k", kv, hidden),
                ("attn_v", kv, hidden),
                ("attn_output", hidden, query),
                ("ffn_gate", ffn, hidden),
                ("ffn_up", ffn, hidden),
                ("ffn_down", hidden, ffn),
            ] {
                let name = format!("blk.{layer}.{name}.weight");
                plan.push(tensors.matrix(&name, Some(outputs), inputs)?);
            }
        }
        let mut matrices = pack_all(&plan, threads)?.into_iter();
        let mut next = || matrices.next().expect("one matrix for every planned one");
        let embedding = next();
        let head = if tied { embedding.clone() } else { next() };
        let mut layers = Vec::new();
        for layer in 0..config.layers.len() {
            let name = |part: &str| format!("blk.{layer}.{part}.weight");
            layers.push(Layer {
                attention_norm: tensors.vector(&name("attn_norm"), hidden)?,
                query: next(),
                key: next(),
                value: next(),
                attention_output: next(),
                gate: next(),
                up: next(),
                down: next(),
                query_norm: tensors.optional_vector(&name("attn_q_norm"), Some(head_dim))?,
                key_norm: tensors.optional_vector(&name("attn_k_norm"), Some(head_dim))?,
                post_attention_norm: tensors
                    .optional_vector(&name("post_attention_norm"), Some(hidden))?,
                ffn_norm: tensors.vector(&name("ffn_norm"), hidden)?,
                post_ffn_norm: tensors.optional_vector(&name("post_ffw_norm"), Some(hidden))?,
            });
        }
        let final_norm = tensors.vector("output_norm.weight", hidden)?;
        if let Some(name) = tensors.named.keys().next() {
            return Err(problem(name, "exact/1 has no place for it"));
        }
        Ok(Self {
            embedding,
            layers,
            final_norm,
            head,
        })
    }
}

/// A matrix still in the file.
struct Planned<'a> {
    format: Format,
    outputs: usize,
    inputs: usize,
    bytes: &'a [u8],
}

/// Repacks all of `plan` into one stretch of memory.
fn pack_all(plan: &[Planned], threads: NonZeroUsize) -> Result<Vec<Packed>, LoadError> {
    // Matrices start at cache lines.
    let sizes: Vec<usize> = plan
        .iter()
        .map(|m| Packed::packed_bytes(m.format, m.outputs, m.inputs))
        .collect();
    let total = sizes.iter().map(|size| size.next_multiple_of(64)).sum();
    let mut memory = Memory::zeroed(total).map_err(LoadError::Io)?;
    let mut work = Vec::new();
    let mut rest = memory.bytes_mut();
    for (matrix, size) in plan.iter().zip(&sizes) {
        let (part, after) = rest.split_at_mut(size.next_multiple_of(64));
        work.push((matrix, &mut part[..*size]));
        rest = after;
    }
    let work = Mutex::new(work.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..threads.get() {
            scope.spawn(|| {
                loop {
                    let next = work.lock().expect("packing doesn't panic").next();
                    let Some((matrix, packed)) = next else { break };
                    pack_into(matrix.format, matrix.inputs, matrix.bytes, packed);
                }
            });
        }
    });
    let memory = memory.freeze();
    let mut start = 0;
    let packed = plan.iter().zip(sizes).map(|(matrix, size)| {
        let range = start..start + size;
        start += size.next_multiple_of(64);
        let Planned {
            format,
            outputs,
            inputs,
            ..
        } = *matrix;
        Packed::within(format, outputs, inputs, memory.clone(), range)
    });
    Ok(packed.collect())
}

/// The file's tensors that haven't found their place yet.
struct Tensors<'a> {
    named: HashMap<String, (Format, Vec<usize>, &'a [u8])>,
}

impl<'a> Tensors<'a> {
    fn find(content: &Content, file: &'a [u8]) -> Result<Self, LoadError> {
        let mut named = HashMap::new();
        for (name, info) in &content.tensor_infos {
            let format = Format::of(info.ggml_dtype).ok_or_else(|| {
                problem(name, &format!("exact/1 doesn't have {:?}", info.ggml_dtype))
            })?;
            let shape = info.shape.dims().to_vec();
            let elements = shape
                .iter()
                .try_fold(1_usize, |n, dim| n.checked_mul(*dim))
                .ok_or_else(|| problem(name, "its shape overflows"))?;
            let unit = format.weights_per_unit();
            if !shape.last().is_some_and(|row| row.is_multiple_of(unit)) {
                return Err(problem(name, "its rows aren't whole blocks"));
            }
            let start = content.tensor_data_offset.checked_add(info.offset);
            let bytes = start
                .and_then(|start| usize::try_from(start).ok())
                .and_then(|start| file.get(start..))
                .and_then(|from| from.get(..elements / unit * format.bytes_per_unit()))
                .ok_or_else(|| problem(name, "the file ends before it"))?;
            named.insert(name.clone(), (format, shape, bytes));
        }
        Ok(Self { named })
    }

    fn has(&self, name: &str) -> bool {
        self.named.contains_key(name)
    }

    fn take(&mut self, name: &str) -> Result<(Format, Vec<usize>, &'a [u8]), LoadError> {
        self.named
            .remove(name)
            .ok_or_else(|| problem(name, "missing"))
    }

    fn matrix(
        &mut self,
        name: &str,
        outputs: Option<usize>,
        inputs: usize,
    ) -> Result<Planned<'a>, LoadError> {
        let (format, shape, bytes) = self.take(name)?;
        let wanted = [outputs.unwrap_or(shape[0]), inputs];
        if shape != wanted {
            let problem_text = format!("its shape is {shape:?}, the metadata says {wanted:?}");
            return Err(problem(name, &problem_text));
        }
        Ok(Planned {
            format,
            outputs: wanted[0],
            inputs,
            bytes,
        })
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, LoadError> {
        self.optional_vector(name, Some(len))?
            .ok_or_else(|| problem(name, "missing"))
    }

    fn optional_vector(
        &mut self,
        name: &str,
        len: Option<usize>,
    ) -> Result<Option<Vec<f32>>, LoadError> {
        if !self.has(name) {
            return Ok(None);
        }
        let (format, shape, bytes) = self.take(name)?;
        if !format.is_float() || shape.len() != 1 || len.is_some_and(|len| shape[0] != len) {
            let problem_text = format!("{format:?} {shape:?} isn't {len:?} floats");
            return Err(problem(name, &problem_text));
        }
        Ok(Some(
            (0..shape[0]).map(|i| format.float(bytes, i)).collect(),
        ))
    }
}

fn problem(name: &str, problem: &str) -> LoadError {
    LoadError::Tensor {
        name: name.to_owned(),
        problem: problem.to_owned(),
    }
}
