//! Attention of a few queries over one head's cached keys and values.
//!
//! Two passes over all visible positions (spec 5.5): scores and their exact
//! maximum, then weights and the weighted sum of values, in segments of 256
//! positions. All loops ascend, and one product kernel does both sums:
//! dimensions for scores, positions for values. Start at [`attend`].

use std::ops::Range;

use super::elementary::f16_to_f32;
use super::kv::{KvTable, POSITIONS};
use super::level::Level;
use super::rows;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

/// Positions whose weighted values are added up apart.
pub const SEGMENT: usize = 256;

/// The queries of some consecutive positions for one key-value head.
pub struct Queries<'a> {
    /// Each position's query heads, one after the other, rotated and scaled.
    pub rows: &'a [&'a [f32]],
    /// The first row's position.
    pub position: usize,
    /// Positions that a query sees: its own and those before it.
    pub window: usize,
    /// Soft cap of the scores.
    pub cap: Option<f32>,
    /// Length of a head.
    pub head_dim: usize,
}

/// One worker's memory.
#[derive(Default)]
pub struct Scratch {
    scores: Vec<f32>,
    sums: Vec<f32>,
    totals: Vec<f32>,
}

impl Queries<'_> {
    fn visible(&self, row: usize) -> Range<usize> {
        let end = self.position + row + 1;
        end.saturating_sub(self.window)..end
    }

    fn heads(&self) -> usize {
        self.rows[0].len() / self.head_dim
    }
}

/// Writes each row's attention output, laid out as its queries are.
pub(super) fn attend(
    level: Level,
    queries: &Queries,
    cache: &KvTable,
    layer: usize,
    head: usize,
    scratch: &mut Scratch,
    out: &mut [&mut [f32]],
) {
    let heads = queries.heads();
    let count = queries.rows.len() * heads;
    let first = queries.visible(0).start / SEGMENT * SEGMENT;
    let end = queries.visible(queries.rows.len() - 1).end;
    let width = (end - first).next_multiple_of(POSITIONS);
    scratch.scores.clear();
    scratch.scores.resize(count * width, 0.0);
    score(level, queries, cache, (layer, head), first, width, scratch);

    scratch.totals.clear();
    scratch.totals.resize(count, 0.0);
    for (query, scores) in scratch.scores.chunks_exact_mut(width).enumerate() {
        let visible = queries.visible(query / heads);
        let (from, to) = (visible.start.saturating_sub(first), visible.end - first);
        if let Some(cap) = queries.cap {
            rows::soft_cap(level, scores, cap);
        }
        scores[..from].fill(f32::NEG_INFINITY);
        scores[to..].fill(f32::NEG_INFINITY);
        let mut max = f32::NEG_INFINITY;
        rows::raise_max(level, scores, &mut max);
        rows::exp_weights(level, scores, max, &mut scratch.totals[query]);
    }
    for out in out.iter_mut() {
        out.fill(0.0);
    }
    weigh(
        level,
        queries,
        cache,
        (layer, head),
        first,
        width,
        scratch,
        out,
    );
    for (row, out) in out.iter_mut().enumerate() {
        for (head, out) in out.chunks_exact_mut(queries.head_dim).enumerate() {
            rows::scale(level, out, 1.0 / scratch.totals[row * heads + head]);
        }
    }
}

/// Scores of all queries against positions `first..first + width`, whether a
/// query may see them or not.
fn score(
    level: Level,
    queries: &Queries,
    cache: &KvTable,
    (layer, head): (usize, usize),
    first: usize,
    width: usize,
    scratch: &mut Scratch,
) {
    let dim = queries.head_dim;
    let heads = queries.heads();
    let few = queries.rows.len() < FEW;
    for block in 0..width / POSITIONS {
        // SAFETY: keys were written before attention started.
        let keys = unsafe { cache.keys(first / POSITIONS + block, layer, head) };
        if few {
            let next = first / POSITIONS + block + 1;
            // SAFETY: as above; values too.
            match next < (first + width) / POSITIONS {
                true => fetch(unsafe { cache.keys(next, layer, head) }),
                false => fetch(unsafe { cache.values(first / POSITIONS, layer, head) }),
            }
        }
        let right = Right {
            cells: keys,
            stride: POSITIONS,
            rows: 0..dim,
        };
        let left = |query: usize| &queries.rows[query / heads][query % heads * dim..][..dim];
        let start = block * POSITIONS;
        accumulate(
            level,
            &right,
            left,
            &mut scratch.scores,
            width,
            start..start + POSITIONS,
        );
    }
}

/// Adds up the weighted values (spec 5.5).
#[allow(clippy::too_many_arguments, reason = "one call, split for reading")]
fn weigh(
    level: Level,
    queries: &Queries,
    cache: &KvTable,
    (layer, head): (usize, usize),
    first: usize,
    width: usize,
    scratch: &mut Scratch,
    out: &mut [&mut [f32]],
) {
    let dim = queries.head_dim;
    let heads = queries.heads();
    let count = queries.rows.len() * heads;
    let few = queries.rows.len() < FEW;
    let Scratch { scores, sums, .. } = scratch;
    for segment in (first..first + width).step_by(SEGMENT) {
        sums.clear();
        sums.resize(count * dim, 0.0);
        let end = usize::min(segment + SEGMENT, first + width);
        for block in (segment..end).step_by(POSITIONS) {
            // SAFETY: values were written before attention started.
            let values = unsafe { cache.values(block / POSITIONS, layer, head) };
            if few && block + POSITIONS < first + width {
                // SAFETY: as above.
                fetch(unsafe { cache.values(block / POSITIONS + 1, layer, head) });
            }
            let whole = block..block + POSITIONS;
            let mut add = |rows: Range<usize>, seen: Range<usize>| {
                let right = Right {
                    cells: values,
                    stride: dim,
                    rows: seen.start - block..seen.end - block,
                };
                let weights = &scores[rows.start * heads * width..];
                let left =
                    |query: usize| &weights[query * width + seen.start - first..][..seen.len()];
                let sums = &mut sums[rows.start * heads * dim..rows.end * heads * dim];
                accumulate(level, &right, left, sums, dim, 0..dim);
            };
            let all = 0..queries.rows.len();
            if all
                .clone()
                .all(|row| contains(&queries.visible(row), &whole))
            {
                add(all, whole);
                continue;
            }
            for row in all {
                let seen = intersection(&queries.visible(row), &whole);
                if !seen.is_empty() {
                    add(row..row + 1, seen);
                }
            }
        }
        for (row, out) in out.iter_mut().enumerate() {
            if !intersection(&queries.visible(row), &(segment..end)).is_empty() {
                rows::add(level, out, &sums[row * heads * dim..][..heads * dim]);
            }
        }
    }
}

/// Rows below which a block's keys or values are multiplied in less time than
/// the next block's take to come from memory.
const FEW: usize = 3;

/// Asks for a block's keys or values of a head, for the next round.
fn fetch(cells: &[u16]) {
    #[cfg(target_arch = "x86_64")]
    for line in cells.chunks(32) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, allowed for any address; SSE is everywhere.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = cells;
}

fn contains(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

fn intersection(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    let start = usize::max(a.start, b.start);
    start..usize::max(start, usize::min(a.end, b.end))
}

/// The right factor: some rows of f16 cells.
struct Right<'a> {
    cells: &'a [u16],
    stride: usize,
    rows: Range<usize>,
}

/// For every query q and column c of `columns`:
/// `out[q · out_stride + columns.start + c] += Σ left(q)[i] · right[i][c]`, one
/// fused multiply-add per i, in ascending order.
fn accumulate<'l>(
    level: Level,
    right: &Right,
    left: impl Fn(usize) -> &'l [f32],
    out: &mut [f32],
    out_stride: usize,
    columns: Range<usize>,
) {
    assert!(right.rows.end * right.stride <= right.cells.len());
    assert!(columns.len() <= right.stride);
    #[cfg(target_arch = "x86_64")]
    if level == Level::Avx512 && columns.len().is_multiple_of(16) {
        // SAFETY: `Level::available` found AVX-512 F, BW and VL.
        unsafe { avx512::accumulate(right, left, out, out_stride, columns) };
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if level >= Level::Avx2 && columns.len().is_multiple_of(8) {
        // SAFETY: `Level::available` found AVX2, FMA and F16C.
        unsafe { avx2::accumulate(right, left, out, out_stride, columns) };
        return;
    }
    let _ = level;
    for (query, out) in out.chunks_exact_mut(out_stride).enumerate() {
        let out = &mut out[columns.clone()];
        for (row, left) in right.rows.clone().zip(left(query)) {
            let cells = &right.cells[row * right.stride..];
            for (out, cell) in out.iter_mut().zip(cells) {
                *out = left.mul_add(f16_to_f32(*cell), *out);
            }
        }
    }
}

#[cfg(test)]
mod tests;
