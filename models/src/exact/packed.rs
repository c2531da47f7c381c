//! Linear weights as the kernels read them: sixteen outputs side by side.
//!
//! A *group* is sixteen consecutive outputs, a *tile* a group's weights for 32
//! consecutive inputs. Tiles of a group follow each other, so a group is one
//! stream of bytes, about as large as the GGUF's. Inside a tile, a lane of four bytes
//! belongs to one output and holds four consecutive inputs (a *quad*), so that
//! a vector register has eight or sixteen outputs side by side, and every
//! output has an accumulator of its own (spec 4.3). Start at [`Packed`].

use std::ops::Range;

use super::blocks::{Format, q4k_code, q6k_code, six_bit_pair};
use super::memory::Frozen;
#[cfg(test)]
use super::memory::Memory;

/// Outputs side by side.
pub const LANES: usize = 16;
/// Inputs in a tile.
pub const BLOCK: usize = 32;

/// A matrix of `outputs × inputs`, repacked.
#[derive(Clone)]
pub struct Packed {
    format: Format,
    outputs: usize,
    inputs: usize,
    memory: Frozen,
    range: Range<usize>,
}

/// Where the parts of a tile lie, in bytes from its start, and how tiles
/// follow each other.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Bytes before the first tile of a unit: the scales of a K-quant's 256.
    pub head: usize,
    /// Tiles in a unit.
    pub tiles: usize,
    /// Bytes of a tile.
    pub tile: usize,
    /// Start of the plane with the codes' fifth and sixth bits.
    pub high: usize,
    /// Start of what follows the codes: scales.
    pub scales: usize,
}

impl Layout {
    /// The layout of a quantised format.
    pub const fn of(format: Format) -> Self {
        // codes, high bits, bytes of scales; bytes of head
        let (codes, high, scales, head) = match format {
            Format::F32 | Format::F16 | Format::Bf16 => (0, 0, 0, 0),
            Format::Q4_0 => (256, 0, 32, 0),
            Format::Q4_1 => (256, 0, 64, 0),
            Format::Q5_0 => (256, 64, 32, 0),
            Format::Q5_1 => (256, 64, 64, 0),
            Format::Q8_0 => (512, 0, 32, 0),
            Format::Q4K => (256, 0, 32, 64),
            Format::Q5K => (256, 64, 32, 64),
            Format::Q6K => (256, 128, 32, 32),
        };
        Self {
            head,
            tiles: if head > 0 { 8 } else { 1 },
            tile: codes + high + scales,
            high: codes,
            scales: codes + high,
        }
    }

    /// Where tile `index` of a group starts.
    #[inline(always)]
    pub const fn tile_at(&self, index: usize) -> usize {
        self.unit_at(index) + self.head + index % self.tiles * self.tile
    }

    /// Where the head of tile `index`'s unit starts.
    #[inline(always)]
    pub const fn unit_at(&self, index: usize) -> usize {
        index / self.tiles * (self.head + self.tiles * self.tile)
    }
}

impl Packed {
    /// Bytes that `outputs × inputs` weights take when packed.
    pub fn packed_bytes(format: Format, outputs: usize, inputs: usize) -> usize {
        outputs.div_ceil(LANES) * group_bytes(format, inputs)
    }

    /// Packs one matrix into memory of its own; a model packs all of its
    /// matrices into one: [`pack_into`] and [`Packed::within`].
    #[cfg(test)]
    pub fn pack(
        format: Format,
        outputs: usize,
        inputs: usize,
        gguf: &[u8],
    ) -> std::io::Result<Self> {
        let bytes = Self::packed_bytes(format, outputs, inputs);
        let mut memory = Memory::zeroed(bytes)?;
        pack_into(format, inputs, gguf, &mut memory.bytes_mut()[..bytes]);
        Ok(Self::within(
            format,
            outputs,
            inputs,
            memory.freeze(),
            0..bytes,
        ))
    }

    /// The matrix that [`pack_into`] left in `range` of `memory`.
    pub fn within(
        format: Format,
        outputs: usize,
        inputs: usize,
        memory: Frozen,
        range: Range<usize>,
    ) -> Self {
        assert_eq!(range.len(), Self::packed_bytes(format, outputs, inputs));
        assert!(range.end <= memory.bytes().len());
        Self {
            format,
            outputs,
            inputs,
            memory,
            range,
        }
    }

    /// How the weights are stored.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.range.len()
    }

    /// Rows of the matrix.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Columns of the matrix.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Groups of [`LANES`] outputs; the last may be filled up with zero weights.
    pub fn groups(&self) -> usize {
        self.outputs.div_ceil(LANES)
    }

    /// One group's bytes.
    pub fn group(&self, group: usize) -> &[u8] {
        let size = group_bytes(self.format, self.inputs);
        &self.memory.bytes()[self.range.clone()][group * size..][..size]
    }

    /// One output's weights as f32 (spec 4.4): the embedding of a token.
    pub fn dequantise_row(&self, output: usize, out: &mut [f32]) {
        let (bytes, lane) = (self.group(output / LANES), output % LANES);
        if self.format.is_float() {
            let size = self.format.bytes_per_unit();
            for (column, value) in out.iter_mut().enumerate() {
                let at = (column * LANES + lane) * size;
                *value = self.format.float(&bytes[at..][..size], 0);
            }
            return;
        }
        for (index, values) in out.chunks_exact_mut(BLOCK).enumerate() {
            Tile::of(self.format, bytes, index)
                .block(self.format, lane)
                .dequantise(values);
        }
    }
}

fn group_bytes(format: Format, inputs: usize) -> usize {
    if format.is_float() {
        return inputs * LANES * format.bytes_per_unit();
    }
    let layout = Layout::of(format);
    inputs / format.weights_per_unit() * (layout.head + layout.tiles * layout.tile)
}

/// Repacks a GGUF matrix; `packed` is zeroed and exactly large enough.
pub fn pack_into(format: Format, inputs: usize, gguf: &[u8], packed: &mut [u8]) {
    let row_bytes = format.row_bytes(inputs);
    let groups = packed.chunks_exact_mut(group_bytes(format, inputs));
    for (rows, group) in gguf.chunks(row_bytes * LANES).zip(groups) {
        for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
            if format.is_float() {
                pack_floats(format.bytes_per_unit(), lane, row, group);
            } else {
                pack_row(format, lane, row, group);
            }
        }
    }
}

/// Floats lie `[input][lane]`.
fn pack_floats(size: usize, lane: usize, row: &[u8], group: &mut [u8]) {
    let wide = size * LANES;
    for (weight, lanes) in row.chunks_exact(size).zip(group.chunks_exact_mut(wide)) {
        lanes[lane * size..][..size].copy_from_slice(weight);
    }
}

fn pack_row(format: Format, lane: usize, row: &[u8], group: &mut [u8]) {
    let layout = Layout::of(format);
    let units = row.chunks_exact(format.bytes_per_unit());
    let packed = group.chunks_exact_mut(layout.head + layout.tiles * layout.tile);
    for (unit, packed) in units.zip(packed) {
        let (head, tiles) = packed.split_at_mut(layout.head);
        for (part, at) in head_parts(format).iter().enumerate() {
            head[32 * part + 2 * lane..][..2].copy_from_slice(&unit[*at..*at + 2]);
        }
        for (j, tile) in tiles.chunks_exact_mut(layout.tile).enumerate() {
            let (codes, scales) = codes_and_scales(format, unit, j);
            pack_codes(format, &codes, lane, tile);
            let width = if layout.head > 0 { 1 } else { 2 };
            for (part, scale) in scales.chunks_exact(width).enumerate() {
                let at = layout.scales + LANES * width * part + lane * width;
                if at < layout.tile {
                    tile[at..at + width].copy_from_slice(scale);
                }
            }
        }
    }
}

/// Where in a GGUF unit the f16 scales of a K-quant stand.
fn head_parts(format: Format) -> &'static [usize] {
    match format {
        Format::Q4K | Format::Q5K => &[0, 2],
        Format::Q6K => &[208],
        _ => &[],
    }
}

/// The codes of a unit's j-th 32 weights (unsigned but for Q8_0's), and their
/// scale bytes: two f16, or a K-quant's two 8-bit integers.
#[inline]
fn codes_and_scales(format: Format, unit: &[u8], j: usize) -> ([u8; 32], [u8; 4]) {
    let f16s = [unit[0], unit[1], unit[2], unit[3]];
    match format {
        Format::Q4_0 => (nibbles(&unit[2..]), f16s),
        Format::Q4_1 => (nibbles(&unit[4..]), f16s),
        Format::Q5_0 => (with_fifth(nibbles(&unit[6..]), &unit[2..]), f16s),
        Format::Q5_1 => (with_fifth(nibbles(&unit[8..]), &unit[4..]), f16s),
        Format::Q8_0 => (*unit[2..].first_chunk().expect("32 codes"), f16s),
        Format::Q4K | Format::Q5K => {
            let (scale, min) = six_bit_pair(&unit[4..16], j);
            let code = |i: usize| match format {
                Format::Q4K => q4k_code(&unit[16..], j, i) as u8,
                _ => q4k_code(&unit[48..], j, i) as u8 | (unit[16 + i] >> j & 1) << 4,
            };
            (std::array::from_fn(code), [scale as u8, min as u8, 0, 0])
        }
        Format::Q6K => {
            let codes = std::array::from_fn(|i| q6k_code(unit, j, i) as u8);
            (codes, [unit[192 + 2 * j], unit[193 + 2 * j], 0, 0])
        }
        Format::F32 | Format::F16 | Format::Bf16 => unreachable!("floats have no codes"),
    }
}

#[inline]
fn nibbles(bytes: &[u8]) -> [u8; 32] {
    let bytes: &[u8; 16] = bytes.first_chunk().expect("32 nibbles");
    let mut codes = [0; 32];
    let (low, high) = codes.split_at_mut(16);
    for ((byte, low), high) in bytes.iter().zip(low).zip(high) {
        (*low, *high) = (byte & 15, byte >> 4);
    }
    codes
}

fn with_fifth(mut codes: [u8; 32], bits: &[u8]) -> [u8; 32] {
    for (i, code) in codes.iter_mut().enumerate() {
        *code |= (bits[i / 8] >> (i % 8) & 1) << 4;
    }
    codes
}

/// Writes one lane's 32 codes.
fn pack_codes(format: Format, codes: &[u8; 32], lane: usize, tile: &mut [u8]) {
    let quad = |q: usize| u32::from_le_bytes(codes.as_chunks().0[q]);
    let mut put = |at: usize, value: u32| {
        tile[at + 4 * lane..][..4].copy_from_slice(&value.to_le_bytes());
    };
    if format == Format::Q8_0 {
        for q in 0..8 {
            put(64 * q, quad(q));
        }
        return;
    }
    const LOW: u32 = 0x0F0F_0F0F;
    for line in 0..4 {
        let (even, odd) = (quad(2 * line), quad(2 * line + 1));
        put(64 * line, even & LOW | (odd & LOW) << 4);
    }
    match format {
        Format::Q5_0 | Format::Q5_1 | Format::Q5K => {
            let bits = (0..8).fold(0, |bits, q| bits | (quad(q) >> 4 & 0x0101_0101) << q);
            put(256, bits);
        }
        Format::Q6K => {
            for line in 0..2 {
                let bits = (0..4).fold(0, |bits, q| {
                    bits | (quad(4 * line + q) >> 4 & 0x0303_0303) << (2 * q)
                });
                put(256 + 64 * line, bits);
            }
        }
        _ => {}
    }
}

mod tile;
pub use tile::{Tile, excess, has_min};

#[cfg(test)]
mod tests;
