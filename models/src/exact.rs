//! Numerics profile `exact/1`: the same tokens give the same bits.
//!
//! `docs/spec/exact.md` specifies it. The kernels are tested, bit for bit,
//! against the scalar [`mod@reference`], and the model against the oracle. It is
//! **not yet served**: the engine still runs `candle-cpu/1`. Start reading at
//! [`model`], then the definition in `pass`.

pub mod activations;
pub mod architecture;
pub mod attention;
pub mod blocks;
pub mod elementary;
pub mod grid;
pub mod kv;
pub mod level;
pub mod linear;
pub mod memory;
pub mod model;
pub mod packed;
mod pass;
#[cfg(test)]
mod random;
pub mod reference;
pub mod rows;
pub mod team;
#[cfg(test)]
mod tiny;
pub mod weights;
