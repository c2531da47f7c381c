//! Random words and their bound, eight tokens at a time.

use std::arch::x86_64::*;

use super::{BLOCK, Bound, Noise, Race, STREAM};
use crate::philox::MULTIPLIERS;

/// [`Race::run`].
#[target_feature(enable = "avx2,fma")]
pub(super) fn run(race: &mut Race) {
    let noise = race.noise;
    race.run(|first, values, bound| pass(noise, first, values, bound));
}

#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn pass(noise: &Noise, first: u32, values: &[f32; BLOCK], bound: &Bound) -> u64 {
    let mut passed = 0;
    for (i, values) in (0u32..).zip(values.as_chunks::<32>().0) {
        let words = words(noise, first + 8 * i);
        for (j, (values, words)) in (0u32..).zip(values.as_chunks::<8>().0.iter().zip(words)) {
            passed |= u64::from(lets(bound, values, words)) << (32 * i + 8 * j);
        }
    }
    passed
}

/// The words of eight counters, that is, of 32 tokens in order.
///
/// A vector has one number of four counters, each in the lower half of a lane of 64 bits, whose
/// upper half is never looked at.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn words(noise: &Noise, first: u32) -> [__m256i; 4] {
    let [m0, m1] = MULTIPLIERS.map(|m| _mm256_set1_epi64x(i64::from(m)));
    // Even lanes have the first two counters, odd ones the next: so they come out in order.
    let order = _mm256_set_epi64x(3, 1, 2, 0);
    let counters = _mm256_add_epi64(order, _mm256_set1_epi64x(i64::from(first)));
    let (position, choice) = (i64::from(noise.position), i64::from(noise.choice));
    let start = |counters| {
        [
            counters,
            _mm256_set1_epi64x(position),
            _mm256_set1_epi64x(choice),
            _mm256_set1_epi64x(i64::from(STREAM)),
        ]
    };
    let mut x = start(counters);
    let mut y = start(_mm256_add_epi64(counters, _mm256_set1_epi64x(4)));
    // A shuffle and not a shift, since those go to the ports of the multipliers.
    let high = |product| _mm256_shuffle_epi32::<0xF5>(product);
    let round = |[x0, x1, x2, x3]: [__m256i; 4], k0, k1| {
        let (a, b) = (_mm256_mul_epu32(x0, m0), _mm256_mul_epu32(x2, m1));
        [
            _mm256_xor_si256(high(b), _mm256_xor_si256(x1, k0)),
            b,
            _mm256_xor_si256(high(a), _mm256_xor_si256(x3, k1)),
            a,
        ]
    };
    for keys in &noise.keys {
        let [k0, k1] = keys.map(|key| _mm256_set1_epi64x(i64::from(key)));
        x = round(x, k0, k1);
        y = round(y, k0, k1);
    }
    let [a, b] = in_order(x);
    let [c, d] = in_order(y);
    [a, b, c, d]
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn in_order([x0, x1, x2, x3]: [__m256i; 4]) -> [__m256i; 2] {
    let pair = |low, high| _mm256_blend_epi32::<0xAA>(low, _mm256_slli_epi64::<32>(high));
    let (first, second) = (pair(x0, x1), pair(x2, x3));
    [
        _mm256_unpacklo_epi64(first, second),
        _mm256_unpackhi_epi64(first, second),
    ]
}

/// [`Bound::lets`].
#[inline]
#[target_feature(enable = "avx2,fma")]
fn lets(bound: &Bound, values: &[f32; 8], words: __m256i) -> u8 {
    // SAFETY: eight floats.
    let values = unsafe { _mm256_loadu_ps(values.as_ptr()) };
    let room = _mm256_fmadd_ps(
        _mm256_sub_ps(values, _mm256_set1_ps(bound.max)),
        _mm256_set1_ps(bound.scale),
        _mm256_set1_ps(bound.offset),
    );
    let complement = _mm256_xor_si256(_mm256_srli_epi32::<8>(words), _mm256_set1_epi32(0xFF_FFFF));
    let bits = _mm256_castps_si256(_mm256_cvtepi32_ps(complement));
    let passed = _mm256_cmp_ps::<_CMP_LE_OQ>(_mm256_cvtepi32_ps(bits), room);
    _mm256_movemask_ps(passed) as u8
}
