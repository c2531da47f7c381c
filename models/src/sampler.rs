//! Draws tokens: position-addressed, without any state.
//!
//! Every number is a pure function of the parameters, the logits and the
//! position, so that a verifier can check any position alone. Normative in
//! `docs/spec/sampling.md`, whose rules are cited here; what is faster than the
//! rules must give the same. Start at [`Sampler::sample`].

use std::collections::BTreeMap;

use protocol::sampling::Sampling;

use crate::math;
use crate::model::ModelConfig;
use crate::token_mask::TokenMask;

mod noise;
mod survivors;

use noise::Noise;
use survivors::Survivors;

/// Draws the tokens of one request.
#[derive(Debug, Clone)]
pub struct Sampler {
    parameters: Sampling,
    vocab: usize,
    /// What may not be drawn before `min_tokens`.
    ends: Vec<u32>,
}

/// A drawn token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drawn {
    /// Its id.
    pub token: u32,
}

/// Why no token could be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// The logits contain NaN or infinity, or the parameters make them so.
    #[error("the logits aren't finite numbers")]
    NotFinite,
    /// Every token is excluded.
    #[error("every token is excluded")]
    Nothing,
    /// Not one logit for each token.
    #[error("{found} logits for a vocabulary of {expected}")]
    Length {
        /// Tokens in the vocabulary.
        expected: usize,
        /// Logits given.
        found: usize,
    },
}

/// Raw log-probabilities at one position, before any sampling parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Logprobs {
    /// The chosen token's.
    pub chosen: f32,
    /// The likeliest tokens', descending, ties by id.
    pub top: Vec<(u32, f32)>,
}

impl Sampler {
    /// A sampler for these parameters and this model.
    pub fn new(sampling: &Sampling, model: &ModelConfig) -> Sampler {
        let mut ends = sampling.stop_token_ids.clone();
        if !sampling.ignore_eos {
            ends.extend_from_slice(&model.eos);
        }
        Sampler {
            parameters: sampling.clone(),
            vocab: model.vocab,
            ends,
        }
    }

    /// Draws the token at `position` (its index in prompt and output together) for `choice`.
    ///
    /// A pure function of its arguments: any position can be checked alone.
    pub fn sample(
        &self,
        choice: u8,
        position: u32,
        logits: &[f32],
        prompt: &[u32],
        output_so_far: &[u32],
    ) -> Result<Drawn, SampleError> {
        self.sample_masked(choice, position, logits, prompt, output_so_far, None)
    }

    /// Like [`Sampler::sample`], where only the tokens of `mask` may be drawn.
    pub fn sample_masked(
        &self,
        choice: u8,
        position: u32,
        logits: &[f32],
        prompt: &[u32],
        output_so_far: &[u32],
        mask: Option<&TokenMask>,
    ) -> Result<Drawn, SampleError> {
        if logits.len() != self.vocab {
            return Err(SampleError::Length {
                expected: self.vocab,
                found: logits.len(),
            });
        }
        if !math::all_finite(logits) {
            return Err(SampleError::NotFinite);
        }
        let mut values: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
        self.adjust(&mut values, prompt, output_so_far);
        self.exclude(&mut values, output_so_far.len(), mask);
        let best = self.best(&values)?;
        if self.parameters.temperature == 0.0 {
            return Ok(Drawn { token: best }); // spec 4.1
        }
        // spec 4.2
        let max = values[best as usize];
        for value in &mut values {
            *value = (*value - max) / self.parameters.temperature;
        }
        let survivors = Survivors::of(&values, &self.parameters);
        let noise = Noise::new(self.parameters.seed, position, choice);
        Ok(Drawn {
            token: noise.winner(&values, &survivors, best),
        })
    }

    /// Bias and penalties. Spec 3.1 to 3.4.
    fn adjust(&self, values: &mut [f64], prompt: &[u32], output: &[u32]) {
        let Sampling {
            repetition_penalty,
            presence_penalty,
            frequency_penalty,
            ..
        } = self.parameters;
        for (&id, bias) in &self.parameters.logit_bias {
            if let Some(value) = values.get_mut(id as usize) {
                *value += bias; // spec 3.1
            }
        }
        if repetition_penalty != 1.0 {
            // spec 3.2
            for id in tally(prompt.iter().chain(output)).into_keys() {
                let Some(value) = values.get_mut(id as usize) else {
                    continue;
                };
                let divide = *value > 0.0;
                *value = if divide {
                    *value / repetition_penalty
                } else {
                    *value * repetition_penalty
                };
            }
        }
        if frequency_penalty != 0.0 || presence_penalty != 0.0 {
            // spec 3.3 and 3.4
            for (id, count) in tally(output) {
                let Some(value) = values.get_mut(id as usize) else {
                    continue;
                };
                *value -= frequency_penalty * f64::from(count);
                *value -= presence_penalty;
            }
        }
    }

    /// What mustn't be drawn. Spec 3.5 and 3.6.
    fn exclude(&self, values: &mut [f64], drawn: usize, mask: Option<&TokenMask>) {
        let none_but_ends = |mask: &TokenMask| mask.ids().all(|id| self.ends.contains(&id));
        if let Some(mask) = mask {
            for (id, value) in (0u32..).zip(values.iter_mut()) {
                if !mask.allows(id) {
                    *value = f64::NEG_INFINITY;
                }
            }
        }
        if drawn < self.parameters.min_tokens as usize && !mask.is_some_and(none_but_ends) {
            for &id in &self.ends {
                if let Some(value) = values.get_mut(id as usize) {
                    *value = f64::NEG_INFINITY;
                }
            }
        }
    }

    /// The token with the greatest value, the lowest id of several.
    fn best(&self, values: &[f64]) -> Result<u32, SampleError> {
        let (mut best, mut max) = (0, f64::NEG_INFINITY);
        for (id, &value) in (0u32..).zip(values) {
            if value > max {
                (best, max) = (id, value);
            }
            if value.is_nan() || value == f64::INFINITY {
                return Err(SampleError::NotFinite);
            }
        }
        if max == f64::NEG_INFINITY {
            Err(SampleError::Nothing)
        } else {
            Ok(best)
        }
    }
}

fn tally<'a>(ids: impl IntoIterator<Item = &'a u32>) -> BTreeMap<u32, u32> {
    let mut counts = BTreeMap::new();
    for &id in ids {
        *counts.entry(id).or_insert(0) += 1;
    }
    counts
}

/// Log-softmax of the logits: the chosen token's, and the `k` likeliest.
pub fn log_softmax_top(logits: &[f32], k: usize, chosen: u32) -> Logprobs {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits
        .iter()
        .map(|&logit| f64::from(math::exp(logit - max)))
        .sum();
    let log_sum = libm::log(sum);
    let logprob = |id: u32| (f64::from(logits[id as usize] - max) - log_sum) as f32;
    let top = survivors::greatest(logits, k);
    Logprobs {
        chosen: logprob(chosen),
        top: top.into_iter().map(|id| (id, logprob(id))).collect(),
    }
}

#[cfg(test)]
mod tests;
