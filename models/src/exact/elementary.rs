//! The functions of `exact/1` that IEEE 754 doesn't round for us: `exp` in
//! f32, `ln`, `exp`, `sin` and `cos` in f64, and conversions to 16-bit floats.
//!
//! Every step is one IEEE operation of docs/spec/exact.md section 3, in its
//! order. `#[inline(always)]`, so that the row kernels compile them for each
//! instruction set and vectorise them.

use std::f64::consts::{FRAC_2_PI, FRAC_PI_2, LN_2, LOG2_E};

/// 1.5 · 2²³: adding it to a small f32 rounds that to an integer, half to even.
pub const ROUND: f32 = 12_582_912.0;

/// The integer that [`ROUND`] left in the low bits of `shifted`.
#[inline(always)]
pub fn rounded_integer(shifted: f32) -> i32 {
    shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32
}

/// eˣ in f32 (spec 3.2): 0 below −87, ∞ above 88, NaN for NaN.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = f32::from_bits(0x3FB8_AA3B);
    const LN2_HIGH: f32 = f32::from_bits(0x3F31_7218);
    const LN2_LOW: f32 = f32::from_bits(0xB102_E308);
    let shifted = x.mul_add(LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    let mut p: f32 = 1.0 / 5040.0;
    p = p.mul_add(r, 1.0 / 720.0);
    p = p.mul_add(r, 1.0 / 120.0);
    p = p.mul_add(r, 1.0 / 24.0);
    p = p.mul_add(r, 1.0 / 6.0);
    p = p.mul_add(r, 0.5);
    p = p.mul_add(r, 1.0);
    p = p.mul_add(r, 1.0);
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3F80_0000));
    let y = p * power;
    if x < -87.0 {
        0.0
    } else if x > 88.0 {
        f32::INFINITY
    } else {
        y
    }
}

/// tanh in f32 (spec 3.3), through [`exp`].
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(x + x) + 1.0)
}

/// eˣ in f64 (spec 3.4), for |x| ≤ 700.
pub fn exp_f64(x: f64) -> f64 {
    let n = (x * LOG2_E).round_ties_even();
    let r = n.mul_add(-LN2_LOW_F64, n.mul_add(-LN_2, x));
    let mut p = RECIPROCAL_FACTORIAL[13];
    for c in RECIPROCAL_FACTORIAL[..13].iter().rev() {
        p = p.mul_add(r, *c);
    }
    p * f64::from_bits(((n as i64 + 1023) as u64) << 52)
}

/// The natural logarithm in f64 (spec 3.5), for positive normal numbers.
pub fn ln_f64(x: f64) -> f64 {
    let mut exponent = (x.to_bits() >> 52) as i64 - 1023;
    let mut m = f64::from_bits((x.to_bits() & 0x000F_FFFF_FFFF_FFFF) | 0x3FF0_0000_0000_0000);
    if m > std::f64::consts::SQRT_2 {
        m *= 0.5;
        exponent += 1;
    }
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let mut p: f64 = 1.0 / 25.0;
    for k in (0..12).rev() {
        p = p.mul_add(z, 1.0 / (2 * k + 1) as f64);
    }
    let e = exponent as f64;
    e.mul_add(LN_2, e.mul_add(LN2_LOW_F64, 2.0 * s * p))
}

/// (sin x, cos x) in f64 (spec 3.6), for 0 ≤ x ≤ 2²⁴.
pub fn sin_cos_f64(x: f64) -> (f64, f64) {
    let n = (x * FRAC_2_PI).round_ties_even();
    let r = n.mul_add(-HALF_PI_LOW, n.mul_add(-FRAC_PI_2, x));
    let z = r * r;
    // Taylor series: sin r = r·(1 − z/3! + z²/5! …), cos r = 1 − z/2! + z²/4! …
    let (mut s, mut c) = (RECIPROCAL_FACTORIAL[17], RECIPROCAL_FACTORIAL[18]);
    for k in (0..8).rev() {
        s = s.mul_add(-z, RECIPROCAL_FACTORIAL[2 * k + 1]);
    }
    for k in (0..9).rev() {
        c = c.mul_add(-z, RECIPROCAL_FACTORIAL[2 * k]);
    }
    let s = s * r;
    match (n as i64) & 3 {
        0 => (s, c),
        1 => (c, -s),
        2 => (-s, -c),
        _ => (-c, s),
    }
}

/// ln 2 − [`LN_2`].
const LN2_LOW_F64: f64 = f64::from_bits(0x3C7A_BC9E_3B39_803F);
/// π/2 − [`FRAC_PI_2`].
const HALF_PI_LOW: f64 = f64::from_bits(0x3C91_A626_3314_5C07);

/// 1/n!, each the f64 nearest to the quotient: n! is exact up to 18!.
const RECIPROCAL_FACTORIAL: [f64; 19] = {
    let mut table = [1.0; 19];
    let mut factorial = 1.0;
    let mut n = 1;
    while n < 19 {
        factorial *= n as f64;
        table[n] = 1.0 / factorial;
        n += 1;
    }
    table
};

/// The f32 that an IEEE half-precision float stands for; exact.
#[inline(always)]
pub fn f16_to_f32(bits: u16) -> f32 {
    let sign = (u32::from(bits) & 0x8000) << 16;
    let magnitude = u32::from(bits) & 0x7FFF;
    let value = if magnitude >= 0x7C00 {
        f32::from_bits(0x7F80_0000 | (magnitude & 0x03FF) << 13)
    } else if magnitude >= 0x0400 {
        f32::from_bits((magnitude << 13) + 0x3800_0000)
    } else {
        magnitude as f32 * f32::from_bits(0x3380_0000) // 2⁻²⁴
    };
    f32::from_bits(value.to_bits() | sign)
}

/// The half-precision float nearest to `x`, half to even (spec 3.7). What
/// would round to ±∞, ±∞ itself and NaN all give the one NaN 0x7E00.
#[inline(always)]
pub fn f32_to_f16(x: f32) -> u16 {
    let sign = (x.to_bits() >> 16 & 0x8000) as u16;
    let magnitude = x.to_bits() & 0x7FFF_FFFF;
    if magnitude >= 0x477F_F000 {
        return F16_NAN; // 65520 and above
    }
    if magnitude < 0x3880_0000 {
        // Subnormal halves are the multiples of 2⁻²⁴: 0.5 has that last place.
        let sum = f32::from_bits(magnitude) + 0.5;
        return sign | (sum.to_bits() - 0.5_f32.to_bits()) as u16;
    }
    let odd = magnitude >> 13 & 1;
    let rounded = magnitude + 0x0FFF + odd;
    sign | ((rounded >> 13) - (0x3800_0000 >> 13)) as u16
}

/// The half-precision NaN that marks a key or value outside f16's range.
pub const F16_NAN: u16 = 0x7E00;

/// The f32 that a bfloat16 stands for; exact.
#[inline(always)]
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[cfg(test)]
mod tests;
