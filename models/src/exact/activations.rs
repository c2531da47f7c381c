//! The inputs of linear layers: rows of f32, and the same rows quantised to
//! int8 in blocks of 32 (spec 4.5).

use super::elementary::{ROUND, rounded_integer};
use super::level::{Level, for_every_level};
use super::memory::Floats;
use super::packed::BLOCK;

/// Thirty-two quantised inputs: each is about `d · (code − zero)`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct QuantisedBlock {
    /// Integers in −127..=127.
    pub codes: [i8; BLOCK],
    /// The scale.
    pub d: f32,
    /// Sum of `code − zero`.
    pub sum: i16,
    /// The code that stands for 0, in −127..=127.
    pub zero: i16,
    /// `d` times the sum.
    pub t: f32,
    /// The two halves' parts of the sum.
    pub halves: [i16; 2],
}

impl QuantisedBlock {
    /// Zeros.
    pub const ZERO: Self = Self {
        codes: [0; BLOCK],
        d: 0.0,
        t: 0.0,
        halves: [0; 2],
        sum: 0,
        zero: 0,
    };
}

/// Rows that a linear layer multiplies.
pub struct Activations {
    columns: usize,
    floats: Floats,
    blocks: Vec<QuantisedBlock>,
}

impl Activations {
    /// Room for `rows` rows.
    pub fn new(rows: usize, columns: usize) -> Self {
        Self {
            columns,
            floats: Floats::zeroed(rows * columns),
            blocks: vec![QuantisedBlock::ZERO; rows * (columns / BLOCK)],
        }
    }

    /// A row's length.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// A row before quantisation: what float weights multiply.
    pub fn floats(&self, row: usize) -> &[f32] {
        &self.floats[row * self.columns..][..self.columns]
    }

    /// A quantised row.
    pub fn quantised(&self, row: usize) -> &[QuantisedBlock] {
        let blocks = self.columns / BLOCK;
        &self.blocks[row * blocks..][..blocks]
    }

    /// The parts that workers fill, row by row.
    pub fn parts_mut(&mut self) -> (&mut [f32], &mut [QuantisedBlock]) {
        (&mut self.floats, &mut self.blocks)
    }
}

/// Quantises a row, block by block (spec 4.5). Rows that aren't whole blocks
/// have no quantised form: there are no quantised weights for them.
pub fn quantise(level: Level, x: &[f32], blocks: &mut [QuantisedBlock]) {
    if x.len().is_multiple_of(BLOCK) {
        quantise_blocks(level, x, blocks);
    }
}

for_every_level! {
    fn quantise_blocks(x: &[f32], blocks: &mut [QuantisedBlock]) {
        for (x, block) in x.as_chunks::<BLOCK>().0.iter().zip(blocks) {
            let mut low = [0.0_f32; 8];
            let mut high = [0.0_f32; 8];
            // Infinity and NaN have the largest magnitudes, seen as integers.
            let mut largest = [0_u32; 8];
            for x in x.as_chunks::<8>().0 {
                for i in 0..8 {
                    low[i] = if x[i] < low[i] { x[i] } else { low[i] };
                    high[i] = if x[i] > high[i] { x[i] } else { high[i] };
                    largest[i] = u32::max(largest[i], x[i].to_bits() & 0x7FFF_FFFF);
                }
            }
            let low = low.into_iter().fold(0.0, f32::min);
            let high = high.into_iter().fold(0.0, f32::max);
            let largest = largest.into_iter().fold(0, u32::max);
            let width = high - low;
            if width < NARROWEST || largest >= 0x7F80_0000 || width == f32::INFINITY {
                *block = QuantisedBlock::ZERO;
                if width >= NARROWEST || largest >= 0x7F80_0000 {
                    (block.d, block.t) = (f32::NAN, f32::NAN);
                }
                continue;
            }
            let inverse = 254.0 / width;
            let zero = -127 - rounded_integer(low * inverse + ROUND);
            let most = 127 - zero;
            let mut halves = [0; 2];
            for (half, sum) in halves.iter_mut().enumerate() {
                let codes = block.codes[16 * half..].iter_mut();
                for (code, x) in codes.zip(&x[16 * half..][..16]) {
                    let steps = rounded_integer(x * inverse + ROUND);
                    let steps = i32::min(steps, most);
                    // Far from overflow; checked sums aren't vectorised.
                    *code = steps.wrapping_add(zero) as i8;
                    *sum = i32::wrapping_add(*sum, steps);
                }
            }
            block.d = width / 254.0;
            block.t = block.d * (halves[0] + halves[1]) as f32;
            block.halves = halves.map(|sum| sum as i16);
            block.sum = (halves[0] + halves[1]) as i16;
            block.zero = zero as i16;
        }
    }
}

/// Blocks narrower than 2⁻¹⁰⁰ are zero: their reciprocals could overflow.
const NARROWEST: f32 = f32::from_bits(0x0D80_0000);

#[cfg(test)]
mod tests;
