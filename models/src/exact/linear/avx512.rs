//! Linear layers with AVX-512 and VNNI: sixteen outputs to a register.
//!
//! `vpdpbusd` multiplies four unsigned codes with four signed inputs and adds
//! them to 32 bits, so there is nothing to keep from overflowing, and bytes
//! needn't be split. Otherwise as `avx2`, eight rows at a time.

#![allow(
    clippy::needless_range_loop,
    reason = "indices name registers; iterators' closures wouldn't be inlined"
)]

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::activations::{Activations, QuantisedBlock};
use super::super::blocks::Format;
use super::super::packed::{LANES, Layout, Tile, excess, has_min};
use super::ahead::Ahead;

/// A format, while being compiled.
trait Kind {
    const FORMAT: Format;
    const MIN: bool = has_min(Self::FORMAT);
    /// Whether blocks carry integer scales, of the whole block or of halves.
    const SCALED: bool = matches!(Self::FORMAT, Format::Q4K | Format::Q5K | Format::Q6K);
    const HALVES: bool = matches!(Self::FORMAT, Format::Q6K);
}

macro_rules! kinds {
    ($($name:ident)*) => {
        $(
            struct $name;
            impl Kind for $name {
                const FORMAT: Format = Format::$name;
            }
        )*

        /// Adds a group's products with `rows` of `x` to `sums`.
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
        pub fn multiply(
            format: Format,
            group: &[u8],
            blocks: usize,
            x: &Activations,
            rows: Range<usize>,
            tiles: &mut [Tile],
            sums: &mut [[f32; LANES]],
        ) {
            match format {
                $(Format::$name => multiply_kind::<$name>(group, blocks, x, rows, tiles, sums),)*
                Format::F32 | Format::F16 | Format::Bf16 => unreachable!("floats aren't quantised"),
            }
        }
    };
}
kinds! { Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q4K Q5K Q6K }

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn multiply_kind<K: Kind>(
    group: &[u8],
    blocks: usize,
    x: &Activations,
    rows: Range<usize>,
    tiles: &mut [Tile],
    sums: &mut [[f32; LANES]],
) {
    let layout = Layout::of(K::FORMAT);
    assert!(group.len() >= layout.unit_at(blocks));
    if rows.len() == 1 {
        // One tile at a time stays in registers, most of it.
        let x = &x.quantised(rows.start)[..blocks];
        for (index, x) in x.iter().enumerate() {
            unpack::<K>(group, index, &mut tiles[0]);
            add_rows::<K, 1>(&tiles[..1], [std::slice::from_ref(x)], &mut [&mut sums[0]]);
        }
        return;
    }
    let chunk = tiles.len();
    for first in (0..blocks).step_by(chunk) {
        let tiles = &mut tiles[..usize::min(chunk, blocks - first)];
        for (i, tile) in tiles.iter_mut().enumerate() {
            unpack::<K>(group, first + i, tile);
        }
        let row = |index: usize| &x.quantised(rows.start + index)[first..][..tiles.len()];
        let parts = sums.len().div_ceil(8);
        let mut ahead = Ahead::of(group, &layout, first, tiles.len(), parts);
        let mut done = 0;
        for sums in sums.chunks_mut(8) {
            ahead.fetch();
            match sums {
                [a, b, c, d, e, f, g, h] => {
                    let x = [
                        row(done),
                        row(done + 1),
                        row(done + 2),
                        row(done + 3),
                        row(done + 4),
                        row(done + 5),
                        row(done + 6),
                        row(done + 7),
                    ];
                    add_rows::<K, 8>(tiles, x, &mut [a, b, c, d, e, f, g, h]);
                }
                _ => {
                    let (fours, ones) = sums.as_chunks_mut::<4>();
                    let mut at = done;
                    for [a, b, c, d] in fours {
                        let x = [row(at), row(at + 1), row(at + 2), row(at + 3)];
                        add_rows::<K, 4>(tiles, x, &mut [a, b, c, d]);
                        at += 4;
                    }
                    for one in ones {
                        add_rows::<K, 1>(tiles, [row(at)], &mut [one]);
                        at += 1;
                    }
                }
            }
            done += sums.len();
        }
    }
}

/// Adds the tiles' contributions for R rows at once.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn add_rows<K: Kind, const R: usize>(
    tiles: &[Tile],
    x: [&[QuantisedBlock]; R],
    sums: &mut [&mut [f32; LANES]; R],
) {
    assert!(x.iter().all(|x| x.len() == tiles.len()));
    let mut totals = [_mm512_setzero_ps(); R];
    for r in 0..R {
        totals[r] = load_floats(sums[r]);
    }
    for (block, tile) in tiles.iter().enumerate() {
        let mut blocks = [&QuantisedBlock::ZERO; R];
        for r in 0..R {
            // SAFETY: every row has `tiles.len()` blocks.
            blocks[r] = unsafe { x[r].get_unchecked(block) };
        }
        let x = blocks;
        let mut dots = [[_mm512_setzero_si512(); 2]; R];
        if !K::SCALED {
            // The sums start with the corrections: one instruction less.
            let negated = load(&tile.offset);
            for r in 0..R {
                dots[r][0] = _mm512_madd_epi16(negated, broadcast_pair([x[r].sum, x[r].zero]));
            }
        }
        for quad in 0..8 {
            let codes = load(&tile.codes[quad]);
            let half = if K::HALVES { quad / 4 } else { 0 };
            for r in 0..R {
                let inputs = broadcast_quad(x[r], quad);
                dots[r][half] = _mm512_dpbusd_epi32(dots[r][half], codes, inputs);
            }
        }
        for r in 0..R {
            totals[r] = add_block::<K>(tile, x[r], dots[r], totals[r]);
        }
    }
    for r in 0..R {
        store_floats(sums[r], totals[r]);
    }
}

/// A sum with one block's contribution added: spec 4.3, given the dots of the
/// unsigned codes with the inputs' codes; in unscaled formats, corrected.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn add_block<K: Kind>(tile: &Tile, x: &QuantisedBlock, dots: [__m512i; 2], sum: __m512) -> __m512 {
    let dot = if K::SCALED {
        let scale = |half: usize| _mm512_srai_epi32::<16>(load(&tile.scale[half]));
        let zero = _mm512_set1_epi32(i32::from(x.zero));
        let shift = _mm512_mullo_epi32(load(&tile.sum), zero);
        let dot = _mm512_mullo_epi32(dots[0], scale(0));
        let dot = _mm512_sub_epi32(dot, shift);
        if K::HALVES {
            let other = _mm512_mullo_epi32(dots[1], scale(1));
            let halves = broadcast_pair(x.halves);
            let excess = _mm512_madd_epi16(load(&tile.offset), halves);
            _mm512_sub_epi32(_mm512_add_epi32(dot, other), excess)
        } else {
            dot
        }
    } else {
        dots[0]
    };
    let scale = _mm512_mul_ps(load_floats(&tile.d), _mm512_set1_ps(x.d));
    let sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, sum);
    if K::MIN {
        _mm512_fmadd_ps(load_floats(&tile.min), _mm512_set1_ps(x.t), sum)
    } else {
        sum
    }
}

/// [`Tile::of`] in vectors. In unscaled formats, `offset` pairs a code's
/// excess with the sum of the codes, both negated: see `avx2::corrections`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn unpack<K: Kind>(group: &[u8], index: usize, out: &mut Tile) {
    let layout = Layout::of(K::FORMAT);
    let head = &group[layout.unit_at(index)..][..layout.head];
    let tile = &group[layout.tile_at(index)..][..layout.tile];
    let nibble = _mm512_set1_epi8(15);
    let ones = _mm512_set1_epi8(1);
    // Sums of the codes of the first and the last four quads.
    let mut sums = [_mm512_setzero_si512(); 2];
    if matches!(K::FORMAT, Format::Q8_0) {
        for quad in 0..8 {
            let codes = _mm512_xor_si512(load_at(tile, 64 * quad), _mm512_set1_epi8(-128));
            store(&mut out.codes[quad], codes);
            sums[quad / 4] = _mm512_dpbusd_epi32(sums[quad / 4], codes, ones);
        }
    } else {
        for line in 0..4 {
            let codes = load_at(tile, 64 * line);
            let mut even = _mm512_and_si512(codes, nibble);
            let mut odd = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), nibble);
            match K::FORMAT {
                Format::Q5_0 | Format::Q5_1 | Format::Q5K => {
                    let bits = load_at(tile, layout.high);
                    even = _mm512_or_si512(even, moved_bits(bits, 2 * line, 0x10));
                    odd = _mm512_or_si512(odd, moved_bits(bits, 2 * line + 1, 0x10));
                }
                Format::Q6K => {
                    let bits = load_at(tile, layout.high + 64 * (line / 2));
                    let first = 4 * (line % 2);
                    even = _mm512_or_si512(even, moved_bits(bits, first, 0x30));
                    odd = _mm512_or_si512(odd, moved_bits(bits, first + 2, 0x30));
                }
                _ => {}
            }
            store(&mut out.codes[2 * line], even);
            store(&mut out.codes[2 * line + 1], odd);
            sums[line / 2] = _mm512_dpbusd_epi32(sums[line / 2], even, ones);
            sums[line / 2] = _mm512_dpbusd_epi32(sums[line / 2], odd, ones);
        }
    }
    let scales = &tile[layout.scales..];
    if !K::SCALED {
        let sum = _mm512_add_epi32(sums[0], sums[1]);
        let pair = _mm512_or_si512(
            _mm512_set1_epi32(i32::from(excess(K::FORMAT))),
            _mm512_slli_epi32::<16>(sum),
        );
        let negated = _mm512_sub_epi16(_mm512_setzero_si512(), pair);
        store(&mut out.offset, negated);
        store_floats(&mut out.d, halves_at(scales, 0));
        if K::MIN {
            store_floats(&mut out.min, halves_at(scales, 32));
        }
        return;
    }
    store_floats(&mut out.d, halves_at(head, 0));
    if K::MIN {
        let (scale, min) = (unsigned_at(scales, 0), unsigned_at(scales, LANES));
        store(&mut out.scale[0], _mm512_slli_epi32::<16>(scale));
        let sum = _mm512_add_epi32(sums[0], sums[1]);
        store(&mut out.sum, _mm512_mullo_epi32(scale, sum));
        let product = _mm512_mul_ps(halves_at(head, 32), _mm512_cvtepi32_ps(min));
        let negated = _mm512_xor_si512(_mm512_castps_si512(product), _mm512_set1_epi32(i32::MIN));
        store_floats(&mut out.min, _mm512_castsi512_ps(negated));
    } else {
        let (first, second) = (signed_at(scales, 0), signed_at(scales, LANES));
        store(&mut out.scale[0], _mm512_slli_epi32::<16>(first));
        store(&mut out.scale[1], _mm512_slli_epi32::<16>(second));
        let sum = _mm512_add_epi32(
            _mm512_mullo_epi32(first, sums[0]),
            _mm512_mullo_epi32(second, sums[1]),
        );
        store(&mut out.sum, sum);
        let low = _mm512_and_si512(first, _mm512_set1_epi32(0xFFFF));
        let both = _mm512_or_si512(low, _mm512_slli_epi32::<16>(second));
        store(&mut out.offset, _mm512_slli_epi16::<5>(both));
    }
}

/// Bits `from..` of every byte, moved to where `mask` is set (bits 4 and 5).
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn moved_bits(bytes: __m512i, from: usize, mask: i8) -> __m512i {
    let left = _mm_cvtsi32_si128(i32::max(4 - from as i32, 0));
    let right = _mm_cvtsi32_si128(i32::max(from as i32 - 4, 0));
    let moved = _mm512_srl_epi16(_mm512_sll_epi16(bytes, left), right);
    _mm512_and_si512(moved, _mm512_set1_epi8(mask))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast_quad(x: &QuantisedBlock, quad: usize) -> __m512i {
    let inputs = &x.codes.as_chunks::<4>().0[quad];
    _mm512_set1_epi32(i32::from_le_bytes(inputs.map(|x| x as u8)))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast_pair([low, high]: [i16; 2]) -> __m512i {
    _mm512_set1_epi32(i32::from(low as u16) | i32::from(high) << 16)
}

/// Four bytes of plain integers.
trait Lane {}
impl Lane for [u8; 4] {}
impl Lane for [i16; 2] {}
impl Lane for i32 {}

#[inline]
#[target_feature(enable = "avx512f")]
fn load<T: Lane>(lanes: &[T; LANES]) -> __m512i {
    // SAFETY: sixteen lanes of four bytes each.
    unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store<T: Lane>(lanes: &mut [T; LANES], value: __m512i) {
    // SAFETY: sixteen lanes of four bytes each, any bits being valid.
    unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), value) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_floats(lanes: &[f32; LANES]) -> __m512 {
    // SAFETY: sixteen floats.
    unsafe { _mm512_loadu_ps(lanes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_floats(lanes: &mut [f32; LANES], value: __m512) {
    // SAFETY: sixteen floats.
    unsafe { _mm512_storeu_ps(lanes.as_mut_ptr(), value) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_at(bytes: &[u8], at: usize) -> __m512i {
    // SAFETY: the slice is 64 bytes long.
    unsafe { _mm512_loadu_si512(bytes[at..][..64].as_ptr().cast()) }
}

/// Sixteen f16 as f32.
#[inline]
#[target_feature(enable = "avx512f")]
fn halves_at(bytes: &[u8], at: usize) -> __m512 {
    // SAFETY: the slice is 32 bytes long.
    let halves = unsafe { _mm256_loadu_si256(bytes[at..][..32].as_ptr().cast()) };
    _mm512_cvtph_ps(halves)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn unsigned_at(bytes: &[u8], at: usize) -> __m512i {
    // SAFETY: the slice is 16 bytes long.
    let bytes = unsafe { _mm_loadu_si128(bytes[at..][..16].as_ptr().cast()) };
    _mm512_cvtepu8_epi32(bytes)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn signed_at(bytes: &[u8], at: usize) -> __m512i {
    // SAFETY: the slice is 16 bytes long.
    let bytes = unsafe { _mm_loadu_si128(bytes[at..][..16].as_ptr().cast()) };
    _mm512_cvtepi8_epi32(bytes)
}
