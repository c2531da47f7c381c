//! Random words and their bound, sixteen tokens at a time.

use std::arch::x86_64::*;

use super::{BLOCK, Bound, Noise, Race, STREAM};
use crate::philox::MULTIPLIERS;

/// [`Race::run`].
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl")]
pub(super) fn run(race: &mut Race) {
    let noise = race.noise;
    race.run(|first, values, bound| pass(noise, first, values, bound));
}

#[inline]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl")]
pub(super) fn pass(noise: &Noise, first: u32, values: &[f32; BLOCK], bound: &Bound) -> u64 {
    let [a, b, c, d] = words(noise, first);
    let (values, _) = values.as_chunks::<16>();
    let lets = |values: &[f32; 16], words| u64::from(lets(bound, values, words));
    lets(&values[0], a)
        | lets(&values[1], b) << 16
        | lets(&values[2], c) << 32
        | lets(&values[3], d) << 48
}

/// The words of sixteen counters, that is, of 64 tokens in order.
///
/// A vector has one number of eight counters, each in the lower half of a lane of 64 bits, whose
/// upper half is never looked at.
#[inline]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl")]
fn words(noise: &Noise, first: u32) -> [__m512i; 4] {
    let [m0, m1] = MULTIPLIERS.map(|m| _mm512_set1_epi64(i64::from(m)));
    // Even lanes have the first four counters, odd ones the next: so they come out in order.
    let order = _mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0);
    let counters = _mm512_add_epi64(order, _mm512_set1_epi64(i64::from(first)));
    let (position, choice) = (i64::from(noise.position), i64::from(noise.choice));
    let start = |counters| {
        [
            counters,
            _mm512_set1_epi64(position),
            _mm512_set1_epi64(choice),
            _mm512_set1_epi64(i64::from(STREAM)),
        ]
    };
    let mut x = start(counters);
    let mut y = start(_mm512_add_epi64(counters, _mm512_set1_epi64(8)));
    // A shuffle and not a shift, since those go to the port of the multiplier.
    let high = |product| _mm512_shuffle_epi32::<0xF5>(product);
    let round = |[x0, x1, x2, x3]: [__m512i; 4], k0, k1| {
        let (a, b) = (_mm512_mul_epu32(x0, m0), _mm512_mul_epu32(x2, m1));
        // 0x96: the exclusive or of three.
        [
            _mm512_ternarylogic_epi64::<0x96>(high(b), x1, k0),
            b,
            _mm512_ternarylogic_epi64::<0x96>(high(a), x3, k1),
            a,
        ]
    };
    for keys in &noise.keys {
        let [k0, k1] = keys.map(|key| _mm512_set1_epi64(i64::from(key)));
        x = round(x, k0, k1);
        y = round(y, k0, k1);
    }
    let [a, b] = in_order(x);
    let [c, d] = in_order(y);
    [a, b, c, d]
}

#[inline]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl")]
fn in_order([x0, x1, x2, x3]: [__m512i; 4]) -> [__m512i; 2] {
    let pair = |low, high| _mm512_mask_blend_epi32(0xAAAA, low, _mm512_slli_epi64::<32>(high));
    let (first, second) = (pair(x0, x1), pair(x2, x3));
    [
        _mm512_unpacklo_epi64(first, second),
        _mm512_unpackhi_epi64(first, second),
    ]
}

/// [`Bound::lets`].
#[inline]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl")]
fn lets(bound: &Bound, values: &[f32; 16], words: __m512i) -> u16 {
    // SAFETY: sixteen floats.
    let values = unsafe { _mm512_loadu_ps(values.as_ptr()) };
    let room = _mm512_fmadd_ps(
        _mm512_sub_ps(values, _mm512_set1_ps(bound.max)),
        _mm512_set1_ps(bound.scale),
        _mm512_set1_ps(bound.offset),
    );
    let complement = _mm512_xor_si512(_mm512_srli_epi32::<8>(words), _mm512_set1_epi32(0xFF_FFFF));
    let bits = _mm512_castps_si512(_mm512_cvtepi32_ps(complement));
    _mm512_cmp_ps_mask::<_CMP_LE_OQ>(_mm512_cvtepi32_ps(bits), room)
}
