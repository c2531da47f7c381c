//! Gumbel noise for a position, and the token that wins with it. Spec 6.

use protocol::sampling::Seed;

use super::survivors::Survivors;
use crate::philox::philox;

/// The noise of one position of one choice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Noise {
    key: u64,
    position: u32,
    choice: u32,
}

/// Of a counter: noise for drawing tokens. Other numbers are kept for other uses.
const STREAM: u32 = 0;

impl Noise {
    pub(super) fn new(seed: Seed, position: u32, choice: u8) -> Noise {
        Noise {
            key: seed.0,
            position,
            choice: u32::from(choice),
        }
    }

    /// The random words of tokens `4 * block` to `4 * block + 3`. Spec 6.1.
    fn words(&self, block: u32) -> [u32; 4] {
        philox(self.key, [block, self.position, self.choice, STREAM])
    }

    /// The survivor with the greatest sum of value and noise, the lowest id of several. Spec 6.3.
    pub(super) fn winner(&self, values: &[f64], survivors: &Survivors, likeliest: u32) -> u32 {
        // The likeliest token survives every rule; the others have to beat it.
        let word = self.words(likeliest / 4)[likeliest as usize % 4];
        let mut leader = Leader {
            id: likeliest,
            score: values[likeliest as usize] + gumbel(word),
        };
        match survivors {
            Survivors::All => {
                for (block, values) in (0u32..).zip(values.chunks(4)) {
                    for ((id, &value), word) in (4 * block..).zip(values).zip(self.words(block)) {
                        leader.meet(id, value, word);
                    }
                }
            }
            Survivors::Some(ids) => {
                for block in ids.chunk_by(|a, b| a / 4 == b / 4) {
                    let words = self.words(block[0] / 4);
                    for &id in block {
                        leader.meet(id, values[id as usize], words[id as usize % 4]);
                    }
                }
            }
        }
        leader.id
    }
}

/// The best token so far.
struct Leader {
    id: u32,
    score: f64,
}

impl Leader {
    #[inline]
    fn meet(&mut self, id: u32, value: f64, word: u32) {
        // Skips only what can't win: the bound is above the noise, rounding included.
        if value + gumbel_bound(word) < self.score {
            return;
        }
        let score = value + gumbel(word);
        if score > self.score || score == self.score && id < self.id {
            *self = Leader { id, score };
        }
    }
}

/// The noise that a random word stands for. Spec 6.2.
fn gumbel(word: u32) -> f64 {
    let uniform = (f64::from(word) + 0.5) / 4_294_967_296.0;
    -libm::log(-libm::log(uniform))
}

/// Not less than [`gumbel`], and much cheaper.
///
/// −ln u ≥ 1 − u, and 1 − u ≥ 2^−(1+n) where n is the number of leading ones of the word; so
/// the noise is at most (1 + n) ln 2.
#[inline]
fn gumbel_bound(word: u32) -> f64 {
    const ABOVE_LN_2: f64 = std::f64::consts::LN_2 + 1e-9;
    f64::from(1 + word.leading_ones()) * ABOVE_LN_2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_noise() {
        // spec 6.4: the bits, so that another implementation can tell whether its log is ours.
        let known = [
            (0x0000_0000, 0xc009_0a3a_a15a_0b5du64),
            (0x8000_0000, 0x3fd7_74f2_9c39_c0bd),
            (0xffff_ffff, 0x4036_dfb5_16f1_cbbf),
            (0x6627_e8d5, 0x3fb5b6c7ac8fd9d3),
        ];
        for (word, bits) in known {
            assert_eq!(gumbel(word).to_bits(), bits, "{word:#010x}");
        }
    }

    proptest! {
        #[test]
        fn the_bound_is_above(word: u32, ones in 0u32..32) {
            for word in [word, word | !(u32::MAX >> ones), !(u32::MAX >> ones)] {
                prop_assert!(gumbel(word) < gumbel_bound(word));
            }
        }
    }
}
