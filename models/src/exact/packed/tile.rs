//! A tile unpacked: plain codes and scales, one lane per output.
//!
//! [`Tile::of`] is the readable meaning of the packed bytes, and what the
//! portable kernels use; the vector kernels fill the same struct in their way.

use super::{BLOCK, LANES, Layout};
use crate::exact::blocks::{Block, Format};
use crate::exact::elementary::f16_to_f32;

/// Sixteen outputs × 32 inputs. Output `o`'s weight for input `i` is
/// `d[o] · (scale[i / 16][o] · code − offset[o][i / 16]) + min[o]`, where
/// `code` is unsigned: `codes[i / 4][o][i % 4]`.
#[derive(Clone)]
#[repr(C, align(64))]
pub struct Tile {
    /// Codes, or their low nibbles where a kernel splits bytes in two.
    pub codes: [[[u8; 4]; LANES]; 8],
    /// High nibbles, where a kernel splits bytes in two.
    pub high: [[[u8; 4]; LANES]; 8],
    /// Scales.
    pub d: [f32; LANES],
    /// Additive terms; zero for formats that have none.
    pub min: [f32; LANES],
    /// Integer scales of the two half-blocks, twice each: as the pairs of
    /// 16-bit factors that a multiply-add instruction takes.
    pub scale: [[[i16; 2]; LANES]; 2],
    /// What unsigned codes are too large by, times the integer scale, for the
    /// two half-blocks.
    pub offset: [[i16; 2]; LANES],
    /// Sums of all codes, times the integer scales. Only vector kernels use it.
    pub sum: [i32; LANES],
}

impl Tile {
    /// All zero.
    pub const ZERO: Self = Self {
        codes: [[[0; 4]; LANES]; 8],
        high: [[[0; 4]; LANES]; 8],
        d: [0.0; LANES],
        min: [0.0; LANES],
        scale: [[[1; 2]; LANES]; 2],
        offset: [[0; 2]; LANES],
        sum: [0; LANES],
    };

    /// Unpacks tile `index` of a group.
    pub fn of(format: Format, group: &[u8], index: usize) -> Self {
        let layout = Layout::of(format);
        let head = &group[layout.unit_at(index)..][..layout.head];
        let bytes = &group[layout.tile_at(index)..][..layout.tile];
        let scales = &bytes[layout.scales..];
        let half =
            |from: &[u8], at: usize| f16_to_f32(u16::from_le_bytes([from[at], from[at + 1]]));
        let mut tile = Self::ZERO;
        for lane in 0..LANES {
            for (quad, codes) in tile.codes.iter_mut().enumerate() {
                for (i, code) in codes[lane].iter_mut().enumerate() {
                    *code = code_at(format, bytes, layout.high, 4 * lane + i, quad);
                }
            }
            let integer = |part: usize| scales[LANES * part + lane];
            match format {
                Format::Q4K | Format::Q5K => {
                    tile.d[lane] = half(head, 2 * lane);
                    tile.min[lane] = -(half(head, 32 + 2 * lane) * f32::from(integer(1)));
                    tile.scale[0][lane] = [i16::from(integer(0)); 2];
                    tile.scale[1][lane] = tile.scale[0][lane];
                }
                Format::Q6K => {
                    tile.d[lane] = half(head, 2 * lane);
                    for part in 0..2 {
                        let scale = i16::from(integer(part) as i8);
                        tile.scale[part][lane] = [scale; 2];
                        tile.offset[lane][part] = 32 * scale;
                    }
                }
                _ => {
                    tile.d[lane] = half(scales, 2 * lane);
                    if has_min(format) {
                        tile.min[lane] = half(scales, 32 + 2 * lane);
                    }
                    tile.offset[lane] = [excess(format); 2];
                }
            }
        }
        tile
    }

    /// One lane's integers: codes without their excess, times integer scales.
    #[inline(always)]
    pub fn integers(&self, lane: usize) -> [i32; BLOCK] {
        std::array::from_fn(|i| {
            let code = i32::from(self.codes[i / 4][lane][i % 4]);
            let half = i / 16;
            i32::from(self.scale[half][lane][0]) * code - i32::from(self.offset[lane][half])
        })
    }

    /// One lane's weights.
    pub fn block(&self, format: Format, lane: usize) -> Block {
        Block {
            n: self.integers(lane),
            d: self.d[lane],
            min: has_min(format).then_some(self.min[lane]),
        }
    }
}

/// Whether weights have an additive term.
pub const fn has_min(format: Format) -> bool {
    matches!(
        format,
        Format::Q4_1 | Format::Q5_1 | Format::Q4K | Format::Q5K
    )
}

/// By how much unsigned codes exceed the integers that they stand for, before
/// integer scales.
pub const fn excess(format: Format) -> i16 {
    match format {
        Format::Q4_0 => 8,
        Format::Q5_0 => 16,
        Format::Q8_0 => 128,
        _ => 0,
    }
}

/// The unsigned code in byte `lane` of quad `quad`.
fn code_at(format: Format, tile: &[u8], high: usize, lane: usize, quad: usize) -> u8 {
    if format == Format::Q8_0 {
        return tile[64 * quad + lane] ^ 0x80;
    }
    let low = tile[64 * (quad / 2) + lane] >> (4 * (quad % 2)) & 15;
    let above = match format {
        Format::Q5_0 | Format::Q5_1 | Format::Q5K => tile[high + lane] >> quad & 1,
        Format::Q6K => tile[high + 64 * (quad / 4) + lane] >> (2 * (quad % 4)) & 3,
        _ => 0,
    };
    low | above << 4
}
