//! Which tokens top-k, min-p and top-p leave. Spec 5.
//!
//! Each rule leaves the first tokens in rank, so what they leave together is
//! told by the [`Last`] of them, and no list of survivors is needed.

use std::cmp::Ordering;

use protocol::sampling::Sampling;

use super::adjusted::{Adjusted, Found};
use super::blocks::{self, BLOCK, Heavy, weight};

/// A token's rank: its distance from the best (spec 4.2), and its id.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Last {
    pub distance: f64,
    pub id: u32,
}

impl Last {
    /// After every token.
    const NONE: Last = Last {
        distance: f64::NEG_INFINITY,
        id: u32::MAX,
    };

    /// Whether a token is this one, or before it in rank (spec 5.1).
    #[inline]
    pub fn admits(&self, distance: f64, id: u32) -> bool {
        distance > self.distance || distance == self.distance && id <= self.id
    }

    fn or_earlier(self, other: Last) -> Last {
        match self.admits(other.distance, other.id) {
            true => other,
            false => self,
        }
    }
}

/// The last token that each rule leaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Survivors {
    pub top_k: Last,
    /// Beside those that top-k left.
    pub min_p: Last,
    /// Of those that the others left.
    pub top_p: Last,
}

impl Survivors {
    pub fn of(adjusted: &Adjusted, parameters: &Sampling, found: &mut Found) -> Survivors {
        let Sampling {
            top_k,
            min_p,
            top_p,
            ..
        } = *parameters;
        let mut survivors = Survivors {
            top_k: Last::NONE,
            min_p: Last::NONE,
            top_p: Last::NONE,
        };
        if top_k > 0 && (top_k as usize) < adjusted.bulk.len() {
            survivors.top_k = kth(adjusted, top_k as usize, found); // spec 5.2
        }
        if min_p > 0.0 {
            survivors.min_p.distance = libm::log(min_p); // spec 5.3
        }
        if top_p < 1.0 {
            survivors.top_p = nucleus(adjusted, survivors.last(), top_p, found);
        }
        survivors
    }

    /// The last token that all rules leave.
    pub fn last(&self) -> Last {
        self.top_k.or_earlier(self.min_p).or_earlier(self.top_p)
    }
}

/// The `k`-th token in rank.
fn kth(adjusted: &Adjusted, k: usize, found: &mut Found) -> Last {
    let Found { tokens, maxima, .. } = found;
    // The k-th greatest maximum isn't above the k-th greatest value.
    let mut bar = f32::NEG_INFINITY;
    if k <= adjusted.maxima.len() {
        maxima.clear();
        maxima.extend_from_slice(adjusted.maxima);
        let (_, kth, _) = maxima.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
        bar = *kth;
    }
    // Values just below the bar may be at the same distance.
    let floor = match bar.is_finite() {
        true => adjusted.floor(adjusted.distance(f64::from(bar))),
        false => f32::NEG_INFINITY,
    };
    tokens.clear();
    adjusted.each_from(floor, |id, value| {
        tokens.push((adjusted.distance(value), id))
    });
    if tokens.len() < k {
        return Last::NONE;
    }
    let (_, (distance, id), _) = tokens.select_nth_unstable_by(k - 1, by_rank);
    Last {
        distance: *distance,
        id: *id,
    }
}

/// The last of the likeliest tokens that together have `top_p` of the mass. Spec 5.4.
///
/// Weights are integers that fall with the rank, so a search for the weight at which their sum
/// reaches the target needs no order; only the tokens with about that weight are ranked.
fn nucleus(adjusted: &Adjusted, last: Last, top_p: f64, found: &mut Found) -> Last {
    let Found {
        tokens,
        weights,
        sums,
        ..
    } = found;
    weigh(adjusted, last, weights, sums);
    let blocks = || weights.as_chunks::<BLOCK>().0.iter().zip(sums.iter());
    let heavy = |least: u64| {
        let mut all = Heavy { mass: 0, count: 0 };
        for (weights, _) in blocks().filter(|(_, sum)| **sum >= least) {
            let Heavy { mass, count } = blocks::heavy(adjusted.level, weights, least);
            (all.mass, all.count) = (all.mass + mass, all.count + count);
        }
        all
    };
    let total: u64 = sums.iter().sum();
    let target = (libm::ceil(top_p * total as f64) as u64).max(1);
    if target > total {
        return last; // The product was rounded up.
    }
    // The tokens with weights of `low` or more reach the target, those with `high` or more don't.
    let (mut low, mut high) = (1, (1 << 40) + 1);
    let (mut more, mut less) = (heavy(low), Heavy { mass: 0, count: 0 });
    while high - low > 1 && more.count - less.count > 32 {
        let middle = between(low, high);
        let found = heavy(middle);
        if found.mass >= target {
            (low, more) = (middle, found);
        } else {
            (high, less) = (middle, found);
        }
    }
    tokens.clear();
    for (first, (weights, sum)) in (0u32..).step_by(BLOCK).zip(blocks()) {
        if *sum < low {
            continue;
        }
        for (id, weight) in (first..).zip(weights) {
            if (low..high).contains(weight) {
                tokens.push((adjusted.distance(adjusted.value(id)), id));
            }
        }
    }
    reaching(tokens, target - less.mass)
}

/// Writes the weights of all tokens up to `last`, and their sums block by block. Spec 5.4.1.
fn weigh(adjusted: &Adjusted, last: Last, weights: &mut Vec<u64>, sums: &mut Vec<u64>) {
    let floor = adjusted.floor(f64::max(last.distance, blocks::LEAST));
    // Blocks without mass keep what was there: nobody looks at them.
    weights.resize(adjusted.maxima.len() * BLOCK, 0);
    sums.clear();
    let blocks = adjusted.bulk.chunks(BLOCK).zip(adjusted.maxima);
    let out = weights.as_chunks_mut::<BLOCK>().0.iter_mut();
    for (at, ((block, max), out)) in blocks.zip(out).enumerate() {
        if *max < floor {
            sums.push(0);
            if !adjusted.extras.is_empty() {
                out.fill(0);
            }
            continue;
        }
        let mut padded = [f32::NEG_INFINITY; BLOCK];
        let block = block.first_chunk().unwrap_or_else(|| {
            padded[..block.len()].copy_from_slice(block);
            &padded
        });
        let until = blocks::Until {
            best: adjusted.best.1,
            temperature: adjusted.temperature,
            last: last.distance,
            id: f64::from(last.id) - (at * BLOCK) as f64,
        };
        sums.push(blocks::weights(adjusted.level, block, &until, out));
    }
    for &(id, value) in adjusted.extras {
        let distance = adjusted.distance(value);
        if last.admits(distance, id) {
            weights[id as usize] = weight(distance);
            sums[id as usize / BLOCK] += weight(distance);
        }
    }
}

/// A number between two positive ones that aren't neighbours: in the middle of their exponents
/// at first, and then of their digits.
fn between(low: u64, high: u64) -> u64 {
    let bits = |n: u64| (n as f64).to_bits();
    let middle = f64::from_bits(u64::midpoint(bits(low), bits(high))) as u64;
    middle.clamp(low + 1, high - 1)
}

/// The token with which the sum in rank reaches the target.
fn reaching(mut tokens: &mut [(f64, u32)], mut target: u64) -> Last {
    while tokens.len() > 16 {
        let middle = tokens.len() / 2;
        tokens.select_nth_unstable_by(middle, by_rank);
        let (first, second) = tokens.split_at_mut(middle);
        let sum: u64 = first.iter().map(|(distance, _)| weight(*distance)).sum();
        tokens = if sum >= target {
            first
        } else {
            target -= sum;
            second
        };
    }
    tokens.sort_unstable_by(by_rank);
    let mut sum = 0;
    let enough = tokens.iter().find(|(distance, _)| {
        sum += weight(*distance);
        sum >= target
    });
    let &(distance, id) = enough.expect("the tokens reach the target together");
    Last { distance, id }
}

fn by_rank(a: &(f64, u32), b: &(f64, u32)) -> Ordering {
    let descending = b.0.partial_cmp(&a.0).expect("distances are numbers");
    descending.then(a.1.cmp(&b.1))
}
