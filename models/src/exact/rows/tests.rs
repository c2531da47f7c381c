//! What is tested of `rows`: the same bits as the page and its scalar reference give.

use proptest::prelude::*;

use super::*;
use crate::exact::architecture::{Pairing, Rope};
use crate::exact::level::Level;
use crate::exact::random::Random;
use crate::exact::reference::operations;

fn same(ours: &[f32], expected: &[f32], what: &str, level: Level) {
    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(ours), bits(expected), "{what}, {level:?}");
}

fn check(len: usize, size: f32, seed: u64) {
    let mut random = Random::new(seed);
    let mut normals =
        |size: f32| -> Vec<f32> { (0..len).map(|_| size * random.normal()).collect() };
    let (x, y) = (normals(size), normals(1.0));
    for level in Level::available() {
        let mut out = vec![0.0; len];
        rms_norm(level, &x, &y, 1e-5, &mut out);
        let expected = operations::rms_norm(&x, &y, 1e-5);
        same(&out, &expected, "rms_norm", level);
        let mut out = x.clone();
        rms_norm_in_place(level, &mut out, &y, 1e-5);
        same(&out, &expected, "rms_norm_in_place", level);

        let mut out = vec![0.0; len];
        swiglu(level, &x, &y, &mut out);
        let pairs = || x.iter().zip(&y);
        let expected: Vec<f32> = pairs().map(|(x, y)| operations::silu(*x) * y).collect();
        same(&out, &expected, "swiglu", level);
        geglu(level, &x, &y, &mut out);
        let expected: Vec<f32> = pairs().map(|(x, y)| operations::gelu(*x) * y).collect();
        same(&out, &expected, "geglu", level);

        let (mut out, mut expected) = (x.clone(), x.clone());
        soft_cap(level, &mut out, 20.0);
        operations::soft_cap(&mut expected, 20.0);
        same(&out, &expected, "soft_cap", level);
        add(level, &mut out, &y);
        operations::add(&mut expected, &y);
        same(&out, &expected, "add", level);

        for pairing in [Pairing::Adjacent, Pairing::Halves] {
            let pairs = len / 2;
            let rope = Rope {
                pairing,
                frequencies: (0..pairs).map(|i| 1.0 / (i + 1) as f64).collect(),
            };
            let position = 1234;
            let angle = |f: &f64| super::super::elementary::sin_cos_f64(position as f64 * f);
            let cos: Vec<f32> = rope.frequencies.iter().map(|f| angle(f).1 as f32).collect();
            let sin: Vec<f32> = rope.frequencies.iter().map(|f| angle(f).0 as f32).collect();
            let (mut out, mut expected) = (x.clone(), x.clone());
            match pairing {
                Pairing::Adjacent => rotate_adjacent(level, &mut out, &cos, &sin),
                Pairing::Halves => rotate_halves(level, &mut out, &cos, &sin),
            }
            operations::rotate(&mut expected, &rope, position);
            same(&out, &expected, "rotation", level);
        }
    }
}

proptest! {
    #[test]
    fn rows_are_as_specified(len in 1_usize..200, size in 0.001_f32..100.0, seed: u32) {
        check(len, size, u64::from(seed));
    }
}

#[test]
fn long_rows_are_as_specified() {
    check(1536, 1.0, 1);
    check(576, 30.0, 2);
}

#[test]
fn what_is_not_finite_is_noticed() {
    assert!(all_finite(&[0.0, -1.0, f32::MAX, f32::from_bits(1)]));
    for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert!(!all_finite(&[0.0, bad, 1.0]));
    }
}
