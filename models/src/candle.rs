//! The model on candle's tensors: the same definition (`decoder`) as the exact
//! kernels compute, on whatever device candle has.
//!
//! For comparing, not for serving: no job starts with it. Weights are f32, and
//! candle orders its sums as it likes, so answers are close to `exact/1` and not
//! the same (profiles `candle-cpu/1`, and `cuda-sm90/1` with the feature `cuda`,
//! which hasn't been built or run yet). Start at [`CandleModel::forward`]; the
//! operations are in `machine`.

use std::io::Cursor;
use std::path::Path;

use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Tensor};

use crate::decoder::{self, Weights};
use crate::exact::{self, Config, Output, Planned, Want};

mod machine;

use machine::CandleMachine;

/// A model whose weights are tensors of a device.
pub struct CandleModel {
    config: Config,
    weights: Weights<Tensor, Tensor>,
    device: Device,
}

/// One sequence's keys and values.
#[derive(Debug, Clone, Default)]
pub struct CandleCache {
    /// Keys and values of each layer: positions, heads, dimensions.
    layers: Vec<(Tensor, Tensor)>,
    len: usize,
}

/// Why a model can't be loaded, or a step not computed. The cache hasn't changed.
#[derive(Debug, thiserror::Error)]
pub enum CandleError {
    /// The file.
    #[error("loading the weights")]
    Load(#[source] exact::LoadError),
    /// A tensor operation, or the device.
    #[error("computing on {device}")]
    Tensor {
        /// The device.
        device: &'static str,
        /// What candle says.
        #[source]
        source: candle_core::Error,
    },
    /// No tokens, one outside the vocabulary, or more positions than the model was made for.
    #[error("these tokens can't follow in this sequence")]
    Tokens,
    /// A logit isn't finite.
    #[error("the logits aren't finite numbers")]
    NotFinite,
}

impl CandleModel {
    /// Loads a GGUF file onto a device.
    pub fn load(path: &Path, device: &Device) -> Result<Self, CandleError> {
        let load = CandleError::Load;
        let bytes = std::fs::read(path).map_err(|e| load(exact::LoadError::Io(e)))?;
        let content = Content::read(&mut Cursor::new(&bytes))
            .map_err(|e| load(exact::LoadError::Header(e)))?;
        let (config, plan) = exact::plan(&content, &bytes).map_err(load)?;
        let weights = plan.try_map(
            |matrix| matrix_tensor(&matrix, device),
            |vector| Tensor::new(vector.as_slice(), device),
        );
        Ok(Self {
            config,
            weights: weights.map_err(|source| tensor_error(device, source))?,
            device: device.clone(),
        })
    }

    /// The numerics profile's name.
    pub fn profile(&self) -> &'static str {
        match self.device {
            Device::Cpu => "candle-cpu/1",
            Device::Cuda(_) => "cuda-sm90/1",
            Device::Metal(_) => "candle-metal/1",
        }
    }

    /// Tokens in the vocabulary.
    pub fn vocab(&self) -> usize {
        self.weights.head().dims()[0]
    }

    /// Appends tokens to a sequence, and gives the rows that are wanted.
    pub fn forward(
        &self,
        cache: &mut CandleCache,
        tokens: &[u32],
        want: Want,
    ) -> Result<Output, CandleError> {
        let end = cache.len + tokens.len();
        let known = tokens.iter().all(|id| (*id as usize) < self.vocab());
        if tokens.is_empty() || !known || end > self.config.context_tokens {
            return Err(CandleError::Tokens);
        }
        let error = |source| tensor_error(&self.device, source);
        let mut machine =
            CandleMachine::new(&self.config, &self.device, cache, tokens, want).map_err(error)?;
        decoder::run(&mut machine, &self.weights).map_err(error)?;
        let (layers, output) = machine.finish().map_err(error)?;
        let finite = |row: &Vec<f32>| row.iter().all(|x| x.is_finite());
        if !output.logits.iter().chain(&output.hidden).all(finite) {
            return Err(CandleError::NotFinite);
        }
        *cache = CandleCache { layers, len: end };
        Ok(output)
    }
}

impl CandleCache {
    /// Positions held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is held yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// A matrix of outputs × inputs, as f32 (spec 4.4).
fn matrix_tensor(matrix: &Planned, device: &Device) -> candle_core::Result<Tensor> {
    let Planned {
        format,
        outputs,
        inputs,
        bytes,
    } = *matrix;
    let mut floats = vec![0.0; outputs * inputs];
    let rows = bytes.chunks_exact(format.row_bytes(inputs));
    for (row, floats) in rows.zip(floats.chunks_exact_mut(inputs)) {
        format.dequantise(row, floats);
    }
    Tensor::from_vec(floats, (outputs, inputs), device)
}

fn tensor_error(device: &Device, source: candle_core::Error) -> CandleError {
    let device = match device {
        Device::Cpu => "the CPU",
        Device::Cuda(_) => "a CUDA device",
        Device::Metal(_) => "a Metal device",
    };
    CandleError::Tensor { device, source }
}

#[cfg(test)]
mod tests;
