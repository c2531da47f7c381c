//! Causal attention of one query row over one sequence's cache.
//!
//! Keys are walked in ascending blocks, whatever the batch looks like, so a
//! row's result depends on its own sequence only. Compiled twice, with and
//! without AVX2 and FMA; [`attend`] picks at run time.

use crate::kv::{KEY_BLOCK, LayerCache};
use crate::math;

/// Where a query row sits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Query<'a> {
    /// The query heads that share one key head: `[group][head_dim]`, already rotated and scaled.
    pub heads: &'a [f32],
    /// Which key head they share.
    pub kv_head: usize,
    /// How many key heads there are.
    pub kv_heads: usize,
    /// Floats in one head.
    pub head_dim: usize,
    /// Positions to look at: the row's own and all before.
    pub visible: usize,
}

/// Writes the attention output of `query` (`[group][head_dim]`) into `out`.
/// `scores` is scratch memory.
pub(crate) fn attend(query: Query<'_>, cache: &LayerCache, scores: &mut Vec<f32>, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
        // SAFETY: the two features were just detected on this CPU.
        unsafe { attend_avx2(query, cache, scores, out) };
        return;
    }
    attend_rows::<false>(query, cache, scores, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn attend_avx2(query: Query<'_>, cache: &LayerCache, scores: &mut Vec<f32>, out: &mut [f32]) {
    attend_rows::<true>(query, cache, scores, out);
}

#[inline(always)]
fn attend_rows<const FMA: bool>(
    query: Query<'_>,
    cache: &LayerCache,
    scores: &mut Vec<f32>,
    out: &mut [f32],
) {
    let stride = query.visible.div_ceil(KEY_BLOCK) * KEY_BLOCK;
    let group = query.heads.len() / query.head_dim;
    scores.clear();
    scores.resize(group * stride, 0.0);
    for (h, (row, out)) in scores
        .chunks_exact_mut(stride)
        .zip(out.chunks_exact_mut(query.head_dim))
        .enumerate()
    {
        let q = &query.heads[h * query.head_dim..(h + 1) * query.head_dim];
        score::<FMA>(query, q, cache.keys(), row);
        let sum = softmax(&mut row[..query.visible]);
        mix::<FMA>(query, &row[..query.visible], cache.values(), out);
        let scale = 1.0 / sum;
        for o in out.iter_mut() {
            *o *= scale;
        }
    }
}

/// `row[t] = q · key[t]`, a block of keys at a time.
#[inline(always)]
fn score<const FMA: bool>(query: Query<'_>, q: &[f32], keys: &[f32], row: &mut [f32]) {
    let head = query.head_dim * KEY_BLOCK;
    for (b, row) in row.as_chunks_mut::<KEY_BLOCK>().0.iter_mut().enumerate() {
        let start = (b * query.kv_heads + query.kv_head) * head;
        let block = keys[start..start + head].as_chunks::<KEY_BLOCK>().0;
        let mut sums = [0f32; KEY_BLOCK];
        for (&q, keys) in q.iter().zip(block) {
            for (sum, &k) in sums.iter_mut().zip(keys) {
                *sum = mul_add::<FMA>(q, k, *sum);
            }
        }
        *row = sums;
    }
}

/// Turns scores into `e^(score - max)` and returns their sum.
#[inline(always)]
fn softmax(row: &mut [f32]) -> f32 {
    let mut max = [f32::NEG_INFINITY; KEY_BLOCK];
    let (blocks, rest) = row.as_chunks::<KEY_BLOCK>();
    for block in blocks {
        for (max, &s) in max.iter_mut().zip(block) {
            *max = if s > *max { s } else { *max };
        }
    }
    let max = max
        .iter()
        .chain(rest)
        .fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
    let mut sums = [0f32; KEY_BLOCK];
    let (blocks, rest) = row.as_chunks_mut::<KEY_BLOCK>();
    for block in blocks {
        for (sum, s) in sums.iter_mut().zip(block) {
            *s = math::exp(*s - max);
            *sum += *s;
        }
    }
    let mut sum: f32 = sums.iter().sum();
    for s in rest {
        *s = math::exp(*s - max);
        sum += *s;
    }
    sum
}

/// `out = Σ weight[t] · value[t]`, in ascending positions.
#[inline(always)]
fn mix<const FMA: bool>(query: Query<'_>, weights: &[f32], values: &[f32], out: &mut [f32]) {
    const LANES: usize = 64;
    let row = query.kv_heads * query.head_dim;
    let mut start = query.kv_head * query.head_dim;
    let (wide, rest) = out.as_chunks_mut::<LANES>();
    for out in wide {
        let mut sums = [0f32; LANES];
        for (t, &w) in weights.iter().enumerate() {
            let from = t * row + start;
            let value: &[f32; LANES] = values[from..from + LANES]
                .try_into()
                .expect("a slice of LANES has LANES");
            for (sum, &v) in sums.iter_mut().zip(value) {
                *sum = mul_add::<FMA>(w, v, *sum);
            }
        }
        *out = sums;
        start += LANES;
    }
    rest.fill(0.0);
    for (t, &w) in weights.iter().enumerate() {
        let from = t * row + start;
        for (sum, &v) in rest.iter_mut().zip(&values[from..]) {
            *sum = mul_add::<FMA>(w, v, *sum);
        }
    }
}

#[inline(always)]
fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}
