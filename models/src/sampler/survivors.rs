//! Which tokens top-k, min-p and top-p leave. Spec 5.

use std::cmp::Ordering;

use protocol::sampling::Sampling;

/// The tokens that may win. An excluded one may be among them: −∞ never wins.
#[derive(Debug, PartialEq)]
pub(super) enum Survivors {
    /// All.
    All,
    /// These, in ascending order.
    Some(Vec<u32>),
}

impl Survivors {
    /// `values` are logits relative to the greatest, divided by the temperature; excluded ones
    /// are −∞.
    pub(super) fn of(values: &[f64], parameters: &Sampling) -> Survivors {
        let Sampling {
            top_k,
            min_p,
            top_p,
            ..
        } = *parameters;
        let mut left = Survivors::All;
        if top_k > 0 && (top_k as usize) < values.len() {
            let mut ids = greatest(values, top_k as usize); // spec 5.2
            ids.sort_unstable();
            left = Survivors::Some(ids);
        }
        if min_p > 0.0 {
            let least = libm::log(min_p); // spec 5.3
            left = left.filter(values, |value| value >= least);
        }
        if top_p < 1.0 {
            left = left.nucleus(values, top_p);
        }
        left
    }

    fn filter(self, values: &[f64], keep: impl Fn(f64) -> bool) -> Survivors {
        let keep = |id: &u32| keep(values[*id as usize]);
        Survivors::Some(match self {
            Survivors::All => (0..values.len() as u32).filter(keep).collect(),
            Survivors::Some(ids) => ids.into_iter().filter(keep).collect(),
        })
    }

    /// The likeliest tokens that together have `top_p` of the mass. Spec 5.4.
    fn nucleus(self, values: &[f64], top_p: f64) -> Survivors {
        match self {
            Survivors::All => Survivors::Some(nucleus(values, 0..values.len() as u32, top_p)),
            Survivors::Some(ids) => Survivors::Some(nucleus(values, ids, top_p)),
        }
    }
}

/// Those of `ids` that are in the nucleus, ascending if `ids` are.
///
/// Weights are integers, so their sums don't depend on the order, and no sort of all tokens is
/// needed: a histogram finds the narrow range of values in which the last ones lie.
fn nucleus(
    values: &[f64],
    ids: impl IntoIterator<Item = u32, IntoIter: Clone>,
    top_p: f64,
) -> Vec<u32> {
    let ids = ids.into_iter();
    let ranges: Vec<u16> = ids.clone().map(|id| range(values[id as usize])).collect();
    let mut mass = [0u64; RANGES as usize];
    for (id, &range) in ids.clone().zip(&ranges) {
        mass[usize::from(range)] += weight(values[id as usize]);
    }
    let total: u64 = mass.iter().sum();
    let target = (libm::ceil(top_p * total as f64) as u64).max(1);
    // Everything in the ranges before `last` is needed, and some of that in `last`.
    let (mut last, mut sum) = (0, 0);
    for (range, mass) in (0u16..).zip(mass) {
        last = range;
        if sum + mass >= target {
            break;
        }
        sum += mass;
    }
    let in_last = ids
        .clone()
        .zip(&ranges)
        .filter(|(_, range)| **range == last);
    let mut border: Vec<u32> = in_last.map(|(id, _)| id).collect();
    sort_descending(&mut border, values);
    let enough = border.iter().position(|&id| {
        sum += weight(values[id as usize]);
        sum >= target
    });
    border.truncate(enough.map_or(border.len(), |at| at + 1));
    border.sort_unstable();
    let kept = ids
        .zip(&ranges)
        .filter(|(id, range)| match last.cmp(range) {
            Ordering::Greater => true,
            Ordering::Equal => border.binary_search(id).is_ok(),
            Ordering::Less => false,
        });
    kept.map(|(id, _)| id).collect()
}

/// `⌊e^value · 2^40⌋`, a token's share of the mass. Spec 5.4.1.
///
/// The same bits as `libm::exp` (fdlibm's algorithm), but inlined, and without the cases that a
/// `value` of at most 0 can't meet: this is the costliest loop of sampling.
#[inline]
fn weight(value: f64) -> u64 {
    const LN2_HI: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
    const LN2_LO: f64 = f64::from_bits(0x3dea_39ef_3579_3c76);
    const P: [f64; 5] = [
        f64::from_bits(0x3fc5_5555_5555_553e),
        f64::from_bits(0xbf66_c16c_16be_bd93),
        f64::from_bits(0x3f11_566a_af25_de2c),
        f64::from_bits(0xbebb_bd41_c5d2_6bf1),
        f64::from_bits(0x3e66_3769_72be_a4d0),
    ];
    if value < LEAST {
        return 0;
    }
    // fdlibm compares the high word of |x| with those of 1.5 ln 2, 0.5 ln 2 and 2^−28.
    let magnitude = (value.to_bits() >> 32) as u32 & 0x7fff_ffff;
    let k = match magnitude {
        0x3ff0_a2b2.. => (std::f64::consts::LOG2_E * value - 0.5) as i32,
        0x3fd6_2e43.. => -1,
        0x3e30_0001.. => 0,
        _ => return ((1.0 + value) * UNIT) as u64,
    };
    let hi = value - f64::from(k) * LN2_HI;
    let lo = f64::from(k) * LN2_LO;
    let x = hi - lo;
    let xx = x * x;
    let c = x - xx * (P[0] + xx * (P[1] + xx * (P[2] + xx * (P[3] + xx * P[4]))));
    let y = 1.0 + (x * c / (2.0 - c) - lo + hi);
    // Times 2^(k + 40), which is exact.
    (y * f64::from_bits(((k + 40 + 1023) as u64) << 52)) as u64
}

const UNIT: f64 = (1u64 << 40) as f64;

/// e^LEAST is below 2^−40, so weights from here on are 0.
const LEAST: f64 = -28.0;

const RANGES: u16 = 2048;

/// Which of the ranges a value falls in, the greatest values in the first. All below [`LEAST`]
/// are in the last.
fn range(value: f64) -> u16 {
    const PER_UNIT: f64 = RANGES as f64 / -LEAST;
    ((value.max(LEAST) * -PER_UNIT) as i32 as u16).min(RANGES - 1)
}

fn sort_descending(ids: &mut [u32], values: &[f64]) {
    let order = |a: &u32, b: &u32| {
        let (x, y) = (values[*a as usize], values[*b as usize]);
        y.partial_cmp(&x)
            .expect("values are numbers")
            .then(a.cmp(b))
    };
    ids.sort_unstable_by(order);
}

/// The indices of the `k` greatest, descending, ties by index.
pub(super) fn greatest<T: Copy + PartialOrd>(values: &[T], k: usize) -> Vec<u32> {
    if k == 0 {
        return Vec::new();
    }
    let order = |a: &(T, u32), b: &(T, u32)| {
        let descending = b.0.partial_cmp(&a.0).expect("logits are numbers");
        descending.then(a.1.cmp(&b.1))
    };
    // Collects up to `room`, then keeps the best k and the bar that a newcomer must pass. Of
    // equals the first is better, so an equal newcomer doesn't.
    let room = (2 * k).max(k + 256);
    let mut found: Vec<(T, u32)> = Vec::with_capacity(room.min(values.len()));
    let mut bar = None;
    for (index, &value) in (0u32..).zip(values) {
        if bar.is_some_and(|bar| value <= bar) {
            continue;
        }
        found.push((value, index));
        if found.len() == room {
            found.select_nth_unstable_by(k - 1, order);
            found.truncate(k);
            bar = Some(found[k - 1].0);
        }
    }
    if found.len() > k {
        found.select_nth_unstable_by(k - 1, order);
        found.truncate(k);
    }
    found.sort_unstable_by(order);
    found.into_iter().map(|(_, index)| index).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn weights_are_libms_exponentials() {
        let check = |value: f64| {
            let want = (libm::exp(value) * UNIT) as u64;
            assert_eq!(weight(value), want, "{value:?}");
        };
        let ln2 = std::f64::consts::LN_2;
        for edge in [
            0.5 * ln2,
            1.5 * ln2,
            1.0 / f64::from(1u32 << 28),
            -LEAST,
            27.7,
            700.0,
            1e300,
        ] {
            for step in -2000..2000i64 {
                check(-f64::from_bits(edge.to_bits().wrapping_add_signed(step)));
                check(-f64::from_bits(
                    edge.to_bits().wrapping_add_signed(step << 24),
                ));
            }
        }
        [0.0, -0.0, f64::NEG_INFINITY, -f64::MIN_POSITIVE]
            .into_iter()
            .for_each(check);
        (0..1_000_000).for_each(|i| check(-f64::from(i) * 3.1e-5));
    }

    proptest! {
        #[test]
        fn a_nucleus_is_a_sort(
            values in prop::collection::vec(0u16..3000, 1..400),
            scale in prop::sample::select(vec![1.0, 30.0, 3000.0]),
            top_p in 0.0f64..1.0,
        ) {
            let mut values: Vec<f64> = values.into_iter().map(|v| -f64::from(v) / scale).collect();
            values[0] = 0.0;
            let ids = 0..values.len() as u32;
            let mut ranked: Vec<u32> = ids.clone().collect();
            sort_descending(&mut ranked, &values);
            let total: u64 = values.iter().map(|&v| weight(v)).sum();
            let target = ((top_p * total as f64).ceil() as u64).max(1);
            let mut want = Vec::new();
            let mut sum = 0;
            for id in ranked {
                want.push(id);
                sum += weight(values[id as usize]);
                if sum >= target {
                    break;
                }
            }
            want.sort_unstable();
            prop_assert_eq!(nucleus(&values, ids, top_p), want);
        }
    }
}
