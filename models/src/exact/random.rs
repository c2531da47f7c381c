//! Random weights and inputs for tests: reproducible from a seed.

use super::blocks::Format;
use super::elementary::f32_to_f16;

/// A small generator (splitmix64); statistics don't matter here.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// About normally distributed.
    pub fn normal(&mut self) -> f32 {
        let sum: i64 = (0..12).map(|_| (self.bits() >> 40) as i64).sum();
        (sum - 6 * (1 << 24)) as f32 / (1 << 24) as f32
    }

    /// A tensor of `count` weights of size about 0.05 in a GGUF format.
    pub fn weights(&mut self, format: Format, count: usize) -> Vec<u8> {
        let units = count / format.weights_per_unit();
        let mut bytes = Vec::new();
        for _ in 0..units {
            match format {
                Format::F32 => bytes.extend((0.05 * self.normal()).to_le_bytes()),
                Format::F16 => bytes.extend(f32_to_f16(0.05 * self.normal()).to_le_bytes()),
                Format::Bf16 => {
                    let bits = (0.05 * self.normal()).to_bits() >> 16;
                    bytes.extend((bits as u16).to_le_bytes());
                }
                _ => {
                    let start = bytes.len();
                    bytes.resize_with(start + format.bytes_per_unit(), || self.bits() as u8);
                    let integers = match format {
                        Format::Q4K | Format::Q5K => 600.0,
                        Format::Q6K => 2000.0,
                        Format::Q8_0 => 100.0,
                        _ => 8.0,
                    };
                    let d = (1.0 + 0.2 * self.normal()) * 0.05 / integers;
                    let min = match format {
                        Format::Q4K | Format::Q5K => 0.05 / 32.0,
                        _ => -0.05,
                    };
                    set_scales(format, &mut bytes[start..], f32_to_f16(d), f32_to_f16(min));
                }
            }
        }
        bytes
    }
}

/// Overwrites the f16 scales of a GGUF unit.
pub fn set_scales(format: Format, unit: &mut [u8], d: u16, min: u16) {
    let (d_at, min_at) = match format {
        Format::Q4_1 | Format::Q5_1 | Format::Q4K | Format::Q5K => (0, Some(2)),
        Format::Q6K => (208, None),
        _ => (0, None),
    };
    unit[d_at..d_at + 2].copy_from_slice(&d.to_le_bytes());
    if let Some(at) = min_at {
        unit[at..at + 2].copy_from_slice(&min.to_le_bytes());
    }
}
