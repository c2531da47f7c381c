//! Linear layers with AVX2: eight outputs to a register.
//!
//! A register holds four bytes of codes for each of eight outputs. Multiplied
//! with four broadcast inputs (`maddubs`: unsigned codes, signed inputs), it
//! gives two 16-bit partial dots per output; a block's eight quads are added
//! in 16 bits as long as they fit, then widened. Integers are exact, so only
//! the two or three float operations per block have an order, the spec's.
//! Few rows read the packed weights directly; many rows share tiles unpacked
//! into the first-level cache, four rows at a time.

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

/// What the kernels need to know about a format while being compiled.
trait Kind {
    const FORMAT: Format;
    /// Quads whose products can be added in 16 bits: codes · 127 · 2 · SPAN
    /// stays below 2¹⁵.
    const SPAN: usize = 8;
    /// Whether blocks carry integer scales, of the whole block or of halves.
    const SCALED: bool = false;
    /// With integer scales: whether unsigned codes are too large, by
    /// [`Tile::offset`].
    const OFFSET: bool = false;
    /// Whether bytes are split into two planes of nibbles.
    const SPLIT: bool = false;
    const MIN: bool = has_min(Self::FORMAT);
}

macro_rules! kinds {
    ($($name:ident { $($constant:ident: $type:ty = $value:expr),* })*) => {$(
        struct $name;
        impl Kind for $name {
            const FORMAT: Format = Format::$name;
            $(const $constant: $type = $value;)*
        }
    )*};
}
kinds! {
    Q4_0 {}
    Q4_1 {}
    Q5_0 { SPAN: usize = 4 }
    Q5_1 { SPAN: usize = 4 }
    Q8_0 { SPLIT: bool = true }
    Q4K { SCALED: bool = true }
    Q5K { SPAN: usize = 4, SCALED: bool = true }
    Q6K { SPAN: usize = 2, SCALED: bool = true, OFFSET: bool = true }
}

/// Adds a group's products with `rows` of `x` to `sums`.
#[target_feature(enable = "avx2,fma,f16c")]
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
        Format::Q4_0 => multiply_kind::<Q4_0>(group, blocks, x, rows, tiles, sums),
        Format::Q4_1 => multiply_kind::<Q4_1>(group, blocks, x, rows, tiles, sums),
        Format::Q5_0 => multiply_kind::<Q5_0>(group, blocks, x, rows, tiles, sums),
        Format::Q5_1 => multiply_kind::<Q5_1>(group, blocks, x, rows, tiles, sums),
        Format::Q8_0 => multiply_kind::<Q8_0>(group, blocks, x, rows, tiles, sums),
        Format::Q4K => multiply_kind::<Q4K>(group, blocks, x, rows, tiles, sums),
        Format::Q5K => multiply_kind::<Q5K>(group, blocks, x, rows, tiles, sums),
        Format::Q6K => multiply_kind::<Q6K>(group, blocks, x, rows, tiles, sums),
        Format::F32 | Format::F16 | Format::Bf16 => unreachable!("floats aren't quantised"),
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
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
    let direct = matches!(K::FORMAT, Format::Q4_0 | Format::Q4_1 | Format::Q8_0);
    if direct && rows.len() == 1 {
        let x = &x.quantised(rows.start)[..blocks];
        if K::FORMAT == Format::Q8_0 {
            single_row_of_bytes(group, x, &mut sums[0]);
        } else {
            single_row_of_nibbles::<K>(group, x, &mut sums[0]);
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
        let (fours, rest) = sums.as_chunks_mut::<4>();
        let mut ahead = Ahead::of(group, &layout, first, tiles.len(), fours.len());
        for (i, sums) in fours.iter_mut().enumerate() {
            ahead.fetch();
            let x = [row(4 * i), row(4 * i + 1), row(4 * i + 2), row(4 * i + 3)];
            add_rows::<K, 4>(tiles, x, sums);
        }
        let done = 4 * fours.len();
        match rest {
            [] => {}
            [a] => add_rows::<K, 1>(tiles, [row(done)], std::array::from_mut(a)),
            [a, b] => {
                let mut pair = [*a, *b];
                add_rows::<K, 2>(tiles, [row(done), row(done + 1)], &mut pair);
                [*a, *b] = pair;
            }
            [a, b, c, ..] => {
                let mut three = [*a, *b, *c];
                let x = [row(done), row(done + 1), row(done + 2)];
                add_rows::<K, 3>(tiles, x, &mut three);
                [*a, *b, *c] = three;
            }
        }
    }
}

/// Adds the tiles' contributions for R rows at once.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_rows<K: Kind, const R: usize>(
    tiles: &[Tile],
    x: [&[QuantisedBlock]; R],
    sums: &mut [[f32; LANES]; R],
) {
    assert!(x.iter().all(|x| x.len() == tiles.len()));
    for (block, tile) in tiles.iter().enumerate() {
        let mut blocks = [&QuantisedBlock::ZERO; R];
        for r in 0..R {
            // SAFETY: every row has `tiles.len()` blocks.
            blocks[r] = unsafe { x[r].get_unchecked(block) };
        }
        let x = blocks;
        let mut dots = [[_mm256_setzero_si256(); 2]; R];
        if K::SPLIT {
            let sixteen = [_mm256_set1_epi16(16); 4];
            add_plane::<K, R>(&tile.high, &sixteen, x, &mut dots);
            add_plane::<K, R>(&tile.codes, &[_mm256_set1_epi16(1); 4], x, &mut dots);
        } else if K::SCALED {
            let scale = |i: usize| load(&tile.scale[i / 2], i % 2);
            let scales = [scale(0), scale(1), scale(2), scale(3)];
            add_plane::<K, R>(&tile.codes, &scales, x, &mut dots);
        } else {
            add_plane::<K, R>(&tile.codes, &[_mm256_set1_epi16(1); 4], x, &mut dots);
        }
        for r in 0..R {
            let (low, high) = (load_floats(&sums[r], 0), load_floats(&sums[r], 1));
            let low = add_block::<K>(tile, 0, x[r], dots[r][0], low);
            let high = add_block::<K>(tile, 1, x[r], dots[r][1], high);
            store_floats(&mut sums[r], 0, low);
            store_floats(&mut sums[r], 1, high);
            written(&mut sums[r]);
        }
    }
}

/// A sum with one block's contribution added: spec 4.3, given the dot of the
/// unsigned codes with the inputs' codes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_block<K: Kind>(
    tile: &Tile,
    half: usize,
    x: &QuantisedBlock,
    dot: __m256i,
    sum: __m256,
) -> __m256 {
    let excess = if K::SCALED {
        let zero = _mm256_set1_epi32(i32::from(x.zero));
        let shift = _mm256_mullo_epi32(load(&tile.sum, half), zero);
        if K::OFFSET {
            let halves = broadcast_pair(x.halves);
            let excess = _mm256_madd_epi16(load(&tile.offset, half), halves);
            _mm256_add_epi32(shift, excess)
        } else {
            shift
        }
    } else {
        let pair = broadcast_pair([x.sum, x.zero]);
        _mm256_madd_epi16(load(&tile.offset, half), pair)
    };
    let dot = _mm256_cvtepi32_ps(_mm256_sub_epi32(dot, excess));
    let scale = _mm256_mul_ps(load_floats(&tile.d, half), _mm256_set1_ps(x.d));
    let sum = _mm256_fmadd_ps(dot, scale, sum);
    if K::MIN {
        let min = load_floats(&tile.min, half);
        _mm256_fmadd_ps(min, _mm256_set1_ps(x.t), sum)
    } else {
        sum
    }
}

/// Adds the dots of one plane of codes, times `scales` (of half-block h and
/// outputs 8·o..: index 2h + o), for R rows.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_plane<K: Kind, const R: usize>(
    codes: &[[[u8; 4]; LANES]; 8],
    scales: &[__m256i; 4],
    x: [&QuantisedBlock; R],
    dots: &mut [[__m256i; 2]; R],
) {
    for span in 0..8 / K::SPAN {
        let mut partial = [[_mm256_setzero_si256(); 2]; R];
        let first = span * K::SPAN;
        add_quad(codes, first, x, &mut partial);
        add_quad(codes, first + 1, x, &mut partial);
        if K::SPAN >= 4 {
            add_quad(codes, first + 2, x, &mut partial);
            add_quad(codes, first + 3, x, &mut partial);
        }
        if K::SPAN == 8 {
            add_quad(codes, first + 4, x, &mut partial);
            add_quad(codes, first + 5, x, &mut partial);
            add_quad(codes, first + 6, x, &mut partial);
            add_quad(codes, first + 7, x, &mut partial);
        }
        let half = first / 4;
        for r in 0..R {
            for o in 0..2 {
                let wide = _mm256_madd_epi16(partial[r][o], scales[2 * half + o]);
                dots[r][o] = _mm256_add_epi32(dots[r][o], wide);
            }
        }
    }
}

/// Adds one quad's products, in 16 bits.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_quad<const R: usize>(
    codes: &[[[u8; 4]; LANES]; 8],
    quad: usize,
    x: [&QuantisedBlock; R],
    partial: &mut [[__m256i; 2]; R],
) {
    let low = load(&codes[quad], 0);
    let high = load(&codes[quad], 1);
    for r in 0..R {
        let inputs = broadcast_quad(x[r], quad);
        let products = [
            _mm256_maddubs_epi16(low, inputs),
            _mm256_maddubs_epi16(high, inputs),
        ];
        for o in 0..2 {
            partial[r][o] = settled(_mm256_add_epi16(partial[r][o], products[o]));
        }
    }
}

/// Tells the compiler that `sums` are in memory now: kept in registers over
/// all tiles, they would push out what the inner loop needs.
#[inline]
fn written(sums: &mut [f32; LANES]) {
    // SAFETY: no instruction.
    unsafe {
        std::arch::asm!("/* {0} */", in(reg) sums.as_mut_ptr(), options(nostack, preserves_flags));
    }
}

/// Its argument, which the compiler must have computed by now. Otherwise it
/// would do a row's quads first, and spill the weights that all rows share.
#[inline]
#[target_feature(enable = "avx2")]
fn settled(mut sum: __m256i) -> __m256i {
    // SAFETY: no instruction; the register passes through.
    unsafe {
        std::arch::asm!("/* {0} */", inout(ymm_reg) sum, options(nomem, nostack, preserves_flags))
    };
    sum
}

/// One row times Q4_0 or Q4_1, straight from the packed tiles.
#[target_feature(enable = "avx2,fma,f16c")]
fn single_row_of_nibbles<K: Kind>(group: &[u8], x: &[QuantisedBlock], sums: &mut [f32; LANES]) {
    let layout = Layout::of(K::FORMAT);
    let nibble = _mm256_set1_epi8(15);
    let ones = _mm256_set1_epi16(1);
    let mut totals = [load_floats(sums, 0), load_floats(sums, 1)];
    for (x, tile) in x.iter().zip(group.chunks_exact(layout.tile)) {
        let mut inputs = [_mm256_setzero_si256(); 8];
        for (quad, inputs) in inputs.iter_mut().enumerate() {
            *inputs = broadcast_quad(x, quad);
        }
        let d_x = _mm256_set1_ps(x.d);
        let pair = broadcast_pair([x.sum, x.zero]);
        for half in 0..2 {
            let mut partial = _mm256_setzero_si256();
            let mut codes_sum = _mm256_setzero_si256();
            for line in 0..4 {
                let codes = load_at(tile, 64 * line + 32 * half);
                let even = _mm256_and_si256(codes, nibble);
                let odd = _mm256_and_si256(_mm256_srli_epi16(codes, 4), nibble);
                codes_sum = _mm256_add_epi8(codes_sum, _mm256_add_epi8(even, odd));
                let even = _mm256_maddubs_epi16(even, inputs[2 * line]);
                let odd = _mm256_maddubs_epi16(odd, inputs[2 * line + 1]);
                partial = _mm256_add_epi16(partial, _mm256_add_epi16(even, odd));
            }
            let dot = _mm256_madd_epi16(partial, ones);
            let corrections = corrections::<K>(sum_of_bytes(codes_sum));
            let dot = _mm256_sub_epi32(dot, _mm256_madd_epi16(corrections, pair));
            let scale = _mm256_mul_ps(halves_at(tile, layout.scales + 16 * half), d_x);
            totals[half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, totals[half]);
            if K::MIN {
                let min = halves_at(tile, layout.scales + 32 + 16 * half);
                totals[half] = _mm256_fmadd_ps(min, _mm256_set1_ps(x.t), totals[half]);
            }
        }
    }
    store_floats(sums, 0, totals[0]);
    store_floats(sums, 1, totals[1]);
}

/// One row times Q8_0, straight from the packed tiles. Both factors are
/// signed, so the sign moves from the weight to the input; |−128| fits the
/// unsigned side, and 2 · 128 · 127 fits 16 bits.
#[target_feature(enable = "avx2,fma,f16c")]
fn single_row_of_bytes(group: &[u8], x: &[QuantisedBlock], sums: &mut [f32; LANES]) {
    let layout = Layout::of(Format::Q8_0);
    let ones = _mm256_set1_epi16(1);
    let byte_ones = _mm256_set1_epi8(1);
    let mut totals = [load_floats(sums, 0), load_floats(sums, 1)];
    for (x, tile) in x.iter().zip(group.chunks_exact(layout.tile)) {
        let mut dots = [_mm256_setzero_si256(); 2];
        // Pairs of codes add up to at most 8 · 256 in 16 bits.
        let mut codes_sum = [_mm256_setzero_si256(); 2];
        for quad in 0..8 {
            let inputs = broadcast_quad(x, quad);
            for half in 0..2 {
                let codes = load_at(tile, 64 * quad + 32 * half);
                let signed = _mm256_sign_epi8(inputs, codes);
                let products = _mm256_maddubs_epi16(_mm256_abs_epi8(codes), signed);
                let wide = _mm256_madd_epi16(products, ones);
                dots[half] = _mm256_add_epi32(dots[half], wide);
                let pairs = _mm256_maddubs_epi16(byte_ones, codes);
                codes_sum[half] = _mm256_add_epi16(codes_sum[half], pairs);
            }
        }
        let zero = _mm256_set1_epi16(x.zero);
        for half in 0..2 {
            let shift = _mm256_madd_epi16(codes_sum[half], zero);
            let dot = _mm256_cvtepi32_ps(_mm256_sub_epi32(dots[half], shift));
            let d = halves_at(tile, layout.scales + 16 * half);
            let scale = _mm256_mul_ps(d, _mm256_set1_ps(x.d));
            totals[half] = _mm256_fmadd_ps(dot, scale, totals[half]);
        }
    }
    store_floats(sums, 0, totals[0]);
    store_floats(sums, 1, totals[1]);
}

/// Four bytes of each lane, added up.
#[inline]
#[target_feature(enable = "avx2")]
fn sum_of_bytes(bytes: __m256i) -> __m256i {
    let pairs = _mm256_maddubs_epi16(bytes, _mm256_set1_epi8(1));
    _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
}

/// For unscaled formats: pairs (excess of a code, sum of the codes), which
/// times a row's (sum, zero) is what to subtract from the dot of the codes:
/// Σ(n − e)(x − z) = Σnx − e·Σ(x − z) − z·Σn.
#[inline]
#[target_feature(enable = "avx2")]
fn corrections<K: Kind>(codes_sum: __m256i) -> __m256i {
    let excess = _mm256_set1_epi32(i32::from(excess(K::FORMAT)));
    _mm256_or_si256(excess, _mm256_slli_epi32(codes_sum, 16))
}

/// [`Tile::of`] in vectors; bytes become two planes of nibbles.
#[target_feature(enable = "avx2,fma,f16c")]
fn unpack<K: Kind>(group: &[u8], index: usize, out: &mut Tile) {
    let layout = Layout::of(K::FORMAT);
    let head = &group[layout.unit_at(index)..][..layout.head];
    let tile = &group[layout.tile_at(index)..][..layout.tile];
    let nibble = _mm256_set1_epi8(15);
    for half in 0..2 {
        // Sums of codes: of the first and last four quads, or, where bytes are
        // split, of the low and high nibbles.
        let mut sums = [_mm256_setzero_si256(); 2];
        if K::SPLIT {
            for quad in 0..8 {
                let signed = load_at(tile, 64 * quad + 32 * half);
                let codes = _mm256_xor_si256(signed, _mm256_set1_epi8(-128));
                let low = _mm256_and_si256(codes, nibble);
                let high = _mm256_and_si256(_mm256_srli_epi16(codes, 4), nibble);
                store(&mut out.codes[quad], half, low);
                store(&mut out.high[quad], half, high);
                sums[0] = _mm256_add_epi8(sums[0], low);
                sums[1] = _mm256_add_epi8(sums[1], high);
            }
        } else {
            for line in 0..4 {
                let codes = load_at(tile, 64 * line + 32 * half);
                let even = _mm256_and_si256(codes, nibble);
                let odd = _mm256_and_si256(_mm256_srli_epi16(codes, 4), nibble);
                let [even, odd] = match K::FORMAT {
                    Format::Q5_0 | Format::Q5_1 | Format::Q5K => {
                        let bits = load_at(tile, layout.high + 32 * half);
                        [
                            _mm256_or_si256(even, moved_bits(bits, 2 * line, 0x10)),
                            _mm256_or_si256(odd, moved_bits(bits, 2 * line + 1, 0x10)),
                        ]
                    }
                    Format::Q6K => {
                        let bits = load_at(tile, layout.high + 64 * (line / 2) + 32 * half);
                        let first = 4 * (line % 2);
                        [
                            _mm256_or_si256(even, moved_bits(bits, first, 0x30)),
                            _mm256_or_si256(odd, moved_bits(bits, first + 2, 0x30)),
                        ]
                    }
                    _ => [even, odd],
                };
                store(&mut out.codes[2 * line], half, even);
                store(&mut out.codes[2 * line + 1], half, odd);
                let both = _mm256_add_epi8(even, odd);
                sums[line / 2] = _mm256_add_epi8(sums[line / 2], both);
            }
        }
        let sums = [sum_of_bytes(sums[0]), sum_of_bytes(sums[1])];
        let scales = &tile[layout.scales..];
        if K::SCALED {
            unpack_integer_scales::<K>(head, scales, half, sums, out);
        } else {
            let sum = if K::SPLIT {
                _mm256_add_epi32(sums[0], _mm256_slli_epi32(sums[1], 4))
            } else {
                _mm256_add_epi32(sums[0], sums[1])
            };
            store(&mut out.offset, half, corrections::<K>(sum));
            store_floats(&mut out.d, half, halves_at(scales, 16 * half));
            if K::MIN {
                store_floats(&mut out.min, half, halves_at(scales, 32 + 16 * half));
            }
        }
    }
}

/// Scales, mins and offsets of eight lanes of a K-quant, whose codes' halves
/// add up to `sums`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn unpack_integer_scales<K: Kind>(
    head: &[u8],
    scales: &[u8],
    half: usize,
    sums: [__m256i; 2],
    out: &mut Tile,
) {
    store_floats(&mut out.d, half, halves_at(head, 16 * half));
    let first = bytes_to_integers(&scales[8 * half..][..8]);
    let second = bytes_to_integers(&scales[LANES + 8 * half..][..8]);
    if K::MIN {
        store(&mut out.scale[0], half, pairs(first));
        store(&mut out.scale[1], half, pairs(first));
        let sum = _mm256_mullo_epi32(first, _mm256_add_epi32(sums[0], sums[1]));
        store(&mut out.sum, half, sum);
        let min = _mm256_cvtepi32_ps(second);
        let product = _mm256_mul_ps(halves_at(head, 32 + 16 * half), min);
        let negated = _mm256_xor_ps(product, _mm256_set1_ps(-0.0));
        store_floats(&mut out.min, half, negated);
    } else {
        let sign_extend = |v| _mm256_srai_epi32(_mm256_slli_epi32(v, 24), 24);
        let (first, second) = (sign_extend(first), sign_extend(second));
        let sum = _mm256_add_epi32(
            _mm256_mullo_epi32(first, sums[0]),
            _mm256_mullo_epi32(second, sums[1]),
        );
        store(&mut out.sum, half, sum);
        let (first, second) = (pairs(first), pairs(second));
        store(&mut out.scale[0], half, first);
        store(&mut out.scale[1], half, second);
        let both = _mm256_blend_epi16(first, second, 0b1010_1010);
        store(&mut out.offset, half, _mm256_slli_epi16(both, 5));
    }
}

/// Bits `from..` of every byte, moved to where `mask` is set (bits 4 and 5).
#[inline]
#[target_feature(enable = "avx2")]
fn moved_bits(bytes: __m256i, from: usize, mask: i8) -> __m256i {
    let left = _mm_cvtsi32_si128(i32::max(4 - from as i32, 0));
    let right = _mm_cvtsi32_si128(i32::max(from as i32 - 4, 0));
    let moved = _mm256_srl_epi16(_mm256_sll_epi16(bytes, left), right);
    _mm256_and_si256(moved, _mm256_set1_epi8(mask))
}

/// Every lane's low 16 bits, twice.
#[inline]
#[target_feature(enable = "avx2")]
fn pairs(integers: __m256i) -> __m256i {
    let low = _mm256_and_si256(integers, _mm256_set1_epi32(0xFFFF));
    _mm256_or_si256(low, _mm256_slli_epi32(integers, 16))
}

#[inline]
#[target_feature(enable = "avx2")]
fn bytes_to_integers(bytes: &[u8]) -> __m256i {
    let eight = u64::from_le_bytes(*bytes.first_chunk().expect("eight lanes' bytes"));
    _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(eight as i64))
}

#[inline]
#[target_feature(enable = "avx2")]
fn broadcast_quad(x: &QuantisedBlock, quad: usize) -> __m256i {
    let inputs = &x.codes.as_chunks::<4>().0[quad];
    _mm256_set1_epi32(i32::from_le_bytes(inputs.map(|x| x as u8)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn broadcast_pair([low, high]: [i16; 2]) -> __m256i {
    _mm256_set1_epi32(i32::from(low as u16) | i32::from(high) << 16)
}

/// Lanes 8·half.. of sixteen 4-byte lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn load<T: Lane>(lanes: &[T; LANES], half: usize) -> __m256i {
    // SAFETY: eight lanes of four bytes each.
    unsafe { _mm256_loadu_si256(lanes[8 * half..][..8].as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store<T: Lane>(lanes: &mut [T; LANES], half: usize, value: __m256i) {
    // SAFETY: eight lanes of four bytes each, any bits being valid.
    unsafe { _mm256_storeu_si256(lanes[8 * half..][..8].as_mut_ptr().cast(), value) }
}

/// Four bytes of plain integers.
trait Lane {}
impl Lane for [u8; 4] {}
impl Lane for [i16; 2] {}
impl Lane for i32 {}

#[inline]
#[target_feature(enable = "avx2")]
fn load_floats(lanes: &[f32; LANES], half: usize) -> __m256 {
    // SAFETY: eight floats.
    unsafe { _mm256_loadu_ps(lanes[8 * half..][..8].as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_floats(lanes: &mut [f32; LANES], half: usize, value: __m256) {
    // SAFETY: eight floats.
    unsafe { _mm256_storeu_ps(lanes[8 * half..][..8].as_mut_ptr(), value) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_at(bytes: &[u8], at: usize) -> __m256i {
    // SAFETY: the slice is 32 bytes long.
    unsafe { _mm256_loadu_si256(bytes[at..][..32].as_ptr().cast()) }
}

/// Eight f16 as f32.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn halves_at(bytes: &[u8], at: usize) -> __m256 {
    // SAFETY: the slice is 16 bytes long.
    let halves = unsafe { _mm_loadu_si128(bytes[at..][..16].as_ptr().cast()) };
    _mm256_cvtph_ps(halves)
}
