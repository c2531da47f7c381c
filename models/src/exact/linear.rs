//! Linear layers: sixteen outputs of a packed matrix times many rows.
//!
//! Every output of every row has one f32 accumulator, to which blocks of 32
//! inputs are added in ascending order (spec 4.3). How rows are tiled, and
//! which instruction set runs, changes nothing. Start at [`multiply_group`];
//! the vector kernels are in `linear/`.

use std::ops::Range;

use super::activations::{Activations, QuantisedBlock};
use super::blocks::Format;
use super::elementary::{bf16_to_f32, f16_to_f32};
use super::level::Level;
use super::packed::{BLOCK, LANES, Packed, Tile, has_min};

#[cfg(target_arch = "x86_64")]
mod ahead;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

/// One worker's memory for [`multiply_group`].
pub struct Scratch {
    tiles: Vec<Tile>,
    sums: Vec<[f32; LANES]>,
}

/// Tiles unpacked at a time: in the common formats they take half of a 32 KiB
/// cache, and leave the other half to the rows.
const TILES: usize = 24;

impl Scratch {
    /// Memory for up to `rows` rows.
    pub fn new(rows: usize) -> Self {
        Self {
            tiles: vec![Tile::ZERO; TILES],
            sums: vec![[0.0; LANES]; rows],
        }
    }
}

/// Multiplies one group of outputs with `rows` of `x`, and hands each row's
/// sixteen results to `take(row, results)`.
pub fn multiply_group(
    level: Level,
    weights: &Packed,
    group: usize,
    x: &Activations,
    rows: Range<usize>,
    scratch: &mut Scratch,
    mut take: impl FnMut(usize, &[f32; LANES]),
) {
    assert_eq!(weights.inputs(), x.columns());
    let bytes = weights.group(group);
    let sums = &mut scratch.sums[..rows.len()];
    sums.fill([0.0; LANES]);
    if weights.format().is_float() {
        for (row, sums) in rows.clone().zip(sums.iter_mut()) {
            multiply_floats(level, weights.format(), bytes, x.floats(row), sums);
        }
    } else {
        multiply_quantised(level, weights, bytes, x, &rows, &mut scratch.tiles, sums);
    }
    for (row, sums) in rows.zip(sums.iter()) {
        take(row, sums);
    }
}

fn multiply_quantised(
    level: Level,
    weights: &Packed,
    group: &[u8],
    x: &Activations,
    rows: &Range<usize>,
    tiles: &mut [Tile],
    sums: &mut [[f32; LANES]],
) {
    let format = weights.format();
    let blocks = weights.inputs() / BLOCK;
    match level {
        // SAFETY: `Level::available` found the features.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe {
            return avx512::multiply(format, group, blocks, x, rows.clone(), tiles, sums);
        },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe {
            return avx2::multiply(format, group, blocks, x, rows.clone(), tiles, sums);
        },
        _ => {}
    }
    for first in (0..blocks).step_by(tiles.len()) {
        let tiles = &mut tiles[..usize::min(TILES, blocks - first)];
        for (i, tile) in tiles.iter_mut().enumerate() {
            *tile = Tile::of(format, group, first + i);
            let integers = std::array::from_fn(|lane| tile.integers(lane).map(|n| n as i16));
            for (row, sums) in rows.clone().zip(sums.iter_mut()) {
                add_block(format, tile, &integers, &x.quantised(row)[first + i], sums);
            }
        }
    }
}

/// Adds a tile's contribution for one row, as spec 4.3 says. The tile's
/// integers fit 16 bits: the largest are Q6_K's, 128 · 32.
fn add_block(
    format: Format,
    tile: &Tile,
    integers: &[[i16; BLOCK]; LANES],
    x: &QuantisedBlock,
    sums: &mut [f32; LANES],
) {
    let x_integers = x.codes.map(|code| i16::from(code) - x.zero);
    for (lane, sum) in sums.iter_mut().enumerate() {
        let products = integers[lane].iter().zip(&x_integers);
        let products = products.map(|(n, x)| i32::from(*n) * i32::from(*x));
        // Far from overflow; checked sums aren't vectorised.
        let dot = products.fold(0, i32::wrapping_add);
        *sum = (dot as f32).mul_add(tile.d[lane] * x.d, *sum);
        if has_min(format) {
            *sum = tile.min[lane].mul_add(x.t, *sum);
        }
    }
}

/// Float weights times a float row: one fused multiply-add per input, in
/// ascending order (spec 4.6).
fn multiply_floats(level: Level, format: Format, group: &[u8], x: &[f32], sums: &mut [f32; LANES]) {
    match format {
        Format::F32 => add_f32(level, group, x, sums),
        Format::F16 => add_f16(level, group, x, sums),
        Format::Bf16 => add_bf16(level, group, x, sums),
        _ => unreachable!("not a float format"),
    }
}

super::level::for_every_level! {
    fn add_f32(group: &[u8], x: &[f32], sums: &mut [f32; LANES]) {
        for (weights, x) in group.as_chunks::<{ 4 * LANES }>().0.iter().zip(x) {
            for (weight, sum) in weights.as_chunks::<4>().0.iter().zip(&mut *sums) {
                *sum = f32::from_le_bytes(*weight).mul_add(*x, *sum);
            }
        }
    }

    fn add_f16(group: &[u8], x: &[f32], sums: &mut [f32; LANES]) {
        for (weights, x) in group.as_chunks::<{ 2 * LANES }>().0.iter().zip(x) {
            for (weight, sum) in weights.as_chunks::<2>().0.iter().zip(&mut *sums) {
                *sum = f16_to_f32(u16::from_le_bytes(*weight)).mul_add(*x, *sum);
            }
        }
    }

    fn add_bf16(group: &[u8], x: &[f32], sums: &mut [f32; LANES]) {
        for (weights, x) in group.as_chunks::<{ 2 * LANES }>().0.iter().zip(x) {
            for (weight, sum) in weights.as_chunks::<2>().0.iter().zip(&mut *sums) {
                *sum = bf16_to_f32(u16::from_le_bytes(*weight)).mul_add(*x, *sum);
            }
        }
    }
}

#[cfg(test)]
mod tests;
