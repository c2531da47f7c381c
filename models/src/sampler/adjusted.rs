//! The values that tokens compete with: logits after bias, penalties and
//! exclusions, and how far below the greatest they lie. Spec 3 and 4.
//!
//! Most tokens keep their logit. They stay the f32 they are, in one array that
//! loops can run over (`bulk`); the few that a rule changes are listed beside
//! it as f64 (`extras`), with −∞ in their place. Excluded tokens are −∞ and in
//! no list.

use protocol::sampling::Sampling;

use super::blocks::{self, BLOCK};
use super::{Input, SampleError, Sampler};
use crate::token_mask::TokenMask;

/// Every token's value at one position.
pub(super) struct Adjusted<'a> {
    /// Values of the tokens that no rule has changed; −∞ for others.
    pub bulk: &'a [f32],
    /// The greatest of each [`BLOCK`] of `bulk`.
    pub maxima: &'a [f32],
    /// Values of tokens that some rule has changed.
    pub extras: &'a [(u32, f64)],
    /// The token with the greatest value, of several the one with the lowest id.
    pub best: (u32, f64),
    /// The temperature.
    pub temperature: f64,
    pub level: crate::exact::Level,
}

/// Memory for one draw.
#[derive(Default)]
pub(super) struct Scratch {
    bulk: Vec<f32>,
    maxima: Vec<f32>,
    extras: Vec<(u32, f64)>,
    tally: Tally,
    found: Found,
}

/// Memory for lists of tokens.
#[derive(Default)]
pub(super) struct Found {
    /// Tokens and their distances from the best.
    pub tokens: Vec<(f64, u32)>,
    /// A copy of the maxima.
    pub maxima: Vec<f32>,
    /// Tokens' weights.
    pub weights: Vec<u64>,
    /// Their sums, block by block.
    pub sums: Vec<u64>,
}

/// Above this temperature bounds in f32 mean nothing, and every token is looked at.
pub(super) const HOT: f64 = 1e20;

impl<'a> Adjusted<'a> {
    /// Applies the rules; what is left of the scratch is for `survivors`.
    pub fn new(
        sampler: &Sampler,
        input: &Input<'a>,
        scratch: &'a mut Scratch,
    ) -> Result<(Adjusted<'a>, &'a mut Found), SampleError> {
        let Scratch {
            bulk: copy,
            maxima,
            extras,
            tally,
            found,
        } = scratch;
        let logits = input.logits;
        if logits.len() != sampler.vocab {
            return Err(SampleError::Length {
                expected: sampler.vocab,
                found: logits.len(),
            });
        }
        maxima.resize(logits.len().div_ceil(BLOCK), 0.0);
        if !blocks::survey(sampler.level, logits, maxima) {
            return Err(SampleError::NotFinite);
        }
        extras.clear();
        let bulk = if changes_nothing(sampler, input) {
            logits
        } else {
            tally.count(&sampler.parameters, input, logits.len());
            extras.extend(tally.values(&sampler.parameters, logits));
            copy.clear();
            copy.extend_from_slice(logits);
            for (id, _) in extras.iter() {
                copy[*id as usize] = f32::NEG_INFINITY;
            }
            exclude(sampler, input, copy, extras);
            if extras.iter().any(|(_, value)| !value.is_finite()) {
                return Err(SampleError::NotFinite); // spec 3.7
            }
            blocks::survey(sampler.level, copy, maxima);
            copy
        };
        let best = best(bulk, maxima, extras).ok_or(SampleError::Nothing)?;
        let adjusted = Adjusted {
            bulk,
            maxima,
            extras,
            best,
            temperature: sampler.parameters.temperature,
            level: sampler.level,
        };
        Ok((adjusted, found))
    }

    /// How far below the best a value lies (spec 4.2).
    #[inline]
    pub fn distance(&self, value: f64) -> f64 {
        (value - self.best.1) / self.temperature
    }

    /// A token's value; −∞ if it is excluded.
    pub fn value(&self, id: u32) -> f64 {
        match self.bulk.get(id as usize) {
            Some(value) if *value > f32::NEG_INFINITY => f64::from(*value),
            _ => {
                let extra = self.extras.iter().find(|(extra, _)| *extra == id);
                extra.map_or(f64::NEG_INFINITY, |(_, value)| *value)
            }
        }
    }

    /// A value that every token has, or more, whose distance is at least `distance`; few others
    /// have it.
    pub fn floor(&self, distance: f64) -> f32 {
        if self.temperature > HOT {
            return f32::NEG_INFINITY;
        }
        let (best, below) = (self.best.1, distance * self.temperature);
        // The rounding of `distance` is below 2^−51 of it.
        let slack = (best.abs() + below.abs()) / f64::from(1u32 << 30) / 1024.0;
        round_down(best + below - slack)
    }

    /// Calls `take(id, value)` for every token that isn't excluded and whose value is at least
    /// `floor`.
    pub fn each_from(&self, floor: f32, mut take: impl FnMut(u32, f64)) {
        let floor = f32::max(floor, f32::MIN);
        let blocks = self.bulk.chunks(BLOCK).zip(self.maxima);
        for (first, (block, max)) in (0u32..).step_by(BLOCK).zip(blocks) {
            if *max < floor {
                continue;
            }
            for (id, value) in (first..).zip(block) {
                if *value >= floor {
                    take(id, f64::from(*value));
                }
            }
        }
        for (id, value) in self.extras {
            if *value >= f64::from(floor) || floor == f32::MIN {
                take(*id, *value);
            }
        }
    }
}

/// The greatest f32 that isn't above `x`.
pub(super) fn round_down(x: f64) -> f32 {
    let near = x as f32;
    if f64::from(near) > x {
        near.next_down()
    } else {
        near
    }
}

fn changes_nothing(sampler: &Sampler, input: &Input) -> bool {
    let Sampling {
        logit_bias,
        repetition_penalty,
        presence_penalty,
        frequency_penalty,
        min_tokens,
        ..
    } = &sampler.parameters;
    let penalties = *presence_penalty != 0.0 || *frequency_penalty != 0.0;
    logit_bias.is_empty()
        && *repetition_penalty == 1.0
        && (!penalties || input.output.is_empty())
        && input.output.len() >= *min_tokens as usize
        && input.mask.is_none()
}

/// What mustn't be drawn. Spec 3.5 and 3.6.
fn exclude(sampler: &Sampler, input: &Input, bulk: &mut [f32], extras: &mut Vec<(u32, f64)>) {
    let none_but_ends = |mask: &TokenMask| mask.ids().all(|id| sampler.ends.contains(&id));
    if let Some(mask) = input.mask {
        blocks::keep(sampler.level, mask.words(), bulk);
        extras.retain(|(id, _)| mask.allows(*id));
    }
    let early = input.output.len() < sampler.parameters.min_tokens as usize;
    if early && !input.mask.is_some_and(none_but_ends) {
        for &id in &sampler.ends {
            if let Some(value) = bulk.get_mut(id as usize) {
                *value = f32::NEG_INFINITY;
            }
        }
        extras.retain(|(id, _)| !sampler.ends.contains(id));
    }
}

fn best(bulk: &[f32], maxima: &[f32], extras: &[(u32, f64)]) -> Option<(u32, f64)> {
    let mut best = None;
    let max = maxima
        .iter()
        .fold(f32::NEG_INFINITY, |a, b| f32::max(a, *b));
    if max > f32::NEG_INFINITY {
        let block = maxima.iter().position(|m| *m == max)?;
        let first = block * BLOCK;
        let at = bulk[first..].iter().position(|value| *value == max)?;
        best = Some(((first + at) as u32, f64::from(max)));
    }
    for &(id, value) in extras {
        let better = |(leader, max)| value > max || value == max && id < leader;
        if best.is_none_or(better) {
            best = Some((id, value));
        }
    }
    best
}

/// The tokens that some rule changes, and how often the output has each.
#[derive(Default)]
struct Tally {
    /// For each id: 0, or [`Tally::TOUCHED`] and flags and the count in the output.
    marks: Vec<u32>,
    /// The ids with a mark, in the order of meeting them.
    touched: Vec<u32>,
}

impl Tally {
    /// Some rule may change it.
    const TOUCHED: u32 = 1 << 31;
    /// It occurs in the prompt or the output, and that counts.
    const SEEN: u32 = 1 << 30;
    const COUNT: u32 = Self::SEEN - 1;

    fn count(&mut self, parameters: &Sampling, input: &Input, vocab: usize) {
        for id in self.touched.drain(..) {
            self.marks[id as usize] = 0;
        }
        self.marks.resize(vocab, 0);
        for id in parameters.logit_bias.keys() {
            self.mark(*id, 0, 0);
        }
        let repetition = parameters.repetition_penalty != 1.0;
        let penalties = parameters.presence_penalty != 0.0 || parameters.frequency_penalty != 0.0;
        let seen = if repetition { Self::SEEN } else { 0 };
        if repetition {
            input.prompt.iter().for_each(|id| self.mark(*id, seen, 0));
        }
        if repetition || penalties {
            input.output.iter().for_each(|id| self.mark(*id, seen, 1));
        }
    }

    #[inline]
    fn mark(&mut self, id: u32, seen: u32, count: u32) {
        let Some(mark) = self.marks.get_mut(id as usize) else {
            return; // spec 2.5
        };
        if *mark == 0 {
            self.touched.push(id);
        }
        *mark = (*mark | Self::TOUCHED | seen) + count;
    }

    /// The values of these tokens. Spec 3.1 to 3.4.
    fn values(&self, parameters: &Sampling, logits: &[f32]) -> impl Iterator<Item = (u32, f64)> {
        self.touched.iter().map(|&id| {
            let mark = self.marks[id as usize];
            let mut value = f64::from(logits[id as usize]);
            if let Some(bias) = parameters.logit_bias.get(&id) {
                value += bias; // spec 3.1
            }
            if mark & Self::SEEN != 0 {
                // spec 3.2
                value = if value > 0.0 {
                    value / parameters.repetition_penalty
                } else {
                    value * parameters.repetition_penalty
                };
            }
            let count = mark & Self::COUNT;
            if count > 0 {
                // spec 3.3 and 3.4
                value -= parameters.frequency_penalty * f64::from(count);
                value -= parameters.presence_penalty;
            }
            (id, value)
        })
    }
}
