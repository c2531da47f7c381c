//! Functions of single rows: RMS norm, rotary embedding, the gates of the
//! feed-forward layer, caps, and reductions with a fixed tree.

use super::elementary::{exp, tanh};
use super::level::for_every_level;

/// Lanes of a fixed-order sum (spec 3.1).
pub const SUM_LANES: usize = 32;

/// Adds up 32 partial sums as a balanced tree: lane i takes lane i + 16, then
/// i + 8, 4, 2, 1 (spec 3.1).
#[inline(always)]
pub fn sum_lanes(mut lanes: [f32; SUM_LANES]) -> f32 {
    let mut half = SUM_LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

#[inline(always)]
fn sum_of_squares(x: &[f32]) -> f32 {
    let mut lanes = [0.0; SUM_LANES];
    let (whole, rest) = x.as_chunks::<SUM_LANES>();
    for chunk in whole {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = x.mul_add(*x, *lane);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = x.mul_add(*x, *lane);
    }
    sum_lanes(lanes)
}

for_every_level! {
    /// RMS norm (spec 5.2).
    pub fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        let mean = sum_of_squares(x) / x.len() as f32;
        let factor = 1.0 / (mean + epsilon).sqrt();
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = x * factor * weight;
        }
    }

    /// RMS norm of a row onto itself (spec 5.2).
    pub fn rms_norm_in_place(x: &mut [f32], weight: &[f32], epsilon: f32) {
        let mean = sum_of_squares(x) / x.len() as f32;
        let factor = 1.0 / (mean + epsilon).sqrt();
        for (x, weight) in x.iter_mut().zip(weight) {
            *x = *x * factor * weight;
        }
    }

    /// Rotates the pairs (2i, 2i + 1) of a head (spec 5.3).
    pub fn rotate_adjacent(head: &mut [f32], cos: &[f32], sin: &[f32]) {
        for ((pair, cos), sin) in head.as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin) {
            let [a, b] = *pair;
            *pair = [a.mul_add(*cos, -(b * sin)), b.mul_add(*cos, a * sin)];
        }
    }

    /// Rotates the pairs (i, i + n) of a head's first 2n dimensions, n the
    /// number of angles (spec 5.3).
    pub fn rotate_halves(head: &mut [f32], cos: &[f32], sin: &[f32]) {
        let (low, high) = head.split_at_mut(cos.len());
        for (((a, b), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
            let (x, y) = (*a, *b);
            *a = x.mul_add(*cos, -(y * sin));
            *b = y.mul_add(*cos, x * sin);
        }
    }

    /// x ← factor · x.
    pub fn scale(x: &mut [f32], factor: f32) {
        for x in x {
            *x *= factor;
        }
    }

    /// x ← x + y.
    pub fn add(x: &mut [f32], y: &[f32]) {
        for (x, y) in x.iter_mut().zip(y) {
            *x += y;
        }
    }

    /// SwiGLU (spec 5.6): silu(gate) · up.
    pub fn swiglu(gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            *out = gate / (1.0 + exp(-gate)) * up;
        }
    }

    /// GeGLU (spec 5.7): gelu(gate) · up, gelu by its tanh formula.
    pub fn geglu(gate: &[f32], up: &[f32], out: &mut [f32]) {
        // −2·√(2/π)
        const FACTOR: f32 = f32::from_bits(0xBFCC_422A);
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            let g = *gate;
            let cubic = (g * g * g).mul_add(0.044_715, g);
            *out = g / (1.0 + exp(FACTOR * cubic)) * up;
        }
    }

    /// x ← cap · tanh(x / cap) (spec 5.8).
    pub fn soft_cap(x: &mut [f32], cap: f32) {
        for x in x {
            *x = cap * tanh(*x / cap);
        }
    }

    /// Softmax weights of scores, not yet divided by their sum, which is added
    /// up in `total` (spec 5.5). `scores` has a whole number of 256-position
    /// segments or is the last; what isn't visible is −∞.
    pub fn exp_weights(scores: &mut [f32], max: f32, total: &mut f32) {
        for segment in scores.chunks_mut(256) {
            let mut lanes = [0.0; SUM_LANES];
            for chunk in segment.as_chunks_mut::<SUM_LANES>().0 {
                for (lane, score) in lanes.iter_mut().zip(chunk) {
                    *score = exp(*score - max);
                    *lane += *score;
                }
            }
            *total += sum_lanes(lanes);
        }
    }

    /// The largest of `scores` and `max`; NaN is passed over.
    pub fn raise_max(scores: &[f32], max: &mut f32) {
        let mut lanes = [*max; SUM_LANES];
        for chunk in scores.as_chunks::<SUM_LANES>().0 {
            for (lane, score) in lanes.iter_mut().zip(chunk) {
                *lane = if *score > *lane { *score } else { *lane };
            }
        }
        for lane in lanes {
            *max = if lane > *max { lane } else { *max };
        }
    }
}

/// Whether every number is finite: what isn't is an error (spec 2.4).
pub fn all_finite(x: &[f32]) -> bool {
    x.iter()
        .fold(0, |max, x| u32::max(max, x.to_bits() & 0x7FFF_FFFF))
        < 0x7F80_0000
}

#[cfg(test)]
mod tests;
