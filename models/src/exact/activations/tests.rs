//! What is tested of `activations`: the same bits as the page and its scalar reference give.

use proptest::prelude::*;

use super::*;
use crate::exact::reference::operations;

fn check(x: &[f32]) {
    for level in Level::available() {
        let mut blocks = vec![QuantisedBlock::ZERO; x.len() / BLOCK];
        quantise(level, x, &mut blocks);
        for (block, x) in blocks.iter().zip(x.chunks(BLOCK)) {
            let expected = operations::quantise(x);
            let steps = block
                .codes
                .map(|code| i32::from(code) - i32::from(block.zero));
            assert_eq!(steps, expected.steps, "{level:?} {x:?}");
            let bits = |d: f32, t: f32| match d.is_nan() {
                true => None,
                false => Some((d.to_bits(), t.to_bits())),
            };
            assert_eq!(bits(block.d, block.t), bits(expected.d, expected.t));
            let halves = [0, 16].map(|i| steps[i..i + 16].iter().sum::<i32>() as i16);
            assert_eq!((block.halves, block.sum), (halves, halves[0] + halves[1]));
            assert!((-127..=127).contains(&block.zero));
            assert!(block.codes.iter().all(|code| *code >= -127));
        }
    }
}

proptest! {
    #[test]
    fn blocks_are_as_specified(
        x in proptest::collection::vec(-4.0_f32..4.0, 64),
        exponent in -140_i32..140,
        shift in -8.0_f32..8.0,
    ) {
        let scale = libm::exp2(f64::from(exponent)) as f32;
        check(&x.iter().map(|x| (x + shift) * scale).collect::<Vec<_>>());
        check(&x.iter().map(|x| x * scale).collect::<Vec<_>>());
    }

    #[test]
    fn any_bits_are_as_specified(bits in proptest::collection::vec(any::<u32>(), 32)) {
        check(&bits.into_iter().map(f32::from_bits).collect::<Vec<_>>());
    }
}

#[test]
fn edges_are_as_specified() {
    let block = |first: f32, rest: f32| {
        let mut x = [rest; BLOCK];
        x[0] = first;
        x
    };
    for (first, rest) in [
        (0.0, 0.0),
        (-0.0, 0.0),
        (5.0, 5.0),
        (-5.0, -5.0),
        (1.0, -1.0),
        (f32::NAN, 1.0),
        (1.0, f32::NAN),
        (f32::INFINITY, 1.0),
        (f32::NEG_INFINITY, f32::NAN),
        (f32::MAX, -f32::MAX),
        (f32::MAX, 0.0),
        (f32::MIN_POSITIVE, 0.0),
        (f32::from_bits(1), 0.0),
        (f32::from_bits(0x0D80_0000), 0.0),
        (-(f32::from_bits(0x0D00_0000)), f32::from_bits(0x0D00_0000)),
        (f32::from_bits(0x0D00_0000), 0.0),
    ] {
        check(&block(first, rest));
    }
    // Every tie between two codes.
    for i in 0..254 {
        let mut x = block(0.0, 254.0);
        for (k, x) in x[1..31].iter_mut().enumerate() {
            *x = i as f32 + 0.5 + k as f32 * f32::EPSILON * 64.0;
        }
        check(&x);
    }
}

#[test]
fn inputs_come_back_within_half_a_step() {
    let x: Vec<f32> = (0..BLOCK).map(|i| (i * i) as f32 - 300.0).collect();
    let mut blocks = [QuantisedBlock::ZERO];
    quantise(Level::Portable, &x, &mut blocks);
    let [block] = blocks;
    for (x, code) in x.iter().zip(block.codes) {
        let back = block.d * f32::from(i16::from(code) - block.zero);
        assert!(
            (x - back).abs() <= 0.501 * block.d,
            "{x} came back as {back}"
        );
    }
}
