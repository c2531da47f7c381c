//! The operations of spec 3 to 5, each as plainly as it can be written.

use super::{Output, Tensor};
use crate::exact::architecture::{Pairing, Rope};
use crate::exact::blocks::Block;
use crate::exact::elementary::{exp, f16_to_f32, f32_to_f16, sin_cos_f64, tanh};

/// A sum of many numbers in 32 lanes (spec 3.1): lane i adds up the numbers
/// i, i + 32, …; then halves of the lanes are added together.
pub fn lane_sum(count: usize, add: impl Fn(usize, f32) -> f32) -> f32 {
    let mut lanes = [0.0; 32];
    for i in 0..count {
        lanes[i % 32] = add(i, lanes[i % 32]);
    }
    for half in [16, 8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
}

/// Thirty-two inputs as integers (spec 4.5).
pub struct Quantised {
    /// `code − zero`, in −254..=254.
    pub steps: [i32; 32],
    /// The scale.
    pub d: f32,
    /// The scale times the sum of `steps`.
    pub t: f32,
}

/// Quantises 32 inputs (spec 4.5).
pub fn quantise(x: &[f32]) -> Quantised {
    let low = x.iter().fold(0.0, |low: f32, x| low.min(*x));
    let high = x.iter().fold(0.0, |high: f32, x| high.max(*x));
    let width = high - low;
    if x.iter().any(|x| !x.is_finite()) || !width.is_finite() {
        return Quantised {
            steps: [0; 32],
            d: f32::NAN,
            t: f32::NAN,
        };
    }
    if width < f32::from_bits(0x0D80_0000) {
        return Quantised {
            steps: [0; 32],
            d: 0.0,
            t: 0.0,
        };
    }
    let inverse = 254.0 / width;
    let lowest = (low * inverse).round_ties_even() as i32;
    let mut steps = [0; 32];
    for (step, x) in steps.iter_mut().zip(x) {
        *step = i32::min((x * inverse).round_ties_even() as i32, lowest + 254);
    }
    let d = width / 254.0;
    let sum: i32 = steps.iter().sum();
    let t = d * sum as f32;
    Quantised { steps, d, t }
}

/// A linear layer for each of some rows (spec 4.3, 4.6).
pub fn linear(weights: &Tensor, rows: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let quantised: Vec<Vec<Quantised>> = rows
        .iter()
        .map(|x| x.chunks_exact(32).map(quantise).collect())
        .collect();
    let mut outputs = vec![Vec::new(); rows.len()];
    for output in 0..weights.outputs {
        let weights = weights.output(output);
        for ((x, blocks), outputs) in rows.iter().zip(&quantised).zip(&mut outputs) {
            outputs.push(match &weights {
                Output::Floats(weights) => float_sum(weights, x),
                Output::Blocks(weights) => block_sum(weights, blocks),
            });
        }
    }
    outputs
}

/// One output of float weights (spec 4.6).
fn float_sum(weights: &[f32], x: &[f32]) -> f32 {
    let mut sum = 0.0_f32;
    for (w, x) in weights.iter().zip(x) {
        sum = w.mul_add(*x, sum);
    }
    sum
}

/// One output of quantised weights (spec 4.3).
fn block_sum(weights: &[Block], x: &[Quantised]) -> f32 {
    let mut sum = 0.0_f32;
    for (weights, x) in weights.iter().zip(x) {
        let products = weights.n.iter().zip(x.steps).map(|(n, step)| n * step);
        // Far from overflow; unchecked sums are faster.
        let dot = products.fold(0, i32::wrapping_add);
        sum = (dot as f32).mul_add(weights.d * x.d, sum);
        if let Some(min) = weights.min {
            sum = min.mul_add(x.t, sum);
        }
    }
    sum
}

/// RMS norm (spec 5.2).
pub fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32) -> Vec<f32> {
    let squares = lane_sum(x.len(), |i, sum| x[i].mul_add(x[i], sum));
    let mean = squares / x.len() as f32;
    let factor = 1.0 / (mean + epsilon).sqrt();
    x.iter().zip(weight).map(|(x, w)| x * factor * w).collect()
}

/// Rotary embedding of one head (spec 5.3).
pub fn rotate(head: &mut [f32], rope: &Rope, position: usize) {
    let pairs = rope.frequencies.len();
    for (i, frequency) in rope.frequencies.iter().enumerate() {
        let (first, second) = match rope.pairing {
            Pairing::Adjacent => (2 * i, 2 * i + 1),
            Pairing::Halves => (i, i + pairs),
        };
        let (sin, cos) = sin_cos_f64(position as f64 * frequency);
        let (sin, cos) = (sin as f32, cos as f32);
        let (a, b) = (head[first], head[second]);
        head[first] = a.mul_add(cos, -(b * sin));
        head[second] = b.mul_add(cos, a * sin);
    }
}

/// Keys and values as the cache keeps them (spec 5.4).
pub fn round_to_f16(x: &mut [f32]) {
    for x in x {
        *x = f16_to_f32(f32_to_f16(*x));
    }
}

/// Attention of one query over keys and values of the positions from `first`
/// on (spec 5.5).
pub fn attention(
    query: &[f32],
    pairs: &[(&[f32], &[f32])],
    first: usize,
    cap: Option<f32>,
) -> Vec<f32> {
    let mut scores = Vec::new();
    for (key, _) in pairs {
        let mut score = 0.0_f32;
        for (q, k) in query.iter().zip(*key) {
            score = q.mul_add(*k, score);
        }
        scores.push(match cap {
            Some(cap) => cap * tanh(score / cap),
            None => score,
        });
    }
    let max = scores.iter().fold(f32::NEG_INFINITY, |max, s| max.max(*s));

    let mut total = 0.0_f32;
    let mut output = vec![0.0_f32; query.len()];
    let last = first + pairs.len() - 1;
    for segment in first / 256..=last / 256 {
        // The segment's positions, 256 apart, as far as they are visible.
        let weight = |position: usize| exp(scores[position - first] - max);
        let visible = |position: &usize| (first..=last).contains(position);
        total += lane_sum(256, |i, sum| {
            let position = 256 * segment + i;
            match visible(&position) {
                true => sum + weight(position),
                false => sum,
            }
        });
        let mut part = vec![0.0_f32; query.len()];
        for position in (256 * segment..256 * (segment + 1)).filter(visible) {
            let (_, value) = pairs[position - first];
            for (part, v) in part.iter_mut().zip(value) {
                *part = weight(position).mul_add(*v, *part);
            }
        }
        add(&mut output, &part);
    }
    let inverse = 1.0 / total;
    output.iter().map(|x| x * inverse).collect()
}

/// silu(g) = g · sigmoid(g) (spec 5.6).
pub fn silu(g: f32) -> f32 {
    g / (1.0 + exp(-g))
}

/// gelu(g) by its tanh formula, which is g · sigmoid(2z) (spec 5.7).
pub fn gelu(g: f32) -> f32 {
    let minus_two_root_two_over_pi = f32::from_bits(0xBFCC_422A);
    let cubic = (g * g * g).mul_add(0.044_715, g);
    g / (1.0 + exp(minus_two_root_two_over_pi * cubic))
}

/// x ← cap · tanh(x / cap) (spec 5.8).
pub fn soft_cap(x: &mut [f32], cap: f32) {
    for x in x {
        *x = cap * tanh(*x / cap);
    }
}

/// x ← x + y.
pub fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}
