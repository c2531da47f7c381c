//! The product kernel of attention with AVX2: a few queries times 8, 16 or 32
//! columns in registers, over all rows of the right factor.

#![allow(
    clippy::needless_range_loop,
    reason = "indices name registers; iterators' closures wouldn't be inlined"
)]

use std::arch::x86_64::*;
use std::ops::Range;

use super::Right;

/// See `super::accumulate`; `columns` is a multiple of eight long.
#[target_feature(enable = "avx2,fma,f16c")]
pub fn accumulate<'l>(
    right: &Right,
    left: impl Fn(usize) -> &'l [f32],
    out: &mut [f32],
    out_stride: usize,
    columns: Range<usize>,
) {
    let queries = out.len() / out_stride;
    let mut query = 0;
    while query < queries {
        let remaining = queries - query;
        let cells = &mut out[query * out_stride..];
        let columns = columns.clone();
        match remaining {
            1 => tile::<1, 4>(right, [left(query)], cells, out_stride, columns),
            2 => {
                let left = [left(query), left(query + 1)];
                tile::<2, 4>(right, left, cells, out_stride, columns);
            }
            3 => {
                let left = std::array::from_fn(|q| left(query + q));
                tile::<3, 4>(right, left, cells, out_stride, columns);
            }
            4 | 5 => {
                let left = std::array::from_fn(|q| left(query + q));
                tile::<4, 2>(right, left, cells, out_stride, columns);
            }
            _ => {
                let left = std::array::from_fn(|q| left(query + q));
                tile::<6, 2>(right, left, cells, out_stride, columns);
            }
        }
        query += match remaining {
            1..=3 => remaining,
            4 | 5 => 4,
            _ => 6,
        };
    }
}

/// All columns for Q queries, 8·C at a time.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn tile<const Q: usize, const C: usize>(
    right: &Right,
    left: [&[f32]; Q],
    out: &mut [f32],
    out_stride: usize,
    columns: Range<usize>,
) {
    assert!(left.iter().all(|left| left.len() >= right.rows.len()));
    assert!((Q - 1) * out_stride + columns.end <= out.len());
    let mut done = 0;
    while done + 8 * C <= columns.len() {
        // SAFETY: these columns exist in `out` and `right` (see the assertions
        // here and in `super::accumulate`).
        unsafe { columns_of::<Q, C>(right, left, out, out_stride, columns.start, done) };
        done += 8 * C;
    }
    while done < columns.len() {
        // SAFETY: as above.
        unsafe { columns_of::<Q, 1>(right, left, out, out_stride, columns.start, done) };
        done += 8;
    }
}

/// # Safety
/// `out` has columns `start + done..` + 8·C of Q rows, `right` columns
/// `done..` + 8·C of its rows, and each of `left` as many cells as those.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn columns_of<const Q: usize, const C: usize>(
    right: &Right,
    left: [&[f32]; Q],
    out: &mut [f32],
    out_stride: usize,
    start: usize,
    done: usize,
) {
    let mut sums = [[_mm256_setzero_ps(); C]; Q];
    // SAFETY: the caller's promise covers every access.
    unsafe {
        let out = out.as_mut_ptr().add(start + done);
        for q in 0..Q {
            for c in 0..C {
                sums[q][c] = _mm256_loadu_ps(out.add(q * out_stride + 8 * c));
            }
        }
        let left: [*const f32; Q] = std::array::from_fn(|q| left[q].as_ptr());
        let mut cells = right
            .cells
            .as_ptr()
            .add(right.rows.start * right.stride + done);
        for i in 0..right.rows.len() {
            let mut values = [_mm256_setzero_ps(); C];
            for (c, value) in values.iter_mut().enumerate() {
                *value = _mm256_cvtph_ps(_mm_loadu_si128(cells.add(8 * c).cast()));
            }
            for q in 0..Q {
                let factor = _mm256_broadcast_ss(&*left[q].add(i));
                for c in 0..C {
                    sums[q][c] = _mm256_fmadd_ps(factor, values[c], sums[q][c]);
                }
            }
            // Past the end after the last row, and not read then.
            cells = cells.wrapping_add(right.stride);
        }
        for q in 0..Q {
            for c in 0..C {
                _mm256_storeu_ps(out.add(q * out_stride + 8 * c), sums[q][c]);
            }
        }
    }
}
