//! What is tested of `packed`: the same bits as the page and its scalar reference give.

use std::borrow::Cow;

use candle_core::Device;
use candle_core::quantized::{GgmlDType, QStorage, QTensor};

use super::*;
use crate::exact::random::Random;

const FORMATS: [(Format, GgmlDType); 11] = [
    (Format::F32, GgmlDType::F32),
    (Format::F16, GgmlDType::F16),
    (Format::Bf16, GgmlDType::BF16),
    (Format::Q4_0, GgmlDType::Q4_0),
    (Format::Q4_1, GgmlDType::Q4_1),
    (Format::Q5_0, GgmlDType::Q5_0),
    (Format::Q5_1, GgmlDType::Q5_1),
    (Format::Q8_0, GgmlDType::Q8_0),
    (Format::Q4K, GgmlDType::Q4K),
    (Format::Q5K, GgmlDType::Q5K),
    (Format::Q6K, GgmlDType::Q6K),
];

/// Candle reads the same blocks with code that isn't ours.
#[test]
fn blocks_mean_what_candle_says() {
    for (format, dtype) in FORMATS {
        assert_eq!(Format::of(dtype), Some(format));
        let count = 8 * 512;
        let bytes = Random::new(3).weights(format, count);
        let storage = QStorage::from_data(Cow::Borrowed(&bytes), &Device::Cpu, dtype).unwrap();
        let theirs = QTensor::new(storage, (8, 512)).unwrap();
        let theirs = theirs.dequantize(&Device::Cpu).unwrap();
        let theirs: Vec<Vec<f32>> = theirs.to_vec2().unwrap();
        for (theirs, row) in theirs.iter().zip(bytes.chunks(format.row_bytes(512))) {
            let mut ours = vec![0.0; 512];
            format.dequantise(row, &mut ours);
            for (ours, theirs) in ours.iter().zip(theirs) {
                // They may round the scale, the product and the sum apart.
                assert!(
                    (ours - theirs).abs() <= 2e-7,
                    "{format:?}: {ours} for {theirs}"
                );
            }
        }
    }
}

#[test]
fn packing_keeps_every_weight() {
    for (format, _) in FORMATS {
        for outputs in [1, 16, 37] {
            let inputs = 2 * usize::max(format.weights_per_unit(), 3);
            let bytes = Random::new(5).weights(format, outputs * inputs);
            let packed = Packed::pack(format, outputs, inputs, &bytes).unwrap();
            assert_eq!(packed.groups(), outputs.div_ceil(16));
            for (output, row) in bytes.chunks(format.row_bytes(inputs)).enumerate() {
                let (mut before, mut after) = (vec![0.0; inputs], vec![0.0; inputs]);
                format.dequantise(row, &mut before);
                packed.dequantise_row(output, &mut after);
                assert_eq!(before, after, "{format:?}, output {output} of {outputs}");
            }
        }
    }
}

#[test]
fn packing_takes_hardly_more_room_than_the_file() {
    for (format, _) in FORMATS {
        let in_file = 64 * format.row_bytes(512);
        let packed = Packed::packed_bytes(format, 64, 512);
        // K-quants' 6-bit scales become bytes.
        let most = match format {
            Format::Q4K | Format::Q5K => in_file * 103 / 100,
            _ => in_file,
        };
        assert!(packed <= most, "{format:?}: {packed} bytes for {in_file}");
    }
}
