//! Gumbel noise for a position, and the token that wins with it. Spec 6.
//!
//! A token's noise costs two logarithms, and the random word that it stands
//! for next to nothing. So each word is first compared with the least that
//! could win, by a bound in f32 that errs on one side only; the few tokens that
//! pass, some ten of a vocabulary, are compared exactly. Vector code for the
//! words is in `noise/`.

use super::adjusted::{Adjusted, HOT, round_down};
use super::blocks::BLOCK;
use super::survivors::Last;
use super::{Input, Sampler};
use crate::exact::Level;
use crate::philox::{self, philox};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

/// The noise of one position of one choice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Noise {
    level: Level,
    key: u64,
    keys: [[u32; 2]; philox::ROUNDS],
    position: u32,
    choice: u32,
}

/// Of a counter: noise for drawing tokens. Other numbers are kept for other uses.
const STREAM: u32 = 0;

/// Random counters in a block.
const COUNTERS: u32 = (BLOCK / 4) as u32;

impl Noise {
    pub fn new(sampler: &Sampler, input: &Input) -> Noise {
        let key = sampler.parameters.seed.0;
        Noise {
            level: sampler.level,
            key,
            keys: philox::keys(key),
            position: input.position,
            choice: u32::from(input.choice),
        }
    }

    /// A token's noise. Spec 6.1 and 6.2.
    pub fn of(&self, id: u32) -> f64 {
        let counter = [id / 4, self.position, self.choice, STREAM];
        gumbel(philox(self.key, counter)[id as usize % 4])
    }

    /// The survivor with the greatest sum of distance and noise, the lowest id of several, and
    /// the sum. Spec 6.3.
    pub fn winner(&self, adjusted: &Adjusted, last: Last) -> (u32, f64) {
        let mut race = Race {
            noise: self,
            adjusted,
            last,
            leader: BEHIND,
            bound: Bound::new(adjusted, last, BEHIND.1),
        };
        let (id, value) = adjusted.best;
        race.meet(id, value);
        match self.level {
            _ if adjusted.temperature > HOT => race.run(|_, _, _| u64::MAX),
            Level::Portable => {
                race.run(|first, values, bound| portable(self, first, values, bound))
            }
            // SAFETY: `Level::available` found the features.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { avx2::run(&mut race) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { avx512::run(&mut race) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => race.run(|first, values, bound| portable(self, first, values, bound)),
        }
        for &(id, value) in adjusted.extras {
            if adjusted.distance(value) + NOISE_MAX > race.leader.1 {
                race.meet(id, value);
            }
        }
        race.leader
    }
}

/// A token's place in the race: its id, and distance and noise together.
type Score = (u32, f64);

/// Behind every survivor: the first in rank has a distance of 0, and noise is above −3.13.
const BEHIND: Score = (u32::MAX, -4.0);

/// Above all noise, and a sum's rounding.
const NOISE_MAX: f64 = 22.8741;

struct Race<'a> {
    noise: &'a Noise,
    adjusted: &'a Adjusted<'a>,
    last: Last,
    leader: Score,
    bound: Bound,
}

impl Race<'_> {
    /// Meets every token of the bulk that `pass` lets through: a function of a block's first
    /// counter, its values, and the bound, that gives a bit for each token.
    #[inline(always)]
    fn run(&mut self, pass: impl Fn(u32, &[f32; BLOCK], &Bound) -> u64) {
        let adjusted = self.adjusted;
        let blocks = adjusted.bulk.chunks(BLOCK).zip(adjusted.maxima);
        for (counter, (block, max)) in (0u32..).step_by(COUNTERS as usize).zip(blocks) {
            if *max < self.bound.floor {
                continue;
            }
            let passed = match block.first_chunk() {
                Some(block) => pass(counter, block, &self.bound),
                None => {
                    let mut last = [f32::NEG_INFINITY; BLOCK];
                    last[..block.len()].copy_from_slice(block);
                    pass(counter, &last, &self.bound) & ((1 << block.len()) - 1)
                }
            };
            if passed != 0 {
                self.meet_all(4 * counter, block, passed);
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn meet_all(&mut self, first: u32, block: &[f32], mut passed: u64) {
        while passed != 0 {
            let at = passed.trailing_zeros();
            passed &= passed - 1;
            self.meet(first + at, f64::from(block[at as usize]));
        }
    }

    fn meet(&mut self, id: u32, value: f64) {
        let distance = self.adjusted.distance(value);
        if value == f64::NEG_INFINITY || !self.last.admits(distance, id) {
            return;
        }
        let score = distance + self.noise.of(id);
        if score > self.leader.1 || score == self.leader.1 && id < self.leader.0 {
            self.leader = (id, score);
            self.bound = Bound::new(self.adjusted, self.last, score);
        }
    }
}

/// What a token needs to pass.
///
/// With the noise g = −ln(−ln u) of a word w, u = (w + ½) / 2^32, a distance z and a score s to beat:
/// z + g ≥ s means −ln u ≤ e^(z − s), and since −ln u ≥ 1 − u, the complement c = 2^32 − 1 − w must
/// have c + ½ ≤ 2^32 · e^(z − s). In logarithms to base 2, log2(c') ≤ (z − s) · log2(e) + 24, where
/// c' = ⌊c / 256⌋ is exact in f32. The bits of a float f, read as an integer, are at most
/// (log2(f) + 127) · 2^23. So it is necessary that
///
///   bits(c') ≤ (value − max) · scale + offset
///
/// with scale = log2(e) / temperature · 2^23 and offset = (151 − s · log2(e)) · 2^23. The roundings, of
/// which each is below 2^−16 · 2^23 where it counts, are covered by making s less by [`SLACK`].
#[derive(Debug, Clone, Copy)]
struct Bound {
    max: f32,
    scale: f32,
    offset: f32,
    /// Tokens with lower values can't win whatever their noise, or aren't survivors.
    floor: f32,
}

const SLACK: f64 = 1.0 / 512.0;

impl Bound {
    fn new(adjusted: &Adjusted, last: Last, score: f64) -> Bound {
        const UNIT: f64 = (1u32 << 23) as f64;
        let log2e = std::f64::consts::LOG2_E;
        let floor = f64::max(last.distance, score - NOISE_MAX);
        Bound {
            max: round_down(adjusted.best.1),
            scale: f64::min(log2e / adjusted.temperature * UNIT, f64::from(f32::MAX)) as f32,
            offset: ((151.0 - (score - SLACK) * log2e) * UNIT) as f32,
            floor: f32::max(adjusted.floor(floor), f32::MIN),
        }
    }

    #[inline]
    fn lets(&self, value: f32, word: u32) -> bool {
        let bits = ((!word >> 8) as f32).to_bits();
        bits as f32 <= (value - self.max) * self.scale + self.offset
    }
}

fn portable(noise: &Noise, first: u32, values: &[f32; BLOCK], bound: &Bound) -> u64 {
    let mut passed = 0;
    for (i, values) in (0u32..).zip(values.as_chunks::<4>().0) {
        // Most tokens fail whatever their word.
        if values.iter().all(|value| *value < bound.floor) {
            continue;
        }
        let counter = [first + i, noise.position, noise.choice, STREAM];
        let words = philox(noise.key, counter);
        for (j, (value, word)) in (0u32..).zip(values.iter().zip(words)) {
            passed |= u64::from(bound.lets(*value, word)) << (4 * i + j);
        }
    }
    passed
}

/// The noise that a random word stands for. Spec 6.2.
fn gumbel(word: u32) -> f64 {
    let uniform = (f64::from(word) + 0.5) / 4_294_967_296.0;
    -libm::log(-libm::log(uniform))
}

#[cfg(test)]
mod tests;
