//! The loops over the whole vocabulary, in blocks of 64 tokens, compiled once
//! for each instruction set from one body.
//!
//! Rust neither reorders nor contracts floating point, so a body gives the same
//! bits however it is vectorised.

use crate::exact::Level;
use crate::math;

/// Tokens in a block: one random counter for each four.
pub(super) const BLOCK: usize = 64;

/// Compiles a function once for each level.
macro_rules! at_every_level {
    ($($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) -> $out:ty $body:block)*) => {$(
        $(#[$doc])*
        $vis fn $name(level: Level, $($arg: $type),*) -> $out {
            #[inline(always)]
            fn body($($arg: $type),*) -> $out $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $type),*) -> $out {
                body($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl")]
            fn avx512($($arg: $type),*) -> $out {
                body($($arg),*)
            }
            match level {
                Level::Portable => body($($arg),*),
                // SAFETY: `Level::available` found these features.
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => unsafe { avx512($($arg),*) },
                #[cfg(not(target_arch = "x86_64"))]
                _ => body($($arg),*),
            }
        }
    )*};
}

/// Lanes of a loop, a whole number of vectors at every level.
const LANES: usize = 16;

at_every_level! {
    /// Writes each block's greatest value; whether every value is a finite number.
    pub(super) fn survey(values: &[f32], maxima: &mut [f32]) -> bool {
        let mut bits = [0; LANES];
        for (block, max) in values.chunks(BLOCK).zip(maxima) {
            let mut lanes = [f32::NEG_INFINITY; LANES];
            let (whole, rest) = block.as_chunks::<LANES>();
            for chunk in whole {
                for i in 0..LANES {
                    lanes[i] = if chunk[i] > lanes[i] { chunk[i] } else { lanes[i] };
                    bits[i] = u32::max(bits[i], chunk[i].to_bits() & 0x7FFF_FFFF);
                }
            }
            for (i, value) in rest.iter().enumerate() {
                lanes[i] = if *value > lanes[i] { *value } else { lanes[i] };
                bits[i] = u32::max(bits[i], value.to_bits() & 0x7FFF_FFFF);
            }
            let mut half = LANES / 2;
            while half > 0 {
                for i in 0..half {
                    lanes[i] = if lanes[i + half] > lanes[i] { lanes[i + half] } else { lanes[i] };
                }
                half /= 2;
            }
            *max = lanes[0];
        }
        bits.iter().all(|bits| *bits < 0x7F80_0000)
    }

    /// Puts −∞ for every value whose bit in `words` isn't set.
    pub(super) fn keep(words: &[u32], values: &mut [f32]) -> () {
        for (word, values) in words.iter().zip(values.chunks_mut(32)) {
            for (i, value) in values.iter_mut().enumerate() {
                *value = if word >> i & 1 == 1 { *value } else { f32::NEG_INFINITY };
            }
        }
    }

    /// Writes the weights of the tokens that are `until` or before it in rank, 0 for others;
    /// their sum.
    pub(super) fn weights(block: &[f32; BLOCK], until: &Until, out: &mut [u64; BLOCK]) -> u64 {
        let chunks = block.as_chunks::<LANES>().0.iter();
        let outs = out.as_chunks_mut::<LANES>().0.iter_mut();
        // At most 64 weights of 2^40: nothing overflows.
        let mut sums = [0u64; LANES];
        for (chunk, (values, out)) in chunks.zip(outs).enumerate() {
            let mut distances = [0.0; LANES];
            for (distance, value) in distances.iter_mut().zip(values) {
                *distance = f64::from(*value) - until.best;
            }
            if until.temperature != 1.0 {
                for distance in &mut distances {
                    *distance /= until.temperature;
                }
            }
            let id = until.id - (chunk * LANES) as f64;
            for (i, distance) in distances.iter_mut().enumerate() {
                let tied = (*distance == until.last) & (i as f64 <= id);
                let counts = tied | (*distance > until.last);
                *distance = if counts { *distance } else { f64::NEG_INFINITY };
            }
            for i in 0..LANES {
                out[i] = weight(distances[i]);
                sums[i] = sums[i].wrapping_add(out[i]);
            }
        }
        sums.iter().fold(0, |sum: u64, part| sum.wrapping_add(*part))
    }

    /// The sum and the number of the weights that are at least `least`.
    pub(super) fn heavy(weights: &[u64; BLOCK], least: u64) -> Heavy {
        let (mut mass, mut count) = ([0u64; LANES], [0u64; LANES]);
        for weights in weights.as_chunks::<LANES>().0 {
            for i in 0..LANES {
                let counts = (weights[i] as i64) >= least as i64;
                mass[i] = mass[i].wrapping_add(if counts { weights[i] } else { 0 });
                count[i] = count[i].wrapping_add(u64::from(counts));
            }
        }
        let sum = |lanes: [u64; LANES]| lanes.iter().fold(0, |a: u64, b| a.wrapping_add(*b));
        Heavy {
            mass: sum(mass),
            count: sum(count),
        }
    }

    /// The sum of e^(value − max).
    pub(super) fn sum_of_exponentials(values: &[f32], max: f32) -> f64 {
        let mut sum = 0.0;
        for block in values.chunks(BLOCK) {
            let mut padded = [f32::NEG_INFINITY; BLOCK];
            padded[..block.len()].copy_from_slice(block);
            let mut lanes = [0.0; LANES];
            for chunk in padded.as_chunks::<LANES>().0 {
                for i in 0..LANES {
                    lanes[i] += math::exp(chunk[i] - max);
                }
            }
            sum += f64::from(lanes.iter().sum::<f32>());
        }
        sum
    }
}

/// Some weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heavy {
    pub mass: u64,
    pub count: u64,
}

/// Which tokens [`weights`] are wanted.
pub(super) struct Until {
    /// The greatest value.
    pub best: f64,
    pub temperature: f64,
    /// The distance of the last token that counts,
    pub last: f64,
    /// and its id, counted from the block's first token.
    pub id: f64,
}

/// `⌊e^x · 2^40⌋`, a token's share of the mass, for `x` of at most 0. Spec 5.4.1.
///
/// The same bits as `libm::exp` (fdlibm's algorithm), but without branches, so that a loop over
/// it vectorises, and without what such an `x` can't meet.
#[inline(always)]
pub(super) fn weight(x: f64) -> u64 {
    const LN2_HI: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
    const LN2_LO: f64 = f64::from_bits(0x3dea_39ef_3579_3c76);
    const P: [f64; 5] = [
        f64::from_bits(0x3fc5_5555_5555_553e),
        f64::from_bits(0xbf66_c16c_16be_bd93),
        f64::from_bits(0x3f11_566a_af25_de2c),
        f64::from_bits(0xbebb_bd41_c5d2_6bf1),
        f64::from_bits(0x3e66_3769_72be_a4d0),
    ];
    /// 1.5 · 2^52: adding and subtracting it rounds to the nearest integer.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let counts = x >= LEAST;
    let x = if counts { x } else { LEAST };
    // fdlibm compares the high word of |x| with those of 1.5 ln 2, 0.5 ln 2 and 2^−28.
    let magnitude = (x.to_bits() & 0x7fff_ffff_ffff_ffff) as i64;
    // k is the integer part of x / ln 2 − 0.5, towards 0.
    let quotient = std::f64::consts::LOG2_E * x - 0.5;
    let near = (quotient + ROUND) - ROUND;
    let k = if near < quotient { near + 1.0 } else { near };
    let k = if magnitude < 0x3ff0_a2b2_0000_0000 {
        -1.0
    } else {
        k
    };
    let k = if magnitude < 0x3fd6_2e43_0000_0000 {
        0.0
    } else {
        k
    };
    let hi = x - k * LN2_HI;
    let lo = k * LN2_LO;
    let r = hi - lo;
    let rr = r * r;
    let c = r - rr * (P[0] + rr * (P[1] + rr * (P[2] + rr * (P[3] + rr * P[4]))));
    let y = 1.0 + (r * c / (2.0 - c) - lo + hi);
    let y = if magnitude < 0x3e30_0001_0000_0000 {
        1.0 + x
    } else {
        y
    };
    // Times 2^(k + 40), which is exact.
    let exponent = (k + ROUND)
        .to_bits()
        .wrapping_sub(ROUND.to_bits())
        .wrapping_add(1023 + 40);
    let y = y * f64::from_bits(exponent << 52);
    // Its integer part: to the nearest integer, and back by one if that is above.
    let near = (y + ROUND) - ROUND;
    let whole = if near > y { near - 1.0 } else { near };
    let whole = (whole + ROUND).to_bits().wrapping_sub(ROUND.to_bits());
    if counts { whole } else { 0 }
}

/// e^LEAST is below 2^−40, so weights below are 0.
pub(super) const LEAST: f64 = -28.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_libms_exponentials() {
        const UNIT: f64 = (1u64 << 40) as f64;
        let check = |value: f64| {
            let want = (libm::exp(value) * UNIT) as u64;
            assert_eq!(weight(value), want, "{value:?}");
        };
        let ln2 = std::f64::consts::LN_2;
        for edge in [
            0.5 * ln2,
            1.5 * ln2,
            1.0 / f64::from(1u32 << 28),
            -LEAST,
            27.7,
            700.0,
            1e300,
        ] {
            for step in -2000..2000i64 {
                check(-f64::from_bits(edge.to_bits().wrapping_add_signed(step)));
                check(-f64::from_bits(
                    edge.to_bits().wrapping_add_signed(step << 24),
                ));
            }
        }
        [0.0, -0.0, f64::NEG_INFINITY, -f64::MIN_POSITIVE]
            .into_iter()
            .for_each(check);
        (0..1_000_000).for_each(|i| check(-f64::from(i) * 3.1e-5));
    }

    #[test]
    fn levels_agree() {
        let values: Vec<f32> = (0..1000u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 * -2e-6)
            .collect();
        for len in [0, 1, 15, 16, 17, 63, 64, 65, 999, 1000] {
            let values = &values[..len];
            for level in Level::available() {
                let mut maxima = vec![0.0; len.div_ceil(BLOCK)];
                assert!(survey(level, values, &mut maxima));
                for (block, max) in values.chunks(BLOCK).zip(&maxima) {
                    assert_eq!(block.iter().copied().fold(f32::MIN, f32::max), *max);
                }
                let until = |temperature, last, id| Until {
                    best: 0.5,
                    temperature,
                    last,
                    id,
                };
                for (temperature, last, id) in [
                    (1.0, f64::NEG_INFINITY, 1e9),
                    (0.7, -4.0, 0.0),
                    (1.3, -4.0, 9.0),
                ] {
                    let mut block = [f32::NEG_INFINITY; BLOCK];
                    let len = usize::min(len, BLOCK);
                    block[..len].copy_from_slice(&values[..len]);
                    let mut at = -1.0;
                    let want = block.map(|value| {
                        at += 1.0;
                        let z = (f64::from(value) - 0.5) / temperature;
                        let counts = z > last || z == last && at <= id;
                        if counts { weight(z) } else { 0 }
                    });
                    let mut found = [7; BLOCK];
                    let sum = weights(level, &block, &until(temperature, last, id), &mut found);
                    assert_eq!((found, sum), (want, want.iter().sum()));
                    for least in [0, 1, want[0], want[0] + 1, 1 << 40] {
                        let heavy: Vec<u64> = want.into_iter().filter(|w| *w >= least).collect();
                        let (mass, count) = (heavy.iter().sum(), heavy.len() as u64);
                        assert_eq!(super::heavy(level, &want, least), Heavy { mass, count });
                    }
                }
                let words = [0x8421_0001u32; 40];
                let mut kept = values.to_vec();
                keep(level, &words, &mut kept);
                for (at, (kept, value)) in kept.iter().zip(values).enumerate() {
                    let set = words[at / 32] >> (at % 32) & 1 == 1;
                    assert_eq!(*kept, if set { *value } else { f32::NEG_INFINITY });
                }
            }
        }
    }

    #[test]
    fn the_one_bad_value_is_found() {
        for level in Level::available() {
            let mut values = vec![1.0f32; 1000];
            let mut maxima = vec![0.0; 16];
            for at in [0, 777, 999] {
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    values[at] = bad;
                    assert!(!survey(level, &values, &mut maxima));
                    values[at] = 1.0;
                    assert!(survey(level, &values, &mut maxima));
                }
            }
        }
    }
}
