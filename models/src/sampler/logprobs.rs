//! Log-probabilities of the raw logits, for information. Spec 7.

use std::cmp::Ordering;

use super::blocks::{self, BLOCK};
use crate::exact::Level;

/// Raw log-probabilities at one position, before any sampling parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Logprobs {
    /// The chosen token's.
    pub chosen: f32,
    /// The likeliest tokens', descending, ties by id.
    pub top: Vec<(u32, f32)>,
}

/// Log-softmax of the logits: the chosen token's, and the `k` likeliest.
pub fn log_softmax_top(logits: &[f32], k: usize, chosen: u32) -> Logprobs {
    let level = Level::detect();
    let mut maxima = vec![0.0; logits.len().div_ceil(BLOCK)];
    blocks::survey(level, logits, &mut maxima);
    let max = maxima
        .iter()
        .fold(f32::NEG_INFINITY, |a, b| f32::max(a, *b));
    let log_sum = libm::log(blocks::sum_of_exponentials(level, logits, max));
    let logprob = |value: f32| (f64::from(value - max) - log_sum) as f32;
    let top = greatest(logits, maxima, k).into_iter();
    Logprobs {
        chosen: logprob(logits[chosen as usize]),
        top: top.map(|(value, id)| (id, logprob(value))).collect(),
    }
}

/// The `k` greatest and their indices, descending, ties by index.
fn greatest(values: &[f32], maxima: Vec<f32>, k: usize) -> Vec<(f32, u32)> {
    if k == 0 {
        return Vec::new();
    }
    let order = |a: &(f32, u32), b: &(f32, u32)| {
        let descending = b.0.partial_cmp(&a.0).unwrap_or(Ordering::Equal);
        descending.then(a.1.cmp(&b.1))
    };
    // The k-th greatest maximum isn't above the k-th greatest value.
    let mut bar = f32::NEG_INFINITY;
    if k <= maxima.len() {
        let mut maxima = maxima.clone();
        bar = *maxima
            .select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a))
            .1;
    }
    let mut found = Vec::with_capacity(2 * k);
    let blocks = values.chunks(BLOCK).zip(maxima);
    for (first, (block, max)) in (0u32..).step_by(BLOCK).zip(blocks) {
        if max >= bar {
            let ids = (first..).zip(block).filter(|(_, value)| **value >= bar);
            found.extend(ids.map(|(id, value)| (*value, id)));
        }
    }
    if found.len() > k {
        found.select_nth_unstable_by(k - 1, order);
        found.truncate(k);
    }
    found.sort_unstable_by(order);
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn logprobs_are_log_softmax_of_the_raw_logits() {
        let logits = [1.0f32, 3.0, -2.0, 3.0];
        let found = log_softmax_top(&logits, 3, 2);
        let sum: f64 = logits.iter().map(|l| libm::exp(f64::from(*l))).sum();
        let ids: Vec<u32> = found.top.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, [1, 3, 0]);
        for (id, logprob) in found.top.iter().copied().chain([(2, found.chosen)]) {
            let want = f64::from(logits[id as usize]) - libm::log(sum);
            assert!((f64::from(logprob) - want).abs() < 1e-6);
        }
        assert_eq!(log_softmax_top(&logits, 9, 0).top.len(), 4);
    }

    proptest! {
        #[test]
        fn greatest_is_a_sort(values in prop::collection::vec(0u16..50, 1..3000), k in 0usize..1200) {
            let values: Vec<f32> = values.into_iter().map(f32::from).collect();
            let mut want: Vec<u32> = (0..values.len() as u32).collect();
            want.sort_by(|a, b| {
                let [x, y] = [a, b].map(|id| values[*id as usize]);
                y.total_cmp(&x).then(a.cmp(b))
            });
            want.truncate(k);
            let top = log_softmax_top(&values, k, 0).top;
            prop_assert_eq!(top.into_iter().map(|(id, _)| id).collect::<Vec<_>>(), want);
        }
    }
}
