//! Rotary position embedding, interleaved pairs, as GGUF lays Llama's heads out.

/// Cosines and sines of every position.
#[derive(Debug)]
pub(super) struct Rope {
    /// `[position][pair]`: cosine and sine.
    table: Vec<[f32; 2]>,
    pairs: usize,
}

impl Rope {
    pub(super) fn new(base: f32, head_dim: usize, positions: usize) -> Rope {
        let pairs = head_dim / 2;
        let frequencies: Vec<f64> = (0..pairs)
            .map(|i| libm::pow(f64::from(base), -2.0 * i as f64 / head_dim as f64))
            .collect();
        let turn = |position: usize| {
            let angles = frequencies.iter().map(move |f| position as f64 * f);
            angles.map(|angle| [libm::cos(angle) as f32, libm::sin(angle) as f32])
        };
        Rope {
            table: (0..positions).flat_map(turn).collect(),
            pairs,
        }
    }

    /// Turns heads, laid out one after the other, to a position.
    pub(super) fn rotate(&self, position: usize, heads: &mut [f32]) {
        let turns = &self.table[position * self.pairs..(position + 1) * self.pairs];
        for head in heads.chunks_exact_mut(2 * self.pairs) {
            for ([x, y], [cos, sin]) in head.as_chunks_mut::<2>().0.iter_mut().zip(turns) {
                (*x, *y) = (*x * cos - *y * sin, *x * sin + *y * cos);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_depend_on_the_distance_alone() {
        let rope = Rope::new(10_000.0, 8, 100);
        let dot = |a: usize, b: usize| -> f32 {
            let (mut q, mut k) = ([1.0, -2.0, 0.5, 3.0, 1.5, 0.0, -1.0, 2.0], [0.5; 8]);
            rope.rotate(a, &mut q);
            rope.rotate(b, &mut k);
            q.iter().zip(k).map(|(q, k)| q * k).sum()
        };
        assert!((dot(7, 3) - dot(91, 87)).abs() < 1e-4);
        assert!((dot(7, 3) - dot(7, 4)).abs() > 1e-2);
    }

    #[test]
    fn position_zero_is_left_alone() {
        let mut head = [1.0, 2.0, 3.0, 4.0];
        Rope::new(10_000.0, 4, 1).rotate(0, &mut head);
        assert_eq!(head, [1.0, 2.0, 3.0, 4.0]);
    }
}
