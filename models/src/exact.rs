//! Profile `exact/1`: the same tokens give the same bits, and fast.
//!
//! docs/spec/exact.md says what is computed, [`Reference`] says it in plain
//! Rust, [`ExactModel`] computes it with the kernels of [`Level`] on repacked
//! weights and paged keys. Start at [`ExactModel::forward`].
//!
//! # Why these aren't candle tensors
//!
//! Candle reads the file (`weights`) and is what tests compare blocks with.
//! The hot path is plain buffers: a candle op allocates its output, and runs
//! on a thread pool of its own, two hundred times a token; a tensor can't be
//! written by several workers in place, nor live in a page that sequences
//! share; and whatever candle itself computes may change its order with the
//! shape. What the model is stands in `crate::decoder`, in terms of a handful
//! of operations; `pass` carries them out here, and `crate::candle` on candle's
//! tensors, CPU or CUDA.

mod activations;
mod architecture;
mod attention;
mod blocks;
mod elementary;
mod grid;
mod kv;
mod level;
mod linear;
mod memory;
mod model;
mod packed;
mod pass;
pub mod peak;
#[cfg(test)]
mod random;
mod reference;
mod rows;
mod team;
#[cfg(test)]
pub(crate) mod tiny;
mod trace;
mod weights;

pub use architecture::{Config, ConfigError, Gate, LayerKind, Pairing, Rope};
pub use kv::{KvBlock, KvCache, KvPool, KvShape, OutOfBlocks, POSITIONS};
pub use level::Level;
pub use model::{Chunk, ExactModel, ForwardError, Options, Output, Scored, Size, Want};
pub use reference::Reference;
pub use trace::Trace;
pub use weights::LoadError;

pub(crate) use elementary::sin_cos_f64;
pub(crate) use weights::{Planned, plan};

/// The numerics profile's name, as receipts state it.
pub const PROFILE: &str = "exact/1";
