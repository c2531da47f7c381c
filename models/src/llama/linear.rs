//! A linear layer: `y = x Wᵀ` for all rows of a step at once.

use candle_core::{Device, Error, Tensor};
use rayon::prelude::*;

/// A weight matrix, `[outputs, inputs]`.
#[derive(Debug)]
pub(super) struct Linear {
    weight: Tensor,
    outputs: usize,
    inputs: usize,
}

/// Up to this many rows, candle's matmul uses one thread or packs the whole
/// weight first; several calls on slices of the outputs use them all.
const FEW_ROWS: usize = 16;

impl Linear {
    pub(super) fn new(weight: Tensor) -> Linear {
        let (outputs, inputs) = weight.dims2().expect("weights are loaded as matrices");
        Linear {
            weight,
            outputs,
            inputs,
        }
    }

    /// Applies the layer to rows laid out one after the other.
    pub(super) fn apply(&self, x: Vec<f32>) -> Result<Vec<f32>, Error> {
        let rows = x.len() / self.inputs;
        let x = Tensor::from_vec(x, (rows, self.inputs), &Device::Cpu)?;
        let threads = rayon::current_num_threads();
        if rows > FEW_ROWS || threads == 1 {
            return x.matmul(&self.weight.t()?)?.flatten_all()?.to_vec1();
        }
        let part = self.outputs.div_ceil(threads);
        let starts: Vec<usize> = (0..self.outputs).step_by(part).collect();
        let parts: Vec<Vec<f32>> = starts
            .par_iter()
            .map(|&start| {
                let weight = self
                    .weight
                    .narrow(0, start, part.min(self.outputs - start))?;
                x.matmul(&weight.t()?)?.flatten_all()?.to_vec1()
            })
            .collect::<Result<_, Error>>()?;
        let mut y = Vec::with_capacity(rows * self.outputs);
        for row in 0..rows {
            for part in &parts {
                let width = part.len() / rows;
                y.extend_from_slice(&part[row * width..(row + 1) * width]);
            }
        }
        Ok(y)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_rows_and_many_are_the_same_product() {
        let (outputs, inputs) = (50, 24);
        let weight: Vec<f32> = (0..outputs * inputs)
            .map(|i| (i % 7) as f32 - 3.0)
            .collect();
        let tensor = Tensor::from_vec(weight.clone(), (outputs, inputs), &Device::Cpu).unwrap();
        let linear = Linear::new(tensor);
        for rows in [1, 2, 3, FEW_ROWS, FEW_ROWS + 1, 40] {
            let x: Vec<f32> = (0..rows * inputs).map(|i| (i % 5) as f32 - 2.0).collect();
            let y = linear.apply(x.clone()).unwrap();
            for (x, y) in x.chunks(inputs).zip(y.chunks(outputs)) {
                for (w, y) in weight.chunks(inputs).zip(y) {
                    let want: f32 = w.iter().zip(x).map(|(w, x)| w * x).sum();
                    assert_eq!(*y, want, "{rows} rows");
                }
            }
        }
    }
}
