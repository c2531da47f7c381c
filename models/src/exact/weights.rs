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
use crate::decoder::{self, Layer};

/// A model's tensors, packed.
pub type Weights = decoder::Weights<Packed, Vec<f32>>;

/// A model's tensors, where they lie in a file.
pub type Plan<'a> = decoder::Weights<Planned<'a>, Vec<f32>>;

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
    let (config, plan) = plan(content, bytes)?;
    let matrices: Vec<&Planned> = plan.matrices().collect();
    let mut packed = pack_all(&matrices, threads)?.into_iter();
    let next = |_| Ok(packed.next().expect("one matrix for every planned one"));
    Ok((config, plan.try_map(next, Ok)?))
}

/// Finds every tensor's place, and checks their shapes.
pub fn plan<'a>(content: &Content, bytes: &'a [u8]) -> Result<(Config, Plan<'a>), LoadError> {
    let mut tensors = Tensors::find(content, bytes)?;
    let factors = tensors.optional_vector("rope_freqs.weight", None)?;
    let config = Config::read(&content.metadata, factors.as_deref()).map_err(LoadError::Config)?;
    let hidden = config.hidden;
    let embedding = tensors.matrix("token_embd.weight", None, hidden)?;
    let head = match tensors.has("output.weight") {
        true => Some(tensors.matrix("output.weight", Some(embedding.outputs), hidden)?),
        false => None,
    };
    let layers = (0..config.layers.len()).map(|layer| tensors.layer(layer, &config));
    let layers = layers.collect::<Result<_, _>>()?;
    let final_norm = tensors.vector("output_norm.weight", hidden)?;
    if let Some(name) = tensors.named.keys().next() {
        return Err(problem(name, "exact/1 has no place for it"));
    }
    let plan = decoder::Weights {
        embedding,
        layers,
        final_norm,
        head,
    };
    Ok((config, plan))
}

/// A matrix still in the file.
pub struct Planned<'a> {
    /// Its format.
    pub format: Format,
    /// Rows.
    pub outputs: usize,
    /// Columns.
    pub inputs: usize,
    /// Its part of the file.
    pub bytes: &'a [u8],
}

/// Repacks all of `plan` into one stretch of memory.
fn pack_all(plan: &[&Planned], threads: NonZeroUsize) -> Result<Vec<Packed>, LoadError> {
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
        } = **matrix;
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

    fn layer(
        &mut self,
        layer: usize,
        config: &Config,
    ) -> Result<Layer<Planned<'a>, Vec<f32>>, LoadError> {
        let Config {
            hidden,
            ffn,
            head_dim,
            ..
        } = *config;
        let (query, kv) = (config.query_width(), config.kv_width());
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        Ok(Layer {
            attention_norm: self.vector(&name("attn_norm"), hidden)?,
            query: self.matrix(&name("attn_q"), Some(query), hidden)?,
            key: self.matrix(&name("attn_k"), Some(kv), hidden)?,
            value: self.matrix(&name("attn_v"), Some(kv), hidden)?,
            query_norm: self.optional_vector(&name("attn_q_norm"), Some(head_dim))?,
            key_norm: self.optional_vector(&name("attn_k_norm"), Some(head_dim))?,
            attention_output: self.matrix(&name("attn_output"), Some(hidden), query)?,
            post_attention_norm: self
                .optional_vector(&name("post_attention_norm"), Some(hidden))?,
            ffn_norm: self.vector(&name("ffn_norm"), hidden)?,
            gate: self.matrix(&name("ffn_gate"), Some(ffn), hidden)?,
            up: self.matrix(&name("ffn_up"), Some(ffn), hidden)?,
            down: self.matrix(&name("ffn_down"), Some(hidden), ffn)?,
            post_ffn_norm: self.optional_vector(&name("post_ffw_norm"), Some(hidden))?,
        })
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
