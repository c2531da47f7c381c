//! What is tested of `linear`: the same bits as the page and its scalar reference give.

use proptest::prelude::*;

use super::*;
use crate::exact::activations;
use crate::exact::random::Random;

const FORMATS: [Format; 11] = [
    Format::F32,
    Format::F16,
    Format::Bf16,
    Format::Q4_0,
    Format::Q4_1,
    Format::Q5_0,
    Format::Q5_1,
    Format::Q8_0,
    Format::Q4K,
    Format::Q5K,
    Format::Q6K,
];

/// Spec 4.3 and 4.6 for one output, from the GGUF's own bytes.
fn by_the_spec(format: Format, row: &[u8], x: &Activations, index: usize) -> f32 {
    let mut sum = 0.0_f32;
    if format.is_float() {
        for (column, x) in x.floats(index).iter().enumerate() {
            sum = format.float(row, column).mul_add(*x, sum);
        }
        return sum;
    }
    for (block, x) in x.quantised(index).iter().enumerate() {
        let weights = format.block(row, block);
        let products = weights.n.iter().zip(x.codes);
        let dot: i32 = products
            .map(|(n, code)| n * (i32::from(code) - i32::from(x.zero)))
            .sum();
        sum = (dot as f32).mul_add(weights.d * x.d, sum);
        if let Some(min) = weights.min {
            sum = min.mul_add(x.t, sum);
        }
    }
    sum
}

fn check(format: Format, outputs: usize, units: usize, rows: usize, seed: u64) {
    let mut random = Random::new(seed);
    let inputs = usize::max(
        units * format.weights_per_unit(),
        if format.is_float() { 5 } else { 0 },
    );
    let gguf = random.weights(format, outputs * inputs);
    let packed = Packed::pack(format, outputs, inputs, &gguf).unwrap();
    for level in Level::available() {
        let mut x = Activations::new(rows, inputs);
        let mut again = Random::new(seed + 1);
        let (floats, blocks) = x.parts_mut();
        floats.fill_with(|| again.normal());
        for row in 0..rows {
            let floats = &floats[row * inputs..][..inputs];
            let blocks = &mut blocks[row * (inputs / 32)..][..inputs / 32];
            activations::quantise(level, floats, blocks);
        }
        let mut scratch = Scratch::new(rows);
        for group in 0..packed.groups() {
            multiply_group(
                level,
                &packed,
                group,
                &x,
                0..rows,
                &mut scratch,
                |row, sums| {
                    for (lane, sum) in sums.iter().enumerate() {
                        let output = group * LANES + lane;
                        if output < outputs {
                            let size = format.row_bytes(inputs);
                            let weights = &gguf[output * size..][..size];
                            let expected = by_the_spec(format, weights, &x, row);
                            assert_eq!(
                                sum.to_bits(),
                                expected.to_bits(),
                                "{format:?} {level:?} output {output} of {outputs}, row {row} of {rows}, {inputs} inputs: {sum} for {expected}"
                            );
                        }
                    }
                },
            );
        }
    }
}

#[test]
fn every_format_is_as_specified_at_every_level() {
    for format in FORMATS {
        for (outputs, units, rows) in [(16, 1, 1), (48, 2, 9), (20, 3, 2), (1, 5, 4), (33, 4, 7)] {
            check(format, outputs, units, rows, 7);
        }
        // More blocks than fit a chunk of tiles.
        check(
            format,
            16,
            if format.weights_per_unit() == 256 {
                8
            } else {
                60
            },
            6,
            9,
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn any_shape_is_as_specified(
        format in proptest::sample::select(FORMATS.to_vec()),
        outputs in 1_usize..70,
        units in 1_usize..6,
        rows in 1_usize..40,
        seed: u32,
    ) {
        check(format, outputs, units, rows, u64::from(seed));
    }
}

/// The largest integers that any block can give stay exact.
#[test]
fn extreme_codes_do_not_saturate() {
    for format in FORMATS.into_iter().filter(|format| !format.is_float()) {
        for fill in [0x00, 0xFF, 0x7F, 0x80] {
            let (outputs, inputs) = (16, 256);
            let mut gguf = vec![fill; outputs * format.row_bytes(inputs)];
            for unit in gguf.chunks_exact_mut(format.bytes_per_unit()) {
                crate::exact::random::set_scales(format, unit, 0x3800, 0x3400);
            }
            let packed = Packed::pack(format, outputs, inputs, &gguf).unwrap();
            for sign in [1.0, -1.0] {
                let mut x = Activations::new(5, inputs);
                let (floats, blocks) = x.parts_mut();
                floats.fill(sign * 3.0);
                for (floats, blocks) in floats.chunks(inputs).zip(blocks.chunks_mut(inputs / 32)) {
                    activations::quantise(Level::Portable, floats, blocks);
                }
                let expected = by_the_spec(format, &gguf, &x, 0);
                for level in Level::available() {
                    for rows in [1, 2, 5] {
                        let mut scratch = Scratch::new(rows);
                        multiply_group(level, &packed, 0, &x, 0..rows, &mut scratch, |_, sums| {
                            assert!(
                                sums.iter().all(|sum| sum.to_bits() == expected.to_bits()),
                                "{format:?} {level:?} {fill:#x}: {sums:?} for {expected}"
                            );
                        });
                    }
                }
            }
        }
    }
}
