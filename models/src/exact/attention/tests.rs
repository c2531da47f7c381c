//! What is tested of `attention`: the same bits as the page and its scalar reference give.

use proptest::prelude::*;

use super::*;
use crate::exact::elementary::f32_to_f16;
use crate::exact::kv::{KvPool, KvShape};
use crate::exact::random::Random;
use crate::exact::reference::operations;

#[derive(Debug, Clone, Copy)]
struct Shape {
    head_dim: usize,
    /// Query heads that share the key-value head.
    heads: usize,
    past: usize,
    rows: usize,
    window: usize,
    cap: Option<f32>,
}

fn check(shape: Shape, seed: u64) {
    let Shape {
        head_dim, heads, ..
    } = shape;
    let mut random = Random::new(seed);
    let positions = shape.past + shape.rows;
    let kv = KvShape {
        layers: 2,
        heads: 2,
        head_dim,
    };
    let pool = KvPool::new(kv, positions.div_ceil(POSITIONS)).unwrap();
    let mut cache = pool.new_cache();
    cache.reserve(positions).unwrap();
    let mut normals = |count| (0..count).map(|_| random.normal()).collect::<Vec<_>>();
    let mut keys = Vec::new();
    let mut values = Vec::new();
    for position in 0..positions {
        let (mut key, mut value) = (normals(head_dim), normals(head_dim));
        let half = |x: &f32| f32_to_f16(*x);
        // SAFETY: reserved, and this thread is the only one.
        unsafe {
            let (key, value) = (key.iter().map(half), value.iter().map(half));
            cache.table().write(position, 1, 1, key, value);
        }
        operations::round_to_f16(&mut key);
        operations::round_to_f16(&mut value);
        keys.push(key);
        values.push(value);
    }
    let queries: Vec<Vec<f32>> = (0..shape.rows).map(|_| normals(heads * head_dim)).collect();
    let rows: Vec<&[f32]> = queries.iter().map(Vec::as_slice).collect();
    for level in Level::available() {
        let mut outputs = vec![vec![9.0; heads * head_dim]; shape.rows];
        let mut out: Vec<&mut [f32]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
        let queries = Queries {
            rows: &rows,
            position: shape.past,
            window: shape.window,
            cap: shape.cap,
            head_dim,
        };
        let mut scratch = Scratch::default();
        attend(
            level,
            &queries,
            &cache.table(),
            1,
            1,
            &mut scratch,
            &mut out,
        );
        for (row, output) in outputs.iter().enumerate() {
            let last = shape.past + row;
            let first = (last + 1).saturating_sub(shape.window);
            let pairs: Vec<(&[f32], &[f32])> = (first..=last)
                .map(|j| (keys[j].as_slice(), values[j].as_slice()))
                .collect();
            let heads = rows[row].chunks(head_dim).zip(output.chunks(head_dim));
            for (head, (query, ours)) in heads.enumerate() {
                let expected = operations::attention(query, &pairs, first, shape.cap);
                let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(
                    bits(ours),
                    bits(&expected),
                    "{level:?}, row {row}, head {head} of {shape:?}"
                );
            }
        }
    }
}

const PLAIN: Shape = Shape {
    head_dim: 64,
    heads: 3,
    past: 0,
    rows: 1,
    window: usize::MAX,
    cap: None,
};

#[test]
fn prefill_and_decode_are_as_specified() {
    for (past, rows) in [
        (0, 1),
        (0, 8),
        (31, 2),
        (32, 1),
        (250, 8),
        (255, 1),
        (256, 1),
        (700, 5),
    ] {
        check(
            Shape {
                past,
                rows,
                ..PLAIN
            },
            1,
        );
    }
}

#[test]
fn windows_and_caps_are_as_specified() {
    for window in [1, 2, 31, 33, 64, 255, 256, 257, 600] {
        for (past, rows) in [(0, 3), (30, 8), (500, 8), (511, 4)] {
            let cap = (window % 2 == 0).then_some(2.5);
            check(
                Shape {
                    past,
                    rows,
                    window,
                    cap,
                    ..PLAIN
                },
                2,
            );
        }
    }
}

/// Four heads of 256 on one of keys, and a window of two segments.
#[test]
fn gemmas_heads_are_as_specified() {
    for (past, rows) in [(0, 4), (255, 3), (510, 4), (513, 1), (767, 2)] {
        for cap in [None, Some(50.0)] {
            check(
                Shape {
                    head_dim: 256,
                    heads: 4,
                    past,
                    rows,
                    window: 512,
                    cap,
                },
                4,
            );
        }
    }
}

#[test]
fn any_head_is_as_specified() {
    for head_dim in [1, 4, 8, 12, 16, 24, 40, 80, 96, 128, 256] {
        for heads in [1, 2, 4, 5, 7] {
            check(
                Shape {
                    head_dim,
                    heads,
                    past: 60,
                    rows: 3,
                    ..PLAIN
                },
                3,
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn any_shape_is_as_specified(
        dims in 1_usize..20,
        heads in 1_usize..6,
        past in 0_usize..600,
        rows in 1_usize..9,
        window in 1_usize..700,
        cap in proptest::option::of(1.0_f32..30.0),
        seed: u32,
    ) {
        let head_dim = 4 * dims;
        check(Shape { head_dim, heads, past, rows, window, cap }, u64::from(seed));
    }
}
