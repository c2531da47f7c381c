//! The product kernel of attention with AVX-512: up to twelve queries times 16,
//! 32 or 64 columns in registers, over all rows of the right factor.

#![allow(
    clippy::needless_range_loop,
    reason = "indices name registers; iterators' closures wouldn't be inlined"
)]

use std::arch::x86_64::*;
use std::ops::Range;

use super::Right;

/// See `super::accumulate`; `columns` is a multiple of sixteen long.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
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
        macro_rules! take {
            ($queries:literal, $wide:literal) => {{
                let left: [_; $queries] = std::array::from_fn(|q| left(query + q));
                tile::<$queries, $wide>(right, left, cells, out_stride, columns);
                $queries
            }};
        }
        query += match remaining {
            1 => take!(1, 4),
            2 => take!(2, 4),
            3 | 5 => take!(3, 4),
            4 => take!(4, 4),
            6..=11 => take!(6, 4),
            _ => take!(12, 2),
        };
    }
}

/// All columns for Q queries, 16·C at a time.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
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
    while done + 16 * C <= columns.len() {
        // SAFETY: these columns exist in `out` and `right` (see the assertions
        // here and in `super::accumulate`).
        unsafe { columns_of::<Q, C>(right, left, out, out_stride, columns.start, done) };
        done += 16 * C;
    }
    while done + 32 <= columns.len() {
        // SAFETY: as above.
        unsafe { columns_of::<Q, 2>(right, left, out, out_stride, columns.start, done) };
        done += 32;
    }
    while done < columns.len() {
        // SAFETY: as above.
        unsafe { columns_of::<Q, 1>(right, left, out, out_stride, columns.start, done) };
        done += 16;
    }
}

/// # Safety
/// `out` has columns `start + done..` + 16·C of Q rows, `right` columns
/// `done..` + 16·C of its rows, and each of `left` as many cells as those.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn columns_of<const Q: usize, const C: usize>(
    right: &Right,
    left: [&[f32]; Q],
    out: &mut [f32],
    out_stride: usize,
    start: usize,
    done: usize,
) {
    let mut sums = [[_mm512_setzero_ps(); C]; Q];
    // SAFETY: the caller's promise covers every access.
    unsafe {
        let out = out.as_mut_ptr().add(start + done);
        for q in 0..Q {
            for c in 0..C {
                sums[q][c] = _mm512_loadu_ps(out.add(q * out_stride + 16 * c));
            }
        }
        let left: [*const f32; Q] = std::array::from_fn(|q| left[q].as_ptr());
        let mut cells = right
            .cells
            .as_ptr()
            .add(right.rows.start * right.stride + done);
        for i in 0..right.rows.len() {
            let mut values = [_mm512_setzero_ps(); C];
            for (c, value) in values.iter_mut().enumerate() {
                *value = _mm512_cvtph_ps(_mm256_loadu_si256(cells.add(16 * c).cast()));
            }
            for q in 0..Q {
                let factor = _mm512_set1_ps(*left[q].add(i));
                for c in 0..C {
                    sums[q][c] = _mm512_fmadd_ps(factor, values[c], sums[q][c]);
                }
            }
            // Past the end after the last row, and not read then.
            cells = cells.wrapping_add(right.stride);
        }
        for q in 0..Q {
            for c in 0..C {
                _mm512_storeu_ps(out.add(q * out_stride + 16 * c), sums[q][c]);
            }
        }
    }
}
