//! The GGUF tensor formats, read block by block: what a stored block says.
//!
//! Thirty-two consecutive weights of an output are, in every quantised format,
//! `d · n[i] + min` with integers `n` (spec 4.1). This file is the meaning of
//! the bytes; how the fast kernels lay them out is `packed`'s business.

use candle_core::quantized::GgmlDType;

use super::elementary::{bf16_to_f32, f16_to_f32};

/// How a tensor is stored. Only what the exact profile can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "GGUF's own names")]
pub enum Format {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

/// Thirty-two weights: `d · n[i] + min`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Block {
    /// The integer parts, a sub-block's integer scale multiplied in.
    pub n: [i32; 32],
    /// The scale.
    pub d: f32,
    /// The additive term, for formats that have one.
    pub min: Option<f32>,
}

impl Format {
    /// The format for what the GGUF calls `dtype`, if the profile has it.
    pub fn of(dtype: GgmlDType) -> Option<Self> {
        Some(match dtype {
            GgmlDType::F32 => Self::F32,
            GgmlDType::F16 => Self::F16,
            GgmlDType::BF16 => Self::Bf16,
            GgmlDType::Q4_0 => Self::Q4_0,
            GgmlDType::Q4_1 => Self::Q4_1,
            GgmlDType::Q5_0 => Self::Q5_0,
            GgmlDType::Q5_1 => Self::Q5_1,
            GgmlDType::Q8_0 => Self::Q8_0,
            GgmlDType::Q4K => Self::Q4K,
            GgmlDType::Q5K => Self::Q5K,
            GgmlDType::Q6K => Self::Q6K,
            _ => return None,
        })
    }

    /// Whether weights are plain floats, multiplied with unquantised inputs.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::Bf16)
    }

    /// Weights stored together: a row's length is a multiple of it.
    pub fn weights_per_unit(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of such a unit.
    pub fn bytes_per_unit(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Bytes of a row of `columns` weights.
    pub fn row_bytes(self, columns: usize) -> usize {
        columns / self.weights_per_unit() * self.bytes_per_unit()
    }

    /// Weight `column` of a float row.
    ///
    /// # Panics
    /// For a quantised format.
    pub fn float(self, row: &[u8], column: usize) -> f32 {
        let half = || u16::from_le_bytes([row[2 * column], row[2 * column + 1]]);
        match self {
            Self::F32 => f32::from_le_bytes(
                row[4 * column..][..4]
                    .try_into()
                    .expect("four bytes were sliced"),
            ),
            Self::F16 => f16_to_f32(half()),
            Self::Bf16 => bf16_to_f32(half()),
            _ => panic!("{self:?} has blocks, not single weights"),
        }
    }

    /// Weights `32·index ..` of a quantised row (spec 4.2).
    ///
    /// # Panics
    /// For a float format.
    pub fn block(self, row: &[u8], index: usize) -> Block {
        let blocks_per_unit = self.weights_per_unit() / 32;
        let size = self.bytes_per_unit();
        let unit = &row[index / blocks_per_unit.max(1) * size..][..size];
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => panic!("{self:?} has no blocks"),
            Self::Q4_0 => Block {
                n: nibbles(&unit[2..18]).map(|n| n - 8),
                d: half_at(unit, 0),
                min: None,
            },
            Self::Q4_1 => Block {
                n: nibbles(&unit[4..20]),
                d: half_at(unit, 0),
                min: Some(half_at(unit, 2)),
            },
            Self::Q5_0 => Block {
                n: five_bits(&unit[6..22], &unit[2..6]).map(|n| n - 16),
                d: half_at(unit, 0),
                min: None,
            },
            Self::Q5_1 => Block {
                n: five_bits(&unit[8..24], &unit[4..8]),
                d: half_at(unit, 0),
                min: Some(half_at(unit, 2)),
            },
            Self::Q8_0 => Block {
                n: std::array::from_fn(|i| i32::from(unit[2 + i] as i8)),
                d: half_at(unit, 0),
                min: None,
            },
            Self::Q4K => {
                let (scale, min) = six_bit_pair(&unit[4..16], index % 8);
                Block {
                    n: std::array::from_fn(|i| scale * q4k_code(&unit[16..], index % 8, i)),
                    d: half_at(unit, 0),
                    min: Some(-(half_at(unit, 2) * min as f32)),
                }
            }
            Self::Q5K => {
                let (scale, min) = six_bit_pair(&unit[4..16], index % 8);
                let code = |i: usize| {
                    let high = i32::from(unit[16 + i] >> (index % 8) & 1);
                    q4k_code(&unit[48..], index % 8, i) + 16 * high
                };
                Block {
                    n: std::array::from_fn(|i| scale * code(i)),
                    d: half_at(unit, 0),
                    min: Some(-(half_at(unit, 2) * min as f32)),
                }
            }
            Self::Q6K => {
                let j = index % 8;
                let scale = |i: usize| i32::from(unit[192 + 2 * j + i / 16] as i8);
                Block {
                    n: std::array::from_fn(|i| scale(i) * (q6k_code(unit, j, i) - 32)),
                    d: half_at(unit, 208),
                    min: None,
                }
            }
        }
    }

    /// Weights of a row as f32 (spec 4.4), as the embedding needs them.
    pub fn dequantise(self, row: &[u8], out: &mut [f32]) {
        if self.is_float() {
            for (column, value) in out.iter_mut().enumerate() {
                *value = self.float(row, column);
            }
            return;
        }
        for (index, values) in out.chunks_exact_mut(32).enumerate() {
            self.block(row, index).dequantise(values);
        }
    }
}

impl Block {
    /// The block's weights as f32 (spec 4.4).
    pub fn dequantise(&self, out: &mut [f32]) {
        for (value, n) in out.iter_mut().zip(self.n) {
            *value = match self.min {
                Some(min) => self.d.mul_add(n as f32, min),
                None => self.d * n as f32,
            };
        }
    }
}

fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

/// Low nibbles are weights 0–15, high nibbles 16–31.
fn nibbles(codes: &[u8]) -> [i32; 32] {
    std::array::from_fn(|i| i32::from(codes[i % 16] >> (4 * (i / 16)) & 15))
}

/// [`nibbles`] with a fifth bit: bit i of the little-endian word `high`.
fn five_bits(codes: &[u8], high: &[u8]) -> [i32; 32] {
    let low = nibbles(codes);
    std::array::from_fn(|i| low[i] + 16 * i32::from(high[i / 8] >> (i % 8) & 1))
}

/// Sub-block j's scale and min: eight pairs of 6 bits in 12 bytes.
pub(super) fn six_bit_pair(packed: &[u8], j: usize) -> (i32, i32) {
    let (scale, min) = if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        (
            packed[j + 4] & 15 | packed[j - 4] >> 6 << 4,
            packed[j + 4] >> 4 | packed[j] >> 6 << 4,
        )
    };
    (i32::from(scale), i32::from(min))
}

/// Code i of sub-block j: pairs of sub-blocks share 32 bytes, low nibbles first.
pub(super) fn q4k_code(codes: &[u8], j: usize, i: usize) -> i32 {
    i32::from(codes[32 * (j / 2) + i] >> (4 * (j % 2)) & 15)
}

/// Code i (0–63) of the j-th 32 weights of a Q6_K unit.
pub(super) fn q6k_code(unit: &[u8], j: usize, i: usize) -> i32 {
    let (half, quarter) = (j / 4, j % 4);
    let low = unit[64 * half + 32 * (quarter % 2) + i] >> (4 * (quarter / 2)) & 15;
    let high = unit[128 + 32 * half + i] >> (2 * quarter) & 3;
    i32::from(low | high << 4)
}
